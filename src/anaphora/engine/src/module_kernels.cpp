// Python bindings of products, losses, sums and the error function.
#include "module.h"
#include "pool.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace anaphora {
namespace {

template <class T>
Result<T> multiply(Strided<T> a, Strided<T> b, std::optional<In<T>> bias, const char *gradient_of,
                   const char *precision) {
    const std::string_view gradient = gradient_of;
    std::int64_t M = size(a, 0), K = size(a, 1), N = size(b, 1);
    if (size(b, 0) != K)
        refuse("matmul: the inner sizes differ");
    if (bias)
        check_shape(*bias, {N}, "bias");
    const Use use = gradient == "input"    ? Use::input_gradient
                    : gradient == "weight" ? Use::weight_gradient
                                           : Use::weight;
    if (use == Use::weight && !gradient.empty())
        refuse(std::string("matmul: unknown gradient '") + gradient_of + "'");
    auto c = make<T>({a.shape(0), b.shape(1)});
    Matrix<const T> A{a.data(), a.stride(0), a.stride(1)}, B{b.data(), b.stride(0), b.stride(1)};
    const T *bias_data = bias ? bias->data() : nullptr;
    T *to = c.data();
    const Kernels<T> &with = kernels<T>(precision);
    nb::gil_scoped_release release;
    with.multiply(use, M, N, K, A, B, to, N, bias_data, false);
    return c;
}

void check_targets(const In<std::int64_t> &targets, std::int64_t N, std::int64_t V) {
    check_shape(targets, {N}, "targets");
    for (std::int64_t n = 0; n < N; n++)
        if (targets.data()[n] < 0 || targets.data()[n] >= V)
            refuse("cross_entropy: a target is outside 0..V-1");
}

template <class T>
nb::tuple cross_entropy_forward(In<T> logits, In<std::int64_t> targets, std::optional<Out<T>> out) {
    if (logits.ndim() != 2)
        refuse("cross_entropy: logits must be [N, V]");
    std::int64_t N = size(logits, 0), V = size(logits, 1);
    check_targets(targets, N, V);
    auto losses = make<T>({logits.shape(0)});
    nb::object probabilities;
    T *l = losses.data(), *p = nullptr;
    if (out) {
        check_shape(*out, {N, V}, "out");
        p = out->data();
        probabilities = out->object();
    } else {
        auto made = make<T>({logits.shape(0), logits.shape(1)});
        p = made.data();
        probabilities = made.object();
    }
    {
        nb::gil_scoped_release release;
        kernels<T>().cross_entropy_forward(N, V, logits.data(), targets.data(), l, p);
    }
    return nb::make_tuple(losses, probabilities);
}

template <class T>
Result<T> cross_entropy_backward(In<T> probabilities, In<std::int64_t> targets, In<T> d_losses) {
    if (probabilities.ndim() != 2)
        refuse("cross_entropy: probabilities must be [N, V]");
    std::int64_t N = size(probabilities, 0), V = size(probabilities, 1);
    check_targets(targets, N, V);
    check_shape(d_losses, {N}, "d_losses");
    auto d = make<T>({probabilities.shape(0), probabilities.shape(1)});
    T *to = d.data();
    nb::gil_scoped_release release;
    kernels<T>().cross_entropy_backward(N, V, probabilities.data(), targets.data(), d_losses.data(),
                                        to);
    return d;
}

template <class T>
Result<T> linear_cross_entropy(In<T> x, In<T> weight, std::optional<In<T>> bias,
                               In<std::int64_t> targets, const char *precision) {
    std::int64_t K = columns(x, "x"), N = size(x, 0);
    if (columns(weight, "weight") != K)
        refuse("linear_cross_entropy: the inner sizes differ");
    std::int64_t V = size(weight, 0);
    if (bias)
        check_shape(*bias, {V}, "bias");
    check_targets(targets, N, V);
    auto losses = make<T>({x.shape(0)});
    const T *bias_data = bias ? bias->data() : nullptr;
    T *to = losses.data();
    const Kernels<T> &with = kernels<T>(precision);
    nb::gil_scoped_release release;
    if (N > 0)
        with.linear_cross_entropy(N, V, K, x.data(), weight.data(), bias_data, targets.data(), to);
    return losses;
}

template <class T> Result<T> sum_columns(In<T> x) {
    if (x.ndim() != 2)
        refuse("sum_columns: x must be [M, N]");
    auto sums = make<T>({x.shape(1)});
    T *to = sums.data();
    nb::gil_scoped_release release;
    kernels<T>().sum_columns(size(x, 0), size(x, 1), x.data(), to, false);
    return sums;
}

// Each element by the C library.
template <class T> Result<T> erf(In<T> x) {
    if (x.ndim() != 1)
        refuse("erf: x must be [N]");
    constexpr std::int64_t block = 4096;
    std::int64_t N = size(x, 0);
    auto y = make<T>({x.shape(0)});
    const T *from = x.data();
    T *to = y.data();
    nb::gil_scoped_release release;
    parallel((N + block - 1) / block, [&](std::int64_t task) {
        for (std::int64_t n = task * block; n < std::min(N, (task + 1) * block); n++)
            to[n] = std::erf(from[n]);
    });
    return y;
}

} // namespace

template <class T> void bind_kernels(nb::module_ &m) {
    m.def("matmul", &multiply<T>, plain("a"), plain("b"), optional("bias"), "gradient"_a,
          "precision"_a);
    m.def("cross_entropy_forward", &cross_entropy_forward<T>, plain("logits"), plain("targets"),
          optional("out"));
    m.def("cross_entropy_backward", &cross_entropy_backward<T>, plain("probabilities"),
          plain("targets"), plain("d_losses"));
    m.def("sum_columns", &sum_columns<T>, plain("x"));
    m.def("erf", &erf<T>, plain("x"));
    m.def("linear_cross_entropy", &linear_cross_entropy<T>, plain("x"), plain("weight"),
          optional("bias"), plain("targets"), "precision"_a);
}

template void bind_kernels<float>(nb::module_ &);
template void bind_kernels<double>(nb::module_ &);

} // namespace anaphora
