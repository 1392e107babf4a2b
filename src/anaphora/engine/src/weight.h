// A packed weight is a value with a format; what multiplies by it does not know the format.
#pragma once

#include "formats/bfloat16.h"
#include "formats/chain.h"
#include "formats/fixed.h"
#include "formats/int8.h"
#include "formats/packed_product.h"

#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

template <PairUnit Unit> using PairWeight = ChainWeight<Pairs<Unit>>;
template <QuadUnit Unit> using QuadWeight = ChainWeight<Quads<Unit>>;

// The formats of float32 besides chains in which this instruction set multiplies, and their
// weights.
#if defined(ANAPHORA_EMULATES_TILES) // and does nothing else
#define ANAPHORA_FORMATS(FORMAT)                                                                   \
    FORMAT(fixed, FixedWeight)                                                                     \
    FORMAT(bfloat16_tiles, PairWeight<PairUnit::tiles>)                                            \
    FORMAT(int8_tiles, QuadWeight<QuadUnit::tiles>)
#elif defined(ANAPHORA_HAS_TILES)
#define ANAPHORA_FORMATS(FORMAT)                                                                   \
    FORMAT(fixed, FixedWeight)                                                                     \
    FORMAT(bfloat16, PairWeight<PairUnit::vectors>)                                                \
    FORMAT(bfloat16_dots, PairWeight<PairUnit::dots>)                                              \
    FORMAT(bfloat16_tiles, PairWeight<PairUnit::tiles>)                                            \
    FORMAT(int8, QuadWeight<QuadUnit::vectors>)                                                    \
    FORMAT(int8_dots, QuadWeight<QuadUnit::dots>)                                                  \
    FORMAT(int8_tiles, QuadWeight<QuadUnit::tiles>)
#else
#define ANAPHORA_FORMATS(FORMAT)                                                                   \
    FORMAT(bfloat16, PairWeight<PairUnit::vectors>)                                                \
    FORMAT(int8, QuadWeight<QuadUnit::vectors>)
#endif

// The weights of T in any format, and their rows.
template <class... Weights> struct Formats {
    using Weight = std::variant<Weights...>;
    using Rows = std::variant<typename Weights::Rows...>;
};
template <class T> struct WeightFormats : Formats<ChainWeight<Numbers<T>>> {};
#define ANAPHORA_WEIGHT(format, weight) , weight
template <>
struct WeightFormats<float>
    : Formats<ChainWeight<Numbers<float>> ANAPHORA_FORMATS(ANAPHORA_WEIGHT)> {};
#undef ANAPHORA_WEIGHT

// Call f with the type of weights of this format.
template <class T, class F> auto with_format(Format format, F f) {
    if constexpr (sizeof(T) == 4)
        switch (format) {
#define ANAPHORA_CASE(name, weight)                                                                \
    case Format::name: return f(std::type_identity<weight>());
            ANAPHORA_FORMATS(ANAPHORA_CASE)
#undef ANAPHORA_CASE
        default: break;
        }
    return f(std::type_identity<ChainWeight<Numbers<T>>>());
}

// The product of matrices in the format of a weight, which may be the left one.
template <class Weight, bool Left> struct ProductOf;
template <PairUnit Unit, bool Left> struct ProductOf<PairWeight<Unit>, Left> {
    using type = PackedProduct<WordProduct<Pairs<Unit>>>;
};
template <QuadUnit Unit, bool Left> struct ProductOf<QuadWeight<Unit>, Left> {
    using type = PackedProduct<WordProduct<Quads<Unit, Left ? Operand::weight : Operand::row>>>;
};
#if defined(ANAPHORA_HAS_TILES)
template <bool Left> struct ProductOf<FixedWeight, Left> {
    using type = PackedProduct<FixedProduct>;
};
#endif

// Each format has the same functions.
template <class T> class Weight {
    using Packed = typename WeightFormats<T>::Weight;

  public:
    // The size of its memory, in numbers.
    static std::int64_t size(Format format, const WeightShape &shape) {
        return with_format<T>(format,
                              [&]<class W>(std::type_identity<W>) { return W::size(shape); });
    }

    // Pack B [K, gates * units], the transpose of a weight of a layer. Its rows or its columns are
    // adjacent. Outside the terms of a block-diagonal weight it is 0.
    Weight(Format format, const WeightShape &shape, Matrix<const T> B, T *memory)
        : weight_(with_format<T>(format, [&]<class W>(std::type_identity<W>) {
              return Packed(std::in_place_type<W>, shape, B, memory);
          })) {}
    Weight(Format format, const WeightShape &shape, Matrix<const T> B, Scratch &scratch)
        : Weight(format, shape, B, scratch.get<T>(size(format, shape))) {}

    // The number of vectors of outputs before those of a block.
    std::int64_t first_vector(std::int64_t block) const {
        return std::visit([=](const auto &w) { return w.first_vector(block); }, weight_);
    }

    // Packed numbers of a block, for each term those of its outputs; null in other formats.
    const T *numbers(std::int64_t block) const {
        const auto *chains = std::get_if<ChainWeight<Numbers<T>>>(&weight_);
        return chains == nullptr ? nullptr : chains->packed(block);
    }

    // The rows that a thread multiplies by this weight, or by another one of the same K and format;
    // it stays on its thread.
    class Rows {
      public:
        // `weights_stream`: whether a weight is read from memory, not from a cache.
        Rows(const Weight &weight, std::int64_t max_rows, bool weights_stream, Scratch &scratch)
            : rows_(std::visit(
                  [&]<class W>(const W &w) {
                      return Read(std::in_place_type<typename W::Rows>, w, max_rows, weights_stream,
                                  scratch);
                  },
                  weight.weight_)) {}

        // Select rows, `stride` numbers apart. They are multiplied in parts: one for each range if
        // the ranges are apart, else as suits the format.
        void read(const std::vector<RowRange<T>> &ranges, std::int64_t stride, bool apart) {
            std::visit([&](auto &rows) { rows.read(ranges, stride, apart); }, rows_);
        }

      private:
        friend class Weight;
        using Read = typename WeightFormats<T>::Rows;
        Read rows_;
    };

    // to = the rows of a part times the outputs of blocks first ... end - 1.
    void multiply(std::int64_t first, std::int64_t end, const Rows &rows, std::int64_t part,
                  const Target<T> &to) const {
        visit(rows, [&](const auto &w, const auto &r) {
            w.multiply(first, end, r, part, part + 1, to, false);
        });
    }
    // All parts, each output with those of all parts before the next; `backwards` begins with the
    // last block.
    void multiply_all(std::int64_t first, std::int64_t end, const Rows &rows, const Target<T> &to,
                      bool backwards = false) const {
        visit(rows, [&](const auto &w, const auto &r) {
            w.multiply(first, end, r, 0, r.parts(), to, backwards);
        });
    }

  private:
    template <class F> ANAPHORA_INLINE void visit(const Rows &rows, F f) const {
        std::visit([&]<class W>(const W &w) { f(w, *std::get_if<typename W::Rows>(&rows.rows_)); },
                   weight_);
    }

    Packed weight_;
};

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none); the columns of C are adjacent.
template <class T>
void multiply(Units units, Use use, std::int64_t M, std::int64_t N, std::int64_t K,
              Matrix<const T> A, Matrix<const T> B, T *C, std::int64_t c_row, const T *bias,
              bool accumulate) {
    if (M == 0 || N == 0)
        return;
    const Arithmetic arithmetic = choose(use, K, std::min(M, N), units);
    with_format<T>(arithmetic.format, [&]<class W>(std::type_identity<W>) {
        if constexpr (std::is_same_v<W, ChainWeight<Numbers<T>>>)
            ChainProduct<T>(M, N, K, A, B, C, c_row, bias, accumulate)();
        else if (use == Use::left_weight)
            ProductOf<W, true>::type::multiply(M, N, K, arithmetic.terms, A, B, C, c_row, bias,
                                               accumulate);
        else
            ProductOf<W, false>::type::multiply(M, N, K, arithmetic.terms, A, B, C, c_row, bias,
                                                accumulate);
    });
}

} // namespace anaphora::ANAPHORA_ISA
