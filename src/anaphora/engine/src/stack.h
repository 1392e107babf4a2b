// A stack of recurrent layers whose weights are packed once and run for a few steps at a time: the
// weights, and the contract of the kernels that run it.
//
// Letters: L layers, T steps, B rows of the batch, I inputs, H hidden units, P the size of the
// first state (H without a projection), N outputs, V ids.
#pragma once

#include "memory.h"
#include "program.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

namespace anaphora {

// The number of elements in a cache line; the rows of all arrays of a stack are padded to cache
// lines.
template <class T> inline constexpr int stack_line = 64 / sizeof(T);

template <class T> inline std::int64_t lines_of(std::int64_t n) {
    return (n + stack_line<T> - 1) / stack_line<T>;
}
template <class T> inline std::int64_t padded(std::int64_t n) {
    return lines_of<T>(n) * stack_line<T>;
}

// W [blocks * rows, depth], packed for products with few rows of x: each block is cut into panels
// of 1 to 4 lines of outputs, [depth, lines of the panel], that are read sequentially. The outputs
// of every block are padded to lines. The layout is the same for all instruction sets, unless they
// have one of their own.
template <class T> struct PackedMatrix {
    static constexpr std::int64_t max_lines = 4; // of a panel
    std::int64_t blocks = 0, rows = 0, depth = 0;
    T *data = nullptr;  // owned by the stack
    bool fixed = false; // whether it is packed in the instruction set's own layout

    std::int64_t lines() const { return lines_of<T>(rows); }
    std::int64_t panels() const { return (lines() + max_lines - 1) / max_lines; }
    std::int64_t first(std::int64_t panel) const { // its first line
        return panel * (lines() / panels()) + std::min(panel, lines() % panels());
    }
    std::int64_t width(std::int64_t panel) const { return first(panel + 1) - first(panel); }
    const T *panel(std::int64_t block, std::int64_t panel) const {
        return data + (block * lines() + first(panel)) * stack_line<T> * depth;
    }
    std::int64_t size() const { return blocks * lines() * stack_line<T> * depth; }

    void pack(const T *weight) {
        T *to = data;
        for (std::int64_t block = 0; block < blocks; block++)
            for (std::int64_t p = 0; p < panels(); p++) {
                std::int64_t columns = width(p) * stack_line<T>, begin = first(p) * stack_line<T>;
                std::int64_t valid = std::min(columns, rows - begin);
                const T *from = weight + (block * rows + begin) * depth;
                std::fill_n(to, columns * depth, T(0));
                for (std::int64_t k0 = 0; k0 < depth; k0 += 16) // both sides stay in the cache
                    for (std::int64_t j = 0; j < valid; j++)
                        for (std::int64_t k = k0; k < std::min(depth, k0 + 16); k++)
                            to[k * columns + j] = from[j * depth + k];
                to += columns * depth;
            }
    }
};

template <class T> struct Kernels;

// The unpacked arrays of a stack; null where absent.
template <class T> struct LayerWeights {
    const T
        *weight_ih; // [Gx*H, I of this layer]; null for a first layer whose x halves are tabulated
    const T *weight_hh;                // [Gh*H, P]
    const T *bias_ih;                  // [Gx*H]
    const T *bias_hh;                  // [Gh*H]
    const T *weight_hr;                // [P, H]
    std::vector<const T *> parameters; // each [H]
    const T *norm_weight, *norm_bias;  // [P] of the layer norm after the layer, or null
};
template <class T> struct StackWeights {
    std::int64_t input, hidden, projected; // I, H, P
    std::vector<LayerWeights<T>> layers;
    std::int64_t ids;       // V, or 0: the input is ids, each a row of the table
    const T *table;         // [V, I], or [V, Gx*H] the first layer's input halves with their bias
    std::int64_t outputs;   // N of the output layer, or 0
    const T *weight, *bias; // [N, P], [N] or null
    T epsilon;              // of the layer norms
};

template <class T> struct PackedLayer {
    PackedMatrix<T> ih, hh, hr;
    T *bias_ih, *bias_hh; // [G, padded H]; bias_ih null if there is none, bias_hh zeros
    T *parameters;        // [parameters, padded H]
    T *norm_weight = nullptr, *norm_bias = nullptr; // [padded P], or null
};

// Immutable once constructed: any number of threads may run it at the same time.
template <class T> class Stack {
  public:
    const Kernels<T> &kernels; // of the instruction set that packed it and runs it
    const Cell cell;
    const std::int64_t input, hidden, projected, ids, outputs;
    std::vector<PackedLayer<T>> layers;
    const T epsilon;
    bool tabulated, has_projection, normalized;
    T *table = nullptr; // [V, I], or [V, Gx, padded H]
    PackedMatrix<T> output;
    T *bias = nullptr; // [padded N], or null

    // The size of a step's output: N of the output layer, or P.
    std::int64_t width() const { return outputs > 0 ? outputs : projected; }
    std::int64_t weights() const { return weights_; }

    Stack(const Cell &c, const StackWeights<T> &w, const Kernels<T> &k)
        : kernels(k), cell(c), input(w.input), hidden(w.hidden), projected(w.projected), ids(w.ids),
          outputs(w.outputs), layers(w.layers.size()), epsilon(w.epsilon),
          tabulated(w.ids > 0 && w.layers[0].weight_ih == nullptr),
          has_projection(w.layers[0].weight_hr != nullptr),
          normalized(w.layers[0].norm_weight != nullptr) {
        const std::int64_t unit = padded<T>(hidden), x_blocks = c.x_blocks, h_blocks = c.h_blocks;
        for (int pass = 0; pass < 2; pass++) { // measure, then fill
            T *at = pass == 0 ? nullptr : memory_.get<T>(static_cast<std::size_t>(total_));
            std::int64_t used = 0;
            auto take = [&](std::int64_t size) {
                T *here = at + (pass == 0 ? 0 : used);
                used += padded<T>(size);
                return here;
            };
            auto matrix = [&](std::int64_t blocks, std::int64_t rows, std::int64_t depth,
                              const T *from) {
                PackedMatrix<T> m{blocks, rows, depth, nullptr, false};
                const std::int64_t fixed =
                    kernels.fixed_size == nullptr ? 0 : kernels.fixed_size(blocks, rows, depth);
                m.fixed = fixed > 0;
                m.data = take(m.fixed ? fixed : m.size());
                if (pass == 1 && m.fixed)
                    kernels.pack_fixed(blocks, rows, depth, from, m.data);
                else if (pass == 1)
                    m.pack(from);
                return m;
            };
            auto vectors = [&](std::int64_t count, std::int64_t size, const T *from) {
                T *to = take(count * padded<T>(size));
                if (pass == 1) {
                    std::fill_n(to, count * padded<T>(size), T(0));
                    for (std::int64_t k = 0; k < count && from != nullptr; k++)
                        std::memcpy(to + k * padded<T>(size), from + k * size, size * sizeof(T));
                }
                return to;
            };
            std::int64_t tables = 0;
            if (ids > 0) {
                if (tabulated)
                    table = vectors(ids * x_blocks, hidden, w.table);
                else
                    table = vectors(1, ids * input, w.table);
                tables = used;
            }
            for (std::size_t l = 0; l < layers.size(); l++) {
                const LayerWeights<T> &from = w.layers[l];
                PackedLayer<T> &to = layers[l];
                if (from.weight_ih != nullptr)
                    to.ih = matrix(x_blocks, hidden, l == 0 ? input : projected, from.weight_ih);
                if (from.weight_hh != nullptr)
                    to.hh = matrix(h_blocks, hidden, projected, from.weight_hh);
                if (has_projection)
                    to.hr = matrix(1, projected, hidden, from.weight_hr);
                to.bias_ih =
                    from.bias_ih == nullptr ? nullptr : vectors(x_blocks, hidden, from.bias_ih);
                to.bias_hh = vectors(h_blocks, hidden, from.bias_hh);
                if (normalized) {
                    to.norm_weight = vectors(1, projected, from.norm_weight);
                    to.norm_bias = vectors(1, projected, from.norm_bias);
                }
                to.parameters = take(static_cast<std::int64_t>(from.parameters.size()) * unit);
                if (pass == 1)
                    for (std::size_t k = 0; k < from.parameters.size(); k++) {
                        T *vector = to.parameters + static_cast<std::int64_t>(k) * unit;
                        std::fill_n(vector, unit, T(0));
                        std::memcpy(vector, from.parameters[k], hidden * sizeof(T));
                    }
            }
            if (outputs > 0) {
                output = matrix(1, outputs, projected, w.weight);
                bias = w.bias == nullptr ? nullptr : vectors(1, outputs, w.bias);
            }
            total_ = used;
            weights_ = used - tables;
        }
    }

  private:
    Scratch memory_; // all arrays, in the order in which a step reads them
    std::int64_t total_ = 0, weights_ = 0;
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
    const Stack<T> *stack;
    std::int64_t steps, batch;
    const T *x;              // [T, B, I], or null if the input is ids
    const std::int64_t *ids; // [T, B], each 0..V-1, or null
    T *const *states;        // [L, B, P], then [L, B, H]: updated in place
    T *outputs;              // [T, B, N]; for a generation [B, N] of the last step
    std::int64_t length;     // ids to sample; 0 for a plain run, else T > 0 and N = V
    Sampling sampling;
    const double *uniforms; // [length, B]
    std::int64_t *sampled;  // [length, B]
};

} // namespace anaphora
