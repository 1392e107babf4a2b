"""The CTC loss: every alignment counted one by one, gradients, and what has no alignment."""

import itertools

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

T, B, V, S = 5, 4, 3, 2
BLANK = 1
TARGETS = np.array([[2, 0, 7, 2], [0, 0, -5, 9]])  # the lengths below leave 7, -5 and 9 out
TARGET_LENGTHS = np.array([2, 2, 0, 1])
LENGTHS = np.array([4, 5, 3, 1])


def collapse(path, blank=BLANK):
    """The labels that an alignment spells: repetitions merged, then blanks removed."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def probability(logits, target, blank=BLANK):
    """The sum over all V ** T paths of one row [T, V] that spell the target."""
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    paths = itertools.product(range(logits.shape[1]), repeat=len(logits))
    expected = (path for path in paths if collapse(path, blank) == tuple(target))
    return sum(np.prod([p[t, label] for t, label in enumerate(path)]) for path in expected)


@pytest.fixture
def logits(rng):
    return 2 * rng.standard_normal((T, B, V))


def loss_of(logits, **options):
    given = {"lengths": LENGTHS, "target_lengths": TARGET_LENGTHS, "blank": BLANK, **options}
    return ops.ctc_loss(logits, TARGETS, **given)


def test_the_loss_sums_every_alignment(logits):
    losses = loss_of(logits, reduction="none").data
    for b in range(B):
        target = TARGETS[: TARGET_LENGTHS[b], b]
        expected = -np.log(probability(logits[: LENGTHS[b], b], target))
        np.testing.assert_allclose(losses[b], expected, rtol=1e-12)


@pytest.mark.parametrize("target", [[], [0], [0, 0], [0, 2], [2, 0, 2], [0, 0, 0]])
def test_every_target_of_one_row(rng, target):
    logits = rng.standard_normal((T, 1, V))
    loss = ops.ctc_loss(logits, np.array(target, int)[:, None], blank=BLANK, reduction="sum")
    np.testing.assert_allclose(np.exp(-loss.item()), probability(logits[:, 0], target), rtol=1e-12)


def test_reductions(logits):
    losses = loss_of(logits, reduction="none").data
    np.testing.assert_allclose(loss_of(logits, reduction="sum").item(), losses.sum())
    mean = (losses / np.maximum(TARGET_LENGTHS, 1)).mean()
    np.testing.assert_allclose(loss_of(logits).item(), mean)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(check_gradients, logits, reduction):
    check_gradients(lambda x: loss_of(x, reduction=reduction), logits)


def test_log_probabilities_do_as_well_as_logits(logits):
    log_p = ops.log_softmax(logits)
    np.testing.assert_allclose(loss_of(log_p).item(), loss_of(logits).item(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_beyond_the_length_change_nothing(logits, dtype):
    gradients = []
    for padding in (0, 1e4, np.inf, np.nan):
        x = logits.astype(dtype)
        for b in range(B):
            x[LENGTHS[b] :, b] = padding
        x = Tensor(x, requires_grad=True)
        loss = loss_of(x)
        loss.backward()
        assert loss.dtype == x.grad.dtype == dtype
        gradients.append((loss.item(), x.grad))
    for loss, gradient in gradients:
        assert loss == gradients[0][0]
        np.testing.assert_array_equal(gradient, gradients[0][1])
        assert not gradient[np.arange(T)[:, None] >= LENGTHS].any()


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_give_numbers(logits, scale):
    x = Tensor((logits * scale).astype(np.float32), requires_grad=True)
    loss = loss_of(x)
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(x.grad).all()


def test_a_thousand_steps(rng):
    logits = rng.standard_normal((1000, 2, 9)).astype(np.float32)
    targets = rng.integers(1, 9, (300, 2))
    x = Tensor(logits, requires_grad=True)
    loss = ops.ctc_loss(x, targets)
    loss.backward()
    assert np.isfinite(loss.item())
    np.testing.assert_allclose(x.grad.sum(axis=2), 0, atol=1e-8)  # shares add up to 1


# Impossible alignments -------------------------------------------------------------------------

SHORT = {"lengths": [2, 2, 0, 0], "target_lengths": [2, 2, 0, 1], "blank": BLANK}
"""Two labels in two steps; two equal ones in two; none in none; one in none."""


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4, 2, 3, 1], "row 1 is impossible: 2 labels with 1 equal neighbors need 3 steps, .* 2;"),
        ([4, 5, 3, 0], "row 3 is impossible: 1 labels with 0 equal neighbors need 1 steps, .* 0;"),
        ([1, 5, 3, 1], "row 0 is impossible: 2 labels with 0 equal neighbors need 2 steps, .* 1;"),
    ],
)
def test_an_impossible_target_is_refused_with_its_reason(logits, lengths, message):
    with pytest.raises(ValueError, match=rf"ctc_loss: the target of {message} omit the row"):
        loss_of(logits, lengths=np.array(lengths))


@pytest.mark.parametrize(("impossible", "value"), [("infinity", np.inf), ("zero", 0)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_or_has_the_loss_asked_for_and_no_gradient(logits, impossible, value, reduction):
    x = Tensor(logits, requires_grad=True)
    losses = ops.ctc_loss(x, TARGETS, **SHORT, reduction="none", impossible=impossible).data
    only = probability(logits[:2, 0], [2, 0])
    np.testing.assert_allclose(losses, [-np.log(only), value, 0, value])
    loss = ops.ctc_loss(x, TARGETS, **SHORT, reduction=reduction, impossible=impossible)
    loss.backward(np.ones(loss.shape))
    assert np.isfinite(x.grad).all()
    assert x.grad[:2, 0].any()
    assert not x.grad[2:, 0].any()
    assert not x.grad[:, 1:].any()


def test_a_label_of_probability_zero_is_impossible_too(logits):
    logits[:, 0, 2] = -np.inf
    with pytest.raises(ValueError, match="row 0 is impossible: its labels have probability 0"):
        loss_of(logits)
    x = Tensor(logits, requires_grad=True)
    losses = loss_of(x, reduction="none", impossible="infinity")
    assert np.isposinf(losses.data).tolist() == [True, False, False, False]
    losses.backward(np.ones(B))
    assert np.isfinite(x.grad).all()
    assert not x.grad[:, 0].any()


def test_a_loss_that_is_nan_is_reported(logits):
    logits[0, 1] = np.nan
    assert np.isnan(loss_of(logits).item())


@pytest.mark.parametrize(("steps", "rows", "labels"), [(0, 3, 0), (4, 3, 0), (4, 0, 2), (0, 0, 0)])
def test_empty_arrays(rng, steps, rows, labels):
    x = Tensor(rng.standard_normal((steps, rows, V)), requires_grad=True)
    loss = ops.ctc_loss(x, np.zeros((labels, rows), int), blank=BLANK)
    loss.backward()
    blanks = ops.log_softmax(x).data[:, :, BLANK].sum() / max(rows, 1)
    np.testing.assert_allclose(loss.item(), -blanks, atol=1e-12)
    assert x.grad.shape == x.shape


# Misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blank": 3}, r"blank 3 is outside 0\.\.2"),
        ({"blank": 0}, "label 0 of row 1; labels must be in 0..2 and not the blank, 0"),
        ({"target_lengths": [2, 2, 1, 1]}, r"label 7 of row 2; labels must be in 0\.\.2"),
        ({"target_lengths": [2, 3, 1, 1]}, r"target_lengths 3 of row 1 is outside 0\.\.2"),
        ({"lengths": [4, 6, 3, 1]}, r"lengths 6 of row 1 is outside 0\.\.5"),
        ({"lengths": [4, 6, 3]}, r"lengths of shape \(3,\); expected \[B\] with B = 4"),
        ({"reduction": "max"}, "reduction 'max' is not one of"),
        ({"impossible": "never"}, "impossible 'never' is not one of"),
    ],
)
def test_wrong_options_are_refused(logits, options, message):
    with pytest.raises(ValueError, match=f"ctc_loss: {message}"):
        loss_of(logits, **options)


def test_wrong_arrays_are_refused(logits):
    with pytest.raises(ValueError, match=r"logits of shape \(5, 3\); expected \[T, B, V\]"):
        ops.ctc_loss(logits[:, 0], TARGETS)
    with pytest.raises(
        ValueError, match=r"targets of shape \(4, 2\) .*expected \[S, B\] with B = 4"
    ):
        ops.ctc_loss(logits, TARGETS.T)
    with pytest.raises(TypeError, match="targets are integers"):
        ops.ctc_loss(logits, TARGETS * 1.0)
    with pytest.raises(TypeError, match="lengths are integers"):
        loss_of(logits, lengths=LENGTHS * 1.0)
