// Python bindings of the optimisers' updates and the gradient norm; arguments are the arrays
// updated in place, the gradient, then numbers, then the rows that the gradient is of.
#include "module.h"

namespace anaphora {
namespace {

template <class T> using Maybe = std::optional<Out<T>>;

template <class T> T *data(const Maybe<T> &array) { return array ? array->data() : nullptr; }

// The number of elements, which all arrays share.
template <class T, class... Arrays>
std::int64_t common_size(const Out<T> &first, const Arrays &...rest) {
    auto check = [&](const auto &array) {
        if constexpr (requires { array.size(); }) {
            if (array.size() != first.size())
                refuse("update: arrays of different sizes");
        } else if (array && array->size() != first.size())
            refuse("update: arrays of different sizes");
    };
    (check(rest), ...);
    return static_cast<std::int64_t>(first.size());
}

using Rows = std::optional<In<std::int64_t>>;

// The gradient of a parameter, or of the given rows of it.
template <class T>
ParameterGradient<T> checked(const In<T> &gradient, const Rows &rows, const Out<T> &parameter) {
    if (!rows) {
        if (gradient.size() != parameter.size())
            refuse("update: arrays of different sizes");
        return {gradient.data(), nullptr, 0, 0};
    }
    if (parameter.ndim() == 0 || gradient.ndim() == 0 || rows->ndim() != 1 ||
        rows->shape(0) != gradient.shape(0))
        refuse("update: rows are [M], a number for each row of the gradient");
    const std::int64_t count = size(*rows, 0), height = size(parameter, 0),
                       width = static_cast<std::int64_t>(parameter.size()) /
                               std::max<std::int64_t>(height, 1);
    if (static_cast<std::int64_t>(gradient.size()) != count * width)
        refuse("update: rows of different sizes");
    std::int64_t before = -1;
    for (std::int64_t k = 0; k < count; before = rows->data()[k++])
        if (rows->data()[k] <= before || rows->data()[k] >= height)
            refuse("update: rows are ascending, each once, and in the parameter");
    return {gradient.data(), rows->data(), count, width};
}

template <class T>
void sgd(Out<T> parameter, Maybe<T> velocity, In<T> gradient, T learning_rate, T momentum,
         T weight_decay, bool nesterov, Rows rows) {
    std::int64_t n = common_size(parameter, velocity);
    auto of = checked(gradient, rows, parameter);
    nb::gil_scoped_release release;
    kernels<T>().sgd(n, parameter.data(), data(velocity), of,
                     {learning_rate, momentum, weight_decay, nesterov});
}

template <class T>
void adam(Out<T> parameter, Out<T> first_moment, Out<T> second_moment, In<T> gradient, T rate,
          T new_first, T new_second, T root_scale, T epsilon, T weight_decay, T shrink, Rows rows) {
    std::int64_t n = common_size(parameter, first_moment, second_moment);
    auto of = checked(gradient, rows, parameter);
    nb::gil_scoped_release release;
    kernels<T>().adam(n, parameter.data(), first_moment.data(), second_moment.data(), of,
                      {rate, new_first, new_second, root_scale, epsilon, weight_decay, shrink});
}

template <class T>
void rmsprop(Out<T> parameter, Out<T> square_average, Maybe<T> gradient_average, Maybe<T> velocity,
             In<T> gradient, T learning_rate, T new_average, T epsilon, T momentum, T weight_decay,
             Rows rows) {
    std::int64_t n = common_size(parameter, square_average, gradient_average, velocity);
    auto of = checked(gradient, rows, parameter);
    nb::gil_scoped_release release;
    kernels<T>().rmsprop(n, parameter.data(), square_average.data(), data(gradient_average),
                         data(velocity), of,
                         {learning_rate, new_average, epsilon, momentum, weight_decay});
}

template <class T>
void adagrad(Out<T> parameter, Out<T> square_sum, In<T> gradient, T learning_rate, T epsilon,
             T weight_decay, Rows rows) {
    std::int64_t n = common_size(parameter, square_sum);
    auto of = checked(gradient, rows, parameter);
    nb::gil_scoped_release release;
    kernels<T>().adagrad(n, parameter.data(), square_sum.data(), of,
                         {learning_rate, epsilon, weight_decay});
}

template <class T> void average(Out<T> mean, In<T> x, T share) {
    std::int64_t n = common_size(mean, x);
    nb::gil_scoped_release release;
    kernels<T>().average(n, mean.data(), x.data(), share);
}

template <class T> void scale(Out<T> x, T factor) {
    nb::gil_scoped_release release;
    kernels<T>().scale(static_cast<std::int64_t>(x.size()), x.data(), factor);
}

template <class T> double sum_of_squares(In<T> x) {
    nb::gil_scoped_release release;
    return kernels<T>().sum_of_squares(static_cast<std::int64_t>(x.size()), x.data());
}

} // namespace

template <class T> void bind_updates(nb::module_ &m) {
    m.def("sgd", &sgd<T>, plain("parameter"), optional("velocity"), plain("gradient"),
          "learning_rate"_a, "momentum"_a, "weight_decay"_a, "nesterov"_a,
          optional("rows") = nb::none());
    m.def("adam", &adam<T>, plain("parameter"), plain("first_moment"), plain("second_moment"),
          plain("gradient"), "rate"_a, "new_first"_a, "new_second"_a, "root_scale"_a, "epsilon"_a,
          "weight_decay"_a, "shrink"_a, optional("rows") = nb::none());
    m.def("rmsprop", &rmsprop<T>, plain("parameter"), plain("square_average"),
          optional("gradient_average"), optional("velocity"), plain("gradient"), "learning_rate"_a,
          "new_average"_a, "epsilon"_a, "momentum"_a, "weight_decay"_a,
          optional("rows") = nb::none());
    m.def("adagrad", &adagrad<T>, plain("parameter"), plain("square_sum"), plain("gradient"),
          "learning_rate"_a, "epsilon"_a, "weight_decay"_a, optional("rows") = nb::none());
    m.def("average", &average<T>, plain("mean"), plain("x"), "share"_a);
    m.def("scale", &scale<T>, plain("x"), "factor"_a);
    m.def("sum_of_squares", &sum_of_squares<T>, plain("x"));
}

template void bind_updates<float>(nb::module_ &);
template void bind_updates<double>(nb::module_ &);

} // namespace anaphora
