// A packed weight is a value with a format; what multiplies by it does not know the format.
#pragma once

#include "formats/chain.h"
#include "formats/fixed.h"

#include <utility>
#include <variant>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

// The formats of weights of T, in the order of Format.
template <class T> struct WeightFormats {
    using Weight = std::variant<ChainWeight<T>>;
    using Rows = std::variant<typename ChainWeight<T>::Rows>;
};
#if defined(ANAPHORA_HAS_TILES)
template <> struct WeightFormats<float> {
    using Weight = std::variant<ChainWeight<float>, FixedWeight>;
    using Rows = std::variant<ChainWeight<float>::Rows, FixedWeight::Rows>;
};
#endif

// Call f with the type of weights of this format.
template <class T, class F> auto with_format(Format format, F f) {
#if defined(ANAPHORA_HAS_TILES)
    if constexpr (sizeof(T) == 4)
        if (format == Format::fixed)
            return f(std::type_identity<FixedWeight>());
#endif
    static_cast<void>(format);
    return f(std::type_identity<ChainWeight<T>>());
}

// Each format has the same functions.
template <class T> class Weight {
    using Formats = typename WeightFormats<T>::Weight;

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
              return Formats(std::in_place_type<W>, shape, B, memory);
          })) {}
    Weight(Format format, const WeightShape &shape, Matrix<const T> B, Scratch &scratch)
        : Weight(format, shape, B, scratch.get<T>(size(format, shape))) {}

    // The number of vectors of outputs before those of a block.
    std::int64_t first_vector(std::int64_t block) const {
        return std::visit([=](const auto &w) { return w.first_vector(block); }, weight_);
    }

    // The rows that a thread multiplies by this weight, or by another one of the same K and format;
    // it stays on its thread.
    class Rows {
      public:
        // `weights_stream`: whether a weight is read from memory, not from a cache.
        Rows(const Weight &weight, std::int64_t max_rows, bool weights_stream, Scratch &scratch)
            : rows_(std::visit(
                  [&]<class W>(const W &w) {
                      return Formats_(std::in_place_type<typename W::Rows>, w, max_rows,
                                      weights_stream, scratch);
                  },
                  weight.weight_)) {}

        // Select rows, `stride` numbers apart. They are multiplied in parts: one for each range if
        // the ranges are apart, else as suits the format.
        void read(const std::vector<RowRange<T>> &ranges, std::int64_t stride, bool apart) {
            std::visit([&](auto &rows) { rows.read(ranges, stride, apart); }, rows_);
        }

      private:
        friend class Weight;
        using Formats_ = typename WeightFormats<T>::Rows;
        Formats_ rows_;
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

    Formats weight_;
};

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none); the columns of C are adjacent.
template <class T>
void multiply(Units units, Use use, std::int64_t M, std::int64_t N, std::int64_t K,
              Matrix<const T> A, Matrix<const T> B, T *C, std::int64_t c_row, const T *bias,
              bool accumulate) {
    if (M == 0 || N == 0)
        return;
    const Arithmetic arithmetic = choose(use, K, std::min(M, N), units);
#if defined(ANAPHORA_HAS_TILES)
    if constexpr (sizeof(T) == 4)
        if (arithmetic.format == Format::fixed)
            return FixedProduct::multiply(M, N, K, arithmetic.terms, A, B, C, c_row, bias,
                                          accumulate);
#endif
    static_cast<void>(arithmetic);
    ChainProduct<T>(M, N, K, A, B, C, c_row, bias, accumulate)();
}

} // namespace anaphora::ANAPHORA_ISA
