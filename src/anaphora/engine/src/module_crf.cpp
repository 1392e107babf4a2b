// The linear-chain conditional random field for Python.
#include "module.h"

namespace anaphora {
namespace {

// The arrays of a call, checked.
template <class T> struct Arrays {
    const In<T> &emissions, &transitions, &start, &end;
    const In<std::int64_t> &lengths;

    Crf<T> checked() const {
        if (emissions.ndim() != 3 || emissions.shape(2) == 0)
            refuse("crf: emissions are [T, B, C], C > 0");
        std::int64_t steps = size(emissions, 0), batch = size(emissions, 1),
                     tags = size(emissions, 2);
        check_shape(transitions, {tags, tags}, "transitions");
        check_shape(start, {tags}, "start");
        check_shape(end, {tags}, "end");
        check_shape(lengths, {batch}, "lengths");
        for (std::int64_t b = 0; b < batch; b++)
            if (lengths.data()[b] < 0 || lengths.data()[b] > steps)
                refuse("crf: a length is outside 0..T");
        return {steps,        batch,      tags,          emissions.data(), transitions.data(),
                start.data(), end.data(), lengths.data()};
    }
};

template <class T>
nb::tuple crf_forward(In<T> emissions, In<T> transitions, In<T> start, In<T> end,
                      In<std::int64_t> lengths) {
    Arrays<T> arrays{emissions, transitions, start, end, lengths};
    Crf<T> crf = arrays.checked();
    auto alphas = make<double>({emissions.shape(0), emissions.shape(1), emissions.shape(2)});
    auto log_partitions = make<double>({emissions.shape(1)});
    double *a = alphas.data(), *l = log_partitions.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().crf_forward(crf, a, l);
    }
    return nb::make_tuple(log_partitions, alphas);
}

template <class T>
nb::tuple crf_backward(In<T> emissions, In<T> transitions, In<T> start, In<T> end,
                       In<std::int64_t> lengths, In<double> log_partitions, In<double> alphas,
                       In<T> weights) {
    Arrays<T> arrays{emissions, transitions, start, end, lengths};
    Crf<T> crf = arrays.checked();
    check_shape(log_partitions, {crf.batch}, "log_partitions");
    check_shape(alphas, {crf.steps, crf.batch, crf.tags}, "alphas");
    check_shape(weights, {crf.batch}, "weights");
    auto d_emissions = make<T>({emissions.shape(0), emissions.shape(1), emissions.shape(2)});
    auto d_transitions = make<T>({emissions.shape(2), emissions.shape(2)});
    T *e = d_emissions.data(), *t = d_transitions.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().crf_backward(crf, alphas.data(), log_partitions.data(), weights.data(), e, t);
    }
    return nb::make_tuple(d_emissions, d_transitions);
}

template <class T>
nb::tuple crf_decode(In<T> emissions, In<T> transitions, In<T> start, In<T> end,
                     In<std::int64_t> lengths, std::int64_t padding) {
    Arrays<T> arrays{emissions, transitions, start, end, lengths};
    Crf<T> crf = arrays.checked();
    auto tags = make<std::int64_t>({emissions.shape(0), emissions.shape(1)});
    auto scores = make<double>({emissions.shape(1)});
    std::int64_t *to = tags.data();
    double *s = scores.data();
    {
        nb::gil_scoped_release release;
        kernels<T>().crf_decode(crf, padding, to, s);
    }
    return nb::make_tuple(tags, scores);
}

} // namespace

template <class T> void bind_crf(nb::module_ &m) {
    m.def("crf_forward", &crf_forward<T>, plain("emissions"), plain("transitions"), plain("start"),
          plain("end"), plain("lengths"));
    m.def("crf_backward", &crf_backward<T>, plain("emissions"), plain("transitions"),
          plain("start"), plain("end"), plain("lengths"), plain("log_partitions"), plain("alphas"),
          plain("weights"));
    m.def("crf_decode", &crf_decode<T>, plain("emissions"), plain("transitions"), plain("start"),
          plain("end"), plain("lengths"), "padding"_a);
}

template void bind_crf<float>(nb::module_ &);
template void bind_crf<double>(nb::module_ &);

} // namespace anaphora
