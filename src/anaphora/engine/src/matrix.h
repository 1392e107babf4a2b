// The matrix product. Each element of the result is one chain of fused multiply-adds along K in
// ascending order, whatever the tile that it falls into: its bits depend on its row of A and its
// column of B alone.
#pragma once

#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "vector.h"

#include <algorithm>

namespace anaphora::ANAPHORA_ISA {

// Registers: an accumulator tile of R rows by NV vectors, NV vectors of B, and a broadcast of A.
inline constexpr int max_vectors = 4;
inline constexpr bool many_registers = ANAPHORA_VECTOR_BYTES == 64;
inline constexpr int tile_rows(int vectors) {
    return many_registers ? (vectors == 4 ? 6 : 8) : (vectors == 4 ? 2 : vectors == 3 ? 3 : 5);
}
inline constexpr int max_rows = 8;

// How a tile finds its operands. The rows of a lie one after the other, element (i, k) at a[i *
// stride + k]; or its columns, at a[i + k * stride]. What is read of b is fetched ahead, but where
// it was just packed or used and the cache has it.
enum class Operands { rows, columns, cached_rows };

// c[i, v] (+)= sum over k of a[i, k] * b[k, v], in registers.
//   a: see Operands.
//   b: [K, NV * lanes].
//   c: vector v of row i at c + i * c_row + v * c_vector; read first if accumulate.
template <class T, int R, int NV, Operands O>
ANAPHORA_INLINE void multiply_tile_of(std::int64_t K, const T *a, std::int64_t row_stride,
                                      const T *b, T *c, std::int64_t c_row, std::int64_t c_vector,
                                      bool accumulate) {
    constexpr int W = lanes<T>, ahead = 16;
    Vector<T> sums[R][NV];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            sums[i][v] = accumulate ? load(c + i * c_row + v * c_vector) : all<T>(0);
    for (std::int64_t k = 0; k < K; k++) {
        Vector<T> bs[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            bs[v] = load(b + k * (NV * W) + v * W);
            if (O != Operands::cached_rows)
                __builtin_prefetch(b + (k + ahead) * (NV * W) + v * W);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            Vector<T> x =
                all<T>(O == Operands::columns ? a[k * row_stride + i] : a[i * row_stride + k]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                sums[i][v] += x * bs[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            store(c + i * c_row + v * c_vector, sums[i][v]);
}

// The same for a number of rows from 1 to tile_rows(NV) that is known at run time.
template <class T, int NV, Operands O, int R = tile_rows(NV)>
void multiply_tile(int rows, std::int64_t K, const T *a, std::int64_t row_stride, const T *b, T *c,
                   std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
    if (rows == R)
        multiply_tile_of<T, R, NV, O>(K, a, row_stride, b, c, c_row, c_vector, accumulate);
    else if constexpr (R > 1)
        multiply_tile<T, NV, O, R - 1>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
}

// The same for a number of vectors from 1 to 4.
template <class T, Operands O>
ANAPHORA_INLINE void multiply_tile(int vectors, int rows, std::int64_t K, const T *a,
                                   std::int64_t row_stride, const T *b, T *c, std::int64_t c_row,
                                   std::int64_t c_vector, bool accumulate) {
    switch (vectors) {
    case 1:
        return multiply_tile<T, 1, O>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    case 2:
        return multiply_tile<T, 2, O>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    case 3:
        return multiply_tile<T, 3, O>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    default:
        return multiply_tile<T, 4, O>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    }
}

// How N columns are cut into panels of 1 to 4 vectors, as evenly as possible.
template <class T> struct Panels {
    std::int64_t vectors, count;

    explicit Panels(std::int64_t N)
        : vectors((N + lanes<T> - 1) / lanes<T>), count((vectors + max_vectors - 1) / max_vectors) {
    }
    std::int64_t first(std::int64_t panel) const {
        return panel * (vectors / count) + std::min(panel, vectors % count);
    }
    int width(std::int64_t panel) const {
        return static_cast<int>(vectors / count + (panel < vectors % count));
    }
};

// Copy columns [begin, begin + width) of B into [K, vectors * lanes], zeros beyond.
template <class T>
void pack_panel(std::int64_t K, const Matrix<const T> &B, std::int64_t begin, std::int64_t width,
                int vectors, T *to) {
    std::int64_t padded = vectors * lanes<T>;
    if (B.column == 1) {
        for (std::int64_t k = 0; k < K; k++) {
            std::memcpy(to + k * padded, B.data + k * B.row + begin, width * sizeof(T));
            std::fill(to + k * padded + width, to + (k + 1) * padded, T(0));
        }
        return;
    }
    constexpr std::int64_t step = 16; // rows at a time, so that both sides stay in L1
    for (std::int64_t k0 = 0; k0 < K; k0 += step) {
        std::int64_t end = std::min(K, k0 + step);
        for (std::int64_t j = 0; j < width; j++) {
            const T *from = B.data + (begin + j) * B.column;
            for (std::int64_t k = k0; k < end; k++)
                to[k * padded + j] = from[k * B.row];
        }
        for (std::int64_t k = k0; k < end; k++)
            std::fill(to + k * padded + width, to + (k + 1) * padded, T(0));
    }
}

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none). C's columns are adjacent.
template <class T>
void multiply(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A, Matrix<const T> B,
              T *C, std::int64_t c_row, const T *bias, bool accumulate) {
    constexpr int W = lanes<T>;
    if (M == 0 || N == 0)
        return;
    Panels<T> panels(N);
    static thread_local Scratch scratch;
    T *packed = scratch.get<T>(panels.vectors * W * std::max<std::int64_t>(K, 1));
    const std::int64_t threads = threads_at_hand();
    const std::int64_t parts = panels.count < 2 * threads && K >= 512 ? 2 * threads : 1; // of K
    parallel(panels.count * parts, [&](std::int64_t task) {
        std::int64_t p = task / parts, part = task % parts, first = K * part / parts;
        std::int64_t begin = panels.first(p) * W, depth = K * (part + 1) / parts - first;
        Matrix<const T> rows{B.data + first * B.row, B.row, B.column};
        pack_panel(depth, rows, begin, std::min<std::int64_t>(panels.width(p) * W, N - begin),
                   panels.width(p), packed + begin * K + first * panels.width(p) * W);
    });

    // A task is a block of rows by a group of panels. Where the columns of A lie far apart, its
    // block is copied together first; a narrow A is read as it lies.
    constexpr std::int64_t narrow = 2048 / sizeof(T);
    const bool by_columns = A.column != 1, as_it_lies = A.row == 1 && A.column <= narrow;
    constexpr std::int64_t K_block = 256, most_rows = 144;
    const std::int64_t height = tile_rows(panels.width(0));
    const std::int64_t tiles = (M + height - 1) / height;
    std::int64_t row_blocks = std::max((M + most_rows - 1) / most_rows, // 4 tiles at the least
                                       std::min(4 * threads, (tiles + 3) / 4));
    row_blocks = std::min(tiles, (row_blocks + threads - 1) / threads * threads);
    auto first_row = [=](std::int64_t block) {
        return std::min(M, tiles * block / row_blocks * height);
    };
    std::int64_t group = panels.count;
    while (group > 4 && row_blocks * ((panels.count + group - 1) / group) < 6 * threads)
        group = (group + 1) / 2;
    std::int64_t groups = (panels.count + group - 1) / group;

    parallel(row_blocks * groups, [&](std::int64_t task) {
        static thread_local Scratch block_scratch;
        std::int64_t row0 = first_row(task / groups), row1 = first_row(task / groups + 1);
        std::int64_t panel0 = task % groups * group;
        std::int64_t panel1 = std::min(panels.count, panel0 + group);
        alignas(64) T edge[max_rows * max_vectors * W];
        std::int64_t k0 = 0;
        do {
            std::int64_t depth = std::min(K_block, K - k0);
            const T *a = A.data + row0 * A.row + k0 * A.column;
            std::int64_t stride = by_columns ? A.column : A.row;
            if (by_columns && !as_it_lies) { // [depth, row1 - row0]
                stride = row1 - row0;
                T *block = block_scratch.get<T>(stride * K_block);
                for (std::int64_t k = 0; k < depth; k++)
                    if (A.row == 1)
                        std::memcpy(block + k * stride, a + k * A.column, stride * sizeof(T));
                    else
                        for (std::int64_t i = 0; i < stride; i++)
                            block[k * stride + i] = a[i * A.row + k * A.column];
                a = block;
            }
            bool adding = accumulate || k0 > 0;
            for (std::int64_t p = panel0; p < panel1; p++) {
                int vectors = panels.width(p), height = tile_rows(vectors);
                std::int64_t begin = panels.first(p) * W;
                std::int64_t width = std::min<std::int64_t>(vectors * W, N - begin);
                const T *b = packed + begin * K + k0 * vectors * W;
                bool whole = width == vectors * W;
                for (std::int64_t i = row0; i < row1; i += height) {
                    int count = static_cast<int>(std::min<std::int64_t>(height, row1 - i));
                    T *c = C + i * c_row + begin;
                    T *to = whole ? c : edge;
                    std::int64_t to_row = whole ? c_row : vectors * W;
                    if (!whole && adding)
                        for (int r = 0; r < count; r++)
                            std::memcpy(edge + r * to_row, c + r * c_row, width * sizeof(T));
                    if (by_columns)
                        multiply_tile<T, Operands::columns>(vectors, count, depth, a + (i - row0),
                                                            stride, b, to, to_row, W, adding);
                    else
                        multiply_tile<T, Operands::rows>(vectors, count, depth,
                                                         a + (i - row0) * stride, stride, b, to,
                                                         to_row, W, adding);
                    bool last = bias != nullptr && k0 + depth >= K;
                    for (int r = 0; r < count && (last || !whole); r++) {
                        T *row = to + r * to_row;
                        if (last)
                            for (std::int64_t j = 0; j < width; j++)
                                row[j] += bias[begin + j];
                        if (!whole)
                            std::memcpy(c + r * c_row, row, width * sizeof(T));
                    }
                }
            }
            k0 += K_block;
        } while (k0 < K);
    });
}

} // namespace anaphora::ANAPHORA_ISA
