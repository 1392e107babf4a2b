// Connectionist temporal classification for Python.
#include "module.h"

namespace anaphora {
namespace {

// The arrays of a call, checked.
template <class T>
Ctc<T> checked(const In<T> &logits, const In<std::int64_t> &targets,
               const In<std::int64_t> &lengths, const In<std::int64_t> &target_lengths,
               std::int64_t blank) {
    if (logits.ndim() != 3)
        refuse("ctc: logits are [T, B, V]");
    const std::int64_t steps = size(logits, 0), batch = size(logits, 1), classes = size(logits, 2);
    if (columns(targets, "targets") != batch)
        refuse("ctc: targets are [S, B]");
    const std::int64_t labels = size(targets, 0);
    check_shape(lengths, {batch}, "lengths");
    check_shape(target_lengths, {batch}, "target_lengths");
    auto outside = [](std::int64_t number, std::int64_t end) {
        return number < 0 || number >= end;
    };
    if (outside(blank, classes))
        refuse("ctc: the blank is outside 0..V-1");
    for (std::int64_t b = 0; b < batch; b++) {
        if (outside(lengths.data()[b], steps + 1) || outside(target_lengths.data()[b], labels + 1))
            refuse("ctc: a length is outside 0..T, or one of targets outside 0..S");
        for (std::int64_t s = 0; s < target_lengths.data()[b]; s++)
            if (outside(targets.data()[s * batch + b], classes))
                refuse("ctc: a label is outside 0..V-1");
    }
    return {steps,          batch,          classes,
            labels,         blank,          logits.data(),
            targets.data(), lengths.data(), target_lengths.data()};
}

template <class T>
nb::tuple ctc_forward(In<T> logits, In<std::int64_t> targets, In<std::int64_t> lengths,
                      In<std::int64_t> target_lengths, std::int64_t blank) {
    const Ctc<T> ctc = checked(logits, targets, lengths, target_lengths, blank);
    auto losses = make<double>({logits.shape(1)});
    auto normalizers = make<double>({logits.shape(0), logits.shape(1)});
    auto alphas = make<double>({logits.shape(0), logits.shape(1), 2 * targets.shape(0) + 1});
    double *l = losses.data(), *n = normalizers.data(), *a = alphas.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().ctc_forward(ctc, l, n, a);
    }
    return nb::make_tuple(losses, normalizers, alphas);
}

template <class T>
Result<T> ctc_backward(In<T> logits, In<std::int64_t> targets, In<std::int64_t> lengths,
                       In<std::int64_t> target_lengths, std::int64_t blank, In<double> losses,
                       In<double> normalizers, In<double> alphas, In<T> weights) {
    const Ctc<T> ctc = checked(logits, targets, lengths, target_lengths, blank);
    check_shape(losses, {ctc.batch}, "losses");
    check_shape(normalizers, {ctc.steps, ctc.batch}, "normalizers");
    check_shape(alphas, {ctc.steps, ctc.batch, 2 * ctc.labels + 1}, "alphas");
    check_shape(weights, {ctc.batch}, "weights");
    auto d_logits = make<T>({logits.shape(0), logits.shape(1), logits.shape(2)});
    T *to = d_logits.data();
    nb::gil_scoped_release release;
    kernels<T>().ctc_backward(ctc, losses.data(), normalizers.data(), alphas.data(), weights.data(),
                              to);
    return d_logits;
}

} // namespace

template <class T> void bind_ctc(nb::module_ &m) {
    m.def("ctc_forward", &ctc_forward<T>, plain("logits"), plain("targets"), plain("lengths"),
          plain("target_lengths"), "blank"_a);
    m.def("ctc_backward", &ctc_backward<T>, plain("logits"), plain("targets"), plain("lengths"),
          plain("target_lengths"), "blank"_a, plain("losses"), plain("normalizers"),
          plain("alphas"), plain("weights"));
}

template void bind_ctc<float>(nb::module_ &);
template void bind_ctc<double>(nb::module_ &);

} // namespace anaphora
