// Products of batches of matrices and softmax over rows for Python.
#include "module.h"

namespace anaphora {
namespace {

template <class T> using Batch = Array<const T, 3>;

template <class T> Result<T> multiply_batch(Batch<T> a, Batch<T> b) {
    const std::int64_t count = size(a, 0), M = size(a, 1), K = size(a, 2), N = size(b, 2);
    if (size(b, 0) != count || size(b, 1) != K)
        refuse("batch_matmul: the numbers of matrices, or the inner sizes, differ");
    auto c = make<T>({a.shape(0), a.shape(1), b.shape(2)});
    T *to = c.data();
    nb::gil_scoped_release release;
    kernels<T>().multiply_batch(count, M, N, K, {a.data(), a.stride(0), a.stride(1), a.stride(2)},
                                {b.data(), b.stride(0), b.stride(1), b.stride(2)}, to);
    return c;
}

template <class T>
Result<T> softmax_forward(In<T> x, std::optional<In<bool>> mask, bool logarithm) {
    const std::int64_t S = columns(x, "x"), N = size(x, 0);
    if (mask)
        check_shape(*mask, {N, S}, "mask");
    auto y = make<T>({x.shape(0), x.shape(1)});
    const bool *kept = mask ? mask->data() : nullptr;
    T *to = y.data();
    nb::gil_scoped_release release;
    kernels<T>().softmax_forward(N, S, x.data(), kept, logarithm, to);
    return y;
}

template <class T> Result<T> softmax_backward(In<T> y, In<T> dy, bool logarithm) {
    const std::int64_t S = columns(y, "y"), N = size(y, 0);
    check_shape(dy, {N, S}, "dy");
    auto dx = make<T>({y.shape(0), y.shape(1)});
    T *to = dx.data();
    nb::gil_scoped_release release;
    kernels<T>().softmax_backward(N, S, y.data(), dy.data(), logarithm, to);
    return dx;
}

} // namespace

template <class T> void bind_batches(nb::module_ &m) {
    m.def("batch_matmul", &multiply_batch<T>, plain("a"), plain("b"));
    m.def("softmax_forward", &softmax_forward<T>, plain("x"), optional("mask"), "logarithm"_a);
    m.def("softmax_backward", &softmax_backward<T>, plain("y"), plain("dy"), "logarithm"_a);
}

template void bind_batches<float>(nb::module_ &);
template void bind_batches<double>(nb::module_ &);

} // namespace anaphora
