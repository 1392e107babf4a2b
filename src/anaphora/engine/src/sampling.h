// Samples ids from logits, as `generation.Sampler` describes.
#pragma once

#include "kernels.h"
#include "vector.h"

#include <numeric>

namespace anaphora::ANAPHORA_ISA {

// Buffers for sampling from V logits.
struct SamplingMemory {
    std::vector<double> scores, weights;
    std::vector<std::int64_t> order;

    explicit SamplingMemory(std::int64_t V)
        : scores(static_cast<std::size_t>(padded<double>(V))), weights(scores.size()),
          order(static_cast<std::size_t>(V)) {}
};

// Sample an id from logits [V] by a uniform number; -1 unless the largest logit is finite. Sums are
// in float64, in the order of the ids or, where they are ranked, of the ranks.
template <class T>
std::int64_t sample_id(std::int64_t V, const T *logits, double uniform, const Sampling &sampling,
                       SamplingMemory &memory) {
    constexpr double lowest = -std::numeric_limits<double>::infinity();
    constexpr int W = lanes<double>;
    double *scores = memory.scores.data(), *weights = memory.weights.data();
    std::int64_t *order = memory.order.data();
    std::copy(logits, logits + V, scores);
    std::fill(scores + V, scores + padded<double>(V), lowest);
    Vector<double> maxima = broadcast<double>(lowest), nan = broadcast<double>(0);
    for (std::int64_t v = 0; v < V; v += W) {
        Vector<double> s = load(scores + v);
        maxima = s > maxima ? s : maxima;
        nan = s == s ? nan : s;
    }
    double largest = lowest;
    for (int lane = 0; lane < W; lane++) {
        if (nan[lane] != nan[lane])
            return -1;
        largest = std::max(largest, maxima[lane]);
    }
    if (!std::isfinite(largest))
        return -1;
    if (sampling.temperature == 0)
        return std::find(scores, scores + V, largest) - scores;

    bool ranked = sampling.top_k > 0 || sampling.top_p < 1;
    std::int64_t count = sampling.top_k > 0 ? std::min(sampling.top_k, V) : V;
    const double *chosen = scores;
    if (ranked) {
        std::iota(order, order + V, 0);
        auto likelier = [&](std::int64_t a, std::int64_t b) {
            return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
        };
        if (count < V)
            std::nth_element(order, order + count - 1, order + V, likelier);
        std::sort(order, order + count, likelier);
        for (std::int64_t k = 0; k < count; k++)
            weights[k] = scores[order[k]];
        std::fill(weights + count, weights + padded<double>(count), lowest);
        chosen = weights;
    }
    for (std::int64_t k = 0; k < count; k += W)
        store(weights + k, vexp<double>((load(chosen + k) - largest) / sampling.temperature));
    std::partial_sum(weights, weights + count, weights);
    double total = weights[count - 1];
    if (sampling.top_p < 1)
        total = *std::find_if(weights, weights + count - 1,
                              [&](double sum) { return sum >= sampling.top_p * total; });
    double threshold = uniform * total;
    std::int64_t k =
        std::find_if(weights, weights + count - 1, [&](double sum) { return sum > threshold; }) -
        weights;
    return ranked ? order[k] : k;
}

// ids [B] of logits [B, V]; returns the first row whose logits cannot be sampled, or B.
template <class T>
std::int64_t sample(std::int64_t B, std::int64_t V, const T *logits, const double *uniforms,
                    const Sampling &sampling, std::int64_t *ids) {
    std::int64_t bad = B;
    parallel(1, [&](std::int64_t) {
        SamplingMemory memory(V);
        for (std::int64_t b = 0; b < B && bad == B; b++) {
            ids[b] = sample_id(V, logits + b * V, uniforms[b], sampling, memory);
            if (ids[b] < 0)
                bad = b;
        }
    });
    return bad;
}

} // namespace anaphora::ANAPHORA_ISA
