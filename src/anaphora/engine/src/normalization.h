// Layer normalisation, row by row, and batch normalisation, column by column; a row's sums are in
// the order of softmax.h.
#pragma once

#include "rows.h"
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

// f(n) of N rows of H elements.
template <class F> void for_each_row(std::int64_t N, std::int64_t H, F f) {
    const std::int64_t count = rows_in_task(H);
    parallel((N + count - 1) / count, [=](std::int64_t task) {
        for (std::int64_t n = task * count; n < std::min(N, (task + 1) * count); n++)
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
    for_each_row(N, H, [=](std::int64_t n) {
        normalize_row(H, x + n * H, weight, bias, epsilon, y + n * H, means[n], factors[n]);
    });
}

template <class T>
void layer_norm_backward(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                         const T *means, const T *factors, const T *dy, T *dx, T *d_weight,
                         T *d_bias) {
    for_each_row(N, H, [=](std::int64_t n) {
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

// The rows that count: all, or those of a list.
struct CountedRows {
    const std::int64_t *list = nullptr;
    std::int64_t count;

    CountedRows(std::int64_t M, const bool *mask, Scratch &scratch) : count(M) {
        if (mask == nullptr)
            return;
        auto *numbers = scratch.get<std::int64_t>(static_cast<std::size_t>(M));
        count = 0;
        for (std::int64_t m = 0; m < M; m++)
            if (mask[m])
                numbers[count++] = m;
        list = numbers;
    }
    std::int64_t operator[](std::int64_t n) const { return list == nullptr ? n : list[n]; }
};

// Sums over rows begin ... end - 1 of those that count; f(row, sums) adds the terms of one. There
// are four sums each, of every fourth row, so that additions need not wait for each other.
template <int Sums, class V, class F>
ANAPHORA_INLINE void sum_counted_rows(const CountedRows &rows, std::int64_t begin, std::int64_t end,
                                      V (&totals)[Sums], F f) {
    V sums[4][Sums] = {};
    std::int64_t n = begin;
    for (; n + 4 <= end; n += 4)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            f(rows[n + r], sums[r]);
#pragma GCC unroll 3
    for (int r = 0; r < 3; r++)
        if (n + r < end)
            f(rows[n + r], sums[r]);
    for (int s = 0; s < Sums; s++)
        totals[s] = (sums[0][s] + sums[1][s]) + (sums[2][s] + sums[3][s]);
}

// Rows are summed in blocks, which stay in a near cache, and the blocks in their order. So sums
// depend neither on the threads nor on rows that do not count.
inline constexpr std::int64_t rows_of_block = 64;

// f(block, begin, end, k) for each block of counted rows and each vector of columns, from k on.
template <class T, class F> void for_each_block(std::int64_t count, std::int64_t N, F f) {
    parallel((count + rows_of_block - 1) / rows_of_block, [=](std::int64_t block) {
        const std::int64_t begin = block * rows_of_block;
        for (std::int64_t k = 0; k < N; k += lanes<T>)
            f(block, begin, std::min(count, begin + rows_of_block), k);
    });
}

// sums [N] of blocks [blocks, N] from the first to the last.
template <class T>
void sum_blocks(std::int64_t blocks, std::int64_t N, const T *of_blocks, T *sums) {
    std::fill_n(sums, N, T(0));
    for (std::int64_t b = 0; b < blocks; b++)
        ANAPHORA_INDEPENDENT
    for (std::int64_t k = 0; k < N; k++)
        sums[k] += of_blocks[b * N + k];
}

template <class T>
void batch_norm_forward(std::int64_t M, std::int64_t N, const T *x, const bool *mask,
                        const T *weight, const T *bias, T epsilon, T *y, T *means, T *variances,
                        T *factors) {
    static thread_local Scratch scratch, row_scratch;
    const CountedRows rows(M, mask, row_scratch);
    const std::int64_t blocks = (rows.count + rows_of_block - 1) / rows_of_block;
    // Of each block the sums, and the sums of squared distances from the block's own mean.
    T *sums = scratch.get<T>(static_cast<std::size_t>((2 * blocks + 1) * N));
    T *squares = sums + blocks * N, *scales = squares + blocks * N;
    for_each_block<T>(
        rows.count, N,
        [=](std::int64_t block, std::int64_t begin, std::int64_t end, std::int64_t k) {
            Vector<T> total[1];
            sum_counted_rows(rows, begin, end, total, [=](std::int64_t m, Vector<T> *sum) {
                sum[0] += load_some(x + m * N + k, N - k);
            });
            const Vector<T> mean = total[0] * (T(1) / static_cast<T>(end - begin));
            store_some(sums + block * N + k, total[0], N - k);
            sum_counted_rows(rows, begin, end, total, [=](std::int64_t m, Vector<T> *sum) {
                const Vector<T> centred = load_some(x + m * N + k, N - k) - mean;
                sum[0] += centred * centred;
            });
            store_some(squares + block * N + k, total[0], N - k);
        });
    const T share = T(1) / static_cast<T>(rows.count);
    sum_blocks(blocks, N, sums, means);
    for (std::int64_t k = 0; k < N; k++)
        means[k] *= share;
    for (std::int64_t b = 0; b < blocks; b++) { // and from the common mean
        const T size = static_cast<T>(std::min(rows_of_block, rows.count - b * rows_of_block));
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++) {
            const T distance = sums[b * N + k] * (T(1) / size) - means[k];
            squares[b * N + k] += size * (distance * distance);
        }
    }
    sum_blocks(blocks, N, squares, variances);
    for (std::int64_t k = 0; k < N; k++) {
        variances[k] *= share;
        factors[k] = T(1) / std::sqrt(variances[k] + epsilon);
        scales[k] = factors[k] * weight[k];
    }
    for_each_row(M, N, [=](std::int64_t m) {
        const T *from = x + m * N;
        T *to = y + m * N;
        if (mask != nullptr && !mask[m]) {
            std::fill_n(to, N, T(0));
            return;
        }
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++)
            to[k] = (from[k] - means[k]) * scales[k] + bias[k];
    });
}

template <class T>
void batch_norm_backward(std::int64_t M, std::int64_t N, const T *x, const bool *mask,
                         const T *weight, const T *means, const T *factors, const T *dy, T *dx,
                         T *d_weight_and_bias) {
    static thread_local Scratch scratch, row_scratch;
    const CountedRows rows(M, mask, row_scratch);
    const std::int64_t blocks = (rows.count + rows_of_block - 1) / rows_of_block;
    T *sums = scratch.get<T>(static_cast<std::size_t>((2 * blocks + 3) * N));
    T *slopes = sums + 2 * blocks * N, *constants = slopes + N, *scales = constants + N;
    for_each_block<T>(
        rows.count, N,
        [=](std::int64_t block, std::int64_t begin, std::int64_t end, std::int64_t k) {
            const Vector<T> mean = load_some(means + k, N - k),
                            factor = load_some(factors + k, N - k);
            Vector<T> totals[2];
            sum_counted_rows(rows, begin, end, totals, [=](std::int64_t m, Vector<T> *sum) {
                const Vector<T> d = load_some(dy + m * N + k, N - k);
                sum[0] += d * (load_some(x + m * N + k, N - k) - mean);
                sum[1] += d;
            });
            store_some(sums + 2 * block * N + k, totals[0] * factor, N - k);
            store_some(sums + (2 * block + 1) * N + k, totals[1], N - k);
        });
    sum_blocks(blocks, 2 * N, sums, d_weight_and_bias);
    const T share = T(1) / static_cast<T>(rows.count);
    for (std::int64_t k = 0; k < N; k++) {
        slopes[k] = share * d_weight_and_bias[k] * factors[k];
        constants[k] = share * d_weight_and_bias[N + k];
        scales[k] = factors[k] * weight[k];
    }
    for_each_row(M, N, [=](std::int64_t m) {
        const T *from = x + m * N, *d = dy + m * N;
        T *to = dx + m * N;
        if (mask != nullptr && !mask[m]) {
            std::fill_n(to, N, T(0));
            return;
        }
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < N; k++)
            to[k] = (d[k] - constants[k] - (from[k] - means[k]) * slopes[k]) * scales[k];
    });
}

} // namespace anaphora::ANAPHORA_ISA
