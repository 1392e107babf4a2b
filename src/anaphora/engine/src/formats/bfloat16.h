// float32 matrix products of operands that are rounded to bfloat16, to the nearest, ties to even,
// with sums in float32. Two terms of a sum are packed side by side. A product of two bfloat16
// numbers is exact in float32, so that what is rounded are sums alone:
//
//   vectors   sum = (sum + odd term) + even term, pair by pair: the order of vdpbf16ps, which
//             AVX512_BF16 has; so its bits are those of other instruction sets, as long as no sum
//             is below 2^-126, which it takes for 0
//   tiles     sum += (the sum of 16 even terms) + (the sum of 16 odd terms): the order of
//             tdpbf16ps, on the tile registers of AMX
//
// Operands below 2^-126 count as 0 everywhere.
#pragma once

#include "chain.h"
#include "word_tiles.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

using PackedPairs = Vector<std::uint32_t>;

// Numbers as bfloat16, in the high halves of words; the low halves are any.
ANAPHORA_INLINE PackedPairs to_bfloat16(Vector<float> x) {
    const PackedPairs bits = (PackedPairs)x, magnitude = bits & 0x7fffffffu;
    PackedPairs nearest = bits + (0x7fffu + (bits >> 16 & 1u));
    nearest = magnitude > 0x7f800000u ? bits | 0x400000u : nearest; // NaN
    return magnitude < 0x800000u ? bits & 0x80000000u : nearest;
}

// What multiplies pairs.
enum class PairUnit { vectors, dots, tiles };
#if ANAPHORA_VECTOR_BYTES == 64 && !defined(ANAPHORA_EMULATES_TILES)
inline constexpr bool has_instructions(PairUnit unit) { return unit != PairUnit::vectors; }
ANAPHORA_INLINE PackedPairs convert(Vector<float> low, Vector<float> high) {
    PackedPairs halves;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(halves) : "v"(low), "v"(high));
    return halves;
}
ANAPHORA_INLINE Vector<float> add_pairs(Vector<float> sums, PackedPairs x, PackedPairs w) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
    return sums;
}
#else
inline constexpr bool has_instructions(PairUnit) { return false; }
PackedPairs convert(Vector<float> low, Vector<float> high);
Vector<float> add_pairs(Vector<float> sums, PackedPairs x, PackedPairs w);
#endif

// The bfloat16 numbers of two vectors, those of `low` first.
template <PairUnit Unit>
ANAPHORA_INLINE PackedPairs to_halves(Vector<float> low, Vector<float> high) {
    if constexpr (has_instructions(Unit)) {
        return convert(low, high);
    } else {
        using Halves = Vector<std::uint16_t>;
        const auto high_halves = [&]<int... Lane>(std::integer_sequence<int, Lane...>) {
            return __builtin_shufflevector((Halves)to_bfloat16(low), (Halves)to_bfloat16(high),
                                           (2 * Lane + 1)...);
        };
        return (PackedPairs)high_halves(std::make_integer_sequence<int, 2 * lanes<float>>());
    }
}

// Pairs of a number of each vector, that of `first` in the low half of a word.
template <PairUnit Unit>
ANAPHORA_INLINE PackedPairs pairs_of(Vector<float> first, Vector<float> second) {
    if constexpr (has_instructions(Unit)) {
        using Halves = Vector<std::uint16_t>;
        const auto halves = (Halves)to_halves<Unit>(first, second);
        const auto in_turn = [&]<int... Lane>(std::integer_sequence<int, Lane...>) {
            constexpr int W = lanes<float>;
            return __builtin_shufflevector(halves, halves, (Lane / 2 + Lane % 2 * W)...);
        };
        return (PackedPairs)in_turn(std::make_integer_sequence<int, 2 * lanes<float>>());
    } else {
        return to_bfloat16(first) >> 16 | (to_bfloat16(second) & 0xffff0000u);
    }
}

// The terms of chains, see Numbers.
template <PairUnit Unit> struct Pairs {
    using Number = float;
    using Packed = std::uint32_t;
    static constexpr std::int64_t together = 2;
    static constexpr bool own_tiles = Unit == PairUnit::tiles;
    static constexpr std::int64_t multiple = own_tiles ? 16 : 1;
    static constexpr std::int64_t rows_after_terms = 0;
    static constexpr int max_rows = own_tiles ? 32 : anaphora::max_rows;
    static constexpr int max_vectors = own_tiles ? 2 : anaphora::max_vectors;
    using Registers = RegistersIf<own_tiles>;

    static constexpr int tile_rows(int vectors) {
        return own_tiles ? max_rows : ANAPHORA_ISA::tile_rows(vectors);
    }

    // Only that of Unit::vectors and dots.
    ANAPHORA_INLINE static Vector<float> add(Vector<float> sums, PackedPairs x, PackedPairs w) {
        if constexpr (has_instructions(Unit)) {
            return add_pairs(sums, x, w);
        } else {
            sums += (Vector<float>)(x & 0xffff0000u) * (Vector<float>)(w & 0xffff0000u);
            return sums + (Vector<float>)(x << 16) * (Vector<float>)(w << 16);
        }
    }

    // From one packed row to the next: lines whose number is odd, so that rows that are read
    // together are not in the same places of a cache.
    static std::int64_t row_stride(std::int64_t packed) { return (packed + 15) / 16 / 2 * 32 + 16; }

    // A row of K adjacent numbers.
    static void pack_row(std::int64_t K, std::int64_t packed, const float *from, Packed *to) {
        constexpr std::int64_t W = lanes<float>;
        for (std::int64_t k = 0; k < packed; k += W) {
            const float *at = from + 2 * k;
            const PackedPairs pairs =
                to_halves<Unit>(load_some(at, K - 2 * k), load_some(at + W, K - 2 * k - W));
            store_some(to + k, pairs, packed - k);
        }
    }

    // Rows whose first numbers are adjacent; from one column to the next it is `column`.
    static void pack_rows(std::int64_t count, std::int64_t K, std::int64_t packed,
                          const float *from, std::int64_t column, Packed *to, std::int64_t to_row) {
        constexpr std::int64_t W = lanes<float>;
        for (std::int64_t k = 0; k < packed; k += W)
            for (std::int64_t row = 0; row < count; row += W) {
                PackedPairs pairs[W];
                const std::int64_t rows = std::min(W, count - row);
#pragma GCC unroll 16
                for (std::int64_t i = 0; i < W; i++) {
                    const std::int64_t first = 2 * (k + i);
                    const float *at = from + first * column + row;
                    pairs[i] = pairs_of<Unit>(load_some(at, first < K ? rows : 0),
                                              load_some(at + column, first + 1 < K ? rows : 0));
                }
                transpose_lanes<std::uint32_t>(pairs);
                for (std::int64_t i = 0; i < rows; i++)
                    store_some(to + (row + i) * to_row + k, pairs[i], packed - k);
            }
    }

    // As pack_columns of chain.h, of K rows that become `packed` ones.
    static void pack_columns(std::int64_t K, std::int64_t packed, const Matrix<const float> &B,
                             int vectors, const Columns *columns, Packed *to) {
        constexpr std::int64_t W = lanes<float>;
        const std::int64_t padded = vectors * W;
        for (int v = 0; v < vectors; v++, to += W) {
            const float *from = B.data + columns[v].begin * B.column;
            const std::int64_t valid = std::clamp<std::int64_t>(columns[v].valid, 0, W);
            if (B.column == 1) {
                for (std::int64_t k = 0; k < packed; k++) {
                    const float *at = from + 2 * k * B.row;
                    store(to + k * padded,
                          pairs_of<Unit>(load_some(at, 2 * k < K ? valid : 0),
                                         load_some(at + B.row, 2 * k + 1 < K ? valid : 0)));
                }
                continue;
            }
            for (std::int64_t k = 0; k < packed; k += W) {
                PackedPairs rows[W];
                for (std::int64_t j = 0; j < W; j++) {
                    const std::int64_t left = j < valid ? K - 2 * k : 0;
                    const float *at = from + j * B.column + 2 * k * B.row;
                    alignas(64) float copy[2 * W];
                    if (B.row != 1) {
                        for (std::int64_t i = 0; i < std::min(2 * W, left); i++)
                            copy[i] = at[i * B.row];
                        at = copy;
                    }
                    rows[j] = to_halves<Unit>(load_some(at, left), load_some(at + W, left - W));
                }
                transpose_lanes<std::uint32_t>(rows);
                for (std::int64_t i = 0; i < std::min(W, packed - k); i++)
                    store(to + (k + i) * padded, rows[i]);
            }
        }
    }

#if defined(ANAPHORA_HAS_TILES)
    static void multiply_tile(int vectors, int rows, std::int64_t K, const Packed *a,
                              std::int64_t row_stride, const Packed *b, float *c,
                              std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
        multiply_word_tiles<WordTerms::pairs>(vectors, rows, K, a, row_stride, b, c, c_row,
                                              c_vector, accumulate);
    }
#endif
};

// What packed_product.h needs: both operands packed, their terms in words.
template <class Terms> struct WordProduct {
    using Right = ChainWeight<Terms>;
    static constexpr int block_vectors = 8; // that are packed together

    static Right pack_right(std::int64_t K, std::int64_t N, Matrix<const float> B,
                            Scratch &scratch) {
        WeightShape shape{.gates = 1, .units = N, .K = K, .blocks = {}};
        add_blocks(shape.blocks, 0, (N + lanes<float> - 1) / lanes<float>, block_vectors, K);
        return Right(shape, B, scratch.get<float>(Right::size(shape)));
    }

    class Left {
      public:
        Left(std::int64_t M, std::int64_t K, Matrix<const float> A, Scratch &scratch)
            : M_(M), stride_(Terms::row_stride(Right::packed_terms(K))),
              packed_(scratch.get<std::uint32_t>(M * stride_ + 1)) {
            constexpr std::int64_t rows_per_task = 64;
            const std::int64_t packed = Right::packed_terms(K);
            parallel((M + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
                const std::int64_t first = task * rows_per_task,
                                   count = std::min(M - first, rows_per_task);
                const float *from = A.data + first * A.row;
                std::uint32_t *to = packed_ + first * stride_;
                if (A.column != 1)
                    return Terms::pack_rows(count, K, packed, from, A.column, to, stride_);
                for (std::int64_t i = 0; i < count; i++)
                    Terms::pack_row(K, packed, from + i * A.row, to + i * stride_);
            });
        }

        // C [M, N] (+)= this times a right operand + bias [N] (or none), on one thread.
        void multiply(const Right &right, std::int64_t N, float *C, std::int64_t c_row,
                      const float *bias, bool accumulate) const {
            constexpr std::int64_t W = lanes<float>;
            OwnScratch none;
            typename Right::Rows rows(right, M_, false, none);
            const std::int64_t blocks = Parts::of((N + W - 1) / W, block_vectors).parts;
            // So many rows stay in the second-level cache.
            const std::int64_t height =
                std::max<std::int64_t>(1, (1 << 17) / stride_ / Terms::max_rows) * Terms::max_rows;
            for (std::int64_t first = 0; first < M_; first += height) {
                const std::int64_t end = std::min(M_, first + height);
                rows.take(packed_ + first * stride_, end - first, stride_);
                right.multiply(0, blocks, rows, 0, 1, {C + first * c_row, c_row, W, accumulate, N},
                               false);
                for (std::int64_t m = first; m < end && bias != nullptr; m++)
                    for (std::int64_t n = 0; n < N; n++)
                        C[m * c_row + n] += bias[n];
            }
        }

      private:
        std::int64_t M_, stride_;
        std::uint32_t *packed_;
    };
};

} // namespace anaphora::ANAPHORA_ISA
