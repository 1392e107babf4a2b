// Softmax with cross-entropy, and sums of columns.
#pragma once

#include "matrix.h"

namespace anaphora::ANAPHORA_ISA {

// The sum and the largest of a row, lane by lane and then across the lanes in their order.
template <class T, class F> ANAPHORA_INLINE T reduce(Vector<T> v, F f) {
    T values[lanes<T>];
    store(values, v);
    T result = values[0];
    for (int k = 1; k < lanes<T>; k++)
        result = f(result, values[k]);
    return result;
}

inline constexpr std::int64_t rows_per_task = 8;

template <class T>
void cross_entropy_forward(std::int64_t N, std::int64_t V, const T *logits,
                           const std::int64_t *targets, T *losses, T *probabilities) {
    constexpr int W = lanes<T>;
    constexpr T least = -std::numeric_limits<T>::infinity();
    parallel((N + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t n = task * rows_per_task; n < std::min(N, (task + 1) * rows_per_task);
             n++) {
            const T *x = logits + n * V;
            T *p = probabilities + n * V;
            std::int64_t whole = V / W * W;
            alignas(64) T tail[W];
            std::fill_n(tail, W, least);
            std::memcpy(tail, x + whole, (V - whole) * sizeof(T));
            T target = x[targets[n]];

            Vector<T> top = load(tail);
            for (std::int64_t k = 0; k < whole; k += W) {
                Vector<T> v = load(x + k);
                top = v > top ? v : top;
            }
            T largest = reduce<T>(top, [](T a, T b) { return a > b ? a : b; });
            Vector<T> sum = all<T>(0);
            for (std::int64_t k = 0; k < whole; k += W) {
                Vector<T> e = vexp<T>(load(x + k) - largest);
                store(p + k, e);
                sum += e;
            }
            Vector<T> e = vexp<T>(load(tail) - largest);
            store(tail, e);
            sum += e;
            T total = reduce<T>(sum, [](T a, T b) { return a + b; });
            losses[n] = std::log(total) - (target - largest);
            T scale = T(1) / total;
            for (std::int64_t k = 0; k < whole; k += W)
                store(p + k, load(p + k) * scale);
            store(tail, load(tail) * scale);
            std::memcpy(p + whole, tail, (V - whole) * sizeof(T));
        }
    });
}

template <class T>
void cross_entropy_backward(std::int64_t N, std::int64_t V, const T *probabilities,
                            const std::int64_t *targets, const T *d_losses, T *d_logits) {
    parallel((N + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t n = task * rows_per_task; n < std::min(N, (task + 1) * rows_per_task);
             n++) {
            const T *p = probabilities + n * V;
            T *d = d_logits + n * V, scale = d_losses[n];
            for (std::int64_t k = 0; k < V; k++)
                d[k] = p[k] * scale;
            d[targets[n]] -= scale;
        }
    });
}

template <class T> void sum_columns(std::int64_t M, std::int64_t N, const T *x, T *sums) {
    constexpr std::int64_t columns = 4 * lanes<T>;
    parallel((N + columns - 1) / columns, [&](std::int64_t task) {
        std::int64_t begin = task * columns, end = std::min(N, begin + columns);
        T totals[columns] = {};
        for (std::int64_t m = 0; m < M; m++)
            for (std::int64_t n = begin; n < end; n++)
                totals[n - begin] += x[m * N + n];
        std::copy(totals, totals + (end - begin), sums + begin);
    });
}

} // namespace anaphora::ANAPHORA_ISA
