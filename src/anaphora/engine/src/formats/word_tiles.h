// Products of operands that are packed to words of several terms, on the tile registers of AMX.
#pragma once

#include "../tile_registers.h"

#include <cstdint>
#include <type_traits>

namespace anaphora::ANAPHORA_ISA {

// What a format sets up for its products, if it uses tile registers.
struct NoRegisters {};
#if defined(ANAPHORA_HAS_TILES)
template <bool Uses> using RegistersIf = std::conditional_t<Uses, TileRegisters, NoRegisters>;
#else
template <bool Uses> using RegistersIf = NoRegisters;
#endif

#if defined(ANAPHORA_HAS_TILES)
// The terms of a word: two of bfloat16, summed in float32, or four of int8, in int32.
enum class WordTerms { pairs, quads };

template <WordTerms Of, int C, int A, int B> ANAPHORA_INLINE void multiply_registers() {
    if constexpr (Of == WordTerms::pairs)
        TileRegisters::multiply_pairs<C, A, B>();
    else
        TileRegisters::multiply<C, A, B>();
}

// Registers: 0 to 3 hold sums, of the lower rows and of the upper ones; 4 and 5 these rows; 6 and 7
// vectors of the weight.
template <WordTerms Of, int V, bool Upper>
void multiply_word_tiles_of(std::int64_t K, int lower, const std::uint32_t *a,
                            std::int64_t row_stride, const std::uint32_t *b, void *c,
                            std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
    using R = TileRegisters;
    constexpr std::int64_t bytes = 4, line = 64 * V;
    auto for_each_sum = [&](auto f) {
        auto of = [&](auto S, std::int64_t row, std::int64_t vector) {
            f(S, static_cast<char *>(c) + (row * c_row + vector * c_vector) * bytes);
        };
        of(std::integral_constant<int, 0>(), 0, 0);
        if constexpr (V > 1)
            of(std::integral_constant<int, 1>(), 0, 1);
        if constexpr (Upper)
            of(std::integral_constant<int, 2>(), lower, 0);
        if constexpr (Upper && V > 1)
            of(std::integral_constant<int, 3>(), lower, 1);
    };
    if (accumulate)
        for_each_sum([&](auto S, const char *from) { R::load<S>(from, c_row * bytes); });
    else
        for_each_sum([](auto S, const char *) { R::zero<S>(); });
    for (std::int64_t k = 0; k < K; k += 16) {
        R::load<4>(a + k, row_stride * bytes);
        R::load<6>(b + k * V * 16, line);
        multiply_registers<Of, 0, 4, 6>();
        if constexpr (V > 1) {
            R::load<7>(b + k * V * 16 + 16, line);
            multiply_registers<Of, 1, 4, 7>();
        }
        if constexpr (Upper) {
            R::load<5>(a + lower * row_stride + k, row_stride * bytes);
            multiply_registers<Of, 2, 5, 6>();
        }
        if constexpr (Upper && V > 1)
            multiply_registers<Of, 3, 5, 7>();
    }
    for_each_sum([&](auto S, char *to) { R::store<S>(to, c_row * bytes); });
}

// As chain.h's multiply_tile, of words, for up to 32 rows by up to 2 vectors, on registers that are
// set up; c: 32 bits a number.
template <WordTerms Of>
void multiply_word_tiles(int vectors, int rows, std::int64_t K, const std::uint32_t *a,
                         std::int64_t row_stride, const std::uint32_t *b, void *c,
                         std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
    const int upper = rows > 16 ? rows / 2 : 0, lower = rows - upper;
    TileRegisters::set_pairs(lower, upper);
    auto multiply = [&](auto V, auto U) {
        multiply_word_tiles_of<Of, V, U>(K, lower, a, row_stride, b, c, c_row, c_vector,
                                         accumulate);
    };
    using std::bool_constant, std::integral_constant;
    if (vectors == 1)
        return upper > 0 ? multiply(integral_constant<int, 1>(), bool_constant<true>())
                         : multiply(integral_constant<int, 1>(), bool_constant<false>());
    return upper > 0 ? multiply(integral_constant<int, 2>(), bool_constant<true>())
                     : multiply(integral_constant<int, 2>(), bool_constant<false>());
}
#endif

} // namespace anaphora::ANAPHORA_ISA
