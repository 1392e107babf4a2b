// The instructions of tile_registers.h in plain C++, with the same results: for tests of fixed
// point on processors that have none of them.
#pragma once

#include "memory.h"
#include "vector.h"

#include <algorithm>

namespace anaphora::ANAPHORA_ISA {

using Doubles = double __attribute__((vector_size(2 * ANAPHORA_VECTOR_BYTES)));
using Longs = std::int64_t __attribute__((vector_size(2 * ANAPHORA_VECTOR_BYTES)));

// In double the product is exact, so that it is rounded once. n: integers, or NaN.
ANAPHORA_INLINE Vector<float> times_power(Vector<float> x, Vector<float> n) {
    const Vector<float> numbers = n == n ? n : broadcast<float>(0);
    const Longs bits = (__builtin_convertvector(numbers, Longs) + 1023) << 52;
    const Doubles product = __builtin_convertvector(x, Doubles) * (Doubles)bits;
    return n == n ? __builtin_convertvector(product, Vector<float>) : n;
}

// The sum of a number and 1.5 * 2^52 is rounded to an integer, which its low bits hold. NaN: any.
ANAPHORA_INLINE Ints to_integers(Vector<float> x) {
    const Doubles sums = __builtin_convertvector(x, Doubles) + 6755399441055744.0;
    return __builtin_convertvector((Longs)sums << 32 >> 32, Ints);
}

// Byte k of each lane.
ANAPHORA_INLINE Ints signed_byte(Ints lanes, int k) { return lanes << (24 - 8 * k) >> 24; }
ANAPHORA_INLINE Ints unsigned_byte(Ints lanes, int k) { return lanes >> 8 * k & 255; }

ANAPHORA_INLINE Ints add_products(Ints sums, Ints x, Ints w) {
    for (int k = 0; k < 4; k++)
        sums += unsigned_byte(x, k) * signed_byte(w, k);
    return sums;
}

class TileRegisters : public TileLines {
  public:
    explicit TileRegisters(int lines = max_lines) : before_(lines_) {
        static thread_local Scratch scratch;
        tiles_ = scratch.get<Tile>(8);
        set_lines(lines);
    }
    ~TileRegisters() { set(before_); }
    TileRegisters(const TileRegisters &) = delete;
    TileRegisters &operator=(const TileRegisters &) = delete;

    static void set_lines(int lines) { set(of(lines)); }
    static void set_pairs(int lower, int upper) { set(of_pairs(lower, upper)); }

    template <int R> static void zero() { std::memset(tiles_[R], 0, line_bytes * lines_[R]); }
    template <int R> static void load(const void *from, std::int64_t stride = line_bytes) {
        for (int n = 0; n < lines_[R]; n++)
            std::memcpy(tiles_[R][n], static_cast<const char *>(from) + n * stride, line_bytes);
    }
    template <int R> static void store(void *to, std::int64_t stride = line_bytes) {
        for (int n = 0; n < lines_[R]; n++)
            std::memcpy(static_cast<char *>(to) + n * stride, tiles_[R][n], line_bytes);
    }
    template <int C, int A, int B> static void multiply() {
        typedef std::int32_t Eight __attribute__((vector_size(32)));
        std::int32_t right[2][line_bytes][8]; // by lane, in eights
        for (int k = 0; k < line_bytes; k++)
            for (int lane = 0; lane < 16; lane++)
                right[lane / 8][k][lane % 8] = tiles_[B][k / 4][4 * lane + k % 4];
        for (int m = 0; m < lines_[A]; m++)
            for (int q = 0; q < 2; q++) {
                Eight sums;
                std::memcpy(&sums, tiles_[C][m] + 32 * q, sizeof sums);
                for (int k = 0; k < line_bytes; k++) {
                    Eight of_right;
                    std::memcpy(&of_right, right[q][k], sizeof of_right);
                    sums += of_right * tiles_[A][m][k];
                }
                std::memcpy(tiles_[C][m] + 32 * q, &sums, sizeof sums);
            }
    }
    template <int C, int A, int B> static void multiply_pairs() {
        using Words = VectorOf<std::uint32_t>::type;
        for (int m = 0; m < lines_[A]; m++) {
            Vector<float> sums, even = {}, odd = {};
            for (int k = 0; k < max_lines; k++) {
                std::uint32_t pair;
                std::memcpy(&pair, tiles_[A][m] + 4 * k, sizeof pair);
                Words w;
                std::memcpy(&w, tiles_[B][k], sizeof w);
                const Words x = pair - Words{};
                even += (Vector<float>)(x << 16) * (Vector<float>)(w << 16);
                odd += (Vector<float>)(x & 0xffff0000u) * (Vector<float>)(w & 0xffff0000u);
            }
            std::memcpy(&sums, tiles_[C][m], sizeof sums);
            sums += even + odd;
            std::memcpy(tiles_[C][m], &sums, sizeof sums);
        }
    }

  private:
    using Tile = std::int8_t[max_lines][line_bytes];

    static void set(const Lines &lines) {
        if (lines != lines_)
            std::memset(tiles_, 77, 8 * sizeof(Tile)); // the contents are lost
        lines_ = lines;
    }

    static inline thread_local Tile *tiles_ = nullptr;
    static inline thread_local Lines lines_{};
    Lines before_;
};

} // namespace anaphora::ANAPHORA_ISA
