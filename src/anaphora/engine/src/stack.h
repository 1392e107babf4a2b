// A stack of layers whose weights are packed once and run for a few steps at a time: streaming and
// generation.
//
// The bits are those of the recurrence over the full sequence: it is the same step, and every
// product is the same sum.
#pragma once

#include "normalization.h"
#include "recurrence.h"
#include "sampling.h"

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

template <class T> struct PackedLayer {
    std::optional<Weight<T>> ih, hh, hr;            // ih: none if the input halves are in the table
    T *bias_ih = nullptr;                           // [Gx, padded H], or null
    T *bias_hh = nullptr;                           // [Gh, padded H]; zeros if there is none
    std::vector<const T *> parameters;              // each [padded H]
    T *norm_weight = nullptr, *norm_bias = nullptr; // [P], or null
};

template <class T> class PackedStack final : public Stack<T> {
    static constexpr int W = lanes<T>;

  public:
    const Units units;
    const T epsilon;
    const std::int64_t HP, PP, NP, XP; // padded H, P, N and vectors of input halves
    const bool projects, normalized, tabulated;
    const Plan plan; // of one row, for the blocks
    std::vector<PackedLayer<T>> layers;
    T *table = nullptr; // [V, I]; if tabulated [V, XP] the input halves of the first layer; with
                        // int8 weights otherwise Int8Rows
    std::optional<Weight<T>> output;
    T *bias = nullptr;        // [N], or null
    std::int64_t weights = 0; // numbers, without the table

    PackedStack(const Cell &c, const StackWeights<T> &w, Units units_)
        : Stack<T>(c, w), units(units_), epsilon(w.epsilon), HP(padded<T>(w.hidden)),
          PP(padded<T>(w.projected)), NP(padded<T>(w.outputs)),
          XP(padded<T>(c.x_blocks * ((w.hidden + W - 1) / W) * W)),
          projects(w.layers[0].weights.weight_hr != nullptr),
          normalized(w.layers[0].norm_weight != nullptr),
          // The products of few ids take no more memory than the weights: they are looked up.
          tabulated(w.ids > 0 && w.ids <= w.input / (in_int8() ? 4 : 1) && c.x_blocks > 0),
          plan(make_plan<T>(c, {1, 1, w.hidden, w.projected, nullptr, false}, projects, 0, units_)),
          layers(w.layers.size()) {
        std::int64_t total = 0;
        lay_out(w, [&](std::int64_t size) {
            total += padded<T>(size);
            return static_cast<T *>(nullptr);
        });
        T *at = memory_.get<T>(static_cast<std::size_t>(total));
        lay_out(w, [&](std::int64_t size) {
            at += padded<T>(size);
            return at - padded<T>(size);
        });
        weights = total - w.ids * row_of_table();
        this->bytes = total * static_cast<std::int64_t>(sizeof(T));
    }

    // A row of the table.
    void read_table(std::int64_t id, T *to) const {
        const T *from = table + id * row_of_table();
        if constexpr (sizeof(T) == 4)
            if (in_int8())
                return Int8Rows::unpack(this->input, from, to);
        std::copy_n(from, this->input, to);
    }

    std::int64_t run(const Steps<T> &f) const override;

  private:
    bool in_int8() const { return sizeof(T) == 4 && units.precision == Precision::int8; }
    std::int64_t row_of_table() const {
        return tabulated ? XP : in_int8() ? Int8Rows::size(this->input) : this->input;
    }

    // Lay out all arrays in the order in which a step reads them, in memory that take(size) gives;
    // it gives none where they are only measured.
    template <class F> void lay_out(const StackWeights<T> &w, F take) {
        auto weight = [&](std::optional<Weight<T>> &to, std::int64_t gates, std::int64_t units_,
                          std::int64_t K, std::vector<Block> blocks, const T *from) {
            if (from == nullptr)
                return;
            for (Block &block : blocks)
                block.end_term = K;
            const WeightShape shape{gates, units_, K, std::move(blocks), true};
            const Format format = choose(Use::weight, K, units_, units).format;
            if (T *memory = take(Weight<T>::size(format, shape)))
                to.emplace(format, shape, Matrix<const T>{from, 1, K}, memory);
        };
        auto vectors = [&](std::int64_t count, std::int64_t size, const T *from) {
            const std::int64_t row = padded<T>(size);
            T *to = take(count * row);
            for (std::int64_t k = 0; k < count && to != nullptr; k++) {
                std::fill_n(to + k * row, row, T(0));
                if (from != nullptr)
                    std::copy_n(from + k * size, size, to + k * row);
            }
            return to;
        };
        const std::int64_t H = w.hidden, P = w.projected;
        if (w.ids > 0)
            table = take(w.ids * row_of_table());
        if (table != nullptr && tabulated)
            tabulate(w);
        else if (table != nullptr)
            pack_table(w, table, row_of_table());
        for (std::size_t l = 0; l < layers.size(); l++) {
            const LayerWeights<T> &from = w.layers[l].weights;
            PackedLayer<T> &to = layers[l];
            if (l > 0 || !tabulated) {
                weight(to.ih, this->cell.x_blocks, H, l == 0 ? w.input : P, plan.blocks,
                       from.weight_ih);
                if (from.bias_ih != nullptr)
                    to.bias_ih = vectors(this->cell.x_blocks, H, from.bias_ih);
            }
            weight(to.hh, this->cell.h_blocks, H, P, plan.blocks, from.weight_hh);
            weight(to.hr, 1, P, H, column_blocks(H, P, W), from.weight_hr);
            to.bias_hh = vectors(this->cell.h_blocks, H, from.bias_hh);
            to.parameters.clear();
            for (const T *parameter : from.parameters)
                to.parameters.push_back(vectors(1, H, parameter));
            if (normalized) {
                to.norm_weight = vectors(1, P, w.layers[l].norm_weight);
                to.norm_bias = vectors(1, P, w.layers[l].norm_bias);
            }
        }
        weight(output, 1, w.outputs, P, column_blocks(P, w.outputs, W), w.weight);
        if (w.bias != nullptr)
            bias = vectors(1, w.outputs, w.bias);
    }

    // The rows of the table, or with int8 weights Int8Rows.
    void pack_table(const StackWeights<T> &w, T *to, std::int64_t row) const {
        for (std::int64_t id = 0; id < w.ids; id++) {
            const T *from = w.table + id * w.input;
            if constexpr (sizeof(T) == 4)
                if (in_int8()) {
                    Int8Rows::pack(w.input, from, to + id * row);
                    continue;
                }
            std::copy_n(from, w.input, to + id * row);
        }
    }

    // The input halves of every id, with their bias.
    void tabulate(const StackWeights<T> &w) {
        OwnScratch weight_scratch, row_scratch, table_scratch;
        const LayerWeights<T> &from = w.layers[0].weights;
        const Weight<T> ih =
            gate_weight(choose(Use::weight, w.input, w.hidden, units).format, plan,
                        this->cell.x_blocks, w.input, from.weight_ih, weight_scratch);
        typename Weight<T>::Rows rows(ih, w.ids, false, row_scratch);
        const T *read = w.table;
        if constexpr (sizeof(T) == 4)
            if (in_int8()) {
                const std::int64_t size = Int8Rows::size(w.input);
                T *unpacked = table_scratch.get<T>(w.ids * w.input + size),
                  *row = unpacked + w.ids * w.input;
                for (std::int64_t id = 0; id < w.ids; id++) {
                    Int8Rows::pack(w.input, w.table + id * w.input, row);
                    Int8Rows::unpack(w.input, row, unpacked + id * w.input);
                }
                read = unpacked;
            }
        const std::vector<RowRange<T>> range{{read, static_cast<int>(w.ids), 0}};
        rows.read(range, w.input, false);
        ih.multiply_all(0, std::ssize(plan.blocks), rows, {table, XP, W});
        if (from.bias_ih == nullptr)
            return;
        const WeightShape shape{this->cell.x_blocks, this->hidden, w.input, plan.blocks};
        T *to = table;
        for (const Block &block : plan.blocks)
            for (std::int64_t v = 0; v < shape.vectors(block); v++, to += W) {
                const Columns columns = shape.columns(block, v, W);
                for (std::int64_t id = 0; id < w.ids; id++)
                    for (std::int64_t j = 0; j < std::min<std::int64_t>(columns.valid, W); j++)
                        to[id * XP + j] += from.bias_ih[columns.begin + j];
            }
    }

    OwnScratch memory_;
};

// One run: the arrays that its threads share, and the work of each thread. Every thread owns a
// share of the units of all layers, of the projections and of the outputs, and waits for the others
// where it needs their results.
template <class T> class Run {
    static constexpr int W = lanes<T>;
    using Rows = typename Weight<T>::Rows;

  public:
    Run(const PackedStack<T> &stack, const Steps<T> &f)
        : f_(f), s_(stack), cell_(stack.cell), B_(f.batch), L_(std::ssize(stack.layers)),
          chunk_(std::clamp<std::int64_t>(64 / std::max<std::int64_t>(B_, 1), 1,
                                          std::max<std::int64_t>(f.steps, 1))),
          threads_(threads()), reads_(ForwardStep<T>::read_values(cell_, nullptr, 0)),
          barrier_(threads_) {
        static thread_local Scratch scratch;
        const std::int64_t rows = chunk_ * B_;
        for (T *at = nullptr;;) { // measure, then allocate
            std::int64_t used = 0;
            auto take = [&](std::int64_t size) {
                used += padded<T>(size);
                return at == nullptr ? nullptr : at + used - padded<T>(size);
            };
            x_ = take(rows * s_.input);
            x_gates_ = take(rows * s_.XP);
            first_states_ = take(L_ * 2 * rows * s_.PP);
            normalized_ = take(s_.normalized ? rows * s_.PP : 0);
            other_states_ = take((cell_.states - 1) * L_ * B_ * s_.HP);
            unprojected_ = take(s_.projects ? B_ * s_.HP : 0);
            logits_ = take(s_.outputs > 0 ? rows * s_.NP : 0);
            if (at != nullptr)
                break;
            at = scratch.get<T>(static_cast<std::size_t>(used));
        }
        // Tiles of a step: as many rows as products favour, then as many blocks of units as fit.
        tiles_ = Parts::of(B_, std::max<std::int64_t>(s_.plan.max_rows_of_tile(), 1));
        const int height = B_ == 0 ? 1 : tiles_.size(0);
        blocks_in_tile_ = std::max(1, tile_vectors / (height * s_.plan.sub));
        vectors_in_tile_ = static_cast<int>(blocks_in_tile_) * s_.plan.sub * height;
        if (f.length > 0)
            next_.resize(static_cast<std::size_t>(B_));
    }

    // Returns the number of ids sampled for each row: `length` unless the logits cannot be sampled.
    std::int64_t operator()() {
        for (std::int64_t l = 0; l < L_; l++)
            for (int k = 0; k < cell_.states; k++) {
                const std::int64_t size = k == 0 ? s_.projected : s_.hidden, row = row_of(k);
                T *to = k == 0 ? first_state(l, 1, chunk_ - 1) : other_state(k, l);
                for (std::int64_t b = 0; b < B_; b++) {
                    std::copy_n(f_.states[k] + (l * B_ + b) * size, size, to + b * row);
                    std::fill(to + b * row + size, to + (b + 1) * row, T(0));
                }
            }
        run_concurrently(threads_, barrier_, [&](int thread) { work(thread); });
        for (std::int64_t l = 0; l < L_ && sampled_ == f_.length; l++)
            for (int k = 0; k < cell_.states; k++) {
                const std::int64_t size = k == 0 ? s_.projected : s_.hidden;
                const T *from = k == 0 ? last_[l] : other_state(k, l);
                for (std::int64_t b = 0; b < B_; b++)
                    std::copy_n(from + b * row_of(k), size, f_.states[k] + (l * B_ + b) * size);
            }
        return sampled_;
    }

  private:
    int threads() const {
        // Weights that fit in the cache of one core, and little work.
        constexpr std::int64_t little = 1 << 20;
        if (s_.weights * std::int64_t(sizeof(T)) <= cached_bytes && B_ * s_.weights < little)
            return 1;
        return static_cast<int>(
            std::min<std::int64_t>(available_threads(), std::ssize(s_.plan.blocks)));
    }

    std::int64_t row_of(int state) const { return state == 0 ? s_.PP : s_.HP; }
    // The first state of layer l, double-buffered by chunk, so that the previous step can be read
    // while a step is written.
    T *first_state(std::int64_t l, std::int64_t chunk, std::int64_t t) const {
        return first_states_ + (((l * 2 + (chunk & 1)) * chunk_) + t) * B_ * s_.PP;
    }
    T *other_state(std::int64_t k, std::int64_t l) const {
        return other_states_ + ((k - 1) * L_ + l) * B_ * s_.HP;
    }
    void wait() {
        if (threads_ > 1)
            barrier_.wait();
    }

    // A thread's share of n blocks.
    struct Share {
        std::int64_t first, end;
    };
    Share share(int thread, std::int64_t n) const {
        return {n * thread / threads_, n * (thread + 1) / threads_};
    }

    // What one thread has to itself: rows that it multiplies by each kind of weight, its step.
    struct Own {
        Own(const Run &run, int thread_)
            : thread(thread_), share(run.share(thread_, std::ssize(run.s_.plan.blocks))) {
            static thread_local Scratch scratch[7];
            const PackedStack<T> &s = run.s_;
            const std::int64_t rows = run.chunk_ * run.B_;
            auto emplace = [&](std::optional<Rows> &to, const std::optional<Weight<T>> &weight,
                               std::int64_t count, Scratch &memory) {
                if (weight)
                    to.emplace(*weight, count, true, memory);
            };
            emplace(first_input, s.layers[0].ih, rows, scratch[0]);
            if (s.layers.size() > 1)
                emplace(input, s.layers[1].ih, rows, scratch[1]);
            emplace(state, s.layers[0].hh, run.B_, scratch[2]);
            emplace(unprojected, s.layers[0].hr, run.B_, scratch[3]);
            emplace(output, s.output, rows, scratch[4]);
            for (const PackedLayer<T> &l : s.layers)
                layers.push_back({&s.cell, &s.plan.blocks, s.HP, l.hh ? &*l.hh : nullptr, nullptr,
                                  l.bias_ih, l.bias_hh, l.parameters.data()});
            step.emplace(layers[0], run.reads_, run.vectors_in_tile_,
                         run.blocks_in_tile_ * s.plan.sub * run.B_, scratch[5], scratch[6]);
            const CompiledStep<T> *compiled = compiled_step<T>(s.cell);
            if (compiled != nullptr && run.B_ == 1 && share.first < share.end &&
                (!s.layers[0].hh || s.layers[0].hh->numbers(0) != nullptr))
                row = compiled->row;
            for (std::int64_t l = 0; l < run.L_; l++)
                before.push_back(run.first_state(l, 1, run.chunk_ - 1));
        }

        int thread;
        Share share; // of the units
        std::optional<Rows> first_input, input, state, unprojected, output;
        std::vector<RowRange<T>> ranges;
        std::vector<StepLayer<T>> layers;
        std::optional<ForwardStep<T>> step;
        void (*row)(const RowPlaces<T> &, const Block *, const Block *) = nullptr; // of one row
        std::vector<T *> before; // the first state of each layer after the last step
        std::int64_t chunk = 0;
    };

    void work(int thread) {
        Own own(*this, thread);
        for (std::int64_t t = 0; t < f_.steps; t += chunk_) {
            std::int64_t steps = std::min(chunk_, f_.steps - t);
            const T *y = advance(own, steps, f_.x == nullptr ? nullptr : f_.x + t * B_ * s_.input,
                                 f_.ids == nullptr ? nullptr : f_.ids + t * B_);
            if (f_.length == 0)
                write_outputs(own, steps * B_, y, f_.outputs + t * B_ * s_.width());
            else if (t + steps == f_.steps)
                write_outputs(own, B_, y + (steps - 1) * B_ * s_.PP, f_.outputs);
        }
        if (f_.length > 0)
            generate(own);
        if (thread == 0)
            last_ = own.before;
    }

    // to [count, row] = x [count, stride] times a thread's blocks of a weight.
    void multiply_rows(Own &own, const Weight<T> &weight, Rows &rows, Share blocks,
                       std::int64_t count, const T *x, std::int64_t stride, T *to,
                       std::int64_t row) const {
        if (blocks.first == blocks.end)
            return;
        own.ranges.assign(1, {x, static_cast<int>(count), 0});
        rows.read(own.ranges, stride, false);
        weight.multiply_all(blocks.first, blocks.end, rows,
                            {to + weight.first_vector(blocks.first) * W, row, W});
    }

    // Run steps through all layers; returns the first state of the last layer, layer-normalised if
    // the stack is, [steps, B, padded P].
    const T *advance(Own &own, std::int64_t steps, const T *x, const std::int64_t *ids) {
        const T *y = x;
        std::int64_t y_row = s_.input;
        for (std::int64_t l = 0; l < L_; l++) {
            const PackedLayer<T> &layer = s_.layers[static_cast<std::size_t>(l)];
            if (l == 0 && ids != nullptr && !s_.tabulated) {
                for (std::int64_t r = own.thread; r < steps * B_; r += threads_)
                    s_.read_table(ids[r], x_ + r * s_.input);
                y = x_;
                wait();
            }
            if (layer.ih)
                multiply_rows(own, *layer.ih, l == 0 ? *own.first_input : *own.input, own.share,
                              steps * B_, y, y_row, x_gates_, s_.XP);
            own.step->set_layer(own.layers[static_cast<std::size_t>(l)]);
            // Steps that wait for nobody are taken in one call.
            const bool alone = own.row != nullptr && threads_ == 1 && layer.ih && !s_.projects;
            const std::int64_t together = alone ? std::max<std::int64_t>(steps, 1) : 1;
            for (std::int64_t t = 0; t < steps; t += together) {
                T *after = first_state(l, own.chunk, t);
                if (own.row != nullptr)
                    take_row_steps(own, l, t, together, layer.ih ? nullptr : ids + t, after);
                else
                    take_step(own, l, t, layer.ih ? nullptr : ids + t * B_, after);
                wait();
                if (s_.projects) {
                    multiply_rows(own, *layer.hr, *own.unprojected,
                                  share(own.thread, column_count(s_.projected, W)), B_,
                                  unprojected_, s_.HP, after, s_.PP);
                    wait();
                }
                own.before[l] = first_state(l, own.chunk, t + together - 1);
            }
            y = first_state(l, own.chunk, 0);
            y_row = s_.PP;
            if (s_.normalized) { // nobody reads the previous layer's values there any more
                for (std::int64_t r = own.thread; r < steps * B_; r += threads_) {
                    T mean, factor;
                    normalize_row(s_.projected, y + r * s_.PP, layer.norm_weight, layer.norm_bias,
                                  s_.epsilon, normalized_ + r * s_.PP, mean, factor);
                }
                y = normalized_;
                wait();
            }
        }
        own.chunk++;
        return y;
    }

    // A thread's units of all rows. ids: of the table of input halves, or null.
    void take_step(Own &own, std::int64_t l, std::int64_t t, const std::int64_t *ids, T *after) {
        ForwardStep<T> &step = *own.step;
        if (own.state) {
            own.ranges.clear();
            for (std::int64_t n = 0; n < tiles_.parts; n++)
                own.ranges.push_back(
                    {own.before[l] + tiles_.first(n) * s_.PP, tiles_.size(n), tiles_.first(n)});
            own.state->read(own.ranges, s_.PP, true);
        }
        for (std::int64_t n = own.share.first; n < own.share.end; n += blocks_in_tile_) {
            const std::int64_t end = std::min(own.share.end, n + blocks_in_tile_);
            if (own.state)
                step.multiply(B_, n, end, *own.state);
            for (std::int64_t tile = 0; tile < tiles_.parts; tile++) {
                const std::int64_t row = tiles_.first(tile);
                step.first_row = row;
                if (ids != nullptr)
                    step.x = {{s_.table, s_.XP, ids + row}, true};
                else
                    step.x = {{x_gates_ + (t * B_ + row) * s_.XP, s_.XP, nullptr}, true};
                step.before[0] = own.before[l] + row * s_.PP;
                step.after[0] = s_.projects ? unprojected_ + row * s_.HP : after + row * s_.PP;
                for (int k = 1; k < cell_.states; k++)
                    step.before[k] = step.after[k] = other_state(k, l) + row * s_.HP;
                step(tiles_.size(tile), n, end, nullptr, nullptr);
            }
        }
    }

    // The same of a single row, for several steps.
    void take_row_steps(Own &own, std::int64_t l, std::int64_t t, std::int64_t steps,
                        const std::int64_t *ids, T *after) const {
        const PackedLayer<T> &layer = s_.layers[static_cast<std::size_t>(l)];
        const Block *blocks = s_.plan.blocks.data(), &first = blocks[own.share.first];
        const T *x = ids != nullptr ? s_.table + ids[0] * s_.XP : x_gates_ + t * s_.XP;
        RowPlaces<T> places;
        places.weight = layer.hh ? layer.hh->numbers(own.share.first) : nullptr;
        places.terms = s_.projected;
        places.row = places.before[0] = own.before[l];
        places.x = x + cell_.x_blocks * first.first * W;
        places.x_packed = true;
        places.bias_ih = layer.bias_ih;
        places.bias_hh = layer.bias_hh;
        places.stride = s_.HP;
        places.units = s_.hidden;
        places.backwards = t % 2 == 1;
        places.parameters = layer.parameters.data();
        places.after[0] = s_.projects ? unprojected_ : after;
        places.output = nullptr;
        places.steps = steps;
        places.next_x = s_.XP;
        places.next_state = s_.PP;
        for (int k = 1; k < cell_.states; k++)
            places.before[k] = places.after[k] = other_state(k, l);
        own.row(places, &first, blocks + own.share.end);
    }

    // Write the stack's outputs from y [rows, padded P] to [rows, N].
    void write_outputs(Own &own, std::int64_t rows, const T *y, T *to) {
        const std::int64_t N = s_.outputs;
        if (N == 0) {
            const Share mine = share(own.thread, rows);
            if (s_.PP == s_.projected)
                std::copy_n(y + mine.first * s_.PP, (mine.end - mine.first) * s_.PP,
                            to + mine.first * s_.PP);
            else
                for (std::int64_t r = mine.first; r < mine.end; r++)
                    std::copy_n(y + r * s_.PP, s_.projected, to + r * s_.projected);
            return;
        }
        const Share blocks = share(own.thread, column_count(N, W));
        if (blocks.first == blocks.end)
            return;
        multiply_rows(own, *s_.output, *own.output, blocks, rows, y, s_.PP, logits_, s_.NP);
        const Parts vectors = Parts::of((N + W - 1) / W, max_vectors);
        const std::int64_t begin = vectors.first(blocks.first) * W;
        const std::int64_t size = std::min(N, vectors.first(blocks.end) * W) - begin;
        for (std::int64_t r = 0; r < rows; r++) {
            T *from = logits_ + r * s_.NP + begin;
            if (s_.bias != nullptr)
                for (std::int64_t j = 0; j < size; j++)
                    from[j] += s_.bias[begin + j];
            std::copy_n(from, size, to + r * N + begin);
        }
    }

    void generate(Own &own) {
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
    const PackedStack<T> &s_;
    const Cell &cell_;
    const std::int64_t B_, L_;
    const std::int64_t chunk_; // steps whose input halves are computed at once
    const int threads_;
    const std::vector<bool> reads_;
    Barrier barrier_;
    Parts tiles_{}; // of rows
    std::int64_t blocks_in_tile_ = 1;
    int vectors_in_tile_ = 1;
    T *x_, *x_gates_, *first_states_, *normalized_, *other_states_, *unprojected_, *logits_;
    std::vector<std::int64_t> next_; // [B] the ids sampled last
    std::vector<T *> last_;          // the first state of each layer, after the last step
    std::atomic<bool> invalid_logits_{false};
    std::int64_t sampled_ = 0;
};

template <class T> std::int64_t PackedStack<T>::run(const Steps<T> &f) const {
    return Run<T>(*this, f)();
}

} // namespace anaphora::ANAPHORA_ISA
