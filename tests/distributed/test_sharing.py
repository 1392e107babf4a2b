"""Work that processes share out: the order of its results, its errors, and evaluations."""

import pytest

from anaphora.distributed import ALONE, from_main, shared

SHARED = """
import numpy as np
from anaphora.distributed import from_main, shared, world

w = world()
worked = []

def square(n):
    worked.append(n)
    if n == 5:
        raise ValueError("five")
    return {n: np.full(n, n * n)}

for count in (0, 1, 3, 4):
    worked.clear()
    found = list(shared(w, range(count), square))
    assert [item for item, _ in found] == list(range(count))
    assert all((result[n] == np.full(n, n * n)).all() for n, result in found)
    assert worked == list(range(w.rank, count, w.size)), worked

def numbers(count, error=None):
    yield from range(count)
    if error:
        raise error

def results(items):
    found = []
    try:
        for item, result in shared(w, items, square):
            found.append(item)
    except Exception as error:
        found.append(str(error).rpartition(": ")[2])
    return found

assert results(range(9)) == [0, 1, 2, "five"]  # a round of three fails as a whole
assert results(numbers(5, OSError("no more"))) == [0, 1, 2, 3, 4, "no more"]
assert results(from_main(w, numbers(5, OSError("no more")))) == [0, 1, 2, 3, 4, "no more"]
assert list(from_main(w, ["a", None, "b"] if w.is_main else [])) == ["a", None, "b"]
w.barrier()
if w.is_main:
    print("all is right")
"""


def test_work_is_shared_out(launch, script):
    out, errors = launch(3, [script(SHARED)])
    assert out == "all is right\n", errors


def test_one_process_does_all_work_lazily():
    done = []
    results = shared(ALONE, from_main(ALONE, iter(range(9))), lambda n: done.append(n) or -n)
    assert next(results) == (0, 0)
    assert next(results) == (1, -1)
    assert done == [0, 1]


EVALUATIONS = """
import numpy as np
from anaphora import nn, random
from anaphora.data import Batch, PairBatches, SequenceBatches, WordTokenizer, cover
from anaphora.distributed import world
from anaphora.models import EncoderDecoder, LanguageModel, SequenceClassifier
from anaphora.training import evaluate
from anaphora.training.measures import ClassMeasure, TranslationMeasure

w = world()
random.seed(2)
rng = np.random.default_rng(1)

def check(model, batches, measure=lambda: None):
    seen, expected_seen = [], []
    expected_measure, found_measure = measure(), measure()
    expected = evaluate(model, batches, expected_seen.append, expected_measure)
    found = evaluate(model, batches, seen.append, found_measure, w)
    assert found == expected, (found, expected)
    assert seen == expected_seen
    assert len(seen) > 3
    if measure() is not None:
        assert found.more and found_measure.details() == expected_measure.details()
    return found

for dtype in (np.float32, np.float64):
    for lengths in (None, "lengths"):
        model = LanguageModel(17, hidden_size=7, num_layers=2, dropout=0.5, dtype=dtype)
        batches = cover(rng.integers(0, 17, 301), 5, 9, 0)
        if lengths:
            batches = [
                Batch(b.inputs, b.targets, np.maximum(1, (b.targets >= 0).sum(axis=0)))
                for b in batches
            ]
        check(model, batches)
check(model, cover(rng.integers(0, 17, 90), 2, 9))  # fewer streams than processes

class Own(LanguageModel):
    def loss(self, batch, state=None):
        loss, state = super().loss(batch, state)
        return 2 * loss, state

own = Own(17, hidden_size=7)
batches = cover(rng.integers(0, 17, 90), 4, 5)
once = LanguageModel(17, hidden_size=7)
once.load_state_dict(own.state_dict())
assert abs(check(own, batches).loss - 2 * check(once, batches).loss) < 1e-6

series = [rng.standard_normal((n, 3)).astype(np.float32) for n in rng.integers(1, 9, 41)]
classes = rng.integers(0, 4, 41)  # one that the model lacks
classifier = SequenceClassifier(3, hidden_size=5, input_size=3)
found = check(classifier, SequenceBatches(series, classes, 6), lambda: ClassMeasure("abcd"))
assert 0 < found.correct < 41

sentences = [rng.integers(0, 9, n) for n in rng.integers(2, 7, 23)]
translator = EncoderDecoder(9, 9, hidden_size=8, end_id=0)
words = WordTokenizer(["<eos>", *"abcdefgh"], start_id=0)
ends = np.cumsum([0, *map(len, sentences)])
target = np.concatenate([np.append(s[1:], 0) for s in sentences])
pairs = PairBatches(np.concatenate(sentences), ends, target, ends, 4, 0)
check(translator, pairs, lambda: TranslationMeasure(translator, words))

class Stop(Exception):
    pass

def stop(tokens):
    if w.rank == 2:
        raise Stop("enough")

for model, batches in (classifier, SequenceBatches(series, classes, 6)), (once, batches):
    try:
        evaluate(model, batches, stop, processes=w)
    except Stop as error:
        assert str(error).endswith("enough")
    else:
        raise AssertionError("rank 2 alone stops")
w.barrier()
if w.is_main:
    print("all is right")
"""


def test_evaluations_have_the_bits_of_one_process(launch, script):
    pytest.importorskip("sacrebleu", reason="needs the extra translation")
    out, errors = launch(3, [script(EVALUATIONS)])
    assert out == "all is right\n", errors


STOPPED = """
import numpy as np
from anaphora import random
from anaphora.data import SequenceBatches
from anaphora.distributed import world
from anaphora.models import SequenceClassifier
from anaphora.optim import SGD
from anaphora.training import Callback, Trainer, TrainingOptions, evaluate

w = world()
random.seed(2)
rng = np.random.default_rng(1)
series = [rng.standard_normal((n, 3)).astype(np.float32) for n in rng.integers(1, 9, 40)]
batches = SequenceBatches(series, rng.integers(0, 3, 40), 4)
model = SequenceClassifier(3, hidden_size=5, input_size=3)

class Watch(Callback):
    records, seen = [], []

    def on_evaluation_batch(self, trainer, done, total):
        self.seen.append((done, total))
        if w.rank == 1 and len(self.seen) == 25:
            trainer.request_stop("enough")

    def on_record(self, trainer, record):
        if record["kind"] == "evaluation":
            self.records.append(record)

own = []

def count(model, batches, on_batch, processes):
    loss = model.loss
    model.loss = lambda *given: own.append(1) or loss(*given)
    try:
        return evaluate(model, batches, on_batch, processes=processes)
    finally:
        model.loss = loss

options = TrainingOptions(max_steps=9, evaluate_every=2, epochs=None, shards=2)
trainer = Trainer(model, SGD(model.parameters(), 0.1), batches, options, validation=batches,
                  callbacks=[Watch()], evaluator=count)
assert trainer.run() == "enough"
assert [record["step"] for record in Watch.records] == [2, 4]
assert trainer.progress.step == 6 and trainer.progress.evaluated_step == 4
assert Watch.seen[:20] == [(k, 10) for k in range(1, 11)] * 2
assert len(Watch.seen) == 25 and len(own) == 5 + 5 + 3, own  # half of the batches
losses = w.all_gather([record["loss"] for record in Watch.records])
assert losses[0] == losses[1]
w.barrier()
if w.is_main:
    print("all is right")
"""


def test_evaluations_of_a_training_are_shared_and_stop_together(launch, script):
    out, errors = launch(2, [script(STOPPED)])
    assert out == "all is right\n", errors
