// Sums of probabilities that are given by their logarithms, in double.
#pragma once

#include "vector.h"

#include <algorithm>

namespace anaphora::ANAPHORA_ISA {

inline constexpr double log_zero = -INFINITY;

// A number of doubles rounded up to whole lines, whatever the width of vectors.
inline std::int64_t whole_lines(std::int64_t count) { return (count + 7) / 8 * 8; }

// f(k) for the vectors of a padded array.
template <class F> ANAPHORA_INLINE void in_vectors(std::int64_t width, F f) {
    for (std::int64_t k = 0; k < width; k += lanes<double>)
        f(k);
}

// y [width] = exp(x - its largest); returns that, or 0 if nothing is larger than -infinity.
inline double exponentials(std::int64_t width, const double *x, double *y) {
    constexpr int W = lanes<double>;
    Vector<double> tops = broadcast<double>(log_zero);
    in_vectors(width, [&](std::int64_t k) {
        Vector<double> values = load(x + k);
        tops = values > tops ? values : tops;
    });
    double largest = tops[0];
    for (int k = 1; k < W; k++)
        largest = tops[k] > largest ? tops[k] : largest;
    largest = largest == log_zero ? 0 : largest;
    in_vectors(width, [&](std::int64_t k) { store(y + k, vexp<double>(load(x + k) - largest)); });
    return largest;
}

// log(sum over k of exp(term(k))), each term on its own.
template <class F> double log_sum(std::int64_t count, F term) {
    double largest = log_zero, sum = 0;
    for (std::int64_t k = 0; k < count; k++)
        largest = term(k) > largest ? term(k) : largest;
    if (largest == log_zero)
        largest = 0;
    for (std::int64_t k = 0; k < count; k++)
        sum += std::exp(term(k) - largest);
    return std::log(sum) + largest;
}

} // namespace anaphora::ANAPHORA_ISA
