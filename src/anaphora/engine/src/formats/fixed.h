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

#include "chain.h"

#include "../tile_registers.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <vector>

#if defined(ANAPHORA_HAS_TILES)

namespace anaphora::ANAPHORA_ISA {

// 16 rows of the left operand, or columns of the right one, by 64 of K: for each slice, the most
// significant first, a tile of 16 lines. A line is one row of the left operand, or four rows of the
// right one.
struct alignas(64) FixedTile {
    static constexpr std::int64_t lines = 16, depth = 64;
    std::int8_t slices[3][lines][depth];

    // The number of tiles that cover K.
    static std::int64_t tiles_in_depth(std::int64_t K) { return (K + depth - 1) / depth; }
    // The number of tiles that cover n rows or columns.
    static std::int64_t tiles_across(std::int64_t n) { return (n + lines - 1) / lines; }
    // The number of rows per tile when n rows are spread evenly over as few tiles as possible; at
    // least 1.
    static std::int64_t height(std::int64_t n) {
        return n == 0 ? 1 : (n + tiles_across(n) - 1) / tiles_across(n);
    }
};

// The bits of a magnitude, as an integer that grows with it; those of NaN are the largest.
ANAPHORA_INLINE Ints magnitude(Vector<float> x) { return (Ints)x & 0x7fffffff; }
ANAPHORA_INLINE Ints elementwise_max(Ints a, Ints b) { return a > b ? a : b; }

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
        return to_integers(times_power(x, -exponents));
    }
};

// Remove the last slice, -128 to 127, of integers.
ANAPHORA_INLINE Ints without_slice(Ints integers) { return (integers + 128) >> 8; }

typedef std::int8_t Bytes __attribute__((vector_size(16)));

// Quantize K adjacent numbers, and zeros after them up to a multiple of a tile's depth: call
// write(k, slice, Bytes) for each slice of 16 numbers. Returns the exponent of their scale.
template <class F> ANAPHORA_INLINE float quantize_row(const float *row, std::int64_t K, F write) {
    constexpr std::int64_t W = FixedTile::lines;
    Ints maxima = {};
    for (std::int64_t k = 0; k < K; k += W)
        maxima = elementwise_max(maxima, magnitude(load_some(row + k, K - k)));
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
        Ints integers = k < K ? scales.quantize(load_some(row + k, K - k)) : Ints{};
        for (int n = 2; n >= 0; n--, integers = without_slice(integers))
            write(k, n, __builtin_convertvector(integers, Bytes));
    }
    return scales.exponents[0];
}

// Into line `line` of consecutive tiles of a left operand.
inline float quantize_row(const float *row, std::int64_t K, FixedTile *tiles, std::int64_t line) {
    return quantize_row(row, K, [=](std::int64_t k, int n, Bytes slices) {
        std::memcpy(tiles[k / FixedTile::depth].slices[n][line] + k % FixedTile::depth, &slices,
                    sizeof slices);
    });
}

// Quantize K rows of N <= 64 adjacent numbers into tiles of a right operand, `stride` tiles apart
// for each 16 columns; writes the exponents of the columns' scales, [N, rounded up to 16].
inline void quantize_columns(std::int64_t K, const float *rows, std::int64_t row, std::int64_t N,
                             FixedTile *tiles, std::int64_t stride, float *exponents) {
    constexpr std::int64_t W = FixedTile::lines, max_column_vectors = 4;
    const std::int64_t vectors = FixedTile::tiles_across(N), full_vectors = N / W;
    auto row_at = [&](std::int64_t k, std::int64_t v) {
        const float *from = rows + k * row + v * W;
        return v < full_vectors ? load(from) : load_some(from, N - v * W);
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

inline float quantize_row(const float *row, std::int64_t K, FixedRow *to) {
    return quantize_row(row, K, [=](std::int64_t k, int n, Bytes slices) {
        slices ^= Bytes{} + std::int8_t{-128};
        std::memcpy(to[k / FixedTile::depth].slices[n] + k % FixedTile::depth, &slices,
                    sizeof slices);
    });
}

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
                            totals[t][i + j] = add_products(totals[t][i + j], x[i], w);
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

// A packed weight, see ChainWeight: for each vector of outputs the tiles of its terms, which begin
// at a multiple of 64; its exponents; and, for single rows, what their sums begin with.
class FixedWeight {
  public:
    static constexpr std::int64_t side = FixedTile::lines;

    static std::int64_t size(const WeightShape &shape) { // in numbers
        const auto [tiles, vectors] = count(shape);
        return sizeof(FixedTile) / sizeof(float) * tiles +
               (shape.single_rows ? 5 : 1) * side * vectors;
    }

    FixedWeight(const WeightShape &shape, Matrix<const float> B, float *packed)
        : shape_(shape), tiles_(reinterpret_cast<FixedTile *>(packed)) {
        Place place{0, 0};
        for (const Block &block : shape.blocks) {
            places_.push_back(place);
            place.tile += shape.vectors(block) * depth(block);
            place.vector += shape.vectors(block);
        }
        places_.push_back(place);
        exponents_ = reinterpret_cast<float *>(tiles_ + place.tile);
        starts_ = reinterpret_cast<FixedSums *>(exponents_ + side * place.vector);
        parallel(std::ssize(shape.blocks), [&](std::int64_t n) { pack(n, B); });
    }

    std::int64_t first_vector(std::int64_t block) const { return places_[block].vector; }

    // Rows of a left operand, each 16 or fewer a tile: those of each range apart, or all spread
    // evenly over as few tiles as possible.
    class Rows {
      public:
        Rows(const FixedWeight &weight, std::int64_t max_rows, bool weights_stream,
             Scratch &scratch)
            : K_(weight.shape_.K), depth_(FixedTile::tiles_in_depth(K_)),
              single_rows_(weight.shape_.single_rows), weights_stream_(weights_stream),
              scratch_(scratch) {
            if (max_rows > 1 || !single_rows_)
                registers_.emplace();
        }

        void read(const std::vector<RowRange<float>> &ranges, std::int64_t stride, bool apart) {
            std::int64_t count = 0;
            height_ = 1;
            parts_.clear();
            for (const RowRange<float> &range : ranges) {
                count += range.rows;
                height_ = std::max(height_, range.rows);
                parts_.push_back(range.rows);
            }
            if (!apart) {
                height_ = static_cast<int>(FixedTile::height(count));
                parts_.assign(FixedTile::tiles_across(count), height_);
                if (count > 0)
                    parts_.back() = static_cast<int>(count - (parts() - 1) * height_);
            }
            single_ = count == 1 && single_rows_;
            consecutive_ = apart || ranges.size() == 1;
            tiles_ = scratch_.get<FixedTile>(parts() * depth_ + 1);
            single_row_ = reinterpret_cast<FixedRow *>(tiles_);
            exponents_.resize(parts() * side);
            rows_.resize(parts() * side);
            std::int64_t part = 0, line = 0;
            for (std::size_t n = 0; n < ranges.size(); n++) {
                if (apart)
                    part = static_cast<std::int64_t>(n), line = 0;
                const float *row = ranges[n].from;
                for (int r = 0; r < ranges[n].rows; r++, row += stride) {
                    rows_[part * side + line] = ranges[n].to + r;
                    exponents_[part * side + line] =
                        single_ ? quantize_row(row, K_, single_row_)
                                : quantize_row(row, K_, tiles_ + part * depth_, line);
                    if (++line == height_)
                        part++, line = 0;
                }
            }
            if (registers_ && !single_)
                registers_->set_lines(height_);
        }
        std::int64_t parts() const { return std::ssize(parts_); }

      private:
        friend class FixedWeight;

        std::int64_t K_, depth_;
        bool single_rows_, weights_stream_, single_ = false, consecutive_ = false;
        Scratch &scratch_;
        std::optional<TileRegisters> registers_;
        int height_ = 1;
        std::vector<int> parts_;         // the rows of each
        FixedTile *tiles_ = nullptr;     // [parts, depth], or
        FixedRow *single_row_ = nullptr; // [depth]
        std::vector<float> exponents_;   // [parts, 16]
        std::vector<std::int64_t> rows_; // [parts, 16] of the result
    };

    void multiply(std::int64_t first, std::int64_t end, const Rows &rows, std::int64_t first_part,
                  std::int64_t end_part, const Target<float> &to, bool backwards) const {
        if (rows.single_) {
            for (std::int64_t part = first_part; part < end_part; part++)
                if (rows.parts_[part] > 0)
                    multiply_row(first, end, rows, part, to);
            return;
        }
        for (std::int64_t k = 0; k < end - first; k++) {
            const std::int64_t n = backwards ? end - 1 - k : first + k;
            const std::int64_t begin = places_[n].vector - places_[first].vector;
            float *data = to.data + begin * to.vector;
            if (to.accumulate || to.columns < std::numeric_limits<std::int64_t>::max() ||
                !rows.consecutive_)
                multiply_columns(n, rows, first_part, end_part, data, to.row, to.vector,
                                 to.columns - begin * side, to.accumulate);
            else if (rows.weights_stream_)
                multiply_block<true>(n, rows, first_part, end_part, data, to.row, to.vector);
            else
                multiply_block<false>(n, rows, first_part, end_part, data, to.row, to.vector);
        }
    }

    // Multiply up to 16 rows by a vector of outputs; see multiply_fixed.
    template <class F>
    ANAPHORA_INLINE void multiply(const FixedTile *left, const float *left_exponents, int left_rows,
                                  std::int64_t vector, F write) const {
        const std::int64_t tiles = depth(shape_.blocks[0]); // of all blocks
        multiply_fixed(tiles, left, left_exponents, left_rows, tiles_ + vector * tiles,
                       exponents_ + vector * side, false, write);
    }

  private:
    struct Place {
        std::int64_t tile, vector;
    };

    static std::int64_t first_tile(const Block &block) {
        return block.begin_term / FixedTile::depth;
    }
    static std::int64_t depth(const Block &block) {
        return FixedTile::tiles_in_depth(block.end_term) - first_tile(block);
    }
    static Place count(const WeightShape &shape) {
        Place total{0, 0};
        for (const Block &block : shape.blocks) {
            total.tile += shape.vectors(block) * depth(block);
            total.vector += shape.vectors(block);
        }
        return total;
    }

    void pack(std::int64_t n, const Matrix<const float> &B) const {
        const Block &block = shape_.blocks[n];
        const auto [tile, vector] = places_[n];
        const std::int64_t begin = first_tile(block) * FixedTile::depth, deep = depth(block);
        const std::int64_t K = std::min(shape_.K, begin + deep * FixedTile::depth) - begin;
        const float *from = B.data + begin * B.row;
        for (std::int64_t v = 0; v < shape_.vectors(block); v++) {
            const Columns columns = shape_.columns(block, v, side);
            FixedTile *to = tiles_ + tile + v * deep;
            float *exponents = exponents_ + (vector + v) * side;
            if (B.row == 1)
                pack_rows(from + columns.begin * B.column, B.column, K, columns.valid, to, deep,
                          exponents);
            else if (v % block.vectors == 0) // all vectors of a gate
                quantize_columns(K, from + columns.begin, B.row,
                                 std::min(columns.valid, block.vectors * side), to, deep,
                                 exponents);
        }
        for (std::int64_t v = 0; v < shape_.vectors(block) && shape_.single_rows; v++)
            start_single_rows(tiles_ + tile + v * deep, deep, starts_[vector + v]);
    }

    // Pack up to 16 rows of K numbers.
    static void pack_rows(const float *from, std::int64_t stride, std::int64_t K,
                          std::int64_t valid, FixedTile *to, std::int64_t depth, float *exponents) {
        for (std::int64_t j = 0; j < side; j++)
            if (j < valid)
                exponents[j] = quantize_row(from + j * stride, K, to, j);
            else {
                exponents[j] = 0;
                for (std::int64_t k = 0; k < depth; k++)
                    for (auto &slices : to[k].slices)
                        std::memset(slices[j], 0, sizeof slices[j]);
            }
        for (std::int64_t k = 0; k < depth; k++)
            transpose_slices(to[k]);
    }

    // The sums that cancel the 128 of FixedRow.
    static void start_single_rows(const FixedTile *tiles, std::int64_t depth, FixedSums &starts) {
        FixedRow zeros;
        std::memset(&zeros, 128, sizeof zeros);
        FixedSums sums = {};
        for (std::int64_t k = 0; k < depth; k++)
            ANAPHORA_ISA::multiply_row<1>(1, &zeros, tiles + k, &sums);
        for (int level = 0; level < 4; level++)
            starts[level] = -sums[level];
    }

    // Some parts of the rows times block n. write(at, vector) returns what writes a row of a part,
    // which is row at[r] of the result. Those that call it are not inlined: they have the registers
    // to themselves.
    template <bool Streams, class F>
    ANAPHORA_INLINE void multiply_parts(std::int64_t n, const Rows &rows, std::int64_t first,
                                        std::int64_t end, F write) const {
        const Block &block = shape_.blocks[n];
        const std::int64_t deep = depth(block), vectors = shape_.vectors(block);
        const FixedTile *left = rows.tiles_ + first_tile(block), *right = tiles_ + places_[n].tile;
        const float *exponents = exponents_ + places_[n].vector * side;
        for (std::int64_t v = 0; v < vectors; v++, right += deep, exponents += side)
            for (std::int64_t part = first; part < end; part++) {
                const int count = rows.parts_[part];
                if (count == 0)
                    continue;
                const std::int64_t *at = rows.rows_.data() + part * side;
                multiply_fixed(deep, left + part * rows.depth_,
                               rows.exponents_.data() + part * side, count, right, exponents,
                               Streams && part + 1 == rows.parts(), write(at, v));
            }
    }
    template <bool Streams>
    [[gnu::noinline]] void multiply_block(std::int64_t n, const Rows &rows, std::int64_t first,
                                          std::int64_t end, float *data, std::int64_t row,
                                          std::int64_t vector) const {
        multiply_parts<Streams>(n, rows, first, end, [=](const std::int64_t *at, std::int64_t v) {
            float *to = data + at[0] * row + v * vector;
            return [=](int r, Vector<float> product) { store(to + r * row, product); };
        });
    }
    [[gnu::noinline]] void multiply_columns(std::int64_t n, const Rows &rows, std::int64_t first,
                                            std::int64_t end, float *data, std::int64_t row,
                                            std::int64_t vector, std::int64_t columns,
                                            bool accumulate) const {
        multiply_parts<false>(n, rows, first, end, [=](const std::int64_t *at, std::int64_t v) {
            return [=](int r, Vector<float> product) {
                float *c = data + at[r] * row + v * vector;
                if (accumulate)
                    product += load_some(c, columns - v * side);
                store_some(c, product, columns - v * side);
            };
        });
    }

    // One row times all vectors of blocks, several of the same terms at a time.
    void multiply_row(std::int64_t first, std::int64_t end, const Rows &rows, std::int64_t part,
                      const Target<float> &to) const {
        const Block *blocks = shape_.blocks.data();
        const std::int64_t begin = places_[first].vector;
        for (std::int64_t n = first, next; n < end; n = next) {
            next = n + 1;
            while (next < end && blocks[next].begin_term == blocks[n].begin_term &&
                   blocks[next].end_term == blocks[n].end_term)
                next++;
            multiply_alike(n, next, rows, part, to.from(places_[n].vector - begin));
        }
    }

    // One row times all vectors of blocks that have the same terms.
    void multiply_alike(std::int64_t first, std::int64_t end, const Rows &rows, std::int64_t part,
                        const Target<float> &to) const {
        const std::int64_t deep = depth(shape_.blocks[first]), begin = places_[first].vector;
        float *row = to.data + rows.rows_[part * side] * to.row;
        const bool plain = !to.accumulate && to.columns == std::numeric_limits<std::int64_t>::max();
        auto multiply_tiles = [&]<int N>(std::integral_constant<int, N>, std::int64_t v) {
            FixedSums sums[N];
            std::memcpy(sums, starts_ + v, sizeof sums);
            ANAPHORA_ISA::multiply_row<N>(deep, rows.single_row_ + first_tile(shape_.blocks[first]),
                                          tiles_ + places_[first].tile + (v - begin) * deep, sums);
            for (int t = 0; t < N; t++) {
                Vector<float> product = combine(sums[t], rows.exponents_[part * side],
                                                load(exponents_ + (v + t) * side));
                float *c = row + (v + t - begin) * to.vector;
                if (plain) {
                    store(c, product);
                    continue;
                }
                const std::int64_t columns = to.columns - (v + t - begin) * side;
                if (to.accumulate)
                    product += load_some(c, columns);
                store_some(c, product, columns);
            }
        };
        std::int64_t v = begin;
        for (; v + 4 <= places_[end].vector; v += 4)
            multiply_tiles(std::integral_constant<int, 4>(), v);
        for (; v < places_[end].vector; v++)
            multiply_tiles(std::integral_constant<int, 1>(), v);
    }

    WeightShape shape_;
    FixedTile *tiles_;
    float *exponents_;          // [vectors, 16]
    FixedSums *starts_;         // [vectors]
    std::vector<Place> places_; // of each block, and the end
};

// Both operands of a product of matrices, see packed_product.h.
class FixedProduct {
    static constexpr std::int64_t side = FixedTile::lines;
    static constexpr std::int64_t group = 8; // tiles of both operands that fit in a cache

  public:
    using Right = FixedWeight;

    static FixedWeight pack_right(std::int64_t K, std::int64_t N, Matrix<const float> B,
                                  Scratch &scratch) {
        WeightShape shape{.gates = 1, .units = N, .K = K, .blocks = {}};
        add_blocks(shape.blocks, 0, FixedTile::tiles_across(N), max_vectors, K);
        return FixedWeight(shape, B, scratch.get<float>(FixedWeight::size(shape)));
    }

    // A left operand [M, K], packed into tiles.
    class Left {
      public:
        Left(std::int64_t M, std::int64_t K, Matrix<const float> A, Scratch &scratch)
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
        void multiply(const FixedWeight &right, std::int64_t N, float *C, std::int64_t c_row,
                      const float *bias, bool accumulate) const {
            constexpr std::int64_t max_columns = group * side; // reused while they are in a cache
            TileRegisters registers(static_cast<int>(std::min(M_, side)));
            for (std::int64_t first = 0; first < N; first += max_columns)
                for (std::int64_t m = 0; m < M_; m += side)
                    for (std::int64_t n = first; n < std::min(first + max_columns, N); n += side)
                        multiply_tile(right, N, m, n, C + m * c_row + n, c_row,
                                      bias == nullptr ? nullptr : bias + n, accumulate);
        }

      private:
        void multiply_tile(const FixedWeight &right, std::int64_t N, std::int64_t m, std::int64_t n,
                           float *c, std::int64_t c_row, const float *bias, bool accumulate) const {
            const std::int64_t width = std::min(side, N - n);
            Vector<float> biases = broadcast<float>(0);
            if (bias != nullptr)
                biases = load_some(bias, width);
            right.multiply(tiles_ + m / side * depth_, exponents_ + m,
                           static_cast<int>(std::min(side, M_ - m)), n / side,
                           [&](int r, Vector<float> product) {
                               float *to = c + r * c_row;
                               if (accumulate)
                                   product += load_some(to, width);
                               if (bias != nullptr)
                                   product += biases;
                               store_some(to, product, width);
                           });
        }

        std::int64_t M_, depth_;
        FixedTile *tiles_;
        float *exponents_; // [M]
    };
};

} // namespace anaphora::ANAPHORA_ISA

#endif
