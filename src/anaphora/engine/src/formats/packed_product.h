// Products of matrices whose operands are both packed to a format.
#pragma once

#include "chain.h"

#include <algorithm>

namespace anaphora::ANAPHORA_ISA {

// A copy of X [M, N] in row order.
template <class T>
Matrix<const T> copy_rows(std::int64_t M, std::int64_t N, Matrix<const T> X, Scratch &scratch) {
    T *copy = scratch.get<T>(M * N + 1);
    parallel(M, [&](std::int64_t m) {
        for (std::int64_t n = 0; n < N; n++)
            copy[m * N + n] = X.data[m * X.row + n * X.column];
    });
    return {copy, N, 1};
}

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none), `terms` of K at a time. The smaller operand
// is packed once for all threads; of the larger one each thread packs what it multiplies.
template <class Format> class PackedProduct {
  public:
    static void multiply(std::int64_t M, std::int64_t N, std::int64_t K, std::int64_t terms,
                         Matrix<const float> A, Matrix<const float> B, float *C, std::int64_t c_row,
                         const float *bias, bool accumulate) {
        static thread_local Scratch a_scratch, b_scratch, scratch;
        if (A.column != 1 && A.row != 1)
            A = copy_rows(M, K, A, a_scratch);
        if (B.row != 1 && B.column != 1)
            B = copy_rows(K, N, B, b_scratch);
        for (std::int64_t k = 0; k == 0 || k < K; k += terms) {
            const std::int64_t depth = std::min(terms, K - k);
            const Matrix<const float> a{A.data + k * A.column, A.row, A.column};
            const Matrix<const float> b{B.data + k * B.row, B.row, B.column};
            const float *added = k + depth < K ? nullptr : bias;
            const bool adding = accumulate || k > 0;
            if (M < N) {
                const Left left(M, depth, a, scratch);
                for_each_group(M == 0 ? 0 : N, [&](std::int64_t first, std::int64_t count) {
                    static thread_local Scratch right_scratch;
                    const auto right = Format::pack_right(
                        depth, count, {b.data + first * b.column, b.row, b.column}, right_scratch);
                    left.multiply(right, count, C + first, c_row,
                                  added == nullptr ? nullptr : added + first, adding);
                });
                continue;
            }
            const auto right = Format::pack_right(depth, N, b, scratch);
            for_each_group(N == 0 ? 0 : M, [&](std::int64_t first, std::int64_t count) {
                static thread_local Scratch left_scratch;
                Left(count, depth, {a.data + first * a.row, a.row, a.column}, left_scratch)
                    .multiply(right, N, C + first * c_row, c_row, added, adding);
            });
        }
    }

  private:
    using Left = typename Format::Left;
    static constexpr std::int64_t side = 16, group = 8; // of both operands that fit in a cache

    // Call f(first, count) on all threads for groups of the n rows or columns; all but the last are
    // multiples of `side`.
    template <class F> static void for_each_group(std::int64_t n, F f) {
        const std::int64_t tiles = (n + side - 1) / side, threads = available_threads();
        std::int64_t groups = (tiles + group - 1) / group;
        groups = std::min(tiles, (groups + threads - 1) / threads * threads);
        parallel(groups, [&](std::int64_t task) {
            const std::int64_t first = tiles * task / groups * side;
            f(first, std::min(n, tiles * (task + 1) / groups * side) - first);
        });
    }
};

} // namespace anaphora::ANAPHORA_ISA
