// The kernels of one instruction set; compiled once for each.
#include "kernels.h"
#include "along.h"
#include "batches.h"
#include "crf.h"
#include "ctc.h"
#include "dropout.h"
#include "graph.h"
#include "normalization.h"
#include "recurrence.h"
#include "rows.h"
#include "softmax.h"
#include "stack.h"
#include "updates.h"

#include <chrono>

namespace anaphora::ANAPHORA_ISA {
namespace {

#if !defined(ANAPHORA_EMULATES_TILES)
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
#endif

// Kernels whose products are computed by these units.
template <class T, bool TileRegisters = false, Precision Products = Precision::float32,
          bool Dots = false>
struct With {
    static constexpr Units units{
        .tile_registers = TileRegisters, .precision = Products, .dots = Dots};

    static void multiply(Use use, std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                         Matrix<const T> B, T *C, std::int64_t c_row, const T *bias,
                         bool accumulate) {
        ANAPHORA_ISA::multiply<T>(units, use, M, N, K, A, B, C, c_row, bias, accumulate);
    }
    static SavedShape recurrence_saved(const Cell &cell, const Sequences &sizes, bool projects,
                                       std::int64_t tiles) {
        return ANAPHORA_ISA::recurrence_saved<T>(cell, sizes, projects, tiles, units);
    }
    static void recurrence_forward(const Forward<T> &f) { ForwardPass<T>(f, units)(); }
    static void recurrence_backward(const Backward<T> &f) { BackwardPass<T>(f, units)(); }
    static void linear_cross_entropy(std::int64_t N, std::int64_t V, std::int64_t K, const T *x,
                                     const T *weight, const T *bias, const std::int64_t *targets,
                                     T *losses) {
        ANAPHORA_ISA::linear_cross_entropy<T>(units, N, V, K, x, weight, bias, targets, losses);
    }
    static void gather_rows(std::int64_t N, std::int64_t width, const T *table,
                            const std::int64_t *ids, T *rows) {
        ANAPHORA_ISA::gather_rows<T>(units, N, width, table, ids, rows);
    }
    static std::unique_ptr<Stack<T>> make_stack(const Cell &cell, const StackWeights<T> &weights) {
        return std::make_unique<PackedStack<T>>(cell, weights, units);
    }

    static constexpr Kernels<T> kernels() {
        return {.multiply = multiply,
                .recurrence_saved = recurrence_saved,
                .recurrence_forward = recurrence_forward,
                .recurrence_backward = recurrence_backward,
                .make_stack = make_stack,
                .linear_cross_entropy = linear_cross_entropy,
                .gather_rows = gather_rows,
#define ANAPHORA_KERNEL(name) .name = ANAPHORA_ISA::name<T>,
                ANAPHORA_KERNELS(ANAPHORA_KERNEL)
#undef ANAPHORA_KERNEL
        };
    }
};

constexpr Precision bfloat16 = Precision::bfloat16, int8 = Precision::int8;

#if defined(ANAPHORA_EMULATES_TILES)
// The kernels that multiply, with emulated tile registers.
template <class Emulated> void emulate(Kernels<float> &kernels) {
    kernels.multiply = Emulated::multiply;
    kernels.recurrence_saved = Emulated::recurrence_saved;
    kernels.recurrence_forward = Emulated::recurrence_forward;
    kernels.recurrence_backward = Emulated::recurrence_backward;
    kernels.make_stack = Emulated::make_stack;
    kernels.linear_cross_entropy = Emulated::linear_cross_entropy;
}
#endif

} // namespace

#if defined(ANAPHORA_EMULATES_TILES)
void emulate_tile_registers(InstructionSet &set);
void emulate_tile_registers(InstructionSet &set) {
    emulate<With<float, true>>(set.f32);
    emulate<With<float, true, bfloat16>>(set.bf16);
    emulate<With<float, true, int8>>(set.i8);
}
#else
extern const InstructionSet instructions;
const InstructionSet instructions = {ANAPHORA_ISA_NAME,
                                     With<float>::kernels(),
                                     With<float, false, bfloat16>::kernels(),
                                     With<float, false, int8>::kernels(),
                                     With<double>::kernels(),
                                     peak};

#if defined(ANAPHORA_HAS_TILES)
extern const Kernels<float> bfloat16_dots, int8_dots;
const Kernels<float> bfloat16_dots = With<float, false, bfloat16, true>::kernels(),
                     int8_dots = With<float, false, int8, true>::kernels();
extern const InstructionSet with_tile_registers;
const InstructionSet with_tile_registers = {"amx",
                                            With<float, true>::kernels(),
                                            With<float, true, bfloat16>::kernels(),
                                            With<float, true, int8>::kernels(),
                                            With<double>::kernels(),
                                            peak};
#endif
#endif

} // namespace anaphora::ANAPHORA_ISA
