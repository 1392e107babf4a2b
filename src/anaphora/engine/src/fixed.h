// float32 matrix products in fixed point, on the AMX tile registers, which multiply int8 and
// accumulate in int32.
//
// Each row of the left operand and each column of the right one is quantized with one power-of-two
// scale: its largest element gets 23 bits and a sign, split into three slices of 8 bits. Of the
// nine slice products of two such numbers eight are accumulated, in four sums by the weight of
// their slices; the ninth, of the last slices, is below 2^-30 of the largest. Integer sums are
// exact, so a result has the same bits whatever the order, the tiles and the threads; float32
// rounds it a few times, however many terms there are. (The scheme is that of Ozaki, Ogita, Oishi
// and Rump, 2012; with int8 that of Ootomo, Ozaki and Yokota, 2024.)
//
// The error is about 2^-24 of the row's largest element times the column's largest: smaller than
// that of an FMA chain in sums of many terms of similar size. Where the elements of a row or column
// differ widely in size, the small ones lose precision, and below 2^-24 of the largest they become
// 0. A row or column with an element that is not finite yields NaN throughout.
#pragma once

#include "layout.h"
#include "tile_registers.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <vector>

#if defined(ANAPHORA_HAS_TILES) // AVX-512 only

namespace anaphora::ANAPHORA_ISA {

// 16 rows of the left operand, or columns of the right one, by 64 of K: for each slice, the most
// significant first, a tile of 16 lines. A line is one row of the left operand, or four rows of the
// right one.
struct alignas(64) FixedTile {
    static constexpr std::int64_t lines = 16, depth = 64;
    std::int8_t slices[3][lines][depth];

    // The number of tiles that cover K.
    static std::int64_t tiles_in_depth(std::int64_t K) { return (K + depth - 1) / depth; }
    // Whether fixed point applies to sums of K products: shorter ones are more accurate as FMA
    // chains, longer ones might overflow int32.
    static constexpr std::int64_t min_depth = 96;
    static bool applies(std::int64_t K) { return K >= min_depth && K <= 32768; }
    // The number of tiles that cover n rows or columns.
    static std::int64_t tiles_across(std::int64_t n) { return (n + lines - 1) / lines; }
    // The number of rows per tile when n rows are spread evenly over as few tiles as possible; at
    // least 1.
    static std::int64_t height(std::int64_t n) {
        return n == 0 ? 1 : (n + tiles_across(n) - 1) / tiles_across(n);
    }
};

using Ints = VectorOf<std::int32_t>::type;

// The first n elements of a vector (at most all); zeros after them.
ANAPHORA_INLINE Vector<float> load_partial(const float *from, std::int64_t n) {
    if (n >= lanes<float>)
        return load(from);
    Vector<float> partial = broadcast<float>(0);
    std::memcpy(&partial, from, n * sizeof(float));
    return partial;
}

ANAPHORA_INLINE void store_partial(float *to, Vector<float> x, std::int64_t n) {
    if (n >= lanes<float>)
        store(to, x);
    else
        std::memcpy(to, &x, n * sizeof(float));
}

// The bits of a magnitude, as an integer that grows with it; those of NaN are the largest.
ANAPHORA_INLINE Ints magnitude(Vector<float> x) { return (Ints)x & 0x7fffffff; }
ANAPHORA_INLINE Ints elementwise_max(Ints a, Ints b) { return a > b ? a : b; }

// x * 2^n, rounded only where the result must be.
ANAPHORA_INLINE Vector<float> times_power(Vector<float> x, Vector<float> n) {
    Vector<float> y;
    asm("vscalefps %2, %1, %0" : "=v"(y) : "v"(x), "v"(n));
    return y;
}

// The scales by which numbers are quantized: powers of two.
struct FixedScales {
    // Of the power of two that one unit is worth; NaN if a number is not finite.
    Vector<float> exponents;

    // From the largest magnitude in each lane.
    ANAPHORA_INLINE explicit FixedScales(Ints maxima) {
        const Ints infinity = Ints{} + 0x7f800000, finite = maxima < infinity ? maxima : infinity;
        // The largest becomes at most 2^23 - 2^16, since a slice cannot hold 128.
        const Ints integers = ((finite + 0x20000) >> 23) - (127 + 22);
        const Ints nan = Ints{} - 1;
        exponents = maxima < infinity ? __builtin_convertvector(integers, Vector<float>)
                                      : (Vector<float>)nan;
    }

    ANAPHORA_INLINE Ints quantize(Vector<float> x) const {
        const Vector<float> scaled = times_power(x, -exponents);
        Ints integers;
        asm("vcvtps2dq %1, %0" : "=v"(integers) : "v"(scaled)); // to the nearest, ties to even
        return integers;
    }
};

// Remove the last slice, -128 to 127, of integers.
ANAPHORA_INLINE Ints without_slice(Ints integers) { return (integers + 128) >> 8; }

// Quantize K adjacent numbers into line `line` of consecutive tiles of a left operand; returns the
// exponent of its scale.
inline float quantize_row(const float *row, std::int64_t K, FixedTile *tiles, std::int64_t line) {
    constexpr std::int64_t W = FixedTile::lines;
    typedef std::int8_t Bytes __attribute__((vector_size(16)));
    Ints maxima = {};
    for (std::int64_t k = 0; k < K; k += W)
        maxima = elementwise_max(maxima, magnitude(load_partial(row + k, K - k)));
    maxima = elementwise_max(maxima, __builtin_shufflevector(maxima, maxima, 8, 9, 10, 11, 12, 13,
                                                             14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    maxima = elementwise_max(maxima, __builtin_shufflevector(maxima, maxima, 4, 5, 6, 7, 0, 1, 2, 3,
                                                             12, 13, 14, 15, 8, 9, 10, 11));
    maxima = elementwise_max(maxima, __builtin_shufflevector(maxima, maxima, 2, 3, 0, 1, 6, 7, 4, 5,
                                                             10, 11, 8, 9, 14, 15, 12, 13));
    maxima = elementwise_max(maxima, __builtin_shufflevector(maxima, maxima, 1, 0, 3, 2, 5, 4, 7, 6,
                                                             9, 8, 11, 10, 13, 12, 15, 14));
    const FixedScales scales(maxima);
    for (std::int64_t k = 0; k < FixedTile::tiles_in_depth(K) * FixedTile::depth; k += W) {
        Ints integers = k < K ? scales.quantize(load_partial(row + k, K - k)) : Ints{};
        for (int n = 2; n >= 0; n--, integers = without_slice(integers)) {
            Bytes slices = __builtin_convertvector(integers, Bytes);
            std::memcpy(tiles[k / FixedTile::depth].slices[n][line] + k % FixedTile::depth, &slices,
                        sizeof slices);
        }
    }
    return scales.exponents[0];
}

// Quantize K rows of N <= 64 adjacent numbers into tiles of a right operand, `stride` tiles apart
// for each 16 columns; writes the exponents of the columns' scales, [N, rounded up to 16].
inline void quantize_columns(std::int64_t K, const float *rows, std::int64_t row, std::int64_t N,
                             FixedTile *tiles, std::int64_t stride, float *exponents) {
    constexpr std::int64_t W = FixedTile::lines, max_column_vectors = 4;
    const std::int64_t vectors = FixedTile::tiles_across(N), full_vectors = N / W;
    auto row_at = [&](std::int64_t k, std::int64_t v) {
        const float *from = rows + k * row + v * W;
        return v < full_vectors ? load(from) : load_partial(from, N - v * W);
    };
    Ints maxima[max_column_vectors] = {};
    constexpr std::int64_t ahead = 12;
    for (std::int64_t k = 0; k < K; k++)
#pragma GCC unroll 4
        for (std::int64_t v = 0; v < max_column_vectors; v++)
            if (v < vectors) {
                __builtin_prefetch(rows + (k + ahead) * row + v * W);
                maxima[v] = elementwise_max(maxima[v], magnitude(row_at(k, v)));
            }
    for (std::int64_t v = 0; v < vectors; v++)
        store(exponents + v * W, FixedScales(maxima[v]).exponents);
    for (std::int64_t k = 0; k < FixedTile::tiles_in_depth(K) * FixedTile::depth; k += 4)
        for (std::int64_t v = 0; v < vectors; v++) {
            const FixedScales scales(maxima[v]);
            Ints integers[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
                integers[r] = k + r < K ? scales.quantize(row_at(k + r, v)) : Ints{};
            FixedTile &tile = tiles[v * stride + k / FixedTile::depth];
#pragma GCC unroll 3
            for (int n = 2; n >= 0; n--) {
                auto interleave = [](Ints low, Ints high, int bits) {
                    const int mask = (1 << bits) - 1;
                    return (low & mask) | (high << bits & ~mask);
                };
                Ints slices = interleave(interleave(integers[0], integers[1], 8),
                                         interleave(integers[2], integers[3], 8), 16);
                std::memcpy(tile.slices[n][k % FixedTile::depth / 4], &slices, sizeof slices);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++)
                    integers[r] = without_slice(integers[r]);
            }
        }
}

// Convert tiles of one operand to those of the other.
inline void transpose_slices(FixedTile &tile) {
    for (auto &slices : tile.slices) {
        alignas(64) std::int8_t transposed[FixedTile::lines][FixedTile::depth];
        transpose(slices, transposed);
        std::memcpy(slices, transposed, sizeof transposed);
    }
}

// The slices of one row with 128 added to each, as the unsigned operand of vpdpbusd.
struct alignas(64) FixedRow {
    std::uint8_t slices[3][FixedTile::depth];
};

using FixedSums = Ints[4]; // by the weight of their slices

// The products of a row and 16 columns, from the exponents of their scales.
ANAPHORA_INLINE Vector<float> combine(const FixedSums &sums, float row, Vector<float> columns) {
    Vector<float> total = broadcast<float>(0);
    for (int n = 3; n >= 0; n--)
        total = total * (1 / 256.0f) + __builtin_convertvector(sums[n], Vector<float>);
    return times_power(total, columns + (row + 32)); // the product of the first slices weighs 2^32
}

// sums [N] += one row, whose slices have 128 added, times N columns of tiles of a right operand,
// each K tiles deep. It uses vector instructions, which are faster than tile registers for one row,
// and gives the same sums.
template <int N>
ANAPHORA_INLINE void multiply_row(std::int64_t K, const FixedRow *row, const FixedTile *right,
                                  FixedSums *sums) {
    auto add = [](Ints sum, Ints x, Ints w) { // of four products in each lane
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
        return sum;
    };
    Ints totals[N][4];
#pragma GCC unroll 4
    for (int t = 0; t < N; t++)
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++)
            totals[t][n] = sums[t][n];
    for (std::int64_t k = 0; k < K; k++)
        for (std::int64_t line = 0; line < FixedTile::lines; line++) {
            Ints x[3];
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) {
                std::int32_t four;
                std::memcpy(&four, row[k].slices[i] + 4 * line, sizeof four);
                x[i] = four - Ints{};
            }
#pragma GCC unroll 4
            for (int t = 0; t < N; t++)
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) {
                    Ints w;
                    const std::int8_t *from = right[t * K + k].slices[j][line];
                    std::memcpy(&w, from, sizeof w);
#pragma GCC unroll 3
                    for (int i = 0; i < 3; i++)
                        if (i + j < 4)
                            totals[t][i + j] = add(totals[t][i + j], x[i], w);
                }
        }
#pragma GCC unroll 4
    for (int t = 0; t < N; t++)
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++)
            sums[t][n] = totals[t][n];
}

// Multiply a tile of `rows` rows of the left operand by one of the right, K tiles deep, and call
// write(row, Vector<float>) for each row. The last user of a right tile prefetches the next one, so
// that the hardware prefetcher continues from there.
template <class F>
ANAPHORA_INLINE void multiply_fixed(std::int64_t K, const FixedTile *left,
                                    const float *left_exponents, int rows, const FixedTile *right,
                                    const float *right_exponents, bool is_last, F write) {
    using Registers = TileRegisters;
    alignas(64) std::int32_t sums[4][FixedTile::lines][FixedTile::lines];
    Registers::zero<0>(), Registers::zero<1>(), Registers::zero<2>(), Registers::zero<3>();
    // Registers 4 to 6 hold slices of left, 7 of right.
    for (std::int64_t k = 0; k < K; k++, left++, right++) {
        for (int line = 0; line < 8 && is_last; line++)
            __builtin_prefetch(right[K].slices[0][line], 0, 2);
        Registers::load<4>(left->slices[0]);
        Registers::load<7>(right->slices[0]);
        Registers::multiply<0, 4, 7>();
        Registers::load<5>(left->slices[1]);
        Registers::multiply<1, 5, 7>();
        Registers::load<6>(left->slices[2]);
        Registers::multiply<2, 6, 7>();
        Registers::load<7>(right->slices[1]);
        Registers::multiply<3, 6, 7>();
        Registers::multiply<1, 4, 7>();
        Registers::multiply<2, 5, 7>();
        Registers::load<7>(right->slices[2]);
        Registers::multiply<3, 5, 7>();
        Registers::multiply<2, 4, 7>();
    }
    Registers::store<0>(sums[0]), Registers::store<1>(sums[1]);
    Registers::store<2>(sums[2]), Registers::store<3>(sums[3]);
    const Vector<float> exponents = load(right_exponents);
    for (int r = 0; r < rows; r++) {
        FixedSums row_sums;
        for (int n = 0; n < 4; n++)
            std::memcpy(&row_sums[n], sums[n][r], sizeof row_sums[n]);
        write(r, combine(row_sums, left_exponents[r], exponents));
    }
}

// A right operand, the transpose of `count` weights [rows, K]: for each 16 rows the tiles of all
// `count` weights, consecutively.
struct FixedWeights {
    static constexpr std::int64_t side = FixedTile::lines;
    std::int64_t count, rows, K, depth; // depth: tiles that cover K
    FixedTile *tiles;                   // [groups of 16 rows, count, depth]
    float *exponents;                   // [groups of 16 rows, count, 16]
    FixedSums *starts; // [groups of 16 rows, count]: initial sums that cancel the 128 of FixedRow

    FixedWeights(std::int64_t count_, std::int64_t rows_, std::int64_t K_, float *memory)
        : count(count_), rows(rows_), K(K_), depth(FixedTile::tiles_in_depth(K)),
          tiles(reinterpret_cast<FixedTile *>(memory)),
          exponents(
              reinterpret_cast<float *>(tiles + FixedTile::tiles_across(rows) * count * depth)),
          starts(reinterpret_cast<FixedSums *>(exponents +
                                               FixedTile::tiles_across(rows) * count * side)) {}

    std::int64_t padded() const { return FixedTile::tiles_across(rows) * side; }

    // The size of their memory, in floats.
    static std::int64_t size(std::int64_t count, std::int64_t rows, std::int64_t K) {
        constexpr std::int64_t tile = sizeof(FixedTile) / sizeof(float);
        return FixedTile::tiles_across(rows) * count *
               (FixedTile::tiles_in_depth(K) * tile + 5 * side);
    }

    // Pack [count * rows, K], for products with any number of rows.
    void pack(const float *weight) const {
        FixedRow zeros;
        std::memset(&zeros, 128, sizeof zeros);
        const std::vector<FixedRow> zero_row(depth, zeros);
        parallel(FixedTile::tiles_across(rows) * count, [&](std::int64_t n) {
            const std::int64_t row = n / count * side;
            pack_rows(n, weight + (n % count * rows + row) * K, K, std::min(side, rows - row));
            FixedSums sums = {};
            ANAPHORA_ISA::multiply_row<1>(depth, zero_row.data(), tiles + n * depth, &sums);
            for (int level = 0; level < 4; level++)
                starts[n][level] = -sums[level];
        });
    }

    // Pack B [K, rows], whose rows or columns are contiguous; count is 1, and single rows are not
    // multiplied by it.
    void pack(Matrix<const float> B) const {
        constexpr std::int64_t max_columns = 4 * side;
        parallel((rows + max_columns - 1) / max_columns, [&](std::int64_t task) {
            const std::int64_t first = task * max_columns,
                               width = std::min(max_columns, rows - first);
            const float *from = B.data + first * B.column;
            if (B.row == 1) {
                for (std::int64_t j = 0; j < width; j += side)
                    pack_rows((first + j) / side, from + j * B.column, B.column,
                              std::min(side, width - j));
                return;
            }
            quantize_columns(K, from, B.row, width, tiles + first / side * depth, depth,
                             exponents + first);
        });
    }

    // to [M, count * padded()] = x [M, K] times the transpose, for a range of groups of 16 rows of
    // each weight.
    void multiply(std::int64_t M, const float *x, std::int64_t x_row, std::int64_t first_group,
                  std::int64_t end_group, float *to, std::int64_t to_row) const {
        static thread_local Scratch scratch;
        if (first_group == end_group)
            return;
        const std::int64_t across = FixedTile::tiles_across(M), height = FixedTile::height(M);
        FixedTile *left = scratch.get<FixedTile>(
            across * depth + across * side * sizeof(float) / sizeof(FixedTile) + 1);
        float *left_exponents = reinterpret_cast<float *>(left + across * depth);
        for (std::int64_t m = 0; m < M; m++)
            left_exponents[m] =
                quantize_row(x + m * x_row, K, left + m / height * depth, m % height);
        if (M == 1) {
            multiply_row(left, left_exponents[0], first_group * count, end_group * count, to);
            return;
        }
        TileRegisters registers(static_cast<int>(height));
        for (std::int64_t group = first_group; group < end_group; group++)
            for (std::int64_t block = 0; block < count; block++)
                for (std::int64_t m = 0; m < M; m += height) {
                    const std::int64_t column = block * padded() + group * side;
                    float *at = to + m * to_row + column;
                    multiply(
                        left + m / height * depth, left_exponents + m,
                        static_cast<int>(std::min(height, M - m)), group, block, m + height >= M,
                        [&](int r, Vector<float> product) { store(at + r * to_row, product); });
                }
    }

    // Multiply up to 16 rows by a group of 16 rows of one weight; see multiply_fixed for `write`.
    template <class F>
    ANAPHORA_INLINE void multiply(const FixedTile *left, const float *left_exponents, int left_rows,
                                  std::int64_t group, std::int64_t block, bool is_last,
                                  F write) const {
        const std::int64_t n = group * count + block;
        multiply_fixed(depth, left, left_exponents, left_rows, tiles + n * depth,
                       exponents + n * FixedTile::lines, is_last, write);
    }

  private:
    // Pack tile n from up to 16 rows of K numbers.
    void pack_rows(std::int64_t n, const float *from, std::int64_t stride,
                   std::int64_t valid) const {
        FixedTile *to = tiles + n * depth;
        for (std::int64_t j = 0; j < side; j++)
            if (j < valid)
                exponents[n * side + j] = quantize_row(from + j * stride, K, to, j);
            else {
                exponents[n * side + j] = 0;
                for (std::int64_t k = 0; k < depth; k++)
                    for (auto &slices : to[k].slices)
                        std::memset(slices[j], 0, sizeof slices[j]);
            }
        for (std::int64_t k = 0; k < depth; k++)
            transpose_slices(to[k]);
    }

    // to = one row times the transpose of these tiles; see multiply.
    void multiply_row(const FixedTile *left, float left_exponent, std::int64_t first,
                      std::int64_t end, float *to) const {
        static thread_local Scratch scratch;
        FixedRow *row = scratch.get<FixedRow>(depth);
        for (std::int64_t k = 0; k < depth; k++)
            for (int n = 0; n < 3; n++)
                for (std::int64_t i = 0; i < FixedTile::depth; i++)
                    row[k].slices[n][i] = static_cast<std::uint8_t>(left[k].slices[n][0][i] + 128);
        auto multiply_tiles = [&]<int N>(std::integral_constant<int, N>, std::int64_t n) {
            FixedSums sums[N];
            std::memcpy(sums, starts + n, sizeof sums);
            ANAPHORA_ISA::multiply_row<N>(depth, row, tiles + n * depth, sums);
            for (int t = 0; t < N; t++) {
                const std::int64_t group = (n + t) / count, block = (n + t) % count;
                const Vector<float> product =
                    combine(sums[t], left_exponent, load(exponents + (n + t) * side));
                store(to + block * padded() + group * side, product);
            }
        };
        std::int64_t n = first;
        for (; n + 4 <= end; n += 4)
            multiply_tiles(std::integral_constant<int, 4>(), n);
        for (; n < end; n++)
            multiply_tiles(std::integral_constant<int, 1>(), n);
    }
};

// How float32 is multiplied with tile registers; see ChainProducts.
struct FixedProducts {
    static constexpr std::int64_t side = FixedTile::lines;
    static constexpr std::int64_t weight_bytes = 3; // of a packed number
    static constexpr int tile_rows = FixedTile::lines;
    static bool applies_to_gates(std::int64_t) { return true; }
    static bool applies_to_columns(std::int64_t K) { return K <= 1536; }
    static constexpr std::int64_t group = 8; // tiles of both operands that fit in a cache

    // A left operand [M, K], packed into tiles.
    class FixedLeft {
      public:
        FixedLeft(std::int64_t M, std::int64_t K, Matrix<const float> A, Scratch &scratch)
            : M_(M), depth_(FixedTile::tiles_in_depth(K)) {
            constexpr std::int64_t tiles_per_task = 4;
            const std::int64_t tiles = FixedTile::tiles_across(M);
            tiles_ = scratch.get<FixedTile>(tiles * depth_ +
                                            tiles * side * sizeof(float) / sizeof(FixedTile) + 1);
            exponents_ = reinterpret_cast<float *>(tiles_ + tiles * depth_);
            parallel((tiles + tiles_per_task - 1) / tiles_per_task, [&](std::int64_t task) {
                const std::int64_t first = task * tiles_per_task * side;
                const std::int64_t end = std::min(M, first + tiles_per_task * side);
                FixedTile *to = tiles_ + task * tiles_per_task * depth_;
                if (A.column == 1) {
                    for (std::int64_t m = first; m < end; m++)
                        exponents_[m] = quantize_row(A.data + m * A.row, K,
                                                     to + (m - first) / side * depth_, m % side);
                    return;
                }
                quantize_columns(K, A.data + first, A.column, end - first, to, depth_,
                                 exponents_ + first);
                for (std::int64_t n = 0; n < FixedTile::tiles_across(end - first) * depth_; n++)
                    transpose_slices(to[n]);
            });
        }

        // C [M, N] (+)= this times a right operand + bias [N] (or none), on one thread.
        void multiply(const FixedWeights &right, float *C, std::int64_t c_row, const float *bias,
                      bool accumulate) const {
            constexpr std::int64_t max_columns = group * side; // reused while they are in a cache
            TileRegisters registers(static_cast<int>(std::min(M_, side)));
            for (std::int64_t first = 0; first < right.rows; first += max_columns)
                for (std::int64_t m = 0; m < M_; m += side)
                    for (std::int64_t n = first; n < std::min(first + max_columns, right.rows);
                         n += side)
                        multiply_tile(right, m, n, C + m * c_row + n, c_row,
                                      bias == nullptr ? nullptr : bias + n, accumulate);
        }

      private:
        void multiply_tile(const FixedWeights &right, std::int64_t m, std::int64_t n, float *c,
                           std::int64_t c_row, const float *bias, bool accumulate) const {
            const std::int64_t width = std::min(side, right.rows - n);
            Vector<float> biases = broadcast<float>(0);
            if (bias != nullptr)
                biases = load_partial(bias, width);
            right.multiply(tiles_ + m / side * depth_, exponents_ + m,
                           static_cast<int>(std::min(side, M_ - m)), n / side, 0, false,
                           [&](int r, Vector<float> product) {
                               float *to = c + r * c_row;
                               if (accumulate)
                                   product += load_partial(to, width);
                               if (bias != nullptr)
                                   product += biases;
                               store_partial(to, product, width);
                           });
        }

        std::int64_t M_, depth_;
        FixedTile *tiles_;
        float *exponents_; // [M]
    };

    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none)
    static void multiply(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const float> A,
                         Matrix<const float> B, float *C, std::int64_t c_row, const float *bias,
                         bool accumulate) {
        if (FixedTile::applies(K))
            multiply_by_blocks(M, N, K, K, A, B, C, c_row, bias, accumulate);
        else
            ANAPHORA_ISA::multiply<float>(M, N, K, A, B, C, c_row, bias, accumulate);
    }

    // Gradients are multiplied in blocks along K. For a weight's gradient K is the number of rows,
    // which varies, so the weight's own size decides how it is computed; an input's gradient is cut
    // only if its sums are too long to be computed within a step (see input_in_step).
    static void multiply(Gradient of, std::int64_t M, std::int64_t N, std::int64_t K,
                         Matrix<const float> A, Matrix<const float> B, float *C, std::int64_t c_row,
                         bool accumulate) {
        const bool of_weight = of == Gradient::weight;
        const std::int64_t max_depth = of_weight ? 512 : applies_to_columns(K) ? K : 768;
        if (of_weight ? K == 0 || std::min(M, N) < 64 : K < FixedTile::min_depth)
            ANAPHORA_ISA::multiply<float>(M, N, K, A, B, C, c_row, nullptr, accumulate);
        else
            multiply_by_blocks(M, N, K, max_depth, A, B, C, c_row, nullptr, accumulate);
    }

    // The same, max_depth of K at a time, each block quantized on its own. The smaller operand is
    // packed once for all threads; of the larger one each thread packs what it multiplies.
    static void multiply_by_blocks(std::int64_t M, std::int64_t N, std::int64_t K,
                                   std::int64_t max_depth, Matrix<const float> A,
                                   Matrix<const float> B, float *C, std::int64_t c_row,
                                   const float *bias, bool accumulate) {
        static thread_local Scratch a_scratch, b_scratch, scratch;
        if (A.column != 1 && A.row != 1)
            A = copy_rows(M, K, A, a_scratch);
        if (B.row != 1 && B.column != 1)
            B = copy_rows(K, N, B, b_scratch);
        for (std::int64_t k = 0; k < K; k += max_depth) {
            const std::int64_t depth = std::min(max_depth, K - k);
            const Matrix<const float> a{A.data + k * A.column, A.row, A.column};
            const Matrix<const float> b{B.data + k * B.row, B.row, B.column};
            const float *added = k + depth < K ? nullptr : bias;
            const bool adding = accumulate || k > 0;
            if (M < N) {
                const FixedLeft left(M, depth, a, scratch);
                for_each_group(M == 0 ? 0 : N, [&](std::int64_t first, std::int64_t count) {
                    static thread_local Scratch right_scratch;
                    const FixedWeights right(
                        1, count, depth,
                        right_scratch.get<float>(FixedWeights::size(1, count, depth)));
                    right.pack({b.data + first * b.column, b.row, b.column});
                    left.multiply(right, C + first, c_row,
                                  added == nullptr ? nullptr : added + first, adding);
                });
                continue;
            }
            const FixedWeights right(1, N, depth,
                                     scratch.get<float>(FixedWeights::size(1, N, depth)));
            right.pack(b);
            for_each_group(N == 0 ? 0 : M, [&](std::int64_t first, std::int64_t count) {
                static thread_local Scratch left_scratch;
                FixedLeft(count, depth, {a.data + first * a.row, a.row, a.column}, left_scratch)
                    .multiply(right, C + first * c_row, c_row, added, adding);
            });
        }
    }

    // Call f(first, count) on all threads for groups of the n rows or columns; all but the last are
    // full tiles.
    template <class F> static void for_each_group(std::int64_t n, F f) {
        const std::int64_t tiles = FixedTile::tiles_across(n), threads = available_threads();
        std::int64_t groups = (tiles + group - 1) / group;
        groups = std::min(tiles, (groups + threads - 1) / threads * threads);
        parallel(groups, [&](std::int64_t task) {
            const std::int64_t first = tiles * task / groups * side;
            f(first, std::min(n, tiles * (task + 1) / groups * side) - first);
        });
    }

    // A block of units is one vector here, and a tile has at most 16 rows. Where fixed point does
    // not apply, the products are FMA chains.
    class Gates {
      public:
        Gates(const Layout<float> &layout, int count, std::int64_t K, const float *weight,
              Scratch &scratch) {
            if (count == 0 || !FixedTile::applies(K)) {
                chain_.emplace(layout, count, K, weight, scratch);
                return;
            }
            const std::int64_t H = layout.hidden;
            fixed_.emplace(count, H, K, scratch.get<float>(FixedWeights::size(count, H, K)));
            fixed_->pack(weight);
        }

        class LeftOperand {
          public:
            LeftOperand(const Gates &gates, const Layout<float> &layout, Scratch &scratch)
                : fixed_(gates.fixed_) {
                if (!fixed_) {
                    chain_.emplace(*gates.chain_, layout, scratch);
                    return;
                }
                registers_.emplace();
                tiles_ = scratch.get<FixedTile>(layout.tiles * fixed_->depth + 1);
                exponents_.resize(layout.tiles * FixedTile::lines);
            }

            void read(const std::vector<Layout<float>::Tile> &tiles, const float *a) {
                if (!fixed_) {
                    chain_->read(tiles, a);
                    return;
                }
                int height = 1;
                for (std::size_t n = 0; n < tiles.size(); n++) {
                    height = std::max(height, tiles[n].rows);
                    for (int r = 0; r < tiles[n].rows; r++)
                        exponents_[n * FixedTile::lines + r] =
                            quantize_row(a + (tiles[n].first + r) * fixed_->K, fixed_->K,
                                         tiles_ + n * fixed_->depth, r);
                }
                registers_->set_lines(height);
            }

            void multiply(std::size_t n, const Layout<float>::Tile &tile, std::int64_t vector,
                          int sub, float *halves) const {
                if (!fixed_) {
                    chain_->multiply(n, tile, vector, sub, halves);
                    return;
                }
                for (std::int64_t g = 0; g < fixed_->count; g++) {
                    fixed_->multiply(tiles_ + n * fixed_->depth,
                                     exponents_.data() + n * FixedTile::lines, tile.rows, vector, g,
                                     false, [&](int r, Vector<float> product) {
                                         store(halves + r * FixedTile::lines, product);
                                     });
                    halves += tile.rows * FixedTile::lines;
                }
            }

          private:
            const std::optional<FixedWeights> &fixed_;
            std::optional<ChainProducts<float>::Gates::LeftOperand> chain_;
            std::optional<TileRegisters> registers_;
            FixedTile *tiles_ = nullptr;   // [tiles, depth]
            std::vector<float> exponents_; // [tiles, 16]
        };

      private:
        std::optional<FixedWeights> fixed_; // or
        std::optional<ChainProducts<float>::Gates> chain_;
    };

    class Columns {
      public:
        Columns(std::int64_t K, std::int64_t N, Matrix<const float> B,
                const std::vector<std::int64_t> &shares, Scratch &scratch)
            : columns_(N) {
            if (!FixedTile::applies(K)) {
                chain_.emplace(K, N, B, shares, scratch);
                return;
            }
            fixed_.emplace(1, N, K, scratch.get<float>(FixedWeights::size(1, N, K)));
            fixed_->pack(B);
        }

        class LeftOperand {
          public:
            LeftOperand(const Columns &columns, std::int64_t row_count, Scratch &scratch)
                : columns_(columns.columns_), fixed_(columns.fixed_) {
                if (!fixed_) {
                    chain_.emplace(*columns.chain_, row_count, scratch);
                    return;
                }
                registers_.emplace();
                left_ =
                    scratch.get<FixedTile>(FixedTile::tiles_across(row_count) * fixed_->depth + 1);
                exponents_.resize(FixedTile::tiles_across(row_count) * side);
                rows_.resize(row_count);
            }

            void read(const std::vector<Layout<float>::Tile> &tiles, const float *a) {
                if (!fixed_) {
                    chain_->read(tiles, a);
                    return;
                }
                count_ = 0;
                for (const auto &tile : tiles)
                    count_ += tile.rows;
                height_ = FixedTile::height(count_);
                std::int64_t row = 0;
                for (const auto &tile : tiles)
                    for (int r = 0; r < tile.rows; r++, row++) {
                        rows_[row] = tile.first + r;
                        exponents_[row] =
                            quantize_row(a + (tile.row + r) * fixed_->K, fixed_->K,
                                         left_ + row / height_ * fixed_->depth, row % height_);
                    }
                registers_->set_lines(static_cast<int>(height_));
            }

            void multiply(const Columns &columns, std::int64_t first_vector,
                          std::int64_t end_vector, float *c, std::int64_t c_row, bool accumulate,
                          bool backwards) const {
                if (!fixed_) {
                    chain_->multiply(*columns.chain_, first_vector, end_vector, c, c_row,
                                     accumulate, backwards);
                    return;
                }
                for (std::int64_t n = 0; n < end_vector - first_vector; n++) {
                    const std::int64_t vector = backwards ? end_vector - 1 - n : first_vector + n;
                    const std::int64_t width = std::min(side, columns.columns_ - vector * side);
                    for (std::int64_t m = 0; m < count_; m += height_)
                        columns.fixed_->multiply(
                            left_ + m / height_ * fixed_->depth, exponents_.data() + m,
                            static_cast<int>(std::min(height_, count_ - m)), vector, 0, false,
                            [&](int r, Vector<float> product) {
                                float *to = c + rows_[m + r] * c_row + vector * side;
                                if (accumulate)
                                    product += load_partial(to, width);
                                store_partial(to, product, width);
                            });
                }
            }

          private:
            std::int64_t columns_, count_ = 0, height_ = 1; // of a tile
            const std::optional<FixedWeights> &fixed_;
            std::optional<ChainProducts<float>::Columns::LeftOperand> chain_;
            std::optional<TileRegisters> registers_;
            FixedTile *left_ = nullptr;      // [across, depth]
            std::vector<float> exponents_;   // [across * 16]
            std::vector<std::int64_t> rows_; // of c, for each row
        };

      private:
        std::int64_t columns_;
        std::optional<FixedWeights> fixed_; // or
        std::optional<ChainProducts<float>::Columns> chain_;
    };
};

// For recurrent weights that are too small for fixed point: the gates of a step are FMA chains;
// longer products are as above.
struct SmallProducts : FixedProducts {
    static constexpr std::int64_t weight_bytes = sizeof(float);
    static constexpr int tile_rows = 0;
    static bool applies_to_gates(std::int64_t inputs) { return !FixedTile::applies(inputs); }
    using Gates = ChainProducts<float>::Gates;
};

} // namespace anaphora::ANAPHORA_ISA

#endif
