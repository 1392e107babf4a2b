"""Modules against PyTorch's, with the weights of PyTorch's: values, gradients, state dicts."""

import copy
import itertools

import numpy as np
import pytest

from anaphora import nn
from anaphora.tensor import RowGradient, Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-9, "atol": 1e-10}}


def twins(ours, theirs, dtype):
    """The two modules with the same random weights, moved by load_state_dict both ways."""
    torch.manual_seed(5)
    theirs.to(getattr(torch, np.dtype(dtype).name))
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        if tensor.dtype.is_floating_point:
            torch.nn.init.uniform_(tensor, 0.2, 1.5)
            if tensor.requires_grad:
                with torch.no_grad():
                    tensor *= torch.where(torch.rand_like(tensor) < 0.5, -1, 1)
    ours.to(dtype)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    return ours, theirs


def dense(gradient):
    return gradient.dense() if isinstance(gradient, RowGradient) else gradient


def compare(ours, theirs, arrays, dtype, layout=None, call=None):
    """Values, and the gradients of inputs and parameters for one random gradient.

    `layout` are the axes of PyTorch's input and output by ours.
    """
    tensors = [Tensor(np.asarray(a, dtype), requires_grad=True) for a in arrays]
    peers = [
        torch.tensor(np.ascontiguousarray(t.data.transpose(layout) if layout else t.data))
        .requires_grad_() for t in tensors
    ]  # fmt: skip
    back = np.argsort(layout) if layout else None

    def of_peer(tensor):
        array = tensor.detach().numpy()
        return array.transpose(back) if layout else array

    y, peer = (call or (lambda module, *xs: module(*xs)))(ours, *tensors), theirs(*peers)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.data, of_peer(peer), **TOLERANCE[dtype])
    dy = np.random.default_rng(3).normal(size=y.shape).astype(dtype)
    y.backward(dy)
    peer.backward(torch.tensor(np.ascontiguousarray(dy.transpose(layout) if layout else dy)))
    for tensor, other in zip(tensors, peers, strict=True):
        np.testing.assert_allclose(tensor.grad, of_peer(other.grad), **TOLERANCE[dtype])
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy() if parameter.grad is not None else None
        np.testing.assert_allclose(dense(found[name].grad), expected, **TOLERANCE[dtype])
    states = ours.state_dict()
    for name, tensor in theirs.state_dict().items():  # running statistics
        np.testing.assert_allclose(states[name], tensor.numpy(), **TOLERANCE[dtype])
        assert states[name].dtype == tensor.numpy().dtype


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


# Cells


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["RNNCell", "RNNCell relu", "GRUCell", "LSTMCell"])
def test_a_loop_of_cells_is_pytorchs(name, bias, dtype):
    kind, _, nonlinearity = name.partition(" ")
    options = {"nonlinearity": nonlinearity} if nonlinearity else {}
    ours, theirs = twins(
        getattr(nn, kind)(3, 4, bias, **options),
        getattr(torch.nn, kind)(3, 4, bias, **options),
        dtype,
    )
    count = 2 if kind == "LSTMCell" else 1

    def loop(module, x, *states):
        state = states if count == 2 else states[0]
        total = 0.0
        for t in range(5):
            state = module(x[t], state)
            h = state[0] if count == 2 else state
            total = total + h * (t + 1.0)
        return total + (state[1] if count == 2 else 0.0)

    arrays = [normal(5, 2, 3), *(normal(2, 4) for _ in range(count))]

    class Loop(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = theirs

        def forward(self, *inputs):
            return loop(theirs, *inputs)

        def named_parameters(self):
            return theirs.named_parameters()

        def state_dict(self):
            return theirs.state_dict()

    compare(ours, Loop(), arrays, dtype, call=loop)
    one = [x.astype(dtype)[0, 0] for x in (normal(5, 2, 3),)]
    y, peer = ours(*one), theirs(*map(torch.tensor, one))  # a single sequence, no state
    y, peer = (y[0], peer[0]) if count == 2 else (y, peer)
    assert y.shape == (4,)
    np.testing.assert_allclose(y.data, peer.detach().numpy(), **TOLERANCE[dtype])


# Activations and losses

ACTIVATIONS = {
    "ReLU": {}, "Tanh": {}, "Sigmoid": {}, "Softplus": {}, "SiLU": {}, "GELU": {},
    "ELU": {"alpha": 1.5}, "LeakyReLU": {"negative_slope": 0.3}, "Identity": {}, "Flatten": {},
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    options = ACTIVATIONS[name]
    compare(
        getattr(nn, name)(**options), getattr(torch.nn, name)(**options), [normal(2, 3, 5)], dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_with_options(dtype):
    x = [normal(3, 4, 5)]
    compare(nn.GELU("tanh"), torch.nn.GELU("tanh"), x, dtype)
    compare(nn.Softmax(axis=1), torch.nn.Softmax(dim=1), x, dtype)
    compare(nn.Softmax(), torch.nn.Softmax(dim=-1), x, dtype)
    compare(nn.LogSoftmax(axis=0), torch.nn.LogSoftmax(dim=0), x, dtype)
    compare(nn.Flatten(0, 1), torch.nn.Flatten(0, 1), x, dtype)
    compare(nn.GLU(axis=1), torch.nn.GLU(dim=1), x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slopes", [1, 5])
def test_trained_slopes(slopes, dtype):
    ours, theirs = nn.PReLU(slopes, 0.3), torch.nn.PReLU(slopes, 0.3)
    assert ours.weight.data.tolist() == theirs.weight.tolist()
    ours, theirs = twins(ours, theirs, dtype)
    compare(ours, theirs, [normal(3, 4, 5)], dtype, layout=(0, 2, 1))


def compare_losses(ours, theirs, prediction, target, dtype, rtol=None):
    x = Tensor(prediction.astype(dtype), requires_grad=True)
    peer = torch.tensor(x.data, requires_grad=True)
    theirs = theirs.to(peer.dtype)
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    loss, other = ours(x, target), theirs(peer, torch.tensor(target))
    np.testing.assert_allclose(loss.data, other.detach().numpy(), **TOLERANCE[dtype])
    assert loss.dtype == dtype
    dy = np.random.default_rng(3).normal(size=loss.shape).astype(dtype)
    loss.backward(dy)
    other.backward(torch.tensor(dy))
    tolerance = TOLERANCE[dtype] | ({} if rtol is None else {"rtol": rtol})
    np.testing.assert_allclose(x.grad, peer.grad.numpy(), **tolerance)


REDUCTIONS = ["mean", "sum", "none"]
WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_classes(reduction, dtype):
    logits, targets = normal(6, 4), np.array([0, 3, 1, 2, 2, 3])
    for options in (
        {},
        {"ignore_index": 2},
        {"weight": WEIGHTS, "label_smoothing": 0.1},
        {"weight": WEIGHTS, "ignore_index": 3},
    ):
        theirs = {k: torch.tensor(v) if k == "weight" else v for k, v in options.items()}
        compare_losses(
            nn.CrossEntropyLoss(**options, reduction=reduction),
            torch.nn.CrossEntropyLoss(**theirs, reduction=reduction),
            logits,
            targets,
            dtype,
        )
        if "ignore_index" not in options:
            probabilities = np.abs(normal(6, 4))
            compare_losses(
                nn.CrossEntropyLoss(**options, reduction=reduction),
                torch.nn.CrossEntropyLoss(**theirs, reduction=reduction),
                logits,
                probabilities / probabilities.sum(axis=1, keepdims=True),
                dtype,
            )
        options.pop("label_smoothing", None)
        theirs.pop("label_smoothing", None)
        compare_losses(
            nn.NLLLoss(**options, reduction=reduction),
            torch.nn.NLLLoss(**theirs, reduction=reduction),
            -np.abs(logits),
            targets,
            dtype,
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_numbers(reduction, dtype):
    prediction, target = normal(5, 3) * 2, normal(3, 5).T
    for name, options in (
        ("MSELoss", {}), ("L1Loss", {}), ("HuberLoss", {"delta": 0.7}),
        ("SmoothL1Loss", {"beta": 0.7}), ("SmoothL1Loss", {"beta": 0.0}),
    ):  # fmt: skip
        ours, theirs = (getattr(m, name)(**options, reduction=reduction) for m in (nn, torch.nn))
        compare_losses(ours, theirs, prediction, target, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_binary_targets(reduction, dtype):
    logits = normal(5, 3) * 2
    targets = (normal(3, 5).T > 0).astype(float)
    targets[0] = 0.25
    weights = np.array([0.5, 2.0, 1.5])
    probabilities = 1 / (1 + np.exp(-logits))
    probabilities[1, :2] = [0, 1]
    for options in ({}, {"weight": weights}):
        theirs = {k: torch.tensor(v) for k, v in options.items()}
        for name, x in (("BCELoss", probabilities), ("BCEWithLogitsLoss", logits)):
            compare_losses(
                getattr(nn, name)(**options, reduction=reduction),
                getattr(torch.nn, name)(**theirs, reduction=reduction),
                x,
                targets,
                dtype,
                rtol=2e-5 if dtype == np.float32 else 1e-8,  # PyTorch has 1e-12 in float32
            )
    compare_losses(
        nn.BCEWithLogitsLoss(pos_weight=weights, reduction=reduction),
        torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights), reduction=reduction),
        logits,
        targets,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("in_one_list", [False, True])
def test_ctc_loss_has_pytorchs_arguments(in_one_list, reduction, dtype):
    logits = normal(7, 3, 4).astype(dtype)
    steps, counts = [7, 5, 2], [3, 1, 2]
    targets = np.array([[1, 3, 2], [2, 0, 0], [3, 3, 0]])  # the last is impossible
    given = np.concatenate([row[:n] for row, n in zip(targets, counts, strict=True)])
    given = given if in_one_list else targets
    ours = nn.CTCLoss(reduction=reduction, zero_infinity=True)
    theirs = torch.nn.CTCLoss(reduction=reduction, zero_infinity=True)
    x = Tensor(logits, requires_grad=True)
    peer = torch.tensor(logits, requires_grad=True)
    loss = ours(nn.LogSoftmax()(x), given, steps, counts)
    other = theirs(
        torch.log_softmax(peer, -1), torch.tensor(given), torch.tensor(steps), torch.tensor(counts)
    )
    np.testing.assert_allclose(loss.data, other.detach().numpy(), **TOLERANCE[dtype])
    loss.sum().backward()
    other.sum().backward()
    np.testing.assert_allclose(x.grad, peer.grad.numpy(), **TOLERANCE[dtype])
    endless = nn.CTCLoss(reduction="none")(x, given, steps, counts)
    assert np.isposinf(endless.data).tolist() == [False, False, True]


# Layers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 1, "padding": 1}], ids=str)
def test_pooling(options, dtype):
    x = [normal(9, 2, 4)]
    layout = (1, 2, 0)
    for name in ("MaxPool1d", "AvgPool1d"):
        ours, theirs = (getattr(m, name)(3, **options) for m in (nn, torch.nn))
        compare(ours, theirs, x, dtype, layout)
        ours.batch_first = True
        y = ours(x[0].swapaxes(0, 1))
        np.testing.assert_array_equal(
            y.data.swapaxes(0, 1), getattr(nn, name)(3, **options)(x[0]).data
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", range(6, 12))
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("counted", [True, False])
def test_means_of_windows_that_are_cut(counted, stride, T, dtype):
    for padding, ceil_mode in itertools.product((0, 1), (True, False)):
        options = {"padding": padding, "ceil_mode": ceil_mode, "count_include_pad": counted}
        ours, theirs = (m.AvgPool1d(3, stride, **options) for m in (nn, torch.nn))
        compare(ours, theirs, [normal(T, 2, 4)], dtype, (1, 2, 0))


@pytest.mark.parametrize("T", range(7, 14))
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_windows_that_are_dilated_or_cut(padding, dilation, stride, T):
    for ceil_mode in (False, True):
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        ours, theirs = (m.MaxPool1d(3, **options, ceil_mode=ceil_mode) for m in (nn, torch.nn))
        compare(ours, theirs, [normal(T, 2, 4)], np.float64, (1, 2, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}], ids=str)
def test_batch_normalization_of_sequences_and_rows(options, dtype):
    def made(**more):
        return twins(nn.BatchNorm1d(4, **options), torch.nn.BatchNorm1d(4, **options), dtype)

    ours, theirs = made()
    for _ in range(3):  # in training, whose running statistics move
        compare(ours, theirs, [normal(9, 2, 4) * 3 + 1], dtype, (1, 2, 0))
        ours.zero_grad()
        theirs.zero_grad()
    compare(ours.eval(), theirs.eval(), [normal(5, 4)], dtype)
    compare(*made(), [normal(5, 4)], dtype)
    ours = nn.BatchNorm1d(4, track_running_stats=False).to(dtype).eval()
    theirs = torch.nn.BatchNorm1d(4, track_running_stats=False, dtype=torch.float64).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    compare(ours, theirs.to(getattr(torch, np.dtype(dtype).name)), [normal(5, 4)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
def test_group_normalization(affine, dtype):
    def made():
        return twins(nn.GroupNorm(3, 6, 0.1, affine), torch.nn.GroupNorm(3, 6, 0.1, affine), dtype)

    compare(*made(), [normal(5, 2, 6)], dtype, (1, 2, 0))
    compare(*made(), [normal(5, 6)], dtype)
    ours, theirs = made()
    ours.batch_first = True
    compare(ours, theirs, [normal(5, 2, 6)], dtype, (0, 2, 1))
    compare(*made(), [normal(5, 6)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_normalization(dtype):
    if not hasattr(torch.nn, "RMSNorm"):
        pytest.skip("this PyTorch has no RMSNorm")
    x = [normal(5, 2, 6)]
    compare(*twins(nn.RMSNorm(6), torch.nn.RMSNorm(6), dtype), x, dtype)
    compare(*twins(nn.RMSNorm(6, 0.1), torch.nn.RMSNorm(6, 0.1), dtype), x, dtype)
    compare(
        nn.RMSNorm(6, elementwise_affine=False).to(dtype),
        torch.nn.RMSNorm(6, elementwise_affine=False),
        x,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding_idx", [2, -1])
def test_an_embedding_with_padding(padding_idx, dtype):
    ours = nn.Embedding(5, 3, padding_idx)
    theirs = torch.nn.Embedding(5, 3, padding_idx)
    assert ours.padding_idx == theirs.padding_idx
    np.testing.assert_array_equal(ours.weight.data == 0, theirs.weight.detach().numpy() == 0)
    ours, theirs = twins(ours, theirs, dtype)
    ids = np.array([[2, 4, 0], [2, 2, 4]])
    y, peer = ours(ids), theirs(torch.tensor(ids))
    np.testing.assert_array_equal(y.data, peer.detach().numpy())
    dy = normal(2, 3, 3).astype(dtype)
    y.backward(dy)
    peer.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.weight.grad.dense(), theirs.weight.grad.numpy(), rtol=1e-6)


# Attention of several heads


def attentions(dtype, **options):
    return twins(
        nn.MultiheadAttention(6, 3, **options), torch.nn.MultiheadAttention(6, 3, **options), dtype
    )


def compare_attention(ours, theirs, arrays, dtype, **arguments):
    tensors = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    peers = [torch.tensor(t.data, requires_grad=True) for t in tensors]
    of_peer = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    (y, weights), (other, others) = ours(*tensors, **arguments), theirs(*peers, **of_peer)
    np.testing.assert_allclose(y.data, other.detach().numpy(), **TOLERANCE[dtype])
    np.testing.assert_allclose(weights.data, others.detach().numpy(), **TOLERANCE[dtype])
    dy = normal(*y.shape).astype(dtype)
    (y * dy).sum().backward()
    (other * torch.tensor(dy)).sum().backward()
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(found[name].grad, parameter.grad.numpy(), **TOLERANCE[dtype])
    for tensor, peer in zip(tensors, peers, strict=True):
        np.testing.assert_allclose(tensor.grad, peer.grad.numpy(), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 4}], ids=str)
def test_attention_of_several_heads(options, dtype):
    K, V = options.get("kdim", 6), options.get("vdim", 6)
    arrays = [normal(4, 2, 6), normal(5, 2, K), normal(5, 2, V) * 2]
    compare_attention(*attentions(dtype, **options), arrays, dtype)
    compare_attention(
        *attentions(dtype, **options), [a[:, 0] for a in arrays], dtype, average_attn_weights=False
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_attention(dtype):
    arrays = [normal(5, 2, 6), normal(4, 2, 6), normal(4, 3, 6)[:, :2]]
    padding = np.array([[False, False, True, False], [False, True, True, False]])
    triangle = np.triu(np.ones((5, 4), bool), 1)
    added = normal(5, 4).astype(dtype)
    infinite = np.where(triangle, -np.inf, 0).astype(dtype)
    per_head = np.random.default_rng(1).random((6, 5, 4)) < 0.3
    for mask in (triangle, added, infinite, per_head):
        compare_attention(*attentions(dtype), arrays, dtype, attn_mask=mask)
    compare_attention(*attentions(dtype), arrays, dtype, key_padding_mask=padding)
    ours, theirs = attentions(dtype, batch_first=True)
    first = [a.swapaxes(0, 1).copy() for a in arrays]
    compare_attention(ours, theirs, first, dtype, key_padding_mask=padding)
    lengths = np.array([4, 2])
    y, weights = attentions(dtype)[0](*(a.astype(dtype) for a in arrays), lengths=lengths)
    expected, of_mask = attentions(dtype)[0](
        *(a.astype(dtype) for a in arrays), key_padding_mask=np.arange(4) >= lengths[:, None]
    )
    np.testing.assert_array_equal(y.data, expected.data)
    np.testing.assert_array_equal(weights.data, of_mask.data)
    causal, _ = attentions(dtype)[0](*(a.astype(dtype) for a in arrays), is_causal=True)
    masked, _ = attentions(dtype)[0](*(a.astype(dtype) for a in arrays), attn_mask=triangle)
    np.testing.assert_array_equal(causal.data, masked.data)


# Containers


def test_names_in_containers_are_pytorchs():
    def made(m):
        class Model(m.Module):
            def __init__(self):
                super().__init__()
                self.layers = m.ModuleList([m.Linear(2, 3), m.LSTM(3, 2), m.Linear(2, 2)])
                self.heads = m.ModuleDict({"a": m.Linear(2, 1), "b": m.BatchNorm1d(2)})
                self.scales = m.ParameterList([m.Parameter(values) for values in start(m)])
                self.named = m.ParameterDict({"x": m.Parameter(start(m)[0])})
                self.nested = m.ModuleList([m.ModuleList([m.Linear(1, 2)])])

        return Model()

    def start(m):
        arrays = [np.ones(2, np.float32), np.ones(3, np.float32)]
        return arrays if m is nn else [torch.tensor(a) for a in arrays]

    ours, theirs = made(nn), made(torch.nn)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    assert ours.load_state_dict(copy.deepcopy(theirs.state_dict())) == ([], [])
    np.testing.assert_array_equal(
        ours.layers[1].weight_hh_l0.data, theirs.layers[1].weight_hh_l0.detach().numpy()
    )
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert {n for n, _ in ours.named_buffers()} == {n for n, _ in theirs.named_buffers()}
