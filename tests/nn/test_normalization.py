"""Normalization and pooling: ragged batches, running statistics, messages. Parity: tests/parity."""

import re

import numpy as np
import pytest

from anaphora import engine, nn, ops
from anaphora.tensor import Tensor

LENGTHS = np.array([6, 0, 4, 7])


def sequences(features=4, dtype=np.float64):
    """[7, 4, features], with NaN in the padding."""
    x = np.random.default_rng(2).normal(size=(7, 4, features)).astype(dtype) + 1
    x[np.arange(7)[:, None] >= LENGTHS] = np.nan
    return x


def filled(module):
    for k, tensor in enumerate((*module.parameters(), *module.buffers())):
        if tensor.dtype.kind == "f":
            with tensor.writing() as array:
                array[...] = np.random.default_rng(k).uniform(0.5, 1.5, array.shape)
    return module


def rows_of(x):
    return np.concatenate([x[:n, b] for b, n in enumerate(LENGTHS)])


@pytest.mark.parametrize("batch_first", [False, True])
def test_batch_normalization_reads_the_steps_of_sequences_only(batch_first):
    x = sequences()
    flat, ragged = (filled(nn.BatchNorm1d(4, dtype=np.float64)) for _ in range(2))
    ragged.batch_first = batch_first
    for mode in (True, False):
        flat.train(mode)
        ragged.train(mode)
        expected = flat(rows_of(x)).data
        y = ragged(x.swapaxes(0, 1) if batch_first else x, lengths=LENGTHS).data
        y = y.swapaxes(0, 1) if batch_first else y
        np.testing.assert_allclose(rows_of(y), expected, rtol=1e-12)
        assert not y[np.arange(7)[:, None] >= LENGTHS].any()
    for one, other in zip(flat.buffers(), ragged.buffers(), strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-12)


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="needs the native engine")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_changes_no_bit_of_batch_normalization(dtype, batch_first, rng):
    T, B, I = 90, 7, 19
    lengths = [90, 3, 0, 64, 65, 1, 40]
    x, dy = rng.standard_normal((2, B, T, I)).astype(dtype)
    found = []
    for more in (0, 1, 70):  # steps after the longest sequence
        padded = [np.pad(a, ((0, 0), (0, more), (0, 0)), constant_values=7) for a in (x, dy)]
        given = [a if batch_first else a.swapaxes(0, 1) for a in padded]
        norm = nn.BatchNorm1d(I, batch_first=batch_first, dtype=dtype)
        inputs = Tensor(given[0], requires_grad=True)
        y = norm(inputs, lengths)
        y.backward(given[1])
        rows = [a if batch_first else a.swapaxes(0, 1) for a in (y.data, inputs.grad)]
        rest = norm.weight.grad, norm.bias.grad, norm.running_mean.data, norm.running_var.data
        found.append([*(np.ascontiguousarray(a[:, :T]) for a in rows), *rest])
    for others in found[1:]:
        for array, expected in zip(others, found[0], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_gradients_of_batch_normalization(rng, check_gradients):
    x, weight, bias = rng.normal(size=(5, 3, 4)), rng.normal(size=4), rng.normal(size=4)
    where = rng.random((5, 3)) < 0.6
    for mask in (None, where):
        check_gradients(lambda *a, m=mask: ops.batch_norm(*a, where=m)[0], x, weight, bias)
        check_gradients(lambda x, m=mask: ops.batch_norm(x, where=m)[0], x)
    _, mean, variance = ops.batch_norm(x, where=where)
    np.testing.assert_allclose(mean.data, x[where].mean(axis=0))
    np.testing.assert_allclose(variance.data, x[where].var(axis=0))


def test_running_statistics_are_saved_and_change_in_training_only():
    norm = nn.BatchNorm1d(3)
    assert list(norm.state_dict()) == [
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    ]  # fmt: skip
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    norm(x)
    state = norm.state_dict()
    np.testing.assert_allclose(state["running_mean"], 0.1 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state["running_var"], 0.9 + 0.1 * x.var(axis=0, ddof=1), rtol=1e-5)
    assert state["num_batches_tracked"] == 1
    norm.eval()(x + 1)
    for name, values in norm.state_dict().items():
        np.testing.assert_array_equal(values, state[name])
    again = nn.BatchNorm1d(3).eval()
    again.load_state_dict(state)
    np.testing.assert_array_equal(again(x).data, norm(x).data)
    norm.reset_parameters()
    assert not norm.running_mean.data.any()
    assert norm.num_batches_tracked.item() == 0


@pytest.mark.parametrize("batch_first", [False, True])
def test_group_normalization_of_a_sequence_does_not_read_its_padding(batch_first):
    norm = filled(nn.GroupNorm(2, 4, batch_first=batch_first, dtype=np.float64))
    x = sequences()
    y = norm(x.swapaxes(0, 1) if batch_first else x, lengths=LENGTHS).data
    y = y.swapaxes(0, 1) if batch_first else y
    for b, n in enumerate(LENGTHS):
        if n:
            np.testing.assert_allclose(
                y[:n, b],
                norm(x[:n, b][:, None] if not batch_first else x[:n, b][None]).data.reshape(n, 4),
                rtol=1e-10,
            )
        assert not y[n:, b].any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(
            (kind, o)
            for kind in (nn.MaxPool1d, nn.AvgPool1d)
            for o in ({}, {"stride": 2, "padding": 1})
        ),
        *(
            (kind, {"stride": stride, "ceil_mode": True, "padding": 1})
            for kind in (nn.MaxPool1d, nn.AvgPool1d)
            for stride in (2, 3, 4)
        ),
        (nn.AvgPool1d, {"stride": 2, "count_include_pad": False, "padding": 1}),
        (nn.AvgPool1d, {"stride": 2, "count_include_pad": False, "padding": 1, "ceil_mode": True}),
        (nn.MaxPool1d, {"stride": 2, "ceil_mode": True}),
        (nn.MaxPool1d, {"stride": 1, "dilation": 2, "padding": 2}),
    ],
    ids=str,
)
def test_pooled_sequences_have_the_outputs_that_they_have_alone(kind, options):
    pool = kind(3, **options)
    x = sequences()
    y = pool(x, lengths=LENGTHS)
    found = pool.output_lengths(LENGTHS)
    for b, (n, steps) in enumerate(zip(LENGTHS, found, strict=True)):
        if n:
            alone = pool(x[:n, b])
            assert alone.shape == (steps, 4)
            np.testing.assert_array_equal(y.data[:steps, b], alone.data)
        assert not y.data[steps:, b].any()


def test_gradients_of_pooling_and_group_and_rms_normalization(rng, check_gradients):
    x = rng.normal(size=(6, 2, 4))
    lengths = [6, 3]
    check_gradients(lambda x: nn.MaxPool1d(3, 2, 1)(x, lengths), x)
    check_gradients(lambda x: nn.AvgPool1d(3, 2, 1)(x, lengths), x)
    check_gradients(lambda x: nn.AvgPool1d(3, 2, 1, True, False)(x, lengths), x)
    check = {
        "group": filled(nn.GroupNorm(2, 4, dtype=np.float64)),
        "rms": filled(nn.RMSNorm(4, dtype=np.float64)),
    }

    def group(x):
        return check["group"].to(x.dtype)(x, lengths)

    def rms(x):
        return check["rms"].to(x.dtype)(x)

    check_gradients(group, x)
    check_gradients(rms, x)


def test_highway_mixes_its_input_with_a_transformation(rng):
    layer = nn.Highway(3, num_layers=2, dtype=np.float64)
    x = rng.normal(size=(5, 2, 3))
    expected = x
    for k in range(2):
        gate, transform = layer.gates[k], layer.transforms[k]
        np.testing.assert_array_equal(gate.bias.data, -2)
        t = 1 / (1 + np.exp(-(expected @ gate.weight.data.T + gate.bias.data)))
        h = np.maximum(expected @ transform.weight.data.T + transform.bias.data, 0)
        expected = t * h + (1 - t) * expected
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)
    assert list(layer.state_dict())[:2] == ["transforms.0.weight", "transforms.0.bias"]


def test_what_does_not_fit_is_told():
    for call, message in (
        (
            lambda: nn.BatchNorm1d(3)(np.ones((5, 4))),
            "BatchNorm1d: an input of shape (5, 4); expec",
        ),
        (lambda: nn.BatchNorm1d(3)(np.ones((1, 3))), "BatchNorm1d: a batch of one row in training"),
        (lambda: nn.BatchNorm1d(3)(np.ones((5, 2, 3)), lengths=[6, 1]), "lengths from 1 to 6, but"),
        (
            lambda: ops.batch_norm(np.ones((2, 3)), np.ones(2)),
            "a weight of shape (2,); expected (3",
        ),
        (lambda: ops.batch_norm(np.ones((2, 3)), where=[False] * 2), "no row counts"),
        (lambda: nn.GroupNorm(3, 4), "num_channels=4 must be a multiple of num_groups=3"),
        (
            lambda: nn.RMSNorm(3)(np.ones((5, 4))),
            "RMSNorm: an input of shape (5, 4); its last axis",
        ),
        (
            lambda: nn.MaxPool1d(3)(np.ones((2, 4))),
            "MaxPool1d: 2 steps, with padding, are fewer th",
        ),
        (lambda: nn.MaxPool1d(3, padding=2), "padding 2 is more than half of kernel_size=3"),
        (lambda: nn.AvgPool1d(3)(np.ones(4)), "shape (4,); expected [T, B, I] or [T, I]: time bef"),
        (
            lambda: nn.Embedding(5, 3, padding_idx=5),
            "padding_idx 5 is outside the table of 5 vecto",
        ),
        (
            lambda: nn.Embedding.from_pretrained(np.ones(3)),
            "vectors of shape (3,); expected [V, E]",
        ),
        (lambda: nn.Embedding.from_pretrained([[np.nan]]), "expected [V, E], and all finite"),
        (lambda: nn.CrossEntropyLoss(reduction="max"), "CrossEntropyLoss: reduction 'max' is not"),
        (
            lambda: nn.CrossEntropyLoss()(np.ones((2, 3, 4)), np.ones((2, 4), int)),
            "whose last axis",
        ),
        (lambda: nn.BCELoss()([1.5], [1]), "probability 1.5 is outside 0..1; of logits use binary"),
        (lambda: nn.BCELoss()([np.nan], [1]), "probability nan is outside 0..1"),
        (
            lambda: nn.CTCLoss()(np.ones((3, 2, 4)), [1, 2, 3], [3, 3], [1, 1]),
            "3 labels in one list",
        ),
        (lambda: nn.MultiheadAttention(5, 2), "embed_dim=5 must be a multiple of num_heads=2"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    attention = nn.MultiheadAttention(4, 2)
    q, k = np.ones((3, 2, 4), np.float32), np.ones((5, 2, 4), np.float32)
    for call, message in (
        (
            lambda: attention(q, k[:, :1], k),
            "a key of shape (5, 1, 4); expected (5, 2, 4), time be",
        ),
        (
            lambda: attention(q, k, k, attn_mask=np.ones((5, 3))),
            "attn_mask of shape (5, 3); expect",
        ),
        (lambda: attention(q, k, k, np.ones((5, 2))), "key_padding_mask of shape (5, 2); expected"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_a_query_that_may_attend_to_nothing_has_no_weights():
    attention = nn.MultiheadAttention(4, 2)
    x = np.ones((3, 2, 4), np.float32)
    y, weights = attention(x, x, x, lengths=[3, 0])
    assert not weights.data[1].any()
    np.testing.assert_allclose(y.data[:, 1], np.tile(attention.out_proj.bias.data, (3, 1)))
    assert attention(x, x, x, need_weights=False)[1] is None
    random_rows = nn.MultiheadAttention(4, 2, dropout=0.5)
    assert not np.array_equal(random_rows(x, x, x)[0].data, random_rows(x, x, x)[0].data)
    random_rows.eval()
    np.testing.assert_array_equal(random_rows(x, x, x)[0].data, random_rows(x, x, x)[0].data)


def test_binary_cross_entropy_of_probabilities(rng, check_gradients):
    p, y = rng.uniform(0.1, 0.9, (5, 3)), rng.uniform(0, 1, (5, 3))
    where = rng.random((5, 3)) < 0.6
    weight = rng.uniform(0.5, 2, 3)
    losses = -weight * (y * np.log(p) + (1 - y) * np.log(1 - p))
    for reduction, expected in (
        ("mean", losses[where].mean()), ("sum", losses[where].sum()), ("none", losses * where),
    ):  # fmt: skip
        found = ops.binary_cross_entropy(p, y, weight, where, reduction)
        np.testing.assert_allclose(found.data, expected, rtol=1e-12)
        check_gradients(lambda p, r=reduction: ops.binary_cross_entropy(p, y, weight, where, r), p)


def test_pretrained_vectors_are_copied_and_frozen():
    vectors = np.random.default_rng(1).normal(size=(4, 3))
    table = nn.Embedding.from_pretrained(vectors, padding_idx=1)
    assert (table.num_embeddings, table.embedding_dim, table.weight.dtype) == (4, 3, np.float64)
    np.testing.assert_array_equal(table.weight.data, vectors)  # also of the padding
    assert not table.weight.requires_grad
    vectors[0] = 9
    assert not (table.weight.data == 9).any()
    tuned = nn.Embedding.from_pretrained(vectors.astype(np.float32), freeze=False)
    tuned([1, 1]).sum().backward()
    np.testing.assert_array_equal(tuned.weight.grad.indices, [1])
    with tuned.weight.writing() as array:
        array[0] = 1


def test_tensors_are_not_converted_silently():
    x = Tensor(np.ones((5, 2, 3)))
    for module in (nn.BatchNorm1d(3), nn.RMSNorm(3), nn.GroupNorm(1, 3), nn.Highway(3)):
        with pytest.raises(TypeError, match="float64 for a layer of float32"):
            module(x)
