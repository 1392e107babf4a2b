// Runs a stack of packed layers for a few steps: streaming and generation.
//
// The bits are those of one recurrence over the full sequence: every number is the same FMA chain,
// or the same fixed-point sum, and the same interpreter runs the cell's program.
#pragma once

#include "fixed.h"
#include "normalization.h"
#include "sampling.h"
#include "tiles.h"

#include <atomic>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

inline constexpr int strip_vectors = 4;

// Up to 4 vectors of outputs of a packed matrix: element (k, j) at weights[k * row + j].
template <class T> struct Strip {
    const T *weights;
    std::int64_t row, to; // to: its offset in a row of the result
    int vectors;
};

// to [R, columns] (+)= x [R, K] times S strips of NV vectors, in registers.
template <class T, int R, int NV, int S>
ANAPHORA_INLINE void multiply_strips(std::int64_t K, const T *x, std::int64_t x_row,
                                     const Strip<T> *strips, T *to, std::int64_t to_row,
                                     bool accumulate) {
    constexpr int W = lanes<T>;
    Vector<T> sums[R][S][NV];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
        for (int s = 0; s < S; s++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                sums[i][s][v] =
                    accumulate ? load(to + i * to_row + strips[s].to + v * W) : broadcast<T>(0);
    const T *weights[S];
    for (int s = 0; s < S; s++)
        weights[s] = strips[s].weights;
    const std::int64_t row = strips[0].row;
    for (std::int64_t k = 0; k < K; k++) {
        Vector<T> w[S][NV];
#pragma GCC unroll 2
        for (int s = 0; s < S; s++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                w[s][v] = load(weights[s] + k * row + v * W);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            Vector<T> value = broadcast<T>(x[i * x_row + k]);
#pragma GCC unroll 2
            for (int s = 0; s < S; s++)
#pragma GCC unroll 4
                for (int v = 0; v < NV; v++)
                    sums[i][s][v] += value * w[s][v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
        for (int s = 0; s < S; s++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                store(to + i * to_row + strips[s].to + v * W, sums[i][s][v]);
}

template <class T, int NV, int R = tile_rows(NV)>
void multiply_strip(int rows, std::int64_t K, const T *x, std::int64_t x_row, const Strip<T> &strip,
                    T *to, std::int64_t to_row, bool accumulate) {
    if (rows == R)
        multiply_strips<T, R, NV, 1>(K, x, x_row, &strip, to, to_row, accumulate);
    else if constexpr (R > 1)
        multiply_strip<T, NV, R - 1>(rows, K, x, x_row, strip, to, to_row, accumulate);
}

// Multiply all rows by the first strip, of NV vectors. One row takes two strips at a time if their
// shapes agree, so that enough FMA chains are in flight; many rows take the part of the strip that
// fits in L1. Returns the number of strips used.
template <class T, int NV>
int multiply_first_strips(std::int64_t rows, std::int64_t K, const T *x, std::int64_t x_row,
                          const Strip<T> *strips, std::size_t left, T *to, std::int64_t to_row) {
    if (rows == 1 && left > 1 && strips[1].vectors == NV && strips[1].row == strips[0].row) {
        multiply_strips<T, 1, NV, 2>(K, x, x_row, strips, to, to_row, false);
        return 2;
    }
    constexpr std::int64_t height = tile_rows(NV), block = (1 << 14) / (NV * sizeof(Vector<T>));
    const std::int64_t depth = rows > height ? block : K;
    Strip<T> strip = *strips;
    for (std::int64_t k = 0; k < K; k += depth, strip.weights += depth * strip.row)
        for (std::int64_t i = 0; i < rows; i += height)
            multiply_strip<T, NV>(static_cast<int>(std::min(height, rows - i)),
                                  std::min(depth, K - k), x + i * x_row + k, x_row, strip,
                                  to + i * to_row, to_row, k > 0);
    return 1;
}

// to [rows, blocks * padded rows of a block] = x [rows, K] W^T, for a range of panels of every
// block.
template <class T>
void multiply_packed(const PackedMatrix<T> &w, std::int64_t first_panel, std::int64_t end_panel,
                     std::int64_t rows, const T *x, std::int64_t x_row, T *to, std::int64_t to_row,
                     std::vector<Strip<T>> &strips) {
#if defined(ANAPHORA_HAS_TILES)
    if constexpr (std::is_same_v<T, float>)
        if (w.fixed) {
            FixedWeights(w.blocks, w.rows, w.depth, w.data)
                .multiply(rows, x, x_row, w.first(first_panel), w.first(end_panel), to, to_row);
            return;
        }
#endif
    constexpr int W = lanes<T>, in_line = stack_line<T> / W;
    strips.clear();
    for (std::int64_t block = 0; block < w.blocks; block++)
        for (std::int64_t p = first_panel; p < end_panel; p++) {
            int left = static_cast<int>(w.width(p)) * in_line;
            int parts = (left + strip_vectors - 1) / strip_vectors;
            const T *from = w.panel(block, p);
            std::int64_t row = left * W, at = (block * w.lines() + w.first(p)) * stack_line<T>;
            for (; parts > 0; parts--) {
                int vectors = (left + parts - 1) / parts;
                strips.push_back({from, row, at, vectors});
                from += vectors * W;
                at += vectors * W;
                left -= vectors;
            }
        }
    for (std::size_t s = 0; s < strips.size();) {
        const Strip<T> *at = strips.data() + s;
        const std::size_t left = strips.size() - s;
        int done = 0;
        switch (at->vectors) {
        case 1:
            done = multiply_first_strips<T, 1>(rows, w.depth, x, x_row, at, left, to, to_row);
            break;
        case 2:
            done = multiply_first_strips<T, 2>(rows, w.depth, x, x_row, at, left, to, to_row);
            break;
        case 3:
            done = multiply_first_strips<T, 3>(rows, w.depth, x, x_row, at, left, to, to_row);
            break;
        default: done = multiply_first_strips<T, 4>(rows, w.depth, x, x_row, at, left, to, to_row);
        }
        s += static_cast<std::size_t>(done);
    }
}

// One run: the arrays that its threads share, and the work of each thread. Every thread owns a
// share of the units of all layers, of the projections and of the outputs, and waits for the others
// where it needs their results.
template <class T> class Run {
  public:
    explicit Run(const Steps<T> &f)
        : f_(f), s_(*f.stack), cell_(s_.cell), B_(f.batch), H_(s_.hidden), P_(s_.projected),
          HP_(padded<T>(H_)), PP_(padded<T>(P_)), NP_(padded<T>(s_.outputs)),
          L_(static_cast<std::int64_t>(s_.layers.size())),
          chunk_(std::clamp<std::int64_t>(64 / std::max<std::int64_t>(B_, 1), 1,
                                          std::max<std::int64_t>(f.steps, 1))),
          threads_(threads()), barrier_(threads_) {
        static thread_local Scratch scratch;
        const std::int64_t rows = chunk_ * B_;
        for (T *at = nullptr;;) { // measure, then allocate
            std::int64_t used = 0;
            auto take = [&](std::int64_t size) {
                used += padded<T>(size);
                return at == nullptr ? nullptr : at + used - padded<T>(size);
            };
            x_ = take(rows * s_.input);
            x_gates_ = take(rows * cell_.x_blocks * HP_);
            h_gates_ = take(B_ * cell_.h_blocks * HP_);
            first_states_ = take(L_ * 2 * rows * PP_);
            normalized_ = take(s_.normalized ? rows * PP_ : 0);
            other_states_ = take((cell_.states - 1) * L_ * B_ * HP_);
            unprojected_ = s_.has_projection ? take(B_ * HP_) : nullptr;
            logits_ = take(s_.outputs > 0 ? rows * NP_ : 0);
            if (at != nullptr)
                break;
            at = scratch.get<T>(static_cast<std::size_t>(used));
        }
        if (f.length > 0)
            next_.resize(static_cast<std::size_t>(B_));
    }

    // Returns the number of ids sampled for each row: `length` unless the logits cannot be sampled.
    std::int64_t operator()() {
        for (std::int64_t l = 0; l < L_; l++)
            for (std::int64_t b = 0; b < B_; b++) {
                std::memcpy(first_state(l, 1, chunk_ - 1) + b * PP_,
                            f_.states[0] + (l * B_ + b) * P_, P_ * sizeof(T));
                for (int k = 1; k < cell_.states; k++) {
                    T *to = other_state(k, l) + b * HP_;
                    std::memcpy(to, f_.states[k] + (l * B_ + b) * H_, H_ * sizeof(T));
                    std::fill(to + H_, to + HP_, T(0));
                }
            }
        run_concurrently(threads_, [&](int thread) { work(thread); });
        if (sampled_ == f_.length)
            for (std::int64_t l = 0; l < L_; l++)
                for (std::int64_t b = 0; b < B_; b++) {
                    std::memcpy(f_.states[0] + (l * B_ + b) * P_, last_[l] + b * PP_,
                                P_ * sizeof(T));
                    for (int k = 1; k < cell_.states; k++)
                        std::memcpy(f_.states[k] + (l * B_ + b) * H_, other_state(k, l) + b * HP_,
                                    H_ * sizeof(T));
                }
        return sampled_;
    }

  private:
    int threads() const {
        const std::int64_t weights = s_.weights();
        if (weights * std::int64_t(sizeof(T)) <= cached_bytes && B_ * weights < (1 << 20))
            return 1; // they fit in the cache of one core, and there is little work
        PackedMatrix<T> units{1, H_, 0, nullptr, false};
        return static_cast<int>(std::min<std::int64_t>(available_threads(), units.panels()));
    }

    // The first state of layer l, double-buffered by chunk, so that the previous step can be read
    // while a step is written.
    T *first_state(std::int64_t l, std::int64_t chunk, std::int64_t t) const {
        return first_states_ + (((l * 2 + (chunk & 1)) * chunk_) + t) * B_ * PP_;
    }
    T *other_state(std::int64_t k, std::int64_t l) const {
        return other_states_ + ((k - 1) * L_ + l) * B_ * HP_;
    }
    void wait() {
        if (threads_ > 1)
            barrier_.wait();
    }

    // What one thread has to itself.
    struct ThreadState {
        int thread;
        Tiles<T> values;
        std::vector<T *> before; // the first state of each layer after the last step
        std::vector<Strip<T>> strips;
        std::int64_t chunk;
    };

    void work(int thread) {
        static thread_local Scratch scratch;
        ThreadState own{
            thread, Tiles<T>(cell_.forward, static_cast<int>(HP_ / lanes<T>), scratch), {}, {}, 0};
        for (std::int64_t l = 0; l < L_; l++)
            own.before.push_back(first_state(l, 1, chunk_ - 1));
        for (std::int64_t t = 0; t < f_.steps; t += chunk_) {
            std::int64_t steps = std::min(chunk_, f_.steps - t);
            const T *y = advance(own, steps, f_.x == nullptr ? nullptr : f_.x + t * B_ * s_.input,
                                 f_.ids == nullptr ? nullptr : f_.ids + t * B_);
            if (f_.length == 0)
                write_outputs(own, steps * B_, y, f_.outputs + t * B_ * s_.width());
            else if (t + steps == f_.steps)
                write_outputs(own, B_, y + (steps - 1) * B_ * PP_, f_.outputs);
        }
        if (f_.length > 0)
            generate(own);
        if (thread == 0)
            last_ = own.before;
    }

    // Run steps through all layers; returns the first state of the last layer, layer-normalised if
    // the stack is, [steps, B, padded P].
    const T *advance(ThreadState &own, std::int64_t steps, const T *x, const std::int64_t *ids) {
        const T *y = nullptr;
        for (std::int64_t l = 0; l < L_; l++) {
            const PackedLayer<T> &layer = s_.layers[static_cast<std::size_t>(l)];
            PackedMatrix<T> units{1, H_, 0, nullptr, false};
            const std::int64_t first = units.panels() * own.thread / threads_;
            const std::int64_t end = units.panels() * (own.thread + 1) / threads_;
            const std::int64_t begin = units.first(first) * stack_line<T>;
            const std::int64_t size = units.first(end) * stack_line<T> - begin;
            const std::int64_t x_row = cell_.x_blocks * HP_;
            if (l > 0)
                multiply_packed(layer.ih, first, end, steps * B_, y, PP_, x_gates_, x_row,
                                own.strips);
            else if (!s_.tabulated) {
                if (ids != nullptr) {
                    for (std::int64_t r = own.thread; r < steps * B_; r += threads_)
                        std::memcpy(x_ + r * s_.input, s_.table + ids[r] * s_.input,
                                    s_.input * sizeof(T));
                    x = x_;
                    wait();
                }
                multiply_packed(layer.ih, first, end, steps * B_, x, s_.input, x_gates_, x_row,
                                own.strips);
            }
            for (std::int64_t t = 0; t < steps; t++) {
                T *after = first_state(l, own.chunk, t), *before = own.before[l];
                if (cell_.h_blocks > 0)
                    multiply_packed(layer.hh, first, end, B_, before, PP_, h_gates_,
                                    cell_.h_blocks * HP_, own.strips);
                for (std::int64_t b = 0; b < B_ && size > 0; b++) {
                    const bool tabulated = l == 0 && s_.tabulated;
                    const T *x_gates = tabulated ? s_.table + ids[t * B_ + b] * x_row
                                                 : x_gates_ + (t * B_ + b) * x_row;
                    run_cell(own, l, begin, size, x_gates, tabulated ? nullptr : layer.bias_ih,
                             h_gates_ + b * cell_.h_blocks * HP_, before + b * PP_, b,
                             s_.has_projection ? unprojected_ + b * HP_ : after + b * PP_);
                }
                wait();
                if (s_.has_projection) {
                    const std::int64_t panels = layer.hr.panels();
                    multiply_packed(layer.hr, panels * own.thread / threads_,
                                    panels * (own.thread + 1) / threads_, B_, unprojected_, HP_,
                                    after, PP_, own.strips);
                    wait();
                }
                own.before[l] = after;
            }
            y = first_state(l, own.chunk, 0);
            if (s_.normalized) { // nobody reads the previous layer's values there any more
                for (std::int64_t r = own.thread; r < steps * B_; r += threads_) {
                    T mean, factor;
                    normalize_row(P_, y + r * PP_, layer.norm_weight, layer.norm_bias, s_.epsilon,
                                  normalized_ + r * PP_, mean, factor);
                }
                y = normalized_;
                wait();
            }
        }
        own.chunk++;
        return y;
    }

    // Run the cell's program for some units of one row.
    void run_cell(ThreadState &own, std::int64_t l, std::int64_t begin, std::int64_t size,
                  const T *x_gates, const T *x_bias, const T *h_gates, const T *before,
                  std::int64_t b, T *after) {
        constexpr int W = lanes<T>;
        const PackedLayer<T> &layer = s_.layers[static_cast<std::size_t>(l)];
        const auto state0 = cell_.first_state();
        for (std::int32_t g = 0; g < state0; g++) {
            const auto [x, h] = cell_.gates[g];
            T *to = own.values[g];
            const T *xs = x_gates + x * HP_ + begin, *hs = h_gates + h * HP_ + begin;
            const T *x_biases = x_bias == nullptr ? nullptr : x_bias + x * HP_ + begin;
            const T *h_biases = layer.bias_hh + h * HP_ + begin;
            for (std::int64_t j = 0; j < size; j += W) {
                Vector<T> sum = broadcast<T>(0);
                if (x >= 0) {
                    sum = load(xs + j);
                    if (x_biases != nullptr)
                        sum += load(x_biases + j);
                }
                if (h >= 0) {
                    Vector<T> half = load(hs + j) + load(h_biases + j);
                    sum = x >= 0 ? sum + half : half;
                }
                store(to + j, sum);
            }
        }
        if (!s_.has_projection)
            std::memcpy(own.values[state0], before + begin, size * sizeof(T));
        for (int k = 1; k < cell_.states; k++)
            std::memcpy(own.values[state0 + k], other_state(k, l) + b * HP_ + begin,
                        size * sizeof(T));
        for (int k = 0; k < cell_.parameters; k++)
            own.values.place(state0 + cell_.states + k, layer.parameters + k * HP_ + begin);

        own.values.run(static_cast<int>(size / W));

        std::memcpy(after + begin, own.values[cell_.forward.outputs[0]], size * sizeof(T));
        for (int k = 1; k < cell_.states; k++)
            std::memcpy(other_state(k, l) + b * HP_ + begin, own.values[cell_.forward.outputs[k]],
                        size * sizeof(T));
    }

    // Write the stack's outputs from y [rows, padded P] to [rows, N].
    void write_outputs(ThreadState &own, std::int64_t rows, const T *y, T *to) {
        if (s_.outputs == 0) {
            for (std::int64_t r = own.thread; r < rows; r += threads_)
                std::memcpy(to + r * P_, y + r * PP_, P_ * sizeof(T));
            return;
        }
        const std::int64_t panels = s_.output.panels(), N = s_.outputs;
        const std::int64_t first = panels * own.thread / threads_;
        const std::int64_t end = panels * (own.thread + 1) / threads_;
        if (first == end)
            return;
        const std::int64_t begin = s_.output.first(first) * stack_line<T>;
        const std::int64_t size = std::min(N, s_.output.first(end) * stack_line<T>) - begin;
        multiply_packed(s_.output, first, end, rows, y, PP_, logits_, NP_, own.strips);
        for (std::int64_t r = 0; r < rows; r++) {
            T *from = logits_ + r * NP_ + begin;
            if (s_.bias != nullptr)
                for (std::int64_t j = 0; j < size; j++)
                    from[j] += s_.bias[begin + j];
            std::memcpy(to + r * N + begin, from, size * sizeof(T));
        }
    }

    void generate(ThreadState &own) {
        const std::int64_t V = s_.outputs;
        SamplingMemory memory(V);
        for (std::int64_t n = 0; n < f_.length; n++) {
            wait(); // until the outputs are complete
            for (std::int64_t b = own.thread; b < B_; b += threads_) {
                std::int64_t id =
                    sample_id(V, f_.outputs + b * V, f_.uniforms[n * B_ + b], f_.sampling, memory);
                f_.sampled[n * B_ + b] = id;
                next_[static_cast<std::size_t>(b)] = id;
                if (id < 0)
                    invalid_logits_.store(true, std::memory_order_relaxed);
            }
            wait();
            if (invalid_logits_.load(std::memory_order_relaxed))
                return;
            if (own.thread == 0)
                sampled_ = n + 1;
            if (n + 1 < f_.length)
                write_outputs(own, B_, advance(own, 1, nullptr, next_.data()), f_.outputs);
        }
    }

    const Steps<T> &f_;
    const Stack<T> &s_;
    const Cell &cell_;
    const std::int64_t B_, H_, P_, HP_, PP_, NP_, L_;
    const std::int64_t chunk_; // steps whose input halves are computed at once
    const int threads_;
    Barrier barrier_;
    T *x_, *x_gates_, *h_gates_, *first_states_, *normalized_, *other_states_, *unprojected_,
        *logits_;
    std::vector<std::int64_t> next_; // [B] the ids sampled last
    std::vector<T *> last_;          // the first state of each layer, after the last step
    std::atomic<bool> invalid_logits_{false};
    std::int64_t sampled_ = 0;
};

template <class T> std::int64_t run_steps(const Steps<T> &f) { return Run<T>(f)(); }

} // namespace anaphora::ANAPHORA_ISA
