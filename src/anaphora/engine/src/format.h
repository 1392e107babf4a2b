// In which arithmetic a product is computed: the one place that decides.
#pragma once

#include <cstdint>

namespace anaphora {

enum class Format {
    chain, // one chain of multiply-adds along K: formats/chain.h
    fixed, // float32 as three slices of int8 on tile registers: formats/fixed.h
};

// What is multiplied. Rows by a weight of K terms a sum: the gates of a recurrence, a projection, a
// layer; a gradient of such rows, by the weight's transpose; a gradient of a weight, whose sums are
// over the rows of the batch.
enum class Use { weight, input_gradient, weight_gradient };

// What an instruction set offers for one precision.
struct Units {
    bool tile_registers = false;
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

struct Arithmetic {
    Format format;
    std::int64_t terms; // longer sums are cut into so many terms, which are computed one by one

    // Whether a step of a recurrence, which computes a sum at once, has the bits of a product over
    // many steps.
    bool holds_in_step(std::int64_t K) const { return K <= terms; }
};

// For sums of K terms. A weight's gradient, of which `side` is the shorter side, has as many terms
// as the batch has rows: its arithmetic must not depend on them.
inline Arithmetic choose(Use use, std::int64_t K, std::int64_t side, Units units) {
    const Arithmetic chain{Format::chain, K};
    if (!units.tile_registers)
        return chain;
    switch (use) {
    case Use::weight:
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
inline constexpr int tile_rows_of(Format format) { return format == Format::fixed ? 16 : 0; }
// The bytes of a packed number of float32 or float64.
inline constexpr std::int64_t packed_bytes(Format format, std::int64_t bytes) {
    return format == Format::fixed ? 3 : bytes;
}

} // namespace anaphora
