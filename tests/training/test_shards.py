"""Batches in shards: their rows, and the sum of their gradients."""

import numpy as np
import pytest

from anaphora import ops, random
from anaphora.data import (
    Batch,
    SequenceBatches,
    SignalBatches,
    batchify,
    pair_batches,
)
from anaphora.data.forecasting import WindowBatches
from anaphora.distributed import ALONE
from anaphora.models import LanguageModel
from anaphora.optim import SGD
from anaphora.tensor import Parameter, RowGradient, Tensor
from anaphora.tensor.hooks import awaiting_gradients
from anaphora.training import Trainer, TrainingOptions, exchanges
from anaphora.training.shards import GradientSum, check_shards, shards_of


def batches(rng):
    """Batches of all kinds, of 5 rows, with the axis of the rows in each array."""
    series = [rng.normal(size=(t, 2)) for t in (3, 4, 4, 5, 5)]
    ids = [rng.integers(0, 9, len(one)) for one in series]
    lengths = {"inputs": 1, "lengths": 0}
    words = [[rng.integers(1, 9, 3) for _ in one] for one in series]
    source, target = np.tile([3, 4, 0], 5), np.tile([5, 6, 7, 1], 5)
    stream = rng.normal(size=(7, 5, 2))
    values = [rng.normal(size=(9, 3)), rng.normal(size=(8, 3))]
    windows = WindowBatches(
        values, [np.zeros((len(v), 4)) for v in values], past=1, context=2, horizon=2,
        batch_size=5, after=[4, 4], every=1, naive_errors=[np.ones(3), np.full(3, 2.0)],
    )  # fmt: skip
    return {
        "stream": (batchify(rng.integers(0, 9, 60), 5, 4)[0], {"inputs": 1, "targets": 1}),
        "classes": (SequenceBatches(series, np.arange(5), 5)[0], {**lengths, "targets": 0}),
        # As many numbers as rows and steps: their axis is not the rows'.
        "numbers": (
            SequenceBatches(series, rng.normal(size=(5, 5)), 5)[0], {**lengths, "targets": 0},
        ),
        "labels": (
            SequenceBatches(series, rng.random((5, 5)) > 0.5, 5)[0], {**lengths, "targets": 0},
        ),
        "tags": (
            SequenceBatches(ids, ids, 5, per_step=True, characters=words)[0],
            {**lengths, "targets": 1, "characters": 2, "character_lengths": 1},
        ),
        "pairs": (
            pair_batches(source, target, 5, end_id=1, source_end_id=0)[0],
            {**lengths, "targets": 1, "source": 1, "source_lengths": 0},
        ),
        "vectors": (
            pair_batches(rng.normal(size=(5, 3)), target, 5, end_id=1)[0],
            {**lengths, "targets": 1, "source": 0},
        ),
        "signals": (SignalBatches(stream, stream, 5)[0], {"inputs": 1, "targets": 1}),
        "windows": (
            windows[0],
            {
                **dict.fromkeys(("inputs", "targets", "features", "observed", "counted"), 1),
                "scored": 0, "naive_error": 0,
            },
        ),
    }  # fmt: skip


KINDS = ["stream", "classes", "numbers", "labels", "tags", "pairs", "vectors", "signals", "windows"]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_the_rows_in_order(rng, kind, count):
    batch, axes = batches(rng)[kind]
    parts = [part for part in shards_of(None, batch, count) if part is not None]
    sizes = [part.inputs.shape[1] for part in parts]
    assert len(parts) == min(count, 5)
    assert max(sizes) - min(sizes) <= 1
    arrays = {name: a for name, a in vars(batch).items() if isinstance(a, np.ndarray)}
    assert set(arrays) == set(axes)
    for name, axis in axes.items():
        assert arrays[name].shape[axis] == 5
        joined = np.concatenate([getattr(part, name) for part in parts], axis)
        np.testing.assert_array_equal(joined, arrays[name])
    assert sum(part.tokens for part in parts) == batch.tokens
    assert {type(part) for part in parts} == {type(batch)}


def test_a_model_can_cut_batches_of_its_own():
    class Cuts:
        def shard_batch(self, batch, number, count):
            return batch[number::count] or None

    assert shards_of(Cuts(), [5, 6, 7], 4) == [[5], [6], [7], None]
    with pytest.raises(TypeError, match="type list cannot be cut into 2 shards: give it a method"):
        shards_of(None, [5, 6], 2)


@pytest.mark.parametrize(
    ("given", "processes", "message"),
    [
        (1, 2, "2 processes cannot share 1 shard: start one, or start a new training"),
        (4, 8, "8 processes cannot share 4 shards: start 1, 2 or 4 processes, or start a new"),
        (6, 2, r"shards must be a power of two \(1, 2, 4, ...\), not 6"),
        (4, 3, "3 processes cannot share the shards .* start 2 or 4 processes"),
    ],
)
def test_processes_that_cannot_share_shards(given, processes, message):
    with pytest.raises(ValueError, match=message):
        check_shards(given, processes)


def test_random_numbers_of_a_shard_leave_the_others_alone():
    random.seed(2)
    state = random.get_state()
    found = {}
    for key in (3, 4):
        for shard in (0, 1, 0):
            with random.seeded((key, shard)):
                number = random.generator().random()
            assert found.setdefault((key, shard), number) == number
    assert len(set(found.values())) == 4
    assert random.get_state() == state


def gradients(kinds, rng):
    """Gradients of a table [6, 2] for each shard: absent, of some rows, or of all."""

    def one(kind):
        if kind == "absent":
            return None
        if kind == "dense":
            return rng.normal(size=(6, 2)).astype(np.float32)
        rows = rng.integers(0, 6, 4)
        return RowGradient(rows, rng.normal(size=(4, 2)).astype(np.float32), (6, 2))

    return [one(kind) for kind in kinds]


def add(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a + b


@pytest.mark.parametrize(
    "kinds",
    [
        ["dense"] * 4,
        ["rows"] * 4,
        ["absent"] * 4,
        ["rows", "dense", "absent", "rows"],
        ["absent", "absent", "dense", "rows"],
        ["dense", "absent", "absent", "absent"],
    ],
    ids=" ".join,
)
def test_gradients_are_summed_in_a_tree(rng, kinds):
    given = gradients(kinds, rng)
    expected = add(add(given[0], given[1]), add(given[2], given[3]))
    weight = Parameter(np.zeros((6, 2), np.float32))
    total = GradientSum([weight], ALONE)
    for k, one in enumerate(given):
        weight.grad = one if one is None or isinstance(one, RowGradient) else one.copy()
        if k < 3:
            total.end_shard()
    total.finish()
    if expected is None:
        assert weight.grad is None
    else:
        assert type(weight.grad) is type(expected)
        assert np.asarray(weight.grad).tobytes() == np.asarray(expected).tobytes()


def test_gradients_have_one_order_of_memory(rng):
    """In which their norm is summed, however many processes add them."""
    weight = Parameter(np.zeros((3, 4), np.float32))
    total = GradientSum([weight], ALONE)
    weight.grad = np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32))
    total.finish()
    assert weight.grad.flags.c_contiguous


def test_buckets_hold_every_parameter_once_last_first(monkeypatch):
    monkeypatch.setattr(exchanges, "_BUCKET_BYTES", 40)
    dtypes = [np.float32] * 4 + [np.float64] + [np.float32] * 2
    sizes = [3, 8, 8, 100, 2, 4, 1]
    parameters = [Parameter(np.zeros(n, d)) for n, d in zip(sizes, dtypes, strict=True)]
    assert exchanges.buckets(parameters) == [[6, 5], [4], [3], [2, 1], [0]]


# The backward pass says when a gradient is complete


def test_a_leaf_is_complete_after_its_last_use():
    order = []
    a, b, c = (Tensor(np.full(3, v), requires_grad=True) for v in (2.0, 3.0, 5.0))
    y = ((a * b) + b) * c * a  # the backward pass comes to c first
    with awaiting_gradients(lambda leaf: order.append((leaf, leaf.grad.copy()))):
        y.sum().backward()
    assert len(order) == 3
    assert order[0][0] is c
    assert {id(leaf) for leaf, _ in order[1:]} == {id(a), id(b)}
    for leaf, seen in order:
        np.testing.assert_array_equal(seen, leaf.grad)
    np.testing.assert_allclose(c.grad, np.full(3, (6 + 3) * 2.0))
    np.testing.assert_allclose(b.grad, np.full(3, (2 + 1) * 5 * 2.0))
    np.testing.assert_allclose(a.grad, np.full(3, 3 * 5 * 2 + 9 * 5.0))


def test_gradients_are_the_same_when_awaited(rng):
    """Of one array that is the gradient of several leaves, too."""

    def leaves():
        return [Tensor(np.arange(6.0).reshape(2, 3) + k, requires_grad=True) for k in range(3)]

    def backward(x, y, z):
        ((x + y) * z + x + y).sum().backward()

    plain, awaited = leaves(), leaves()
    backward(*plain)
    seen = []
    with awaiting_gradients(seen.append):
        backward(*awaited)
    assert {id(leaf) for leaf in seen} == {id(leaf) for leaf in awaited}
    assert len(seen) == 3
    for one, other in zip(plain, awaited, strict=True):
        assert one.grad.tobytes() == other.grad.tobytes()
    awaited[0].grad[...] = 0  # as clipping would
    assert awaited[1].grad.tobytes() == plain[1].grad.tobytes()


# Training


def train(given, count, **more):
    random.seed(4)
    model = LanguageModel(vocabulary_size=7, hidden_size=5, embedding_size=3)
    options = TrainingOptions(**{"epochs": 2, "shards": count, "clip_norm": 0.5, **more})
    trainer = Trainer(model, SGD(model.parameters(), 0.5), given, options)
    trainer.run()
    return trainer, [p.data.copy() for p in model.parameters()]


@pytest.mark.parametrize("loss_per", ["token", "sequence"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_shards_have_the_gradient_of_the_batch(rng, count, accumulate, loss_per):
    """To rounding, also where a shard has no row: there are 6 in a batch."""
    given = batchify(rng.integers(0, 7, 200), 6, 5)
    options = {"accumulate": accumulate, "loss_per": loss_per}
    one, expected = train(given, 1, **options)
    many, found = train(given, count, **options)
    assert one.progress.tokens == many.progress.tokens
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    assert any(a.tobytes() != b.tobytes() for a, b in zip(expected, found, strict=True))


def test_rows_without_targets_count_nothing(rng):
    ids = rng.integers(0, 7, (6, 4))
    targets = ids.copy()
    targets[:, 2:] = -100  # the second of two shards
    lengths = np.array([6, 6, 0, 0])
    given = [Batch(ids, targets, lengths)]
    one, expected = train(given, 1)
    two, found = train(given, 2)
    assert one.progress.tokens == two.progress.tokens == 2 * 12
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_dropout_differs_in_each_shard(rng):
    """The rows of all shards are the same, and without dropout so were their states."""
    ids = np.repeat(rng.integers(0, 7, (6, 1)), 4, axis=1)
    given = [Batch(ids, ids), Batch(ids, ids)]
    states = []

    class Seen(LanguageModel):
        def loss_and_penalty(self, batch, state=None):
            result = super().loss_and_penalty(batch, state)
            states.append(result[2][0].data.copy())
            return result

    for dropout in (0.0, 0.5):
        states.clear()
        random.seed(4)
        model = Seen(7, hidden_size=5, embedding_size=3, num_layers=2, dropout=dropout)
        options = TrainingOptions(max_steps=1, shards=4)
        Trainer(model, SGD(model.parameters(), 0.1), given, options).run()
        assert len(states) == 4
        assert len({state.tobytes() for state in states}) == (1 if dropout == 0 else 4)


def test_samples_of_ops_are_the_same_in_a_shard():
    with random.seeded((7, 3)):
        first = ops.dropout(Tensor(np.ones(50)), 0.5).data
    with random.seeded((7, 3)):
        assert ops.dropout(Tensor(np.ones(50)), 0.5).data.tobytes() == first.tobytes()
