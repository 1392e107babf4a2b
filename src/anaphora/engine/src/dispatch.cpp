// The choice of an instruction set, once, at import.
#include "kernels.h"

#include <cstring>

namespace anaphora {

#if defined(ANAPHORA_HAS_X86_SETS)
namespace avx512 {
extern const InstructionSet instructions;
}
namespace avx2 {
extern const InstructionSet instructions;
}
#endif
namespace baseline {
extern const InstructionSet instructions;
}

namespace {

const InstructionSet *supported(const char *name) {
#if defined(ANAPHORA_HAS_X86_SETS)
    __builtin_cpu_init();
    if (std::strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return &avx512::instructions;
    if (std::strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &avx2::instructions;
#endif
    return std::strcmp(name, "baseline") == 0 ? &baseline::instructions : nullptr;
}

const InstructionSet *&chosen() {
    static const InstructionSet *set = [] {
        for (const char *name : {"avx512", "avx2"})
            if (const InstructionSet *found = supported(name))
                return found;
        return supported("baseline");
    }();
    return set;
}

} // namespace

const InstructionSet &instruction_set() { return *chosen(); }

bool use_instruction_set(const char *name) {
    const InstructionSet *found = supported(name);
    if (found != nullptr)
        chosen() = found;
    return found != nullptr;
}

} // namespace anaphora
