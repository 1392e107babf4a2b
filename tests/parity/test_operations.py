"""Operations and plain layers against PyTorch's: values and gradients, both precisions."""

import numpy as np
import pytest

from anaphora import matmul_precision, nn, ops
from anaphora.engine.precision import rounded
from anaphora.tensor import RowGradient, Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
functional = torch.nn.functional

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-10}}


def compare(ours, theirs, arrays, dtype):
    """Run both on the same arrays and pull the same random gradient back."""
    arrays = [np.asarray(a, dtype) for a in arrays]
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, peer = ours(*tensors), theirs(*peers)
    assert y.shape == tuple(peer.shape)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.data, peer.detach().numpy(), **TOLERANCE[dtype])
    dy = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    y.backward(dy)
    peer.backward(torch.tensor(dy))
    for tensor, other in zip(tensors, peers, strict=True):
        dense = tensor.grad.dense() if isinstance(tensor.grad, RowGradient) else tensor.grad
        assert dense.dtype == dtype
        np.testing.assert_allclose(dense, other.grad.numpy(), **TOLERANCE[dtype])


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


WIDE = np.concatenate([normal(4, 5) * 30, [[-500, 0, 500, 20, -20]]])
TIES = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, -1.0, 3.0]])
POSITIVE = np.abs(normal(4, 5)) + 0.1

ONE_INPUT = {
    "sigmoid": (ops.sigmoid, torch.sigmoid, WIDE),
    "tanh": (ops.tanh, torch.tanh, WIDE),
    "relu": (ops.relu, torch.relu, np.concatenate([normal(4, 5), np.zeros((1, 5))])),
    "softplus": (ops.softplus, lambda x: functional.softplus(x, threshold=80), WIDE),
    "softmax": (ops.softmax, lambda x: torch.softmax(x, -1), WIDE),
    "softmax, first axis": (lambda x: ops.softmax(x, 0), lambda x: torch.softmax(x, 0), WIDE),
    "log_softmax": (ops.log_softmax, lambda x: torch.log_softmax(x, -1), WIDE),
    "log_softmax, middle axis": (
        lambda x: ops.log_softmax(x, 1),
        lambda x: torch.log_softmax(x, 1),
        normal(3, 4, 5),
    ),
    "exp": (ops.exp, torch.exp, normal(4, 5)),
    "log": (ops.log, torch.log, POSITIVE),
    "sqrt": (ops.sqrt, torch.sqrt, POSITIVE),
    "abs": (ops.abs, torch.abs, np.array([-1.5, 0.0, 2.0])),
    "power": (lambda x: x**2.5, lambda x: x**2.5, POSITIVE),
    "sum": (lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2)), normal(3, 4, 5)),
    "mean": (lambda x: x.mean(1, True), lambda x: x.mean(1, True), normal(3, 4, 5)),
    "max, ties": (lambda x: x.max(1), lambda x: x.amax(1), TIES),
    "max of all, ties": (lambda x: x.max(), lambda x: x.amax(), TIES),
    "transpose": (
        lambda x: x.transpose(2, 0, 1),
        lambda x: x.permute(2, 0, 1),
        normal(3, 4, 5),
    ),
    "index twice": (lambda x: x[[2, 0, 2], 1:], lambda x: x[[2, 0, 2], 1:], normal(3, 4, 5)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_INPUT)
def test_operations_of_one_input(name, dtype):
    ours, theirs, x = ONE_INPUT[name]
    compare(ours, theirs, [x], dtype)


CONDITION = normal(4, 5) > 0
TWO_INPUTS = {
    "add": (ops.add, torch.add, normal(3, 4, 5), normal(4, 1)),
    "subtract": (ops.subtract, torch.sub, normal(4, 5), normal(3, 1, 5)),
    "multiply": (ops.multiply, torch.mul, normal(3, 4, 5), normal(5)),
    "divide": (ops.divide, torch.div, normal(4, 5), POSITIVE),
    "maximum, ties": (ops.maximum, torch.maximum, TIES, TIES[::-1].copy()),
    "minimum, ties": (ops.minimum, torch.minimum, TIES, TIES[::-1].copy()),
    "where": (
        lambda a, b: ops.where(CONDITION, a, b),
        lambda a, b: torch.where(torch.tensor(CONDITION), a, b),
        normal(4, 5),
        normal(5),
    ),
    "matmul": (ops.matmul, torch.matmul, normal(2, 3, 4), normal(4, 5)),
    "matmul, batches": (ops.matmul, torch.matmul, normal(2, 1, 3, 4), normal(6, 4, 5)),
    "matmul, vector": (ops.matmul, torch.matmul, normal(4), normal(2, 4, 5)),
    "concatenate": (
        lambda a, b: ops.concatenate([a, b, a], 1),
        lambda a, b: torch.cat([a, b, a], 1),
        normal(4, 2),
        normal(4, 3),
    ),
    "stack": (
        lambda a, b: ops.stack([a, b, a], 1),
        lambda a, b: torch.stack([a, b, a], 1),
        normal(4, 5),
        normal(4, 5),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWO_INPUTS)
def test_operations_of_two_inputs(name, dtype):
    ours, theirs, *arrays = TWO_INPUTS[name]
    compare(ours, theirs, arrays, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, dtype):
    arrays = [normal(3, 4, 5), normal(6, 5), normal(6)][: 3 if bias else 2]
    compare(ops.linear, functional.linear, arrays, dtype)


CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 3, "dilation": 2},
    {"padding": "same", "dilation": 3},
    {"groups": 2, "padding": 1},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv1d(options, dtype):
    compare(
        lambda x, *rest: ops.conv1d(x.transpose(2, 0, 1), *rest, **options).transpose(1, 2, 0),
        lambda x, *rest: functional.conv1d(x, *rest, **options),
        [normal(3, 4, 11), normal(6, 4 // options.get("groups", 1), 4), normal(6)],
        dtype,
    )


@pytest.mark.parametrize("options", [*CONVOLUTIONS, {"bias": False}], ids=str)
def test_layers_of_conv1d_share_state_dicts(options):
    torch.manual_seed(2)
    ours, theirs = nn.Conv1d(4, 6, 3, **options), torch.nn.Conv1d(4, 6, 3, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = normal(3, 4, 11).astype(np.float32)
    np.testing.assert_allclose(
        ours(x.transpose(2, 0, 1)).data,
        theirs(torch.tensor(x)).detach().numpy().transpose(2, 0, 1),
        rtol=1e-5,
        atol=1e-6,
    )


# Losses


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ignore_index", [-100, 0, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("leading", [(7,), (3, 5)])
def test_cross_entropy(leading, reduction, ignore_index, dtype):
    V = 6
    numbers = np.random.default_rng(3)
    targets = numbers.integers(0, V, size=leading)
    targets.flat[2] = targets.flat[4] = ignore_index
    options = {"ignore_index": ignore_index, "reduction": reduction}
    compare(
        lambda logits: ops.cross_entropy(logits, targets, **options),
        lambda logits: functional.cross_entropy(
            logits.reshape(-1, V), torch.tensor(targets).reshape(-1), **options
        ).reshape(leading if reduction == "none" else ()),
        [10 * numbers.normal(size=(*leading, V))],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_logits_far_apart(dtype):
    logits, targets = [[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]], [0, 0]
    compare(
        lambda x: ops.cross_entropy(x, targets),
        lambda x: functional.cross_entropy(x, torch.tensor(targets)),
        [logits],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_squared_error(dtype):
    target = normal(4, 5).astype(dtype)
    compare(
        lambda x: ops.mean_squared_error(x, target),
        lambda x: functional.mse_loss(x, torch.tensor(target)),
        [normal(4, 5) + 1],
        dtype,
    )


# Embedding and normalisation


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(dtype):
    ids = np.array([[5, 2, 5], [0, 5, 2]])
    compare(
        lambda table: ops.embedding(table, ids),
        lambda table: functional.embedding(torch.tensor(ids), table),
        [normal(7, 3)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_layer_norm(epsilon, inputs, dtype):
    compare(
        lambda x, *affine: ops.layer_norm(x, *affine, epsilon=epsilon),
        lambda x, *affine: functional.layer_norm(x, (5,), *affine, eps=epsilon),
        [3 + 2 * normal(3, 4, 5), normal(5), normal(1, 5)[0]][:inputs],
        dtype,
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: nn.Linear(5, 3), lambda: torch.nn.Linear(5, 3)),
        (lambda: nn.Linear(5, 3, bias=False), lambda: torch.nn.Linear(5, 3, bias=False)),
        (lambda: nn.LayerNorm(5), lambda: torch.nn.LayerNorm(5)),
        (lambda: nn.Embedding(7, 3), lambda: torch.nn.Embedding(7, 3)),
        (
            lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.LayerNorm(4)),
            lambda: torch.nn.Sequential(
                torch.nn.Linear(5, 4), torch.nn.Dropout(0.5), torch.nn.LayerNorm(4)
            ),
        ),
    ],
)
def test_plain_layers_share_state_dicts_and_values(ours, theirs):
    torch.manual_seed(2)
    ours, theirs = ours().eval(), theirs().eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = np.array([[5, 0], [6, 5]]) if isinstance(ours, nn.Embedding) else normal(4, 5)
    x = x if x.dtype.kind == "i" else x.astype(np.float32)
    np.testing.assert_allclose(
        ours(x).data, theirs(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    theirs.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in ours.state_dict().items()}
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_and_label_smoothing(weighted, smoothing, reduction, dtype):
    weights = np.array([0.5, 2, 0, 1.25, 3], dtype)
    targets = np.array([0, 4, -100, 1, 2, 3])
    peer_options = {
        "weight": torch.tensor(weights) if weighted else None,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    options = {
        "class_weights": weights if weighted else None,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    t = torch.tensor(targets)
    compare(
        lambda x: ops.cross_entropy(x, targets, **options),
        lambda x: functional.cross_entropy(x, t, **peer_options),
        [normal(6, 5)],
        dtype,
    )
    compare(
        lambda x, w, b: ops.linear_cross_entropy(x, w, b, targets=targets, **options),
        lambda x, w, b: functional.cross_entropy(functional.linear(x, w, b), t, **peer_options),
        [normal(6, 3), normal(5, 3), normal(5)],
        dtype,
    )
    if not smoothing:
        peer_options.pop("label_smoothing"), options.pop("label_smoothing")
        compare(
            lambda x: ops.nll_loss(x, targets, **options),
            lambda x: functional.nll_loss(x, t, **peer_options),
            [normal(6, 5)],
            dtype,
        )


TARGETS = normal(4, 5)
YES = np.random.default_rng(3).uniform(0, 1, (4, 5)).round(1)
FACTORS = np.array([0.5, 2, 1, 1.25, 3])
LOSSES = {
    "binary": (ops.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", YES, {}),
    "binary, weights": (
        ops.binary_cross_entropy_with_logits,
        "binary_cross_entropy_with_logits",
        YES,
        {"weight": FACTORS[:4, None], "pos_weight": FACTORS},
    ),
    "squares": (ops.mean_squared_error, "mse_loss", TARGETS, {}),
    "l1": (ops.l1_loss, "l1_loss", TARGETS, {}),
    "huber": (ops.huber_loss, "huber_loss", TARGETS, {"delta": 0.7}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_numbers(name, reduction, dtype):
    ours, peer, targets, options = LOSSES[name]
    peer_options = {
        k: torch.tensor(v.astype(dtype)) if isinstance(v, np.ndarray) else v
        for k, v in options.items()
    }
    compare(
        lambda x: ours(x, targets, reduction=reduction, **options),
        lambda x: getattr(functional, peer)(
            x, torch.tensor(targets.astype(dtype)), reduction=reduction, **peer_options
        ),
        [normal(4, 5) * 2],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gaussian", "student_t", "negative_binomial"])
def test_likelihoods(name, dtype):
    d = torch.distributions
    counts = np.arange(20.0).reshape(4, 5)
    if name == "gaussian":
        ours, theirs, given, y = ops.gaussian_nll_loss, d.Normal, [normal(4, 5), POSITIVE], TARGETS
    elif name == "student_t":
        ours, y = ops.student_t_nll_loss, TARGETS
        given = [normal(4, 5), POSITIVE, POSITIVE + 1]
        theirs = lambda mean, scale, df: d.StudentT(df, mean, scale)  # noqa: E731
    else:
        ours, given, y = ops.negative_binomial_nll_loss, [POSITIVE * 5, POSITIVE], counts
        theirs = lambda m, a: d.NegativeBinomial(1 / a, logits=torch.log(a * m))  # noqa: E731
    compare(
        lambda *p: ours(*p, y, reduction="sum"),
        lambda *p: -theirs(*p).log_prob(torch.tensor(y.astype(dtype))).sum(),
        given,
        dtype,
    )


# bfloat16 ----------------------------------------------------------------------------------------


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def test_rounding_to_bfloat16():
    words = np.random.default_rng(3).integers(0, 2**32, 200_000, dtype=np.uint32)
    x = words.view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], [0, -0.0, np.inf, -np.inf, 3.4e38]]).astype(np.float32)
    x = x[(np.abs(x) >= 2.0**-126) | (x == 0)]  # PyTorch keeps smaller ones, processors do not
    with matmul_precision("bfloat16"):
        np.testing.assert_array_equal(bits(rounded(x)), bits(torch.tensor(x).bfloat16().float()))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 5, 3), (40, 100, 70), (3, 1025, 17)])
def test_linear_in_bfloat16(rows, inputs, outputs):
    """Its autocast rounds results too, so PyTorch computes in float32 what it rounded."""
    arrays = [normal(rows, inputs), normal(outputs, inputs), normal(outputs)]
    x, weight, bias = (a.astype(np.float32) for a in arrays)
    dy = normal(rows, outputs + 1)[:, 1:].astype(np.float32)
    tensors = [Tensor(a, requires_grad=True) for a in (x, weight, bias)]
    with matmul_precision("bfloat16"):
        y = ops.linear(*tensors)
    y.backward(dy)
    r_x, r_weight, r_dy = (torch.tensor(a).bfloat16().float() for a in (x, weight, dy))
    peers = r_x.requires_grad_(), r_weight.requires_grad_()
    expected = functional.linear(*peers, torch.tensor(bias))
    expected.backward(r_dy)
    d_x, d_weight, d_bias = (tensor.grad for tensor in tensors)
    for found, other, plain in (
        (y.data, expected.detach(), x @ weight.T + bias),
        (d_x, peers[0].grad, dy @ weight),
        (d_weight, peers[1].grad, dy.T @ x),
    ):
        scale = np.abs(plain).max()
        np.testing.assert_allclose(found, other.numpy(), rtol=0, atol=4e-6 * scale)
        assert np.abs(found - plain).max() > 2e-4 * scale  # float32's are others
    np.testing.assert_allclose(d_bias, dy.sum(axis=0), rtol=1e-5, atol=1e-5)
