// Softmax cross-entropy, of logits and of a linear layer, and column sums.
#pragma once

#include "weight.h"

namespace anaphora::ANAPHORA_ISA {

// Rows are read in 64-byte lines on every instruction set: a sum has one partial sum for each
// element of a line, and these are added from the first to the last.
template <class T> inline constexpr int line = 64 / sizeof(T);
inline constexpr int vectors_in_line = 64 / ANAPHORA_VECTOR_BYTES;

template <class T, class F> ANAPHORA_INLINE T reduce(const T *partials, F f) {
    T result = partials[0];
    for (int k = 1; k < line<T>; k++)
        result = f(result, partials[k]);
    return result;
}

inline constexpr std::int64_t rows_per_task = 8;

template <class T>
void cross_entropy_forward(std::int64_t N, std::int64_t V, const T *logits,
                           const std::int64_t *targets, T *losses, T *probabilities) {
    constexpr int W = lanes<T>;
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    parallel((N + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t n = task * rows_per_task; n < std::min(N, (task + 1) * rows_per_task);
             n++) {
            const T *x = logits + n * V;
            T *p = probabilities + n * V;
            std::int64_t body = V / line<T> * line<T>;
            alignas(64) T tail[line<T>], maxima[line<T>], sums[line<T>];
            std::fill_n(tail, line<T>, lowest);
            std::memcpy(tail, x + body, (V - body) * sizeof(T));
            T target = x[targets[n]];

            for (int v = 0; v < vectors_in_line; v++) {
                Vector<T> maximum = load(tail + v * W);
                for (std::int64_t k = v * W; k < body; k += line<T>) {
                    Vector<T> values = load(x + k);
                    maximum = values > maximum ? values : maximum;
                }
                store(maxima + v * W, maximum);
            }
            T largest = reduce(maxima, [](T a, T b) { return a > b ? a : b; });
            for (int v = 0; v < vectors_in_line; v++) {
                Vector<T> sum = broadcast<T>(0);
                for (std::int64_t k = v * W; k < body; k += line<T>) {
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
            for (std::int64_t k = 0; k < body; k += W)
                store(p + k, load(p + k) * scale);
            for (int v = 0; v < vectors_in_line; v++)
                store(tail + v * W, load(tail + v * W) * scale);
            std::memcpy(p + body, tail, (V - body) * sizeof(T));
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

// The losses of cross_entropy_forward for the product of x and weights, whose logits are computed a
// block of rows at a time: transposed, [V, rows], so that the weights are read in place. A lane of
// a vector is a row; sums have the partial sums and the order of cross_entropy_forward.
template <class T>
void linear_cross_entropy(Units units, std::int64_t N, std::int64_t V, std::int64_t K, const T *x,
                          const T *weight, const T *bias, const std::int64_t *targets, T *losses) {
    constexpr int W = lanes<T>;
    // About this many logits at a time, but enough rows to fill the tiles of the product.
    constexpr std::int64_t logits_at_once = std::int64_t{1} << 20, min_rows = 64;
    static_assert(min_rows % line<T> == 0);
    std::int64_t block = std::max(logits_at_once / V / line<T> * line<T>, min_rows);
    block = std::min(block, (N + line<T> - 1) / line<T> * line<T>);
    static thread_local Scratch scratch;
    T *logits = scratch.get<T>(V * block);
    for (std::int64_t begin = 0; begin < N; begin += block) {
        std::int64_t rows = std::min(block, N - begin);
        multiply<T>(units, Use::left_weight, V, rows, K, Matrix<const T>{weight, K, 1},
                    Matrix<const T>{x + begin * K, 1, K}, logits, block, nullptr, false);
        parallel((rows + W - 1) / W, [&](std::int64_t task) {
            T *z = logits + task * W;
            std::int64_t count = std::min<std::int64_t>(W, rows - task * W);
            for (std::int64_t v = 0; v < V && count < W; v++) // nothing was written there
                std::fill(z + v * block + count, z + v * block + W, T(0));
            Vector<T> largest = broadcast<T>(-std::numeric_limits<T>::infinity());
            for (std::int64_t v = 0; v < V; v++) {
                Vector<T> values = load(z + v * block);
                if (bias != nullptr) {
                    values = values + bias[v];
                    store(z + v * block, values);
                }
                largest = values > largest ? values : largest;
            }
            Vector<T> sums[line<T>] = {};
            std::int64_t v = 0;
            for (; v + line<T> <= V; v += line<T>)
#pragma GCC unroll 16
                for (int p = 0; p < line<T>; p++)
                    sums[p] += vexp<T>(load(z + (v + p) * block) - largest);
            for (int p = 0; v + p < V; p++)
                sums[p] += vexp<T>(load(z + (v + p) * block) - largest);
            Vector<T> total = sums[0];
            for (int p = 1; p < line<T>; p++)
                total += sums[p];
            for (std::int64_t k = 0; k < count; k++) {
                std::int64_t n = begin + task * W + k;
                losses[n] = std::log(total[k]) - (z[targets[n] * block + k] - largest[k]);
            }
        });
    }
}

template <class T>
void sum_columns(std::int64_t M, std::int64_t N, const T *x, T *sums, bool accumulate) {
    constexpr int W = lanes<T>, vectors = 8;
    parallel((N + vectors * W - 1) / (vectors * W), [&](std::int64_t task) {
        std::int64_t begin = task * vectors * W,
                     width = std::min<std::int64_t>(vectors * W, N - begin);
        if (!accumulate)
            std::fill_n(sums + begin, width, T(0));
        if (width == vectors * W) {
            Vector<T> totals[vectors];
            for (int v = 0; v < vectors; v++)
                totals[v] = load(sums + begin + v * W);
            for (const T *row = x + begin; row < x + M * N; row += N)
                for (int v = 0; v < vectors; v++)
                    totals[v] += load(row + v * W);
            for (int v = 0; v < vectors; v++)
                store(sums + begin + v * W, totals[v]);
            return;
        }
        for (const T *row = x + begin; row < x + M * N; row += N)
            for (std::int64_t n = 0; n < width; n++)
                sums[begin + n] += row[n];
    });
}

} // namespace anaphora::ANAPHORA_ISA
