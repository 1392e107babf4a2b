// Optimisers' updates and the gradient norm, in one pass each.
//
// A row gets the same bits whether it is updated with its table or alone: the compiler vectorises
// most elements and processes the last ones one by one, so no sum may have two products, of which
// it could fuse either. Hence m + (1 - beta) * (g - m), which is beta * m + (1 - beta) * g.
#pragma once

#include "weight.h"

#include <type_traits>

namespace anaphora::ANAPHORA_ISA {

// The number of elements in a block, whatever the number of threads.
inline constexpr std::int64_t update_block = 16384;

template <class F> void for_each_block(std::int64_t n, F f) {
    parallel((n + update_block - 1) / update_block, [&](std::int64_t task) {
        f(task, task * update_block, std::min(n, (task + 1) * update_block));
    });
}

// f(k) for every element; its arrays do not overlap.
template <class F> void for_each_element(std::int64_t n, F f) {
    for_each_block(n, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
        F own = f; // a local copy, so that the compiler sees that the pointers do not change
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = begin; k < end; k++)
            own(k);
    });
}

// Elements begin ... end - 1 of a gradient, at most gradient_part; those of rows are copied to
// `part`, which stays in the cache: a dense gradient would take as long to write and to read as the
// update itself. (It is on the stack: an update must not fail halfway for lack of memory.)
inline constexpr std::int64_t gradient_part = 2048;
template <class T>
const T *part_of(const ParameterGradient<T> &gradient, std::int64_t begin, std::int64_t end,
                 T *part) {
    std::fill_n(part, end - begin, T(0));
    const std::int64_t width = gradient.width;
    const std::int64_t *last = gradient.rows + gradient.count;
    for (const std::int64_t *row = std::lower_bound(gradient.rows, last, begin / width);
         row < last && *row * width < end; row++) {
        const std::int64_t from = std::max(*row * width, begin),
                           to = std::min((*row + 1) * width, end);
        const T *values = gradient.values + (row - gradient.rows) * width;
        std::copy_n(values + (from - *row * width), to - from, part + (from - begin));
    }
    return part;
}

// f(k, gradient[k]) for every element; its arrays do not overlap.
template <class T, class F>
void for_each_element(std::int64_t n, const ParameterGradient<T> &gradient, F f) {
    auto update = [&](std::int64_t begin, std::int64_t end, const T *gradients) {
        F own = f;
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = begin; k < end; k++)
            own(k, gradients[k - begin]);
    };
    for_each_block(n, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
        if (gradient.rows == nullptr)
            return update(begin, end, gradient.values + begin);
        alignas(64) T part[gradient_part];
        for (std::int64_t k = begin; k < end; k += gradient_part) {
            const std::int64_t part_end = std::min(end, k + gradient_part);
            update(k, part_end, part_of(gradient, k, part_end, part));
        }
    });
}

// f(std::true_type or std::false_type), to specialise f at compile time.
template <class F> void dispatch(bool truth, F f) {
    if (truth)
        f(std::true_type());
    else
        f(std::false_type());
}

template <class T>
void sgd(std::int64_t n, T *parameter, T *velocity, const ParameterGradient<T> &gradient,
         const SGD<T> &o) {
    dispatch(velocity != nullptr, [&](auto moving) {
        dispatch(o.nesterov, [&](auto nesterov) {
            for_each_element(n, gradient, [=](std::int64_t k, T g) {
                g = o.weight_decay == 0 ? g : g + o.weight_decay * parameter[k];
                if constexpr (moving) {
                    T v = velocity[k] = o.momentum * velocity[k] + g;
                    g = nesterov ? g + o.momentum * v : v;
                }
                parameter[k] -= o.learning_rate * g;
            });
        });
    });
}

template <class T>
void adam(std::int64_t n, T *parameter, T *first_moment, T *second_moment,
          const ParameterGradient<T> &gradient, const Adam<T> &o) {
    for_each_element(n, gradient, [=](std::int64_t k, T g) {
        T p = parameter[k], m = first_moment[k], v = second_moment[k];
        g = o.weight_decay == 0 ? g : g + o.weight_decay * p;
        first_moment[k] = m = m + o.new_first * (g - m);
        second_moment[k] = v = v + o.new_second * (g * g - v);
        parameter[k] = o.shrink * p - o.rate * m / (std::sqrt(v) * o.root_scale + o.epsilon);
    });
}

template <class T>
void rmsprop(std::int64_t n, T *parameter, T *square_average, T *gradient_average, T *velocity,
             const ParameterGradient<T> &gradient, const RMSprop<T> &o) {
    dispatch(gradient_average != nullptr, [&](auto centred) {
        dispatch(velocity != nullptr, [&](auto moving) {
            for_each_element(n, gradient, [=](std::int64_t k, T g) {
                T p = parameter[k], s = square_average[k];
                g = o.weight_decay == 0 ? g : g + o.weight_decay * p;
                square_average[k] = s = s + o.new_average * (g * g - s);
                if constexpr (centred) {
                    T a = gradient_average[k];
                    gradient_average[k] = a = a + o.new_average * (g - a);
                    s = s - a * a;
                    s = s < 0 ? T(0) : s; // by rounding; NaN stays
                }
                T step = g / (std::sqrt(s) + o.epsilon);
                if constexpr (moving)
                    velocity[k] = step = o.momentum * velocity[k] + step;
                parameter[k] = p - o.learning_rate * step;
            });
        });
    });
}

template <class T>
void adagrad(std::int64_t n, T *parameter, T *square_sum, const ParameterGradient<T> &gradient,
             const Adagrad<T> &o) {
    for_each_element(n, gradient, [=](std::int64_t k, T g) {
        T p = parameter[k];
        g = o.weight_decay == 0 ? g : g + o.weight_decay * p;
        T s = square_sum[k] = square_sum[k] + g * g;
        parameter[k] = p - o.learning_rate * (g / (std::sqrt(s) + o.epsilon));
    });
}

template <class T> void average(std::int64_t n, T *mean, const T *x, T share) {
    for_each_element(n, [=](std::int64_t k) { mean[k] += share * (x[k] - mean[k]); });
}

template <class T> void scale(std::int64_t n, T *x, T factor) {
    for_each_element(n, [=](std::int64_t k) { x[k] *= factor; });
}

// The sum of squares in double precision: of each block in 8 interleaved partial sums, then over
// the blocks.
template <class T> double sum_of_squares(std::int64_t n, const T *x) {
    static thread_local Scratch scratch;
    std::int64_t blocks = (n + update_block - 1) / update_block;
    double *sums = scratch.get<double>(blocks);
    for_each_block(n, [=](std::int64_t task, std::int64_t begin, std::int64_t end) {
        double partials[8] = {};
        std::int64_t k = begin;
        for (; k + 8 <= end; k += 8)
            for (int p = 0; p < 8; p++)
                partials[p] += static_cast<double>(x[k + p]) * static_cast<double>(x[k + p]);
        for (; k < end; k++)
            partials[0] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
        double sum = 0;
        for (double partial : partials)
            sum += partial;
        sums[task] = sum;
    });
    double total = 0;
    for (std::int64_t b = 0; b < blocks; b++)
        total += sums[b];
    return total;
}

} // namespace anaphora::ANAPHORA_ISA
