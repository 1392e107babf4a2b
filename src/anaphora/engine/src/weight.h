// A packed weight is a value with a format; what multiplies by it does not know the format.
#pragma once

#include "formats/bfloat16.h"
#include "formats/chain.h"
#include "formats/fixed.h"
#include "formats/int8.h"
#include "formats/packed_product.h"

#include <utility>
#include <variant>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

// The formats of weights of T, in the order of Format.
template <class... Weights> struct Formats {
    using Weight = std::variant<Weights...>;
    using Rows = std::variant<typename Weights::Rows...>;
};
template <PairUnit Unit> using PairWeight = ChainWeight<Pairs<Unit>>;
template <QuadUnit Unit> using QuadWeight = ChainWeight<Quads<Unit>>;

template <class T> struct WeightFormats : Formats<ChainWeight<Numbers<T>>> {};
template <>
struct WeightFormats<float>
#if defined(ANAPHORA_HAS_TILES)
    : Formats<ChainWeight<Numbers<float>>, FixedWeight, PairWeight<PairUnit::vectors>,
              PairWeight<PairUnit::dots>, PairWeight<PairUnit::tiles>,
              QuadWeight<QuadUnit::vectors>, QuadWeight<QuadUnit::dots>,
              QuadWeight<QuadUnit::tiles>> {
};
#else
    : Formats<ChainWeight<Numbers<float>>, PairWeight<PairUnit::vectors>,
              QuadWeight<QuadUnit::vectors>> {
};
#endif

// Call f with the type of weights of this format.
template <class T, class F> auto with_format(Format format, F f) {
    if constexpr (sizeof(T) == 4)
        switch (format) {
        case Format::chain: break;
        case Format::bfloat16: return f(std::type_identity<PairWeight<PairUnit::vectors>>());
        case Format::int8: return f(std::type_identity<QuadWeight<QuadUnit::vectors>>());
#if defined(ANAPHORA_HAS_TILES)
        case Format::fixed: return f(std::type_identity<FixedWeight>());
        case Format::bfloat16_dots: return f(std::type_identity<PairWeight<PairUnit::dots>>());
        case Format::bfloat16_tiles: return f(std::type_identity<PairWeight<PairUnit::tiles>>());
        case Format::int8_dots: return f(std::type_identity<QuadWeight<QuadUnit::dots>>());
        case Format::int8_tiles: return f(std::type_identity<QuadWeight<QuadUnit::tiles>>());
#else
        default: break;
#endif
        }
    return f(std::type_identity<ChainWeight<Numbers<T>>>());
}

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
    auto packed = [&]<class F>(std::type_identity<F>) {
        if constexpr (sizeof(T) == 4)
            PackedProduct<F>::multiply(M, N, K, arithmetic.terms, A, B, C, c_row, bias, accumulate);
    };
    auto pairs = [&]<PairUnit Unit>(std::integral_constant<PairUnit, Unit>) {
        packed(std::type_identity<WordProduct<Pairs<Unit>>>());
    };
    auto quads = [&]<QuadUnit Unit>(std::integral_constant<QuadUnit, Unit>) {
        if (use == Use::left_weight)
            packed(std::type_identity<WordProduct<Quads<Unit, Operand::weight>>>());
        else
            packed(std::type_identity<WordProduct<Quads<Unit>>>());
    };
    using std::integral_constant;
    switch (arithmetic.format) {
    case Format::chain: return ChainProduct<T>(M, N, K, A, B, C, c_row, bias, accumulate)();
    case Format::bfloat16: return pairs(integral_constant<PairUnit, PairUnit::vectors>());
    case Format::int8: return quads(integral_constant<QuadUnit, QuadUnit::vectors>());
#if defined(ANAPHORA_HAS_TILES)
    case Format::fixed: return packed(std::type_identity<FixedProduct>());
    case Format::bfloat16_dots: return pairs(integral_constant<PairUnit, PairUnit::dots>());
    case Format::bfloat16_tiles: return pairs(integral_constant<PairUnit, PairUnit::tiles>());
    case Format::int8_dots: return quads(integral_constant<QuadUnit, QuadUnit::dots>());
    case Format::int8_tiles: return quads(integral_constant<QuadUnit, QuadUnit::tiles>());
#else
    default: break;
#endif
    }
}

} // namespace anaphora::ANAPHORA_ISA
