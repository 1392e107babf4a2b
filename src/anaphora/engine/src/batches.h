// Products of batches of matrices, and softmax over masked rows: attention, and what else has rows
// that are padded. Padding changes no bit of what is not: a product is a chain of multiply-adds
// along K on every instruction set, to which 0 adds nothing, and a sum over a row has the partial
// sums of softmax.h, each of which depends on the place in the row alone.
#pragma once

#include "normalization.h"

#include <utility>

namespace anaphora::ANAPHORA_ISA {

// Rows of A by vectors n ... n + NV - 1 of B, whose rows are contiguous and read in place; the last
// of a single vector's columns may be missing.
template <class T, int NV>
ANAPHORA_INLINE void multiply_row_in_place(std::int64_t K, const T *a, std::int64_t a_column,
                                           const T *b, std::int64_t b_row, std::int64_t columns,
                                           T *c) {
    constexpr int W = lanes<T>;
    Vector<T> sums[NV] = {};
    if (columns == NV * W) {
        for (std::int64_t k = 0; k < K; k++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                sums[v] += broadcast<T>(a[k * a_column]) * load(b + k * b_row + v * W);
    } else {
        alignas(64) T some[NV * W] = {};
        for (std::int64_t k = 0; k < K; k++) {
            std::copy_n(b + k * b_row, columns, some);
            for (int v = 0; v < NV; v++)
                sums[v] += broadcast<T>(a[k * a_column]) * load(some + v * W);
        }
    }
    alignas(64) T result[NV * W];
    for (int v = 0; v < NV; v++)
        store(result + v * W, sums[v]);
    std::copy_n(result, columns, c);
}

// c [N] = X [N, K] y [K], of which the rows of X are contiguous: a lane of a vector is a row.
template <class T>
void multiply_by_vector(std::int64_t N, std::int64_t K, const T *X, std::int64_t x_row, const T *y,
                        std::int64_t y_step, T *c) {
    constexpr std::int64_t W = lanes<T>;
    for (std::int64_t n = 0; n < N; n += W) {
        const std::int64_t count = std::min(W, N - n);
        Vector<T> sum = broadcast<T>(0);
        for (std::int64_t k = 0; k < K; k += W) {
            const std::int64_t depth = std::min(W, K - k);
            Vector<T> block[W];
            for (std::int64_t i = 0; i < W; i++) { // the last row stands in for those beyond
                const T *from = X + (n + std::min(i, count - 1)) * x_row + k;
                if (depth == W) {
                    block[i] = load(from);
                } else {
                    alignas(64) T some[W] = {};
                    std::copy_n(from, depth, some);
                    block[i] = load(some);
                }
            }
            transpose_lanes<T>(block);
            if (depth == W)
#pragma GCC unroll 16
                for (std::int64_t i = 0; i < W; i++)
                    sum += block[i] * broadcast<T>(y[(k + i) * y_step]);
            else
                for (std::int64_t i = 0; i < depth; i++)
                    sum += block[i] * broadcast<T>(y[(k + i) * y_step]);
        }
        alignas(64) T result[W];
        store(result, sum);
        std::copy_n(result, count, c + n);
    }
}

// The number of rows or columns in a task.
inline constexpr std::int64_t span_of_vectors = 256;

// Whether A has so few rows, or B a single column, that to pack B would take longer than the
// product, which then is made without; it has the same bits.
template <class T>
bool multiply_few(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                  Matrix<const T> B, T *C) {
    constexpr std::int64_t W = lanes<T>, few = 4;
    auto in_spans = [](std::int64_t count, auto f) { // f(begin, count)
        parallel((count + span_of_vectors - 1) / span_of_vectors, [=](std::int64_t task) {
            const std::int64_t begin = task * span_of_vectors;
            f(begin, std::min(span_of_vectors, count - begin));
        });
    };
    if (N == 1 && A.column == 1) {
        in_spans(M, [=](std::int64_t begin, std::int64_t count) {
            multiply_by_vector(count, K, A.data + begin * A.row, A.row, B.data, B.row, C + begin);
        });
        return true;
    }
    if (M > few || (B.row != 1 && B.column != 1))
        return false;
    in_spans(N, [=](std::int64_t begin, std::int64_t count) {
        const T *b = B.data + begin * B.column;
        for (std::int64_t i = 0; i < M; i++) {
            const T *a = A.data + i * A.row;
            T *c = C + i * N + begin;
            std::int64_t n = 0;
            if (B.column != 1) {
                multiply_by_vector(count, K, b, B.column, a, A.column, c);
                continue;
            }
            for (; n + 4 * W <= count; n += 4 * W)
                multiply_row_in_place<T, 4>(K, a, A.column, b + n, B.row, 4 * W, c + n);
            for (; n < count; n += W)
                multiply_row_in_place<T, 1>(K, a, A.column, b + n, B.row, std::min(W, count - n),
                                            c + n);
        }
    });
    return true;
}

template <class T>
void multiply_batch(std::int64_t count, std::int64_t M, std::int64_t N, std::int64_t K,
                    Matrices<const T> A, Matrices<const T> B, T *C) {
    auto one = [=](std::int64_t n) {
        const Matrix<const T> a{A.data + n * A.step, A.row, A.column},
            b{B.data + n * B.step, B.row, B.column};
        if (M > 0 && N > 0 && !multiply_few(M, N, K, a, b, C + n * M * N))
            ChainProduct<T>(M, N, K, a, b, C + n * M * N, N, nullptr, false)();
    };
    if (count < available_threads()) { // each product by all threads
        for (std::int64_t n = 0; n < count; n++)
            one(n);
        return;
    }
    // About as many products in a task as are worth a thread's start.
    const std::int64_t share = 1 + 32768 / (1 + M * N * K), tasks = (count + share - 1) / share;
    parallel(tasks, [=](std::int64_t task) {
        for (std::int64_t n = task * share; n < std::min(count, (task + 1) * share); n++)
            one(n);
    });
}

// A number of elements rounded up to whole lines.
template <class T> inline std::int64_t in_lines(std::int64_t N) {
    return (N + line<T> - 1) / line<T> * line<T>;
}

// The sum of exp(value - largest) over values that are padded to whole lines, with -infinity; these
// exponentials replace the values.
template <class T>
ANAPHORA_INLINE T exponentials_of_row(std::int64_t padded, T *values, T *differences, T &largest) {
    constexpr int W = lanes<T>;
    alignas(64) T partials[line<T>];
    for (int v = 0; v < vectors_in_line; v++) {
        Vector<T> maximum = load(values + v * W);
        for (std::int64_t k = v * W; k < padded; k += line<T>) {
            Vector<T> x = load(values + k);
            maximum = x > maximum ? x : maximum;
        }
        store(partials + v * W, maximum);
    }
    largest = reduce(partials, [](T a, T b) { return a > b ? a : b; });
    for (int v = 0; v < vectors_in_line; v++) {
        Vector<T> sum = broadcast<T>(0);
        for (std::int64_t k = v * W; k < padded; k += line<T>) {
            Vector<T> difference = load(values + k) - largest, e = vexp<T>(difference);
            store(differences + k, difference);
            store(values + k, e);
            sum += e;
        }
        store(partials + v * W, sum);
    }
    return reduce(partials, [](T a, T b) { return a + b; });
}

template <class T>
void softmax_forward(std::int64_t N, std::int64_t S, const T *x, const bool *mask, bool logarithm,
                     T *y) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    const std::int64_t padded = in_lines<T>(S);
    for_each_row(N, S, [=](std::int64_t n) {
        static thread_local Scratch scratch;
        if (S == 0)
            return;
        T *values = scratch.get<T>(static_cast<std::size_t>(2 * padded));
        T *differences = values + padded, *to = y + n * S, largest = 0;
        std::copy_n(x + n * S, S, values);
        std::fill(values + S, values + padded, lowest);
        bool any = mask == nullptr;
        for (std::int64_t k = 0; k < S && mask != nullptr; k++) {
            any = any || mask[n * S + k];
            values[k] = mask[n * S + k] ? values[k] : lowest;
        }
        if (!any) {
            std::fill_n(to, S, T(0));
            return;
        }
        const T total = exponentials_of_row(padded, values, differences, largest);
        if (logarithm) {
            const T log_total = std::log(total);
            for (std::int64_t k = 0; k < S; k++)
                to[k] = differences[k] - log_total;
        } else {
            const T scale = T(1) / total;
            for (std::int64_t k = 0; k < S; k++)
                to[k] = values[k] * scale;
        }
    });
}

template <class T>
void softmax_backward(std::int64_t N, std::int64_t S, const T *y, const T *dy, bool logarithm,
                      T *dx) {
    for_each_row(N, S, [=](std::int64_t n) {
        const T *values = y + n * S, *d = dy + n * S;
        T *to = dx + n * S, sum[1];
        if (logarithm) {
            sum_row<T, 1>(S, [=](Vector<T> *sums, auto read) { sums[0] += read(d, T(0)); }, sum);
            alignas(64) T shares[line<T>];
            for (std::int64_t begin = 0; begin < S; begin += line<T>) {
                const std::int64_t count = std::min<std::int64_t>(line<T>, S - begin);
                std::fill_n(shares, line<T>, T(0));
                std::copy_n(values + begin, count, shares);
                for (int k = 0; k < line<T>; k += lanes<T>)
                    store(shares + k, vexp<T>(load(shares + k)) * sum[0]);
                for (std::int64_t k = 0; k < count; k++)
                    to[begin + k] = d[begin + k] - shares[k];
            }
            return;
        }
        sum_row<T, 1>(
            S, [=](Vector<T> *sums, auto read) { sums[0] += read(d, T(0)) * read(values, T(0)); },
            sum);
        ANAPHORA_INDEPENDENT
        for (std::int64_t k = 0; k < S; k++)
            to[k] = values[k] * (d[k] - sum[0]);
    });
}

} // namespace anaphora::ANAPHORA_ISA
