// Packed weights, compiled for each instruction set: every format, dense and block-diagonal,
// against plain sums; a block-diagonal weight has the bits of the dense one with zeros.
#include "weight.h"

#include <bit>
#include <cmath>
#include <random>

namespace anaphora::ANAPHORA_ISA {
namespace {

template <class T> class WeightTest {
  public:
    WeightTest(std::mt19937_64 &random, Format format) : random_(random), format_(format) {
        heads_ = one_of({1, 1, 2, 3});
        gates_ = one_of({1, 2, 3, 4, 5, 7});
        units_ = heads_ * one_of({1, 5, 8, 24, 33});
        K_ = heads_ * one_of({1, 7, 40, 64, 100});
        rows_ = one_of({1, 2, 5, 16});
        largest_ = static_cast<int>(one_of({1, 2, 4}));
        single_rows_ = one_of({0, 1}) == 1;
        x_ = numbers(3 * rows_ * (K_ + 3));
        B_ = numbers(K_ * gates_ * units_);
        for (std::int64_t k = 0; k < K_; k++)
            for (std::int64_t n = 0; n < gates_ * units_; n++)
                if (k / (K_ / heads_) != n % units_ / (units_ / heads_))
                    B_[k * gates_ * units_ + n] = 0;
    }

    // An empty string if all is well.
    std::string run() {
        std::vector<Block> dense,
            diagonal = diagonal_blocks(units_, K_, heads_, lanes<T>, largest_);
        add_blocks(dense, 0, (units_ + lanes<T> - 1) / lanes<T>, largest_, K_);
        std::vector<T> transposed(B_.size());
        for (std::int64_t k = 0; k < K_; k++)
            for (std::int64_t n = 0; n < gates_ * units_; n++)
                transposed[n * K_ + k] = B_[k * gates_ * units_ + n];
        const Matrix<const T> by_rows{B_.data(), gates_ * units_, 1},
            by_columns{transposed.data(), 1, K_};
        const std::vector<T> expected = product(dense, by_rows, false);
        for (const bool apart : {false, true})
            for (const std::vector<Block> *blocks : {&dense, &diagonal})
                for (const Matrix<const T> &B : {by_rows, by_columns})
                    if (product(*blocks, B, apart) != expected)
                        return "the bits depend on how a weight is packed or multiplied";
        if (is_int8(format_))
            return expected == in_8_bits() ? "" : "a product in 8 bits is not as defined";
        for (std::int64_t r = 0; r < 3 * rows_; r++)
            for (std::int64_t n = 0; n < gates_ * units_; n++) {
                double sum = 0, size = 0;
                for (std::int64_t k = 0; k < K_; k++) {
                    const double term = double(x_[r * (K_ + 3) + k]) * B_[k * gates_ * units_ + n];
                    sum += term, size += std::abs(term);
                }
                const double bound = precision() * (size + 1);
                if (std::abs(expected[r * gates_ * units_ + n] - sum) > bound)
                    return "a product is wrong";
            }
        return {};
    }

  private:
    // The products as int8.h defines them. In double they are exact until they are rounded.
    std::vector<T> in_8_bits() const {
        const std::int64_t N = gates_ * units_;
        auto largest_of = [&](const T *from, std::int64_t step) {
            double largest = 0;
            for (std::int64_t k = 0; k < K_; k++)
                largest = std::max(largest, std::abs(double(from[k * step])));
            return largest;
        };
        std::vector<T> result(3 * rows_ * N);
        for (std::int64_t r = 0; r < 3 * rows_; r++)
            for (std::int64_t n = 0; n < N; n++) {
                const T *x = x_.data() + r * (K_ + 3), *w = B_.data() + n;
                const double of_row = largest_of(x, 1), of_column = largest_of(w, N);
                if (of_row == 0 || of_column == 0)
                    continue;
                const auto row = static_cast<float>(of_row / 127),
                           by = static_cast<float>(127 / of_row);
                auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(of_column / 127));
                bits = (bits + 255) / 256 * 256;
                const auto column = std::bit_cast<float>(bits);
                double sum = 0;
                for (std::int64_t k = 0; k < K_; k++)
                    sum += std::nearbyint(static_cast<float>(double(x[k]) * by)) *
                           std::nearbyint(static_cast<float>(double(w[k * N]) / column));
                const auto scale = static_cast<float>(double(row) * column);
                result[r * N + n] = static_cast<float>(sum * scale);
            }
        return result;
    }

    double precision() const {
        if (packed_bytes(format_, sizeof(T)) == 2)
            return 1.0 / 128; // two operands, each rounded to 8 bits
        return sizeof(T) == 4 ? 1e-5 : 1e-13;
    }
    std::int64_t one_of(std::initializer_list<std::int64_t> values) {
        return values.begin()[random_() % values.size()];
    }
    std::vector<T> numbers(std::int64_t count) {
        std::vector<T> result(count);
        for (T &x : result)
            x = static_cast<T>(static_cast<double>(random_() % 2001) / 1000 - 1);
        return result;
    }

    // [rows, gates * units], by one of the ways to multiply; it is added to 0 for some blocks.
    std::vector<T> product(const std::vector<Block> &blocks, const Matrix<const T> &B, bool apart) {
        constexpr std::int64_t W = lanes<T>;
        OwnScratch memory, row_memory;
        const WeightShape shape{gates_, units_, K_, blocks, single_rows_};
        const Weight<T> weight(format_, shape, B, memory);
        typename Weight<T>::Rows rows(weight, 3 * rows_, one_of({0, 1}) == 1, row_memory);
        std::vector<RowRange<T>> ranges;
        for (std::int64_t n = 0; n < 3; n++)
            ranges.push_back(
                {x_.data() + n * rows_ * (K_ + 3), static_cast<int>(rows_), apart ? 0 : n * rows_});
        const std::int64_t end = std::ssize(blocks), vectors = gates_ * ((units_ + W - 1) / W);
        std::vector<T> result(3 * rows_ * gates_ * units_);
        auto put = [&](std::int64_t block, std::int64_t v, std::int64_t row, const T *from) {
            const Columns columns = shape.columns(blocks[block], v, W);
            for (std::int64_t j = 0; j < std::min(W, columns.valid); j++)
                result[row * gates_ * units_ + columns.begin + j] = from[j];
        };
        if (apart) { // as a step: part by part and some blocks at a time, vector by vector
            rows.read(ranges, K_ + 3, true);
            const std::int64_t step = one_of({1, 2, 100});
            for (std::int64_t part = 0; part < 3; part++)
                for (std::int64_t first = 0; first < end; first += step) {
                    const std::int64_t last = std::min(end, first + step);
                    std::vector<T> tile(vectors * rows_ * W, T(77));
                    weight.multiply(first, last, rows, part, {tile.data(), W, rows_ * W});
                    const T *from = tile.data();
                    for (std::int64_t n = first; n < last; n++)
                        for (std::int64_t v = 0; v < shape.vectors(blocks[n]); v++)
                            for (std::int64_t r = 0; r < rows_; r++, from += W)
                                put(n, v, part * rows_ + r, from);
                }
            return result;
        }
        rows.read(ranges, K_ + 3, false);
        if (gates_ == 1) { // the last vector may be partial
            weight.multiply_all(0, end, rows, {result.data(), units_, W, true, units_},
                                end % 2 == 1);
            return result;
        }
        std::vector<T> all(3 * rows_ * vectors * W, T(77));
        weight.multiply_all(0, end, rows, {all.data(), vectors * W, W}, end % 2 == 0);
        for (std::int64_t n = 0; n < end; n++)
            for (std::int64_t v = 0; v < shape.vectors(blocks[n]); v++)
                for (std::int64_t r = 0; r < 3 * rows_; r++)
                    put(n, v, r, all.data() + (r * vectors + weight.first_vector(n) + v) * W);
        return result;
    }

    std::mt19937_64 &random_;
    Format format_;
    std::int64_t heads_, gates_, units_, K_, rows_;
    int largest_;
    bool single_rows_;
    std::vector<T> x_, B_;
};

// Whether this instruction set multiplies in a format.
bool is_compiled(Format format) {
    using Chains = ChainWeight<Numbers<float>>;
    return format == Format::chain ||
           with_format<float>(
               format, []<class W>(std::type_identity<W>) { return !std::is_same_v<W, Chains>; });
}

} // namespace

// The first failure, or an empty string. tile_registers, dots: whether this process may use them.
std::string test_weights(bool tile_registers, bool dots);
std::string test_weights(bool tile_registers, bool dots) {
    std::mt19937_64 random(23);
    for (int k = 0; k < 300; k++) {
        std::string failure = WeightTest<double>(random, Format::chain).run();
        auto test = [&](Format format) {
            if (failure.empty() && is_compiled(format))
                failure = WeightTest<float>(random, format).run();
        };
        test(Format::chain);
        test(Format::bfloat16);
        test(Format::int8);
        if (dots)
            test(Format::bfloat16_dots);
        if (tile_registers) {
            test(Format::fixed);
            test(Format::bfloat16_tiles);
            test(Format::int8_dots);
            test(Format::int8_tiles);
        }
        if (!failure.empty())
            return failure + " (" + std::to_string(k) + ")";
    }
    return {};
}

} // namespace anaphora::ANAPHORA_ISA
