"""The tape: recording, accumulation of gradients, freed memory, and refused operations."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import (
    Parameter,
    RowGradient,
    Tensor,
    detach,
    differentiable,
    hook,
    no_grad,
)


def leaf(*values):
    return Tensor(np.array(values, float), requires_grad=True)


# An operation that counts its calls.

calls = {"left": 0, "right": 0}


@differentiable
def counted_product(a, b, /):
    def pull(side, other):
        def pullback(dy):
            calls[side] += 1
            return dy * other

        return pullback

    return a * b, (pull("left", b), pull("right", a))


@pytest.fixture(autouse=True)
def _no_calls():
    calls.update(left=0, right=0)


# What a Tensor is -----------------------------------------------------------------------------


def test_dtypes_of_new_tensors():
    assert Tensor(1.5).dtype == Tensor([[1.0]]).dtype == np.float32
    assert Tensor(np.float64(1.5)).dtype == Tensor(np.ones(2)).dtype == np.float64
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor([1, 2], dtype=np.float64).dtype == np.float64
    assert Tensor(Tensor(np.ones(2, np.float16))).dtype == np.float16
    swapped = np.array([1.5, -2.0], np.dtype(np.float32).newbyteorder())
    assert Tensor(swapped).dtype.isnative
    assert Tensor(swapped).data.tolist() == [1.5, -2]


def test_a_tensor_copies_its_data():
    array = np.ones(2)
    tensor = Tensor(array)
    array[0] = 5
    assert tensor.data.tolist() == [1, 1]


@pytest.mark.parametrize("data", ["text", [None], 1j])
def test_a_tensor_holds_numbers(data):
    with pytest.raises(TypeError, match=r"^Tensor: cannot hold .*; give numbers of one dtype"):
        Tensor(data)


def test_numbers_too_large_for_the_dtype_are_refused():
    with pytest.raises(ValueError, match=r"^Tensor: 1e\+300 is too large for float32; scale the"):
        Tensor([1.0, -1e300])
    with pytest.raises(ValueError, match=r"^Tensor: 70000 is too large for float16"):
        Tensor([1, 70000], dtype=np.float16)
    assert Tensor([1e38, -np.inf, np.nan]).data[1] == -np.inf  # infinities are accepted
    with pytest.raises(ValueError, match=r"^Tensor: no array can be made of it: .*inhomogeneous"):
        Tensor([[1.0], [1.0, 2.0]])
    with pytest.raises(
        TypeError, match=r"^Tensor: a list of Tensors that have gradients; ops.stack"
    ):
        Tensor([leaf(1.0), leaf(2.0)])
    assert Tensor([Tensor(1.0), Tensor(2.0)]).data.tolist() == [1, 2]
    with pytest.raises(TypeError, match=r"^Tensor: cannot hold <U3"):
        Tensor(["1.5"], dtype=np.float32)


def test_integers_have_no_gradient():
    with pytest.raises(
        TypeError, match=r"^Tensor: only floating-point Tensors have gradients.*int"
    ):
        Tensor([1, 2], requires_grad=True)


def test_inspection():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (x.shape, x.ndim, x.size, len(x)) == ((2, 2), 2, 4, 2)
    assert np.asarray(x) is x.data
    assert np.array(x) is not x.data
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert x.numpy() is x.data
    assert Tensor(3.5).item() == float(Tensor(3.5)) == 3.5
    assert int(Tensor(3)) == 3
    assert bool(Tensor(0.0)) is False
    assert repr(x) == "Tensor([[1., 2.],\n        [3., 4.]], dtype=float32)"
    assert repr(leaf(1.0)) == "Tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(Tensor([1, 2])) == "Tensor([1, 2], dtype=int64)"
    assert repr(Tensor([True])) == "Tensor([ True], dtype=bool)"
    assert repr(Tensor(np.zeros(0))) == "Tensor([], dtype=float64)"
    assert repr(Tensor(np.float16(1.5))) == "Tensor(1.5, dtype=float16)"
    assert Parameter([1.0]).requires_grad


def test_comparisons_are_arrays_of_booleans():
    x, y = Tensor([1.0, 2.0, 3.0]), Tensor([3.0, 2.0, 1.0])
    assert (x < y).tolist() == [True, False, False]
    assert (x <= 2).tolist() == [True, True, False]
    assert (x > y.data).tolist() == [False, False, True]
    assert (x >= y).tolist() == [False, True, True]
    assert (x == y).tolist() == [False, True, False]
    assert (x != y).tolist() == [True, False, True]
    assert len({x, y, x}) == 2


def test_a_single_number_is_formatted_and_converted():
    loss = (leaf(1.0, 2.0) * 0.617283945).sum()
    assert f"{loss:.3f} {loss:>8.2e}" == "1.852 1.85e+00"
    assert f"{leaf(1.5):.1f} {float(leaf(1.5))} {int(leaf(1.5))}" == "1.5 1.5 1"
    assert f"{leaf(1.0, 2.0)}" == "Tensor([1., 2.], dtype=float64, requires_grad=True)"
    for convert in (lambda x: f"{x:.3f}", float, int):
        with pytest.raises(
            TypeError, match=r"a Tensor of shape \(2,\) is not a single number; give "
        ):
            convert(leaf(1.0, 2.0))


def numbers(seed=0, shape=(4, 3)):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def like(x, shape=(4, 3)):
    return numbers(1, shape).astype(x.dtype)


@pytest.mark.parametrize(
    "function",
    [
        np.exp, np.log, np.sqrt, np.tanh, np.abs, np.square, np.negative, np.sum, np.mean, np.max,
        np.amax, np.transpose,
        lambda x: np.mean(x, axis=0), lambda x: np.sum(x, axis=1, keepdims=True),
        lambda x: np.float64(2) * x, lambda x: like(x, (3,)) - x, lambda x: like(x) / x,
        lambda x: like(x, (2, 4)) @ x, lambda x: np.maximum(like(x), x),
        lambda x: np.minimum(x, 1.0), lambda x: np.power(x, 3), lambda x: np.add(x, x),
        lambda x: np.concatenate([like(x), x], axis=1), lambda x: np.stack([x, like(x)]),
        lambda x: np.reshape(x, (2, 6)), lambda x: np.split(x, 2)[1],
        lambda x: np.where(like(x) > 1, x, 0.0), lambda x: np.broadcast_to(x, (2, 4, 3)),
    ],
)  # fmt: skip
def test_functions_of_numpy_that_are_operations_have_gradients(function, check_gradients):
    result, expected = function(Tensor(numbers(), requires_grad=True)), function(numbers())
    assert result.requires_grad
    np.testing.assert_allclose(result.data, expected)
    check_gradients(function, numbers())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            np.arctan,
            r"numpy\.arctan: its result would have no gradient; see anaphora\.ops, or pass x\.d",
        ),
        (np.median, r"numpy\.median: .*x\.data"),
        (lambda x: np.take(x, [0]), r"numpy\.take: .*write x\[index\]"),
        (lambda x: np.dot(x, numbers(1, (2, 3, 2))), r"numpy\.dot: .*write ops\.einsum"),
        (lambda x: np.linalg.norm(x, "nuc"), r"numpy\.linalg\.norm: with ord='nuc' .*ops\.norm"),
        (lambda x: np.vstack([x, numbers()]), r"numpy\.vstack: .*no gradient"),
        (np.add.reduce, r"numpy\.add\.reduce: its result would have no gradient"),
        (
            lambda x: np.add(x, 1.0, out=numbers()),
            r"numpy\.add: out= is not differentiable",
        ),
        (
            lambda x: numbers().__iadd__(x),
            r"numpy\.add: .*write array = array \+ tensor instead of",
        ),
    ],
)
def test_functions_of_numpy_never_lose_a_gradient_silently(function, message):
    x = Tensor(numbers(), requires_grad=True)
    with pytest.raises(TypeError, match=message):
        function(x)


def test_functions_of_numpy_use_the_values_where_no_gradient_is_lost():
    x, array = Tensor(numbers(), requires_grad=True), numbers()
    assert np.argmax(x) == array.argmax()
    assert np.shape(x) == (4, 3)
    assert np.allclose(x, array)
    assert not np.isnan(x).any()
    assert (np.isfinite(x) & (array == x)).all()
    assert np.zeros_like(x).sum() == 0
    assert np.where(x > 1)[0].tolist() == np.where(array > 1)[0].tolist()
    np.testing.assert_array_equal(np.arctan(Tensor(array)), np.arctan(array))
    np.testing.assert_array_equal(np.median(x.detach()), np.median(array))
    with no_grad():
        np.testing.assert_array_equal(np.arctan(x), np.arctan(array))


# Backward -------------------------------------------------------------------------------------


def test_gradients_of_a_diamond_are_summed():
    x = leaf(3.0)
    y = x * x
    z = y * y + y  # x^4 + x^2
    z.backward()
    assert x.grad.tolist() == [4 * 27 + 6]


def test_backward_of_a_leaf_takes_a_copy_of_the_seed():
    x, seed = leaf(1.0, 2.0), np.array([3.0, 4.0])
    x.backward(seed)
    x.backward(seed)
    assert x.grad.tolist() == [6, 8]
    assert seed.tolist() == [3, 4]


def test_gradients_add_up_over_backwards():
    x = leaf(2.0)
    for _ in range(3):
        (x * x).backward()
    assert x.grad.tolist() == [12]


def test_retain_graph_twice_doubles():
    x = leaf(2.0)
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [24]


def test_backward_twice_is_refused():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"^multiply: backward ran through .*retain_graph=True"):
        y.backward()
    shared = x * x
    first, second = shared * 2.0, shared * 3.0
    first.backward()
    with pytest.raises(RuntimeError, match=r"^multiply: backward ran through"):
        second.backward()
    assert x.grad.tolist() == [4 + 8]


def test_backward_needs_a_single_number_or_a_seed():
    y = leaf(1.0, 2.0) * 2.0
    with pytest.raises(RuntimeError, match=r"^backward: a Tensor of shape \(2,\) is not a single"):
        y.backward()
    with pytest.raises(ValueError, match=r"gradient of shape \(3,\) for a Tensor of shape \(2,\)"):
        y.backward(np.ones(3))
    with pytest.raises(RuntimeError, match=r"^backward: this Tensor does not depend on anything"):
        Tensor([1.0]).backward()


def test_seeds_may_be_lists_and_tensors():
    x = leaf(1.0, 2.0)
    (x * 2.0).backward([1, 10])
    (x * 2.0).backward(Tensor([1.0, 10.0]))
    assert x.grad.tolist() == [4, 40]
    assert x.grad.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_of_a_single_number_is_an_array(dtype):
    x = Tensor(np.array(3, dtype), requires_grad=True)
    for _ in range(2):
        (x * x + ops.tanh(x)).backward()
        assert type(x.grad) is np.ndarray
        assert x.grad.dtype == dtype


def test_no_gradient_is_computed_for_inputs_that_need_none():
    x, constant = leaf(2.0), Tensor(np.array([3.0]))
    counted_product(x, constant).backward()
    assert calls == {"left": 1, "right": 0}
    counted_product(constant, x).backward()
    counted_product(np.array([3.0]), x).backward()
    assert calls == {"left": 1, "right": 2}
    assert constant.grad is None
    assert not counted_product(constant, constant).requires_grad


def test_unrelated_operations_are_not_visited():
    x = leaf(2.0)
    counted_product(x, x)
    (x * 2.0).backward()
    assert calls == {"left": 0, "right": 0}


@pytest.mark.parametrize("steps", [1_000, 20_000])
def test_backward_is_linear_and_does_not_recurse(steps):
    x, factor = leaf(1.0), Tensor(np.array([1.0]))
    y = x
    for _ in range(steps):
        y = counted_product(y, factor)
    y.backward()
    assert calls == {"left": steps, "right": 0}
    assert x.grad.tolist() == [1]


def test_a_graph_of_diamonds_visits_each_operation_once():
    x = leaf(1.0)  # 2^60 paths
    y = x
    for _ in range(60):
        y = counted_product(y + y, 0.5)
    y.backward()
    assert calls == {"left": 60, "right": 0}
    assert x.grad.tolist() == [1]


def test_a_long_graph_that_was_never_run_is_freed_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    start = weakref.ref(y)
    del y
    assert start() is None
    assert x.grad is None


def test_iterating_over_the_steps_of_a_sequence_is_linear():
    x = Tensor(np.ones((50, 2)), requires_grad=True)
    received = []

    class Watch:
        def enter(self, phase, operation, inputs): ...

        def leave(self, phase, operation, outputs):
            if phase == "backward":
                received.append(sum(d.size for d in outputs))

    total = sum(row * 2.0 for row in x).sum()
    with hook(Watch()):
        total.backward()
    assert sum(received) <= 10 * x.size  # a gradient as large as x for each row would be 50 x


# Where gradients are kept ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: a + b,
        lambda a, b: (a + b) * 2.0,
        lambda a, b: ops.stack([a, b]),
        lambda a, b: ops.concatenate([a, b]),
        lambda a, b: (a + b).reshape(1, 2),
        lambda a, b: (a + b).sum(),
        lambda a, b: a + b + a,
    ],
)
def test_gradients_of_two_leaves_are_two_arrays(combine):
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = combine(a, b)
    seed = np.ones(y.shape)
    y.backward(seed)
    before = b.grad.copy()
    a.grad *= 100  # what clipping does
    np.testing.assert_array_equal(b.grad, before)
    assert (seed == 1).all()
    assert not np.shares_memory(a.grad, b.grad)


def test_adding_a_gradient_does_not_change_the_one_it_is_added_to():
    a, b = leaf(1.0), leaf(1.0)
    (a + b + a).backward()  # b gets the very array that a got first
    assert (a.grad.tolist(), b.grad.tolist()) == ([2], [1])


def test_gradients_are_not_those_of_a_retained_graph():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = (a + b).sum()
    y.backward(retain_graph=True)
    a.grad *= 100
    y.backward()
    assert a.grad.tolist() == [101, 101]
    assert b.grad.tolist() == [2, 2]


def test_a_failing_pullback_changes_no_gradients():
    @differentiable
    def failing(x, /):
        def pullback(dy):
            raise FloatingPointError("no")

        return x * 1, pullback

    a, b = leaf(1.0), leaf(1.0)
    b.grad = np.array([7.0])
    # The failing operation is the oldest: all other gradients are known when it is reached.
    y = failing(a) * b * a
    with pytest.raises(FloatingPointError):
        y.backward()
    assert a.grad is None
    assert b.grad.tolist() == [7]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda dy: np.zeros(7), r"float64\(7,\) for an input float64\(3,\)"),
        (lambda dy: np.zeros(()), r"float64\(\) for"),
        (lambda dy: dy.astype(np.float32), r"float32\(3,\) for an input float64\(3,\)"),
    ],
)
def test_a_wrong_pullback_is_reported(wrong, what):
    @differentiable
    def mistaken(x, /):
        return x * 1, wrong

    with pytest.raises(RuntimeError, match=rf"^mistaken: its pullback gave a gradient {what}"):
        mistaken(leaf(1.0, 2.0, 3.0)).sum().backward()


def test_operations_with_several_outputs():
    received = []

    @differentiable
    def parts(x, /):
        def pullback(d):
            received.append(d)
            return sum(k * g for k, g in enumerate(d, start=1) if g is not None)

        return (1 * x, 2 * x, 3 * x), pullback

    x = leaf(1.0)
    first, _, third = parts(x)
    (first + third).backward()
    assert [d is None for d in received[0]] == [False, True, False]
    assert x.grad.tolist() == [4]


def test_one_pullback_for_several_inputs_may_omit_some():
    @differentiable
    def scale(x, factor, /):
        return x * factor, lambda dy: (dy * factor, None)

    x, factor = leaf(1.0), leaf(3.0)
    scale(x, factor).backward()
    assert x.grad.tolist() == [3]
    assert factor.grad is None


# What is freed ---------------------------------------------------------------------------------


def test_backward_frees_what_the_graph_saved():
    saved = weakref.WeakSet()

    class Saved:
        def __init__(self):
            saved.add(self)

    @differentiable
    def keeping(x, /):
        kept = Saved()
        return x * 1, lambda dy: (kept, dy)[1]

    x = leaf(1.0)
    y = x
    for _ in range(5):
        y = keeping(y)
    gc.disable()
    try:
        assert len(saved) == 5
        y.backward(retain_graph=True)
        assert len(saved) == 5
        y.backward()
        assert len(saved) == 0  # although y is alive, and without garbage collection
        y = keeping(x)
        del y
        assert len(saved) == 0
    finally:
        gc.enable()


# Detaching -------------------------------------------------------------------------------------


def test_detach_stops_the_gradient():
    x = leaf(2.0)
    y = x * x
    (y.detach() * x).backward()
    assert x.grad.tolist() == [4]
    assert not y.detach().requires_grad
    assert np.shares_memory(y.detach().data, y.data)


def test_detach_goes_into_states():
    h, c = leaf(1.0) * 2.0, leaf(1.0) * 3.0
    state = detach((h, [c, None], 7))
    assert isinstance(state, tuple)
    assert isinstance(state[1], list)
    assert state[2] == 7
    assert state[1][1] is None
    assert not state[0].requires_grad
    assert not state[1][0].requires_grad


def test_no_grad_nests_and_survives_exceptions():
    x = leaf(1.0)

    def recording():
        return (x * 2.0).requires_grad

    with no_grad():
        with no_grad():
            assert not recording()
        assert not recording()
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        assert not recording()
    assert recording()


def test_no_grad_is_a_decorator():
    x = leaf(1.0)

    @no_grad()
    def double(depth):
        return double(depth - 1) if depth else x * 2.0

    assert not double(3).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_belongs_to_its_thread():
    x, seen = leaf(1.0), []

    @no_grad()
    def in_between(enter, leave):
        enter.set()
        leave.wait(10)
        seen.append((x * 2.0).requires_grad)

    first, second, leave = threading.Event(), threading.Event(), threading.Event()
    threads = [threading.Thread(target=in_between, args=(e, leave)) for e in (first, second)]
    for thread, entered in zip(threads, (first, second), strict=True):
        thread.start()
        assert entered.wait(10)
    assert (x * 2.0).requires_grad
    with no_grad():
        other = []
        thread = threading.Thread(target=lambda: other.append((x * 2.0).requires_grad))
        thread.start()
        thread.join()
    leave.set()
    for thread in threads:
        thread.join()
    assert seen == [False, False]
    assert other == [True]
    assert (x * 2.0).requires_grad


# Changing in place -----------------------------------------------------------------------------


def test_arrays_of_tensors_are_read_only():
    x = Tensor([1.0, 2.0])
    for tensor in (x, x * 2.0, x.reshape(2, 1), x.detach()):
        with pytest.raises(ValueError, match="read-only"):
            tensor.data[0] = 5
        with pytest.raises(ValueError, match="read-only"):
            np.asarray(tensor)[0] = 5


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x * x,
        lambda x: ops.exp(x) * x,
        lambda x: x.detach() * leaf(1.0, 1.0),
        lambda x: x.detach().reshape(2, 1).T * leaf(1.0, 1.0),
        lambda x: x.T * leaf(1.0, 1.0),
    ],
)
def test_an_in_place_change_before_backward_is_detected(use):
    x = leaf(1.0, 2.0)
    y = use(x).sum()
    with x.writing() as array:
        array[0] = 5
    with pytest.raises(
        RuntimeError, match=r"changed in place after it was used here.*forward pass aga"
    ):
        y.backward()
    assert x.grad is None
    use(x).sum().backward()  # after another forward pass it works


def test_a_view_made_without_recording_shares_the_version():
    x, w = Tensor(np.ones(2)), leaf(1.0, 1.0)
    with no_grad():
        view = x[:1]
    y = (view * w).sum()
    with x.writing() as array:
        array[:] = 3
    with pytest.raises(RuntimeError, match=r"^multiply: an input of shape \(1,\) was changed"):
        y.backward()


def test_results_of_operations_cannot_be_written():
    x = leaf(1.0, 2.0)
    with no_grad():
        unrecorded = x * 2.0
    for tensor in (x * 2.0, x.detach(), unrecorded, x[:1]):
        with pytest.raises(RuntimeError, match=r"^writing: .*result of an operation"):
            tensor.writing().__enter__()


def test_writing_closes_after_an_exception():
    x = leaf(1.0)
    y = x * x
    with pytest.raises(IndexError), x.writing() as array:
        array[0] = 2 + 0 * array[7]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 3
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


# Copies ----------------------------------------------------------------------------------------


def unpickled(x):
    return pickle.loads(pickle.dumps(x))


COPIES = [copy.copy, copy.deepcopy, unpickled, lambda x: pickle.loads(pickle.dumps(x, 0))]


@pytest.mark.parametrize("made", COPIES)
@pytest.mark.parametrize("kind", [Tensor, Parameter])
def test_a_copy_is_a_tensor_like_any_other(made, kind):
    x = kind(np.array([1.0, 2.0]))
    x.grad = np.array([3.0, 4.0])
    y = made(x)
    assert type(y) is kind
    assert (y.data.tolist(), y.grad.tolist()) == ([1, 2], [3, 4])
    assert y.requires_grad == x.requires_grad
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 5
    with y.writing() as array:
        array[0] = 5
    assert x.data.tolist() == [1, 2]


@pytest.mark.parametrize("made", COPIES)
def test_a_change_of_a_copy_before_backward_is_detected(made):
    x = made(leaf(1.0, 2.0))
    y = (x * x).sum()
    with x.writing() as array:
        array[0] = 5
    with pytest.raises(RuntimeError, match="changed in place after it was used here"):
        y.backward()


def test_a_copy_of_a_detached_tensor_can_be_changed():
    x = copy.deepcopy(leaf(1.0, 2.0).detach()[:1])
    with x.writing() as array:
        array[0] = 5
    assert x.data.tolist() == [5]


@pytest.mark.parametrize("made", COPIES)
def test_a_result_is_not_copied_because_its_history_is_not(made):
    with pytest.raises(RuntimeError, match=r"history is not: detach\(\) it first"):
        made(leaf(1.0) * 2.0)


def test_a_subclass_keeps_its_attributes_when_copied():
    class Named(Parameter):
        pass

    x = Named([1.0])
    x.name = ["a"]
    y = copy.deepcopy(x)
    assert (type(y), y.name, y.name is x.name) == (Named, ["a"], False)


def test_a_row_gradient_survives_pickling():
    gradient = unpickled(rows([3, 1], [[1.0], [2]]))
    assert gradient.dense().ravel().tolist() == [0, 2, 0, 1, 0]


@pytest.mark.parametrize("first", [0, 1])
def test_a_shared_array_is_copied_when_one_of_the_two_is_changed(first):
    x = Parameter([1.0, 2.0])
    both = [x, x.shared()]
    assert both[0].data is both[1].data
    with both[first].writing() as array:
        array[0] = 5
    assert both[first].data.tolist() == [5, 2]
    assert both[1 - first].data.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        both[first].data[0] = 7
    kept = both[first].data
    with both[first].writing() as array:
        array[0] = 7
    assert both[first].data is kept  # no longer shared: no further copy


# Hooks -----------------------------------------------------------------------------------------


class Log:
    def __init__(self, name, lines):
        self.name, self.lines = name, lines

    def enter(self, phase, operation, inputs):
        self.lines.append((self.name, "enter", phase, operation, len(inputs)))

    def leave(self, phase, operation, outputs):
        assert all(isinstance(o, (Tensor, np.ndarray)) for o in outputs)
        self.lines.append((self.name, "leave", phase, operation, len(outputs)))


def test_hooks_see_every_operation_enter_and_leave():
    lines = []
    x = leaf(1.0, 2.0)
    with hook(Log("outer", lines)), hook(Log("inner", lines)):
        y = (x * 2.0).sum()
        ops.split(x, 2)
        y.backward()
    (x * 2.0).sum().backward()  # outside: not seen

    def seen(phase, operation, inputs, outputs):
        return [
            ("outer", "enter", phase, operation, inputs),
            ("inner", "enter", phase, operation, inputs),
            ("inner", "leave", phase, operation, outputs),
            ("outer", "leave", phase, operation, outputs),
        ]

    assert lines == [
        *seen("forward", "multiply", 2, 1),
        *seen("forward", "sum", 1, 1),
        *seen("forward", "split", 1, 2),
        *seen("backward", "sum", 1, 1),
        *seen("backward", "multiply", 1, 1),
    ]


def test_hooks_are_removed_after_an_exception_and_belong_to_their_thread():
    lines = []
    with hook(Log("", lines)):
        thread = threading.Thread(target=lambda: leaf(1.0) * 2.0)
        thread.start()
        thread.join()
    with pytest.raises(KeyError), hook(Log("", lines)):
        raise KeyError
    leaf(1.0).sum()
    assert lines == []


# Gradients of rows -----------------------------------------------------------------------------


def rows(indices, values, count=5):
    values = np.array(values, float)
    return RowGradient(np.array(indices), values, (count, *values.shape[1:]))


def test_rows_are_summed_and_sorted():
    gradient = rows([3, 1, 3, 3], [[1.0, 2], [10, 20], [100, 200], [1000, 2000]])
    assert gradient.indices.tolist() == [1, 3]
    assert gradient.values.tolist() == [[10, 20], [1101, 2202]]
    assert gradient.dense().tolist() == [[0, 0], [10, 20], [0, 0], [1101, 2202], [0, 0]]
    assert repr(gradient) == "RowGradient(2 of 5 rows, float64)"
    empty = rows(np.zeros(0, int), np.zeros((0, 2)))
    assert empty.dense().tolist() == [[0, 0]] * 5


def test_rows_add_up_with_rows_and_with_arrays():
    a, b = rows([1, 2], [[1.0], [2]]), rows([2, 4], [[10.0], [20]])
    both = a + b
    assert isinstance(both, RowGradient)
    np.testing.assert_array_equal(both.dense(), a.dense() + b.dense())
    table = np.arange(5.0)[:, None]
    for total in (a + table, table + a):
        assert isinstance(total, np.ndarray)
        np.testing.assert_array_equal(total, a.dense() + table)
    assert table.ravel().tolist() == [0, 1, 2, 3, 4]


def test_row_gradients_are_dense_for_numpy():
    gradient = rows([3, 1, 3], [[1.0, 2], [10, 20], [100, 200]])
    table = gradient.dense()
    np.testing.assert_array_equal(np.asarray(gradient), table)
    assert np.asarray(gradient, np.float32).dtype == np.float32
    assert np.linalg.norm(gradient) == np.linalg.norm(table)
    np.testing.assert_array_equal(np.abs(gradient) * np.float64(2), 2 * table)
    np.testing.assert_array_equal(abs(-gradient / 2), table / 2)
    np.testing.assert_array_equal(gradient + 1, table + 1)
    np.testing.assert_array_equal(sum([gradient, gradient]), 2 * table)
    assert (gradient[3].tolist(), len(gradient)) == ([101, 202], 5)
    total = np.ones((5, 2))
    total -= gradient
    np.testing.assert_array_equal(total, 1 - table)
    with pytest.raises(ValueError, match="copy=False is not possible"):
        np.array(gradient, copy=False)


@pytest.mark.parametrize("rows_first", [True, False])
def test_tied_weights_get_rows_and_a_table(rows_first, rng):
    weight = Tensor(rng.standard_normal((5, 3)), requires_grad=True)
    ids, d_rows, x = [4, 0, 4], rng.standard_normal((3, 3)), rng.standard_normal((2, 3))
    read = (ops.embedding(weight, ids) * d_rows).sum()
    multiplied = ops.linear(x, weight).sum()
    loss = read + multiplied if rows_first else multiplied + read
    expected = np.tile(x.sum(axis=0), (5, 1))
    for row, d in zip(ids, d_rows, strict=True):
        expected[row] += d
    loss.backward(retain_graph=True)
    np.testing.assert_allclose(weight.grad, expected)
    loss.backward()
    np.testing.assert_allclose(weight.grad, 2 * expected)


def test_rows_stay_rows_over_several_backwards():
    weight = Tensor(np.zeros((5, 1)), requires_grad=True)
    for ids in ([1, 2], [2, 3]):
        ops.embedding(weight, ids).sum().backward()
    assert isinstance(weight.grad, RowGradient)
    assert weight.grad.dense().ravel().tolist() == [0, 1, 2, 1, 0]


def test_rows_of_a_table_that_was_computed():
    weight = Tensor(np.ones((4, 2)), requires_grad=True)
    ops.embedding(weight * 3.0, [1, 1]).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [6, 6], [0, 0], [0, 0]]


def test_lists_that_would_lose_gradients_are_refused_at_any_depth():
    x = leaf(1.0, 2.0).sum()
    for data in ([0.0, x], [[x], [x]], (1, [2.0, [x]]), np.array([x, 1.0], dtype=object)):
        with pytest.raises(TypeError, match=r"a list of Tensors that have gradients; ops.stack"):
            Tensor(data)
    assert Tensor([Tensor(1.0), 2.0]).data.tolist() == [1.0, 2.0]
    assert round(leaf(1.26), 1) == 1.3
