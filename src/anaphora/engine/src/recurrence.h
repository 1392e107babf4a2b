// The recurrence over whole sequences, forward and backward: the plan, the step, and what is saved.
#pragma once

#include "softmax.h"
#include "step.h"

#include <optional>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

template <class T> Machine machine() {
    return {lanes<T>, sizeof(T), many_registers, available_threads()};
}

// The plan of a recurrence of this cell.
template <class T>
Plan make_plan(const Cell &cell, const Sequences &s, bool projects, std::int64_t tiles,
               Units units) {
    return Plan({.steps = s.steps,
                 .batch = s.batch,
                 .hidden = s.hidden,
                 .projected = s.projected,
                 .x_blocks = cell.x_blocks,
                 .h_blocks = cell.h_blocks,
                 .projects = projects,
                 .lengths = s.lengths,
                 .reverse = s.reverse,
                 .format = choose(Use::weight, s.projected, s.hidden, units).format,
                 .tiles = tiles},
                machine<T>());
}

template <class T>
SavedShape recurrence_saved(const Cell &cell, const Sequences &s, bool projects, std::int64_t tiles,
                            Units units) {
    const Plan plan = make_plan<T>(cell, s, projects, tiles, units);
    return {plan.tiles, plan.saved_size(std::ssize(cell.saved)), plan.threads};
}

// A weight for products by all vectors of its outputs, [K, N].
template <class T>
Weight<T> column_weight(Format format, std::int64_t K, std::int64_t N, Matrix<const T> B,
                        std::vector<Block> blocks, Scratch &scratch) {
    const WeightShape shape{.gates = 1, .units = N, .K = K, .blocks = std::move(blocks)};
    return Weight<T>(format, shape, B, scratch);
}
inline std::vector<Block> column_blocks(std::int64_t K, std::int64_t N, int lanes) {
    std::vector<Block> blocks;
    add_blocks(blocks, 0, (N + lanes - 1) / lanes, max_vectors, K);
    return blocks;
}
// The number of these blocks.
inline std::int64_t column_count(std::int64_t N, int lanes) {
    return Parts::of((N + lanes - 1) / lanes, max_vectors).parts;
}

// The gates of a layer, from a weight [gates * H, K].
template <class T>
Weight<T> gate_weight(Format format, const Plan &plan, std::int64_t gates, std::int64_t K,
                      const T *weight, Scratch &scratch) {
    WeightShape shape{.gates = gates, .units = plan.hidden, .K = K, .blocks = plan.blocks};
    for (Block &block : shape.blocks)
        block.end_term = K;
    return Weight<T>(gates == 0 ? Format::chain : format, shape, Matrix<const T>{weight, 1, K},
                     scratch);
}

// The rows of x [T, B, size], in the order of the batch and the input, that a span reads,
// consecutively: x itself where they are consecutive, else a copy.
template <class T>
const T *input_rows(const Plan &plan, const Span &span, const T *x, std::int64_t size,
                    Scratch &scratch) {
    if (!plan.indexed())
        return x + span.first * plan.batch * size;
    T *copy = scratch.get<T>(span.rows * size);
    plan.for_each_row(span, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
        std::copy_n(x + plan.input_row(p, t) * size, size, copy + row * size);
    });
    return copy;
}

template <class T> class ForwardPass {
    static constexpr int W = lanes<T>;

  public:
    ForwardPass(const Forward<T> &f, Units units)
        : f_(f), w_(*f.weights), cell_(*f.cell), B_(f.sizes.batch), H_(f.sizes.hidden),
          P_(f.sizes.projected), I_(f.inputs), units_(units),
          plan_(make_plan<T>(cell_, f.sizes, w_.weight_hr != nullptr, f.tiles, units)),
          reads_(ForwardStep<T>::read_values(cell_, f.named, f.named_count)),
          in_step_(w_.weight_ih != nullptr && plan_.suits(input_format()) &&
                   plan_.input_in_step(I_)),
          hh_(gate_weight(choose(Use::weight, P_, H_, units).format, plan_, cell_.h_blocks, P_,
                          w_.weight_hh, scratch(0))),
          ih_(gate_weight(input_format(), plan_, in_step_ ? cell_.x_blocks : 0, I_, w_.weight_ih,
                          scratch(1))),
          row_step_(find_row_step()), barrier_(plan_.threads) {
        if (w_.weight_hr != nullptr)
            projection_.emplace(column_weight(choose(Use::weight, H_, P_, units).format, H_, P_,
                                              Matrix<const T>{w_.weight_hr, 1, H_},
                                              column_blocks(H_, P_, W), scratch(2)));
    }

    void operator()() {
        const bool multiplies = w_.weight_ih != nullptr && !in_step_;
        const std::int64_t gates_size = static_cast<std::int64_t>(cell_.x_blocks) * H_;
        plan_.for_each_span(multiplies, false, [&](const Span &span) {
            const T *x_gates = f_.x + (scattered() ? 0 : span.first * B_ * gates_size);
            if (multiplies) {
                const T *x = input_rows(plan_, span, f_.x, I_, scratch(3));
                T *halves = scratch(4).template get<T>(span.rows * gates_size);
                multiply<T>(units_, Use::weight, span.rows, gates_size, I_,
                            Matrix<const T>{x, I_, 1}, Matrix<const T>{w_.weight_ih, 1, I_}, halves,
                            gates_size, w_.bias_ih, false);
                x_gates = halves;
            }
            plan_.run(barrier_, [&](int thread) { work(thread, span, x_gates); });
        });
    }

  private:
    using Rows = typename Weight<T>::Rows;

    static Scratch &scratch(int number) {
        static thread_local Scratch all[5];
        return all[number];
    }
    Format input_format() const { return choose(Use::weight, I_, H_, units_).format; }
    // The step of one row, if it is compiled and writes nothing but states and output.
    auto find_row_step() const -> decltype(CompiledStep<T>::row) {
        const CompiledStep<T> *compiled = compiled_step<T>(cell_);
        const bool writes_more = f_.saved != nullptr || f_.named_count > 0;
        const bool suits = B_ == 1 && H_ % W == 0 && !writes_more && hh_.numbers(0) != nullptr;
        return compiled != nullptr && suits ? compiled->row : nullptr;
    }
    // Whether given input halves are read by the order of the input.
    bool scattered() const { return w_.weight_ih == nullptr && plan_.indexed(); }

    T *state_at(int k, std::int64_t t) const {
        const bool kept = k == 0 && f_.saved != nullptr;
        return f_.states[k] + (kept ? t : t % 2) * B_ * (k == 0 ? P_ : H_);
    }
    T *unprojected_at(std::int64_t t) const {
        return f_.unprojected + (f_.saved == nullptr ? 0 : t) * B_ * H_;
    }

    // What one thread has to itself.
    struct Own {
        std::vector<RowTile> tiles;
        std::vector<std::int64_t> input_row; // of each position, among the T*B of the input
        std::vector<RowRange<T>> h_ranges, x_ranges, unprojected_ranges;
    };

    void work(int thread, const Span &span, const T *x_gates) {
        static thread_local Scratch value_scratch, half_scratch, copy_scratch, h_scratch, x_scratch,
            unprojected_scratch;
        Rows h_rows(hh_, B_, false, h_scratch);
        Rows x_rows(ih_, B_, false, x_scratch);
        std::optional<Rows> unprojected_rows;
        if (projection_)
            unprojected_rows.emplace(*projection_, B_, false, unprojected_scratch);
        const StepLayer<T> layer{
            &cell_,     &plan_.blocks,       H_, &hh_, in_step_ ? &ih_ : nullptr, w_.bias_ih,
            w_.bias_hh, w_.parameters.data()};
        int vectors = plan_.sub * plan_.largest_tile();
        if (f_.saved == nullptr)
            vectors = std::max(vectors, tile_vectors);
        ForwardStep<T> step(layer, reads_, vectors, vectors, value_scratch, half_scratch);
        Own own;
        own.input_row.resize(B_);
        T *x_copy = copy_scratch.get<T>(in_step_ && plan_.indexed() ? B_ * I_ : 1);

        for (std::int64_t t = span.first; t < span.end; t++) {
            plan_.tiles_of(thread, t, own.tiles);
            for (const RowTile &tile : own.tiles)
                begin_tile(own, tile, t, thread == 0 || !plan_.share_units);
            if (row_step_ != nullptr)
                take_row_step(own, thread, span, t, x_gates);
            else
                take_step(step, own, h_rows, x_rows, x_copy, thread, span, t, x_gates);
            if (projection_)
                project(*unprojected_rows, own, t);
            if (plan_.share_units)
                barrier_.wait();
        }
    }

    // One step of a thread's tiles.
    void take_step(ForwardStep<T> &step, Own &own, Rows &h_rows, Rows &x_rows, T *x_copy,
                   int thread, const Span &span, std::int64_t t, const T *x_gates) const {
        own.h_ranges.clear(), own.x_ranges.clear();
        for (const RowTile &tile : own.tiles)
            own.h_ranges.push_back({state_at(0, t) + tile.first * P_, tile.rows, 0});
        if (cell_.h_blocks > 0)
            h_rows.read(own.h_ranges, P_, true);
        if (in_step_) {
            const T *x = f_.x + t * B_ * I_;
            for (const RowTile &tile : own.tiles) {
                for (int r = 0; r < tile.rows && plan_.indexed(); r++)
                    std::copy_n(f_.x + own.input_row[tile.first + r] * I_, I_,
                                x_copy + (tile.first + r) * I_);
                own.x_ranges.push_back(
                    {(plan_.indexed() ? x_copy : x) + tile.first * I_, tile.rows, 0});
            }
            x_rows.read(own.x_ranges, I_, true);
        }
        const std::int64_t blocks = plan_.blocks_of(thread), together = blocks_in_step(own);
        for (std::int64_t k = 0; k < blocks; k += together) {
            const std::int64_t last = std::min(blocks, k + together) - 1,
                               one = plan_.block(thread, k, t),
                               other = plan_.block(thread, last, t);
            for (std::size_t n = 0; n < own.tiles.size(); n++)
                if (own.tiles[n].rows > 0) {
                    step.part = static_cast<std::int64_t>(n);
                    place(step, own, own.tiles[n], span, t, std::min(one, other), x_gates);
                    step(own.tiles[n].rows, std::min(one, other), std::max(one, other) + 1,
                         cell_.h_blocks > 0 ? &h_rows : nullptr, in_step_ ? &x_rows : nullptr);
                }
        }
    }

    // A thread's units of a step of one row.
    void take_row_step(const Own &own, int thread, const Span &span, std::int64_t t,
                       const T *x_gates) const {
        const Block *blocks = plan_.blocks.data() + plan_.first_block(thread);
        if (own.tiles[0].rows == 0 || plan_.blocks_of(thread) == 0)
            return;
        const std::int64_t row = scattered() ? own.input_row[0] : plan_.row(span, t, 0);
        RowPlaces<T> places;
        places.weight = hh_.numbers(plan_.first_block(thread));
        places.terms = P_;
        places.row = state_at(0, t);
        places.x = x_gates + row * cell_.x_blocks * H_ + blocks->first * W;
        places.x_packed = false;
        places.stride = places.units = H_;
        places.bias_ih = nullptr;
        places.bias_hh = w_.bias_hh;
        places.backwards = t % 2 == 1;
        places.parameters = w_.parameters.data();
        for (int k = 0; k < cell_.states; k++) {
            places.before[k] = state_at(k, t);
            places.after[k] = k == 0 && projection_ ? unprojected_at(t) : state_at(k, t + 1);
        }
        places.output = projection_ ? nullptr : f_.output + own.input_row[0] * H_;
        row_step_(places, blocks, blocks + plan_.blocks_of(thread));
    }

    // The blocks that a step takes at once, so that few rows make a tile too. What is saved for the
    // backward pass is saved block by block.
    std::int64_t blocks_in_step(const Own &own) const {
        int rows = 1;
        for (const RowTile &tile : own.tiles)
            rows = std::max(rows, tile.rows);
        return f_.saved != nullptr ? 1 : std::max(1, tile_vectors / (plan_.sub * rows));
    }

    // Inactive rows keep their state; the output after a row's length is 0.
    void begin_tile(Own &own, const RowTile &tile, std::int64_t t, bool writes) const {
        for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
            own.input_row[p] = plan_.input_row(p, t);
        for (std::int64_t p = tile.first + tile.rows; p < tile.end && writes; p++) {
            for (int k = 0; k < cell_.states; k++) {
                const std::int64_t size = k == 0 ? P_ : H_;
                std::memcpy(state_at(k, t + 1) + p * size, state_at(k, t) + p * size,
                            size * sizeof(T));
            }
            if (f_.output != nullptr)
                std::fill_n(f_.output + (t * B_ + plan_.rows[p]) * P_, P_, T(0));
            if (f_.unprojected != nullptr)
                std::fill_n(unprojected_at(t) + p * H_, H_, T(0));
            for (int n = 0; n < f_.named_count; n++)
                std::fill_n(f_.record[n] + (t * B_ + plan_.rows[p]) * H_, H_, T(0));
        }
    }

    // What a tile reads and writes.
    void place(ForwardStep<T> &step, const Own &own, const RowTile &tile, const Span &span,
               std::int64_t t, std::int64_t block, const T *x_gates) const {
        const std::int64_t *in = own.input_row.data() + tile.first;
        const std::int64_t gates_size = static_cast<std::int64_t>(cell_.x_blocks) * H_;
        if (f_.saved != nullptr)
            step.saved = f_.saved + plan_.saved_at(std::ssize(cell_.saved), t, tile.number, block);
        if (scattered())
            step.x = {{x_gates, gates_size, in}, false};
        else
            step.x = {{x_gates + plan_.row(span, t, tile.first) * gates_size, gates_size, nullptr},
                      false};
        for (int k = 0; k < cell_.states; k++) {
            T *after = k == 0 && projection_ ? unprojected_at(t) : state_at(k, t + 1);
            step.before[k] = state_at(k, t) + tile.first * H_;
            step.after[k] = after + tile.first * H_;
        }
        step.written.clear();
        if (!projection_ && f_.output != nullptr)
            step.written.push_back({cell_.forward.outputs[0], {f_.output, H_, in}});
        for (int n = 0; n < f_.named_count; n++)
            step.written.push_back({f_.named[n], {f_.record[n], H_, in}});
    }

    void project(Rows &rows, Own &own, std::int64_t t) const {
        T *to = state_at(0, t + 1);
        own.unprojected_ranges.clear();
        for (const RowTile &tile : own.tiles)
            own.unprojected_ranges.push_back(
                {unprojected_at(t) + tile.first * H_, tile.rows, tile.first});
        rows.read(own.unprojected_ranges, H_, false);
        projection_->multiply_all(0, column_count(P_, W), rows, {to, P_, W, false, P_});
        for (const RowTile &tile : own.tiles)
            for (std::int64_t p = tile.first; p < tile.first + tile.rows && f_.output; p++)
                std::memcpy(f_.output + own.input_row[p] * P_, to + p * P_, P_ * sizeof(T));
    }

    const Forward<T> &f_;
    const LayerWeights<T> &w_;
    const Cell &cell_;
    const std::int64_t B_, H_, P_, I_;
    const Units units_;
    const Plan plan_;
    const std::vector<bool> reads_;
    const bool in_step_;
    const Weight<T> hh_, ih_;
    decltype(CompiledStep<T>::row) row_step_; // or null
    std::optional<Weight<T>> projection_;
    Barrier barrier_;
};

// Sums over the rows of each group. The first group's sums are accumulated in place, in total
// [size] or null, the others in buffers of their own, which add() adds group by group.
template <class T> class GroupSums {
  public:
    GroupSums(T *total, std::int64_t size, int groups, Scratch &scratch)
        : total_(total), size_(total == nullptr ? 0 : size), groups_(groups),
          others_(scratch.get<T>(size_ * (groups - 1) + 1)) {}

    T *of(int group) const {
        return group == 0 || total_ == nullptr ? total_ : others_ + (group - 1) * size_;
    }

    void add() const {
        constexpr std::int64_t block = 1 << 14;
        for (int g = 1; g < groups_; g++)
            parallel((size_ + block - 1) / block, [&](std::int64_t task) {
                const T *from = of(g);
                for (std::int64_t k = task * block; k < std::min(size_, (task + 1) * block); k++)
                    total_[k] += from[k];
            });
    }

  private:
    T *total_;
    std::int64_t size_;
    int groups_;
    T *others_;
};

template <class T> class BackwardPass {
    static constexpr int W = lanes<T>;

  public:
    BackwardPass(const Backward<T> &f, Units units)
        : f_(f), w_(*f.weights), d_(*f.gradients), cell_(*f.cell), B_(f.sizes.batch),
          H_(f.sizes.hidden), P_(f.sizes.projected), I_(f.inputs),
          gates_size_(static_cast<std::int64_t>(cell_.h_blocks) * H_),
          x_size_(static_cast<std::int64_t>(cell_.x_blocks) * H_), units_(units),
          plan_(make_plan<T>(cell_, f.sizes, w_.weight_hr != nullptr, f.tiles, units)),
          input_(choose(Use::input_gradient, x_size_, I_, units)),
          in_step_(w_.weight_ih != nullptr && f.d_x != nullptr && input_.holds_in_step(x_size_) &&
                   plan_.input_in_step(I_)),
          scattered_(w_.weight_ih == nullptr && plan_.indexed()),
          shared_gradient_(!scattered_ && same_halves()),
          // Without input weights, the gradients of gates go straight to the caller's array.
          groups_(w_.weight_ih == nullptr ? 1 : plan_.groups),
          hh_(column_weight(choose(Use::weight, gates_size_, P_, units).format, gates_size_, P_,
                            Matrix<const T>{w_.weight_hh, P_, 1},
                            w_.weight_hr == nullptr ? plan_.shared_columns(gates_size_, ends_)
                                                    : column_blocks(gates_size_, P_, W),
                            scratch(0))),
          barrier_(plan_.threads), weight_hr_(d_.weight_hr, P_ * H_, groups_, scratch(3)),
          weight_hh_(d_.weight_hh, gates_size_ * P_, groups_, scratch(4)),
          bias_hh_(d_.bias_hh, gates_size_, groups_, scratch(5)),
          weight_ih_(d_.weight_ih, x_size_ * I_, groups_, scratch(6)),
          bias_ih_(shared_gradient_ && d_.bias_hh != nullptr ? nullptr : d_.bias_ih, x_size_,
                   groups_, scratch(7)) {
        if (w_.weight_hr != nullptr) {
            ends_.assign(1, column_count(P_, W));
            projection_.emplace(column_weight(choose(Use::weight, P_, H_, units).format, P_, H_,
                                              Matrix<const T>{w_.weight_hr, H_, 1},
                                              column_blocks(P_, H_, W), scratch(1)));
        }
        if (in_step_)
            ih_.emplace(column_weight(input_.format, x_size_, I_,
                                      Matrix<const T>{w_.weight_ih, I_, 1},
                                      column_blocks(x_size_, I_, W), scratch(2)));
    }

    void operator()() {
        plan_.for_each_span(w_.weight_ih != nullptr, true, [&](const Span &span) {
            const GroupedRows grouped(plan_, span, groups_);
            d_x_gates_ = w_.weight_ih != nullptr
                             ? scratch(8).template get<T>(span.rows * x_size_)
                             : f_.d_x + (scattered_ ? 0 : span.first * B_ * x_size_);
            d_h_gates_ =
                shared_gradient_ ? d_x_gates_ : scratch(9).template get<T>(span.rows * gates_size_);
            d_projected_ = projection_ ? scratch(10).template get<T>(span.rows * P_) : nullptr;
            plan_.run(barrier_, [&](int thread) { work(thread, span, grouped); });
            // The contribution of all steps of the span to the gradients of weights, each group's
            // to its own sums: on the thread that has the group's rows, or on all threads, one
            // group after the other.
            const int tasks = groups_ == 1 || available_threads() > groups_ ? 1 : plan_.threads;
            parallel(tasks, [&](std::int64_t task) {
                for (auto g = static_cast<int>(task); g < groups_; g += tasks)
                    add_group(g, span, grouped);
            });
            multiply_span_input(span, grouped);
            adding_ = true;
        });
        for (GroupSums<T> *sums : {&weight_hr_, &weight_hh_, &bias_hh_, &weight_ih_, &bias_ih_})
            sums->add();
        if (d_.bias_ih != nullptr && bias_ih_.of(0) == nullptr)
            std::copy_n(d_.bias_hh, x_size_, d_.bias_ih);
    }

  private:
    using Rows = typename Weight<T>::Rows;

    static Scratch &scratch(int number) {
        static thread_local Scratch all[12];
        return all[number];
    }

    // Whether the two halves of every gate share one gradient.
    bool same_halves() const {
        bool same = true;
        for (const GateInput &gate : cell_.gates)
            same = same && gate.x == gate.h;
        return same;
    }

    struct Own {
        std::vector<RowTile> tiles;
        std::vector<std::int64_t> input_row;
        std::vector<RowRange<T>> ranges, x_ranges;
    };

    void work(int thread, const Span &span, const GroupedRows &grouped) {
        static thread_local Scratch value_scratch, row_scratch, d_row_scratch, d_h_scratch,
            d_x_scratch, d_projected_scratch;
        Rows d_h_rows(hh_, B_, false, d_h_scratch);
        std::optional<Rows> d_x_rows, d_projected_rows;
        if (in_step_ && !shared_gradient_)
            d_x_rows.emplace(*ih_, B_, false, d_x_scratch);
        if (projection_)
            d_projected_rows.emplace(*projection_, B_, false, d_projected_scratch);
        BackwardStep<T> step(cell_, H_, plan_.sub * plan_.largest_tile(), value_scratch);
        T *d_unprojected = projection_ ? row_scratch.get<T>(B_ * plan_.vectors() * W) : nullptr;
        T *d_rows = d_row_scratch.get<T>(in_step_ && plan_.indexed() ? B_ * I_ : 1);
        Own own;
        own.input_row.resize(B_ + 1); // as many rows as a tile has are fetched of a smaller one

        for (std::int64_t t = span.end - 1; t >= span.first; t--) {
            plan_.tiles_of(thread, t, own.tiles);
            for (RowTile &tile : own.tiles) {
                tile.row = grouped.row(t, tile.number);
                for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    own.input_row[p] = plan_.input_row(p, t);
                for (std::int64_t p = tile.first + tile.rows;
                     p < tile.end && f_.d_x != nullptr && (thread == 0 || !plan_.share_units);
                     p++) {
                    const std::int64_t size = w_.weight_ih == nullptr ? x_size_ : I_;
                    std::fill_n(f_.d_x + (t * B_ + plan_.rows[p]) * size, size, T(0));
                }
            }
            if (projection_)
                project(*d_projected_rows, own, d_unprojected);
            const std::int64_t tiles = std::ssize(own.tiles), blocks = plan_.blocks_of(thread);
            for (std::int64_t n = 0; n < blocks * tiles; n++) {
                const RowTile &tile = own.tiles[n % tiles];
                const std::int64_t block = plan_.block(thread, n / tiles, t);
                if (tile.rows == 0)
                    continue;
                place(step, own, tile, t, block, d_unprojected);
                fetch(step, own, thread, t, n + 1);
                step(tile.rows, plan_.blocks[block]);
            }
            if (plan_.share_units)
                barrier_.wait();
            multiply_states(d_h_rows, own, thread, t);
            if (in_step_)
                multiply_input(d_h_rows, d_x_rows, own, t, d_rows);
        }
    }

    // The gradients of the unprojected first state, by position, from those of the projected one.
    void project(Rows &rows, Own &own, T *d_unprojected) const {
        own.ranges.clear();
        for (const RowTile &tile : own.tiles) {
            for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                for (std::int64_t k = 0; k < P_; k++) {
                    T &state = f_.d_states[0][p * P_ + k];
                    const T out =
                        f_.d_output == nullptr ? T(0) : f_.d_output[own.input_row[p] * P_ + k];
                    d_projected_[(tile.row + p - tile.first) * P_ + k] = state + out;
                    state = 0;
                }
            own.ranges.push_back({d_projected_ + tile.row * P_, tile.rows, tile.first});
        }
        rows.read(own.ranges, P_, false);
        projection_->multiply_all(0, column_count(H_, W), rows,
                                  {d_unprojected, plan_.vectors() * W, W, false, H_});
    }

    const T *saved_at(std::int64_t t, const RowTile &tile, std::int64_t block) const {
        return f_.saved + plan_.saved_at(std::ssize(cell_.saved), t, tile.number, block);
    }

    // What is fetched for the n-th tile of a step, counted block by block, or for the first tile of
    // the step before it.
    void fetch(BackwardStep<T> &step, const Own &own, int thread, std::int64_t t,
               std::int64_t n) const {
        const std::int64_t tiles = std::ssize(own.tiles);
        step.next_output = {};
        if (n == plan_.blocks_of(thread) * tiles) {
            t = std::max<std::int64_t>(t - 1, 0);
            n = 0;
        } else if (step.d_output.data != nullptr) {
            const std::int64_t unit = plan_.blocks[plan_.block(thread, n / tiles, t)].first * W;
            step.next_output = {f_.d_output + unit, H_,
                                own.input_row.data() + own.tiles[n % tiles].first};
        }
        step.next_saved = saved_at(t, own.tiles[n % tiles], plan_.block(thread, n / tiles, t));
    }

    // What a tile reads and writes.
    void place(BackwardStep<T> &step, const Own &own, const RowTile &tile, std::int64_t t,
               std::int64_t block, const T *d_unprojected) const {
        const std::int64_t *in = own.input_row.data() + tile.first;
        step.saved = saved_at(t, tile, block);
        for (int k = 0; k < cell_.states; k++) {
            T *state = f_.d_states[k] + tile.first * H_;
            step.d_after[k] = {state, H_, nullptr};
            step.d_before[k] = state;
        }
        step.d_output = {f_.d_output, H_, in};
        if (projection_) {
            step.d_after[0] = {d_unprojected + tile.first * plan_.vectors() * W,
                               plan_.vectors() * W, nullptr};
            step.d_before[0] = nullptr;
            step.d_output = {};
        }
        step.d_x_gates = {d_x_gates_, x_size_, in};
        if (!scattered_)
            step.d_x_gates = {d_x_gates_ + tile.row * x_size_, x_size_, nullptr};
        step.d_h_gates = {};
        if (!shared_gradient_)
            step.d_h_gates = {d_h_gates_ + tile.row * gates_size_, gates_size_, nullptr};
        for (int k = 0; k < cell_.parameters; k++)
            step.d_parameters[k] = d_.parameters + (k * B_ + tile.first) * H_;
    }

    // The gradient of the first state before the step, through the recurrent weights.
    void multiply_states(Rows &rows, Own &own, int thread, std::int64_t t) const {
        own.ranges.clear();
        for (const RowTile &tile : own.tiles)
            own.ranges.push_back({d_h_gates_ + tile.row * gates_size_, tile.rows, tile.first});
        rows.read(own.ranges, gates_size_, false);
        if (gates_size_ == 0)
            return;
        const std::size_t share = plan_.share_units ? static_cast<std::size_t>(thread) : 0;
        const std::int64_t first = share == 0 ? 0 : ends_[share - 1], end = ends_[share];
        if (first == end)
            return;
        const std::int64_t column =
            plan_.share_units ? plan_.blocks[plan_.first_block(thread)].first * W : 0;
        hh_.multiply_all(first, end, rows, {f_.d_states[0] + column, P_, W, true, P_ - column},
                         t % 2 == 1);
    }

    // The gradient of the step's input.
    void multiply_input(const Rows &d_h_rows, std::optional<Rows> &d_x_rows, Own &own,
                        std::int64_t t, T *d_rows) const {
        T *to = plan_.indexed() ? d_rows : f_.d_x + t * B_ * I_;
        if (!shared_gradient_) {
            own.x_ranges.clear();
            for (const RowTile &tile : own.tiles)
                own.x_ranges.push_back({d_x_gates_ + tile.row * x_size_, tile.rows, tile.first});
            d_x_rows->read(own.x_ranges, x_size_, false);
        }
        ih_->multiply_all(0, column_count(I_, W), shared_gradient_ ? d_h_rows : *d_x_rows,
                          {to, I_, W, false, I_}, t % 2 == 1);
        if (plan_.indexed())
            for (const RowTile &tile : own.tiles)
                for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    std::copy_n(to + p * I_, I_, f_.d_x + own.input_row[p] * I_);
    }

    // What a group's rows of a span contribute.
    void add_group(int g, const Span &span, const GroupedRows &grouped) const {
        static thread_local Scratch copy_scratch;
        const std::int64_t rows = grouped.size(g), first = grouped.first(g);
        // total [columns of d, columns of x] += d [rows, .]^T x [rows, .]
        auto add_outer = [&](const T *d, std::int64_t d_columns, const T *x, std::int64_t x_columns,
                             T *total) {
            multiply<T>(units_, Use::weight_gradient, d_columns, x_columns, rows,
                        Matrix<const T>{d + first * d_columns, 1, d_columns},
                        Matrix<const T>{x, x_columns, 1}, total, x_columns, nullptr, adding_);
        };
        // The group's rows of x [T * B, columns], where row_of(p, t) is the row of a position at a
        // step: x itself where they are consecutive.
        auto rows_of_group = [&](const T *x, std::int64_t columns, bool copies, auto row_of) {
            if (!copies && groups_ == 1)
                return x + span.first * B_ * columns;
            T *copy = copy_scratch.get<T>(rows * columns);
            grouped.for_each_row(g, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
                std::copy_n(x + row_of(p, t) * columns, columns, copy + row * columns);
            });
            return static_cast<const T *>(copy);
        };
        auto by_position = [&](std::int64_t p, std::int64_t t) { return t * B_ + p; };
        auto by_input = [&](std::int64_t p, std::int64_t t) { return plan_.input_row(p, t); };

        if (d_.weight_hr != nullptr)
            add_outer(d_projected_, P_,
                      rows_of_group(f_.unprojected, H_, plan_.ragged, by_position), H_,
                      weight_hr_.of(g));
        if (d_.weight_hh != nullptr)
            add_outer(d_h_gates_, gates_size_,
                      rows_of_group(f_.state, P_, plan_.ragged, by_position), P_, weight_hh_.of(g));
        if (d_.bias_hh != nullptr)
            sum_columns(rows, gates_size_, d_h_gates_ + first * gates_size_, bias_hh_.of(g),
                        adding_);
        if (w_.weight_ih == nullptr)
            return;
        if (d_.weight_ih != nullptr)
            add_outer(d_x_gates_, x_size_, rows_of_group(f_.x, I_, plan_.indexed(), by_input), I_,
                      weight_ih_.of(g));
        if (bias_ih_.of(g) != nullptr)
            sum_columns(rows, x_size_, d_x_gates_ + first * x_size_, bias_ih_.of(g), adding_);
    }

    // The gradient of a span's input, unless each step has computed its own.
    void multiply_span_input(const Span &span, const GroupedRows &grouped) const {
        if (w_.weight_ih == nullptr || f_.d_x == nullptr || in_step_)
            return;
        const bool copies = plan_.indexed() || groups_ > 1;
        T *d_x =
            copies ? scratch(11).template get<T>(span.rows * I_) : f_.d_x + span.first * B_ * I_;
        multiply<T>(units_, Use::input_gradient, span.rows, I_, x_size_,
                    Matrix<const T>{d_x_gates_, x_size_, 1}, Matrix<const T>{w_.weight_ih, I_, 1},
                    d_x, I_, nullptr, false);
        for (int g = 0; g < groups_ && copies; g++)
            grouped.for_each_row(g, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
                std::copy_n(d_x + (grouped.first(g) + row) * I_, I_,
                            f_.d_x + plan_.input_row(p, t) * I_);
            });
    }

    const Backward<T> &f_;
    const LayerWeights<T> &w_;
    const LayerGradients<T> &d_;
    const Cell &cell_;
    const std::int64_t B_, H_, P_, I_, gates_size_, x_size_;
    const Units units_;
    const Plan plan_;
    const Arithmetic input_;
    const bool in_step_, scattered_, shared_gradient_;
    const int groups_;
    std::vector<std::int64_t> ends_; // of each thread's blocks of hh_
    const Weight<T> hh_;
    std::optional<Weight<T>> projection_, ih_;
    Barrier barrier_;
    GroupSums<T> weight_hr_, weight_hh_, bias_hh_, weight_ih_, bias_ih_;
    bool adding_ = false; // weight gradients are accumulated from the second span on
    T *d_x_gates_ = nullptr, *d_h_gates_ = nullptr, *d_projected_ = nullptr; // of a span
};

} // namespace anaphora::ANAPHORA_ISA
