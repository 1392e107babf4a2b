// Python bindings of embedding, dropout and layer normalisation.
#include "module.h"

#include <algorithm>
#include <numeric>

namespace anaphora {
namespace {

template <class T> Result<T> gather_rows(In<T> table, In<std::int64_t> ids, const char *precision) {
    std::int64_t width = columns(table, "table"), V = size(table, 0);
    std::int64_t N = static_cast<std::int64_t>(ids.size()), lowest = 0, highest = -1;
    if (N > 0) {
        auto [low, high] = std::minmax_element(ids.data(), ids.data() + N);
        lowest = *low, highest = *high;
    }
    if (lowest < 0 || highest >= V)
        throw std::out_of_range("embedding: ids from " + std::to_string(lowest) + " to " +
                                std::to_string(highest) + " for a table of " + std::to_string(V) +
                                " rows");
    std::vector<std::size_t> wanted = ids.shape();
    wanted.push_back(table.shape(1));
    auto rows = make<T>(wanted);
    T *to = rows.data();
    const Kernels<T> &with = kernels<T>(precision);
    nb::gil_scoped_release release;
    with.gather_rows(N, width, table.data(), ids.data(), to);
    return rows;
}

// Returns the distinct row numbers, ascending, and the sums of their values.
template <class T> nb::tuple sum_rows(In<std::int64_t> indices, In<T> values) {
    std::int64_t width = columns(values, "values"), N = size(values, 0);
    check_shape(indices, {N}, "indices");
    const std::int64_t *index = indices.data();
    std::vector<std::int64_t> order(static_cast<std::size_t>(N)), ends;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [=](std::int64_t a, std::int64_t b) { return index[a] < index[b]; });
    for (std::size_t k = 1; k <= order.size(); k++)
        if (k == order.size() || index[order[k]] != index[order[k - 1]])
            ends.push_back(static_cast<std::int64_t>(k));
    auto rows = make<std::int64_t>({ends.size()});
    for (std::size_t m = 0; m < ends.size(); m++)
        rows.data()[m] = index[order[static_cast<std::size_t>(ends[m] - 1)]];
    auto sums = make<T>({ends.size(), values.shape(1)});
    T *to = sums.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().sum_rows(static_cast<std::int64_t>(ends.size()), width, values.data(),
                              order.data(), ends.data(), to);
    }
    return nb::make_tuple(rows, sums);
}

// x [..., n elements] times a mask of n elements.
template <class T>
Result<T> dropout(In<T> x, std::int64_t n, std::uint64_t key, std::uint32_t threshold, T factor) {
    std::int64_t count = static_cast<std::int64_t>(x.size());
    if (n < 0 || (count > 0 && (n == 0 || count % n != 0)))
        refuse("dropout: the array's size is not a multiple of the mask's");
    auto y = make<T>(x.shape());
    T *to = y.data();
    nb::gil_scoped_release release;
    if (count > 0)
        kernels<T>().dropout(count / n, n, x.data(), key, threshold, factor, to);
    return y;
}

// A given vector [H], or a constant in its place.
template <class T> class VectorOrConstant {
  public:
    VectorOrConstant(const std::optional<In<T>> &given, std::int64_t H, T fallback,
                     const char *name) {
        if (given)
            check_shape(*given, {H}, name);
        else
            own_.assign(static_cast<std::size_t>(H), fallback);
        data = given ? given->data() : own_.data();
    }
    const T *data;

  private:
    std::vector<T> own_;
};

template <class T>
nb::tuple layer_norm_forward(In<T> x, std::optional<In<T>> weight, std::optional<In<T>> bias,
                             T epsilon) {
    std::int64_t H = columns(x, "x"), N = size(x, 0);
    VectorOrConstant<T> weights(weight, H, 1, "weight"), biases(bias, H, 0, "bias");
    auto y = make<T>({x.shape(0), x.shape(1)});
    auto means = make<T>({x.shape(0)}), factors = make<T>({x.shape(0)});
    T *to = y.data(), *mean = means.data(), *factor = factors.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().layer_norm_forward(N, H, x.data(), weights.data, biases.data, epsilon, to,
                                        mean, factor);
    }
    return nb::make_tuple(y, means, factors);
}

template <class T>
nb::tuple layer_norm_backward(In<T> x, std::optional<In<T>> weight, In<T> means, In<T> factors,
                              In<T> dy) {
    std::int64_t H = columns(x, "x"), N = size(x, 0);
    VectorOrConstant<T> weights(weight, H, 1, "weight");
    check_shape(means, {N}, "means");
    check_shape(factors, {N}, "factors");
    check_shape(dy, {N, H}, "dy");
    auto dx = make<T>({x.shape(0), x.shape(1)});
    auto d_weight = make<T>({x.shape(1)}), d_bias = make<T>({x.shape(1)});
    T *to = dx.data(), *dw = d_weight.data(), *db = d_bias.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().layer_norm_backward(N, H, x.data(), weights.data, means.data(), factors.data(),
                                         dy.data(), to, dw, db);
    }
    return nb::make_tuple(dx, d_weight, d_bias);
}

using Mask = std::optional<In<bool>>; // of rows

// The number of rows of x [..., N].
template <class T> std::int64_t rows_of(const In<T> &x, const Mask &mask) {
    if (x.ndim() < 2)
        refuse("x must have two axes at least");
    std::int64_t M = 1;
    for (std::size_t axis = 0; axis + 1 < x.ndim(); axis++)
        M *= size(x, axis);
    if (mask)
        check_shape(*mask, {M}, "mask");
    return M;
}

template <class T>
nb::tuple batch_norm_forward(In<T> x, Mask mask, std::optional<In<T>> weight,
                             std::optional<In<T>> bias, T epsilon) {
    const std::int64_t M = rows_of(x, mask), N = size(x, x.ndim() - 1);
    const VectorOrConstant<T> weights(weight, N, 1, "weight"), biases(bias, N, 0, "bias");
    auto y = make<T>(x.shape());
    const std::size_t width = x.shape(x.ndim() - 1);
    auto means = make<T>({width}), variances = make<T>({width}), factors = make<T>({width});
    {
        nb::gil_scoped_release release;
        kernels<T>().batch_norm_forward(M, N, x.data(), mask ? mask->data() : nullptr, weights.data,
                                        biases.data, epsilon, y.data(), means.data(),
                                        variances.data(), factors.data());
    }
    return nb::make_tuple(y, means, variances, factors);
}

template <class T>
nb::tuple batch_norm_backward(In<T> x, Mask mask, std::optional<In<T>> weight, In<T> means,
                              In<T> factors, In<T> dy) {
    const std::int64_t M = rows_of(x, mask), N = size(x, x.ndim() - 1);
    const VectorOrConstant<T> weights(weight, N, 1, "weight");
    check_shape(means, {N}, "means");
    check_shape(factors, {N}, "factors");
    if (dy.shape() != x.shape())
        refuse("wrong shape of dy");
    auto dx = make<T>(x.shape());
    auto d_weight_and_bias = make<T>({2, x.shape(x.ndim() - 1)});
    {
        nb::gil_scoped_release release;
        kernels<T>().batch_norm_backward(M, N, x.data(), mask ? mask->data() : nullptr,
                                         weights.data, means.data(), factors.data(), dy.data(),
                                         dx.data(), d_weight_and_bias.data());
    }
    return nb::make_tuple(dx, d_weight_and_bias);
}

} // namespace

template <class T> void bind_layers(nb::module_ &m) {
    m.def("gather_rows", &gather_rows<T>, plain("table"), plain("ids"),
          nb::arg("precision") = "float32");
    m.def("sum_rows", &sum_rows<T>, plain("indices"), plain("values"));
    m.def("dropout", &dropout<T>, plain("x"), "n"_a, "key"_a, "threshold"_a, "factor"_a);
    m.def("layer_norm_forward", &layer_norm_forward<T>, plain("x"), optional("weight"),
          optional("bias"), "epsilon"_a);
    m.def("layer_norm_backward", &layer_norm_backward<T>, plain("x"), optional("weight"),
          plain("means"), plain("factors"), plain("dy"));
    m.def("batch_norm_forward", &batch_norm_forward<T>, plain("x"), optional("mask"),
          optional("weight"), optional("bias"), "epsilon"_a);
    m.def("batch_norm_backward", &batch_norm_backward<T>, plain("x"), optional("mask"),
          optional("weight"), plain("means"), plain("factors"), plain("dy"));
}

template void bind_layers<float>(nb::module_ &);
template void bind_layers<double>(nb::module_ &);

} // namespace anaphora
