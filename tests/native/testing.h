// Shared by the native tests: random numbers, arrays that notice what was not written, checks.
//
// Every array has exactly the size that its contract states, so that AddressSanitizer detects an
// access beyond it, and outputs start as a sentinel that must be overwritten. Values are tested
// from Python; here results are compared with plain sums, and between numbers of threads, bit for
// bit.
#pragma once

#include "kernels.h"
#include "pool.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

namespace testing {

using namespace anaphora;
using std::int32_t;
using std::int64_t;

inline std::string where; // the current test, for messages

inline void check(bool holds, const char *what) {
    if (holds)
        return;
    std::fprintf(stderr, "failed: %s: %s\n", where.c_str(), what);
    std::_Exit(1);
}

template <class T> const Kernels<T> &kernels() {
    if constexpr (sizeof(T) == 4)
        return instruction_set().f32;
    else
        return instruction_set().f64;
}

class Random {
  public:
    explicit Random(std::uint64_t seed) : bits_(seed) {}
    int64_t below(int64_t n) {
        return static_cast<int64_t>(bits_() % static_cast<std::uint64_t>(n));
    }
    int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
    int64_t one_of(std::initializer_list<int64_t> values) {
        return values.begin()[below(static_cast<int64_t>(values.size()))];
    }
    bool chance(int64_t in) { return below(in) == 0; }
    double number() { return static_cast<double>(between(-1000, 1000)) / 1000; }

  private:
    std::mt19937_64 bits_;
};

inline constexpr double unwritten = -12345.5;

// An array of exactly `size` numbers.
template <class T> class Array {
  public:
    explicit Array(int64_t size) : size_(size), data_(new T[static_cast<std::size_t>(size)]) {
        for (int64_t k = 0; k < size; k++)
            data_[k] = static_cast<T>(unwritten);
    }
    Array(int64_t size, Random &random) : Array(size) {
        for (int64_t k = 0; k < size; k++)
            data_[k] = static_cast<T>(random.number());
    }
    T *data() const { return data_.get(); }
    int64_t size() const { return size_; }
    T &operator[](int64_t k) const { return data_[k]; }

    Array copy() const {
        Array other(size_);
        for (int64_t k = 0; k < size_; k++)
            other[k] = data_[k];
        return other;
    }
    bool written() const {
        for (int64_t k = 0; k < size_; k++)
            if (data_[k] == static_cast<T>(unwritten))
                return false;
        return true;
    }
    // The same bits, or both NaN.
    bool operator==(const Array &other) const {
        bool same = size_ == other.size_;
        for (int64_t k = 0; same && k < size_; k++)
            same = data_[k] == other[k] || (data_[k] != data_[k] && other[k] != other[k]);
        return same;
    }

  private:
    int64_t size_;
    std::unique_ptr<T[]> data_;
};

template <class T> bool near(T a, double b) {
    return std::abs(static_cast<double>(a) - b) <=
           (sizeof(T) == 4 ? 1e-4 : 1e-12) * (1 + std::abs(b));
}

// All bits of some results, as one number, by which instruction sets are compared.
class Fingerprint {
  public:
    template <class T> void add(const Array<T> &array) {
        for (int64_t k = 0; k < array.size(); k++) {
            std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> bits = 0;
            if (array[k] == array[k]) // all NaN are alike
                std::memcpy(&bits, &array[k], sizeof bits);
            value_ = (value_ ^ bits) * 0x100000001b3; // FNV-1a, a number at a time
        }
    }
    std::uint64_t value() const { return value_; }

  private:
    std::uint64_t value_ = 0xcbf29ce484222325;
};

inline Fingerprint products, recurrences; // of all results of these since they were reset

// kernels_test.cpp: on random shapes, one of each.
template <class T> void test_operations(Random &random);
void test_int8_products(Random &random);
void test_bfloat16(Random &random, bool tile_registers);
// plan_test.cpp
void test_plan(Random &random);
// recurrence_test.cpp: random cells, layers and programs.
template <class T> void test_recurrence(Random &random);
template <class T> void test_stack(Random &random);
void test_invalid_programs();
void test_random_programs();
void test_callers();
void test_fork();

} // namespace testing
