// Dropout whose random numbers are a function of key and position: Philox4x32-10 (Salmon, Moraes,
// Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include "weight.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace anaphora::ANAPHORA_ISA {

// 64-bit lanes, each with a 32-bit word in its low half; the high half is ignored.
typedef std::uint64_t Words __attribute__((vector_size(ANAPHORA_VECTOR_BYTES)));
inline constexpr int word_lanes = ANAPHORA_VECTOR_BYTES / 8;
inline constexpr std::uint64_t low_half = 0xffffffff;

// The 64-bit product of each word and a number below 2^32. (GCC would multiply 64 by 64 bits. The
// masked intrinsic is the same instruction as the plain one, for which GCC 12 warns.)
ANAPHORA_INLINE Words word_product(Words a, std::uint64_t b) {
    Words factor = b - Words{};
#if ANAPHORA_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)factor);
#elif ANAPHORA_VECTOR_BYTES == 32 && defined(__AVX2__)
    return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)factor);
#elif ANAPHORA_VECTOR_BYTES == 16 && defined(__SSE2__)
    return (Words)_mm_mul_epu32((__m128i)a, (__m128i)factor);
#else
    return (a & low_half) * factor;
#endif
}

// Ten rounds on a counter of four words, in place.
ANAPHORA_INLINE void philox(Words (&counter)[4], std::uint64_t key) {
    std::uint64_t key0 = key & low_half, key1 = key >> 32;
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        Words first = word_product(counter[0], 0xD2511F53);
        Words second = word_product(counter[2], 0xCD9E8D57);
        counter[0] = (second >> 32) ^ counter[1] ^ key0;
        counter[1] = second;
        counter[2] = (first >> 32) ^ counter[3] ^ key1;
        counter[3] = first;
        key0 = (key0 + 0x9E3779B9) & low_half;
        key1 = (key1 + 0xBB67AE85) & low_half;
    }
}

inline constexpr int words_in_group = 64; // random words that are generated together

// The words of elements 64 * group ... 64 * group + 63: first word 0 of the 16 counters from
// 16 * group on, then word 1 of each, and so on.
ANAPHORA_INLINE void random_words(std::uint64_t group, std::uint64_t key, std::uint32_t *words) {
    Words lane;
    for (int k = 0; k < word_lanes; k++)
        lane[k] = 2 * k;
#pragma GCC unroll 1
    for (int at = 0; at < 16; at += 2 * word_lanes) {
        // Even and odd counters, so that a pair of words fills a lane.
        Words even[4] = {}, odd[4] = {};
        even[0] = lane + (16 * group + at);
        odd[0] = even[0] + 1;
        even[1] = odd[1] = even[0] >> 32;
        philox(even, key);
        philox(odd, key);
        for (int word = 0; word < 4; word++) {
            Words pair = (even[word] & low_half) | (odd[word] << 32);
            std::memcpy(words + 16 * word + at, &pair, sizeof pair);
        }
    }
}

template <class T>
void dropout(std::int64_t repeats, std::int64_t n, const T *x, std::uint64_t key,
             std::uint32_t threshold, T factor, T *y) {
    constexpr std::int64_t block = 4096;
    static_assert(block % words_in_group == 0);
    parallel((n + block - 1) / block, [=](std::int64_t task) {
        T mask[words_in_group],
            kept = factor; // a local, which may be loaded speculatively
        std::uint32_t words[words_in_group];
        std::int64_t last = std::min(n, (task + 1) * block);
        for (std::int64_t begin = task * block; begin < last; begin += words_in_group) {
            random_words(static_cast<std::uint64_t>(begin / words_in_group), key, words);
            for (int k = 0; k < words_in_group; k++)
                mask[k] = words[k] >= threshold ? kept : T(0);
            std::int64_t count = std::min<std::int64_t>(words_in_group, last - begin);
            for (std::int64_t r = 0; r < repeats; r++) {
                const T *from = x + r * n + begin;
                T *to = y + r * n + begin;
                if (count == words_in_group)
                    for (int k = 0; k < words_in_group; k++)
                        to[k] = from[k] * mask[k];
                else
                    for (std::int64_t k = 0; k < count; k++)
                        to[k] = from[k] * mask[k];
            }
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
