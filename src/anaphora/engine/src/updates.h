// Optimisers' updates and the norm of gradients: one pass each over memory.
#pragma once

#include "matrix.h"

namespace anaphora::ANAPHORA_ISA {

// Numbers are handed out in blocks of this many, whatever the number of threads.
inline constexpr std::int64_t update_block = 16384;

template <class F> void in_blocks(std::int64_t n, F f) {
    parallel((n + update_block - 1) / update_block, [&](std::int64_t task) {
        f(task, task * update_block, std::min(n, (task + 1) * update_block));
    });
}

// parameter -= learning_rate * (gradient + weight_decay * parameter)
template <class T>
void sgd(std::int64_t n, T *parameter, const T *gradient, T learning_rate, T weight_decay) {
    in_blocks(n, [=](std::int64_t, std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; k++)
            parameter[k] -= learning_rate * (gradient[k] + weight_decay * parameter[k]);
    });
}

template <class T> void scale(std::int64_t n, T *x, T factor) {
    in_blocks(n, [=](std::int64_t, std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; k++)
            x[k] *= factor;
    });
}

// The sum of squares in double precision: of each block in 8 interleaved parts, then of the blocks.
template <class T> double sum_of_squares(std::int64_t n, const T *x) {
    static thread_local Scratch scratch;
    std::int64_t blocks = (n + update_block - 1) / update_block;
    double *sums = scratch.get<double>(blocks);
    in_blocks(n, [=](std::int64_t task, std::int64_t begin, std::int64_t end) {
        double parts[8] = {};
        std::int64_t k = begin;
        for (; k + 8 <= end; k += 8)
            for (int p = 0; p < 8; p++)
                parts[p] += static_cast<double>(x[k + p]) * static_cast<double>(x[k + p]);
        for (; k < end; k++)
            parts[0] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
        double sum = 0;
        for (double part : parts)
            sum += part;
        sums[task] = sum;
    });
    double total = 0;
    for (std::int64_t b = 0; b < blocks; b++)
        total += sums[b];
    return total;
}

} // namespace anaphora::ANAPHORA_ISA
