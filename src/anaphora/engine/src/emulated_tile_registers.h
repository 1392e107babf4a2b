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

class TileRegisters {
  public:
    static constexpr int max_lines = 16, line_bytes = 64;

    explicit TileRegisters(int lines = max_lines) : before_(lines_) {
        static thread_local Scratch scratch;
        tiles_ = scratch.get<Tile>(8);
        set_lines(lines);
    }
    ~TileRegisters() { set_lines(before_); }
    TileRegisters(const TileRegisters &) = delete;
    TileRegisters &operator=(const TileRegisters &) = delete;

    void set_lines(int lines) {
        if (lines != lines_)
            std::memset(tiles_, 77, 8 * sizeof(Tile)); // the contents are lost
        lines_ = lines;
    }

    template <int R> static void zero() { std::memset(tiles_[R], 0, bytes(R)); }
    template <int R> static void load(const void *from) { std::memcpy(tiles_[R], from, bytes(R)); }
    template <int R> static void store(void *to) { std::memcpy(to, tiles_[R], bytes(R)); }
    template <int C, int A, int B> static void multiply() {
        typedef std::int32_t Eight __attribute__((vector_size(32)));
        std::int32_t right[2][line_bytes][8]; // by lane, in eights
        for (int k = 0; k < line_bytes; k++)
            for (int lane = 0; lane < 16; lane++)
                right[lane / 8][k][lane % 8] = tiles_[B][k / 4][4 * lane + k % 4];
        for (int m = 0; m < lines_; m++)
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

  private:
    using Tile = std::int8_t[max_lines][line_bytes];

    static std::size_t bytes(int r) { return line_bytes * (r == 7 ? max_lines : lines_); }

    static inline thread_local Tile *tiles_ = nullptr;
    static inline thread_local int lines_ = 0;
    int before_;
};

} // namespace anaphora::ANAPHORA_ISA
