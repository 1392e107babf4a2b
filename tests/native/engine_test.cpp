// The engine without Python, run under sanitizers by `make sanitize`: all native tests on each
// instruction set, and the thread pool.
#include "testing.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

// By default ThreadSanitizer does not allow a forked child to start threads.
extern "C" __attribute__((visibility("default"))) const char *__tsan_default_options() {
    return "die_after_fork=0";
}

namespace anaphora { // weight_test.cpp
namespace baseline {
std::string test_weights(bool tile_registers, bool dots);
}
namespace emulated {
std::string test_weights(bool tile_registers, bool dots);
}
#if defined(ANAPHORA_HAS_X86_SETS)
namespace avx2 {
std::string test_weights(bool tile_registers, bool dots);
}
namespace avx512 {
std::string test_weights(bool tile_registers, bool dots);
}
#endif
} // namespace anaphora

namespace {

using namespace testing;

// Threads
// ------------------------------------------------------------------------------------------

void test_tasks() {
    where = "tasks";
    set_thread_count(3);
    std::vector<int> done(1000, 0);
    parallel(1000, [&](int64_t k) {
        check(available_threads() == 1, "a task finds available threads");
        parallel(2, [&](int64_t) { done[static_cast<std::size_t>(k)]++; }); // on this thread
    });
    for (int count : done)
        check(count == 2, "a task did not run once");
    parallel(0, [](int64_t) { check(false, "there is no task to run"); });

    Barrier barrier(3);
    std::vector<int> step(3, 0);
    run_concurrently(3, barrier, [&](int thread) {
        for (int k = 0; k < 200; k++) {
            step[static_cast<std::size_t>(thread)] = k;
            barrier.wait();
            for (int other : step)
                check(other == k, "the barrier let a thread through");
            barrier.wait();
        }
    });

    // Sleeping threads, and more of them than processors: each task runs once, and threads that
    // sleep at a barrier are woken.
    set_thread_count(40);
    for (int k = 0; k < 40; k++) {
        std::vector<std::atomic<int>> times(static_cast<std::size_t>(1 + 3 * k));
        if (k % 4 == 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        parallel(1 + 3 * k, [&](int64_t task) { times[static_cast<std::size_t>(task)]++; });
        for (const std::atomic<int> &count : times)
            check(count == 1, "a task did not run once");
    }
    set_thread_count(3);
    std::atomic<int> arrived{0};
    Barrier late(3);
    run_concurrently(3, late, [&](int thread) {
        for (int k = 1; k < 4; k++) {
            if (thread == k - 1)
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            arrived++;
            late.wait();
            check(arrived >= 3 * k, "the barrier let a thread through too early");
        }
    });

    for (int k = 0; k < 20; k++) { // one of three fails while the others wait for it
        bool thrown = false;
        Barrier waiting(3);
        try {
            run_concurrently(3, waiting, [&](int thread) {
                for (int step = 0; step < 5; step++) {
                    if (thread == k % 3 && step == k % 5)
                        throw std::bad_alloc();
                    waiting.wait();
                }
            });
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        check(thrown, "an exception of a concurrent task got lost");
    }
    for (int k = 0; k < 20; k++) {
        bool thrown = false;
        try {
            parallel(50, [](int64_t task) {
                if (task % 7 == 3)
                    throw std::runtime_error("on purpose");
            });
        } catch (const std::runtime_error &) {
            thrown = true;
        }
        check(thrown, "an exception got lost");
    }
    check(available_threads() == 3, "an exception left its thread marked as in a task");
}

// How many times fewer the rounds are: engine_test 3 does a third of them.
int fewer = 1;

std::uint64_t test_int8(const char *set) {
    Random random(31);
    products = {};
    for (int k = 0; k < 60 / fewer; k++)
        test_int8_products(random);
    std::printf("%s: bits of int8 products %016" PRIx64 "\n", set, products.value());
    return products.value();
}

template <class T> std::vector<std::uint64_t> test_kernels(const char *set) {
    Random random(17);
    products = recurrences = {};
    for (int k = 0; k < 40 / fewer; k++) {
        test_operations<T>(random);
    }
    for (int k = 0; k < 150 / fewer; k++)
        test_recurrence<T>(random);
    for (int k = 0; k < 100 / fewer; k++)
        test_stack<T>(random);
    std::printf("%s: bits of %zu-byte numbers: products %016" PRIx64 ", recurrences %016" PRIx64
                "\n",
                set, sizeof(T), products.value(), recurrences.value());
    std::fflush(stdout);
    return {products.value(), recurrences.value()};
}

} // namespace

int main(int count, char **arguments) {
    if (count > 1)
        fewer = std::max(1, std::atoi(arguments[1]));
    std::string widest = instruction_set().name;
    std::map<std::string, std::vector<std::vector<std::uint64_t>>> bits;
    std::map<std::string, std::uint64_t> int8_bits;
    Random random(29);
    for (int k = 0; k < 5000; k++)
        test_plan(random);
    const bool tiles = use_instruction_set("amx");
    where = "weights";
    struct WeightTest {
        const char *set;
        std::string (*run)(bool, bool);
    };
    for (const auto &[set, test] : {
             WeightTest{"baseline", baseline::test_weights},
             WeightTest{"amx-emulated", emulated::test_weights},
#if defined(ANAPHORA_HAS_X86_SETS)
             WeightTest{"avx2", avx2::test_weights},
             WeightTest{"avx512", avx512::test_weights},
#endif
         })
        if (use_instruction_set(set)) {
            set_thread_count(2);
            const bool avx512 = std::string(set) == "avx512";
            check(test(std::string(set) == "amx-emulated" || (tiles && avx512),
                       avx512 && std::string(bfloat16_unit()) == "dots")
                      .empty(),
                  set);
        }
    for (const char *set : {"baseline", "avx2", "avx512", "amx", "amx-emulated"}) {
        if (!use_instruction_set(set)) {
            std::printf("%s: not on this machine\n", set);
            continue;
        }
#if defined(__SANITIZE_THREAD__) // it takes minutes, and its threads are those of the other sets
        if (std::string(set) == "amx-emulated")
            continue;
#endif
        int8_bits[set] = test_int8(set);
        check(int8_bits[set] == int8_bits["baseline"], "int8 products disagree");
        bits[set] = {test_kernels<float>(set)};
        for (int k = 0; k < 100 / fewer; k++)
            test_bfloat16(random, std::string(set).starts_with("amx"));
        if (std::string(set) != "amx-emulated") // its float64 is that of another set
            bits[set].push_back(test_kernels<double>(set));
    }
    if (bits.contains("avx512"))
        check(bits["avx512"] == bits["avx2"], "AVX-512 and AVX2 disagree");
    if (bits.contains("amx")) {
        check(bits["amx"][1] == bits["avx512"][1], "AMX and AVX-512 disagree in float64");
        if (bits.contains("amx-emulated"))
            check(bits["amx-emulated"][0] == bits["amx"][0], "AMX and its emulation disagree");
    }
    use_instruction_set(widest.c_str());
    test_invalid_programs();
    test_random_programs();
    test_tasks();
    test_callers();
    test_fork();
    std::printf("all passed\n");
}
