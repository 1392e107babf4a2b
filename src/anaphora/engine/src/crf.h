// A linear-chain conditional random field: all paths of tags summed, and the best of them.
//
// Each row of the batch is one task. Everything is computed in double, in logarithms from step to
// step; within a step the sum over the tags before is a product by the matrix exp(transitions), so
// that it takes C exponentials and logarithms, and not C * C of them. Terms that are too small to
// be written drop out of such a sum; where that may be all of it, it is summed again term by term.
#pragma once

#include "log_sums.h"
#include "weight.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

inline constexpr double crf_smallest_sum = 1e-250;

// exp(transitions - top), top the largest of those to the same tag; rows are padded with 0.
struct CrfWeights {
    std::int64_t tags, width;  // C, and that rounded up to whole lines
    double *to, *from, *top;   // [C (from), width (to)], [C (to), width (from)], [width (to)]
    const double *transitions; // [C, C]
};

template <class T> CrfWeights crf_weights(const Crf<T> &crf, Scratch &scratch) {
    std::int64_t C = crf.tags, P = whole_lines(C);
    double *to = scratch.get<double>(static_cast<std::size_t>((2 * C + 1) * P + C * C));
    double *from = to + C * P, *top = from + C * P, *transitions = top + P;
    std::copy_n(crf.transitions, C * C, transitions);
    std::fill_n(top, P, 0.0);
    std::fill_n(from, C * P, 0.0);
    for (std::int64_t j = 0; j < C; j++) {
        double largest = log_zero;
        for (std::int64_t i = 0; i < C; i++)
            largest = std::max(largest, transitions[i * C + j]);
        top[j] = largest == log_zero ? 0 : largest; // to this tag there is no way
    }
    for (std::int64_t i = 0; i < C; i++) {
        double *row = to + i * P;
        for (std::int64_t j = 0; j < C; j++)
            row[j] = transitions[i * C + j] - top[j];
        std::fill(row + C, row + P, log_zero);
        in_vectors(P, [=](std::int64_t k) { store(row + k, vexp<double>(load(row + k))); });
        for (std::int64_t j = 0; j < C; j++)
            from[j * P + i] = row[j];
    }
    return {C, P, to, from, top, transitions};
}

// Vectors k, k + 1, ... of sums [width] = x [C] times matrix [C, width]: of the even terms and of
// the odd ones, each in their order.
template <int N>
ANAPHORA_INLINE void crf_columns(std::int64_t C, std::int64_t P, const double *x,
                                 const double *matrix, double *sums) {
    constexpr int W = lanes<double>;
    Vector<double> even[N] = {}, odd[N] = {};
    std::int64_t i = 0;
    for (; i + 2 <= C; i += 2)
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            even[n] += load(matrix + i * P + n * W) * x[i];
            odd[n] += load(matrix + (i + 1) * P + n * W) * x[i + 1];
        }
    if (i < C)
        for (int n = 0; n < N; n++)
            even[n] += load(matrix + i * P + n * W) * x[i];
    for (int n = 0; n < N; n++)
        store(sums + n * W, even[n] + odd[n]);
}

inline void crf_product(const CrfWeights &w, const double *x, const double *matrix, double *sums) {
    constexpr int W = lanes<double>;
    std::int64_t k = 0;
    for (; k + 4 * W <= w.width; k += 4 * W)
        crf_columns<4>(w.tags, w.width, x, matrix + k, sums + k);
    if (k + 3 * W <= w.width) {
        crf_columns<3>(w.tags, w.width, x, matrix + k, sums + k);
        k += 3 * W;
    }
    for (; k < w.width; k += W)
        crf_columns<1>(w.tags, w.width, x, matrix + k, sums + k);
}

template <class T> void crf_forward(const Crf<T> &crf, double *alphas, double *log_partitions) {
    static thread_local Scratch shared;
    const CrfWeights w = crf_weights(crf, shared);
    const std::int64_t C = w.tags, P = w.width, B = crf.batch;
    parallel(B, [&, w](std::int64_t b) {
        static thread_local Scratch scratch;
        double *alpha = scratch.get<double>(static_cast<std::size_t>(4 * P)), *before = alpha + P,
               *sums = before + P, *emissions = sums + P;
        std::fill_n(alpha, P, log_zero);
        std::fill_n(emissions, P, 0.0);
        const std::int64_t length = crf.lengths[b];
        for (std::int64_t t = 0; t < length; t++) {
            std::copy_n(crf.emissions + (t * B + b) * C, C, emissions);
            double *saved = alphas + (t * B + b) * C;
            if (t == 0) {
                for (std::int64_t j = 0; j < C; j++)
                    alpha[j] = crf.start[j] + emissions[j];
            } else {
                double top = exponentials(P, alpha, before);
                crf_product(w, before, w.to, sums);
                in_vectors(P, [=](std::int64_t k) {
                    store(alpha + k, vlog<double>(load(sums + k)) + (load(w.top + k) + top) +
                                         load(emissions + k));
                });
                const double *old = saved - B * C;
                for (std::int64_t j = 0; j < C; j++)
                    if (sums[j] < crf_smallest_sum)
                        alpha[j] = emissions[j] + log_sum(C, [&](std::int64_t i) {
                                       return old[i] + w.transitions[i * C + j];
                                   });
            }
            std::copy_n(alpha, C, saved);
        }
        for (std::int64_t t = length; t < crf.steps; t++)
            std::fill_n(alphas + (t * B + b) * C, C, 0.0);
        log_partitions[b] =
            length == 0 ? 0.0 : log_sum(C, [&](std::int64_t j) { return alpha[j] + crf.end[j]; });
    });
}

// The pairs of neighbours: one of tags i, j at steps t, t + 1 has the probability
// pull[i] * exp(transitions[i, j] - top[j]) * push[j], so that one product sums those of all steps.
// A step whose factors are too large or too small to be written has its pairs computed one by one.
template <class T>
void crf_backward(const Crf<T> &crf, const double *alphas, const double *log_partitions,
                  const T *weights, T *d_emissions, T *d_transitions) {
    static thread_local Scratch shared;
    const CrfWeights w = crf_weights(crf, shared);
    const std::int64_t C = w.tags, P = w.width, B = crf.batch;
    const std::int64_t pairs = std::max<std::int64_t>(crf.steps - 1, 0) * B;
    // Not scratch, which would keep what a long batch needs.
    auto factors =
        std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>((2 * pairs + C) * C));
    double *pulls = factors.get();
    double *pushes = pulls + pairs * C, *counts = pushes + pairs * C;
    struct Single { // where, and the logarithms of what follows each tag j
        std::int64_t step, row;
        std::vector<double> after;
    };
    std::vector<Single> singles;
    std::mutex mutex;

    parallel(B, [&, w](std::int64_t b) {
        static thread_local Scratch scratch;
        double *beta = scratch.get<double>(static_cast<std::size_t>(5 * P)), *x = beta + P,
               *alpha = x + P, *push = alpha + P, *sums = push + P;
        const std::int64_t length = crf.lengths[b];
        const double weight = weights[b], log_partition = log_partitions[b];
        auto at = [=](auto *array, std::int64_t t) { return array + (t * B + b) * C; };
        for (std::int64_t t = length; t < crf.steps; t++)
            std::fill_n(at(d_emissions, t), C, T(0));
        for (std::int64_t t = std::max<std::int64_t>(length - 1, 0); t < crf.steps - 1; t++) {
            std::fill_n(at(pulls, t), C, 0.0);
            std::fill_n(at(pushes, t), C, 0.0);
        }
        std::fill_n(beta, P, log_zero);
        std::fill_n(alpha, P, 0.0);
        std::copy_n(crf.end, length > 0 ? C : 0, beta);
        for (std::int64_t t = length; t-- > 0;) {
            std::copy_n(at(alphas, t), C, alpha);
            if (t < length - 1) { // beta is that of the step after, with its emissions
                in_vectors(P,
                           [=](std::int64_t k) { store(x + k, load(beta + k) + load(w.top + k)); });
                const double top = exponentials(P, x, push);
                crf_product(w, push, w.from, sums);
                std::copy_n(push, C, at(pushes, t));

                double total = 0;
                in_vectors(P, [=](std::int64_t k) {
                    store(x + k, vexp<double>(load(alpha + k) + (top - log_partition)));
                });
                for (std::int64_t i = 0; i < C; i++)
                    total += x[i] * sums[i];
                const bool fits = std::abs(total - 1) < 1e-6 || log_partition != log_partition;
                for (std::int64_t i = 0; i < C; i++)
                    at(pulls, t)[i] = fits ? weight * x[i] : 0;
                if (!fits) {
                    std::lock_guard lock(mutex);
                    singles.push_back({t, b, {beta, beta + C}});
                }

                std::copy_n(beta, C, push); // its values are in pushes
                in_vectors(P, [=](std::int64_t k) {
                    store(beta + k, vlog<double>(load(sums + k)) + top);
                });
                for (std::int64_t i = 0; i < C; i++)
                    if (sums[i] < crf_smallest_sum)
                        beta[i] = log_sum(
                            C, [&](std::int64_t j) { return w.transitions[i * C + j] + push[j]; });
            }
            in_vectors(P, [=](std::int64_t k) {
                store(x + k, vexp<double>(load(alpha + k) + load(beta + k) - log_partition));
            });
            for (std::int64_t j = 0; j < C; j++)
                at(d_emissions, t)[j] = static_cast<T>(weight * x[j]);
            for (std::int64_t j = 0; j < C; j++)
                beta[j] += at(crf.emissions, t)[j];
        }
    });

    multiply<double>({}, Use::weight, C, C, pairs, Matrix<const double>{pulls, 1, C},
                     Matrix<const double>{pushes, C, 1}, counts, C, nullptr, false);
    for (std::int64_t i = 0; i < C; i++)
        for (std::int64_t j = 0; j < C; j++)
            counts[i * C + j] *= w.to[i * P + j];
    std::sort(singles.begin(), singles.end(), [](const Single &a, const Single &b) {
        return a.step != b.step ? a.step < b.step : a.row < b.row;
    });
    for (const Single &single : singles) {
        const double *alpha = alphas + (single.step * B + single.row) * C;
        for (std::int64_t i = 0; i < C; i++)
            for (std::int64_t j = 0; j < C; j++)
                counts[i * C + j] +=
                    weights[single.row] * std::exp(alpha[i] + w.transitions[i * C + j] +
                                                   single.after[j] - log_partitions[single.row]);
    }
    std::copy_n(counts, C * C, d_transitions);
}

// Vectors k, k + 1, ... of the best scores [width] at the next step, without its emissions, and of
// the tags before from which they come: the first of several that are equally good.
template <int N>
ANAPHORA_INLINE void crf_best(std::int64_t C, std::int64_t P, const double *scores,
                              const double *transitions, double *next, std::int64_t *before) {
    constexpr int W = lanes<double>;
    using Numbers = Vector<std::int64_t>;
    Vector<double> largest[N];
    Numbers from[N] = {};
    for (int n = 0; n < N; n++)
        largest[n] = load(transitions + n * W) + scores[0];
    for (std::int64_t i = 1; i < C; i++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            Vector<double> score = load(transitions + i * P + n * W) + scores[i];
            auto better = score > largest[n];
            largest[n] = better ? score : largest[n];
            from[n] = better ? Numbers{} + i : from[n];
        }
    for (int n = 0; n < N; n++) {
        store(next + n * W, largest[n]);
        store(before + n * W, from[n]);
    }
}

// Viterbi: the best path of each row, the first of several tags that are equally good.
template <class T>
void crf_decode(const Crf<T> &crf, std::int64_t padding, std::int64_t *tags, double *scores) {
    constexpr int W = lanes<double>;
    const std::int64_t C = crf.tags, P = whole_lines(C), B = crf.batch;
    static thread_local Scratch shared;
    double *transitions = shared.get<double>(static_cast<std::size_t>(C * P));
    std::fill_n(transitions, C * P, log_zero);
    for (std::int64_t i = 0; i < C; i++)
        std::copy_n(crf.transitions + i * C, C, transitions + i * P);
    parallel(B, [&, transitions](std::int64_t b) {
        static thread_local Scratch scratch, pointers;
        const std::int64_t length = crf.lengths[b];
        double *best = scratch.get<double>(static_cast<std::size_t>(2 * P)), *next = best + P;
        auto *before = pointers.get<std::int64_t>(static_cast<std::size_t>(length * P));
        std::fill_n(best, P, log_zero);
        for (std::int64_t t = length; t < crf.steps; t++)
            tags[t * B + b] = padding;
        for (std::int64_t t = 0; t < length; t++) {
            const T *emissions = crf.emissions + (t * B + b) * C;
            if (t == 0) {
                for (std::int64_t j = 0; j < C; j++)
                    best[j] = static_cast<double>(crf.start[j]) + emissions[j];
                continue;
            }
            std::int64_t k = 0, *from = before + t * P;
            for (; k + 4 * W <= P; k += 4 * W)
                crf_best<4>(C, P, best, transitions + k, next + k, from + k);
            for (; k < P; k += W)
                crf_best<1>(C, P, best, transitions + k, next + k, from + k);
            for (std::int64_t j = 0; j < C; j++)
                best[j] = next[j] + emissions[j];
        }
        if (length == 0) {
            scores[b] = 0;
            return;
        }
        std::int64_t tag = 0;
        for (std::int64_t j = 0; j < C; j++) {
            best[j] += crf.end[j];
            tag = best[j] > best[tag] ? j : tag;
        }
        scores[b] = best[tag];
        for (std::int64_t t = length - 1; t > 0; t--) {
            tags[t * B + b] = tag;
            tag = before[t * P + tag];
        }
        tags[b] = tag;
    });
}

} // namespace anaphora::ANAPHORA_ISA
