"""Batches of sequences, signals and sampled tasks: what is in them, their order, and training."""

import numpy as np
import pytest

from anaphora import optim, random
from anaphora.data import (
    Batch,
    SampledBatches,
    SequenceBatches,
    SignalBatches,
    SpelledBatch,
    side_by_side,
)
from anaphora.models import SequenceClassifier, SequenceTagger
from anaphora.training import Trainer, TrainingOptions, evaluate

LENGTHS = [5, 2, 0, 7, 3, 2, 6]


@pytest.fixture
def series(rng):
    return [rng.standard_normal((length, 3)) for length in LENGTHS]


def test_sequences_are_padded_with_their_answers(series):
    batches = SequenceBatches(series, np.arange(7), batch_size=3)
    assert len(batches) == 3
    assert batches.tokens == 7
    found = set()
    for batch in batches:
        for b, number in enumerate(batch.targets):
            length = batch.lengths[b]
            np.testing.assert_array_equal(batch.inputs[:length, b], series[number])
            assert not batch.inputs[length:, b].any()
            found.add(number)
        assert len(batch.inputs) == batch.lengths.max()
    assert found == set(range(7))
    assert [batch.lengths.tolist() for batch in batches] == [[0, 2, 2], [3, 5, 6], [7]]


def test_an_epochs_order_follows_from_its_generator(series):
    batches = SequenceBatches(series, np.arange(7), batch_size=2)
    orders = []
    for seed in (1, 1, 2):
        shuffled = batches.shuffled(np.random.default_rng(seed))
        orders.append([batch.targets.tolist() for batch in shuffled])
        assert sorted(number for batch in orders[-1] for number in batch) == list(range(7))
    assert orders[0] == orders[1] != orders[2]


def test_targets_of_each_step_and_spellings(rng):
    words = [rng.integers(0, 9, length) for length in LENGTHS]
    tags = [rng.integers(0, 4, length) for length in LENGTHS]
    spelled = [[rng.integers(1, 5, rng.integers(0, 4)) for _ in ids] for ids in words]
    batches = SequenceBatches(words, tags, 3, per_step=True, characters=spelled)
    assert batches.tokens == sum(LENGTHS)
    numbers = {tuple(ids): number for number, ids in enumerate(words)}
    for batch in batches.shuffled(np.random.default_rng(1)):
        assert isinstance(batch, SpelledBatch)
        for b, length in enumerate(batch.lengths):
            number = numbers[tuple(batch.inputs[:length, b])]
            np.testing.assert_array_equal(batch.targets[:length, b], tags[number])
            assert (batch.targets[length:, b] == -100).all()
            assert not batch.character_lengths[length:, b].any()
            for t in range(length):
                count = batch.character_lengths[t, b]
                letters = batch.characters[:, t, b]
                np.testing.assert_array_equal(letters[:count], spelled[number][t])
                assert not letters[count:].any()


def test_numbers_as_targets_all_count(series, rng):
    targets = np.full((7, 2), -100.0)
    batches = SequenceBatches(series, targets, 4)
    assert [batch.targets.shape for batch in batches] == [(4, 2), (3, 2)]
    assert batches.tokens == 14


def test_signals_are_cut_into_windows_that_carry_the_state(rng):
    inputs, targets = rng.normal(size=(11, 2, 3)), rng.integers(0, 4, (11, 2))
    targets[:2] = -100
    batches = SignalBatches(inputs, targets, window=4)
    assert batches.carries_state
    assert batches.tokens == 18
    assert [len(batch.inputs) for batch in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), inputs)
    np.testing.assert_array_equal(np.concatenate([batch.targets for batch in batches]), targets)
    random.seed(1)
    model = SequenceTagger(4, hidden_size=5, input_size=3, dtype="float64")
    complete = evaluate(model, [Batch(inputs, targets)])
    assert evaluate(model, batches).loss == pytest.approx(complete.loss, rel=1e-12)


def sample(generator):
    x = generator.standard_normal((4, 5, 2)).astype(np.float32)
    return Batch(x, (x[0, :, 0] > 0).astype(int))


def test_sampled_batches_are_sampled_anew_each_epoch():
    batches = SampledBatches(sample, count=3, seed=1)
    again = SampledBatches(sample, count=3, seed=1)
    other = batches.shuffled(np.random.default_rng(1))
    assert batches.tokens == 15
    for k in (2, 0, 1):
        np.testing.assert_array_equal(batches[k].inputs, again[k].inputs)
        assert not np.array_equal(batches[k].inputs, other[k].inputs)
    assert not np.array_equal(batches[0].inputs, batches[1].inputs)
    with pytest.raises(IndexError):
        batches[3]


def test_the_training_loop_serves_a_classifier():
    random.seed(1)
    model = SequenceClassifier(2, hidden_size=8, input_size=2, cell="gru")
    validation = SampledBatches(sample, count=20, seed=7)
    before = evaluate(model, validation).loss
    trainer = Trainer(
        model,
        optim.Adam(model.parameters(), 0.02),
        SampledBatches(sample, count=50),
        TrainingOptions(epochs=4),
        validation=validation,
    )
    assert trainer.run() == "4 epochs done"
    assert trainer.progress.tokens == 1000
    assert trainer.progress.best_loss < 0.3 < before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: SequenceBatches([], [], 2), "there is no sequence"),
        (lambda x: SequenceBatches(x, [1, 2], 2), "2 targets for 7 sequences"),
        (
            lambda x: SequenceBatches(x, range(7), 0),
            "batch_size must be an integer of at least 1, not 0",
        ),
        (
            lambda x: SequenceBatches(x, [[1] * 5] * 7, 2, per_step=True),
            "sequence 1 has 2 steps and 5 targets",
        ),
        (
            lambda x: SequenceBatches(x, range(7), 2, characters=[[[1]] * 5] * 7),
            "sequence 1 has 2 steps and 5 spellings",
        ),
        (
            lambda x: SignalBatches(np.zeros((3, 2)), np.zeros((4, 2)), 2),
            "expected the same \\[N, B\\]",
        ),
        (
            lambda x: SignalBatches(np.zeros((3, 2)), np.zeros((3, 2)), 0),
            "window must be an integer of at least 1, not 0",
        ),
        (lambda x: SampledBatches(sample, 0), "count must be an integer of at least 1, not 0"),
    ],
)
def test_what_does_not_fit_is_refused(series, make, message):
    with pytest.raises(ValueError, match=message):
        make(series)


def test_what_counts_is_counted_once_for_all_orders(series):
    batches = SequenceBatches(series, np.arange(7), batch_size=2)
    assert batches.tokens == 7
    shuffled = batches.shuffled(np.random.default_rng(1))
    assert shuffled.tokens == 7
    assert sorted(np.concatenate(shuffled.order).tolist()) == list(range(7))
    assert [rows.tolist() for rows in batches.order] == [[2, 1], [5, 4], [0, 6], [3]]


def test_answering_keeps_the_order_of_what_was_asked(rng):
    words = [rng.integers(0, 9, length) for length in (3, 1, 2)]
    spelled = [[rng.integers(1, 5, rng.integers(1, 4)) for _ in ids] for ids in words]
    batch = side_by_side(words, spelled)
    assert batch.lengths.tolist() == [3, 1, 2]
    for b, ids in enumerate(words):
        np.testing.assert_array_equal(batch.inputs[: len(ids), b], ids)
        for t, word in enumerate(spelled[b]):
            assert batch.character_lengths[t, b] == len(word)
            np.testing.assert_array_equal(batch.characters[: len(word), t, b], word)
