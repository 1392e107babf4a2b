// Products of float32 in fixed point, on the tile registers of AMX, which multiply int8 and add in
// int32.
//
// The numbers of a row of the left operand, and of a column of the right one, are rounded to
// multiples of one power of two, 23 bits and a sign for the largest of them: three digits of 8 bits
// each. Of the nine products of two such numbers eight are added, in four sums by what the digits
// are worth; the ninth, of the last digits, is below 2^-30 of the largest. Sums of whole numbers
// are exact, so that a result has the same bits in whatever order, tiles and threads it is made;
// float32 rounds it three times, however many terms there are. (The scheme is that of Ozaki, Ogita,
// Oishi and Rump, 2012; with int8 that of Ootomo, Ozaki and Yokota, 2024.)
//
// The error is of the order of 2^-24 of the row's largest number times the column's largest: below
// that of a chain of multiply-adds in sums of many terms of like size. Where a row or a column
// holds numbers of very different sizes, the small ones lose digits, and below 2^-24 of the largest
// they are 0. A row or a column with a number that is not finite has no finite result: all are NaN.
#pragma once

#include "layout.h"
#include "tile_registers.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <vector>

#if defined(ANAPHORA_HAS_TILES) // of AVX-512 alone

namespace anaphora::ANAPHORA_ISA {

// 16 rows of the left operand, or columns of the right one, by 64 of K: for each digit, the most
// significant first, a tile of 16 lines. A line is a row of the left, four rows of the right one.
struct alignas(64) FixedTile {
    static constexpr std::int64_t lines = 16, depth = 64;
    std::int8_t digits[3][lines][depth];

    // How many tiles are so deep.
    static std::int64_t count(std::int64_t K) { return (K + depth - 1) / depth; }
    // Whether sums of so many products are made so. In those of fewer a chain rounds less.
    static bool suits(std::int64_t K) { return K >= 96; }
    // How many hold so many rows or columns.
    static std::int64_t across(std::int64_t n) { return (n + lines - 1) / lines; }
};

// Write a row of a left operand as line `line` of tiles that lie one after the other. What its last
// digits are worth is returned, or NaN if the row has a number that is not finite.
inline float fix_row(const float *row, std::int64_t K, FixedTile *tiles, std::int64_t line) {
    constexpr std::int64_t W = FixedTile::lines;
    using Ints = VectorOf<std::int32_t>::type;
    typedef std::int8_t Bytes __attribute__((vector_size(16)));
    const std::int64_t whole = K / W * W;
    alignas(64) float end[W] = {};
    std::copy(row + whole, row + K, end);

    auto larger = [](Ints p, Ints q) { return p > q ? p : q; };
    Ints tops = (Ints)load(end) & 0x7fffffff;
    for (std::int64_t k = 0; k < whole; k += W) {
        Ints bits = (Ints)load(row + k) & 0x7fffffff;
        tops = larger(tops, bits);
    }
    tops = larger(tops, __builtin_shufflevector(tops, tops, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2,
                                                3, 4, 5, 6, 7));
    tops = larger(tops, __builtin_shufflevector(tops, tops, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15,
                                                8, 9, 10, 11));
    tops = larger(tops, __builtin_shufflevector(tops, tops, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9,
                                                14, 15, 12, 13));
    const std::int32_t top = std::max(tops[0], tops[1]);
    constexpr std::int32_t infinity = 0x7f800000, least = 27; // exponents below it count as it
    if (top >= infinity)
        return std::numeric_limits<float>::quiet_NaN();
    // The largest becomes at most 2^23 - 2^16, since a digit of 128 does not exist.
    const std::int32_t exponent = std::max((top + 0x20000) >> 23, least);
    auto power = [](std::int32_t biased) {
        float value;
        const std::int32_t bits = biased << 23;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    };
    const float factor = power(276 - exponent); // 2^22 / 2^(exponent - 127), and 127

    for (std::int64_t k = 0; k < K; k += W) {
        Vector<float> scaled = load(k < whole ? row + k : end) * factor;
        Ints digits;
        asm("vcvtps2dq %1, %0" : "=v"(digits) : "v"(scaled)); // to the nearest, ties to even
        std::int8_t *to = tiles[k / FixedTile::depth].digits[2][line] + k % FixedTile::depth;
        for (int n = 2; n >= 0; n--, to -= sizeof tiles->digits[0]) {
            Bytes last = __builtin_convertvector(digits, Bytes);
            std::memcpy(to, &last, sizeof last);
            digits = (digits + 128) >> 8; // what is left when the last digit, -128 to 127, is taken
        }
    }
    for (std::int64_t k = (K + W - 1) / W * W; k % FixedTile::depth != 0; k += W)
        for (int n = 0; n < 3; n++)
            std::memset(tiles[k / FixedTile::depth].digits[n][line] + k % FixedTile::depth, 0, W);
    return power(exponent - 22);
}

// What a unit of the sums of the first digits' products is worth in multiples of those of the last.
inline constexpr float first_digits = 4294967296.0f; // 2^32

// Columns of a right operand, each K adjacent numbers: those from `column` on, up to 16 of them.
inline void fix_columns(const float *columns, std::int64_t stride, std::int64_t count,
                        std::int64_t K, FixedTile *tiles, float *scales) {
    constexpr std::int64_t side = FixedTile::lines;
    const std::int64_t depth = FixedTile::count(K);
    static thread_local Scratch scratch;
    FixedTile *rows = scratch.get<FixedTile>(static_cast<std::size_t>(depth + 1));
    static constexpr float nothing[FixedTile::depth] = {};
    for (std::int64_t j = 0; j < side; j++)
        if (j < count)
            scales[j] = fix_row(columns + j * stride, K, rows, j) * first_digits;
        else {
            scales[j] = 0;
            for (std::int64_t k = 0; k < depth; k++)
                fix_row(nothing, FixedTile::depth, rows + k, j);
        }
    for (std::int64_t k = 0; k < depth; k++)
        for (int n = 0; n < 3; n++)
            transpose(rows[k].digits[n], side, tiles[k].digits[n]);
}

// A row's digits, 128 added to each, as the instruction for one row takes them.
struct alignas(64) FixedRow {
    std::uint8_t digits[3][FixedTile::depth];
};

using FixedSums = VectorOf<std::int32_t>::type[4]; // by what their digits are worth

// The products of a row and 16 columns.
ANAPHORA_INLINE Vector<float> join(const FixedSums &sums, float row_scale,
                                   Vector<float> column_scales) {
    Vector<float> total = all<float>(0);
    for (int n = 3; n >= 0; n--)
        total = total * (1 / 256.0f) + __builtin_convertvector(sums[n], Vector<float>);
    return total * row_scale * column_scales;
}

// sums [N] += one row, the digits of which have 128 added, times so many tiles of a right operand,
// each K tiles deep. Without tile registers, which take longer for one row; to the same sums.
template <int N>
ANAPHORA_INLINE void multiply_row(std::int64_t K, const FixedRow *row, const FixedTile *right,
                                  FixedSums *sums) {
    using Ints = VectorOf<std::int32_t>::type;
    auto add = [](Ints sum, Ints x, Ints w) { // of four products a lane
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
                std::memcpy(&four, row[k].digits[i] + 4 * line, sizeof four);
                x[i] = four - Ints{};
            }
#pragma GCC unroll 4
            for (int t = 0; t < N; t++)
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) {
                    Ints w;
                    const std::int8_t *from = right[t * K + k].digits[j][0] + 64 * line;
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

// put(row, Vector<float>) for `rows` rows of a tile of left times one of right, K tiles deep.
template <class F>
ANAPHORA_INLINE void multiply_fixed(std::int64_t K, const FixedTile *left, const float *left_scales,
                                    int rows, const FixedTile *right, const float *right_scales,
                                    F put) {
    using Registers = TileRegisters;
    alignas(64) std::int32_t sums[4][FixedTile::lines][FixedTile::lines];
    Registers::zero<0>(), Registers::zero<1>(), Registers::zero<2>(), Registers::zero<3>();
    for (std::int64_t k = 0; k < K; k++, left++, right++) { // 4 to 6: digits of left; 7: of right
        Registers::load<4>(left->digits[0]);
        Registers::load<7>(right->digits[0]);
        Registers::multiply_int8<0, 4, 7>();
        Registers::load<5>(left->digits[1]);
        Registers::multiply_int8<1, 5, 7>();
        Registers::load<6>(left->digits[2]);
        Registers::multiply_int8<2, 6, 7>();
        Registers::load<7>(right->digits[1]);
        Registers::multiply_int8<3, 6, 7>();
        Registers::multiply_int8<1, 4, 7>();
        Registers::multiply_int8<2, 5, 7>();
        Registers::load<7>(right->digits[2]);
        Registers::multiply_int8<3, 5, 7>();
        Registers::multiply_int8<2, 4, 7>();
    }
    Registers::store<0>(sums[0]), Registers::store<1>(sums[1]);
    Registers::store<2>(sums[2]), Registers::store<3>(sums[3]);
    const Vector<float> scales = load(right_scales);
    for (int r = 0; r < rows; r++) {
        FixedSums of_row;
        for (int n = 0; n < 4; n++)
            std::memcpy(&of_row[n], sums[n][r], sizeof of_row[n]);
        put(r, join(of_row, left_scales[r], scales));
    }
}

// Weights [count * rows, K] in tiles: of 16 rows, those of all `count` one after the other.
struct FixedWeights {
    std::int64_t count, rows, K, depth; // depth: of K in tiles
    FixedTile *tiles;                   // [groups of 16 rows, count, depth]
    float *scales;                      // [groups of 16 rows, count, 16]
    FixedSums *starts; // [groups of 16 rows, count]: what a row begins with for the 128 it adds

    FixedWeights(std::int64_t count_, std::int64_t rows_, std::int64_t K_, float *memory)
        : count(count_), rows(rows_), K(K_), depth(FixedTile::count(K)),
          tiles(reinterpret_cast<FixedTile *>(memory)),
          scales(reinterpret_cast<float *>(tiles + FixedTile::across(rows) * count * depth)),
          starts(reinterpret_cast<FixedSums *>(scales + FixedTile::across(rows) * count *
                                                            FixedTile::lines)) {}

    // How many numbers they take; 0 if they do not suit.
    static std::int64_t size(std::int64_t count, std::int64_t rows, std::int64_t K) {
        if (!FixedTile::suits(K))
            return 0;
        constexpr std::int64_t tile = sizeof(FixedTile) / sizeof(float);
        return FixedTile::across(rows) * count *
               (FixedTile::count(K) * tile + 5 * FixedTile::lines);
    }

    static void pack(std::int64_t count, std::int64_t rows, std::int64_t K, const float *weight,
                     float *memory) {
        constexpr std::int64_t side = FixedTile::lines;
        const FixedWeights to(count, rows, K, memory);
        FixedRow zeros;
        std::memset(&zeros, 128, sizeof zeros);
        const std::vector<FixedRow> nothing(to.depth, zeros);
        parallel(FixedTile::across(rows) * count, [&](std::int64_t n) {
            const std::int64_t row = n / count * side;
            fix_columns(weight + (n % count * rows + row) * K, K, std::min(side, rows - row), K,
                        to.tiles + n * to.depth, to.scales + n * side);
            FixedSums sums = {};
            ANAPHORA_ISA::multiply_row<1>(to.depth, nothing.data(), to.tiles + n * to.depth, &sums);
            for (int level = 0; level < 4; level++)
                to.starts[n][level] = -sums[level];
        });
    }

    // to = x [M, K] times the transpose of some groups: of each of `count` the columns `padded`
    // apart, those beyond `rows` written too where there is room for them.
    void multiply(std::int64_t M, const float *x, std::int64_t x_row, std::int64_t first_group,
                  std::int64_t end_group, float *to, std::int64_t to_row,
                  std::int64_t padded = 0) const {
        constexpr std::int64_t side = FixedTile::lines;
        static thread_local Scratch scratch;
        const std::int64_t across = FixedTile::across(M);
        FixedTile *left = scratch.get<FixedTile>(
            across * depth + across * side * sizeof(float) / sizeof(FixedTile) + 1);
        float *left_scales = reinterpret_cast<float *>(left + across * depth);
        for (std::int64_t m = 0; m < M; m++)
            left_scales[m] = fix_row(x + m * x_row, K, left + m / side * depth, m % side);
        if (M == 1) {
            multiply_row(left, left_scales[0], first_group * count, end_group * count, to, padded);
            return;
        }
        TileRegisters registers(static_cast<int>(std::clamp<std::int64_t>(M, 1, side)));
        for (std::int64_t group = first_group; group < end_group; group++)
            for (std::int64_t which = 0; which < count; which++)
                for (std::int64_t m = 0; m < M; m += side) {
                    const std::int64_t column = which * padded + group * side;
                    const std::size_t bytes =
                        (padded > 0 ? side : std::min(side, rows - group * side)) * sizeof(float);
                    float *at = to + m * to_row + column;
                    multiply(left + m / side * depth, left_scales + m,
                             static_cast<int>(std::min(side, M - m)), group, which,
                             [&](int r, Vector<float> product) {
                                 std::memcpy(at + r * to_row, &product, bytes);
                             });
                }
    }

    // put(row, Vector<float>): the products of up to 16 rows with 16 of one of `count`.
    template <class F>
    ANAPHORA_INLINE void multiply(const FixedTile *left, const float *left_scales, int left_rows,
                                  std::int64_t group, std::int64_t which, F put) const {
        const std::int64_t n = group * count + which;
        multiply_fixed(depth, left, left_scales, left_rows, tiles + n * depth,
                       scales + n * FixedTile::lines, put);
    }

  private:
    // to = a row times the transpose of these tiles; see multiply.
    void multiply_row(const FixedTile *left, float left_scale, std::int64_t first, std::int64_t end,
                      float *to, std::int64_t padded) const {
        constexpr std::int64_t side = FixedTile::lines;
        static thread_local Scratch scratch;
        FixedRow *row = scratch.get<FixedRow>(depth);
        for (std::int64_t k = 0; k < depth; k++)
            for (int n = 0; n < 3; n++)
                for (std::int64_t i = 0; i < FixedTile::depth; i++)
                    row[k].digits[n][i] = static_cast<std::uint8_t>(left[k].digits[n][0][i] + 128);
        auto some = [&]<int N>(std::integral_constant<int, N>, std::int64_t n) {
            FixedSums sums[N];
            std::memcpy(sums, starts + n, sizeof sums);
            ANAPHORA_ISA::multiply_row<N>(depth, row, tiles + n * depth, sums);
            for (int t = 0; t < N; t++) {
                const std::int64_t group = (n + t) / count, which = (n + t) % count;
                const Vector<float> product =
                    join(sums[t], left_scale, load(scales + (n + t) * side));
                std::memcpy(to + which * padded + group * side, &product,
                            (padded > 0 ? side : std::min(side, rows - group * side)) *
                                sizeof(float));
            }
        };
        std::int64_t n = first;
        for (; n + 4 <= end; n += 4)
            some(std::integral_constant<int, 4>(), n);
        for (; n < end; n++)
            some(std::integral_constant<int, 1>(), n);
    }
};

// How float32 is multiplied forward where there are tile registers; see ChainProducts.
struct FixedProducts {
    static constexpr std::int64_t weight_bytes = 3; // of a number, packed

    // A left operand [M, K] in tiles.
    class Left {
      public:
        Left(std::int64_t M, std::int64_t K, Matrix<const float> A, Scratch &scratch)
            : M_(M), depth_(FixedTile::count(K)) {
            const std::int64_t tiles = FixedTile::across(M);
            tiles_ = scratch.get<FixedTile>(tiles * depth_ +
                                            (tiles * 64 + sizeof(FixedTile)) / sizeof(FixedTile));
            scales_ = reinterpret_cast<float *>(tiles_ + tiles * depth_);
            if (A.column != 1) {
                static thread_local Scratch copy_scratch;
                A = in_rows(M, K, A, copy_scratch);
            }
            parallel(tiles, [&](std::int64_t tile) {
                for (std::int64_t m = tile * side; m < std::min(M, (tile + 1) * side); m++)
                    scales_[m] =
                        fix_row(A.data + m * A.row, K, tiles_ + tile * depth_, m - tile * side);
            });
        }

        // C [M, N] (+)= this B [K, N] + bias [N] (or none). Threads share the columns.
        void multiply(std::int64_t N, std::int64_t K, Matrix<const float> B, float *C,
                      std::int64_t c_row, const float *bias, bool accumulate) const {
            constexpr std::int64_t most = 16; // column tiles at a time
            if (B.row != 1) {
                static thread_local Scratch copy_scratch;
                Matrix<const float> turned =
                    in_rows<float>(N, K, {B.data, B.column, B.row}, copy_scratch);
                B = {turned.data, 1, turned.row};
            }
            const std::int64_t columns = FixedTile::across(N), threads = threads_at_hand();
            std::int64_t groups = (columns + most - 1) / most;
            groups = std::min(columns, (groups + threads - 1) / threads * threads);
            parallel(M_ == 0 ? 0 : groups, [&](std::int64_t group) {
                static thread_local Scratch scratch;
                const std::int64_t first = columns * group / groups;
                const std::int64_t count = columns * (group + 1) / groups - first;
                FixedTile *right = scratch.get<FixedTile>(count * depth_ + 1);
                alignas(64) float scales[most][side];
                for (std::int64_t n = 0; n < count; n++) {
                    const std::int64_t column = (first + n) * side;
                    fix_columns(B.data + column * B.column, B.column, std::min(side, N - column), K,
                                right + n * depth_, scales[n]);
                }
                TileRegisters registers(static_cast<int>(std::min(M_, side)));
                for (std::int64_t m = 0; m < M_; m += side)
                    for (std::int64_t n = 0; n < count; n++) {
                        const std::int64_t column = (first + n) * side, width = N - column;
                        float *c = C + m * c_row + column;
                        Vector<float> biases = all<float>(0);
                        if (bias != nullptr)
                            std::memcpy(&biases, bias + column,
                                        std::min(side, width) * sizeof(float));
                        auto put = [&](int r, Vector<float> product) {
                            float *to = c + r * c_row;
                            Vector<float> before = all<float>(0);
                            const std::size_t bytes = std::min(side, width) * sizeof(float);
                            if (accumulate) {
                                std::memcpy(&before, to, bytes);
                                product += before;
                            }
                            if (bias != nullptr)
                                product += biases;
                            if (width >= side)
                                store(to, product);
                            else
                                std::memcpy(to, &product, bytes);
                        };
                        multiply_fixed(depth_, tiles_ + m / side * depth_, scales_ + m,
                                       static_cast<int>(std::min(side, M_ - m)), right + n * depth_,
                                       scales[n], put);
                    }
            });
        }

      private:
        static constexpr std::int64_t side = FixedTile::lines;
        std::int64_t M_, depth_;
        FixedTile *tiles_;
        float *scales_; // [M]
    };

    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none), where B may be a weight's transpose.
    static void multiply(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const float> A,
                         Matrix<const float> B, float *C, std::int64_t c_row, const float *bias,
                         bool accumulate) {
        static thread_local Scratch scratch;
        if (FixedTile::suits(K))
            Left(M, K, A, scratch).multiply(N, K, B, C, c_row, bias, accumulate);
        else
            ANAPHORA_ISA::multiply<float>(M, N, K, A, B, C, c_row, bias, accumulate);
    }

    // Here a block of units is one vector, and a tile has at most 16 rows. Weights that do not suit
    // are multiplied by chains.
    class Gates {
      public:
        Gates(const Layout<float> &layout, int count, std::int64_t K, const float *weight,
              Scratch &scratch) {
            const std::int64_t size = FixedWeights::size(count, layout.hidden, K);
            if (size == 0) {
                chain_.emplace(layout, count, K, weight, scratch);
                return;
            }
            float *memory = scratch.get<float>(size);
            FixedWeights::pack(count, layout.hidden, K, weight, memory);
            fixed_.emplace(count, layout.hidden, K, memory);
        }

        class Rows {
          public:
            Rows(const Gates &gates, const Layout<float> &layout, Scratch &scratch)
                : fixed_(gates.fixed_) {
                if (!fixed_) {
                    chain_.emplace(*gates.chain_, layout, scratch);
                    return;
                }
                registers_.emplace();
                tiles_ = scratch.get<FixedTile>(layout.tiles * fixed_->depth + 1);
                scales_.resize(layout.tiles * FixedTile::lines);
            }

            void read(const std::vector<Layout<float>::Tile> &tiles, const float *a) {
                if (!fixed_) {
                    chain_->read(tiles, a);
                    return;
                }
                int most = 1;
                for (std::size_t n = 0; n < tiles.size(); n++) {
                    most = std::max(most, tiles[n].rows);
                    for (int r = 0; r < tiles[n].rows; r++)
                        scales_[n * FixedTile::lines + r] =
                            fix_row(a + (tiles[n].first + r) * fixed_->K, fixed_->K,
                                    tiles_ + n * fixed_->depth, r);
                }
                registers_->set_lines(most);
            }

            void multiply(std::size_t n, const Layout<float>::Tile &tile, std::int64_t vector,
                          int sub, float *halves) const {
                if (!fixed_) {
                    chain_->multiply(n, tile, vector, sub, halves);
                    return;
                }
                for (std::int64_t g = 0; g < fixed_->count; g++) {
                    fixed_->multiply(tiles_ + n * fixed_->depth,
                                     scales_.data() + n * FixedTile::lines, tile.rows, vector, g,
                                     [&](int r, Vector<float> product) {
                                         store(halves + r * FixedTile::lines, product);
                                     });
                    halves += tile.rows * FixedTile::lines;
                }
            }

          private:
            const std::optional<FixedWeights> &fixed_;
            std::optional<ChainProducts<float>::Gates::Rows> chain_;
            std::optional<TileRegisters> registers_;
            FixedTile *tiles_ = nullptr; // [tiles, depth]
            std::vector<float> scales_;  // [tiles, 16]
        };

      private:
        std::optional<FixedWeights> fixed_; // or
        std::optional<ChainProducts<float>::Gates> chain_;
    };

    class Projection {
      public:
        Projection(std::int64_t P, std::int64_t H, const float *weight, Scratch &scratch) : P_(P) {
            const std::int64_t size = FixedWeights::size(1, P, H);
            if (size == 0) {
                chain_.emplace(P, H, weight, scratch);
                return;
            }
            float *memory = scratch.get<float>(size);
            FixedWeights::pack(1, P, H, weight, memory);
            fixed_.emplace(1, P, H, memory);
        }

        void multiply(const std::vector<Layout<float>::Tile> &tiles, const float *from,
                      float *to) const {
            if (!fixed_) {
                chain_->multiply(tiles, from, to);
                return;
            }
            for (const auto &tile : tiles)
                fixed_->multiply(tile.rows, from + tile.first * fixed_->K, fixed_->K, 0,
                                 FixedTile::across(P_), to + tile.first * P_, P_);
        }

      private:
        std::int64_t P_;
        std::optional<FixedWeights> fixed_; // or
        std::optional<ChainProducts<float>::Projection> chain_;
    };
};

} // namespace anaphora::ANAPHORA_ISA

#endif
