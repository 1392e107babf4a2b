// Chooses an instruction set, once, at import.
#include "kernels.h"

#include <cstring>

#if defined(ANAPHORA_HAS_X86_SETS)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace anaphora {

#if defined(ANAPHORA_HAS_X86_SETS)
namespace avx512 {
extern const InstructionSet instructions;
#if defined(ANAPHORA_HAS_TILES)
extern const InstructionSet with_tile_registers;
extern const Kernels<float> bfloat16_dots, int8_dots;
#endif
} // namespace avx512
namespace avx2 {
extern const InstructionSet instructions;
}
#endif
namespace baseline {
extern const InstructionSet instructions;
}
namespace emulated {
void emulate_tile_registers(InstructionSet &set);
}

namespace {

#if defined(ANAPHORA_HAS_X86_SETS)
struct Processor {
    bool avx2, avx512; // both with fused multiply-adds, and registers that the system saves
};

// What the processor says of itself. Compilers' own functions for this are in a library that is not
// linked everywhere.
const Processor &processor() {
    static const Processor found = [] {
        Processor none{false, false};
        unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
        constexpr unsigned multiply_adds = bit_FMA | bit_OSXSAVE;
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & multiply_adds) != multiply_adds)
            return none;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        constexpr unsigned ymm = 0x06, zmm = 0xe6;
        if ((low & ymm) != ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_AVX2) == 0)
            return none;
        constexpr unsigned needed = bit_AVX512F | bit_AVX512VL | bit_AVX512BW | bit_AVX512DQ;
        return Processor{true, (low & zmm) == zmm && (b & needed) == needed};
    }();
    return found;
}
#endif

#if defined(ANAPHORA_HAS_X86_SETS)
// Of units that fill half a vector of AVX-512, AVX2 computes the same bits in less time.
std::unique_ptr<Stack<float>> make_stack_of_any_width(const Cell &cell,
                                                      const StackWeights<float> &weights) {
    constexpr std::int64_t avx2_lanes = 8;
    const bool narrow = weights.hidden <= avx2_lanes;
    return (narrow ? avx2::instructions : avx512::instructions).f32.make_stack(cell, weights);
}

// AVX-512 with what this processor has of AVX512_BF16, which multiplies pairs of bfloat16, and of
// AVX512_VNNI, which multiplies fours of int8.
const InstructionSet *avx512_without_tiles() {
    static const InstructionSet set = [] {
        InstructionSet found = avx512::instructions;
        found.f32.make_stack = make_stack_of_any_width;
#if defined(ANAPHORA_HAS_TILES)
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5) != 0)
            found.bf16 = avx512::bfloat16_dots;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 1u << 11) != 0)
            found.i8 = avx512::int8_dots;
#endif
        return found;
    }();
    return &set;
}
#endif

#if defined(ANAPHORA_HAS_TILES)
// Whether the processor has AMX with int8 and bfloat16, and int8 for single rows (AVX512_VNNI), and
// the system permits this process to use it.
bool tile_registers() {
#if defined(__linux__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned row_int8 = 1u << 11, needed = 1u << 22 | 1u << 24 | 1u << 25;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (c & row_int8) == 0 || (d & needed) != needed)
        return false;
    constexpr long request_permission = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

// Fixed point on any processor with fused multiply-adds, to the bits of "amx": for tests, since it
// is slow. It is one more instruction set for products of float32 alone.
const InstructionSet *emulated_tile_registers(const InstructionSet &rest) {
    static const InstructionSet set = [&] {
        InstructionSet changed = rest;
        changed.name = "amx-emulated";
        emulated::emulate_tile_registers(changed);
        return changed;
    }();
    return &set;
}

const InstructionSet *supported(const char *name) {
    const bool emulates = std::strcmp(name, "amx-emulated") == 0;
#if defined(ANAPHORA_HAS_X86_SETS)
    const bool avx512 = processor().avx512;
#if defined(ANAPHORA_HAS_TILES)
    if (std::strcmp(name, "amx") == 0 && avx512 && tile_registers())
        return &avx512::with_tile_registers;
#endif
    if (std::strcmp(name, "avx512") == 0 && avx512)
        return avx512_without_tiles();
    if ((std::strcmp(name, "avx2") == 0 || emulates) && processor().avx2)
        return emulates ? emulated_tile_registers(avx2::instructions) : &avx2::instructions;
#else
    if (emulates)
        return emulated_tile_registers(baseline::instructions);
#endif
    return std::strcmp(name, "baseline") == 0 ? &baseline::instructions : nullptr;
}

const InstructionSet *&chosen() {
    static const InstructionSet *set = [] {
        for (const char *name : {"amx", "avx512", "avx2"})
            if (const InstructionSet *found = supported(name))
                return found;
        return supported("baseline");
    }();
    return set;
}

} // namespace

const InstructionSet &instruction_set() { return *chosen(); }

const char *bfloat16_unit() {
#if defined(ANAPHORA_HAS_TILES)
    if (chosen() == &avx512::with_tile_registers)
        return "tiles";
    if (chosen()->bf16.multiply == avx512::bfloat16_dots.multiply)
        return "dots";
#endif
    return "vectors";
}

bool use_instruction_set(const char *name) {
    const InstructionSet *found = supported(name);
    if (found != nullptr)
        chosen() = found;
    return found != nullptr;
}

} // namespace anaphora
