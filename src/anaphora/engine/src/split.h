// Products of float32 on the tile registers of AMX, which multiply bfloat16 and add in float32.
//
// A number is the sum of three of bfloat16, exactly: their significands have 8 bits each, its own
// has 24. Of the nine products of two such numbers the six largest are added; the rest is below
// 2^-23 of the whole, no more than float32 rounds away. A tile adds 32 terms by themselves before
// they join the sum, so that less is rounded than in a chain of multiply-adds: the error is about
// half as large. Gradients are made this way, whose sizes differ much; see fixed.h for the others.
//
// An operand that is not finite makes its results not finite, if not always the same: infinity less
// infinity is NaN. So does one above 3.39e38, which rounds to infinity. Parts below the least
// normal number are 0, so that numbers below 1e-33 lose digits.
#pragma once

#include "matrix.h"
#include "tile_registers.h"

#include <algorithm>
#include <utility>
#include <vector>

#if defined(ANAPHORA_HAS_TILES) // of AVX-512 alone

namespace anaphora::ANAPHORA_ISA {

// 16 rows of the left operand, or columns of the right one, by 32 of K: three tiles of 16 lines, a
// word of which is two neighbours along K. A line is a row of the left, two rows of the right one.
struct alignas(64) SplitTile {
    static constexpr std::int64_t lines = 16, depth = 32;
    std::uint32_t parts[3][16][16];

    // How many tiles are so deep.
    static std::int64_t count(std::int64_t K) { return (K + depth - 1) / depth; }
};

inline constexpr std::uint32_t upper_half = 0xffff0000u;

// x as three numbers of bfloat16, each in the upper half of a word.
ANAPHORA_INLINE void split(Vector<float> x, Bits parts[3]) {
    for (int n = 0; n < 2; n++) {
        parts[n] = ((Bits)x + 0x8000u) & upper_half;
        x -= (Vector<float>)parts[n];
    }
    parts[2] = (Bits)x & upper_half;
}

// Line `line` of tiles that lie one after the other: a row of a left operand.
inline void split_row(const float *row, std::int64_t K, SplitTile *tiles, std::int64_t line) {
    using Halves = VectorOf<std::uint16_t>::type;
    alignas(64) float end[SplitTile::depth];
    for (std::int64_t k = 0; k < K; k += SplitTile::depth, tiles++) {
        const float *from = row + k;
        if (K - k < SplitTile::depth) {
            std::fill(std::copy(from, row + K, end), end + SplitTile::depth, 0.0f);
            from = end;
        }
        Bits a[3], b[3];
        split(load(from), a);
        split(load(from + 16), b);
        for (int n = 0; n < 3; n++) {
            Halves pairs = __builtin_shufflevector(
                (Halves)a[n], (Halves)b[n], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29,
                31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63);
            std::memcpy(tiles->parts[n][line], &pairs, sizeof pairs);
        }
    }
}

// Line `line` of tiles that are `stride` apart: two neighbouring rows of a right operand, the
// second of which may be missing (null).
inline void split_rows(const float *row, const float *second, std::int64_t N, SplitTile *tiles,
                       std::int64_t stride, std::int64_t line) {
    alignas(64) float end[2][SplitTile::lines] = {};
    for (std::int64_t j = 0; j < N; j += SplitTile::lines, tiles += stride) {
        const float *from[2] = {row + j, second == nullptr ? end[1] : second + j};
        if (N - j < SplitTile::lines) {
            for (int r = 0; r < (second == nullptr ? 1 : 2); r++)
                std::copy_n(from[r], N - j, end[r]);
            from[0] = end[0];
            from[1] = end[1];
        }
        Bits a[3], b[3];
        split(load(from[0]), a);
        split(load(from[1]), b);
        for (int n = 0; n < 3; n++) {
            Bits pairs = (a[n] >> 16) | b[n];
            std::memcpy(tiles->parts[n][line], &pairs, sizeof pairs);
        }
    }
}

// product [R * 16, N * 16] = left [R][K tiles] right [N][K tiles], whose rows or columns of tiles
// are so far apart. Each element adds its parts' products in the same order for every R and N.
template <int R, int N>
void multiply_tiles(std::int64_t K, const SplitTile *left, std::int64_t left_stride,
                    const SplitTile *right, std::int64_t right_stride, float *product) {
    using Registers = TileRegisters;
    static_assert(R == 1 ? N <= 4 : R == 2 && N <= 2);
    auto each = [](auto f) {
        [&]<int... J>(std::integer_sequence<int, J...>) {
            (f(std::integral_constant<int, J>()), ...);
        }(std::make_integer_sequence<int, N>());
    };
    each([](auto j) {
        Registers::zero<j>();
        if constexpr (R == 2)
            Registers::zero<2 + j>();
    });
    for (std::int64_t k = 0; k < K; k++, left++, right++) {
        if constexpr (R == 2) { // registers: 4 and 5 of the left, 6 and 7 of the right
            auto load_left = [&](int part) {
                Registers::load<4>(left->parts[part]);
                Registers::load<5>(left[left_stride].parts[part]);
            };
            auto load_right = [&](int part) {
                each([&](auto j) { Registers::load<6 + j>(right[j * right_stride].parts[part]); });
            };
            auto multiply = [&] {
                each([](auto j) {
                    Registers::multiply_bfloat16<j, 4, 6 + j>();
                    Registers::multiply_bfloat16<2 + j, 5, 6 + j>();
                });
            };
            load_left(0), load_right(2), multiply();
            load_right(1), multiply();
            load_left(1), multiply();
            load_right(0), multiply();
            load_left(2), multiply();
            load_left(0), multiply();
        } else { // registers: 4, 5 and 6 of the left, 7 of the right
            Registers::load<4>(left->parts[0]);
            Registers::load<5>(left->parts[1]);
            Registers::load<6>(left->parts[2]);
            each([&](auto j) {
                Registers::load<7>(right[j * right_stride].parts[2]);
                Registers::multiply_bfloat16<j, 4, 7>();
            });
            each([&](auto j) {
                Registers::load<7>(right[j * right_stride].parts[1]);
                Registers::multiply_bfloat16<j, 4, 7>();
                Registers::multiply_bfloat16<j, 5, 7>();
            });
            each([&](auto j) {
                Registers::load<7>(right[j * right_stride].parts[0]);
                Registers::multiply_bfloat16<j, 5, 7>();
                Registers::multiply_bfloat16<j, 6, 7>();
                Registers::multiply_bfloat16<j, 4, 7>();
            });
        }
    }
    each([&](auto j) {
        Registers::store<j>(product + j * 16, N * 64);
        if constexpr (R == 2)
            Registers::store<2 + j>(product + 16 * N * 16 + j * 16, N * 64);
    });
}

// A block of a product: some rows and columns, and what some of K add to them.
struct Block {
    std::int64_t first_row, rows, first_column, columns;
    const float *product; // [rows, row]
    std::int64_t row;
    bool first; // of those along K
};

// Whether columns, from the first or the last on, or rows are taken in turn for all of the others.
enum class Order { columns, columns_backwards, rows };

// Call add(Block) for all blocks of left times right, which are K tiles deep, `most_tiles` of them
// at a time.
template <class F>
void multiply_tiles(std::int64_t K, const SplitTile *left, std::int64_t left_stride,
                    std::int64_t rows, const SplitTile *right, std::int64_t right_stride,
                    std::int64_t columns, std::int64_t most_tiles, Order order, F add) {
    constexpr std::int64_t side = SplitTile::lines;
    alignas(64) float product[4 * side * side];
    auto pass = [&]<int R, int Most>(std::integral_constant<int, R>,
                                     std::integral_constant<int, Most>, std::int64_t from,
                                     std::int64_t end) {
        const std::int64_t groups = (columns + Most * side - 1) / (Most * side);
        const std::int64_t row_groups = (end - from + R * side - 1) / (R * side);
        for (std::int64_t n = 0; n < groups * row_groups; n++) {
            std::int64_t g = order == Order::rows ? n % groups : n / row_groups;
            std::int64_t begin =
                (order == Order::columns_backwards ? groups - 1 - g : g) * Most * side;
            std::int64_t r = from + (order == Order::rows ? n / groups : n % row_groups) * R * side;
            const std::int64_t width = std::min(columns - begin, Most * side);
            const SplitTile *a = left + r / side * left_stride;
            const SplitTile *b = right + begin / side * right_stride;
            const std::int64_t vectors = (width + side - 1) / side;
            for (std::int64_t k = 0; k < K; k += most_tiles) {
                const std::int64_t deep = std::min(K - k, most_tiles);
                if (vectors == 1)
                    multiply_tiles<R, 1>(deep, a + k, left_stride, b + k, right_stride, product);
                else if (vectors == 2)
                    multiply_tiles<R, 2>(deep, a + k, left_stride, b + k, right_stride, product);
                else if constexpr (Most > 2) {
                    if (vectors == 3)
                        multiply_tiles<R, 3>(deep, a + k, left_stride, b + k, right_stride,
                                             product);
                    else
                        multiply_tiles<R, 4>(deep, a + k, left_stride, b + k, right_stride,
                                             product);
                }
                add(Block{r, std::min(end - r, R * side), begin, width, product, vectors * side,
                          k == 0});
            }
        }
    };
    const std::int64_t paired = (rows + side - 1) / side / 2 * 2 * side;
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    using Four = std::integral_constant<int, 4>;
    pass(Two(), Two(), 0, std::min(paired, rows));
    pass(One(), Four(), std::min(paired, rows), rows);
}

// to [width] (+)= from
ANAPHORA_INLINE void add_row(const float *from, std::int64_t width, float *to, bool accumulate) {
    constexpr std::int64_t W = SplitTile::lines;
    std::int64_t n = 0;
    for (; n + W <= width; n += W)
        store(to + n, accumulate ? load(to + n) + load(from + n) : load(from + n));
    for (; n < width; n++)
        to[n] = accumulate ? to[n] + from[n] : from[n];
}

// (+)= the block, whose row r goes to where(r), the place of its first column.
template <class F> void add_rows(const Block &block, F where, bool accumulate) {
    for (std::int64_t r = 0; r < block.rows; r++)
        add_row(block.product + r * block.row, block.columns, where(block.first_row + r),
                accumulate);
}

// c [columns, rows] (+)= the block, turned
inline void add_turned(const Block &block, float *c, std::int64_t c_row, bool accumulate) {
    constexpr std::int64_t side = SplitTile::lines;
    for (std::int64_t r = 0; r < block.rows; r += side)
        for (std::int64_t n = 0; n < block.columns; n += side) {
            alignas(64) float turned[side][side];
            transpose(block.product + r * block.row + n, block.row, turned);
            for (std::int64_t i = 0; i < std::min(side, block.columns - n); i++)
                add_row(turned[i], std::min(side, block.rows - r), c + (n + i) * c_row + r,
                        accumulate);
        }
}

// How gradients of float32 are multiplied where there are tile registers; the same functions as
// ChainProducts.
struct SplitProducts {
    using Packed = SplitTile;
    static constexpr std::int64_t gradient_bytes = 6; // of a weight's number, packed
    static constexpr std::int64_t few = 256;          // columns that each thread splits for itself

    // Whether a weight [rows, columns] is large enough: of smaller ones, splitting the numbers
    // takes as long as multiplying them saves.
    static bool suits_rows(std::int64_t rows, std::int64_t columns) {
        return std::min(rows, columns) >= 96;
    }

    // How much of K is added at a time, before it joins C with so many columns: as much of both
    // operands as stays in a core's cache.
    static std::int64_t depth_for(std::int64_t columns) { return columns <= few ? 512 : 768; }

    // The rows of C are shared out, and with them those of A; B is split once for all. For the
    // gradient of a weight, one is turned on its way into tiles: the shorter.
    static void multiply(Gradient of, std::int64_t M, std::int64_t N, std::int64_t K,
                         Matrix<const float> A, Matrix<const float> B, float *C, std::int64_t c_row,
                         bool accumulate) {
        constexpr std::int64_t side = SplitTile::lines, deep = SplitTile::depth;
        constexpr std::int64_t most_rows = 256;
        const std::int64_t most_depth = depth_for(N);
        static thread_local Scratch a_scratch, b_scratch, shared_scratch;
        const bool of_weight = of == Gradient::weight;
        if (!suits_rows(of_weight ? M : K, N)) {
            ANAPHORA_ISA::multiply<float>(M, N, K, A, B, C, c_row, nullptr, accumulate);
            return;
        }
        if (M == 0)
            return;
        // However they lie, A is taken by columns for a weight, else by rows, and B by rows.
        if (of_weight && A.row != 1) {
            A = in_rows<float>(K, M, {A.data, A.column, A.row}, a_scratch);
            A = {A.data, 1, A.row};
        } else if (!of_weight && A.column != 1)
            A = in_rows(M, K, A, a_scratch);
        if (B.column != 1)
            B = in_rows(K, N, B, b_scratch);
        for (std::int64_t m = 0; m < (K == 0 && !accumulate ? M : 0); m++) // nothing to add
            std::fill_n(C + m * c_row, N, 0.0f);

        const bool turned = of_weight && M > N && N <= few; // C^T = B^T A^T
        const std::int64_t threads = threads_at_hand(), columns = (N + side - 1) / side;
        const std::int64_t pairs = (M + 2 * side - 1) / (2 * side);
        std::int64_t blocks = (M + most_rows - 1) / most_rows;
        blocks = std::min(pairs, (blocks + threads - 1) / threads * threads);
        auto split_b = [&](std::int64_t k0, std::int64_t tile, SplitTile *shared) {
            const std::int64_t depth = std::min(most_depth, K - k0), k = tile * deep;
            (turned ? split_turned : split_depth)(N, std::min(deep, depth - k),
                                                  B.data + (k0 + k) * B.row, B.row, shared + tile,
                                                  SplitTile::count(depth));
        };
        auto multiply_block = [&](std::int64_t k0, std::int64_t block, const SplitTile *shared) {
            static thread_local Scratch scratch;
            const std::int64_t depth = std::min(most_depth, K - k0),
                               tiles = SplitTile::count(depth);
            const std::int64_t first = pairs * block / blocks * 2 * side;
            const std::int64_t rows = std::min(M, pairs * (block + 1) / blocks * 2 * side) - first;
            const bool adding = accumulate || k0 > 0;
            SplitTile *own = scratch.get<SplitTile>((rows + side - 1) / side * tiles);
            const float *a = A.data + first * A.row + k0 * A.column;
            float *c = C + first * c_row;
            if (!of_weight)
                for (std::int64_t r = 0; r < rows; r++)
                    split_row(a + r * A.row, depth, own + r / side * tiles, r % side);
            else
                for (std::int64_t k = 0; k < depth; k += deep)
                    (turned ? split_depth : split_turned)(rows, std::min(deep, depth - k),
                                                          a + k * A.column, A.column,
                                                          own + k / deep, tiles);
            if (turned)
                multiply_tiles(tiles, shared, tiles, N, own, tiles, rows, tiles, Order::rows,
                               [&](const Block &b) {
                                   add_turned(b, c + b.first_column * c_row + b.first_row, c_row,
                                              adding);
                               });
            else
                multiply_tiles(tiles, own, tiles, rows, shared, tiles, N, tiles, Order::columns,
                               [&](const Block &b) {
                                   auto where = [&](std::int64_t r) {
                                       return c + r * c_row + b.first_column;
                                   };
                                   add_rows(b, where, adding);
                               });
        };
        if (N <= few) {
            const std::int64_t workers = std::min(threads, blocks);
            parallel(workers, [&](std::int64_t worker) {
                static thread_local Scratch scratch;
                TileRegisters registers;
                SplitTile *shared = scratch.get<SplitTile>(columns * SplitTile::count(most_depth));
                for (std::int64_t k0 = 0; k0 < K; k0 += most_depth) {
                    for (std::int64_t tile = 0;
                         tile < SplitTile::count(std::min(most_depth, K - k0)); tile++)
                        split_b(k0, tile, shared);
                    for (std::int64_t block = blocks * worker / workers;
                         block < blocks * (worker + 1) / workers; block++)
                        multiply_block(k0, block, shared);
                }
            });
            return;
        }
        for (std::int64_t k0 = 0; k0 < K; k0 += most_depth) {
            const std::int64_t tiles = SplitTile::count(std::min(most_depth, K - k0));
            SplitTile *shared = shared_scratch.get<SplitTile>(columns * tiles);
            parallel(tiles, [&](std::int64_t tile) { split_b(k0, tile, shared); });
            parallel(blocks, [&](std::int64_t block) {
                TileRegisters registers;
                multiply_block(k0, block, shared);
            });
        }
    }

    static std::int64_t packed_size(std::int64_t K, std::int64_t vectors) {
        return vectors * SplitTile::count(K);
    }

    static void pack_rows(std::int64_t K, const Matrix<const float> &B, std::int64_t N,
                          std::int64_t first_vector, std::int64_t end_vector, SplitTile *packed) {
        constexpr std::int64_t deep = SplitTile::depth;
        const std::int64_t tiles = SplitTile::count(K), first = first_vector * SplitTile::lines;
        parallel(tiles, [&](std::int64_t tile) {
            split_depth(std::min(N, end_vector * SplitTile::lines) - first,
                        std::min(deep, K - tile * deep), B.data + first + tile * deep * B.row,
                        B.row, packed + first_vector * tiles + tile, tiles);
        });
    }

    class Rows {
      public:
        Rows(std::int64_t most, std::int64_t K, Scratch &scratch)
            : K_(K), depth_(SplitTile::count(K)), rows_(most),
              left_(scratch.get<SplitTile>((most + 15) / 16 * depth_ + 1)) {}

        template <class Tile> void read(const std::vector<Tile> &tiles, const float *a) {
            count_ = 0;
            for (const auto &tile : tiles)
                for (int r = 0; r < tile.rows; r++, count_++) {
                    rows_[count_] = tile.first + r;
                    split_row(a + (tile.row + r) * K_, K_, left_ + count_ / 16 * depth_,
                              count_ % 16);
                }
        }

        void multiply(const SplitTile *packed, std::int64_t first_vector, std::int64_t end_vector,
                      std::int64_t columns, float *c, std::int64_t c_row, bool accumulate,
                      bool backwards) const {
            const std::int64_t begin = first_vector * SplitTile::lines;
            multiply_tiles(depth_, left_, depth_, count_, packed + first_vector * depth_, depth_,
                           std::min(columns, end_vector * SplitTile::lines) - begin,
                           SplitTile::count(depth_for(columns)),
                           backwards ? Order::columns_backwards : Order::columns,
                           [&](const Block &b) {
                               auto where = [&](std::int64_t r) {
                                   return c + rows_[r] * c_row + begin + b.first_column;
                               };
                               add_rows(b, where, accumulate || !b.first);
                           });
        }

      private:
        TileRegisters registers_;
        std::int64_t K_, depth_, count_ = 0;
        std::vector<std::int64_t> rows_;
        SplitTile *left_;
    };

  private:
    // Tiles `stride` apart of N columns and `depth` <= 32 rows of a right operand.
    static void split_depth(std::int64_t N, std::int64_t depth, const float *rows, std::int64_t row,
                            SplitTile *tiles, std::int64_t stride) {
        static constexpr float zeros[SplitTile::lines] = {};
        for (std::int64_t line = 0; line < SplitTile::lines; line++) {
            const float *first = rows + 2 * line * row;
            if (2 * line < depth)
                split_rows(first, 2 * line + 1 < depth ? first + row : nullptr, N, tiles, stride,
                           line);
            else
                for (std::int64_t j = 0; j < N; j += SplitTile::lines)
                    split_rows(zeros, nullptr, SplitTile::lines,
                               tiles + j / SplitTile::lines * stride, stride, line);
        }
    }

    // Tiles `stride` apart of so many rows and `depth` <= 32 columns, which lie as the rows of a
    // right operand do, of a left operand.
    static void split_turned(std::int64_t rows, std::int64_t depth, const float *columns,
                             std::int64_t column, SplitTile *tiles, std::int64_t stride) {
        constexpr std::int64_t side = SplitTile::lines, group = 8;
        alignas(64) SplitTile right[group];
        for (std::int64_t r = 0; r < rows; r += group * side) {
            const std::int64_t count = std::min(rows - r, group * side);
            split_depth(count, depth, columns + r, column, right, 1);
            for (std::int64_t i = 0; i * side < count; i++, tiles += stride)
                for (int n = 0; n < 3; n++)
                    transpose(right[i].parts[n], side, tiles->parts[n]);
        }
    }
};

} // namespace anaphora::ANAPHORA_ISA

#endif
