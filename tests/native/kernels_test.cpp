// Kernels on random shapes: products, losses, sums, layers, updates.
#include "testing.h"

#include <algorithm>

namespace testing {
namespace {

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

} // namespace

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

namespace {

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

} // namespace

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

namespace {

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

} // namespace

template <class T> void test_operations(Random &random) {
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
template void test_operations<float>(Random &);
template void test_operations<double>(Random &);

} // namespace testing
