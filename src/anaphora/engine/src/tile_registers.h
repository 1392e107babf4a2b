// The tile registers of AMX, eight, each of up to 16 lines of 64 bytes, and the other instructions
// that fixed point needs.
#pragma once

#include "vector.h"

#if defined(ANAPHORA_HAS_TILES) // vectors of 64 bytes only

namespace anaphora::ANAPHORA_ISA {

using Ints = VectorOf<std::int32_t>::type;

} // namespace anaphora::ANAPHORA_ISA

#if defined(ANAPHORA_EMULATES_TILES)
#include "emulated_tile_registers.h"
#else

namespace anaphora::ANAPHORA_ISA {

// x * 2^n, rounded only where the result must be.
ANAPHORA_INLINE Vector<float> times_power(Vector<float> x, Vector<float> n) {
    Vector<float> y;
    asm("vscalefps %2, %1, %0" : "=v"(y) : "v"(x), "v"(n));
    return y;
}

// The nearest integers, ties to even.
ANAPHORA_INLINE Ints to_integers(Vector<float> x) {
    Ints integers;
    asm("vcvtps2dq %1, %0" : "=v"(integers) : "v"(x));
    return integers;
}

// sums + four products in each lane, of unsigned bytes x and signed bytes w.
ANAPHORA_INLINE Ints add_products(Ints sums, Ints x, Ints w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
    return sums;
}

// Configures the tile registers of this thread for its lifetime: 0 to 6 with so many lines, for a
// left operand; 7 with 16, for a right operand. Fewer lines take less time. A nested one restores
// the outer one's number of lines on destruction, but not the contents.
class TileRegisters {
  public:
    static constexpr int max_lines = 16;

    explicit TileRegisters(int lines = max_lines) : before_(current()) { set_lines(lines); }
    ~TileRegisters() {
        if (before_ > 0)
            set_lines(before_);
        else {
            asm volatile("tilerelease");
            current() = 0;
        }
    }
    TileRegisters(const TileRegisters &) = delete;
    TileRegisters &operator=(const TileRegisters &) = delete;

    // The contents of the registers are lost.
    void set_lines(int lines) {
        if (lines == current())
            return;
        current() = lines;
        struct {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t lines[16] = {0, 0, 0, 0, 0, 0, 0, max_lines};
        } shape;
        for (int r = 0; r < 7; r++)
            shape.lines[r] = static_cast<std::uint8_t>(lines);
        asm volatile("ldtilecfg %0" ::"m"(shape));
    }

    template <int R> static ANAPHORA_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(R));
    }
    // Lines of 64 bytes, contiguous.
    template <int R> static ANAPHORA_INLINE void load(const void *from) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(std::int64_t{64}), "i"(R)
                     : "memory");
    }
    template <int R> static ANAPHORA_INLINE void store(void *to) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(std::int64_t{64}), "i"(R)
                     : "memory");
    }
    // C += A B of int8, in int32.
    template <int C, int A, int B> static ANAPHORA_INLINE void multiply() {
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }

  private:
    static int &current() {
        static thread_local int lines = 0;
        return lines;
    }
    int before_;
};

} // namespace anaphora::ANAPHORA_ISA

#endif

namespace anaphora::ANAPHORA_ISA {

using Bits = VectorOf<std::uint32_t>::type;

// to [16, 16] = the transpose of 16 x 16 words.
inline void transpose(const void *words, void *to) {
    typedef std::uint32_t Four __attribute__((vector_size(16)));
    for (int q = 0; q < 16; q += 4) { // four columns become four lines
        auto four = [&](int line) {
            Four found;
            std::memcpy(&found, static_cast<const std::uint32_t *>(words) + line * 16 + q, 16);
            return found;
        };
        Bits v[4];
        for (int i = 0; i < 4; i++) {
            auto low = __builtin_shufflevector(four(i), four(i + 4), 0, 1, 2, 3, 4, 5, 6, 7);
            auto high = __builtin_shufflevector(four(i + 8), four(i + 12), 0, 1, 2, 3, 4, 5, 6, 7);
            v[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                           14, 15);
        }
        auto low_words = [](Bits a, Bits b) {
            return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28,
                                           13, 29);
        };
        auto high_words = [](Bits a, Bits b) {
            return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30,
                                           15, 31);
        };
        auto low_pairs = [](Bits a, Bits b) {
            return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13,
                                           28, 29);
        };
        auto high_pairs = [](Bits a, Bits b) {
            return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15,
                                           30, 31);
        };
        Bits a = low_words(v[0], v[1]), b = high_words(v[0], v[1]);
        Bits c = low_words(v[2], v[3]), d = high_words(v[2], v[3]);
        Bits lines[4] = {low_pairs(a, c), high_pairs(a, c), low_pairs(b, d), high_pairs(b, d)};
        std::memcpy(static_cast<Bits *>(to) + q, lines, sizeof lines);
    }
}

} // namespace anaphora::ANAPHORA_ISA

#endif
