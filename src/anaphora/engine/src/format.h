// In which arithmetic a product is computed: the one place that decides.
#pragma once

#include <algorithm>
#include <cstdint>

namespace anaphora {

enum class Format {
    chain,          // one chain of multiply-adds along K: formats/chain.h
    fixed,          // float32 as three slices of int8 on tile registers: formats/fixed.h
    bfloat16,       // float32 rounded to bfloat16: formats/bfloat16.h,
    bfloat16_dots,  // by the instruction of AVX512_BF16, to the same bits,
    bfloat16_tiles, // on tile registers
    int8,           // float32 in 8 bits, with a scale for each row and column: formats/int8.h,
    int8_dots,      // by the instruction of AVX512_VNNI, to the same bits,
    int8_tiles,     // and on tile registers
};

// The precision of the operands of products of float32; int8: of rows by weights alone.
enum class Precision { float32, bfloat16, int8 };

inline constexpr bool is_int8(Format format) {
    return format == Format::int8 || format == Format::int8_dots || format == Format::int8_tiles;
}

// What is multiplied. Rows by a weight of K terms a sum: the gates of a recurrence, a projection, a
// layer, or the same transposed, with the weight on the left; a gradient of such rows, by the
// weight's transpose; a gradient of a weight, whose sums are over the rows of the batch.
enum class Use { weight, left_weight, input_gradient, weight_gradient };

// What computes the products of one precision.
struct Units {
    bool tile_registers = false;
    Precision precision = Precision::float32;
    bool dots = false; // the instruction of AVX512_BF16 or AVX512_VNNI
};

// Shorter sums are more accurate as chains, and longer ones might overflow int32
// (tests/engine/test_native_fixed.py holds the errors for 96 to 1,500 terms).
inline constexpr std::int64_t min_fixed_terms = 96, max_fixed_terms = 32768;
// With fewer rows or columns than 4 tiles, packing costs more than a weight's gradient.
inline constexpr std::int64_t min_fixed_side = 64;
// Operands of so many terms are quantized at once: 8 by 8 of their tiles stay in a core's cache. A
// step of a recurrence computes a sum at once, so those that it may compute are not cut: gates of
// up to 384 units.
inline constexpr std::int64_t weight_gradient_terms = 512, input_gradient_terms = 768,
                              step_terms = 1536;
// So many terms of bfloat16 stay in a core's cache. Where sums are cut, at a multiple of a tile's
// terms, changes no bit.
inline constexpr std::int64_t bfloat16_terms = 1024;
// Sums of so many products of int8 fit into int32.
inline constexpr std::int64_t max_int8_terms = 133000;

struct Arithmetic {
    Format format;
    std::int64_t terms; // longer sums are cut into so many terms, which are computed one by one

    // Whether a step of a recurrence, which computes a sum at once, has the bits of a product over
    // many steps.
    bool holds_in_step(std::int64_t K) const { return format != Format::fixed || K <= terms; }
};

// For sums of K terms. A weight's gradient, of which `side` is the shorter side, has as many terms
// as the batch has rows: its arithmetic must not depend on them.
inline Arithmetic choose(Use use, std::int64_t K, std::int64_t side, Units units) {
    const Arithmetic chain{Format::chain, K};
    if (units.precision == Precision::bfloat16) {
        const Format format = units.tile_registers ? Format::bfloat16_tiles
                              : units.dots         ? Format::bfloat16_dots
                                                   : Format::bfloat16;
        return {format, bfloat16_terms};
    }
    const bool by_weight = use == Use::weight || use == Use::left_weight;
    if (units.precision == Precision::int8 && by_weight && K <= max_int8_terms)
        return {units.tile_registers ? Format::int8_tiles
                : units.dots         ? Format::int8_dots
                                     : Format::int8,
                std::max<std::int64_t>(K, 1)};
    if (!units.tile_registers)
        return chain;
    switch (use) {
    case Use::weight:
    case Use::left_weight:
        return K < min_fixed_terms || K > max_fixed_terms ? chain : Arithmetic{Format::fixed, K};
    case Use::input_gradient:
        if (K < min_fixed_terms)
            return chain;
        return {Format::fixed, K <= step_terms ? K : input_gradient_terms};
    case Use::weight_gradient:
        return K == 0 || side < min_fixed_side ? chain
                                               : Arithmetic{Format::fixed, weight_gradient_terms};
    }
    return chain;
}

// The rows of a tile of a recurrence in this format; 0: as many as multiply-adds favour.
inline constexpr int tile_rows_of(Format format) {
    return format == Format::fixed                                            ? 16
           : format == Format::bfloat16_tiles || format == Format::int8_tiles ? 32
                                                                              : 0;
}
// The bytes of a packed number of float32 or float64.
inline constexpr std::int64_t packed_bytes(Format format, std::int64_t bytes) {
    return format == Format::chain ? bytes : format == Format::fixed ? 3 : is_int8(format) ? 1 : 2;
}

} // namespace anaphora
