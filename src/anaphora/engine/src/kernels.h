// What is compiled once for each instruction set, and the choice between them.
#pragma once

#include "program.h"
#include "stack.h"

#include <cstdint>

namespace anaphora {

// A matrix by its strides: element (i, j) at data[i * row + j * column].
template <class T> struct Matrix {
    T *data;
    std::int64_t row, column;
};

// The recurrence: any cell over time, forward and backward.
//
// Letters: T steps, B rows of the batch, H hidden units, P the size of the first state (H without a
// projection), Gx and Gh the numbers of input and recurrent halves of gates.
//
// States, saved values and the gradients of recurrent halves lie by position: rows in the order of
// falling length (a stable sort), without lengths the order of the batch.

// Everything that a run forward reads and writes. All arrays are in C order and the caller's own;
// none overlaps another. T, B and any length may be 0.
template <class T> struct Forward {
    const Cell *cell;
    std::int64_t steps, batch, hidden, projected; // T, B, H, P
    const T *x_gates;                             // [T, B, Gx*H]
    const T *weight_hh;                           // [Gh*H, P], null if Gh is 0
    const T *bias_hh;                             // [Gh*H] or null
    const T *weight_hr;                           // [P, H], null if P is H
    const T *const *parameters;                   // each [H]
    const std::int64_t *lengths;                  // [B], each 0..T
    bool reverse;
    T *const *states; // [T+1, B, P], then [T+1, B, H]: the caller fills in step 0; see `rows`
    T *output;        // [T, B, P] the first state after each step of the input; 0 beyond a length
    T *saved;         // recurrence_saved() numbers for the way back, or null
    T *unprojected;   // [T, B, H] with a projection, else null
    std::int32_t named_count;
    const std::int32_t *named; // values to record
    T *const *record;          // [T, B, H] each, in the order of the input; 0 beyond a length
};

template <class T> struct Backward {
    const Cell *cell;
    std::int64_t steps, batch, hidden, projected;
    const T *weight_hh, *weight_hr;
    const std::int64_t *lengths;
    bool reverse;
    const T *saved;     // what the run forward wrote, on the same instruction set
    const T *d_output;  // [T, B, P] or null
    T *const *d_states; // [B, P], then [B, H]: of the final states; on return of the initial ones
    T *d_x_gates;       // [T, B, Gx*H]; beyond a length 0
    T *d_h_gates;       // [T, B, Gh*H] by position; null if Gh is 0; may be d_x_gates, if all gates
                        // are whole and rows lie in the order of the input
    T *d_projected;     // [T, B, P] with a projection, else null
    T *d_parameters;    // [parameters, B, H]: for each row, to be summed by the caller
};

// The kernels of one precision.
template <class T> struct Kernels {
    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or null); the columns of C are adjacent.
    void (*multiply)(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                     Matrix<const T> B, T *C, std::int64_t c_row, const T *bias, bool accumulate);
    // How many numbers a run forward leaves for the way back.
    std::int64_t (*recurrence_saved)(const Cell &, std::int64_t T_, std::int64_t B, std::int64_t H,
                                     std::int64_t P);
    void (*recurrence_forward)(const Forward<T> &);
    void (*recurrence_backward)(const Backward<T> &);
    // losses [N] = -log softmax(logits [N, V])[target], probabilities [N, V] = softmax(logits); the
    // two may be the same memory. Targets are 0..V-1.
    void (*cross_entropy_forward)(std::int64_t N, std::int64_t V, const T *logits,
                                  const std::int64_t *targets, T *losses, T *probabilities);
    // d_logits [N, V] = (probabilities - onehot(target)) * d_losses [N]; may be the same memory.
    void (*cross_entropy_backward)(std::int64_t N, std::int64_t V, const T *probabilities,
                                   const std::int64_t *targets, const T *d_losses, T *d_logits);
    // sums [N] = the sums of the columns of x [M, N].
    void (*sum_columns)(std::int64_t M, std::int64_t N, const T *x, T *sums);
    // parameter [n] -= learning_rate * (gradient [n] + weight_decay * parameter)
    void (*sgd)(std::int64_t n, T *parameter, const T *gradient, T learning_rate, T weight_decay);
    // x [n] *= factor
    void (*scale)(std::int64_t n, T *x, T factor);
    double (*sum_of_squares)(std::int64_t n, const T *x);
    // Run a stack; returns how many ids were drawn for each row: `length`, or less if the logits
    // are then unfit to draw from (NaN, +inf, only -inf): outputs holds them, states are as before.
    std::int64_t (*run_steps)(const Steps<T> &);
    // ids [B] drawn from logits [B, V] by uniforms [B]; returns the first row whose logits are
    // unfit, or B.
    std::int64_t (*draw)(std::int64_t B, std::int64_t V, const T *logits, const double *uniforms,
                         const Sampling &, std::int64_t *ids);
};

struct InstructionSet {
    const char *name;
    Kernels<float> f32;
    Kernels<double> f64;
    double (*peak)(); // measured multiply-adds of float32 on one core, in GFLOP/s
};

// The widest that this machine has, or the one named by a call of use_instruction_set.
const InstructionSet &instruction_set();

// Choose by name ("avx512", "avx2", "baseline"); false if this machine or build does not have it.
bool use_instruction_set(const char *name);

} // namespace anaphora
