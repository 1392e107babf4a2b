"""Conditional random fields: every path counted one by one, gradients, and what is refused."""

import itertools
import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

T, B, C = 5, 4, 3
LENGTHS = np.array([4, 5, 0, 1])
TAGS = np.array([[2, 0, 7, 1], [0, 0, -5, 9], [1, 2, 9, 9], [1, 1, 9, -1], [99, 2, 9, 9]])


@pytest.fixture
def arrays(rng):
    """Emissions, transitions, start and end."""
    return [2 * rng.standard_normal(shape) for shape in ((T, B, C), (C, C), (C,), (C,))]


def score(path, emissions, transitions, start, end):
    """Of one path of a row [T, C]."""
    if not path:
        return 0.0
    total = start[path[0]] + end[path[-1]]
    total += sum(emissions[t, tag] for t, tag in enumerate(path))
    return total + sum(transitions[i, j] for i, j in itertools.pairwise(path))


def all_scores(emissions, transitions, start, end):
    """The score of each path of one row."""
    paths = itertools.product(range(len(start)), repeat=len(emissions))
    return {path: score(path, emissions, transitions, start, end) for path in paths}


def rows(arrays, lengths=LENGTHS):
    """The scores of all paths, row by row."""
    emissions, *others = arrays
    return [all_scores(emissions[:length, b], *others) for b, length in enumerate(lengths)]


def expected_losses(arrays, tags=TAGS, lengths=LENGTHS):
    losses = []
    for b, scores in enumerate(rows(arrays, lengths)):
        path = tuple(tags[: lengths[b], b])
        losses.append(math.log(math.fsum(map(math.exp, scores.values()))) - scores[path])
    return np.array(losses)


def test_the_loss_sums_every_path(arrays):
    expected = expected_losses(arrays)
    for reduction, value in {
        "none": expected,
        "sum": expected.sum(),
        "mean": expected.sum() / LENGTHS.sum(),
    }.items():
        loss = ops.crf_loss(*arrays, TAGS, LENGTHS, reduction=reduction)
        np.testing.assert_allclose(loss.data, value, rtol=1e-12)
    assert ops.crf_loss(*arrays, TAGS, LENGTHS, reduction="none").data[2] == 0


def test_without_lengths_all_steps_count(arrays, rng):
    tags = rng.integers(0, C, (T, B))
    expected = expected_losses(arrays, tags, [T] * B)
    found = ops.crf_loss(*arrays, tags, reduction="none").data
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("ignored", [-100, 2**40, 1])
def test_last_steps_without_a_tag_are_beyond_the_length(arrays, ignored):
    tags = np.where(np.arange(T)[:, None] < LENGTHS, TAGS, 0)
    tags[tags == 1] = 0
    expected = ops.crf_loss(*arrays, tags, LENGTHS).item()
    marked = np.where(np.arange(T)[:, None] < LENGTHS, tags, ignored)
    assert ops.crf_loss(*arrays, marked, ignore_index=ignored).item() == expected
    longer = np.minimum(LENGTHS + 1, T)
    assert ops.crf_loss(*arrays, marked, longer, ignore_index=ignored).item() == expected


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(arrays, reduction, check_gradients):
    check_gradients(lambda *a: ops.crf_loss(*a, TAGS, LENGTHS, reduction=reduction), *arrays)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_beyond_the_length_change_nothing(arrays, dtype):
    results = []
    for padding, more in [(0, 0), (1e4, 0), (np.inf, 3), (np.nan, 40)]:
        emissions = np.concatenate([arrays[0], np.zeros((more, B, C))]).astype(dtype)
        tags = np.concatenate([TAGS, np.full((more, B), 77)])
        emissions[np.arange(T + more)[:, None] >= LENGTHS] = padding
        inputs = [Tensor(a, requires_grad=True) for a in [emissions, *arrays[1:]]]
        inputs = [Tensor(i.data.astype(dtype), requires_grad=True) for i in inputs]
        loss = ops.crf_loss(*inputs, tags, LENGTHS)
        loss.backward()
        assert loss.dtype == dtype
        assert not inputs[0].grad[np.arange(T + more)[:, None] >= LENGTHS].any()
        plain = [i.data for i in inputs]
        marginals = ops.crf_marginals(*plain, LENGTHS)
        decoded = ops.crf_decode(*plain, LENGTHS)
        assert (decoded[T:] == -100).all()
        assert not marginals[T:].any()
        found = [loss.data, inputs[0].grad[:T], *(i.grad for i in inputs[1:])]
        results.append([*found, marginals[:T], decoded[:T]])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decoding_finds_the_best_path(arrays, dtype, rng):
    for _ in range(10):
        sampled = [rng.standard_normal(a.shape).astype(dtype) for a in arrays]
        tags = ops.crf_decode(*sampled, LENGTHS, padding=-7)
        assert tags.dtype == np.int64
        for b, scores in enumerate(rows([a.astype(float) for a in sampled])):
            assert tuple(tags[: LENGTHS[b], b]) == max(scores, key=scores.get)
            assert (tags[LENGTHS[b] :, b] == -7).all()


def test_of_equal_paths_the_first_tag_is_taken():
    zero = np.zeros(C)
    assert not ops.crf_decode(np.zeros((T, B, C)), np.zeros((C, C)), zero, zero).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_marginals_are_shares_of_the_paths(arrays, dtype):
    sampled = [a.astype(dtype) for a in arrays]
    marginals = ops.crf_marginals(*map(Tensor, sampled), LENGTHS)
    assert marginals.dtype == dtype
    for b, scores in enumerate(rows(sampled)):
        total = math.fsum(map(math.exp, scores.values()))
        shares = np.zeros((T, C))
        for path, value in scores.items():
            for t, tag in enumerate(path):
                shares[t, tag] += math.exp(value) / total
        tolerance = {np.float32: 2e-6, np.float64: 1e-13}[dtype]
        np.testing.assert_allclose(marginals[:, b], shares, atol=tolerance)


def test_what_is_excluded_has_no_share(arrays):
    excluded = [a.copy() for a in arrays]
    excluded[1][0, 1] = excluded[1][2, 2] = excluded[2][1] = excluded[3][0] = -np.inf
    excluded[0][1, 0, 1] = -np.inf
    marginals, tags = ops.crf_marginals(*excluded, LENGTHS), ops.crf_decode(*excluded, LENGTHS)
    for b, scores in enumerate(rows(excluded)):
        total = math.fsum(map(math.exp, scores.values()))
        for t in range(LENGTHS[b]):
            for tag in range(C):
                share = math.fsum(math.exp(s) for p, s in scores.items() if p[t] == tag) / total
                np.testing.assert_allclose(marginals[t, b, tag], share, atol=1e-14)
        assert tuple(tags[: LENGTHS[b], b]) == max(scores, key=scores.get)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [30, 1e3, 1e5])
def test_extreme_scores_give_exact_numbers(arrays, scale, dtype):
    """Sums in which most terms, or at times all of them, are too small to be written."""
    sampled = [(scale * a).astype(dtype) for a in arrays]
    inputs = [Tensor(a, requires_grad=True) for a in sampled]
    losses = ops.crf_loss(*inputs, TAGS, LENGTHS, reduction="none")
    losses.backward(np.ones(B, dtype))
    wide = [a.astype(float) for a in sampled]
    d_transitions = np.zeros((C, C))
    for b, scores in enumerate(rows(wide)):
        top = max(scores.values())
        total = top + math.log(math.fsum(math.exp(s - top) for s in scores.values()))
        expected = total - scores[tuple(TAGS[: LENGTHS[b], b])]
        np.testing.assert_allclose(losses.data[b], expected, rtol=1e-6, atol=1e-6)
        for path, value in scores.items():
            for i, j in itertools.pairwise(path):
                d_transitions[i, j] += math.exp(value - total)
        for i, j in itertools.pairwise(TAGS[: LENGTHS[b], b]):
            d_transitions[i, j] -= 1
    np.testing.assert_allclose(inputs[1].grad, d_transitions, atol=1e-5)


def test_a_path_that_comes_back_from_far_behind():
    """At the first step tag 1 is e^-2000 times as likely as tag 0, but only it leads on."""
    emissions = np.array([[[2000.0, 0.0]], [[0.0, 0.0]]])
    transitions = np.array([[-4000.0, -4000.0], [0.0, -1.0]])
    inputs = [Tensor(a, requires_grad=True) for a in (emissions, transitions, np.zeros(2))]
    loss = ops.crf_loss(*inputs, np.zeros(2), [[1], [0]], reduction="sum")
    loss.backward()
    rest = math.exp(-1) / (1 + math.exp(-1))
    np.testing.assert_allclose(loss.item(), math.log(1 + math.exp(-1)), rtol=1e-12)
    np.testing.assert_allclose(inputs[1].grad, [[0, 0], [-rest, rest]], atol=1e-12)
    np.testing.assert_allclose(inputs[0].grad[:, 0], [[0, 0], [-rest, rest]], atol=1e-12)


def test_a_thousand_steps(rng):
    emissions = rng.standard_normal((1000, 3, 9)).astype(np.float32)
    others = [rng.standard_normal(shape).astype(np.float32) for shape in ((9, 9), (9,), (9,))]
    x = Tensor(emissions, requires_grad=True)
    loss = ops.crf_loss(x, *others, rng.integers(0, 9, (1000, 3)))
    loss.backward()
    assert 0 < loss.item() < 20
    np.testing.assert_allclose(x.grad.sum(axis=2), 0, atol=1e-8)  # shares add up to 1
    np.testing.assert_allclose(ops.crf_marginals(emissions, *others).sum(axis=2), 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)], ids=str)
def test_empty_arrays(shape, arrays):
    inputs = [Tensor(a, requires_grad=True) for a in [np.zeros((*shape, C)), *arrays[1:]]]
    tags = np.zeros(shape, int)
    loss = ops.crf_loss(*inputs, tags)
    loss.backward()
    assert loss.item() == 0
    for i in inputs:
        assert i.grad.shape == i.shape
        assert not i.grad.any()
    plain = [i.data for i in inputs]
    assert ops.crf_decode(*plain).shape == shape
    assert ops.crf_marginals(*plain).shape == (*shape, C)
    assert ops.crf_loss(*inputs, tags, reduction="none").shape == shape[1:]


def test_one_tag_is_certain(rng):
    arrays = [rng.standard_normal(shape) for shape in ((T, B, 1), (1, 1), (1,), (1,))]
    zeros = np.zeros((T, B), int)
    np.testing.assert_allclose(ops.crf_loss(*arrays, zeros, reduction="none").data, 0, atol=1e-13)
    np.testing.assert_allclose(ops.crf_marginals(*arrays), 1, rtol=1e-13)
    np.testing.assert_array_equal(ops.crf_decode(*arrays), zeros)


def test_nan_is_reported(arrays):
    arrays[0][1, 1, 0] = np.nan
    assert math.isnan(ops.crf_loss(*arrays, TAGS, LENGTHS).item())
    for function in (ops.crf_decode, ops.crf_marginals):
        name = function.__name__
        with pytest.raises(ValueError, match=f"^{name}: emissions contain NaN: have the model's"):
            function(*arrays, LENGTHS)
        function(*arrays, [4, 1, 5, 5])  # beyond the length it is not read
        with pytest.raises(ValueError, match=f"^{name}: transitions contain NaN"):
            function(arrays[0], arrays[1] * np.nan, *arrays[2:], [0, 0, 0, 0])


def test_what_no_path_can_do_is_reported(arrays):
    arrays[1][:] = -np.inf
    for function in (ops.crf_decode, ops.crf_marginals):
        message = f"^{function.__name__}: no path of 4 steps is possible in row 0; .* must leave"
        with pytest.raises(ValueError, match=message):
            function(*arrays, LENGTHS)
        function(*arrays, [1, 0, 1, 1])  # a path of one step needs no transitions


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tags": TAGS.T}, ValueError, r"tags of shape \(4, 5\) .*; expected \[T, B\], \(5, 4\)"),
        ({"tags": TAGS * 1.0}, TypeError, "tags are integers, not float64"),
        ({"lengths": [5, 5, 0, 1]}, ValueError, r"tag 99 of row 0 at step 4 is outside 0\.\.2"),
        ({"lengths": [4, 5, 2, 1]}, ValueError, r"tag 7 of row 2 at step 0 is outside 0\.\.2"),
        ({"lengths": [4, 6, 0, 1]}, ValueError, "lengths from 0 to 6, but .* 5 steps"),
        (
            {"lengths": [4, 5, 0]},
            ValueError,
            "lengths got .*expected one integer for each of the 4",
        ),
        ({"reduction": "max"}, ValueError, "reduction 'max' is not one of"),
        (
            {"ignore_index": 0},
            ValueError,
            r"row 1 has no tag at step 0 \(ignore_index=0\) but has one later; a path has a tag",
        ),
    ],
)
def test_wrong_tags_are_refused(arrays, change, error, message):
    with pytest.raises(error, match=f"^crf_loss: {message}"):
        ops.crf_loss(*arrays, **{"tags": TAGS, "lengths": LENGTHS, **change})


@pytest.mark.parametrize(
    ("number", "shape", "message"),
    [
        (0, (T, B), r"emissions of shape \(5, 4\); expected \[T, B, C\] with C > 0"),
        (0, (T, B, 0), r"emissions of shape \(5, 4, 0\); expected \[T, B, C\] with C > 0"),
        (1, (C, C + 1), r"transitions of shape \(3, 4\) .*; expected \(3, 3\)"),
        (2, (C + 1,), r"start of shape \(4,\) for emissions of shape \(5, 4, 3\); expected \(3,\)"),
        (3, (1, C), r"end of shape \(1, 3\) .*; expected \(3,\)"),
    ],
)
def test_wrong_shapes_are_refused(arrays, number, shape, message):
    arrays[number] = np.zeros(shape)
    with pytest.raises(ValueError, match=f"^crf_loss: {message}"):
        ops.crf_loss(*arrays, TAGS)
    for function in (ops.crf_decode, ops.crf_marginals):
        with pytest.raises(ValueError, match=f"^{function.__name__}: {message}"):
            function(*arrays)
