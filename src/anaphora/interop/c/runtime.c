/* The parts of exported models, in C99: source.py takes the sections that a model needs, and puts the
   name of the model in place of "model". A section begins with its name and those that it needs. */

/* section float32: */
/* a * b + c, in one rounding where the processor has an instruction for it. */
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MODEL_MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MODEL_MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

/* section int8: */
/* a * b + c in one rounding everywhere, and no other operation is fused with one beside it: so all
   compilers and processors round the same numbers to the same integers. (GCC 12 vectorizes neighbors of
   alternating signs as fused operations, whatever fp-contract is.) */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-tree-slp-vectorize")
#endif
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MODEL_MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MODEL_MULTIPLY_ADD(a, b, c) ((float)((double)(a) * (double)(b) + (double)(c)))
#endif

/* section inline: */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math and -Ofast, which remove roundings that are needed here"
#endif
#if defined(__GNUC__)
#define MODEL_INLINE static inline __attribute__((always_inline))
#define MODEL_ALIGNED __attribute__((aligned(64)))
#else
#define MODEL_INLINE static inline
#define MODEL_ALIGNED
#endif

/* section bits: inline */
typedef union {
    float number;
    uint32_t bits;
} model_float;

MODEL_INLINE uint32_t model_to_bits(float x)
{
    model_float value;
    value.number = x;
    return value.bits;
}

MODEL_INLINE float model_from_bits(uint32_t bits)
{
    model_float value;
    value.bits = bits;
    return value.number;
}

/* section float32_product: inline */
/* As many numbers as a register of the processor has. (Those of AVX-512 hold 16, but small layers wait
   for results, and large ones for memory.) */
#if defined(__GNUC__) && defined(__AVX__)
#define MODEL_LANES 8
#elif defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__))
#define MODEL_LANES 4
#else
#define MODEL_LANES 1
#endif
#if MODEL_LANES > 1
typedef float model_lanes __attribute__((vector_size(4 * MODEL_LANES), aligned(4), may_alias));
#else
typedef float model_lanes;
#endif

#define MODEL_SUM(n, k) \
    if (count > n) \
        s##n += *(const model_lanes *)(weight + (k) * N + n * MODEL_LANES) * x[k];
#define MODEL_STORE(n) \
    if (count > n) \
        *(model_lanes *)(y + n * MODEL_LANES) = s##n;

/* A few registers of sums; weight and y begin at the first. */
MODEL_INLINE void model_sums(const float *restrict weight, const float *restrict x,
                             float *restrict y, int K, int N, int count)
{
    const model_lanes zero = {0.0f};
    model_lanes s0 = zero, s1 = zero, s2 = zero, s3 = zero, s4 = zero, s5 = zero, s6 = zero;
    model_lanes s7 = zero;
    for (int k = 0; k < K; k++) {
        MODEL_SUM(0, k)
        MODEL_SUM(1, k)
        MODEL_SUM(2, k)
        MODEL_SUM(3, k)
        MODEL_SUM(4, k)
        MODEL_SUM(5, k)
        MODEL_SUM(6, k)
        MODEL_SUM(7, k)
    }
    MODEL_STORE(0)
    MODEL_STORE(1)
    MODEL_STORE(2)
    MODEL_STORE(3)
    MODEL_STORE(4)
    MODEL_STORE(5)
    MODEL_STORE(6)
    MODEL_STORE(7)
}

MODEL_INLINE void model_block(const float *restrict weight, const float *restrict x,
                              float *restrict y, int K, int N)
{
    int n = 0;
    for (; n + 8 * MODEL_LANES <= N; n += 8 * MODEL_LANES)
        model_sums(weight + n, x, y + n, K, N, 8);
    if (n + MODEL_LANES <= N)
        model_sums(weight + n, x, y + n, K, N, N / MODEL_LANES % 8);
    n = N / MODEL_LANES * MODEL_LANES;
    if (n < N && n > 0) { /* the last ones overlap those before them */
        n = N - MODEL_LANES;
        model_sums(weight + n, x, y + n, K, N, 1);
        return;
    }
    for (; n < N; n++) {
        float sum = 0.0f;
        for (int k = 0; k < K; k++)
            sum += weight[k * N + n] * x[k];
        y[n] = sum;
    }
}

/* y[N] = weight x, for a weight that is stored in blocks of 64 outputs, [K, 64] each; the last block
   has the rest. */
MODEL_INLINE void model_product(const float *restrict weight, const float *restrict x,
                                float *restrict y, int K, int N)
{
    const int rest = N % 64;
    for (int n = 0; n < N - rest; n += 64)
        model_block(weight + n * K, x, y + n, K, 64);
    if (rest > 0)
        model_block(weight + (N - rest) * K, x, y + N - rest, K, rest);
}

/* section int8_product: bits */
/* Weights of 8 bits are stored in blocks of 64 outputs, of the last block the rest: of four inputs those
   of each output, [K / 4, 64, 4], with zeros where K is no multiple of 4. Integers are -127 to 127, and
   their sums exact, so that every processor may add them in its own way: to a register of MODEL_LANES
   sums, model_add adds the products of four weights each with the same four integers. */
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define MODEL_LANES 16
#define MODEL_OFFSET 128 /* of the weights, as one factor has no sign; the sums begin with less */
typedef __m512i model_sums;
#define MODEL_ALL(number) _mm512_set1_epi32(number)
MODEL_INLINE model_sums model_add(model_sums sums, const int8_t *weight, model_sums four)
{
    const __m512i sign = _mm512_set1_epi8(-128);
    return _mm512_dpbusd_epi32(sums, _mm512_xor_si512(_mm512_loadu_si512(weight), sign), four);
}

#elif defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_BIG_ENDIAN)
#include <arm_neon.h>
#define MODEL_LANES 4
typedef int32x4_t model_sums;
#define MODEL_ALL(number) vdupq_n_s32(number)
MODEL_INLINE model_sums model_add(model_sums sums, const int8_t *weight, model_sums four)
{
    return vdotq_s32(sums, vld1q_s8(weight), vreinterpretq_s8_s32(four));
}

#elif defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__)) \
    && !defined(__ARM_BIG_ENDIAN)
#if defined(__AVX512BW__)
#define MODEL_LANES 16
#elif defined(__AVX2__)
#define MODEL_LANES 8
#else
#define MODEL_LANES 4
#endif
typedef int32_t model_sums __attribute__((vector_size(4 * MODEL_LANES), aligned(4), may_alias));
typedef int16_t model_halves __attribute__((vector_size(4 * MODEL_LANES), aligned(4), may_alias));
#define MODEL_ALL(number) ((model_sums){0} + (number))
/* Two products fit into 16 bits. */
MODEL_INLINE model_sums model_add(model_sums sums, const int8_t *weight, model_sums four)
{
    const model_halves w = *(const model_halves *)weight, x = (model_halves)four;
    const model_sums pairs = (model_sums)(((w << 8) >> 8) * ((x << 8) >> 8) + (w >> 8) * (x >> 8));
    return sums + ((pairs << 16) >> 16) + (pairs >> 16);
}

#else
#define MODEL_LANES 1
#endif

#if !defined(MODEL_OFFSET)
#define MODEL_OFFSET 0
#endif
#if MODEL_LANES > 1
typedef int32_t __attribute__((may_alias)) model_word;

#define MODEL_SUM(n) \
    if (count > n) \
        s##n = model_add(s##n, weight + 4 * (k * N + n * MODEL_LANES), four);
#define MODEL_STORE(n) \
    if (count > n) \
        __builtin_memcpy(sums + n * MODEL_LANES, &s##n, sizeof s##n);

/* A few registers of sums; weight and sums begin at the first. K counts fours of inputs. */
MODEL_INLINE void model_registers(const int8_t *restrict weight, const int8_t *restrict integers,
                                  int32_t start, int32_t *restrict sums, int K, int N, int count)
{
    model_sums s0 = MODEL_ALL(start), s1 = s0, s2 = s0, s3 = s0;
    for (int k = 0; k < K; k++) {
        const model_sums four = MODEL_ALL(((const model_word *)(const void *)integers)[k]);
        MODEL_SUM(0)
        MODEL_SUM(1)
        MODEL_SUM(2)
        MODEL_SUM(3)
    }
    MODEL_STORE(0)
    MODEL_STORE(1)
    MODEL_STORE(2)
    MODEL_STORE(3)
}
#endif

/* sums[N] of a block [K, N, 4]. */
MODEL_INLINE void model_block(const int8_t *restrict weight, const int8_t *restrict integers,
                              int32_t start, int32_t *restrict sums, int K, int N)
{
    int n = 0;
#if MODEL_LANES > 1
    for (; n + 4 * MODEL_LANES <= N; n += 4 * MODEL_LANES)
        model_registers(weight + 4 * n, integers, start, sums + n, K, N, 4);
    if (n + MODEL_LANES <= N)
        model_registers(weight + 4 * n, integers, start, sums + n, K, N, N / MODEL_LANES % 4);
    n = N / MODEL_LANES * MODEL_LANES;
    if (n < N && n > 0) { /* the last ones overlap those before them */
        n = N - MODEL_LANES;
        model_registers(weight + 4 * n, integers, start, sums + n, K, N, 1);
        return;
    }
#else
    (void)start;
#endif
    for (; n < N; n++) {
        int32_t sum = 0;
        for (int k = 0; k < K; k++)
            for (int j = 0; j < 4; j++)
                sum += integers[4 * k + j] * weight[4 * (k * N + n) + j];
        sums[n] = sum;
    }
}

/* y[N] = weight x, for a weight of 8 bits with a scale for each output. x gets a scale of its own;
   integers are for those of x, as many as K in fours. */
MODEL_INLINE void model_product(const int8_t *restrict weight, const float *restrict scales,
                                const float *restrict x, int8_t *restrict integers,
                                float *restrict y, int K, int N)
{
    int32_t largest_bits = 0;
    for (int k = 0; k < K; k++) {
        const int32_t bits = (int32_t)(model_to_bits(x[k]) & 0x7fffffffu);
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float scale = 0.0f, factor = 0.0f;
    if (largest_bits >= 254 << 23) { /* 2^127 or more, or NaN */
        scale = model_from_bits(0x7fc00000u);
    } else if (largest_bits >= 27 << 23) { /* 2^-100 or more */
        const float largest = model_from_bits((uint32_t)largest_bits);
        scale = largest / 127.0f;
        factor = 127.0f / largest;
    }
    const int fours = (K + 3) / 4, rest = N % 64;
    int32_t start = 0, sums[64];
    for (int k = 0; k < K; k++) { /* the low byte of 1.5 * 2^23 + n is n */
        const uint32_t byte = model_to_bits(x[k] * factor + 12582912.0f) & 255u;
        const int32_t integer = (int32_t)(byte ^ 128u) - 128;
        integers[k] = (int8_t)integer;
        start -= MODEL_OFFSET * integer;
    }
    for (int k = K; k < 4 * fours; k++)
        integers[k] = 0;
    for (int n = 0; n < N - rest; n += 64) {
        model_block(weight + 4 * n * fours, integers, start, sums, fours, 64);
        for (int j = 0; j < 64; j++)
            y[n + j] = (float)sums[j] * (scale * scales[n + j]);
    }
    if (rest > 0) {
        const int n = N - rest;
        model_block(weight + 4 * n * fours, integers, start, sums, fours, rest);
        for (int j = 0; j < rest; j++)
            y[n + j] = (float)sums[j] * (scale * scales[n + j]);
    }
}

/* section exp_pieces: bits */
/* x = n ln 2 + r with |x| <= 88; exp(r) = 1 + r + r^2 tail. */
typedef struct {
    uint32_t shifted_n; /* n at the place of a float's exponent */
    float r, tail;
} model_pieces;

MODEL_INLINE model_pieces model_exp_pieces(float x)
{
    const float shifted = MODEL_MULTIPLY_ADD(x, 1.44269504f, 12582912.0f); /* 1.5 * 2^23 */
    const float n = shifted - 12582912.0f;
    model_pieces pieces;
    pieces.r = MODEL_MULTIPLY_ADD(-n, 0.693359375f, x);
    pieces.r = MODEL_MULTIPLY_ADD(-n, -2.12194440e-4f, pieces.r);
    float p = MODEL_MULTIPLY_ADD(pieces.r, 1.9875691500e-4f, 1.3981999507e-3f);
    p = MODEL_MULTIPLY_ADD(p, pieces.r, 8.3334519073e-3f);
    p = MODEL_MULTIPLY_ADD(p, pieces.r, 4.1665795894e-2f);
    p = MODEL_MULTIPLY_ADD(p, pieces.r, 1.6666665459e-1f);
    pieces.tail = MODEL_MULTIPLY_ADD(p, pieces.r, 5.0000001201e-1f);
    pieces.shifted_n = model_to_bits(shifted) << 23;
    return pieces;
}

/* section reciprocal: bits */
/* 1 / x for x from 1 to 1e38. */
MODEL_INLINE float model_reciprocal(float x)
{
    float y = model_from_bits(0x7ef31000u - model_to_bits(x)); /* within 5.1 % */
    float error = MODEL_MULTIPLY_ADD(-x, y, 1.0f);
    y = MODEL_MULTIPLY_ADD(y, MODEL_MULTIPLY_ADD(error, error, error), y);
    error = MODEL_MULTIPLY_ADD(-x, y, 1.0f);
    return MODEL_MULTIPLY_ADD(y, error, y);
}

/* section sigmoid: exp_pieces reciprocal */
/* 1 / (1 + exp(-x)), with e = exp(-|x|). */
MODEL_INLINE float model_sigmoid(float x)
{
    float size = model_from_bits(model_to_bits(x) | 0x80000000u);
    size = -88.0f > size ? -88.0f : size;
    const model_pieces pieces = model_exp_pieces(size);
    float e = MODEL_MULTIPLY_ADD(pieces.r * pieces.r, pieces.tail, pieces.r) + 1.0f;
    e = model_from_bits(model_to_bits(e) + pieces.shifted_n);
    const float y = model_reciprocal(1.0f + e);
    return x < 0.0f ? e * y : y;
}

/* section tanh: exp_pieces reciprocal */
/* e / (e + 2), with e = exp(2 |x|) - 1. */
MODEL_INLINE float model_tanh(float x)
{
    const uint32_t bits = model_to_bits(x);
    float size = model_from_bits(bits & 0x7fffffffu);
    size = 9.1f < size ? 9.1f : size;
    const model_pieces pieces = model_exp_pieces(size + size);
    const float power = model_from_bits(0x3f800000u + pieces.shifted_n);
    float e = MODEL_MULTIPLY_ADD(pieces.r * pieces.r, pieces.tail, pieces.r);
    e = MODEL_MULTIPLY_ADD(e, power, power - 1.0f);
    e = e * model_reciprocal(e + 2.0f);
    return model_from_bits(model_to_bits(e) | (bits & 0x80000000u));
}

/* section exp: bits */
MODEL_INLINE float model_exp(float x)
{
    float inside = x > 88.72283f ? 88.72283f : x;
    inside = inside < -87.33654f ? -87.33654f : inside;
    const float shifted = MODEL_MULTIPLY_ADD(inside, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    float r = MODEL_MULTIPLY_ADD(-n, 0.693359375f, inside);
    r = MODEL_MULTIPLY_ADD(-n, -2.12194440e-4f, r);
    float p = MODEL_MULTIPLY_ADD(r, 1.9875691500e-4f, 1.3981999507e-3f);
    p = MODEL_MULTIPLY_ADD(p, r, 8.3334519073e-3f);
    p = MODEL_MULTIPLY_ADD(p, r, 4.1665795894e-2f);
    p = MODEL_MULTIPLY_ADD(p, r, 1.6666665459e-1f);
    p = MODEL_MULTIPLY_ADD(p, r, 5.0000001201e-1f);
    p = MODEL_MULTIPLY_ADD(p, r * r, r) + 1.0f;
    /* 2^n in two halves, so that neither overflows. */
    const uint32_t exponent = model_to_bits(shifted) - 0x4b400000u + 256u; /* n + 256 */
    const uint32_t half = (exponent >> 1) - 128u;
    float y = p * model_from_bits((half + 127u) << 23);
    y = y * model_from_bits((exponent - 256u - half + 127u) << 23);
    y = x > 88.72283f ? model_from_bits(0x7f800000u) : y;
    y = x < -87.33654f ? 0.0f : y;
    return x == x ? y : x;
}

/* section log: bits */
/* x = 2^e m with m from sqrt(1/2) to sqrt(2); log(m) = 2 artanh(s), s = (m - 1) / (m + 1). */
MODEL_INLINE float model_log(float x)
{
    const uint32_t shifted = model_to_bits(x) - 0x3f3504f3u; /* sqrt(1/2) */
    const int32_t exponent = (int32_t)((shifted >> 23) ^ 256u) - 256;
    const float m = model_from_bits(model_to_bits(x) - ((uint32_t)exponent << 23));
    const float e = (float)exponent, s = (m - 1.0f) / (m + 1.0f), z = s * s;
    float p = MODEL_MULTIPLY_ADD(z, 1.0f / 9.0f, 1.0f / 7.0f);
    p = MODEL_MULTIPLY_ADD(p, z, 1.0f / 5.0f);
    p = MODEL_MULTIPLY_ADD(p, z, 1.0f / 3.0f);
    const float tail = (s + s) * (z * p);
    float y = MODEL_MULTIPLY_ADD(e, -2.12194440e-4f, tail) + (s + s);
    y = MODEL_MULTIPLY_ADD(e, 0.693359375f, y);
    y = x < 1.17549435e-38f ? model_from_bits(0xff800000u) : y; /* denormals count as 0 */
    y = x < 0.0f ? model_from_bits(0x7fc00000u) : y;
    y = x == model_from_bits(0x7f800000u) ? x : y;
    return x == x ? y : x;
}

/* section softplus: exp log */
/* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)). */
MODEL_INLINE float model_softplus(float x)
{
    const float e = model_exp(x < 0.0f ? x : -x), w = 1.0f + e;
    const float small = model_log(w) + (e - (w - 1.0f)) / w;
    return (x < 0.0f ? 0.0f : x) + small;
}

/* section relu: inline */
MODEL_INLINE float model_relu(float x) { return x < 0.0f ? 0.0f : x; }

/* section abs: inline */
MODEL_INLINE float model_abs(float x) { return x < 0.0f ? -x : x; }

/* section maximum: inline */
MODEL_INLINE float model_maximum(float a, float b)
{
    const float larger = a > b ? a : b;
    return a == a ? larger : a;
}

/* section minimum: inline */
MODEL_INLINE float model_minimum(float a, float b)
{
    const float smaller = a < b ? a : b;
    return a == a ? smaller : a;
}

/* section sign: inline */
MODEL_INLINE float model_sign(float x)
{
    float y = x > 0.0f ? 1.0f : 0.0f;
    y = x < 0.0f ? -1.0f : y;
    return x == x ? y : x;
}

/* section layer_norm: bits */
MODEL_INLINE float model_sum(const float *partial)
{
    float sum = partial[0];
    for (int j = 1; j < 16; j++)
        sum += partial[j];
    return sum;
}

MODEL_INLINE float model_square_root(float x)
{
    double y = (double)model_from_bits(0x5f375a86u - (model_to_bits(x) >> 1)); /* 1 / root */
    for (int step = 0; step < 4; step++)
        y = y * (1.5 - 0.5 * (double)x * y * y);
    const double root = (double)x * y;
    return (float)(root + 0.5 * y * ((double)x - root * root));
}

/* y = (x - mean) / sqrt(variance + epsilon) * weight + bias. */
MODEL_INLINE void model_normalize(const float *restrict x, const float *restrict weight,
                                  const float *restrict bias, float epsilon, float *restrict y,
                                  int N)
{
    float partial[16] = {0.0f};
    for (int n = 0; n < N; n++)
        partial[n % 16] += x[n];
    const float mean = model_sum(partial) / (float)N;
    for (int j = 0; j < 16; j++)
        partial[j] = 0.0f;
    for (int n = 0; n < N; n++)
        partial[n % 16] = MODEL_MULTIPLY_ADD(x[n] - mean, x[n] - mean, partial[n % 16]);
    const float factor = 1.0f / model_square_root(model_sum(partial) / (float)N + epsilon);
    for (int n = 0; n < N; n++)
        y[n] = MODEL_MULTIPLY_ADD((x[n] - mean) * factor, weight[n], bias[n]);
}

/* section softmax: exp */
MODEL_INLINE void model_shares(const float *scores, float *shares, int N)
{
    float largest = scores[0], partial[16] = {0.0f};
    for (int n = 1; n < N; n++)
        largest = scores[n] > largest ? scores[n] : largest;
    for (int n = 0; n < N; n++) {
        shares[n] = model_exp(scores[n] - largest);
        partial[n % 16] += shares[n];
    }
    float total = partial[0];
    for (int j = 1; j < 16; j++)
        total += partial[j];
    const float factor = 1.0f / total;
    for (int n = 0; n < N; n++)
        shares[n] *= factor;
}

/* section sample: */
static double model_exp_double(double x)
{
    union {
        double number;
        uint64_t bits;
    } shifted, power;
    if (!(x > -708.0)) /* x is at most 0 */
        return 0.0;
    shifted.number = x * 1.44269504088896340736 + 6755399441055744.0; /* 1.5 * 2^52 */
    const double n = shifted.number - 6755399441055744.0;
    const double r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    double p = 1.0;
    for (int k = 13; k > 0; k--)
        p = p * r / k + 1.0;
    power.bits = (shifted.bits + 1023u) << 52;
    return p * power.number;
}

/* Whether token a comes before token b in the order of their scores. */
static int model_likelier(const float *scores, int32_t a, int32_t b)
{
    return scores[a] > scores[b] || (!(scores[a] < scores[b]) && a < b);
}

/* Restores a heap whose top is the least likely of its tokens, from a place on. */
static void model_sift(const float *scores, int32_t *heap, int32_t place, int32_t size)
{
    for (int32_t child; (child = 2 * place + 1) < size; place = child) {
        if (child + 1 < size && model_likelier(scores, heap[child], heap[child + 1]))
            child++;
        if (!model_likelier(scores, heap[place], heap[child]))
            return;
        const int32_t swapped = heap[place];
        heap[place] = heap[child];
        heap[child] = swapped;
    }
}

int32_t model_sample(const float *scores, double temperature, int32_t top_k, double top_p,
                     double uniform)
{
    int32_t order[MODEL_VOCABULARY_SIZE], best = 0;
    const int32_t size = MODEL_VOCABULARY_SIZE;
    for (int32_t n = 0; n < size; n++) {
        if (!(scores[n] <= 3.402823466e38f)) /* NaN or infinite */
            return -1;
        best = scores[n] > scores[best] ? n : best;
    }
    if (!(scores[best] >= -3.402823466e38f))
        return -1;
    if (!(temperature > 0.0))
        return best;
    const int ranked = top_k > 0 || top_p < 1.0;
    const int32_t count = top_k > 0 && top_k < size ? top_k : size;
    for (int32_t n = 0; n < size; n++)
        order[n] = n;
    if (ranked) {
        for (int32_t place = size / 2; place-- > 0;)
            model_sift(scores, order, place, size);
        for (int32_t end = size; end-- > 1;) { /* the least likely goes to the end */
            const int32_t least = order[0];
            order[0] = order[end];
            order[end] = least;
            model_sift(scores, order, 0, end);
        }
    }
    double total = 0.0;
    for (int32_t k = 0; k < count; k++)
        total += model_exp_double(((double)scores[order[k]] - (double)scores[best]) / temperature);
    double threshold = uniform * total;
    if (top_p < 1.0) { /* of the tokens whose shares reach top_p */
        double sum = 0.0;
        for (int32_t k = 0; k < count && sum < top_p * total; k++)
            sum +=
                model_exp_double(((double)scores[order[k]] - (double)scores[best]) / temperature);
        threshold = uniform * sum;
    }
    double sum = 0.0;
    for (int32_t k = 0; k < count - 1; k++) {
        sum += model_exp_double(((double)scores[order[k]] - (double)scores[best]) / temperature);
        if (sum > threshold)
            return order[k];
    }
    return order[count - 1];
}
