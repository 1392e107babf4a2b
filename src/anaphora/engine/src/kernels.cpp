// The kernels of one instruction set; compiled once for each.
#include "kernels.h"
#include "batches.h"
#include "crf.h"
#include "ctc.h"
#include "dropout.h"
#include "fixed.h"
#include "normalization.h"
#include "recurrence.h"
#include "rows.h"
#include "softmax.h"
#include "steps.h"
#include "updates.h"

#include <chrono>

namespace anaphora::ANAPHORA_ISA {
namespace {

double peak() {
    constexpr int chains = many_registers ? 24 : 12;
    Vector<float> sums[chains] = {};
    Vector<float> x = broadcast<float>(0.999f), y = broadcast<float>(1e-3f);
    double best = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        asm volatile("" : "+m"(x), "+m"(y));
        Vector<float> a = x, b = y;
        constexpr int rounds = 200000;
        auto begin = std::chrono::steady_clock::now();
        for (int k = 0; k < rounds; k++)
#pragma GCC unroll 24
            for (int c = 0; c < chains; c++)
                sums[c] = sums[c] * a + b;
        std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        asm volatile("" : "+m"(sums));
        best = std::max(best, 2.0 * chains * lanes<float> * rounds / seconds.count() / 1e9);
    }
    return best;
}

template <class T> constexpr Kernels<T> kernels() {
    return {multiply<T>,
            ChainProducts<T>::multiply,
            recurrence_saved<T, ChainProducts<T>>,
            recurrence_forward<T, ChainProducts<T>>,
            recurrence_backward<T, ChainProducts<T>>,
            cross_entropy_forward<T>,
            cross_entropy_backward<T>,
            crf_forward<T>,
            crf_backward<T>,
            crf_decode<T>,
            ctc_forward<T>,
            ctc_backward<T>,
            multiply_batch<T>,
            softmax_forward<T>,
            softmax_backward<T>,
            sum_columns<T>,
            linear_cross_entropy<T, ChainProducts<T>>,
            gather_rows<T>,
            sum_rows<T>,
            dropout<T>,
            layer_norm_forward<T>,
            layer_norm_backward<T>,
            sgd<T>,
            adam<T>,
            rmsprop<T>,
            adagrad<T>,
            average<T>,
            scale<T>,
            sum_of_squares<T>,
            nullptr,
            nullptr,
            run_steps<T>,
            sample_rows<T>};
}

#if defined(ANAPHORA_HAS_TILES)
constexpr Kernels<float> kernels_with_tile_registers() {
    Kernels<float> set = kernels<float>();
    set.multiply = FixedProducts::multiply;
    set.multiply_gradient = FixedProducts::multiply;
    set.recurrence_saved = [](const Cell &cell, std::int64_t T_, std::int64_t B, std::int64_t H,
                              std::int64_t P, bool has_projection, std::int64_t tiles) {
        return (FixedTile::applies(P) ? recurrence_saved<float, FixedProducts>
                                      : recurrence_saved<float, SmallProducts>)(cell, T_, B, H, P,
                                                                                has_projection,
                                                                                tiles);
    };
    set.recurrence_forward = [](const Forward<float> &f) {
        (FixedTile::applies(f.projected) ? recurrence_forward<float, FixedProducts>
                                         : recurrence_forward<float, SmallProducts>)(f);
    };
    set.recurrence_backward = [](const Backward<float> &f) {
        (FixedTile::applies(f.projected) ? recurrence_backward<float, FixedProducts>
                                         : recurrence_backward<float, SmallProducts>)(f);
    };
    set.linear_cross_entropy = linear_cross_entropy<float, FixedProducts>;
    set.fixed_size = [](std::int64_t blocks, std::int64_t rows, std::int64_t depth) {
        return FixedTile::applies(depth) ? FixedWeights::size(blocks, rows, depth) : 0;
    };
    set.pack_fixed = [](std::int64_t blocks, std::int64_t rows, std::int64_t depth,
                        const float *weight,
                        float *packed) { FixedWeights(blocks, rows, depth, packed).pack(weight); };
    return set;
}
#endif

} // namespace

extern const InstructionSet instructions;
const InstructionSet instructions = {ANAPHORA_ISA_NAME, kernels<float>(), kernels<double>(), peak};

#if defined(ANAPHORA_HAS_TILES)
extern const InstructionSet with_tile_registers;
const InstructionSet with_tile_registers = {"amx", kernels_with_tile_registers(), kernels<double>(),
                                            peak};
#endif

} // namespace anaphora::ANAPHORA_ISA
