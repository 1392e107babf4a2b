// float32 matrix products of weights and rows in 8 bits, for inference. Each column w of the weight
// (an output unit) has a scale s, and each row x, as it comes, a scale r:
//
//   s = max|w| / 127, rounded up to 16 significant bits;  q = w / s, to the nearest, ties to even
//   r = max|x| / 127;                      p = x * (127 / max|x|), to the nearest, ties to even
//   y = (sum of p q) * (r * s)
//
// The sum is exact in int32, and then rounded to float32, as is every other operation, in this
// order. So the bits are the same on every instruction set, and those of precision.py. q s is exact
// in float32, and a weight that consists of such products has the same q and s again. Below 2^-100
// a maximum counts as 0; from 2^127 on, and with NaN, results are NaN.
//
// Four terms of a sum are packed into a word. After its terms, a row has its scale; and those of a
// chunk of a weight are followed by a row of scales and, where 128 is added to the terms of rows,
// one of the sums that cancel it.
#pragma once

#include "bfloat16.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace anaphora::ANAPHORA_ISA {

using Quad = std::uint32_t;
using PackedQuads = Vector<Quad>;
using Integers = Vector<std::int32_t>;

// A number that is rounded before it is used: no multiplication and addition are fused across it.
ANAPHORA_INLINE Vector<float> as_rounded(Vector<float> x) {
#if defined(ANAPHORA_EMULATES_TILES)
    asm("" : "+m"(x));
#elif defined(__x86_64__)
    asm("" : "+v"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#else
    asm("" : "+m"(x));
#endif
    return x;
}

// Rows are multiplied by the reciprocals of their scales; columns of a weight, which are quantized
// once, are divided by scales of few bits.
enum class Operand { row, weight };

// The scales by which numbers are quantized, lane by lane.
template <Operand Of> struct Int8Scales {
    Vector<float> scales; // NaN if a number is not finite
    Vector<float> by;     // by what numbers are multiplied, or divided

    // From the bits of the largest magnitudes.
    ANAPHORA_INLINE explicit Int8Scales(Integers maxima) {
        constexpr std::int32_t least = 27 << 23, end = 254 << 23; // 2^-100, 2^127
        const Integers valid = (maxima >= least) & (maxima < end),
                       one = (Integers)broadcast<float>(1);
        const auto largest = (Vector<float>)(valid ? maxima : one);
        const Vector<float> zero = broadcast<float>(0);
        constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                        infinity = std::numeric_limits<float>::infinity();
        scales = largest / 127.0f;
        if constexpr (Of == Operand::weight) {
            scales = (Vector<float>)(((PackedQuads)scales + 0xffu) & ~0xffu);
            by = valid ? scales : broadcast<float>(infinity);
        } else {
            by = valid ? 127.0f / largest : zero;
        }
        scales = valid ? scales : maxima >= end ? broadcast<float>(nan) : zero;
    }

    // Integers of -127 to 127 in the low bytes; the others are any.
    ANAPHORA_INLINE static PackedQuads quantize(Vector<float> x, Vector<float> by) {
        constexpr float round = Float<float>::round;
        if constexpr (Of == Operand::weight)
            return (PackedQuads)(x / by + round);
        return (PackedQuads)(as_rounded(x * by) + round);
    }
};

ANAPHORA_INLINE Integers magnitudes(Vector<float> x) { return (Integers)x & 0x7fffffff; }
ANAPHORA_INLINE Integers larger(Integers a, Integers b) { return a > b ? a : b; }

// The bits of the largest magnitude of K adjacent numbers.
inline std::int32_t largest_magnitude(std::int64_t K, const float *from) {
    constexpr std::int64_t W = lanes<float>;
    Integers maxima = {};
    for (std::int64_t k = 0; k < K; k += W)
        maxima = larger(maxima, magnitudes(load_some(from + k, K - k)));
    std::int32_t largest = 0;
    for (int j = 0; j < W; j++)
        largest = std::max(largest, maxima[j]);
    return largest;
}

// The low bytes of four vectors of words, in their order.
ANAPHORA_INLINE PackedQuads low_bytes(const PackedQuads *words) {
    using Halves = Vector<std::uint16_t>;
    using Bytes = Vector<std::uint8_t>;
    constexpr int W = lanes<float>;
    auto even_halves = [&]<int... Lane>(PackedQuads a, PackedQuads b,
                                        std::integer_sequence<int, Lane...>) {
        return __builtin_shufflevector((Halves)a, (Halves)b, (2 * Lane)...);
    };
    auto even_bytes = [&]<int... Lane>(Halves a, Halves b, std::integer_sequence<int, Lane...>) {
        return __builtin_shufflevector((Bytes)a, (Bytes)b, (2 * Lane)...);
    };
    constexpr auto halves = std::make_integer_sequence<int, 2 * W>();
    return (PackedQuads)even_bytes(even_halves(words[0], words[1], halves),
                                   even_halves(words[2], words[3], halves),
                                   std::make_integer_sequence<int, 4 * W>());
}

// Four numbers in each lane, the first in the low byte.
ANAPHORA_INLINE PackedQuads in_lanes(const PackedQuads *words) {
    return (words[0] & 255u) | (words[1] & 255u) << 8 | (words[2] & 255u) << 16 | words[3] << 24;
}

// What multiplies quads.
enum class QuadUnit {
    vectors, // pairs of int16
    dots,    // the instruction of AVX512_VNNI, of unsigned and signed bytes
    tiles,   // the tile registers of AMX
};

// Tiles of rows and weights in quads.
template <QuadUnit Unit> struct QuadTiles {
    using Number = float;
    using Packed = Quad;
    static constexpr std::int64_t together = 4;
    static constexpr bool own_tiles = true, on_tiles = Unit == QuadUnit::tiles;
    static constexpr std::int64_t multiple = on_tiles ? 16 : 1;
    static constexpr std::int64_t rows_after_terms = Unit == QuadUnit::vectors ? 1 : 2;
    static constexpr int max_rows = on_tiles ? 32 : anaphora::max_rows;
    static constexpr int max_vectors = on_tiles ? 2 : anaphora::max_vectors;
    using Registers = RegistersIf<on_tiles>;

    static constexpr int tile_rows(int vectors) {
        if (on_tiles)
            return max_rows;
        if (Unit == QuadUnit::dots)
            return ANAPHORA_ISA::tile_rows(vectors);
        constexpr int many[] = {6, 6, 5, 4}, few[] = {4, 3, 2, 2}; // bytes are widened in registers
        return many_registers ? many[vectors - 1] : few[vectors - 1];
    }

    // As chain.h's; K quads.
    static void multiply_tile(int vectors, int rows, std::int64_t K, const Packed *a,
                              std::int64_t row_stride, const Packed *b, float *c,
                              std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
#if defined(ANAPHORA_HAS_TILES)
        if (on_tiles && rows > 1)
            return multiply_on_tiles(vectors, rows, K, a, row_stride, b, c, c_row, c_vector,
                                     accumulate);
#endif
        auto multiply = [&](auto NV) {
            if constexpr (NV <= max_vectors)
                multiply_rows<NV>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
        };
        with_vectors(vectors, multiply);
    }

  private:
    // Quads of a row and of a weight, and the sums of their four products.
#if defined(__AVX2__) && ANAPHORA_VECTOR_BYTES == 32
    struct OfRow {
        PackedQuads bytes, sizes;
        ANAPHORA_INLINE explicit OfRow(PackedQuads quads) : bytes(quads) {
            asm("vpabsb %1, %0" : "=x"(sizes) : "x"(bytes));
        }
    };
    using OfWeight = PackedQuads;
    // Two products of up to 127^2 fit into int16.
    ANAPHORA_INLINE static Integers multiply_quads(const OfRow &x, PackedQuads w) {
        Integers sums;
        const Vector<std::int16_t> ones = Vector<std::int16_t>{} + std::int16_t{1};
        asm("vpsignb %2, %1, %0" : "=x"(w) : "x"(w), "x"(x.bytes));
        asm("vpmaddubsw %2, %1, %0" : "=x"(w) : "x"(x.sizes), "x"(w));
        asm("vpmaddwd %2, %1, %0" : "=x"(sums) : "x"(w), "x"(ones));
        return sums;
    }
#else
    struct Wide { // the even and the odd bytes of each word, as int16
        Vector<std::int16_t> even, odd;
        ANAPHORA_INLINE explicit Wide(PackedQuads quads)
            : even((Vector<std::int16_t>)quads << 8 >> 8), odd((Vector<std::int16_t>)quads >> 8) {}
    };
    using OfRow = Wide;
    using OfWeight = Wide;
    ANAPHORA_INLINE static Integers multiply_quads(const Wide &x, const Wide &w) {
#if defined(__x86_64__) && !defined(ANAPHORA_EMULATES_TILES)
        auto even = (Integers)x.even, odd = (Integers)x.odd;
#if defined(__AVX__)
        asm("vpmaddwd %1, %0, %0" : "+v"(even) : "v"(w.even));
        asm("vpmaddwd %1, %0, %0" : "+v"(odd) : "v"(w.odd));
#else
        asm("pmaddwd %1, %0" : "+x"(even) : "x"(w.even));
        asm("pmaddwd %1, %0" : "+x"(odd) : "x"(w.odd));
#endif
        return even + odd;
#else
        using Halves = Vector<std::uint16_t>;
        const auto pairs = (Integers)((Halves)x.even * (Halves)w.even + // at most 2 * 127^2
                                      (Halves)x.odd * (Halves)w.odd);
        return (pairs << 16 >> 16) + (pairs >> 16);
#endif
    }
#endif
    // The same, added to sums, by Unit::dots and tiles.
    ANAPHORA_INLINE static Integers add_quads(Integers sums, PackedQuads x, PackedQuads w) {
#if defined(ANAPHORA_HAS_TILES)
        return add_products(sums, (Integers)(Unit == QuadUnit::tiles ? x ^ 0x80808080u : x),
                            (Integers)w);
#else
        return sums + (Integers)(x & w); // there are no such units
#endif
    }

    // Up to tile_rows(NV) rows, on tiles one.
    template <int NV, int R = on_tiles ? 1 : tile_rows(NV)>
    ANAPHORA_INLINE static void multiply_rows(int rows, std::int64_t K, const Packed *a,
                                              std::int64_t row_stride, const Packed *b, float *c,
                                              std::int64_t c_row, std::int64_t c_vector,
                                              bool accumulate) {
        if (rows == R)
            multiply_rows_of<R, NV>(K, a, row_stride, b, c, c_row, c_vector, accumulate);
        else if constexpr (R > 1)
            multiply_rows<NV, R - 1>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    }

    template <int R, int NV>
    [[gnu::noinline]] static void
    multiply_rows_of(std::int64_t K, const Packed *a, std::int64_t row_stride, const Packed *b,
                     float *c, std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
        constexpr int W = lanes<float>;
        // Few sums are computed in several parts, which wait for each other less.
        constexpr int parts = Unit == QuadUnit::vectors || R * NV > 8 ? 1 : R * NV > 4 ? 2 : 4;
        Integers sums[parts][R][NV] = {};
        auto add = [&](int part, std::int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) {
                const PackedQuads w = load(b + (k * NV + v) * W);
                if constexpr (Unit == QuadUnit::vectors) {
                    const OfWeight of_weight(w);
#pragma GCC unroll 8
                    for (int i = 0; i < R; i++) {
                        const OfRow x(broadcast<Quad>(a[i * row_stride + k]));
                        sums[part][i][v] += multiply_quads(x, of_weight);
                    }
                } else {
#pragma GCC unroll 8
                    for (int i = 0; i < R; i++)
                        sums[part][i][v] =
                            add_quads(sums[part][i][v], broadcast<Quad>(a[i * row_stride + k]), w);
                }
            }
        };
        std::int64_t k = 0;
        for (; k + parts <= K; k += parts)
#pragma GCC unroll 4
            for (int part = 0; part < parts; part++)
                add(part, k + part);
        for (; k < K; k++)
            add(0, k);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            const auto scales = (Vector<float>)load(b + (K * NV + v) * W);
            Integers start = {};
            if constexpr (rows_after_terms > 1)
                start = (Integers)load(b + ((K + 1) * NV + v) * W);
#pragma GCC unroll 8
            for (int i = 0; i < R; i++) {
                Integers sum = start;
#pragma GCC unroll 4
                for (int part = 0; part < parts; part++)
                    sum += sums[part][i][v];
                put(sum, a[i * row_stride + K], scales, c + i * c_row + v * c_vector, accumulate);
            }
        }
    }

    // c (+)= sums, times their scales.
    ANAPHORA_INLINE static void put(Integers sums, Quad row_scale, Vector<float> scales, float *c,
                                    bool accumulate) {
        const Vector<float> scale = std::bit_cast<float>(row_scale) * scales;
        Vector<float> product = as_rounded(__builtin_convertvector(sums, Vector<float>) * scale);
        if (accumulate)
            product += load(c);
        store(c, product);
    }

#if defined(ANAPHORA_HAS_TILES)
    static void multiply_on_tiles(int vectors, int rows, std::int64_t K, const Packed *a,
                                  std::int64_t row_stride, const Packed *b, float *c,
                                  std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
        alignas(64) std::int32_t sums[2][max_rows][16]; // by vectors
        multiply_word_tiles<WordTerms::quads>(vectors, rows, K, a, row_stride, b, sums, 16,
                                              max_rows * 16, false);
        for (int v = 0; v < vectors; v++) {
            const auto scales = (Vector<float>)load(b + (K * vectors + v) * 16);
            for (int r = 0; r < rows; r++)
                put(load(sums[v][r]), a[r * row_stride + K], scales, c + r * c_row + v * c_vector,
                    accumulate);
        }
    }
#endif
};

// The terms of chains, see Numbers. Left: whether the weight is the left operand.
template <QuadUnit Unit, Operand Left = Operand::row> struct Quads : QuadTiles<Unit> {
    using typename QuadTiles<Unit>::Packed;
    static constexpr Operand Right = Left == Operand::row ? Operand::weight : Operand::row;

    // Lines whose number is odd, see Pairs; with a row's scale.
    static std::int64_t row_stride(std::int64_t packed) {
        return (packed + 1 + 15) / 16 / 2 * 32 + 16;
    }

    // A row of K adjacent numbers.
    static void pack_row(std::int64_t K, std::int64_t packed, const float *from, Packed *to) {
        constexpr std::int64_t W = lanes<float>;
        const Int8Scales<Left> scales(largest_magnitude(K, from) - Integers{});
        for (std::int64_t k = 0; k < packed; k += W) {
            const PackedQuads quads = quantize<Left>(from + 4 * k, K - 4 * k, scales.by) ^ flip;
            if (k + W <= packed)
                store(to + k, quads);
            else
                std::memcpy(to + k, &quads, (packed - k) * sizeof(Packed));
        }
        to[packed] = std::bit_cast<Quad>(scales.scales[0]);
    }

    // See Pairs.
    static void pack_rows(std::int64_t count, std::int64_t K, std::int64_t packed,
                          const float *from, std::int64_t column, Packed *to, std::int64_t to_row) {
        constexpr std::int64_t W = lanes<float>;
        for (std::int64_t row = 0; row < count; row += W, from += W, to += W * to_row) {
            const std::int64_t rows = std::min(W, count - row);
            const Int8Scales<Left> scales(largest_magnitudes(rows, K, from, column));
            for (std::int64_t k = 0; k < packed; k += W) {
                PackedQuads quads[W];
                for (std::int64_t i = 0; i < W; i++)
                    quads[i] =
                        quantize_lanes<Left>(rows, K - 4 * (k + i), from + 4 * (k + i) * column,
                                             column, scales.by) ^
                        flip;
                transpose_lanes<Quad>(quads);
                const std::size_t bytes = std::min(W, packed - k) * sizeof(Packed);
                for (std::int64_t i = 0; i < rows; i++)
                    std::memcpy(to + i * to_row + k, &quads[i], bytes);
            }
            for (std::int64_t i = 0; i < rows; i++)
                to[i * to_row + packed] = std::bit_cast<Quad>(scales.scales[i]);
        }
    }

    static void pack_columns(std::int64_t K, std::int64_t packed, const Matrix<const float> &B,
                             int vectors, const Columns *columns, Packed *to) {
        constexpr std::int64_t W = lanes<float>;
        const std::int64_t padded = vectors * W;
        for (int v = 0; v < vectors; v++, to += W) {
            const float *from = B.data + columns[v].begin * B.column;
            const std::int64_t valid = std::clamp<std::int64_t>(columns[v].valid, 0, W);
            Integers maxima = {};
            if (B.column == 1)
                maxima = largest_magnitudes(valid, K, from, B.row);
            else
                for (std::int64_t j = 0; j < valid; j++)
                    maxima[j] = largest_magnitude(K, from + j * B.column);
            const Int8Scales<Right> scales(maxima);
            Integers sums = {};
            auto put = [&](std::int64_t k, PackedQuads quads) {
                store(to + k * padded, quads);
                for (int n = 0; n < 4; n++)
                    sums += (Integers)(quads << (24 - 8 * n)) >> 24;
            };
            for (std::int64_t k = 0; k < packed && B.column == 1; k++)
                put(k, quantize_lanes<Right>(valid, K - 4 * k, from + 4 * k * B.row, B.row,
                                             scales.by));
            for (std::int64_t k = 0; k < packed && B.column != 1; k += W) {
                PackedQuads rows[W];
                for (std::int64_t j = 0; j < W; j++)
                    rows[j] =
                        quantize<Right>(from + j * B.column + 4 * k, j < valid ? K - 4 * k : 0,
                                        broadcast<float>(scales.by[j]));
                transpose_lanes<Quad>(rows);
                for (std::int64_t i = 0; i < std::min(W, packed - k); i++)
                    put(k + i, rows[i]);
            }
            store(to + packed * padded, (PackedQuads)scales.scales);
            if (QuadTiles<Unit>::rows_after_terms > 1)
                store(to + (packed + 1) * padded, (PackedQuads)(sums * -128));
        }
    }

  private:
    // Makes the terms of packed rows unsigned: 128 is added to each.
    static constexpr Quad flip = Unit == QuadUnit::dots ? 0x80808080u : 0;

    // The quads of a vector of adjacent fours of numbers, of which `left` are there.
    template <Operand Of>
    ANAPHORA_INLINE static PackedQuads quantize(const float *from, std::int64_t left,
                                                Vector<float> by) {
        constexpr std::int64_t W = lanes<float>;
        PackedQuads words[4];
        for (int n = 0; n < 4; n++)
            words[n] = Int8Scales<Of>::quantize(load_some(from + n * W, left - n * W), by);
        return low_bytes(words);
    }
    // The quads of up to a vector of lanes; from one of their numbers to the next it is `step`, and
    // `left` of them are there.
    template <Operand Of>
    ANAPHORA_INLINE static PackedQuads quantize_lanes(std::int64_t count, std::int64_t left,
                                                      const float *from, std::int64_t step,
                                                      Vector<float> by) {
        PackedQuads words[4];
        for (int n = 0; n < 4; n++)
            words[n] =
                Int8Scales<Of>::quantize(load_some(from + n * step, n < left ? count : 0), by);
        return in_lanes(words);
    }
    static Integers largest_magnitudes(std::int64_t count, std::int64_t K, const float *from,
                                       std::int64_t step) {
        Integers maxima = {};
        for (std::int64_t k = 0; k < K; k++)
            maxima = larger(maxima, magnitudes(load_some(from + k * step, count)));
        return maxima;
    }
};

// Rows of I numbers in 8 bits, each with a scale, as a weight has them: an embedding.
class Int8Rows {
  public:
    static std::int64_t size(std::int64_t I) { return (I + 3) / 4 + 1; } // of a row, in numbers

    static void pack(std::int64_t I, const float *from, float *to) {
        const Int8Scales<Operand::weight> scales(largest_magnitude(I, from) - Integers{});
        constexpr std::int64_t W = lanes<float>;
        to[0] = scales.scales[0];
        auto *bytes = reinterpret_cast<std::uint8_t *>(to + 1);
        std::memset(bytes, 0, (size(I) - 1) * sizeof(float));
        for (std::int64_t k = 0; k < I; k += W) {
            const PackedQuads words =
                Int8Scales<Operand::weight>::quantize(load_some(from + k, I - k), scales.by);
            for (std::int64_t j = 0; j < std::min(W, I - k); j++)
                bytes[k + j] = static_cast<std::uint8_t>(words[j]);
        }
    }
    // What unpack() would give of them.
    static void round(std::int64_t I, float *row) {
        const Int8Scales<Operand::weight> scales(largest_magnitude(I, row) - Integers{});
        for (std::int64_t k = 0; k < I; k += lanes<float>) {
            const PackedQuads words =
                Int8Scales<Operand::weight>::quantize(load_some(row + k, I - k), scales.by);
            const auto integers = (Integers)words << 24 >> 24;
            store_some(row + k, __builtin_convertvector(integers, Vector<float>) * scales.scales,
                       I - k);
        }
    }
    static void unpack(std::int64_t I, const float *from, float *to) {
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(from + 1);
        const float scale = from[0];
        for (std::int64_t k = 0; k < I; k++)
            to[k] = static_cast<float>(static_cast<std::int8_t>(bytes[k])) * scale;
    }
};

} // namespace anaphora::ANAPHORA_ISA
