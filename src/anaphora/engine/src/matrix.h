// The matrix product. Each element of the result is one chain of fused multiply-adds along K in
// ascending order, whatever its tile: its bits depend on its row of A and its column of B alone.
#pragma once

#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "vector.h"

#include <algorithm>

namespace anaphora::ANAPHORA_ISA {

// Weights of up to this size stay in a core's L2 cache.
inline constexpr std::int64_t cached_bytes = 3 << 19;

// Registers: an accumulator tile of R rows by NV vectors, NV vectors of B, and a broadcast of A.
// AVX-512 and NEON have 32, the others 16.
inline constexpr int max_vectors = 4;
#if defined(__aarch64__)
inline constexpr bool many_registers = true;
#else
inline constexpr bool many_registers = ANAPHORA_VECTOR_BYTES == 64;
#endif
inline constexpr int tile_rows(int vectors) {
    return many_registers ? (vectors == 4 ? 6 : 8) : (vectors == 4 ? 2 : vectors == 3 ? 3 : 5);
}
inline constexpr int max_rows = 8;

// How a tile reads its operands. Either the rows of a are contiguous, element (i, k) at a[i *
// stride + k]; or its columns are, at a[i + k * stride], and are prefetched. So is b, unless it was
// just packed or used and is cached.
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
            sums[i][v] = accumulate ? load(c + i * c_row + v * c_vector) : broadcast<T>(0);
    for (std::int64_t k = 0; k < K; k++) {
        Vector<T> bs[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            bs[v] = load(b + k * (NV * W) + v * W);
            if (O != Operands::cached_rows)
                __builtin_prefetch(b + (k + ahead) * (NV * W) + v * W);
        }
        if (O == Operands::columns)
            __builtin_prefetch(a + (k + 12) * row_stride);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            Vector<T> x = broadcast<T>(O == Operands::columns ? a[k * row_stride + i]
                                                              : a[i * row_stride + k]);
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

// The same for a number of rows, 1 to tile_rows(NV), known at run time.
template <class T, int NV, Operands O, int R = tile_rows(NV)>
void multiply_tile(int rows, std::int64_t K, const T *a, std::int64_t row_stride, const T *b, T *c,
                   std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
    if (rows == R)
        multiply_tile_of<T, R, NV, O>(K, a, row_stride, b, c, c_row, c_vector, accumulate);
    else if constexpr (R > 1)
        multiply_tile<T, NV, O, R - 1>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
}

// The same for a number of vectors, 1 to 4, known at run time.
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

// Copy columns [begin, begin + width) of B into [K, vectors * lanes], padded with zeros.
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
    constexpr std::int64_t step = 16; // rows at a time, so that source and destination stay in L1
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

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none). C's columns are adjacent.
template <class T>
void multiply(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A, Matrix<const T> B,
              T *C, std::int64_t c_row, const T *bias, bool accumulate) {
    constexpr int W = lanes<T>;
    if (M == 0 || N == 0)
        return;
    // A block of rows and a group of panels go through K in blocks, so that their part of C and a
    // block of B stay in the cache.
    constexpr std::int64_t max_depth = 384, max_block_rows = 192, max_panels = 12;
    const Panels<T> panels(N);
    const std::int64_t depths = std::max<std::int64_t>(1, (K + max_depth - 1) / max_depth);
    const std::int64_t height = tile_rows(panels.width(0)), tiles = (M + height - 1) / height;
    const std::int64_t threads = available_threads();
    // Where the columns of A are far apart, its block is copied first; a narrow A is read in place.
    constexpr std::int64_t narrow = 2048 / sizeof(T);
    const bool by_columns = A.column != 1, read_in_place = A.row == 1 && A.column <= narrow;
    const bool copies_a = by_columns && !read_in_place;

    std::int64_t groups = (panels.count + max_panels - 1) / max_panels;
    std::int64_t row_blocks = (M + max_block_rows - 1) / max_block_rows;
    // With enough columns for all threads, each packs its own panels; otherwise all threads pack B
    // together and share its rows.
    const bool packs_own_panels = panels.count >= (copies_a ? 4 * max_panels : 3) * threads;
    if (packs_own_panels) {
        std::int64_t share = panels.count >= 6 * threads ? 2 * threads : threads;
        groups = (groups + share - 1) / share * share;
    } else if (threads > 1) {
        row_blocks = std::max(row_blocks, std::min(4 * threads, (tiles + 3) / 4));
        row_blocks = std::min(tiles, (row_blocks + threads - 1) / threads * threads);
        while (panels.count > 4 * groups && row_blocks * groups < 6 * threads)
            groups *= 2;
    }
    auto first_row = [=](std::int64_t block) {
        return std::min(M, tiles * block / row_blocks * height);
    };
    auto first_panel = [=](std::int64_t group) { return panels.count * group / groups; };
    auto pack = [&](std::int64_t panel, std::int64_t first, std::int64_t depth, T *to) {
        std::int64_t begin = panels.first(panel) * W;
        int width = panels.width(panel);
        pack_panel(depth, Matrix<const T>{B.data + first * B.row, B.row, B.column}, begin,
                   std::min<std::int64_t>(width * W, N - begin), width, to + first * width * W);
    };

    auto multiply_block = [&](std::int64_t row0, std::int64_t row1, std::int64_t panel0,
                              std::int64_t panel1, const T *packed) {
        static thread_local Scratch block_scratch;
        alignas(64) T edge[max_rows * max_vectors * W];
        for (std::int64_t block = 0; block < depths; block++) {
            const std::int64_t k0 = K * block / depths, depth = K * (block + 1) / depths - k0;
            const T *a = A.data + row0 * A.row + k0 * A.column;
            std::int64_t stride = by_columns ? A.column : A.row;
            if (copies_a) { // [depth, row1 - row0]
                stride = row1 - row0;
                T *copy = block_scratch.get<T>(stride * depth);
                for (std::int64_t k = 0; k < depth; k++)
                    if (A.row == 1)
                        std::memcpy(copy + k * stride, a + k * A.column, stride * sizeof(T));
                    else
                        for (std::int64_t i = 0; i < stride; i++)
                            copy[k * stride + i] = a[i * A.row + k * A.column];
                a = copy;
            }
            const bool adding = accumulate || block > 0;
            const bool last = bias != nullptr && block + 1 == depths;
            for (std::int64_t p = panel0; p < panel1; p++) {
                const int vectors = panels.width(p), height = tile_rows(vectors);
                const std::int64_t begin = panels.first(p) * W;
                const std::int64_t width = std::min<std::int64_t>(vectors * W, N - begin);
                const T *b = packed + (begin - panels.first(panel0) * W) * K + k0 * vectors * W;
                const bool full_panel = width == vectors * W;
                for (std::int64_t i = row0; i < row1; i += height) {
                    int count = static_cast<int>(std::min<std::int64_t>(height, row1 - i));
                    T *c = C + i * c_row + begin;
                    T *to = full_panel ? c : edge;
                    std::int64_t to_row = full_panel ? c_row : vectors * W;
                    for (int r = 0; r < height; r++) // what the next tile will write
                        for (int v = 0; v < vectors; v++)
                            __builtin_prefetch(c + (height + r) * c_row + v * W, 1);
                    if (!full_panel && adding)
                        for (int r = 0; r < count; r++)
                            std::memcpy(edge + r * to_row, c + r * c_row, width * sizeof(T));
                    if (by_columns)
                        multiply_tile<T, Operands::columns>(vectors, count, depth, a + (i - row0),
                                                            stride, b, to, to_row, W, adding);
                    else
                        multiply_tile<T, Operands::rows>(vectors, count, depth,
                                                         a + (i - row0) * stride, stride, b, to,
                                                         to_row, W, adding);
                    for (int r = 0; r < count && (last || !full_panel); r++) {
                        T *row = to + r * to_row;
                        if (last)
                            for (std::int64_t j = 0; j < width; j++)
                                row[j] += bias[begin + j];
                        if (!full_panel)
                            std::memcpy(c + r * c_row, row, width * sizeof(T));
                    }
                }
            }
        }
    };

    if (packs_own_panels) {
        parallel(groups, [&](std::int64_t group) {
            static thread_local Scratch scratch;
            std::int64_t panel0 = first_panel(group), panel1 = first_panel(group + 1);
            std::int64_t vectors = panels.first(panel1) - panels.first(panel0);
            T *packed = scratch.get<T>(vectors * W * std::max<std::int64_t>(K, 1));
            for (std::int64_t p = panel0; p < panel1; p++)
                pack(p, 0, K, packed + (panels.first(p) - panels.first(panel0)) * W * K);
            for (std::int64_t block = 0; block < row_blocks; block++)
                multiply_block(first_row(block), first_row(block + 1), panel0, panel1, packed);
        });
        return;
    }
    static thread_local Scratch scratch;
    T *packed = scratch.get<T>(panels.vectors * W * std::max<std::int64_t>(K, 1));
    const std::int64_t k_parts = panels.count < 2 * threads && K >= 512 ? 2 * threads : 1;
    parallel(panels.count * k_parts, [&](std::int64_t task) {
        std::int64_t p = task / k_parts, part = task % k_parts, first = K * part / k_parts;
        pack(p, first, K * (part + 1) / k_parts - first, packed + panels.first(p) * W * K);
    });
    parallel(row_blocks * groups, [&](std::int64_t task) {
        std::int64_t block = task / groups, group = task % groups, panel0 = first_panel(group);
        multiply_block(first_row(block), first_row(block + 1), panel0, first_panel(group + 1),
                       packed + panels.first(panel0) * W * K);
    });
}

} // namespace anaphora::ANAPHORA_ISA
