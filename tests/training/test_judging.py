"""Which weights are kept, accumulated gradients, averaged weights, and limits in minutes."""

import itertools
import math

import numpy as np
import pytest

from anaphora import nn, ops, random
from anaphora.artifact import ModelDirectory
from anaphora.data import SequenceBatches, batchify, cover
from anaphora.models import LanguageModel
from anaphora.optim import SGD, Adam, ReduceOnPlateau
from anaphora.tensor import Parameter, Tensor
from anaphora.training import (
    Callback,
    Evaluation,
    Trainer,
    TrainingOptions,
    evaluate,
)
from anaphora.training import trainer as trainer_module

V = 11
IDS = np.random.default_rng(4).integers(0, V, 200)


class Slope(nn.Module):
    """Its loss is its one parameter, which falls by the learning rate in each update."""

    def __init__(self):
        self.weight = Parameter([10.0])

    def loss(self, batch, state=None):
        return self.weight.sum()


class Watch(Callback):
    def __init__(self):
        self.records, self.notices, self.batches = [], [], []

    def on_record(self, trainer, record):
        self.records.append(dict(record))

    def on_notice(self, trainer, sentence):
        self.notices.append(sentence)

    def on_evaluation_batch(self, trainer, done, total):
        self.batches.append((done, total))

    def evaluations(self, name):
        return [record[name] for record in self.records if record["kind"] == "evaluation"]


def judged(evaluations, *, schedule=None, **options):
    """Train where the evaluations are given; which weights were kept, and what was said."""
    given, kept, watch = iter(evaluations), [], Watch()
    model = Slope()
    optimizer = SGD(model.parameters(), 1.0)
    given_options = {"max_steps": len(evaluations), "evaluate_every": 1, "clip_norm": 0, **options}
    trainer = Trainer(
        model, optimizer, [None] * 100, TrainingOptions(**given_options), validation=[None],
        schedule=schedule and schedule(optimizer),
        save_model=lambda record: kept.append((record["step"], model.weight.item())),
        callbacks=[watch], evaluator=lambda model, batches, on_batch: next(given),
    )  # fmt: skip
    reason = trainer.run()
    return trainer, reason, kept, watch


def of_accuracy(correct, loss, tokens=100):
    return Evaluation(loss, tokens, correct, "classes")


# The best weights -------------------------------------------------------------------------------


def test_the_monitored_figure_decides_and_the_loss_breaks_ties():
    evaluations = [
        of_accuracy(70, 0.5), of_accuracy(77, 0.9), of_accuracy(76, 0.4), of_accuracy(77, 0.9),
        of_accuracy(77, 0.8), of_accuracy(77, 0.85),
    ]  # fmt: skip
    trainer, _, kept, watch = judged(evaluations, monitor="accuracy")
    assert kept == [(1, 9.0), (2, 8.0), (5, 5.0)]
    assert watch.evaluations("best") == [True, True, False, False, True, False]
    assert (trainer.progress.best, trainer.progress.best_loss) == (0.77, 0.8)
    assert trainer.progress.evaluations_since_best == 1
    assert not watch.notices
    _, _, kept, _ = judged(evaluations)  # by the loss
    assert [step for step, _ in kept] == [1, 3]


def test_patience_counts_by_the_monitored_figure():
    evaluations = [of_accuracy(50 + k // 2, 1.0 - k / 100) for k in range(6)]
    evaluations += [of_accuracy(52, 0.1 - k / 100) for k in range(1, 4)]
    trainer, reason, _, _ = judged(
        [*evaluations, *[of_accuracy(51, 0.0)] * 9], monitor="accuracy", patience=2
    )
    assert reason == "2 evaluations without improvement"
    assert trainer.progress.step == 9 + 2  # ties with a lower loss are better


def test_figures_of_an_evaluator_of_ones_own():
    evaluations = [Evaluation(1.0, 60, more={"span_f1": f1}) for f1 in (0.3, 0.6, math.nan, 0.5)]
    trainer, _, kept, watch = judged(evaluations, monitor="span_f1")
    assert [step for step, _ in kept] == [1, 2]
    assert trainer.progress.best == 0.6
    assert watch.evaluations("span_f1")[:2] == [0.3, 0.6]
    trainer, _, _, _ = judged([Evaluation(2.0, 9, loss_kind="tokens")], monitor="perplexity")
    assert trainer.progress.best == math.exp(2)


def test_a_figure_that_is_not_there_is_reported():
    message = "no figure 'span_f1'; monitor one of loss, accuracy"
    with pytest.raises(ValueError, match=message):
        judged([of_accuracy(1, 1.0)], monitor="span_f1")
    with pytest.raises(ValueError, match="monitor 'f2' is not one of auto, loss, perplexity"):
        TrainingOptions(epochs=1, monitor="f2")


def test_with_few_targets_the_last_weights_are_kept_and_it_is_said_once():
    evaluations = [of_accuracy(k, 1.0, tokens=49) for k in (9, 20, 8, 7)]
    trainer, reason, kept, watch = judged(evaluations, monitor="accuracy", patience=1)
    assert [step for step, _ in kept] == [1, 2, 3, 4]
    assert reason == "4 steps done"
    assert watch.evaluations("best") == [True] * 4
    assert trainer.progress.best == 7 / 49
    assert watch.notices == [
        "49 validation targets are too few to select the best weights by accuracy (at least 50): "
        "the last are kept"
    ]
    # The loss is no count, and one target more is enough.
    _, _, kept, watch = judged(evaluations)
    assert ([step for step, _ in kept], watch.notices) == ([1], [])
    evaluations = [of_accuracy(k, 1.0, tokens=50) for k in (9, 20, 8, 7)]
    _, _, kept, watch = judged(evaluations, monitor="accuracy")
    assert ([step for step, _ in kept], watch.notices) == ([1, 2], [])


def test_the_schedule_sees_the_loss_whatever_is_monitored():
    evaluations = [of_accuracy(k, loss) for k, loss in ((50, 1.0), (60, 2.0), (70, 3.0))]
    trainer, _, _, _ = judged(evaluations, monitor="accuracy", schedule=ReduceOnPlateau)
    assert trainer.optimizer.learning_rate == 0.25


def test_a_checkpoint_of_before_there_was_a_figure_has_the_loss_as_its_best():
    progress = trainer_module.Progress(step=3, best_loss=1.5)
    assert progress.best == 1.5


# Accumulation -----------------------------------------------------------------------------------


def ragged(rows):
    """Sequences of one length, so that batches of any size are cut from them in their order."""
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(rows, 5, 3))
    return inputs, rng.integers(0, 4, (rows, 5))


class Tagger(nn.Module):
    def __init__(self):
        self.recurrent = nn.LSTM(3, 6, dtype=np.float64)
        self.output = nn.Linear(6, 4, dtype=np.float64)

    def loss(self, batch, state=None):
        y, _ = self.recurrent(Tensor(batch.inputs))
        return ops.cross_entropy(self.output(y), batch.targets)


@pytest.mark.parametrize("loss_per", ["token", "sequence"])
@pytest.mark.parametrize("sizes", [(2, 3, 1), (6,), (1, 1, 4)])
def test_accumulated_batches_are_one_batch(loss_per, sizes):
    inputs, targets = ragged(6)
    targets[[0, 2], 3:] = -100  # batches have different numbers of targets
    results = []
    for cut in (sizes, (6,)):
        bounds = np.cumsum([0, *cut])
        cuts = [(list(inputs[a:b]), list(targets[a:b])) for a, b in itertools.pairwise(bounds)]
        parts = [SequenceBatches(x, y, batch_size=6, per_step=True)[0] for x, y in cuts]
        random.seed(5)
        model, watch = Tagger(), Watch()
        optimizer = Adam(model.parameters(), 0.1)
        options = TrainingOptions(
            max_steps=3, accumulate=len(cut), loss_per=loss_per, clip_norm=0.1, log_every=1
        )
        trainer = Trainer(model, optimizer, parts, options, callbacks=[watch])
        trainer.run()
        assert (trainer.progress.step, trainer.progress.epoch) == (3, 3)
        results.append((model.state_dict(), watch.records))
    (found, records), (expected, others) = results
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for record, other in zip(records, others, strict=True):
        for key in ("loss", "gradient_norm"):
            np.testing.assert_allclose(record.pop(key), other.pop(key), rtol=1e-9)
        assert {**record, "seconds": 0} == {**other, "seconds": 0}


def test_the_carried_state_goes_on_between_accumulated_batches():
    random.seed(6)
    model, seen = LanguageModel(V, hidden_size=5), []
    original = model.loss

    def loss(batch, state=None):
        seen.append(state)
        return original(batch, state)

    model.loss = loss
    options = TrainingOptions(epochs=1, accumulate=3)
    batches = batchify(IDS, 3, 20)  # 4 windows: 3 and 1
    trainer = Trainer(model, SGD(model.parameters(), 1e-30), batches, options)
    assert trainer.epoch_steps == 2
    trainer.run()
    assert (trainer.progress.step, trainer.progress.tokens) == (2, batches.tokens)
    state = None
    for batch, given in zip(batches, seen, strict=True):
        if state is None:
            assert given is None
        else:
            for part, expected in zip(given, state, strict=True):
                np.testing.assert_array_equal(part.data, expected.data)
                assert not part.requires_grad
        _, state = original(batch, state)


# Averages ---------------------------------------------------------------------------------------


def test_the_average_is_evaluated_and_saved_and_the_training_goes_on_with_the_weights():
    model, watch, kept = Slope(), Watch(), []
    options = TrainingOptions(max_steps=4, evaluate_every=2, ema_decay=0.5, clip_norm=0)
    trainer = Trainer(
        model, SGD(model.parameters(), 1.0), [None], options, validation=[None], callbacks=[watch],
        save_model=lambda record: kept.append(model.weight.item()),
    )  # fmt: skip
    trainer.run()
    average, averages = 0.0, []
    for n, value in enumerate((9.0, 8.0, 7.0, 6.0), start=1):
        average += (value - average) * max(0.5, 10 / (n + 9))
        averages.append(average)
    np.testing.assert_allclose(watch.evaluations("loss"), [averages[1], averages[3]], rtol=1e-6)
    np.testing.assert_allclose(kept, [averages[1], averages[3]], rtol=1e-6)
    assert model.weight.item() == 6.0


def test_the_average_is_saved_without_a_validation():
    model, kept = Slope(), []
    options = TrainingOptions(max_steps=2, ema_decay=0.5, clip_norm=0)
    trainer = Trainer(
        model, SGD(model.parameters(), 1.0), [None], options,
        save_model=lambda record: kept.append(model.weight.item()),
    )  # fmt: skip
    trainer.run()
    np.testing.assert_allclose(kept, [9 - 10 / 11], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be an integer of at least 1, not 0"),
        ({"ema_decay": 1.0}, "ema_decay must be >= 0 and < 1, not 1.0"),
        ({"ema_decay": 0.9, "optimizer": "asgd"}, "ema_decay and asgd both average the"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(epochs=1, **options)


# Minutes ----------------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets; it replaces the module `time`."""

    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds


class Timed(Slope):
    """An update takes a second, and a batch of an evaluation as long as is said."""

    def __init__(self, clock, evaluation):
        super().__init__()
        self.clock, self.evaluation = clock, evaluation

    def loss(self, batch, state=None):
        self.clock.seconds += 1.0 if self.training else self.evaluation
        return self.weight.sum()


def timed(monkeypatch, minutes, batch_seconds, validation=5, epoch=1000, directory=None, **options):
    clock, watch = Clock(), Watch()
    monkeypatch.setattr(trainer_module, "time", clock)
    model = Timed(clock, batch_seconds)
    trainer = Trainer(
        model, SGD(model.parameters(), 1e-6), [None] * epoch,
        TrainingOptions(minutes=minutes, **options), validation=[None] * validation,
        callbacks=[watch], directory=directory,
    )  # fmt: skip
    reason = trainer.run()
    return clock.seconds - 1000, trainer, reason, watch


@pytest.mark.parametrize("batch_seconds", [0.25, 1, 2])
@pytest.mark.parametrize("evaluate_every", [0, 7, 1000])
@pytest.mark.parametrize("minutes", [1, 3])
def test_minutes_include_the_evaluations(monkeypatch, minutes, evaluate_every, batch_seconds):
    seconds, trainer, reason, watch = timed(
        monkeypatch, minutes, batch_seconds, evaluate_every=evaluate_every
    )
    assert reason == f"{minutes} minutes are over"
    evaluation, sample = 5 * batch_seconds, 3 * batch_seconds
    assert 60 * minutes - evaluation - 1 <= seconds <= 60 * minutes + 2
    assert trainer.progress.seconds == seconds
    steps = watch.evaluations("step")
    assert len(steps) >= 2
    assert steps[-1] == trainer.progress.step
    assert seconds == trainer.progress.step + sample + len(steps) * evaluation
    if evaluate_every == 0:  # an epoch never ends: one at half of the time, one at the end
        assert len(steps) == 2
        assert steps[0] == math.ceil(30 * minutes - sample)


def test_an_evaluation_that_would_not_fit_a_second_time_is_the_last(monkeypatch):
    seconds, trainer, _, watch = timed(monkeypatch, 1, 1, validation=25)
    assert watch.evaluations("step") == [trainer.progress.step]
    assert 57 <= seconds <= 61
    assert not watch.notices


def test_evaluations_that_are_too_long_for_the_time_leave_half_of_it_and_it_is_said(monkeypatch):
    seconds, trainer, _, watch = timed(monkeypatch, 1, 2, validation=60)
    assert trainer.progress.step == 30 - 3 * 2
    assert seconds == 30 + 120
    assert watch.notices == [
        "an evaluation takes 2.0 minutes, more than half of 1: give more minutes, or less "
        "validation data"
    ]


def test_a_training_that_goes_on_counts_the_minutes_of_before(monkeypatch, tmp_path):
    directory = ModelDirectory.create(tmp_path / "model")
    timed(monkeypatch, 1, 1, directory=directory, checkpoint_seconds=1e6)
    clock = Clock()
    monkeypatch.setattr(trainer_module, "time", clock)
    model = Timed(clock, 1)
    trainer = Trainer(
        model, SGD(model.parameters(), 1e-6), [None] * 1000, TrainingOptions(minutes=2),
        validation=[None] * 5, directory=directory,
    )  # fmt: skip
    trainer.load_checkpoint()
    done = trainer.progress.seconds
    assert 53 <= done <= 61
    trainer.run()
    assert 113 <= clock.seconds - 1000 + done <= 121


def test_evaluations_tell_how_far_they_are():
    random.seed(6)
    model, watch = LanguageModel(V, hidden_size=5), Watch()
    validation = cover(IDS[:50], 1, 10)
    options = TrainingOptions(max_steps=2, evaluate_every=1)
    Trainer(
        model, SGD(model.parameters(), 0.1), batchify(IDS, 3, 4), options, validation=validation,
        callbacks=[watch],
    ).run()  # fmt: skip
    assert watch.batches == [(k + 1, 5) for k in range(5)] * 2
    assert watch.evaluations("loss")[-1] == evaluate(model, validation).loss
