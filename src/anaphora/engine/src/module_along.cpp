// Python bindings of sums, elements and their order along an axis.
#include "module.h"

#include <algorithm>

namespace anaphora {
namespace {

// The product of some sizes.
std::int64_t product(const std::vector<std::size_t> &shape, std::size_t begin, std::size_t end) {
    std::size_t result = 1; // of one that is too large no array is made
    for (std::size_t k = begin; k < end; k++)
        result *= shape[k];
    return static_cast<std::int64_t>(result);
}

// The sizes of x before, along and after an axis, and that of the axis afterwards.
Along along(const std::vector<std::size_t> &shape, std::size_t axis, std::int64_t M) {
    if (axis >= shape.size())
        refuse("there is no axis " + std::to_string(axis) + " of " + std::to_string(shape.size()));
    return {.A = product(shape, 0, axis),
            .N = static_cast<std::int64_t>(shape[axis]),
            .M = M,
            .C = product(shape, axis + 1, shape.size())};
}

template <class T> Result<T> cumulative_sums(In<T> x, std::size_t axis, bool reverse) {
    const Along s = along(x.shape(), axis, 0);
    auto y = make<T>(x.shape());
    nb::gil_scoped_release release;
    kernels<T>().cumulative_sums(s.A, s.N, s.C, x.data(), reverse, y.data());
    return y;
}

// Raise an IndexError, if an index is not one of N elements.
void check_indices(const In<std::int64_t> &indices, std::int64_t N) {
    const std::int64_t *begin = indices.data(), *end = begin + indices.size();
    const std::int64_t *wrong =
        std::find_if(begin, end, [=](std::int64_t index) { return index < -N || index >= N; });
    if (wrong != end)
        throw std::out_of_range("index " + std::to_string(*wrong) +
                                " is out of bounds for an axis of " + std::to_string(N) +
                                " elements");
}

// Sizes of a call whose indices have the shape of x but for the axis.
Along along_with_indices(const std::vector<std::size_t> &x, const In<std::int64_t> &indices,
                         std::size_t axis) {
    std::vector<std::size_t> expected = x;
    if (indices.ndim() != x.size() || axis >= x.size())
        refuse("indices have as many axes as the array, of which one is the axis");
    expected[axis] = indices.shape(axis);
    if (indices.shape() != expected)
        refuse("wrong shape of indices");
    return along(x, axis, size(indices, axis));
}

template <class T> Result<T> take_along_axis(In<T> x, In<std::int64_t> indices, std::size_t axis) {
    const Along s = along_with_indices(x.shape(), indices, axis);
    auto y = make<T>(indices.shape());
    bool exist = true;
    {
        nb::gil_scoped_release release;
        if (s.N > 0)
            exist = kernels<T>().take_along(s, x.data(), indices.data(), y.data());
    }
    if (!exist || s.N == 0)
        check_indices(indices, s.N);
    return y;
}

template <class T>
Result<T> add(const Along &s, std::vector<std::size_t> shape, const In<T> &dy,
              const In<std::int64_t> &indices) {
    auto dx = make<T>(std::move(shape));
    bool exist = true;
    {
        nb::gil_scoped_release release;
        if (s.N > 0)
            exist = kernels<T>().add_along(s, dy.data(), indices.data(), dx.data());
    }
    if (!exist || s.N == 0)
        check_indices(indices, s.N);
    return dx;
}

template <class T>
Result<T> add_along_axis(In<T> dy, In<std::int64_t> indices, std::size_t axis, std::size_t count) {
    std::vector<std::size_t> shape = dy.shape();
    const Along sizes = along_with_indices(shape, indices, axis);
    if (dy.shape() != indices.shape())
        refuse("wrong shape of dy");
    shape[axis] = count;
    return add(along(shape, axis, sizes.M), shape, dy, indices);
}

// Rows of an array of some shape: its first axes number them.
template <class T>
Result<T> add_rows(In<T> dy, In<std::int64_t> rows, std::vector<std::size_t> shape,
                   std::size_t axes) {
    if (axes > shape.size())
        refuse("there are fewer axes");
    const Along s{.A = 1,
                  .N = product(shape, 0, axes),
                  .M = static_cast<std::int64_t>(rows.size()),
                  .C = product(shape, axes, shape.size()),
                  .shared = true};
    if (static_cast<std::int64_t>(dy.size()) != s.M * s.C)
        refuse("wrong size of dy");
    return add(s, std::move(shape), dy, rows);
}

template <class T> Result<std::int64_t> order_rows(In<T> x, std::int64_t count, bool descending) {
    const std::int64_t N = columns(x, "x");
    if (count < 0 || count > N)
        refuse("order_rows: a row has " + std::to_string(N) + " elements, not " +
               std::to_string(count));
    if (sizeof(T) == 4 && N > std::numeric_limits<std::uint32_t>::max())
        refuse("order_rows: more than 2^32 elements of float32 in a row");
    auto order = make<std::int64_t>({x.shape(0), static_cast<std::size_t>(count)});
    nb::gil_scoped_release release;
    kernels<T>().order_rows(size(x, 0), N, count, x.data(), descending, order.data());
    return order;
}

} // namespace

template <class T> void bind_along(nb::module_ &m) {
    m.def("cumsum", &cumulative_sums<T>, plain("x"), "axis"_a, "reverse"_a);
    m.def("take_along_axis", &take_along_axis<T>, plain("x"), plain("indices"), "axis"_a);
    m.def("add_along_axis", &add_along_axis<T>, plain("dy"), plain("indices"), "axis"_a, "count"_a);
    m.def("add_rows", &add_rows<T>, plain("dy"), plain("rows"), "shape"_a, "axes"_a);
    m.def("order_rows", &order_rows<T>, plain("x"), "count"_a, "descending"_a);
}

template void bind_along<float>(nb::module_ &);
template void bind_along<double>(nb::module_ &);

} // namespace anaphora
