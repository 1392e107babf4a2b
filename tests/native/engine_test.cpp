// The engine without Python, run under sanitizers by `make sanitize`: kernels on random shapes and
// random cells, concurrent callers, exceptions, fork.
//
// Every array has exactly the size that its contract states, so that AddressSanitizer detects an
// access beyond it, and outputs start as a sentinel that must be overwritten. Values are tested
// from Python; here results are compared with plain sums, and between numbers of threads, bit for
// bit.
#include "kernels.h"
#include "plan.h"
#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

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

using namespace anaphora;
using std::int32_t;
using std::int64_t;

std::string where; // the current test, for messages

void check(bool holds, const char *what) {
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

constexpr double unwritten = -12345.5;

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

Fingerprint products, recurrences;

// Matrix products
// ----------------------------------------------------------------------------------

template <class T> void test_multiply(Random &random) {
    const Use use = random.chance(2)   ? Use::weight
                    : random.chance(2) ? Use::input_gradient
                                       : Use::weight_gradient;
    int64_t M = random.one_of({0, 1, 2, 5, 23, 24, 61, 160}),
            N = random.one_of({0, 1, 7, 16, 70, 131, 270});
    int64_t K = random.one_of({0, 1, 3, 40, 128, 129, 260, 800});
    where = "multiply " + std::to_string(M) + " x " + std::to_string(K) + " x " + std::to_string(N);
    Array<T> a(M * K, random), b(K * N, random), bias(N, random), before(M * N, random);
    bool a_transposed = random.chance(2), b_transposed = random.chance(2);
    bool has_bias = use == Use::weight && random.chance(2), accumulate = random.chance(2);
    Matrix<const T> A{a.data(), a_transposed ? 1 : K, a_transposed ? M : 1};
    Matrix<const T> B{b.data(), b_transposed ? 1 : N, b_transposed ? K : 1};
    auto multiply = [&](int threads) {
        set_thread_count(threads);
        Array<T> c = accumulate ? before.copy() : Array<T>(M * N);
        kernels<T>().multiply(use, M, N, K, A, B, c.data(), N, has_bias ? bias.data() : nullptr,
                              accumulate);
        return c;
    };
    Array<T> c = multiply(1);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            double sum = (accumulate ? before[i * N + j] : 0) + (has_bias ? bias[j] : 0);
            for (int64_t k = 0; k < K; k++)
                sum += static_cast<double>(A.data[i * A.row + k * A.column]) *
                       B.data[k * B.row + j * B.column];
            check(near(c[i * N + j], sum), "an element is not the sum of its products");
        }
    check(multiply(2) == c && multiply(3) == c, "the result depends on the number of threads");
    products.add(c);
}

// With int8 weights a sum is exact: every instruction set gives the same bits, for any layout and
// number of threads, and for the product transposed, with the weight on the left.
void test_int8_products(Random &random) {
    int64_t M = random.one_of({0, 1, 2, 7, 33, 80}), N = random.one_of({0, 1, 7, 16, 70, 131}),
            K = random.one_of({0, 1, 3, 40, 129, 260});
    where = "int8 " + std::to_string(M) + " x " + std::to_string(K) + " x " + std::to_string(N);
    Array<float> x(M * K, random), weight(N * K, random), bias(N, random);
    Array<float> x_columns(M * K), weight_columns(N * K);
    for (int64_t k = 0; k < K; k++) {
        for (int64_t m = 0; m < M; m++)
            x_columns[k * M + m] = x[m * K + k];
        for (int64_t n = 0; n < N; n++)
            weight_columns[k * N + n] = weight[n * K + k];
    }
    const Matrix<const float> rows[] = {{x.data(), K, 1}, {x_columns.data(), 1, M}},
                              weights[] = {{weight.data(), 1, K}, {weight_columns.data(), N, 1}};
    auto multiply = [&](int layout, int threads) {
        set_thread_count(threads);
        Array<float> c(M * N);
        instruction_set().i8.multiply(Use::weight, M, N, K, rows[layout % 2], weights[layout / 2],
                                      c.data(), N, bias.data(), false);
        return c;
    };
    const Array<float> c = multiply(0, 1);
    for (int layout = 0; layout < 4; layout++)
        check(multiply(layout, 1 + layout % 3) == c, "the bits depend on layout or threads");
    Array<float> transposed(N * M);
    instruction_set().i8.multiply(Use::left_weight, N, M, K, {weight.data(), K, 1},
                                  {x.data(), 1, K}, transposed.data(), M, nullptr, false);
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double sum = bias[n], x_size = 0, weight_size = 0;
            for (int64_t k = 0; k < K; k++) {
                sum += static_cast<double>(x[m * K + k]) * weight[n * K + k];
                x_size = std::max<double>(x_size, std::abs(x[m * K + k]));
                weight_size = std::max<double>(weight_size, std::abs(weight[n * K + k]));
            }
            const float y = c[m * N + n];
            check(std::abs(y - sum) <= 1e-5 + x_size * weight_size * static_cast<double>(K) / 126,
                  "an element is far from the sum of its products");
            check(transposed[n * M + m] + bias[n] == y, "a transposed product differs");
        }
    products.add(c);
}

// A number as bfloat16: the nearest with 8 bits, ties to even; 0 below 2^-126.
float to_bfloat16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude < 0x800000)
        bits &= 0x80000000;
    else if (magnitude <= 0x7f800000)
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    std::memcpy(&x, &bits, sizeof bits);
    return x;
}

// Products of operands rounded to bfloat16, to the bit: sums as formats/bfloat16.h defines them.
void test_bfloat16(Random &random, bool tiles) {
    const Use use = random.chance(2)   ? Use::weight
                    : random.chance(2) ? Use::input_gradient
                                       : Use::weight_gradient;
    const int64_t M = random.one_of({0, 1, 2, 5, 23, 33, 160}),
                  N = random.one_of({0, 1, 7, 16, 70, 131}),
                  K = random.one_of({0, 1, 3, 40, 65, 129, 1100});
    where = "bfloat16 " + std::to_string(M) + " x " + std::to_string(K) + " x " + std::to_string(N);
    Array<float> a(M * K, random), b(K * N, random), bias(N, random), before(M * N, random);
    for (int64_t k = 0; k < M * K; k++)
        if (random.chance(9))
            a[k] *= random.chance(2) ? 1e-39f : 1e9f;
    const bool a_transposed = random.chance(2), b_transposed = random.chance(2),
               has_bias = use == Use::weight && random.chance(2), accumulate = random.chance(2);
    const Matrix<const float> A{a.data(), a_transposed ? 1 : K, a_transposed ? M : 1},
        B{b.data(), b_transposed ? 1 : N, b_transposed ? K : 1};
    auto multiply = [&](int threads) {
        set_thread_count(threads);
        Array<float> c = accumulate ? before.copy() : Array<float>(M * N);
        instruction_set().bf16.multiply(use, M, N, K, A, B, c.data(), N,
                                        has_bias ? bias.data() : nullptr, accumulate);
        return c;
    };
    Array<float> c = multiply(1);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            auto term = [&](int64_t k) {
                return k < K ? to_bfloat16(A.data[i * A.row + k * A.column]) *
                                   to_bfloat16(B.data[k * B.row + j * B.column])
                             : 0.0f;
            };
            float sum = accumulate ? before[i * N + j] : 0;
            for (int64_t k = 0; k < K && !tiles; k += 2) {
                sum += term(k + 1);
                sum += term(k);
            }
            for (int64_t first = 0; first < K && tiles; first += 32) {
                float even = 0, odd = 0;
                for (int64_t k = first; k < first + 32; k += 2) {
                    even += term(k);
                    odd += term(k + 1);
                }
                sum += even + odd;
            }
            if (has_bias)
                sum += bias[j];
            check(c[i * N + j] == sum, "an element is not the sum of its rounded products");
        }
    check(multiply(2) == c && multiply(3) == c, "the result depends on the number of threads");
}

// Cross entropy and sums
// ---------------------------------------------------------------------------

template <class T> void test_cross_entropy(Random &random) {
    int64_t N = random.one_of({0, 1, 7, 8, 40}), V = random.one_of({1, 3, 16, 67, 500});
    where = "cross entropy " + std::to_string(N) + " x " + std::to_string(V);
    Array<T> logits(N * V, random), d_losses(N, random), losses(N), probabilities(N * V);
    Array<int64_t> targets(N);
    for (int64_t n = 0; n < N; n++)
        targets[n] = random.below(V);
    set_thread_count(3);
    kernels<T>().cross_entropy_forward(N, V, logits.data(), targets.data(), losses.data(),
                                       probabilities.data());
    for (int64_t n = 0; n < N; n++) {
        double total = 0;
        for (int64_t k = 0; k < V; k++)
            total += std::exp(static_cast<double>(logits[n * V + k]));
        check(near(losses[n], std::log(total) - logits[n * V + targets[n]]), "a loss is wrong");
        for (int64_t k = 0; k < V; k++)
            check(near(probabilities[n * V + k],
                       std::exp(static_cast<double>(logits[n * V + k])) / total),
                  "a probability is wrong");
    }
    Array<T> d(N * V);
    kernels<T>().cross_entropy_backward(N, V, probabilities.data(), targets.data(), d_losses.data(),
                                        d.data());
    check(d.written(), "a gradient was not written");

    // The same in place, on one thread.
    set_thread_count(1);
    Array<T> place = logits.copy(), again(N);
    kernels<T>().cross_entropy_forward(N, V, place.data(), targets.data(), again.data(),
                                       place.data());
    check(place == probabilities && again == losses, "the result in place differs");
    kernels<T>().cross_entropy_backward(N, V, place.data(), targets.data(), d_losses.data(),
                                        place.data());
    check(place == d, "the gradient in place differs");
}

// Every path of a row, one by one.
template <class T> void test_crf(Random &random) {
    const int64_t C = random.one_of({1, 2, 3, 5}), steps = random.one_of({0, 1, 2, 4}),
                  B = random.one_of({0, 1, 3, 9}), scale = random.one_of({1, 1, 1000});
    where = "crf " + std::to_string(steps) + " x " + std::to_string(B) + " x " + std::to_string(C);
    Array<T> emissions(steps * B * C, random), transitions(C * C, random), start(C, random),
        end(C, random), weights(B, random);
    for (int64_t k = 0; k < emissions.size(); k++)
        emissions[k] *= static_cast<T>(scale);
    Array<int64_t> lengths(B);
    for (int64_t b = 0; b < B; b++)
        lengths[b] = random.between(0, steps);
    Crf<T> crf{steps,         B, C, emissions.data(), transitions.data(), start.data(), end.data(),
               lengths.data()};

    struct Results {
        Array<double> alphas, log_partitions, scores;
        Array<T> d_emissions, d_transitions;
        Array<int64_t> tags;
    };
    auto run = [&](int threads) {
        set_thread_count(threads);
        Results r{Array<double>(steps * B * C), Array<double>(B), Array<double>(B),
                  Array<T>(steps * B * C),      Array<T>(C * C),  Array<int64_t>(steps * B)};
        kernels<T>().crf_forward(crf, r.alphas.data(), r.log_partitions.data());
        kernels<T>().crf_backward(crf, r.alphas.data(), r.log_partitions.data(), weights.data(),
                                  r.d_emissions.data(), r.d_transitions.data());
        kernels<T>().crf_decode(crf, -7, r.tags.data(), r.scores.data());
        return r;
    };
    Results one = run(1), several = run(3);
    check(one.alphas == several.alphas && one.log_partitions == several.log_partitions &&
              one.scores == several.scores && one.d_emissions == several.d_emissions &&
              one.d_transitions == several.d_transitions && one.tags == several.tags,
          "the result depends on the number of threads");
    check(one.alphas.written() && one.d_emissions.written() && one.d_transitions.written(),
          "a result was not written");

    std::vector<double> d_transitions(static_cast<std::size_t>(C * C));
    for (int64_t b = 0; b < B; b++) {
        auto score = [&](const std::vector<int64_t> &path) {
            double sum = 0;
            for (std::size_t t = 0; t < path.size(); t++) {
                sum += emissions[(static_cast<int64_t>(t) * B + b) * C + path[t]];
                sum += t == 0 ? start[path[0]] : transitions[path[t - 1] * C + path[t]];
            }
            return path.empty() ? 0 : sum + end[path.back()];
        };
        std::vector<int64_t> path(static_cast<std::size_t>(lengths[b]));
        auto next = [&] { // as a number with digits 0..C-1
            for (int64_t &tag : path) {
                if (++tag < C)
                    return true;
                tag = 0;
            }
            return false;
        };
        double best = score(path), sum = 0;
        do
            best = std::max(best, score(path));
        while (next());
        do
            sum += std::exp(score(path) - best);
        while (next());
        check(std::abs(one.log_partitions[b] - best - std::log(sum)) < 1e-9 * (1 + std::abs(best)),
              "a sum over all paths is wrong");
        check(std::abs(one.scores[b] - best) < 1e-12 * (1 + std::abs(best)),
              "the best score is wrong");
        do
            for (std::size_t t = 1; t < path.size(); t++)
                d_transitions[static_cast<std::size_t>(path[t - 1] * C + path[t])] +=
                    weights[b] * std::exp(score(path) - best) / sum;
        while (next());
        for (int64_t t = 0; t < steps; t++)
            check(t < lengths[b] ? one.tags[t * B + b] >= 0 && one.tags[t * B + b] < C
                                 : one.tags[t * B + b] == -7,
                  "a tag is out of range");
        for (std::size_t t = 0; t < path.size(); t++)
            path[t] = one.tags[static_cast<int64_t>(t) * B + b];
        check(std::abs(score(path) - best) < 1e-12 * (1 + std::abs(best)),
              "the path is not the best");
    }
    for (int64_t k = 0; k < C * C; k++)
        check(near(one.d_transitions[k], d_transitions[static_cast<std::size_t>(k)]),
              "a gradient of transitions is wrong");
}

// Every alignment of a row, one by one.
template <class T> void test_ctc(Random &random) {
    const int64_t V = random.one_of({1, 2, 3, 4}), steps = random.one_of({0, 1, 2, 5}),
                  B = random.one_of({0, 1, 3, 9}), S = V == 1 ? 0 : random.one_of({0, 1, 2, 3}),
                  blank = random.below(V), scale = random.one_of({1, 1, 1000});
    where = "ctc " + std::to_string(steps) + " x " + std::to_string(B) + " x " + std::to_string(V) +
            ", " + std::to_string(S) + " labels";
    Array<T> logits(steps * B * V, random), weights(B, random);
    for (int64_t k = 0; k < logits.size(); k++)
        logits[k] *= static_cast<T>(scale);
    Array<int64_t> targets(S * B), lengths(B), target_lengths(B);
    for (int64_t k = 0; k < S * B; k++)
        targets[k] = (blank + random.between(1, V - 1)) % V;
    for (int64_t b = 0; b < B; b++) {
        lengths[b] = random.between(0, steps);
        target_lengths[b] = random.between(0, S);
    }
    Ctc<T> ctc{steps,
               B,
               V,
               S,
               blank,
               logits.data(),
               targets.data(),
               lengths.data(),
               target_lengths.data()};

    struct Results {
        Array<double> losses, normalizers, alphas;
        Array<T> d_logits;
    };
    auto run = [&](int threads) {
        set_thread_count(threads);
        Results r{Array<double>(B), Array<double>(steps * B),
                  Array<double>(steps * B * (2 * S + 1)), Array<T>(steps * B * V)};
        kernels<T>().ctc_forward(ctc, r.losses.data(), r.normalizers.data(), r.alphas.data());
        kernels<T>().ctc_backward(ctc, r.losses.data(), r.normalizers.data(), r.alphas.data(),
                                  weights.data(), r.d_logits.data());
        return r;
    };
    Results one = run(1), several = run(3);
    check(one.losses == several.losses && one.normalizers == several.normalizers &&
              one.alphas == several.alphas && one.d_logits == several.d_logits,
          "the result depends on the number of threads");
    check(one.losses.written() && one.normalizers.written() && one.alphas.written() &&
              one.d_logits.written(),
          "a result was not written");

    for (int64_t b = 0; b < B; b++) {
        std::vector<int64_t> path(static_cast<std::size_t>(lengths[b])), spelled, target;
        for (int64_t s = 0; s < target_lengths[b]; s++)
            target.push_back(targets[s * B + b]);
        double sum = 0;
        bool more = true;
        while (more) {
            double score = 0;
            spelled.clear();
            for (std::size_t t = 0; t < path.size(); t++) {
                const int64_t at = static_cast<int64_t>(t) * B + b;
                score += logits[at * V + path[t]] - one.normalizers[at];
                if (path[t] != blank && (t == 0 || path[t] != path[t - 1]))
                    spelled.push_back(path[t]);
            }
            if (spelled == target)
                sum += std::exp(score);
            more = false;
            for (int64_t &label : path) { // as a number with digits 0..V-1
                if (++label < V) {
                    more = true;
                    break;
                }
                label = 0;
            }
        }
        const double found = std::exp(-one.losses[b]);
        check(std::abs(found - sum) < 1e-9 * sum + 1e-300, "a sum over all alignments is wrong");
    }
}

template <class T> void test_multiply_batch(Random &random) {
    const int64_t count = random.one_of({0, 1, 2, 9}), M = random.one_of({0, 1, 3, 20, 300}),
                  N = random.one_of({0, 1, 17, 40, 300}), K = random.one_of({0, 1, 5, 33});
    where = "batch of " + std::to_string(count) + " products " + std::to_string(M) + " x " +
            std::to_string(N) + " x " + std::to_string(K);
    Array<T> a(count * M * K, random), b(count * K * N, random);
    const bool transposed = random.chance(2);
    const Matrices<const T> A{a.data(), M * K, transposed ? 1 : K, transposed ? M : 1};
    const Matrices<const T> B{b.data(), K * N, transposed ? 1 : N, transposed ? K : 1};
    auto run = [&](int threads) {
        set_thread_count(threads);
        Array<T> c(count * M * N);
        kernels<T>().multiply_batch(count, M, N, K, A, B, c.data());
        return c;
    };
    Array<T> one = run(1), several = run(3);
    check(one == several, "the result depends on the number of threads");
    for (int64_t n = 0; n < count; n++)
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++) {
                double sum = 0;
                for (int64_t k = 0; k < K; k++)
                    sum += static_cast<double>(A.data[n * A.step + i * A.row + k * A.column]) *
                           B.data[n * B.step + k * B.row + j * B.column];
                check(near(one[(n * M + i) * N + j], sum), "an element is wrong");
            }
}

template <class T> void test_softmax(Random &random) {
    const int64_t N = random.one_of({0, 1, 9, 40}), S = random.one_of({0, 1, 5, 16, 33});
    where = "softmax " + std::to_string(N) + " x " + std::to_string(S);
    Array<T> x(N * S, random), dy(N * S, random);
    const auto mask = std::make_unique<bool[]>(static_cast<std::size_t>(N * S));
    for (int64_t k = 0; k < N * S; k++)
        mask[static_cast<std::size_t>(k)] = random.chance(2);
    for (const bool *kept :
         {static_cast<const bool *>(nullptr), static_cast<const bool *>(mask.get())})
        for (bool logarithm : {false, true}) {
            auto run = [&](int threads) {
                set_thread_count(threads);
                std::vector<Array<T>> y;
                y.emplace_back(N * S);
                y.emplace_back(N * S);
                kernels<T>().softmax_forward(N, S, x.data(), kept, logarithm, y[0].data());
                kernels<T>().softmax_backward(N, S, y[0].data(), dy.data(), logarithm, y[1].data());
                return y;
            };
            std::vector<Array<T>> one = run(1), several = run(3);
            check(one[0] == several[0] && one[1] == several[1],
                  "the result depends on the number of threads");
            check(one[0].written() && one[1].written(), "a result was not written");
            for (int64_t n = 0; n < N && !logarithm; n++) {
                double sum = 0;
                bool any = false;
                for (int64_t k = n * S; k < (n + 1) * S; k++) {
                    sum += one[0][k];
                    any = any || kept == nullptr || kept[k];
                }
                check(S == 0 || near(static_cast<T>(sum), any ? 1 : 0), "a sum is not 1");
            }
        }
}

template <class T> void test_sum_columns(Random &random) {
    int64_t M = random.one_of({0, 1, 9}), N = random.one_of({0, 1, 64, 65, 200});
    where = "sum_columns " + std::to_string(M) + " x " + std::to_string(N);
    Array<T> x(M * N, random), sums(N);
    set_thread_count(2);
    kernels<T>().sum_columns(M, N, x.data(), sums.data(), false);
    for (int64_t n = 0; n < N; n++) {
        double sum = 0;
        for (int64_t m = 0; m < M; m++)
            sum += x[m * N + n];
        check(near(sums[n], sum), "a sum is wrong");
    }
}

// Losses without all logits
// -----------------------------------------------------------------------

template <class T> void test_linear_cross_entropy(Random &random) {
    int64_t N = random.one_of({1, 7, 16, 40}), V = random.one_of({1, 3, 67, 500, 70000});
    int64_t K = V < 70000 ? random.one_of({0, 1, 5, 96, 130}) : 5;
    where = "linear cross entropy " + std::to_string(N) + " x " + std::to_string(V);
    Array<T> x(N * K, random), weight(V * K, random), bias(V, random);
    const T *b = random.chance(2) ? bias.data() : nullptr;
    Array<int64_t> targets(N);
    for (int64_t n = 0; n < N; n++)
        targets[n] = random.below(V);
    Array<T> logits(N * V), expected(N);
    kernels<T>().multiply(Use::weight, N, V, K, {x.data(), K, 1}, {weight.data(), 1, K},
                          logits.data(), V, b, false);
    kernels<T>().cross_entropy_forward(N, V, logits.data(), targets.data(), expected.data(),
                                       logits.data());
    for (int threads : {1, 3}) {
        set_thread_count(threads);
        Array<T> losses(N);
        kernels<T>().linear_cross_entropy(N, V, K, x.data(), weight.data(), b, targets.data(),
                                          losses.data());
        check(losses == expected, "a loss differs from that of all logits");
    }
}

// Rows, dropout, normalisation
// --------------------------------------------------------------------

template <class T> void test_rows(Random &random) {
    int64_t N = random.one_of({0, 1, 9, 300}), width = random.one_of({0, 1, 17, 650});
    where = "rows " + std::to_string(N) + " x " + std::to_string(width);
    Array<T> table(12 * width, random), rows(N * width);
    Array<int64_t> ids(N), order(N);
    for (int64_t n = 0; n < N; n++)
        ids[n] = random.below(12);
    set_thread_count(3);
    kernels<T>().gather_rows(N, width, table.data(), ids.data(), rows.data());
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < width; k++)
            check(rows[n * width + k] == table[ids[n] * width + k], "a gathered row differs");

    std::vector<int64_t> ends;
    for (int64_t id = 0, at = 0; id < 12; id++) {
        for (int64_t n = 0; n < N; n++)
            if (ids[n] == id)
                order[at++] = n;
        if (at > (ends.empty() ? 0 : ends.back()))
            ends.push_back(at);
    }
    int64_t M = static_cast<int64_t>(ends.size());
    Array<T> sums(M * width);
    kernels<T>().sum_rows(M, width, rows.data(), order.data(), ends.data(), sums.data());
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < width; k++) {
            int64_t begin = m == 0 ? 0 : ends[static_cast<std::size_t>(m - 1)];
            int64_t count = ends[static_cast<std::size_t>(m)] - begin;
            check(near(sums[m * width + k],
                       static_cast<double>(count) * rows[order[begin] * width + k]),
                  "a sum of rows is wrong");
        }
}

template <class T> void test_along(Random &random) {
    const Along s{.A = random.one_of({0, 1, 3, 40}),
                  .N = random.one_of({1, 7, 16, 70}),
                  .M = random.one_of({0, 1, 9}),
                  .C = random.one_of({0, 1, 5, 300})};
    where = "along " + std::to_string(s.A) + " x " + std::to_string(s.N) + " x " +
            std::to_string(s.C) + " by " + std::to_string(s.M);
    Array<T> x(s.A * s.N * s.C, random), dy(s.A * s.M * s.C, random);
    Array<int64_t> indices(dy.size()), shared(s.A * s.M);
    for (int64_t k = 0; k < dy.size(); k++)
        indices[k] = random.between(-s.N, s.N - 1);
    for (int64_t k = 0; k < shared.size(); k++)
        shared[k] = random.between(-s.N, s.N - 1);
    Along rows = s;
    rows.shared = true;
    const int64_t count = random.between(0, s.N);
    auto run = [&](int threads) {
        set_thread_count(threads);
        std::vector<Array<T>> r;
        for (int64_t size : {x.size(), x.size(), dy.size(), x.size(), x.size()})
            r.emplace_back(size);
        kernels<T>().cumulative_sums(s.A, s.N, s.C, x.data(), false, r[0].data());
        kernels<T>().cumulative_sums(s.A, s.N, s.C, x.data(), true, r[1].data());
        check(kernels<T>().take_along(s, x.data(), indices.data(), r[2].data()) &&
                  kernels<T>().add_along(s, dy.data(), indices.data(), r[3].data()) &&
                  kernels<T>().add_along(rows, dy.data(), shared.data(), r[4].data()),
              "an index is refused");
        return r;
    };
    std::vector<Array<T>> results = run(1), others = run(3);
    for (std::size_t k = 0; k < results.size(); k++) {
        check(results[k].written(), "a result was not written");
        check(others[k] == results[k], "the result depends on the number of threads");
    }
    auto place = [&](int64_t index) { return index < 0 ? index + s.N : index; };
    for (int64_t a = 0; a < s.A; a++)
        for (int64_t c = 0; c < s.C; c++) {
            auto at = [&](int64_t n) { return (a * s.N + n) * s.C + c; };
            std::vector<double> sums(static_cast<std::size_t>(2 * s.N)); // by indices; by rows
            double up_to = 0, from = 0;
            for (int64_t n = 0; n < s.N; n++) {
                up_to += x[at(n)], from += x[at(s.N - 1 - n)];
                check(near(results[0][at(n)], up_to) && near(results[1][at(s.N - 1 - n)], from),
                      "a cumulative sum is wrong");
            }
            for (int64_t m = 0; m < s.M; m++) {
                const int64_t k = (a * s.M + m) * s.C + c;
                check(results[2][k] == x[at(place(indices[k]))], "an element taken differs");
                sums[static_cast<std::size_t>(place(indices[k]))] += dy[k];
                sums[static_cast<std::size_t>(s.N + place(shared[a * s.M + m]))] += dy[k];
            }
            for (int64_t n = 0; n < s.N; n++)
                check(near(results[3][at(n)], sums[static_cast<std::size_t>(n)]) &&
                          near(results[4][at(n)], sums[static_cast<std::size_t>(s.N + n)]),
                      "a sum of what was added is wrong");
        }
    if (dy.size() > 0) { // what does not exist is refused, and nothing beyond the arrays is read
        indices[dy.size() - 1] = random.one_of({s.N, -s.N - 1, INT64_MAX, INT64_MIN});
        check(!kernels<T>().take_along(s, x.data(), indices.data(), results[2].data()) &&
                  !kernels<T>().add_along(s, dy.data(), indices.data(), results[3].data()),
              "an index out of bounds is not refused");
    }

    Array<int64_t> order(s.A * s.C * count), again(order.size());
    const bool descending = random.chance(2);
    for (int threads : {1, 3}) {
        set_thread_count(threads);
        kernels<T>().order_rows(s.A * s.C, s.N, count, x.data(), descending,
                                (threads == 1 ? order : again).data());
    }
    check(order == again, "the order depends on the number of threads");
    for (int64_t row = 0; row < s.A * s.C; row++)
        for (int64_t k = 1; k < count; k++) {
            const int64_t *places = order.data() + row * count + k;
            const T before = x[row * s.N + places[-1]], after = x[row * s.N + places[0]];
            check((descending ? before > after : before < after) ||
                      (before == after && places[-1] < places[0]),
                  "elements are not in order");
        }
}

template <class T> void test_batch_norm(Random &random) {
    const int64_t M = random.one_of({1, 5, 64, 65, 300}), N = random.one_of({1, 5, 16, 67});
    where = "batch norm " + std::to_string(M) + " x " + std::to_string(N);
    Array<T> x(M * N, random), weight(N, random), bias(N, random), dy(M * N, random);
    Array<bool> some(M);
    int64_t count = 0;
    for (int64_t m = 0; m < M; m++)
        count += some[m] = m == 0 || !random.chance(3);
    const bool *mask = random.chance(2) ? some.data() : nullptr;
    auto run = [&](int threads) {
        set_thread_count(threads);
        std::vector<Array<T>> r;
        for (int64_t size : {M * N, N, N, N, M * N, 2 * N})
            r.emplace_back(size);
        kernels<T>().batch_norm_forward(M, N, x.data(), mask, weight.data(), bias.data(), T(0.1),
                                        r[0].data(), r[1].data(), r[2].data(), r[3].data());
        kernels<T>().batch_norm_backward(M, N, x.data(), mask, weight.data(), r[1].data(),
                                         r[3].data(), dy.data(), r[4].data(), r[5].data());
        return r;
    };
    std::vector<Array<T>> results = run(1), others = run(3);
    for (std::size_t k = 0; k < results.size(); k++) {
        check(results[k].written(), "a result was not written");
        check(others[k] == results[k], "the result depends on the number of threads");
    }
    const double size = static_cast<double>(mask == nullptr ? M : count);
    for (int64_t k = 0; k < N; k++) {
        double sum = 0, squares = 0, d_bias = 0;
        for (int64_t m = 0; m < M; m++)
            if (mask == nullptr || mask[m])
                sum += x[m * N + k], d_bias += dy[m * N + k];
        for (int64_t m = 0; m < M; m++)
            if (mask == nullptr || mask[m])
                squares += (x[m * N + k] - sum / size) * (x[m * N + k] - sum / size);
        check(near(results[1][k], sum / size), "a mean is wrong");
        check(near(results[2][k], squares / size), "a variance is wrong");
        check(near(results[5][N + k], d_bias), "a gradient of a bias is wrong");
    }
}

template <class T> void test_dropout(Random &random) {
    int64_t n = random.one_of({1, 63, 64, 65, 4097, 20000}), repeats = random.one_of({1, 3});
    where = "dropout " + std::to_string(repeats) + " x " + std::to_string(n);
    Array<T> x(repeats * n, random), mask(n), ones(n), y(repeats * n);
    for (int64_t k = 0; k < n; k++)
        ones[k] = 1;
    set_thread_count(1);
    kernels<T>().dropout(1, n, ones.data(), 77, 1u << 30, T(2), mask.data());
    set_thread_count(3);
    kernels<T>().dropout(repeats, n, x.data(), 77, 1u << 30, T(2), y.data());
    for (int64_t k = 0; k < n; k++) {
        check(mask[k] == 0 || mask[k] == 2, "a mask is neither 0 nor the factor");
        for (int64_t r = 0; r < repeats; r++)
            check(y[r * n + k] == x[r * n + k] * mask[k], "an element is not masked");
    }
}

template <class T> void test_layer_norm(Random &random) {
    int64_t N = random.one_of({0, 1, 9, 40}), H = random.one_of({1, 5, 16, 67, 300});
    where = "layer norm " + std::to_string(N) + " x " + std::to_string(H);
    Array<T> x(N * H, random), weight(H, random), bias(H, random), dy(N * H, random);
    auto run = [&](int threads) {
        set_thread_count(threads);
        std::vector<Array<T>> r;
        for (int64_t size : {N * H, N, N, N * H, H, H})
            r.emplace_back(size);
        kernels<T>().layer_norm_forward(N, H, x.data(), weight.data(), bias.data(), T(0.1),
                                        r[0].data(), r[1].data(), r[2].data());
        kernels<T>().layer_norm_backward(N, H, x.data(), weight.data(), r[1].data(), r[2].data(),
                                         dy.data(), r[3].data(), r[4].data(), r[5].data());
        return r;
    };
    std::vector<Array<T>> results = run(1);
    for (const Array<T> &array : results)
        check(array.written(), "a result was not written");
    for (int64_t n = 0; n < N; n++) {
        double sum = 0;
        for (int64_t k = 0; k < H; k++)
            sum += x[n * H + k];
        check(near(results[1][n], sum / static_cast<double>(H)), "a mean is wrong");
    }
    std::vector<Array<T>> others = run(3);
    for (std::size_t k = 0; k < results.size(); k++)
        check(others[k] == results[k], "the result depends on the number of threads");
}

// Updates
// -----------------------------------------------------------------------------------------

template <class T> void test_updates(Random &random) {
    const int64_t width = random.one_of({1, 13, 128}),
                  height = random.one_of({0, 1, 17, 128, 3077}), n = height * width;
    where = "updates " + std::to_string(height) + " x " + std::to_string(width);
    std::vector<Array<T>> start;
    for (int k = 0; k < 4; k++)
        start.emplace_back(n, random);
    for (int64_t k = 0; k < n; k++) // squares that the averages of gradients do not exceed
        start[1][k] = start[1][k] * start[1][k] + 4;
    // Some rows have a gradient, the others 0.
    Array<int64_t> every(height);
    int64_t count = 0;
    for (int64_t row = 0; row < height; row++)
        if (random.chance(2))
            every[count++] = row;
    Array<int64_t> rows(count);
    for (int64_t k = 0; k < count; k++)
        rows[k] = every[k];
    Array<T> values(count * width, random), gradient(n);
    for (int64_t k = 0; k < n; k++)
        gradient[k] = 0;
    for (int64_t k = 0; k < count; k++)
        for (int64_t j = 0; j < width; j++)
            gradient[rows[k] * width + j] = values[k * width + j];
    bool some = random.chance(2), more = random.chance(2);
    auto run = [&](int threads, bool sparse) {
        set_thread_count(threads);
        std::vector<Array<T>> a;
        for (const Array<T> &array : start)
            a.push_back(array.copy());
        T *p = a[0].data(), *s = a[1].data(), *v = a[2].data(), *m = a[3].data();
        const ParameterGradient<T> g =
            sparse ? ParameterGradient<T>{values.data(), rows.data(), count, width}
                   : ParameterGradient<T>{gradient.data(), nullptr, 0, 0};
        kernels<T>().sgd(n, p, some ? v : nullptr, g, {T(0.1), T(0.9), T(0.01), more});
        kernels<T>().adam(n, p, m, s, g, {T(0.1), T(0.2), T(0.1), T(2), T(0.01), T(0.1), T(0.99)});
        kernels<T>().rmsprop(n, p, s, some ? m : nullptr, more ? v : nullptr, g,
                             {T(0.1), T(0.2), T(0.01), T(0.5), T(0.1)});
        kernels<T>().adagrad(n, p, s, g, {T(0.1), T(0.01), T(0.1)});
        kernels<T>().average(n, m, p, T(0.25));
        kernels<T>().scale(n, v, T(0.5));
        return a;
    };
    std::vector<Array<T>> results = run(1, false), others = run(3, false), of_rows = run(2, true);
    for (std::size_t k = 0; k < results.size(); k++) {
        check(others[k] == results[k], "the result depends on the number of threads");
        check(of_rows[k] == results[k], "the result of rows is not that of the dense gradient");
        for (int64_t j = 0; j < n; j++)
            check(std::isfinite(results[k][j]), "an update is not finite");
    }
    double sum = 0;
    for (int64_t k = 0; k < n; k++)
        sum += static_cast<double>(gradient[k]) * gradient[k];
    check(near(static_cast<T>(kernels<T>().sum_of_squares(n, gradient.data())), sum),
          "a sum of squares is wrong");
}

// The plan of a recurrence
// --------------------------------------------------------------------------

// Counts how often things are done.
struct Times {
    std::vector<int> times;
    explicit Times(int64_t count) : times(static_cast<std::size_t>(count)) {}
    void add(int64_t k) {
        check(k >= 0 && k < static_cast<int64_t>(times.size()), "something that does not exist");
        times[static_cast<std::size_t>(k)]++;
    }
    void are(int expected, const char *what) const {
        for (int count : times)
            check(count == expected, what);
    }
};

void test_blocks(const Plan &plan, int64_t vectors) {
    Times owned(vectors), ordered(std::ssize(plan.blocks)), columns(vectors);
    std::vector<int64_t> ends;
    const std::vector<Block> shared = plan.shared_columns(5, ends);
    const int threads = plan.share_units ? plan.threads : 1;
    check(std::ssize(ends) == threads, "a thread has no columns");
    for (int thread = 0; thread < threads; thread++) {
        int64_t first = vectors, end = 0;
        for (int64_t k = 0; k < plan.blocks_of(thread); k++) {
            const Block &block = plan.blocks[plan.first_block(thread) + k];
            check(block.vectors >= 1 && block.vectors <= plan.sub, "a block is too large");
            for (int64_t v = block.first; v < block.first + block.vectors; v++)
                owned.add(v);
            first = std::min(first, block.first);
            end = std::max(end, block.first + block.vectors);
            ordered.add(plan.block(thread, k, k % 2));
        }
        for (int64_t n = thread == 0 ? 0 : ends[thread - 1]; n < ends[thread]; n++)
            for (int64_t v = shared[n].first; v < shared[n].first + shared[n].vectors; v++) {
                columns.add(v);
                check(v >= first && v < end, "a thread has another one's column");
            }
    }
    owned.are(1, "a unit is not done once");
    columns.are(1, "a column is not done once");
    for (int64_t t : {0, 1}) {
        Times blocks(std::ssize(plan.blocks));
        for (int thread = 0; thread < threads; thread++)
            for (int64_t k = 0; k < plan.blocks_of(thread); k++)
                blocks.add(plan.block(thread, k, t));
        blocks.are(1, "a block is not done once in a step");
    }
}

void test_plan(Random &random) {
    const int64_t steps = random.one_of({0, 1, 2, 7}),
                  batch = random.one_of({0, 1, 2, 3, 9, 33, 70});
    Array<int64_t> lengths(batch);
    for (int64_t b = 0; b < batch; b++)
        lengths[b] = random.between(0, steps);
    const bool ragged = random.chance(2);
    const int bytes = random.chance(2) ? 4 : 8;
    const Machine machine{static_cast<int>(random.one_of({16, 32, 64})) / bytes, bytes,
                          random.chance(2), static_cast<int>(random.between(1, 6))};
    const PlanSizes sizes{.steps = steps,
                          .batch = batch,
                          .hidden = random.one_of({1, 3, 16, 100, 130, 700}),
                          .projected = random.one_of({1, 40, 700}),
                          .x_blocks = random.between(0, 4),
                          .h_blocks = random.between(0, 5),
                          .projects = random.chance(3),
                          .lengths = ragged ? lengths.data() : nullptr,
                          .reverse = random.chance(2),
                          .format = random.chance(3) ? Format::fixed : Format::chain};
    const Plan plan(sizes, machine);
    where = "plan T " + std::to_string(steps) + " B " + std::to_string(batch) + " H " +
            std::to_string(sizes.hidden) + " threads " + std::to_string(machine.threads);
    test_blocks(plan, (sizes.hidden + machine.lanes - 1) / machine.lanes);

    // Groups have the same rows whatever the threads, and shares of about as many.
    Machine alone = machine;
    alone.threads = 1;
    const Plan by_one(sizes, alone);
    check(plan.groups == by_one.groups && plan.min_tiles == by_one.min_tiles, "other groups");
    auto groups_of = [](const Plan &of) {
        std::vector<int> groups;
        for (int64_t k = 0; k < of.tiles; k++)
            groups.insert(groups.end(), of.tile_begin(k + 1) - of.tile_begin(k), of.group_of(k));
        return groups;
    };
    const std::vector<int> of_rows = groups_of(plan);
    check(of_rows == groups_of(by_one), "a row is in another group with other threads");
    if (plan.groups == 2)
        check(std::abs(std::ssize(of_rows) - 2 * std::count(of_rows.begin(), of_rows.end(), 0)) <=
                  1,
              "a group has more than a row more");

    auto length = [&](int64_t b) { return ragged ? lengths[b] : steps; };
    Times inputs(steps * batch),
        places(plan.tiles * plan.saved_size(3) > 100000 ? 0 : plan.tiles * plan.saved_size(3));
    for (int64_t t = 0; t < steps; t++) {
        Times tiles(plan.tiles), positions(batch);
        for (int thread = 0; thread < plan.threads; thread++) {
            std::vector<RowTile> list;
            plan.tiles_of(thread, t, list);
            if (plan.share_units && thread > 0)
                continue; // the same tiles, other units
            for (const RowTile &tile : list) {
                tiles.add(tile.number);
                check(tile.end - tile.first <= plan.largest_tile(), "a tile is too large");
                for (int64_t p = tile.first; p < tile.end; p++) {
                    positions.add(p);
                    check((p < tile.first + tile.rows) == (t < length(plan.rows[p])),
                          "a row is active beyond its length");
                }
                for (int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    inputs.add(plan.input_row(p, t));
                for (int64_t n = 0; n < std::ssize(plan.blocks) && !places.times.empty(); n++)
                    for (int64_t k = 0; k < 3 * plan.blocks[n].vectors * tile.rows * machine.lanes;
                         k++)
                        places.add(plan.saved_at(3, t, tile.number, n) + k);
            }
        }
        tiles.are(1, "a tile is not done once");
        positions.are(1, "a row is not done once");
    }
    for (int count : places.times)
        check(count <= 1, "saved values overlap");
    for (int64_t t = 0; t < steps; t++)
        for (int64_t b = 0; b < batch; b++)
            check(inputs.times[t * batch + b] == (t < length(b)), "an input is not read once");

    for (bool backwards : {false, true}) {
        Times in_span(steps);
        plan.for_each_span(random.chance(2), backwards, [&](const Span &span) {
            for (int groups : {1, plan.groups}) {
                Times rows(span.rows), grouped_rows(span.rows);
                const GroupedRows grouped(plan, span, groups);
                for (int64_t t = span.first; t < span.end; t++)
                    for (int64_t p = 0; p < plan.active[t]; p++)
                        rows.add(plan.row(span, t, p));
                for (int g = 0; g < groups; g++)
                    for (int64_t t = span.first; t < span.end; t++)
                        for (int64_t k = 0; k < plan.tiles; k++)
                            for (int r = 0; r < plan.rows_of(k, t); r++)
                                if (groups == 1 || plan.group_of(k) == g) {
                                    const int64_t row = grouped.row(t, k) + r;
                                    grouped_rows.add(row);
                                    check(row >= grouped.first(g) &&
                                              row < grouped.first(g) + grouped.size(g),
                                          "a row is in another group");
                                }
                rows.are(1, "a row of a span is not done once");
                grouped_rows.are(1, "a row of a group is not done once");
            }
            for (int64_t t = span.first; t < span.end; t++)
                in_span.add(t);
        });
        in_span.are(1, "a step is not done once");
    }
}

// The recurrence
// -----------------------------------------------------------------------------------

// A random straight-line program; `hidden` is a value that it must not read, or -1.
Program random_program(Random &random, int32_t inputs, std::size_t outputs, int32_t hidden) {
    Program program{inputs, {}, {}, {}};
    for (int64_t k = random.between(1, 2); k > 0; k--)
        program.constants.push_back(random.number());
    auto value = [&] {
        int32_t known = program.values(), any = static_cast<int32_t>(random.below(known));
        return any == hidden ? known - 1 : any;
    };
    for (int64_t k = random.between(0, 12); k > 0; k--) {
        int32_t a = value(), b = value();
        program.instructions.push_back({static_cast<Op>(random.below(op_count)), a, b});
    }
    for (std::size_t k = 0; k < outputs; k++)
        program.outputs.push_back(value());
    return program;
}

// A cell whose two programs match in size; the second is not the first's adjoint.
Cell random_cell(Random &random, bool projected) {
    Cell cell;
    for (int64_t k = random.between(1, 5); k > 0; k--) {
        int64_t halves = random.below(4); // usually both
        cell.gates.push_back({halves == 1 ? -1 : cell.x_blocks, halves == 2 ? -1 : cell.h_blocks});
        cell.x_blocks += halves != 1;
        cell.h_blocks += halves != 2;
    }
    cell.states = static_cast<int32_t>(random.between(1, 3));
    cell.parameters = static_cast<int32_t>(random.below(3));
    auto gates = static_cast<int32_t>(cell.gates.size());
    int32_t inputs = gates + cell.states + cell.parameters, hidden = projected ? gates : -1;
    cell.forward = random_program(random, inputs, static_cast<std::size_t>(cell.states), hidden);
    auto constants_end = inputs + static_cast<int32_t>(cell.forward.constants.size());
    for (int32_t value = 0; value < cell.forward.values(); value++)
        if ((value < inputs || value >= constants_end) && value != hidden && random.chance(2))
            cell.saved.push_back(value);
    cell.backward = random_program(random, static_cast<int32_t>(cell.saved.size()) + cell.states,
                                   static_cast<std::size_t>(inputs), -1);
    cell.validate();
    return cell;
}

// A random cell, or a built-in one, which is compiled.
Cell any_cell(Random &random, bool projected) {
    const std::vector<Cell> &known = built_in_cells();
    const Cell &cell = known[static_cast<std::size_t>(random.below(std::ssize(known)))];
    if (random.chance(2) || (projected && cell.reads_first_state()))
        return random_cell(random, projected);
    return cell;
}

template <class T> using Arrays = std::vector<Array<T>>;

template <class T> std::vector<T *> pointers(const Arrays<T> &arrays) {
    std::vector<T *> result;
    for (const Array<T> &array : arrays)
        result.push_back(array.data());
    return result;
}

template <class T> bool same(const Arrays<T> &a, const Arrays<T> &b) {
    bool equal = a.size() == b.size();
    for (std::size_t k = 0; equal && k < a.size(); k++)
        equal = a[k] == b[k];
    return equal;
}

// The arguments of one recurrence, and a run of it.
template <class T> struct Recurrence {
    int64_t steps, batch, inputs, hidden, projected;
    bool projects, reverse, has_lengths, has_bias, has_weight_ih = false;
    Cell cell;
    Array<T> x, weight_ih, bias_ih, weight_hh, bias_hh, weight_hr, d_output;
    Arrays<T> initial, d_final, parameters;
    Array<int64_t> lengths;
    std::vector<int32_t> named;

    explicit Recurrence(Random &random)
        : steps(random.one_of({0, 1, 2, 6, 40})), batch(random.one_of({0, 1, 2, 5, 9, 20})),
          inputs(random.one_of({0, 1, 5, 40, 100})), // 0: the input halves of gates are given
          hidden(random.one_of({1, 3, 16, 33, 70, 130})), projected(hidden),
          projects(random.chance(4)), reverse(random.chance(2)), has_lengths(random.chance(2)),
          has_bias(random.chance(2)), cell(any_cell(random, projects)), x(0), weight_ih(0),
          bias_ih(0), weight_hh(0), bias_hh(0), weight_hr(0), d_output(0), lengths(batch) {
        if (projects)
            projected = random.between(1, hidden);
        bool given = inputs == 0;
        inputs = given ? cell.x_blocks * hidden : inputs;
        x = {steps * batch * inputs, random};
        weight_ih = {given ? 0 : cell.x_blocks * hidden * inputs, random};
        bias_ih = {given ? 0 : cell.x_blocks * hidden, random};
        has_weight_ih = !given;
        weight_hh = {cell.h_blocks * hidden * projected, random};
        bias_hh = {cell.h_blocks * hidden, random};
        weight_hr = {projected * hidden, random};
        d_output = {steps * batch * projected, random};
        for (int32_t k = 0; k < cell.states; k++) {
            initial.emplace_back(batch * (k == 0 ? projected : hidden), random);
            d_final.emplace_back(batch * (k == 0 ? projected : hidden), random);
        }
        for (int32_t k = 0; k < cell.parameters; k++)
            parameters.emplace_back(hidden, random);
        for (int64_t b = 0; b < batch; b++)
            lengths[b] = random.between(0, steps);
        for (int32_t value = 0; value < cell.forward.values(); value++)
            if (random.chance(4) && !(projects && value == static_cast<int32_t>(cell.gates.size())))
                named.push_back(value);
        if (random.chance(2))
            named.clear();
    }

    std::string name() const {
        return "recurrence T " + std::to_string(steps) + " B " + std::to_string(batch) + " H " +
               std::to_string(hidden) + " P " + std::to_string(projected) + " gates " +
               std::to_string(cell.x_blocks) + "+" + std::to_string(cell.h_blocks);
    }

    // Forward, then backward; all results in one list.
    Arrays<T> run() const {
        Arrays<T> states, record, results;
        for (const Array<T> &start : initial) {
            const int64_t kept = states.empty() ? steps + 1 : std::min<int64_t>(steps + 1, 2);
            states.emplace_back(kept * start.size());
            for (int64_t k = 0; k < start.size(); k++)
                states.back()[k] = start[k];
        }
        for (std::size_t k = 0; k < named.size(); k++)
            record.emplace_back(steps * batch * hidden);
        Array<T> output(steps * batch * projected);
        Array<T> unprojected(projects ? steps * batch * hidden : 0);
        const Sequences sizes{.steps = steps,
                              .batch = batch,
                              .hidden = hidden,
                              .projected = projected,
                              .lengths = has_lengths ? lengths.data() : nullptr,
                              .reverse = reverse};
        const SavedShape shape = kernels<T>().recurrence_saved(cell, sizes, projects, 0);
        Array<T> saved(shape.tiles * shape.size);
        std::vector<T *> state_data = pointers(states), record_data = pointers(record);
        std::vector<T *> pointers_to_parameters = pointers(parameters);
        std::vector<const T *> parameter_data(pointers_to_parameters.begin(),
                                              pointers_to_parameters.end());
        const bool has_hh = cell.h_blocks > 0;
        const LayerWeights<T> weights{.weight_ih = has_weight_ih ? weight_ih.data() : nullptr,
                                      .weight_hh = has_hh ? weight_hh.data() : nullptr,
                                      .bias_ih =
                                          has_bias && has_weight_ih ? bias_ih.data() : nullptr,
                                      .bias_hh = has_bias && has_hh ? bias_hh.data() : nullptr,
                                      .weight_hr = projects ? weight_hr.data() : nullptr,
                                      .parameters = parameter_data};
        kernels<T>().recurrence_forward({.cell = &cell,
                                         .sizes = sizes,
                                         .x = x.data(),
                                         .inputs = inputs,
                                         .weights = &weights,
                                         .states = state_data.data(),
                                         .output = output.data(),
                                         .saved = saved.data(),
                                         .tiles = shape.tiles,
                                         .unprojected = projects ? unprojected.data() : nullptr,
                                         .named_count = static_cast<int32_t>(named.size()),
                                         .named = named.data(),
                                         .record = record_data.data()});

        Arrays<T> d_states;
        for (const Array<T> &d : d_final)
            d_states.push_back(d.copy());
        Array<T> d_x(x.size()), d_weight_ih(weight_ih.size()), d_bias_ih(bias_ih.size());
        Array<T> d_weight_hh(weight_hh.size()), d_bias_hh(bias_hh.size());
        Array<T> d_weight_hr(projects ? weight_hr.size() : 0);
        Array<T> d_parameters(cell.parameters * batch * hidden);
        for (int64_t k = 0; k < d_parameters.size(); k++)
            d_parameters[k] = 0;
        std::vector<T *> d_state_data = pointers(d_states);
        const LayerGradients<T> gradients{.weight_ih = has_weight_ih ? d_weight_ih.data() : nullptr,
                                          .weight_hh = has_hh ? d_weight_hh.data() : nullptr,
                                          .bias_ih = has_weight_ih ? d_bias_ih.data() : nullptr,
                                          .bias_hh = has_hh ? d_bias_hh.data() : nullptr,
                                          .weight_hr = projects ? d_weight_hr.data() : nullptr,
                                          .parameters = d_parameters.data()};
        kernels<T>().recurrence_backward({.cell = &cell,
                                          .sizes = sizes,
                                          .x = x.data(),
                                          .inputs = inputs,
                                          .weights = &weights,
                                          .saved = saved.data(),
                                          .tiles = shape.tiles,
                                          .state = states[0].data(),
                                          .unprojected = projects ? unprojected.data() : nullptr,
                                          .d_output = has_bias ? d_output.data() : nullptr,
                                          .d_states = d_state_data.data(),
                                          .d_x = d_x.data(),
                                          .gradients = &gradients});

        for (Arrays<T> *list : {&states, &record, &d_states})
            for (Array<T> &array : *list)
                results.push_back(std::move(array));
        for (Array<T> *array : {&output, &unprojected, &d_x, &d_weight_ih, &d_bias_ih, &d_weight_hh,
                                &d_bias_hh, &d_weight_hr, &d_parameters})
            results.push_back(std::move(*array));
        return results;
    }
};

template <class T> void test_recurrence(Random &random) {
    Recurrence<T> recurrence(random);
    where = recurrence.name();
    set_thread_count(1);
    Arrays<T> expected = recurrence.run();
    for (const Array<T> &array : expected)
        check(array.written(), "a result was not written");
    for (const Array<T> &array : expected)
        recurrences.add(array);
    for (int threads : {2, 3}) {
        set_thread_count(threads);
        check(same(recurrence.run(), expected), "the result depends on the number of threads");
    }
    recurrence.cell.built_in = -1;
    check(same(recurrence.run(), expected), "the compiled steps differ from the interpreter's");
}

// Packed layers -----------------------------------------------------------------------------------

// A stack of random layers, and the same computation by the recurrence, layer by layer.
template <class T> struct Layers {
    int64_t batch, input, hidden, projected, count, ids, outputs;
    bool projects, has_bias, normalized;
    Cell cell;
    Arrays<T> weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters, norm_weight, norm_bias;
    Array<T> table, weight, bias;

    explicit Layers(Random &random)
        : batch(random.one_of({0, 1, 2, 7, 20})), input(random.one_of({1, 5, 40})),
          hidden(random.one_of({1, 3, 16, 33, 70, 200})), projected(hidden),
          count(random.between(1, 3)), ids(random.one_of({0, 1, 9, 30})),
          outputs(ids > 0 ? ids : random.one_of({0, 1, 70})), projects(random.chance(4)),
          has_bias(random.chance(2)), normalized(random.chance(2)),
          cell(any_cell(random, projects)), table(0), weight(0), bias(0) {
        if (projects)
            projected = random.between(1, hidden);
        const int64_t X = cell.x_blocks * hidden, G = cell.h_blocks * hidden;
        for (int64_t l = 0; l < count; l++) {
            weight_ih.emplace_back(X * (l == 0 ? input : projected), random);
            weight_hh.emplace_back(G * projected, random);
            bias_ih.emplace_back(X, random);
            bias_hh.emplace_back(G, random);
            weight_hr.emplace_back(projected * hidden, random);
            norm_weight.emplace_back(projected, random);
            norm_bias.emplace_back(projected, random);
            for (int32_t k = 0; k < cell.parameters; k++)
                parameters.emplace_back(hidden, random);
        }
        table = {ids * input, random};
        weight = {outputs * projected, random};
        bias = {outputs, random};
    }

    std::string name() const {
        return "stack B " + std::to_string(batch) + " I " + std::to_string(input) + " H " +
               std::to_string(hidden) + " P " + std::to_string(projected) + " L " +
               std::to_string(count) + " V " + std::to_string(ids);
    }

    Array<T> product(int64_t rows, int64_t N, int64_t K, const T *x, const T *w, const T *b) const {
        Array<T> y(rows * N);
        kernels<T>().multiply(Use::weight, rows, N, K, {x, K, 1}, {w, 1, K}, y.data(), N, b, false);
        return y;
    }

    LayerWeights<T> layer(int64_t l) const {
        LayerWeights<T> w{.weight_ih = weight_ih[l].data(),
                          .weight_hh = cell.h_blocks > 0 ? weight_hh[l].data() : nullptr,
                          .bias_ih = has_bias ? bias_ih[l].data() : nullptr,
                          .bias_hh = has_bias && cell.h_blocks > 0 ? bias_hh[l].data() : nullptr,
                          .weight_hr = projects ? weight_hr[l].data() : nullptr,
                          .parameters = {}};
        for (int32_t k = 0; k < cell.parameters; k++)
            w.parameters.push_back(parameters[l * cell.parameters + k].data());
        return w;
    }

    std::unique_ptr<Stack<T>> make() const {
        StackWeights<T> w{.input = input,
                          .hidden = hidden,
                          .projected = projected,
                          .layers = {},
                          .ids = ids,
                          .table = ids > 0 ? table.data() : nullptr,
                          .outputs = outputs,
                          .weight = outputs > 0 ? weight.data() : nullptr,
                          .bias = outputs > 0 && has_bias ? bias.data() : nullptr,
                          .epsilon = T(1e-5)};
        for (int64_t l = 0; l < count; l++)
            w.layers.push_back({.weights = layer(l),
                                .norm_weight = normalized ? norm_weight[l].data() : nullptr,
                                .norm_bias = normalized ? norm_bias[l].data() : nullptr});
        return kernels<T>().make_stack(cell, w);
    }

    // The recurrence over x [steps, B, I]; updates the states in place.
    Array<T> run_recurrence(int64_t steps, const Array<T> &input_rows,
                            const Arrays<T> &states) const {
        Array<T> x = input_rows.copy();
        for (int64_t l = 0; l < count; l++) {
            const int64_t rows = steps * batch;
            Arrays<T> buffers; // the states before and after a step, since nothing is saved
            for (int32_t k = 0; k < cell.states; k++) {
                int64_t size = batch * (k == 0 ? projected : hidden);
                buffers.emplace_back(2 * size);
                for (int64_t j = 0; j < size; j++)
                    buffers.back()[j] = states[k][l * size + j];
            }
            Array<T> output(rows * projected), unprojected(batch * hidden);
            std::vector<T *> state_data = pointers(buffers);
            const LayerWeights<T> weights = layer(l);
            kernels<T>().recurrence_forward(
                {.cell = &cell,
                 .sizes = {steps, batch, hidden, projected},
                 .x = x.data(),
                 .inputs = l == 0 ? input : projected,
                 .weights = &weights,
                 .states = state_data.data(),
                 .output = output.data(),
                 .unprojected = projects ? unprojected.data() : nullptr});
            for (int32_t k = 0; k < cell.states; k++) {
                int64_t size = batch * (k == 0 ? projected : hidden);
                for (int64_t j = 0; j < size; j++)
                    states[k][l * size + j] = buffers[k][steps % 2 * size + j];
            }
            x = std::move(output);
            if (normalized) {
                Array<T> y(rows * projected), means(rows), factors(rows);
                kernels<T>().layer_norm_forward(rows, projected, x.data(), norm_weight[l].data(),
                                                norm_bias[l].data(), T(1e-5), y.data(),
                                                means.data(), factors.data());
                x = std::move(y);
            }
        }
        if (outputs == 0)
            return x;
        return product(steps * batch, outputs, projected, x.data(), weight.data(),
                       has_bias ? bias.data() : nullptr);
    }
};

template <class T> void test_stack(Random &random) {
    Layers<T> layers(random);
    where = layers.name();
    const int64_t B = layers.batch, steps = random.one_of({0, 1, 2, 5, 70}), rows = steps * B;
    Array<int64_t> ids(layers.ids > 0 ? rows : 0);
    Array<T> x(rows * layers.input, random);
    for (int64_t r = 0; r < ids.size(); r++) {
        ids[r] = random.below(layers.ids);
        for (int64_t k = 0; k < layers.input; k++)
            x[r * layers.input + k] = layers.table[ids[r] * layers.input + k];
    }
    Arrays<T> start;
    for (int32_t k = 0; k < layers.cell.states; k++)
        start.emplace_back(layers.count * B * (k == 0 ? layers.projected : layers.hidden), random);
    auto copy = [](const Arrays<T> &arrays) {
        Arrays<T> result;
        for (const Array<T> &array : arrays)
            result.push_back(array.copy());
        return result;
    };
    const std::unique_ptr<Stack<T>> stack = layers.make();
    layers.cell.built_in = -1;
    Arrays<T> expected_states = copy(start);
    Array<T> expected = layers.run_recurrence(steps, x, expected_states);

    const int64_t length = layers.ids > 0 && steps > 0 && B > 0 ? random.between(0, 4) : 0;
    Array<double> uniforms(length * B, random);
    Array<int64_t> first_sampled(0);
    for (int threads : {1, 2, 3}) {
        set_thread_count(threads);
        Arrays<T> states = copy(start);
        std::vector<T *> state_data = pointers(states);
        Array<T> outputs(rows * stack->width());
        const T *given = layers.ids > 0 ? nullptr : x.data();
        const int64_t *given_ids = layers.ids > 0 ? ids.data() : nullptr;
        stack->run({.steps = steps,
                    .batch = B,
                    .x = given,
                    .ids = given_ids,
                    .states = state_data.data(),
                    .outputs = outputs.data()});
        check(outputs == expected, "the outputs are not those of the recurrence");
        check(same(states, expected_states), "the states are not those of the recurrence");
        if (length == 0)
            continue;
        Array<int64_t> sampled(length * B);
        Array<T> logits(B * layers.outputs);
        int64_t count = stack->run({.steps = steps,
                                    .batch = B,
                                    .ids = given_ids,
                                    .states = state_data.data(),
                                    .outputs = logits.data(),
                                    .length = length,
                                    .sampling = {0.8, 3, 0.9},
                                    .uniforms = uniforms.data(),
                                    .sampled = sampled.data()});
        for (int64_t k = 0; k < count * B; k++)
            check(sampled[k] >= 0 && sampled[k] < layers.ids,
                  "an id outside the table was sampled");
        if (threads == 1)
            first_sampled = sampled.copy();
        for (int64_t k = 0; k < count * B; k++)
            check(sampled[k] == first_sampled[k], "the ids depend on the number of threads");
    }
}

void test_invalid_programs() {
    where = "invalid programs";
    auto refused = [](auto change) {
        Random random(7);
        Cell cell = random_cell(random, false);
        change(cell);
        try {
            cell.validate();
        } catch (const std::invalid_argument &) {
            return true;
        }
        return false;
    };
    check(!refused([](Cell &) {}), "a valid cell is refused");
    check(refused([](Cell &c) { c.forward.inputs = -1; }), "a negative number of inputs");
    check(refused([](Cell &c) { c.forward.inputs = INT32_MAX; }), "too many inputs");
    check(refused([](Cell &c) { c.parameters = INT32_MAX; }), "more parameters than inputs");
    check(refused([](Cell &c) { c.forward.outputs[0] = c.forward.values(); }), "an unknown output");
    check(refused([](Cell &c) { c.forward.instructions.push_back({Op::add, 0, 10000}); }),
          "an unknown operand");
    check(refused([](Cell &c) { c.backward.instructions.push_back({static_cast<Op>(99), 0, 0}); }),
          "an unknown operation");
    for (int32_t operand : {10000, INT32_MAX, INT32_MIN, -1})
        check(refused([=](Cell &c) { c.forward.instructions.push_back({Op::tanh, 0, operand}); }),
              "an unknown operand that is not read");
    check(refused([](Cell &c) { c.saved.push_back(-1); }), "an unknown saved value");
    check(refused([](Cell &c) { c.gates[0].x = c.x_blocks; }), "an unknown block");
    check(refused([](Cell &c) { c.states = 0; }), "no state");
}

// Random changes to a valid cell: those that are accepted must run within bounds.
void test_random_programs() {
    Random random(19);
    int refused = 0, ran = 0;
    set_thread_count(2);
    for (int k = 0; k < 4000; k++) {
        where = "random program " + std::to_string(k);
        Recurrence<float> recurrence(random);
        Cell &cell = recurrence.cell;
        cell.built_in = -1;
        std::vector<int32_t *> fields{&cell.forward.inputs, &cell.backward.inputs, &cell.states,
                                      &cell.parameters};
        for (Program *program : {&cell.forward, &cell.backward}) {
            for (Instruction &i : program->instructions)
                for (int32_t *field : {reinterpret_cast<int32_t *>(&i.op), &i.a, &i.b})
                    fields.push_back(field);
            for (int32_t &output : program->outputs)
                fields.push_back(&output);
        }
        for (GateInput &gate : cell.gates)
            for (int32_t *field : {&gate.x, &gate.h})
                fields.push_back(field);
        for (int32_t &value : cell.saved)
            fields.push_back(&value);
        const int32_t values = cell.forward.values();
        const int32_t states = cell.states, parameters = cell.parameters;
        for (int64_t changes = random.between(1, 3); changes > 0; changes--)
            *fields[static_cast<std::size_t>(random.below(static_cast<int64_t>(fields.size())))] =
                static_cast<int32_t>(
                    random.one_of({-1, 0, 1, 2, values - 1, values, values + 1, INT32_MAX,
                                   INT32_MIN, INT32_MAX - 1, random.below(20), random.below(20)}));
        try {
            cell.validate();
        } catch (const std::invalid_argument &) {
            refused++;
            continue;
        }
        // The arrays have the sizes of the original cell, which the module checks.
        if (cell.states != states || cell.parameters != parameters ||
            (recurrence.projects && cell.reads_first_state()) || recurrence.steps > 6)
            continue;
        recurrence.named.clear();
        recurrence.run();
        ran++;
    }
    check(refused > 500 && ran > 500, "too few programs of either kind");
}

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

// Several threads call concurrently, while another changes the number of threads.
void test_callers() {
    where = "callers";
    Random random(11);
    std::vector<Recurrence<float>> recurrences;
    std::vector<Arrays<float>> expected;
    set_thread_count(1);
    while (recurrences.size() < 6) {
        recurrences.emplace_back(random);
        expected.push_back(recurrences.back().run());
    }
    std::atomic<int> running{4};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; caller++)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 5; repeat++)
                for (std::size_t k = 0; k < recurrences.size(); k++)
                    check(same(recurrences[k].run(), expected[k]),
                          "concurrent callers affect each other");
            running--;
        });
    for (int count = 1; running > 0; count = count % 4 + 1) {
        set_thread_count(count);
        std::this_thread::yield();
    }
    for (std::thread &caller : callers)
        caller.join();
}

// A forked child has its own pool. (No thread of the parent may be in a call here: it might hold
// the lock of AddressSanitizer's allocator, on which a child would wait forever.)
void test_fork() {
#if defined(__unix__) || defined(__APPLE__)
    where = "fork";
    Random random(13);
    Recurrence<float> recurrence(random);
    while (recurrence.batch < 9 || recurrence.hidden < 70 || recurrence.steps < 2)
        recurrence = Recurrence<float>(random);
    set_thread_count(2);
    Arrays<float> expected = recurrence.run();
    for (int k = 0; k < 10; k++) {
        pid_t child = fork();
        if (child == 0) {
            check(same(recurrence.run(), expected), "the child's result differs");
            std::_Exit(0);
        }
        int status = 1;
        check(child > 0 && waitpid(child, &status, 0) == child, "no child");
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed");
    }
#endif
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
        test_multiply<T>(random);
        test_cross_entropy<T>(random);
        test_crf<T>(random);
        test_ctc<T>(random);
        test_multiply_batch<T>(random);
        test_softmax<T>(random);
        test_sum_columns<T>(random);
        test_linear_cross_entropy<T>(random);
        test_rows<T>(random);
        test_along<T>(random);
        test_batch_norm<T>(random);
        test_dropout<T>(random);
        test_layer_norm<T>(random);
        test_updates<T>(random);
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
