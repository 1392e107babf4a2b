// Softmax with cross-entropy, and sums of columns.
#pragma once

#include "matrix.h"

namespace anaphora::ANAPHORA_ISA {

// Rows are read in lines of 64 bytes, on every instruction set: what is summed, is summed in as
// many parts as a line has numbers, and then these from the first to the last.
template <class T> inline constexpr int line = 64 / sizeof(T);
inline constexpr int vectors_in_line = 64 / ANAPHORA_VECTOR_BYTES;

template <class T, class F> ANAPHORA_INLINE T reduce(const T *parts, F f) {
    T result = parts[0];
    for (int k = 1; k < line<T>; k++)
        result = f(result, parts[k]);
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
            std::int64_t whole = V / line<T> * line<T>;
            alignas(64) T tail[line<T>], tops[line<T>], sums[line<T>];
            std::fill_n(tail, line<T>, least);
            std::memcpy(tail, x + whole, (V - whole) * sizeof(T));
            T target = x[targets[n]];

            for (int v = 0; v < vectors_in_line; v++) {
                Vector<T> top = load(tail + v * W);
                for (std::int64_t k = v * W; k < whole; k += line<T>) {
                    Vector<T> values = load(x + k);
                    top = values > top ? values : top;
                }
                store(tops + v * W, top);
            }
            T largest = reduce(tops, [](T a, T b) { return a > b ? a : b; });
            for (int v = 0; v < vectors_in_line; v++) {
                Vector<T> sum = all<T>(0);
                for (std::int64_t k = v * W; k < whole; k += line<T>) {
                    Vector<T> e = vexp<T>(load(x + k) - largest);
                    store(p + k, e);
                    sum += e;
                }
                Vector<T> e = vexp<T>(load(tail + v * W) - largest);
                store(tail + v * W, e);
                store(sums + v * W, sum + e);
            }
            T total = reduce(sums, [](T a, T b) { return a + b; });
            losses[n] = std::log(total) - (target - largest);
            T scale = T(1) / total;
            for (std::int64_t k = 0; k < whole; k += W)
                store(p + k, load(p + k) * scale);
            for (int v = 0; v < vectors_in_line; v++)
                store(tail + v * W, load(tail + v * W) * scale);
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
