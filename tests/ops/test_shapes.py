"""Operations that move elements: checked against nested lists, and by gradients."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

INDICES = {
    "integer": 1,
    "negative integer": -1,
    "slice": slice(1, 3),
    "reversed slice": slice(None, None, -2),
    "ellipsis": (..., 0),
    "new axis": (None, 0, slice(None), None),
    "list, twice the same": [2, 0, 2],
    "array": np.array([[0, 1], [2, 2]]),
    "two arrays": (np.array([0, 2, 2]), np.array([1, 1, 1])),
    "array and slice": (slice(None), np.array([3, 3])),
    "mask": np.array([True, False, True]),
    "two arrays and a mask": (np.array([0, 2]), np.array([True, False, False, True])),
    "array and number": (np.array([2, 0, 2]), 1),
    "new axis and array": (None, np.array([2, 0, 2])),
    "arrays around a slice": (np.array([0, 2]), slice(1, 3), np.array([1, 1])),
    "array and ellipsis": (np.array([0, 2]), ...),
    "ellipsis and array": (..., np.array([1, 0, 1])),
    "mask of two axes": np.arange(12).reshape(3, 4) % 5 == 0,
    "mask of two axes, and array": (np.arange(12).reshape(3, 4) == 5, np.array([1, 1])),
    "True": True,
    "mask of all": np.arange(24).reshape(3, 4, 2) % 5 == 0,
    "Tensor": Tensor(np.array([1, 1])),
    "Tensor in a tuple": (slice(None), Tensor(np.array([1, 1]))),
    "empty slice": slice(2, 2),
    "empty list of rows": np.array([], int),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_getitem(index, rng, check_gradients):
    x = rng.standard_normal((3, 4, 2))
    numbers = np.arange(x.size).reshape(x.shape)
    plain = index.data if isinstance(index, Tensor) else index
    if isinstance(plain, tuple):
        plain = tuple(p.data if isinstance(p, Tensor) else p for p in plain)
    expected = x.ravel()[numbers[plain]]
    np.testing.assert_array_equal(Tensor(x)[index].data, expected)
    check_gradients(lambda x: ops.getitem(x, index), x)


def test_getitem_sums_gradients_of_an_element_that_is_named_twice():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[[2, 0, 2]] * [1.0, 10.0, 100.0]).sum().backward()
    assert x.grad.tolist() == [10, 0, 101]


@pytest.mark.parametrize("batch_first", [False, True])
def test_pad_sequence(batch_first, rng, check_gradients):
    arrays = [rng.standard_normal((T, 2)) for T in (3, 5, 0, 1)]
    expected = np.full((4, 5, 2), -7.5)
    for row, array in zip(expected, arrays, strict=True):
        row[: len(array)] = array
    padded = ops.pad_sequence(arrays, batch_first, padding_value=-7.5)
    np.testing.assert_array_equal(padded.data, expected if batch_first else expected.swapaxes(0, 1))
    check_gradients(lambda *arrays: ops.pad_sequence(arrays, batch_first), *arrays)


def test_pad_sequence_keeps_integers():
    padded = ops.pad_sequence([Tensor([4]), [5, 6]], padding_value=1)
    assert (padded.tolist(), padded.dtype) == ([[4, 5], [1, 6]], np.int64)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "shapes of nothing; give sequences"),
        (
            [[1.0], [[2.0]]],
            r"shapes \(1,\), \(1, 1\); give sequences \[T, \.\.\.\] that",
        ),
        ([1.0, 2.0], r"shapes \(\), \(\); give"),
    ],
)
def test_pad_sequence_of_other_shapes(sequences, message):
    with pytest.raises(ValueError, match=f"^pad_sequence: {message}"):
        ops.pad_sequence(sequences)


def test_getitem_outside():
    with pytest.raises(IndexError, match="out of bounds"):
        Tensor([1.0])[3]


def test_a_tensor_is_not_assigned_to():
    x = Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"not changed by assignment.*where\(\).*writing\(\)"):
        x[0] = 5


@pytest.mark.parametrize("shape", [(6, 4), (-1, 2), (24,), -1, [2, 12], (1, 3, 4, 2, 1)], ids=str)
def test_reshape(shape, rng, check_gradients):
    x = rng.standard_normal((3, 4, 2))
    result = ops.reshape(x, shape)
    assert result.data.ravel().tolist() == x.ravel().tolist()
    check_gradients(lambda x: ops.reshape(x, shape), x)


def test_reshape_method_takes_sizes_or_a_sequence():
    x = Tensor(np.arange(6.0))
    assert x.reshape(2, 3).shape == x.reshape((2, 3)).shape == x.reshape([2, -1]).shape == (2, 3)
    assert Tensor([[5.0]]).reshape().shape == ()
    with pytest.raises(ValueError, match="cannot reshape"):
        x.reshape(4, 2)


@pytest.mark.parametrize("axes", [None, (0, 1, 2), (2, 0, 1), (-1, 0, -2), [1, 2, 0]], ids=str)
def test_transpose(axes, rng, check_gradients):
    x = rng.standard_normal((3, 4, 2))
    result = ops.transpose(x, axes).data
    order = (2, 1, 0) if axes is None else axes
    for index in np.ndindex(result.shape):
        source = [0, 0, 0]
        for position, axis in enumerate(order):
            source[axis] = index[position]
        assert result[index] == x[tuple(source)]
    check_gradients(lambda x: ops.transpose(x, axes), x)


def test_transpose_method_takes_axes_or_a_sequence():
    x = Tensor(np.zeros((2, 3, 4)))
    assert x.T.shape == x.transpose().shape == (4, 3, 2)
    assert x.transpose(1, 0, 2).shape == x.transpose((1, 0, 2)).shape == (3, 2, 4)


def test_transpose_takes_all_axes():
    for axes in ((1, 2), (0,), (0, 1, 2, 3)):
        with pytest.raises(ValueError, match=r"^transpose: .* for 3 axes; give all .* swapaxes"):
            Tensor(np.zeros((2, 3, 4))).transpose(*axes)
    with pytest.raises(ValueError, match="repeated axis"):
        ops.transpose(np.zeros((2, 3)), (0, 0))


def test_broadcast_to(rng, check_gradients):
    x = rng.standard_normal((3, 1))
    assert ops.broadcast_to(x, (2, 3, 2)).data.tolist() == [[[v, v] for v in x[:, 0]]] * 2
    check_gradients(lambda x: ops.broadcast_to(x, (2, 3, 4)), x)
    check_gradients(lambda x: ops.broadcast_to(x, (0, 2)), np.array(1.0))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate_then_split(axis, rng, check_gradients):
    shapes = [[3, 4], [3, 4], [3, 4]]
    for size, shape in zip((2, 0, 5), shapes, strict=True):
        shape[axis] = size
    parts = [rng.standard_normal(shape) for shape in shapes]
    joined = ops.concatenate(parts, axis)
    assert joined.shape[axis] == 7
    cut = ops.split(joined, [2, 2], axis)
    for part, again in zip(parts, cut, strict=True):
        np.testing.assert_array_equal(again.data, part)
    check_gradients(lambda *parts: ops.concatenate(parts, axis), *parts)
    check_gradients(lambda x: ops.split(x, [2, 2], axis), joined.data)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_stack_then_unstack(axis, rng, check_gradients):
    parts = [rng.standard_normal((3, 4)) for _ in range(2)]
    stacked = ops.stack(parts, axis)
    for k, part in enumerate(parts):
        np.testing.assert_array_equal(np.take(stacked.data, k, axis), part)
    for part, again in zip(parts, ops.unstack(stacked, axis), strict=True):
        np.testing.assert_array_equal(again.data, part)
    check_gradients(lambda *parts: ops.stack(parts, axis), *parts)
    check_gradients(lambda x: ops.unstack(x, axis), stacked.data)


def test_unstack_of_vectors_and_of_nothing(check_gradients):
    assert ops.unstack(np.zeros((0, 3))) == ()
    check_gradients(ops.unstack, np.array([1.0]))
    check_gradients(ops.unstack, np.array([1.0, 2.0]))


def test_parts_on_which_nothing_depends_have_gradient_zero():
    for cut in (lambda x: ops.split(x, 2), lambda x: ops.unstack(x.reshape(2, 2))):
        x = Tensor(np.arange(4.0), requires_grad=True)
        cut(x)[1].sum().backward()
        assert x.grad.tolist() == [0, 0, 1, 1]


def test_split_into_one_part(check_gradients):
    check_gradients(lambda x: ops.split(x, 1), np.arange(3.0))


def test_split_and_concatenate_say_what_does_not_fit():
    with pytest.raises(ValueError, match="equal division"):
        ops.split(Tensor([1.0, 2.0, 3.0]), 2)
    with pytest.raises(ValueError, match="must match exactly"):
        ops.concatenate([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match="zero-dimensional"):
        ops.concatenate([Tensor(1.0), Tensor(2.0)])
    with pytest.raises(ValueError, match="at least one array"):
        ops.concatenate([])
    with pytest.raises(ValueError, match="same shape"):
        ops.stack([np.ones(2), np.ones(3)])
    with pytest.raises(TypeError, match=r"^concatenate: float64 and float32 do not mix"):
        ops.concatenate([Tensor(np.ones(2)), Tensor([1.0, 1.0])])


def test_iterating_gives_the_rows():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    first, second = x
    (first * second).sum().backward()
    assert x.grad.tolist() == [[3, 4], [1, 2]]
    assert len(x) == 2
    with pytest.raises(TypeError, match="single number has nothing to iterate over"):
        iter(Tensor(1.0))


PADS = {
    "all sides": (1, ((1, 1), (1, 1), (1, 1))),
    "pairs": (((0, 2), (1, 0), (3, 1)), ((0, 2), (1, 0), (3, 1))),
    "pairs and numbers": ([2, (1, 0), 0], ((2, 2), (1, 0), (0, 0))),
    "axes": ({-1: (2, 1), 0: 1}, ((1, 1), (0, 0), (2, 1))),
    "array": (np.array([[0, 2], [1, 0], [3, 1]]), ((0, 2), (1, 0), (3, 1))),
    "nothing": ({}, ((0, 0), (0, 0), (0, 0))),
}


@pytest.mark.parametrize("width", PADS.values(), ids=PADS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_pad(mode, width, rng, check_gradients):
    given, pairs = width
    x = rng.standard_normal((2, 3, 4))
    options = {"constant_values": 2.5} if mode == "constant" else {}
    expected = np.pad(x, pairs, mode, **options)
    np.testing.assert_array_equal(ops.pad(Tensor(x), given, mode, **options).data, expected)
    check_gradients(lambda x: ops.pad(x, given, mode), x)


def test_pad_of_vectors_and_of_nothing(check_gradients):
    assert ops.pad([1.0, 2.0], (2, 1)).data.tolist() == [0, 0, 1, 2, 0]
    assert ops.pad(np.array([1, 2]), (0, 1), constant_values=7).data.tolist() == [1, 2, 7]
    check_gradients(lambda x: ops.pad(x, {0: (2, 1)}), np.zeros((0, 3)))
    assert ops.pad(Tensor(5.0), ()).item() == 5


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (
            (2, 0),
            r"^pad: \(2, 0\) for 3 axes pads all of them in NumPy and the last in PyTorch; wr",
        ),
        (((1, 0), (0, 1)), r"^pad: \(\(1, 0\), \(0, 1\)\) for 3 axes; give \(before, after\)"),
        ({0: (1, -1)}, r"^pad: .* not negative"),
        ({0: (1, 1, 1)}, r"^pad: .*\{axis: \(before, after\)\}"),
    ],
)
def test_pad_widths_that_do_not_fit(width, message):
    with pytest.raises(ValueError, match=message):
        ops.pad(Tensor(np.ones((2, 3, 4))), width)


def test_pad_says_what_is_not_there():
    with pytest.raises(ValueError, match=r"^pad: there is no mode 'replicate'; there are 'const"):
        ops.pad(Tensor([1.0]), 1, mode="replicate")
    with pytest.raises(np.exceptions.AxisError, match="axis 1"):
        ops.pad(Tensor([1.0]), {1: 2})
    with pytest.raises(ValueError, match="empty"):
        ops.pad(np.zeros(0), 1, mode="edge")
