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

// What a product is the gradient of.
enum class Gradient { input, weight };

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
    const T *x;          // [T, B, I]; without weight_ih [T, B, Gx*H], the input halves of gates
    std::int64_t inputs; // I
    const T *weight_ih;  // [Gx*H, I] or null
    const T *bias_ih;    // [Gx*H] or null
    const T *weight_hh;  // [Gh*H, P], null if Gh is 0
    const T *bias_hh;    // [Gh*H] or null
    const T *weight_hr;  // [P, H], null if P is H
    const T *const *parameters;  // each [H]
    const std::int64_t *lengths; // [B], each 0..T
    bool reverse;
    T *const *states;   // [T+1, B, P], then [T+1, B, H]: the caller fills in step 0; with nothing
                        // saved [2, B, ...], where step t stands at t % 2
    T *output;          // [T, B, P] the first state after each step of the input; 0 beyond a length
    T *saved;           // of the shape that recurrence_saved() tells, for the way back; or null
    std::int64_t tiles; // of that shape; 0 without
    T *unprojected;     // with a projection [T, B, H], with nothing saved [B, H]; else null
    std::int32_t named_count;
    const std::int32_t *named; // values to record
    T *const *record;          // [T, B, H] each, in the order of the input; 0 beyond a length
};

template <class T> struct Backward {
    const Cell *cell;
    std::int64_t steps, batch, hidden, projected;
    const T *x; // of the run forward, as are these
    std::int64_t inputs;
    const T *weight_ih, *weight_hh, *weight_hr;
    const std::int64_t *lengths;
    bool reverse;
    const T *saved;       // what the run forward wrote, on the same instruction set
    std::int64_t tiles;   // of its shape
    const T *state;       // [T+1, B, P] the first state
    const T *unprojected; // [T, B, H] with a projection, else null
    const T *d_output;    // [T, B, P] or null
    T *const *d_states;   // [B, P], then [B, H]: of the final states; on return of the initial ones
    // Gradients in the shapes of what they are of; each may be null, but d_x without weight_ih.
    T *d_x, *d_weight_ih, *d_bias_ih, *d_weight_hh, *d_bias_hh, *d_weight_hr;
    T *d_parameters; // [parameters, B, H]: for each row, to be summed by the caller
};

// What a recurrence saves is [tiles, size] numbers.
struct SavedShape {
    std::int64_t tiles, size;
};

// The numbers of the optimisers, whose equations are in updates.py. What is "new" is the share that
// the newest value has in an average.
template <class T> struct SGD {
    T learning_rate, momentum, weight_decay;
    bool nesterov;
};
template <class T> struct Adam { // rate and root_scale: corrected for the first steps' zeros
    T rate, new_first, new_second, root_scale, epsilon, weight_decay;
    T shrink; // the parameter is multiplied by it first
};
template <class T> struct RMSprop {
    T learning_rate, new_average, epsilon, momentum, weight_decay;
};
template <class T> struct Adagrad {
    T learning_rate, epsilon, weight_decay;
};

// The kernels of one precision.
template <class T> struct Kernels {
    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or null); the columns of C are adjacent.
    void (*multiply)(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                     Matrix<const T> B, T *C, std::int64_t c_row, const T *bias, bool accumulate);
    // The same of gradients, whose bits may be others. Where the weight is B, what comes is that of
    // an input; else C is that of the weight.
    void (*multiply_gradient)(Gradient, std::int64_t M, std::int64_t N, std::int64_t K,
                              Matrix<const T> A, Matrix<const T> B, T *C, std::int64_t c_row,
                              bool accumulate);
    // What a run forward leaves for the way back, on so many tiles; 0 chooses their number.
    SavedShape (*recurrence_saved)(const Cell &, std::int64_t T_, std::int64_t B, std::int64_t H,
                                   std::int64_t P, bool has_projection, std::int64_t tiles);
    void (*recurrence_forward)(const Forward<T> &);
    void (*recurrence_backward)(const Backward<T> &);
    // losses [N] = -log softmax(logits [N, V])[target], probabilities [N, V] = softmax(logits); the
    // two may be the same memory. Targets are 0..V-1.
    void (*cross_entropy_forward)(std::int64_t N, std::int64_t V, const T *logits,
                                  const std::int64_t *targets, T *losses, T *probabilities);
    // d_logits [N, V] = (probabilities - onehot(target)) * d_losses [N]; may be the same memory.
    void (*cross_entropy_backward)(std::int64_t N, std::int64_t V, const T *probabilities,
                                   const std::int64_t *targets, const T *d_losses, T *d_logits);
    // sums [N] (+)= the sums of the columns of x [M, N].
    void (*sum_columns)(std::int64_t M, std::int64_t N, const T *x, T *sums, bool accumulate);
    // losses [N] as of cross_entropy_forward for the logits x [N, K] weight^T [V, K] + bias [V] (or
    // null); V > 0. It keeps a block of the logits at a time.
    void (*linear_cross_entropy)(std::int64_t N, std::int64_t V, std::int64_t K, const T *x,
                                 const T *weight, const T *bias, const std::int64_t *targets,
                                 T *losses);
    // rows [N, width] = table [., width] [ids [N]]
    void (*gather_rows)(std::int64_t N, std::int64_t width, const T *table, const std::int64_t *ids,
                        T *rows);
    // sums [M, width] of values [N, width]: row m is the sum of the values with the numbers order
    // [ends[m-1]] ... order [ends[m] - 1], in this order, from 0 at m = 0; no row is empty.
    void (*sum_rows)(std::int64_t M, std::int64_t width, const T *values, const std::int64_t *order,
                     const std::int64_t *ends, T *sums);
    // y [repeats, n] = x * mask [n]: an element of the mask is `factor` if its random word, which
    // key and position determine (see kernels.random_words), is at least the threshold, else 0.
    void (*dropout)(std::int64_t repeats, std::int64_t n, const T *x, std::uint64_t key,
                    std::uint32_t threshold, T factor, T *y);
    // y [N, H] = (x [N, H] - means [N]) * factors [N] * weight [H] + bias [H]
    void (*layer_norm_forward)(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                               const T *bias, T epsilon, T *y, T *means, T *factors);
    void (*layer_norm_backward)(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                                const T *means, const T *factors, const T *dy, T *dx, T *d_weight,
                                T *d_bias);
    // All arrays [n]; all but the gradient change. Where null is allowed, the step goes without.
    void (*sgd)(std::int64_t n, T *parameter, T *velocity_or_null, const T *gradient,
                const SGD<T> &);
    void (*adam)(std::int64_t n, T *parameter, T *first_moment, T *second_moment, const T *gradient,
                 const Adam<T> &);
    void (*rmsprop)(std::int64_t n, T *parameter, T *square_average, T *gradient_average_or_null,
                    T *velocity_or_null, const T *gradient, const RMSprop<T> &);
    void (*adagrad)(std::int64_t n, T *parameter, T *square_sum, const T *gradient,
                    const Adagrad<T> &);
    // mean [n] += share * (x [n] - mean)
    void (*average)(std::int64_t n, T *mean, const T *x, T share);
    // x [n] *= factor
    void (*scale)(std::int64_t n, T *x, T factor);
    double (*sum_of_squares)(std::int64_t n, const T *x);
    // How weights [blocks * rows, depth] of a stack are packed, where not as PackedMatrix does it:
    // in so many numbers, or 0 if these are. Null if this is never so.
    std::int64_t (*fixed_size)(std::int64_t blocks, std::int64_t rows, std::int64_t depth);
    void (*pack_fixed)(std::int64_t blocks, std::int64_t rows, std::int64_t depth, const T *weight,
                       T *packed);
    // Run a stack; returns how many ids were sampled for each row: `length`, or less if the logits
    // are then unfit to draw from (NaN, +inf, only -inf): outputs holds them, states are as before.
    std::int64_t (*run_steps)(const Steps<T> &);
    // ids [B] sampled from logits [B, V] by uniforms [B]; returns the first row whose logits are
    // unfit, or B.
    std::int64_t (*sample)(std::int64_t B, std::int64_t V, const T *logits, const double *uniforms,
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

// Choose by name ("amx", "avx512", "avx2", "baseline"); false if this machine or build does not
// have it.
bool use_instruction_set(const char *name);

} // namespace anaphora
