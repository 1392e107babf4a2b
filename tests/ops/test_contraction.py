"""Einstein summation: values beside NumPy's, gradients, and what it refuses."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

SIZES = dict(zip("abcdefgij", (2, 3, 4, 5, 1, 6, 7, 3, 4), strict=True))
FORMS = [
    "ab->ba", "ab->", "ab->b", "ab", "ba", "aba->b", "bb->b", "bb", "bbab->ab", "a,b->ab",
    "ab,bc->ac", "ab,bc", "ab,ab->ab", "ab,ab->a", "ab,ab->", "ab,cb->ca", "abc,acd->abd",
    "cab,dbc->bad", "abc,d->a", "a,a->a", "abc,cd->adb", "ab,bc,cd->da", "bf,abc,cg->fga",
    "ab,a,b->", "aab,bc->ca", "ac,ab->abc", "e,ea->a", "abc , dc -> abd",
]  # fmt: skip


def arrays(form, rng):
    terms = form.replace(" ", "").partition("->")[0].split(",")
    return [rng.standard_normal([SIZES[c] for c in term]) for term in terms]


@pytest.mark.parametrize("form", FORMS)
def test_einsum(form, rng, check_gradients):
    xs = arrays(form, rng)
    expected = np.einsum(form, *xs)
    result = ops.einsum(form, *(Tensor(x) for x in xs))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.data, expected, rtol=1e-12, atol=1e-12)
    single = ops.einsum(form, *(x.astype(np.float32) for x in xs))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.data, expected, rtol=1e-4, atol=1e-4)
    check_gradients(lambda *xs: ops.einsum(form, *xs), *xs)


ELLIPSES = {
    "...ab->...ba": [(2, 5, 3, 4)],
    "...ab,...bc->...ac": [(2, 1, 3, 4), (5, 4, 6)],
    "...ab,bc": [(2, 3, 4), (4, 5)],
    "a...,b...->ba...": [(2, 4, 1), (3, 4, 5)],
    "...,a->a...": [(), (3,)],
    "a...->...": [(3, 2)],
    "ab,ab->ab": [(3, 1), (1, 4)],  # letters broadcast too
    "ab,bc->ac": [(3, 1), (4, 2)],
}


@pytest.mark.parametrize("form", ELLIPSES)
def test_einsum_of_any_axes(form, rng, check_gradients):
    xs = [rng.standard_normal(shape) for shape in ELLIPSES[form]]
    np.testing.assert_allclose(ops.einsum(form, *xs).data, np.einsum(form, *xs), rtol=1e-12)
    check_gradients(lambda *xs: ops.einsum(form, *xs), *xs)


def test_einsum_of_nothing_and_of_one_tensor_twice(rng, check_gradients):
    assert (
        ops.einsum("ab,bc->ac", np.zeros((2, 0)), np.zeros((0, 3))).data.tolist() == [[0] * 3] * 2
    )
    check_gradients(lambda a, b: ops.einsum("ab,bc->ac", a, b), np.zeros((0, 2)), np.ones((2, 3)))
    check_gradients(lambda x: ops.einsum("ab,cb->ac", x, x), rng.standard_normal((3, 4)))


def test_einsum_mixes_arrays_in_as_other_operations_do():
    x = Tensor([[1.0, 2.0]], requires_grad=True)
    y = ops.einsum("ab,cb->ac", x, np.array([[3.0, 4.0]]))
    assert (y.dtype, y.tolist()) == (np.float32, [[11.0]])
    with pytest.raises(TypeError, match=r"^einsum: float32 and float64 do not mix"):
        ops.einsum("ab,cb->ac", x, Tensor(np.ones((1, 2))))
    assert ops.einsum("ab->b", [[1, 2], [3, 4]]).dtype == np.int64
    assert ops.einsum("ab,bc", Tensor([[1, 2]]), Tensor([[3], [4]])).tolist() == [[11]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_einsum_has_the_bits_of_the_product(dtype, rng):
    a, b = (
        rng.standard_normal((3, 5, 70)).astype(dtype),
        rng.standard_normal((3, 70, 9)).astype(dtype),
    )
    product = ops.matmul(a, b).data
    np.testing.assert_array_equal(ops.einsum("bij,bjk->bik", a, b).data, product)
    alone = ops.einsum("bij,bjk->bik", a[1:2], b[1:2]).data
    np.testing.assert_array_equal(alone[0], product[1])


@pytest.mark.parametrize(
    ("form", "shapes", "message"),
    [
        ("ab,bc", [(2, 3)], r"^einsum: 'ab,bc' is for 2 operands, but 1 were given"),
        ("ab", [], r"^einsum: 'ab' is for 1 operands, but 0 were given"),
        (
            "ab,bc",
            [(2, 3), (4, 5)],
            r"^einsum: 'b' in 'ab,bc' is 3 and 4 in shapes \(2, 3\), \(4, 5",
        ),
        ("abc", [(2, 3)], r"^einsum: 'abc' in 'abc' is for 3 axes, but the operand has 2"),
        ("a", [(2, 3)], r"^einsum: 'a' in 'a' is for 1 axes, but the operand has 2"),
        ("ab->ac", [(2, 3)], r"^einsum: the output of 'ab->ac' must have letters of the operands"),
        ("ab->aa", [(2, 3)], r"^einsum: the output of 'ab->aa' must have .* each once"),
        ("...b->b", [(2, 3)], r"^einsum: the output .* and '\.\.\.', which an operand has"),
        ("a1->a", [(2, 3)], r"^einsum: 'a1->a' has characters other than letters"),
        ("...a,...a->a...", [(2, 3), (4, 3)], r"^einsum: '\.\.\.' in .* is 2 and 4"),
    ],
)
def test_einsum_says_what_does_not_fit(form, shapes, message):
    with pytest.raises(ValueError, match=message):
        ops.einsum(form, *(np.ones(shape) for shape in shapes))


def test_the_subscripts_come_first():
    with pytest.raises(TypeError, match=r"^einsum: the subscripts come first, as a string such as"):
        ops.einsum(np.ones((2, 3)), [0, 1])
