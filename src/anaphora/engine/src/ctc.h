// Connectionist temporal classification: all alignments of a target summed, and their gradient.
//
// Each row of the batch is one task. The places of a target of n labels are these with blanks
// around them, 2 n + 1: blank, label, blank, ..., blank. An alignment stays in a place, moves on to
// the next, or skips a blank between two labels that differ. Everything is computed in double, in
// logarithms, so that no length and no logits are too large.
#pragma once

#include "kernels.h"
#include "log_sums.h"
#include "memory.h"
#include "pool.h"

namespace anaphora::ANAPHORA_ISA {

// log(exp(a) + exp(b) + exp(c)): the largest is factored out, so that only the others take
// exponentials. Comparisons are such that NaN is passed on.
ANAPHORA_INLINE Vector<double> log_add(Vector<double> a, Vector<double> b, Vector<double> c) {
    Vector<double> larger = b > a ? b : a, one = b > a ? a : b;
    Vector<double> top = c > larger ? c : larger, other = c > larger ? larger : c;
    Vector<double> shift = top == log_zero ? broadcast<double>(0) : top;
    return vlog<double>(1.0 + (vexp<double>(one - shift) + vexp<double>(other - shift))) + top;
}

// One row of the batch: its places, and its arrays of one number a place, padded to `width`.
template <class T> class CtcRow {
  public:
    static constexpr std::int64_t guards = 8; // of probability 0 at both ends of an array

    CtcRow(const Ctc<T> &ctc, std::int64_t b, std::int64_t arrays, Scratch &scratch)
        : ctc_(ctc), b_(b), labels(ctc.target_lengths[b]), places(2 * labels + 1),
          width(whole_lines(places)), classes(whole_lines(ctc.classes)) {
        const std::int64_t count = 2 * guards + width;
        double *all = scratch.get<double>(static_cast<std::size_t>((arrays + 1) * count + classes));
        std::fill_n(all, (arrays + 1) * count, log_zero);
        skips = all + guards;
        first_ = skips + count, stride_ = count;
        row = all + (arrays + 1) * count;
        for (std::int64_t k = 1; k < labels; k++)
            if (label(k) != label(k - 1))
                skips[2 * k + 1] = 0;
    }

    std::int64_t label(std::int64_t k) const { return ctc_.targets[k * ctc_.batch + b_]; }
    double *array(std::int64_t k) const { return first_ + k * stride_; }
    const T *logits(std::int64_t t) const {
        return ctc_.logits + (t * ctc_.batch + b_) * ctc_.classes;
    }

    // row [classes] = exp(logits - their largest), which is returned; 0 in the padding.
    double exponentials_at(std::int64_t t) const {
        std::copy_n(logits(t), ctc_.classes, row);
        std::fill(row + ctc_.classes, row + classes, log_zero);
        return exponentials(classes, row, row);
    }

    // The log-probabilities of the places' labels at a step.
    void emissions_at(std::int64_t t, double normalizer, double *to) const {
        const T *x = logits(t);
        const double blank = static_cast<double>(x[ctc_.blank]) - normalizer;
        for (std::int64_t k = 0; k < labels; k++) {
            to[2 * k] = blank;
            to[2 * k + 1] = static_cast<double>(x[label(k)]) - normalizer;
        }
        to[2 * labels] = blank;
    }

  private:
    const Ctc<T> &ctc_;
    std::int64_t b_;

  public:
    std::int64_t labels, places, width, classes;
    double *skips; // [width] 0 where a place is reached from the one before the last, else -inf
    double *row;   // [classes]

  private:
    double *first_;
    std::int64_t stride_;
};

template <class T>
void ctc_forward(const Ctc<T> &ctc, double *losses, double *normalizers, double *alphas) {
    const std::int64_t B = ctc.batch, all_places = 2 * ctc.labels + 1;
    parallel(B, [&](std::int64_t b) {
        static thread_local Scratch scratch;
        const CtcRow<T> row(ctc, b, 2, scratch);
        double *alpha = row.array(0), *emissions = row.array(1);
        const std::int64_t length = ctc.lengths[b];
        for (std::int64_t t = 0; t < ctc.steps; t++) {
            double *saved = alphas + (t * B + b) * all_places;
            std::fill_n(saved, all_places, log_zero);
            normalizers[t * B + b] = 0;
            if (t >= length)
                continue;
            const double top = row.exponentials_at(t);
            double sums[8] = {};
            for (std::int64_t k = 0; k < row.classes; k += 8)
                for (int p = 0; p < 8; p++)
                    sums[p] += row.row[k + p];
            for (int p = 1; p < 8; p++)
                sums[0] += sums[p];
            const double normalizer = std::log(sums[0]) + top;
            normalizers[t * B + b] = normalizer;
            row.emissions_at(t, normalizer, emissions);
            if (t == 0)
                std::copy_n(emissions, row.labels > 0 ? 2 : 1, alpha);
            else
                // From the last place to the first: a place reads itself and those before it.
                for (std::int64_t k = row.width - lanes<double>; k >= 0; k -= lanes<double>)
                    store(alpha + k, log_add(load(alpha + k), load(alpha + k - 1),
                                             load(alpha + k - 2) + load(row.skips + k)) +
                                         load(emissions + k));
            std::copy_n(alpha, row.places, saved);
        }
        const double *end = alpha + row.places - 1; // the last blank, after the last label
        losses[b] = length > 0 ? -log_sum(2, [=](std::int64_t k) { return end[-k]; })
                               : (row.labels > 0 ? INFINITY : 0.0);
    });
}

template <class T>
void ctc_backward(const Ctc<T> &ctc, const double *losses, const double *normalizers,
                  const double *alphas, const T *weights, T *d_logits) {
    constexpr int W = lanes<double>;
    const std::int64_t B = ctc.batch, all_places = 2 * ctc.labels + 1, V = ctc.classes;
    parallel(B, [&](std::int64_t b) {
        static thread_local Scratch scratch, of_classes;
        const CtcRow<T> row(ctc, b, 3, scratch);
        double *beta = row.array(0), *emissions = row.array(1), *alpha = row.array(2);
        double *shares = of_classes.get<double>(static_cast<std::size_t>(row.classes));
        std::fill_n(shares, row.classes, 0.0);
        const double weight = weights[b], loss = losses[b];
        const std::int64_t length = loss == INFINITY ? 0 : ctc.lengths[b];
        for (std::int64_t t = ctc.steps; t-- > length;)
            std::fill_n(d_logits + (t * B + b) * V, V, T(0));
        for (std::int64_t t = length; t-- > 0;) {
            if (t == length - 1) { // it ends in the last blank, or in the last label
                std::fill_n(beta + row.places - 1 - (row.labels > 0), 1 + (row.labels > 0), 0.0);
            } else { // from the first place to the last: a place reads itself and those after it
                in_vectors(row.width, [=](std::int64_t k) {
                    store(beta + k, load(beta + k) + load(emissions + k));
                });
                in_vectors(row.width, [&](std::int64_t k) {
                    store(beta + k, log_add(load(beta + k), load(beta + k + 1),
                                            load(beta + k + 2) + load(row.skips + k + 2)));
                });
            }
            const double normalizer = normalizers[t * B + b];
            row.emissions_at(t, normalizer, emissions); // for the step before
            std::copy_n(alphas + (t * B + b) * all_places, row.places, alpha);
            in_vectors(row.width, [=](std::int64_t k) {
                store(alpha + k, vexp<double>(load(alpha + k) + load(beta + k) + loss));
            });
            for (std::int64_t k = 0; k < row.labels; k++) {
                shares[ctc.blank] += alpha[2 * k];
                shares[row.label(k)] += alpha[2 * k + 1];
            }
            shares[ctc.blank] += alpha[2 * row.labels];

            const T *x = row.logits(t);
            T *d = d_logits + (t * B + b) * V;
            for (std::int64_t v = 0; v < V; v++)
                row.row[v] = static_cast<double>(x[v]) - normalizer;
            std::fill(row.row + V, row.row + row.classes, log_zero);
            for (std::int64_t v = 0; v < row.classes; v += W) {
                store(row.row + v, (vexp<double>(load(row.row + v)) - load(shares + v)) * weight);
                store(shares + v, broadcast<double>(0));
            }
            for (std::int64_t v = 0; v < V; v++)
                d[v] = static_cast<T>(row.row[v]);
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
