// Layer normalisation, row by row, and batch normalisation, column by column; a row's sums are in
// the order of softmax.h.
#pragma once

#include "softmax.h"

namespace anaphora::ANAPHORA_ISA {

// Sums over a row of H numbers: f(sums, load) adds one vector to each of the sums; it reads through
// load(array, padding), which pads the end of the row.
template <class T, int Sums, class F>
ANAPHORA_INLINE void sum_row(std::int64_t H, F f, T (&totals)[Sums]) {
    constexpr int W = lanes<T>;
    std::int64_t body = H / line<T> * line<T>;
    alignas(64) T partials[Sums][line<T>];
    for (int v = 0; v < vectors_in_line; v++) {
        Vector<T> sums[Sums] = {};
        for (std::int64_t k = v * W; k < body; k += line<T>)
            f(sums, [=](const T *array, T) { return load(array + k); });
        std::int64_t at = body + v * W, count = std::clamp<std::int64_t>(H - at, 0, W);
        f(sums, [=](const T *array, T padding) {
            T values[W];
            std::fill_n(values, W, padding);
            std::copy_n(array + (count > 0 ? at : 0), count, values);
            return load(values);
        });
        for (int s = 0; s < Sums; s++)
            store(partials[s] + v * W, sums[s]);
    }
    for (int s = 0; s < Sums; s++)
        totals[s] = reduce(partials[s], [](T a, T b) { return a + b; });
}

template <class F> void for_each_row(std::int64_t N, F f) {
    parallel((N + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t n = task * rows_per_task; n < std::min(N, (task + 1) * rows_per_task);
             n++)
            f(n);
    });
}

// Normalise one row; also gives its mean and the factor that scaled it.
template <class T>
ANAPHORA_INLINE void normalize_row(std::int64_t H, const T *from, const T *weight, const T *bias,
                                   T epsilon, T *to, T &mean, T &factor) {
    T sum[1];
    sum_row<T, 1>(H, [=](Vector<T> *sums, auto read) { sums[0] += read(from, T(0)); }, sum);
    const T middle = sum[0] / static_cast<T>(H);
    sum_row<T, 1>(
        H,
        [=](Vector<T> *sums, auto read) {
            Vector<T> centred = read(from, middle) - middle;
            sums[0] += centred * centred;
        },
        sum);
    const T scale = T(1) / std::sqrt(sum[0] / static_cast<T>(H) + epsilon);
    ANAPHORA_INDEPENDENT
    for (std::int64_t k = 0; k < H; k++)
        to[k] = (from[k] - middle) * scale * weight[k] + bias[k];
    mean = middle;
    factor = scale;
}

template <class T>
void layer_norm_forward(std::int64_t N, std::int64_t H, const T *x, const T *weight, const T *bias,
                        T epsilon, T *y, T *means, T *factors) {
    for_each_row(N, [=](std::int64_t n) {
        normalize_row(H, x + n * H, weight, bias, epsilon, y + n * H, means[n], factors[n]);
    });
}

template <class T>
void layer_norm_backward(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                         const T *means, const T *factors, const T *dy, T *dx, T *d_weight,
                         T *d_bias) {
    for_each_row(N, [=](std::int64_t n) {
        const T *from = x + n * H, *d = dy + n * H;
        T *to = dx + n * H, mean = means[n], factor = factors[n];
        T sums[2];
        sum_row<T, 2>(
            H,
            [=](Vector<T> *sums, auto read) {
                Vector<T> d_normalised = read(d, T(0)) * read(weight, T(0));
                sums[0] += d_normalised;
                sums[1] += d_normalised * ((read(from, mean) - mean) * factor);
            },
            sums);
        T constant = sums[0] / static_cast<T>(H), along = sums[1] / static_cast<T>(H);
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < H; k++) {
            T normalised = (from[k] - mean) * factor;
            to[k] = (d[k] * weight[k] - constant - normalised * along) * factor;
        }
    });
    constexpr std::int64_t columns = 4 * lanes<T>;
    parallel((H + columns - 1) / columns, [=](std::int64_t task) {
        std::int64_t begin = task * columns, count = std::min(H - begin, columns);
        T weights[columns] = {}, biases[columns] = {};
        for (std::int64_t n = 0; n < N; n++) {
            const T *from = x + n * H + begin, *d = dy + n * H + begin;
            for (std::int64_t k = 0; k < count; k++) {
                weights[k] += d[k] * ((from[k] - means[n]) * factors[n]);
                biases[k] += d[k];
            }
        }
        std::copy_n(weights, count, d_weight + begin);
        std::copy_n(biases, count, d_bias + begin);
    });
}

// Batch normalisation: the mean and variance of columns over the rows that count. -----------------

// sums [N columns, Sums] over rows: f(n, k) gives the terms of a row's column. Sums are of blocks
// of rows, then of the blocks in their order, so that they do not depend on the threads.
template <class T, int Sums, class F>
void sum_rows_in_blocks(std::int64_t M, std::int64_t N, const bool *mask, T *sums, F f) {
    constexpr std::int64_t block = 256;
    static thread_local Scratch scratch;
    const std::int64_t blocks = (M + block - 1) / block;
    T *partials = scratch.get<T>(static_cast<std::size_t>(blocks * Sums * N + 1));
    parallel(blocks, [=](std::int64_t b) {
        T *to = partials + b * Sums * N;
        std::fill_n(to, Sums * N, T(0));
        for (std::int64_t m = b * block; m < std::min(M, (b + 1) * block); m++)
            if (mask == nullptr || mask[m])
                f(m, to);
    });
    std::fill_n(sums, Sums * N, T(0));
    for (std::int64_t b = 0; b < blocks; b++)
        for (std::int64_t k = 0; k < Sums * N; k++)
            sums[k] += partials[b * Sums * N + k];
}

template <class T>
void batch_norm_forward(std::int64_t M, std::int64_t N, const T *x, const bool *mask, T share,
                        const T *weight, const T *bias, T epsilon, T *y, T *means, T *variances,
                        T *factors) {
    sum_rows_in_blocks<T, 1>(M, N, mask, means, [=](std::int64_t m, T *sums) {
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++)
            sums[k] += x[m * N + k];
    });
    for (std::int64_t k = 0; k < N; k++)
        means[k] *= share;
    sum_rows_in_blocks<T, 1>(M, N, mask, variances, [=](std::int64_t m, T *sums) {
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++) {
            const T centred = x[m * N + k] - means[k];
            sums[k] += centred * centred;
        }
    });
    for (std::int64_t k = 0; k < N; k++) {
        variances[k] *= share;
        factors[k] = T(1) / std::sqrt(variances[k] + epsilon);
    }
    for_each_row(M, [=](std::int64_t m) {
        const T *from = x + m * N;
        T *to = y + m * N;
        if (mask != nullptr && !mask[m]) {
            std::fill_n(to, N, T(0));
            return;
        }
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++)
            to[k] = (from[k] - means[k]) * factors[k] * weight[k] + bias[k];
    });
}

template <class T>
void batch_norm_backward(std::int64_t M, std::int64_t N, const T *x, const bool *mask, T share,
                         const T *weight, const T *means, const T *factors, const T *dy, T *dx,
                         T *d_weight_and_bias) {
    const T *d_weight = d_weight_and_bias, *d_bias = d_weight_and_bias + N;
    sum_rows_in_blocks<T, 2>(M, N, mask, d_weight_and_bias, [=](std::int64_t m, T *sums) {
        const T *from = x + m * N, *d = dy + m * N;
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++) {
            sums[k] += d[k] * ((from[k] - means[k]) * factors[k]);
            sums[N + k] += d[k];
        }
    });
    for_each_row(M, [=](std::int64_t m) {
        const T *from = x + m * N, *d = dy + m * N;
        T *to = dx + m * N;
        if (mask != nullptr && !mask[m]) {
            std::fill_n(to, N, T(0));
            return;
        }
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++) {
            const T normalised = (from[k] - means[k]) * factors[k];
            to[k] = (d[k] - share * d_bias[k] - normalised * (share * d_weight[k])) * factors[k] *
                    weight[k];
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
