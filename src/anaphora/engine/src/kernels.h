// The interface of what is compiled once for each instruction set, and the choice of one.
#pragma once

#include "format.h"
#include "program.h"

#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

namespace anaphora {

// A strided matrix: element (i, j) is data[i * row + j * column].
template <class T> struct Matrix {
    T *data;
    std::int64_t row, column;
};

// Matrices that are `step` elements apart.
template <class T> struct Matrices {
    T *data;
    std::int64_t step, row, column;
};

// The recurrence: any cell over time, forward and backward.
//
// Letters: T steps, B rows of the batch, I inputs, H hidden units, P the size of the first state (H
// without a projection), Gx and Gh the numbers of input and recurrent halves of gates, L layers, N
// outputs, V ids.
//
// States, saved values and the gradients of recurrent halves are stored by position: rows sorted by
// descending length (stable); without lengths that is the order of the batch. All arrays are in C
// order, belong to the caller, and do not overlap.

// The weights of a layer in one direction; null where it has none.
template <class T> struct LayerWeights {
    const T *weight_ih = nullptr;      // [Gx*H, I]
    const T *weight_hh = nullptr;      // [Gh*H, P]; none if Gh is 0
    const T *bias_ih = nullptr;        // [Gx*H]
    const T *bias_hh = nullptr;        // [Gh*H]
    const T *weight_hr = nullptr;      // [P, H]; none if P is H
    std::vector<const T *> parameters; // each [H]
};

// Their gradients, each of which may be null.
template <class T> struct LayerGradients {
    T *weight_ih = nullptr, *weight_hh = nullptr, *bias_ih = nullptr, *bias_hh = nullptr,
      *weight_hr = nullptr;
    T *parameters = nullptr; // [parameters, B, H]: per row, to be summed by the caller
};

// The sizes of a call. T, B and any length may be 0.
struct Sequences {
    std::int64_t steps, batch, hidden, projected; // T, B, H, P
    const std::int64_t *lengths = nullptr;        // [B], each 0..T
    bool reverse = false;
};

template <class T> struct Forward {
    const Cell *cell = nullptr;
    Sequences sizes{};
    const T *x = nullptr;    // [T, B, I]; without weight_ih [T, B, Gx*H], the input halves of gates
    std::int64_t inputs = 0; // I
    const LayerWeights<T> *weights = nullptr;
    T *const *states = nullptr; // [T+1, B, P], or [2, B, P] if nothing is saved, then [2, B, H]: of
                                // 2 steps, step t is at t % 2; the caller fills in step 0
    T *output = nullptr;        // [T, B, P] the first state after each step of the input, 0 after a
                                // length; may be null if it is that of the states
    T *saved = nullptr;         // of shape recurrence_saved(), for the backward pass; or null
    std::int64_t tiles = 0;     // of that shape, or 0
    T *unprojected = nullptr;   // with a projection [T, B, H], or [B, H] if nothing is saved
    std::int32_t named_count = 0;
    const std::int32_t *named = nullptr; // values to record
    T *const *record = nullptr; // [T, B, H] each, in the order of the input; 0 after a length
};

template <class T> struct Backward {
    const Cell *cell = nullptr;
    Sequences sizes{};
    const T *x = nullptr; // this and the following as in the forward pass
    std::int64_t inputs = 0;
    const LayerWeights<T> *weights = nullptr; // but biases and parameters
    const T *saved = nullptr;       // written by the forward pass, on the same instruction set
    std::int64_t tiles = 0;         // of its shape
    const T *state = nullptr;       // [T+1, B, P] the first state
    const T *unprojected = nullptr; // [T, B, H] with a projection, else null
    const T *d_output = nullptr;    // [T, B, P] or null
    T *const *d_states = nullptr; // [B, P], then [B, H]: of the final states; replaced by those of
                                  // the initial states
    T *d_x = nullptr;             // as x; may be null if there is weight_ih
    const LayerGradients<T> *gradients = nullptr;
};

// The shape of what a recurrence saves: [tiles, size]; and the threads on which it would run.
struct SavedShape {
    std::int64_t tiles, size;
    int threads;
};

// The gradient of a parameter [n]: all of it, or some rows of a table, the others being 0.
template <class T> struct ParameterGradient {
    const T *values;          // [n], or [count, width]
    const std::int64_t *rows; // [count], ascending, each once; null if all is given
    std::int64_t count, width;
};

// A stack of recurrent layers whose weights are packed once and run for a few steps at a time.
template <class T> struct StackLayer {
    LayerWeights<T> weights;
    const T *norm_weight = nullptr, *norm_bias = nullptr; // [P] of a layer norm after it, or null
};
template <class T> struct StackWeights {
    std::int64_t input, hidden, projected; // I, H, P
    std::vector<StackLayer<T>> layers;
    std::int64_t ids = 0;     // V, or 0: the input is ids, each a row of the table
    const T *table = nullptr; // [V, I]
    std::int64_t outputs = 0; // N of the output layer, or 0
    const T *weight = nullptr, *bias = nullptr; // [N, P], [N] or null
    T epsilon = 0;                              // of the layer norms
};

// How an id is sampled from logits; see `generation.Sampler`.
struct Sampling {
    double temperature; // not denormal, which would count as 0
    std::int64_t top_k;
    double top_p;
};

// A run of a stack over T steps; or a generation: T steps, then ids sampled from the last step's
// outputs, each of which is the input of the next step.
template <class T> struct Steps {
    std::int64_t steps, batch;
    const T *x = nullptr;              // [T, B, I], or null if the input is ids
    const std::int64_t *ids = nullptr; // [T, B], each 0..V-1, or null
    T *const *states = nullptr;        // [L, B, P], then [L, B, H]: updated in place
    T *outputs = nullptr;              // [T, B, N]; for a generation [B, N] of the last step
    std::int64_t length = 0;           // ids to sample; 0 for a plain run, else T > 0 and N = V
    Sampling sampling{};
    const double *uniforms = nullptr; // [length, B]
    std::int64_t *sampled = nullptr;  // [length, B]
};

// Immutable once constructed: any number of threads may run it at the same time. It runs on the
// instruction set that packed it.
template <class T> class Stack {
  public:
    const Cell cell;
    const std::int64_t input, hidden, projected, layer_count, ids, outputs;
    std::int64_t bytes = 0; // of its memory

    Stack(const Cell &c, const StackWeights<T> &w)
        : cell(c), input(w.input), hidden(w.hidden), projected(w.projected),
          layer_count(std::ssize(w.layers)), ids(w.ids), outputs(w.outputs) {}
    virtual ~Stack() = default;

    // The size of a step's output: N of the output layer, or P.
    std::int64_t width() const { return outputs > 0 ? outputs : projected; }
    // Returns the number of ids sampled for each row: `length`, or fewer if logits cannot be
    // sampled (NaN, +inf, only -inf): outputs then holds them, and states are unchanged.
    virtual std::int64_t run(const Steps<T> &) const = 0;
};

inline constexpr std::size_t max_graph_states = 16; // of the layers of a graph

// A step of a graph: it reads and writes numbers of one memory, at their places in it.
template <class T> struct GraphStep {
    enum class Kind { elementwise, square_root, gather, product, layers } kind;
    std::int64_t to, a, b = 0, count;     // count: numbers; of a product rows, of layers steps
    Op op{};                              // elementwise: to = op(a, b)
    const std::int64_t *places = nullptr; // [count] of a gather: to = memory[places]
    // Of a product: to [count, row] = a [count, K] weight [N, K]^T + bias [N] (or null); row is at
    // least N, rounded up to whole lines.
    const T *weight = nullptr, *bias = nullptr;
    std::int64_t N = 0, K = 0, row = 0;
    // Of layers: to = their outputs for a; their states, [B, ...] each, are updated in place.
    const Stack<T> *layers = nullptr;
    std::int64_t batch = 0;
    std::vector<std::int64_t> states{};
};

// An array that a graph is given, or returns, and its place in the graph's memory.
struct GraphArray {
    std::int64_t place;
    std::vector<std::size_t> shape;

    std::int64_t size() const {
        std::int64_t product = 1;
        for (std::size_t n : shape)
            product *= static_cast<std::int64_t>(n);
        return product;
    }
};

// A graph in a memory of `size` numbers, which begins with constants.
template <class T> struct GraphPlan {
    std::int64_t size, constant_count;
    const T *constants;
    std::vector<GraphArray> given, results;
    std::vector<GraphStep<T>> steps;
};

// Steps in their order, with packed weights. Immutable once constructed: any number of threads may
// run it at the same time. The layers are the caller's; weights and places are copied.
template <class T> class Graph {
  public:
    const std::vector<GraphArray> given, results;

    explicit Graph(const GraphPlan<T> &plan) : given(plan.given), results(plan.results) {}
    virtual ~Graph() = default;
    virtual void run(const std::vector<const T *> &from, const std::vector<T *> &to) const = 0;
};

// The hyperparameters of the optimisers, whose equations are in updates.py. `new_...` is the weight
// of the newest value in an average.
template <class T> struct SGD {
    T learning_rate, momentum, weight_decay;
    bool nesterov;
};
template <class T> struct Adam { // rate and root_scale include the bias correction
    T rate, new_first, new_second, root_scale, epsilon, weight_decay;
    T shrink; // multiplies the parameter first
};
template <class T> struct RMSprop {
    T learning_rate, new_average, epsilon, momentum, weight_decay;
};
template <class T> struct Adagrad {
    T learning_rate, epsilon, weight_decay;
};

// A linear-chain conditional random field on a batch: a path of tags has the score start[tag 0] +
// sum of emissions[t, tag t] + sum of transitions[tag t, tag t + 1] + end[last tag]. All arrays are
// in C order. T and B may be 0, and a length too: its path is empty, and has the score 0.
template <class T> struct Crf {
    std::int64_t steps, batch, tags; // T, B, C; C > 0
    const T *emissions;              // [T, B, C]; not read beyond a length
    const T *transitions;            // [C, C] from, to; -infinity where there is none
    const T *start, *end;            // [C]
    const std::int64_t *lengths;     // [B], each 0..T
};

// Connectionist temporal classification of a batch: an alignment has a label or the blank at each
// step, and spells the target that remains when repetitions are merged and blanks removed. All
// arrays are in C order. Any size and any length may be 0, except V.
template <class T> struct Ctc {
    std::int64_t steps, batch, classes, labels, blank; // T, B, V, S; 0 <= blank < V
    const T *logits;                                   // [T, B, V]; not read beyond a length
    const std::int64_t *targets;                       // [S, B], in 0..V-1 and not the blank
    const std::int64_t *lengths, *target_lengths;      // [B], each 0..T and 0..S
};

// Elements along the middle axis of x [A, N, C], by indices [A, M, C]: -N ... N - 1, where -1 is
// the last. Any size but N may be 0.
struct Along {
    std::int64_t A, N, M, C;
    bool shared = false; // indices are [A, M], of C elements each
};

// The kernels of one precision.
template <class T> struct Kernels {
    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or null); the columns of C are adjacent. The bits
    // depend on the use: of an input's gradient B is the weight, of a weight's gradient C is.
    void (*multiply)(Use, std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                     Matrix<const T> B, T *C, std::int64_t c_row, const T *bias, bool accumulate);
    // The shape that a forward pass saves for the backward pass, in `tiles` tiles; 0 chooses their
    // number.
    SavedShape (*recurrence_saved)(const Cell &, const Sequences &, bool projects,
                                   std::int64_t tiles);
    void (*recurrence_forward)(const Forward<T> &);
    void (*recurrence_backward)(const Backward<T> &);
    std::unique_ptr<Stack<T>> (*make_stack)(const Cell &, const StackWeights<T> &);
    // losses [N] as cross_entropy_forward computes them for the logits x [N, K] weight^T [V, K] +
    // bias [V] (or null), V > 0; only a block of the logits exists at a time.
    void (*linear_cross_entropy)(std::int64_t N, std::int64_t V, std::int64_t K, const T *x,
                                 const T *weight, const T *bias, const std::int64_t *targets,
                                 T *losses);
    // rows [N, width] = table [., width] [ids [N]], of int8 kernels in 8 bits: Int8Rows::round().
    void (*gather_rows)(std::int64_t N, std::int64_t width, const T *table, const std::int64_t *ids,
                        T *rows);
    std::unique_ptr<Graph<T>> (*make_graph)(const GraphPlan<T> &);
    // losses [N] = -log softmax(logits [N, V])[target], probabilities [N, V] = softmax(logits),
    // possibly in place. Targets are 0..V-1.
    void (*cross_entropy_forward)(std::int64_t N, std::int64_t V, const T *logits,
                                  const std::int64_t *targets, T *losses, T *probabilities);
    // d_logits [N, V] = (probabilities - onehot(target)) * d_losses [N], possibly in place.
    void (*cross_entropy_backward)(std::int64_t N, std::int64_t V, const T *probabilities,
                                   const std::int64_t *targets, const T *d_losses, T *d_logits);
    // log_partitions [B]: the logarithms of the sums of exp(score) over all paths; alphas [T, B, C]
    // the same of all beginnings of paths that end in a tag at a step, 0 beyond a length.
    void (*crf_forward)(const Crf<T> &, double *alphas, double *log_partitions);
    // d_emissions [T, B, C], d_transitions [C, C]: gradients of the sum of weights [B] *
    // log_partitions; with weights of 1 the first are the probabilities of the tags.
    void (*crf_backward)(const Crf<T> &, const double *alphas, const double *log_partitions,
                         const T *weights, T *d_emissions, T *d_transitions);
    // tags [T, B] of the path with the highest score, and that, [B]; `padding` beyond a length.
    void (*crf_decode)(const Crf<T> &, std::int64_t padding, std::int64_t *tags, double *scores);
    // losses [B]: of each row the negative logarithm of the sum of the probabilities of all
    // alignments, infinite if there is none; normalizers [T, B] the logarithms of the sums of
    // exp(logits), 0 beyond a length; alphas [T, B, 2 S + 1] the logarithms of the probabilities of
    // all beginnings of alignments that end in a place (see ctc.h) at a step.
    void (*ctc_forward)(const Ctc<T> &, double *losses, double *normalizers, double *alphas);
    // d_logits [T, B, V]: the gradient of the sum of weights [B] * losses; 0 beyond a length and
    // for rows whose loss is infinite.
    void (*ctc_backward)(const Ctc<T> &, const double *losses, const double *normalizers,
                         const double *alphas, const T *weights, T *d_logits);
    // C [count, M, N] = A [count, M, K] B [count, K, N]: chains along K on every instruction set.
    void (*multiply_batch)(std::int64_t count, std::int64_t M, std::int64_t N, std::int64_t K,
                           Matrices<const T> A, Matrices<const T> B, T *C);
    // y [N, S] = softmax(x) of each row, or its logarithm; with a mask [N, S] over the elements
    // where it is true, 0 elsewhere, and rows where it is nowhere true are 0.
    void (*softmax_forward)(std::int64_t N, std::int64_t S, const T *x, const bool *mask_or_null,
                            bool logarithm, T *y);
    void (*softmax_backward)(std::int64_t N, std::int64_t S, const T *y, const T *dy,
                             bool logarithm, T *dx);
    // sums [N] (+)= the column sums of x [M, N].
    void (*sum_columns)(std::int64_t M, std::int64_t N, const T *x, T *sums, bool accumulate);
    // sums [M, width] of values [N, width]: row m is the sum of values[order[n]] for ends[m-1] <= n
    // < ends[m], in this order, where ends[-1] is 0; no row is empty.
    void (*sum_rows)(std::int64_t M, std::int64_t width, const T *values, const std::int64_t *order,
                     const std::int64_t *ends, T *sums);
    // y [A, N, C]: sums of x [A, N, C] along N up to each element, from the first or (reverse) from
    // the last.
    void (*cumulative_sums)(std::int64_t A, std::int64_t N, std::int64_t C, const T *x,
                            bool reverse, T *y);
    // y [A, M, C] = x [a, index, c]; false if there is no such element, which then is another one.
    bool (*take_along)(const Along &, const T *x, const std::int64_t *indices, T *y);
    // dx [A, N, C]: 0, and dy [A, M, C] added at [a, index, c], in the order of M; false as above.
    bool (*add_along)(const Along &, const T *dy, const std::int64_t *indices, T *dx);
    // order [rows, count]: the places of the first elements of each row of x [rows, N] in ascending
    // or descending order. Equal ones keep their order; NaN is larger than all numbers.
    void (*order_rows)(std::int64_t rows, std::int64_t N, std::int64_t count, const T *x,
                       bool descending, std::int64_t *order);
    // y [repeats, n] = x * mask [n]: an element of the mask is `factor` if its random word, a
    // function of key and position (see kernels.random_words), is at least the threshold, else 0.
    void (*dropout)(std::int64_t repeats, std::int64_t n, const T *x, std::uint64_t key,
                    std::uint32_t threshold, T factor, T *y);
    // y [N, H] = (x [N, H] - means [N]) * factors [N] * weight [H] + bias [H]
    void (*layer_norm_forward)(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                               const T *bias, T epsilon, T *y, T *means, T *factors);
    void (*layer_norm_backward)(std::int64_t N, std::int64_t H, const T *x, const T *weight,
                                const T *means, const T *factors, const T *dy, T *dx, T *d_weight,
                                T *d_bias);
    // The same of columns: y [M, N] = (x - means [N]) * factors [N] * weight [N] + bias [N], and 0
    // in rows where a mask [M] is false, which do not count; at least one does.
    void (*batch_norm_forward)(std::int64_t M, std::int64_t N, const T *x, const bool *mask_or_null,
                               const T *weight, const T *bias, T epsilon, T *y, T *means,
                               T *variances, T *factors);
    void (*batch_norm_backward)(std::int64_t M, std::int64_t N, const T *x,
                                const bool *mask_or_null, const T *weight, const T *means,
                                const T *factors, const T *dy, T *dx, T *d_weight_and_bias);
    // ids [B] sampled from logits [B, V] by uniforms [B]; returns the first row whose logits cannot
    // be sampled, or B.
    std::int64_t (*sample)(std::int64_t B, std::int64_t V, const T *logits, const double *uniforms,
                           const Sampling &, std::int64_t *ids);
    // All arrays are [n]; all but the gradient are updated in place. Those that may be null are
    // optional. A gradient of rows gives the bits of one that has 0 in the others.
    void (*sgd)(std::int64_t n, T *parameter, T *velocity_or_null, const ParameterGradient<T> &,
                const SGD<T> &);
    void (*adam)(std::int64_t n, T *parameter, T *first_moment, T *second_moment,
                 const ParameterGradient<T> &, const Adam<T> &);
    void (*rmsprop)(std::int64_t n, T *parameter, T *square_average, T *gradient_average_or_null,
                    T *velocity_or_null, const ParameterGradient<T> &, const RMSprop<T> &);
    void (*adagrad)(std::int64_t n, T *parameter, T *square_sum, const ParameterGradient<T> &,
                    const Adagrad<T> &);
    // mean [n] += share * (x [n] - mean)
    void (*average)(std::int64_t n, T *mean, const T *x, T share);
    // x [n] *= factor
    void (*scale)(std::int64_t n, T *x, T factor);
    double (*sum_of_squares)(std::int64_t n, const T *x);
};

// The kernels whose implementation has their name and only T as a parameter, in their order.
#define ANAPHORA_KERNELS(KERNEL)                                                                   \
    KERNEL(make_graph)                                                                             \
    KERNEL(cross_entropy_forward)                                                                  \
    KERNEL(cross_entropy_backward)                                                                 \
    KERNEL(crf_forward)                                                                            \
    KERNEL(crf_backward)                                                                           \
    KERNEL(crf_decode)                                                                             \
    KERNEL(ctc_forward)                                                                            \
    KERNEL(ctc_backward)                                                                           \
    KERNEL(multiply_batch)                                                                         \
    KERNEL(softmax_forward)                                                                        \
    KERNEL(softmax_backward)                                                                       \
    KERNEL(sum_columns)                                                                            \
    KERNEL(sum_rows)                                                                               \
    KERNEL(cumulative_sums)                                                                        \
    KERNEL(take_along)                                                                             \
    KERNEL(add_along)                                                                              \
    KERNEL(order_rows)                                                                             \
    KERNEL(dropout)                                                                                \
    KERNEL(layer_norm_forward)                                                                     \
    KERNEL(layer_norm_backward)                                                                    \
    KERNEL(batch_norm_forward)                                                                     \
    KERNEL(batch_norm_backward)                                                                    \
    KERNEL(sample)                                                                                 \
    KERNEL(sgd)                                                                                    \
    KERNEL(adam)                                                                                   \
    KERNEL(rmsprop)                                                                                \
    KERNEL(adagrad)                                                                                \
    KERNEL(average)                                                                                \
    KERNEL(scale)                                                                                  \
    KERNEL(sum_of_squares)

struct InstructionSet {
    const char *name;
    Kernels<float> f32, bf16, i8; // the last two: of products of these operands
    Kernels<double> f64;
    double (*peak)(); // measured float32 multiply-adds of one core, in GFLOP/s
};

// The widest that this machine has, or the one chosen by use_instruction_set.
const InstructionSet &instruction_set();

// What it multiplies bfloat16 with: "tiles" (AMX) or "dots" (AVX512_BF16), which are faster than
// float32, or "vectors", which are not.
const char *bfloat16_unit();

// Choose by name ("amx", "avx512", "avx2", "baseline"; for tests "amx-emulated"); false if this
// machine or build does not have it.
bool use_instruction_set(const char *name);

} // namespace anaphora
