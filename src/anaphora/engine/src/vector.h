// Portable vectors: this file and all that include it are compiled once for each instruction set,
// with ANAPHORA_ISA naming the namespace and ANAPHORA_VECTOR_BYTES the width.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#define ANAPHORA_INLINE inline __attribute__((always_inline))

// Before a loop whose arrays do not overlap: it is vectorised whatever their addresses, so that its
// bits do not depend on them.
#if defined(__clang__)
#define ANAPHORA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ANAPHORA_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace anaphora::ANAPHORA_ISA {

template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(ANAPHORA_VECTOR_BYTES)));
};

template <class T> using Vector = typename VectorOf<T>::type;
template <class T> inline constexpr int lanes = ANAPHORA_VECTOR_BYTES / sizeof(T);

template <class T> ANAPHORA_INLINE Vector<T> load(const T *from) {
    Vector<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// A vector of which n numbers, at most all, are at an address; zeros after them.
template <class T> ANAPHORA_INLINE Vector<T> load_some(const T *from, std::int64_t n) {
    if (n >= lanes<T>)
        return load(from);
    Vector<T> v{};
    if (n > 0)
        std::memcpy(&v, from, n * sizeof(T));
    return v;
}

template <class T> ANAPHORA_INLINE void store(T *to, Vector<T> v) { std::memcpy(to, &v, sizeof v); }

// The first n numbers of a vector, at most all.
template <class T> ANAPHORA_INLINE void store_some(T *to, Vector<T> v, std::int64_t n) {
    if (n >= lanes<T>)
        store(to, v);
    else
        std::memcpy(to, &v, n * sizeof(T));
}

// One number in every lane. (x - 0 is x for every x, so nothing is computed; 0 + x is not x for
// -0.)
template <class T> ANAPHORA_INLINE Vector<T> broadcast(T value) { return value - Vector<T>{}; }

// n numbers of T, rounded up to cache lines.
template <class T> inline std::int64_t padded(std::int64_t n) {
    constexpr std::int64_t line = 64 / sizeof(T);
    return (n + line - 1) / line * line;
}

// Lanes of x and y where bit `Distance` of their numbers is clear (Odd: set), side by side.
template <int Distance, bool Odd, class V, int... Lane>
ANAPHORA_INLINE V interleaved(V x, V y, std::integer_sequence<int, Lane...>) {
    constexpr int W = sizeof...(Lane);
    return __builtin_shufflevector(x, y,
                                   ((Lane & Distance) == 0 ? Lane + (Odd ? Distance : 0)
                                                           : W + Lane - (Odd ? 0 : Distance))...);
}

// Rows to columns, W by W: each step exchanges blocks of `Distance` lanes.
template <class T, int Distance = 1> ANAPHORA_INLINE void transpose_lanes(Vector<T> *rows) {
    constexpr int W = lanes<T>;
    if constexpr (Distance < W) {
        constexpr auto all = std::make_integer_sequence<int, W>();
#pragma GCC unroll 16
        for (int i = 0; i < W; i++)
            if ((i & Distance) == 0) {
                Vector<T> x = rows[i], y = rows[i + Distance];
                rows[i] = interleaved<Distance, false>(x, y, all);
                rows[i + Distance] = interleaved<Distance, true>(x, y, all);
            }
        transpose_lanes<T, 2 * Distance>(rows);
    }
}

// Elementwise functions of one vector ------------------------------------------------------------

template <class T> struct Float;

template <> struct Float<float> {
    using Int = std::int32_t;
    using Unsigned = std::uint32_t;
    static constexpr int mantissa = 23;
    static constexpr Int bias = 127;
    static constexpr float exp_high = 88.72283f, exp_low = -87.33654f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float round = 12582912.0f; // 1.5 * 2^23
};

template <> struct Float<double> {
    using Int = std::int64_t;
    using Unsigned = std::uint64_t;
    static constexpr int mantissa = 52;
    static constexpr Int bias = 1023;
    static constexpr double exp_high = 709.782712893384, exp_low = -708.396418532264;
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
    static constexpr double round = 6755399441055744.0; // 1.5 * 2^52
};

// The smaller or the larger of two numbers, y where one is NaN: one instruction, which GCC does not
// find by itself.
ANAPHORA_INLINE Vector<float> smaller(Vector<float> x, Vector<float> y) {
#if defined(__AVX512F__) && ANAPHORA_VECTOR_BYTES == 64
    return _mm512_maskz_min_ps(0xffff, x, y);
#elif defined(__AVX__) && ANAPHORA_VECTOR_BYTES == 32
    return _mm256_min_ps(x, y);
#else
    return x < y ? x : y;
#endif
}
ANAPHORA_INLINE Vector<float> larger(Vector<float> x, Vector<float> y) {
#if defined(__AVX512F__) && ANAPHORA_VECTOR_BYTES == 64
    return _mm512_maskz_max_ps(0xffff, x, y);
#elif defined(__AVX__) && ANAPHORA_VECTOR_BYTES == 32
    return _mm256_max_ps(x, y);
#else
    return x > y ? x : y;
#endif
}

// exp(x): x = n ln 2 + r, a polynomial for exp(r), and 2^n by its bits.
template <class T> ANAPHORA_INLINE Vector<T> vexp(Vector<T> x) {
    using F = Float<T>;
    using I = Vector<typename F::Int>;
    Vector<T> clamped = x > F::exp_high ? broadcast<T>(F::exp_high) : x;
    clamped = clamped < F::exp_low ? broadcast<T>(F::exp_low) : clamped;
    Vector<T> shifted = clamped * T(1.44269504088896340736) + F::round;
    Vector<T> n = shifted - F::round;
    Vector<T> r = clamped - n * F::ln2_high;
    r = r - n * F::ln2_low;
    Vector<T> p;
    if constexpr (sizeof(T) == 4) {
        p = r * 1.9875691500e-4f + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * (r * r) + r + 1.0f;
    } else { // Taylor series to r^13: |r| < 0.3466, so the remainder is below 1e-17
        p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
        p = p * r + 1.0 / 39916800.0;
        p = p * r + 1.0 / 3628800.0;
        p = p * r + 1.0 / 362880.0;
        p = p * r + 1.0 / 40320.0;
        p = p * r + 1.0 / 5040.0;
        p = p * r + 1.0 / 720.0;
        p = p * r + 1.0 / 120.0;
        p = p * r + 1.0 / 24.0;
        p = p * r + 1.0 / 6.0;
        p = p * r + 0.5;
        p = p * (r * r) + r + 1.0;
    }
    // The low bits of `shifted` hold n; 2^n in two halves, so that neither overflows.
    I bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    typename F::Int base;
    T round = F::round;
    std::memcpy(&base, &round, sizeof base);
    I exponent = bits - base;
    I half = exponent >> 1;
    I first = (half + F::bias) << F::mantissa, second = (exponent - half + F::bias) << F::mantissa;
    Vector<T> scale1, scale2;
    std::memcpy(&scale1, &first, sizeof scale1);
    std::memcpy(&scale2, &second, sizeof scale2);
    Vector<T> y = p * scale1 * scale2;
    y = x > F::exp_high ? broadcast<T>(std::numeric_limits<T>::infinity()) : y;
    y = x < F::exp_low ? broadcast<T>(0) : y;
    return x == x ? y : x;
}

// The pieces of exp(x), or of exp(2 x), in float32 for at most 88 in size: n ln 2 + r.
struct ExpPieces {
    Vector<std::int32_t> shifted_n; // n, at the position of the exponent bits
    Vector<float> r, tail;          // exp(r) = 1 + r + r^2 tail
};

template <bool Twice> ANAPHORA_INLINE ExpPieces exp_pieces(Vector<float> x) {
    using F = Float<float>;
    Vector<float> shifted = x * ((Twice ? 2 : 1) * 1.44269504088896340736f) + F::round;
    Vector<float> n = shifted - F::round;
    Vector<float> r = (Twice ? x + x : x) - n * F::ln2_high;
    r = r - n * F::ln2_low;
    Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    // The low bits of `shifted` hold n; the others are shifted out.
    return {reinterpret_cast<Vector<std::int32_t>>(shifted) << F::mantissa, r, p};
}

// 1 / x in float32 for x from 1 to 1e38, without the slow division: an initial guess from the bits
// (within 5.1 %), a step that cubes its error, and one that squares it.
ANAPHORA_INLINE Vector<float> reciprocal(Vector<float> x) {
    using I = Vector<std::int32_t>;
    Vector<float> y = reinterpret_cast<Vector<float>>(0x7ef31000 - reinterpret_cast<I>(x));
    Vector<float> error = 1.0f - x * y;
    y = y + y * (error + error * error);
    error = 1.0f - x * y;
    return y + y * error;
}

inline constexpr std::int32_t sign_bit = std::numeric_limits<std::int32_t>::min();

// 1 / (1 + exp(-x)). In float32 with e = exp(-|x|) it is 1 / (1 + e), or e / (1 + e) for x < 0.
template <class T> ANAPHORA_INLINE Vector<T> vsigmoid(Vector<T> x) {
    if constexpr (sizeof(T) == 4) {
        using I = Vector<std::int32_t>;
        Vector<float> size = reinterpret_cast<Vector<float>>(reinterpret_cast<I>(x) | sign_bit);
        size = larger(broadcast(-88.0f), size); // beyond it e is denormal, and so 0
        auto [n, r, tail] = exp_pieces<false>(size);
        Vector<float> e = r * r * tail + r + 1.0f;
        e = reinterpret_cast<Vector<float>>(reinterpret_cast<I>(e) + n);
        return (x < 0.0f ? e : broadcast(1.0f)) * reciprocal(1.0f + e);
    } else
        return T(1) / (T(1) + vexp<T>(-x));
}

// tanh(x). In float32 it is e / (e + 2) with e = exp(2 |x|) - 1, where nothing cancels near 0; in
// float64 near 0 a rational function (Cephes), else 1 - 2 / (exp(2 |x|) + 1).
template <class T> ANAPHORA_INLINE Vector<T> vtanh(Vector<T> x) {
    if constexpr (sizeof(T) == 4) {
        using I = Vector<std::int32_t>;
        I bits = reinterpret_cast<I>(x), sign = bits & sign_bit;
        Vector<float> size = reinterpret_cast<Vector<float>>(bits & ~sign_bit),
                      one = broadcast(1.0f);
        size = smaller(broadcast(9.1f), size); // beyond it the result is 1
        auto [n, r, tail] = exp_pieces<true>(size);
        Vector<float> scale = reinterpret_cast<Vector<float>>(reinterpret_cast<I>(one) + n);
        Vector<float> e = (r * r * tail + r) * scale + (scale - 1.0f);
        e = e * reciprocal(e + 2.0f);
        return reinterpret_cast<Vector<float>>(reinterpret_cast<I>(e) | sign);
    } else {
        Vector<T> size = x < T(0) ? -x : x;
        Vector<T> far = T(1) - T(2) / (vexp<T>(size + size) + T(1));
        far = x < T(0) ? -far : far;
        Vector<T> z = x * x;
        Vector<T> p = z * -9.64399179425052238628e-1 + -9.92877231001918586564e1;
        p = p * z + -1.61468768441708447952e3;
        Vector<T> q = z + 1.12811678491632931402e2;
        q = q * z + 2.23548839060100448583e3;
        q = q * z + 4.84406305325125486048e3;
        Vector<T> near = x + x * (z * (p / q));
        return size < T(0.625) ? near : far;
    }
}

// log(x) for x > 0: x = 2^e m with m in sqrt(1/2)..sqrt(2), and log(m) = 2 artanh((m-1)/(m+1)).
template <class T> ANAPHORA_INLINE Vector<T> vlog(Vector<T> x) {
    using F = Float<T>;
    using I = Vector<typename F::Int>;
    using U = Vector<typename F::Unsigned>; // unsigned, since the bits overflow for x < 0 (the
                                            // result is NaN)
    U bits;
    std::memcpy(&bits, &x, sizeof bits);
    typename F::Unsigned one;
    T half_root = T(0.70710678118654752440);
    std::memcpy(&one, &half_root, sizeof one);
    I exponent = reinterpret_cast<I>(bits - one) >> F::mantissa;
    U mantissa_bits = bits - (reinterpret_cast<U>(exponent) << F::mantissa);
    Vector<T> m;
    std::memcpy(&m, &mantissa_bits, sizeof m);
    Vector<T> e = __builtin_convertvector(exponent, Vector<T>);
    Vector<T> s = (m - T(1)) / (m + T(1)), z = s * s, p;
    if constexpr (sizeof(T) == 4) {
        p = z * (1.0f / 9) + 1.0f / 7;
        p = p * z + 1.0f / 5;
        p = p * z + 1.0f / 3;
    } else {
        p = z * (1.0 / 21) + 1.0 / 19;
        p = p * z + 1.0 / 17;
        p = p * z + 1.0 / 15;
        p = p * z + 1.0 / 13;
        p = p * z + 1.0 / 11;
        p = p * z + 1.0 / 9;
        p = p * z + 1.0 / 7;
        p = p * z + 1.0 / 5;
        p = p * z + 1.0 / 3;
    }
    Vector<T> y = e * F::ln2_low + (s + s) * (z * p) + (s + s) + e * F::ln2_high;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    y = x < std::numeric_limits<T>::min() ? broadcast<T>(-infinity) : y; // 0, and denormals as 0
    y = x < T(0) ? broadcast<T>(std::numeric_limits<T>::quiet_NaN()) : y;
    y = x == infinity ? x : y;
    return x == x ? y : x;
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)).
template <class T> ANAPHORA_INLINE Vector<T> vsoftplus(Vector<T> x) {
    Vector<T> u = vexp<T>(x < T(0) ? x : -x);
    Vector<T> w = T(1) + u;
    Vector<T> log1p = vlog<T>(w) + (u - (w - T(1))) / w;
    return (x < T(0) ? broadcast<T>(0) : x) + log1p;
}

template <class T> ANAPHORA_INLINE Vector<T> vsign(Vector<T> x) {
    Vector<T> y = x > T(0) ? broadcast<T>(1) : broadcast<T>(0);
    y = x < T(0) ? broadcast<T>(-1) : y;
    return x == x ? y : x;
}

} // namespace anaphora::ANAPHORA_ISA
