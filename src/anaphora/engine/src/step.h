// One step of a cell for one tile: the halves of gates and their biases, the program, and where its
// values go; and the same backward. Whole sequences and sessions take this step.
#pragma once

#include "compiled_step.h"
#include "tiles.h"
#include "weight.h"

#include <vector>

namespace anaphora::ANAPHORA_ISA {

// Where one half of a gate is: vector s of row r at data + r * row + s * vector; its bias [units],
// or null.
template <class T> struct Half {
    const T *data;
    std::int64_t row, vector;
    const std::int64_t *index; // of rows, or null
    const T *bias;

    ANAPHORA_INLINE const T *at(std::int64_t s, std::int64_t r) const {
        return data + (index == nullptr ? r : index[r]) * row + s * vector;
    }
};

// value [sub, rows, lanes] = the halves that a gate has, each with its bias. Half x may be partial.
template <bool HasH, bool HasX, class T>
ANAPHORA_INLINE void add_halves(T *value, const Half<T> &h, const Half<T> &x, int rows, int sub,
                                std::int64_t units) {
    constexpr std::int64_t W = lanes<T>;
    alignas(64) static constexpr T zeros[W] = {};
    const std::int64_t full = units / W; // vectors
    const T *h_bias = h.bias == nullptr ? zeros : h.bias, *x_bias = x.bias;
    const std::int64_t h_step = h.bias == nullptr ? 0 : W;
    auto add = [&](T *to, const T *h_half, Vector<T> h_bias, Vector<T> x_half) {
        Vector<T> sum = x_half;
        if constexpr (HasH)
            sum = load(h_half) + h_bias;
        if constexpr (HasH && HasX)
            sum += x_half;
        store(to, sum);
    };
    // Vector s, of which `left` units are there.
    auto add_vector = [&](std::int64_t s, std::int64_t left) {
        const Vector<T> hb = load_some(h_bias + s * h_step, h.bias == nullptr ? W : left);
        Vector<T> xb = broadcast<T>(0);
        if (x_bias != nullptr)
            xb = load_some(x_bias + s * W, left);
        T *to = value + s * rows * W;
        for (int r = 0; r < rows; r++, to += W) {
            Vector<T> half = broadcast<T>(0);
            if constexpr (HasX) {
                half = load_some(x.at(s, r), left);
                if (x_bias != nullptr)
                    half += xb;
            }
            add(to, HasH ? h.at(s, r) : zeros, hb, half);
        }
    };
    for (std::int64_t s = 0; s < full; s++)
        add_vector(s, W);
    if (full < sub)
        add_vector(full, units - full * W);
}

// A layer, as a step reads it. Arrays of units have H numbers, or more where all are padded.
template <class T> struct StepLayer {
    const Cell *cell;
    const std::vector<Block> *blocks;
    std::int64_t units;
    const Weight<T> *hh, *ih;   // ih: null if a step does not multiply the input
    const T *bias_ih, *bias_hh; // [G, units] or null
    const T *const *parameters; // each [units]
};

// Input halves of gates that are not computed in the step, at their first unit.
template <class T> struct InputHalves {
    RowView<const T> rows;
    bool packed; // in the order of the outputs of a weight; else [Gx, units], with their bias
};

// A value that is written beside the states.
template <class T> struct Written {
    std::int32_t value;
    RowView<T> to; // [., units]
};

// The same rows from a unit on; none if there are none.
template <class T> RowView<T> from_unit(const RowView<T> &rows, std::int64_t unit) {
    return {rows.data == nullptr ? nullptr : rows.data + unit, rows.stride, rows.index};
}

template <class T> class ForwardStep {
    static constexpr int W = lanes<T>;

  public:
    using Rows = typename Weight<T>::Rows;

    // What the caller sets for each tile: its rows within those that were read for each weight, or
    // its first row within those that were multiplied; the given input halves, the states before
    // and after the step, at the tile's first row; `saved`: where the values saved for the backward
    // pass go, or null.
    std::int64_t part = 0, first_row = 0;
    InputHalves<T> x{};
    std::vector<const T *> before;
    std::vector<T *> after;
    std::vector<Written<T>> written;
    T *saved = nullptr;

    // Tiles have at most `vectors` vectors, of which each holds units of one row; halves are
    // multiplied for at most `half_vectors`.
    ForwardStep(const StepLayer<T> &layer, const std::vector<bool> &reads, int vectors,
                std::int64_t half_vectors, Scratch &value_scratch, Scratch &half_scratch)
        : before(layer.cell->states), after(layer.cell->states), layer_(&layer),
          compiled_(compiled_step<T>(*layer.cell)), reads_(reads),
          values_(layer.cell->forward, vectors, value_scratch),
          halves_(half_scratch.get<T>(
              (layer.cell->h_blocks + layer.cell->x_blocks) * half_vectors * W + 1)),
          x_halves_(halves_ + layer.cell->h_blocks * half_vectors * W) {}

    // Take another layer of the same cell.
    void set_layer(const StepLayer<T> &layer) { layer_ = &layer; }

    // The values of the forward program that a step reads or that are to be kept.
    static std::vector<bool> read_values(const Cell &cell, const std::int32_t *named,
                                         std::int32_t count) {
        std::vector<bool> read(cell.forward.values(), false);
        for (const Instruction &i : cell.forward.instructions)
            read[i.a] = read[has_two_operands(i.op) ? i.b : i.a] = true;
        for (const auto *values : {&cell.forward.outputs, &cell.saved})
            for (std::int32_t value : *values)
                read[value] = true;
        for (std::int32_t n = 0; n < count; n++)
            read[named[n]] = true;
        return read;
    }

    // The recurrent halves of `rows` rows, which are all that were read, of blocks first ... end -
    // 1: each weight is read once for the tiles that follow.
    void multiply(std::int64_t rows, std::int64_t first, std::int64_t end, const Rows &h_rows) {
        half_row_ = rows * W;
        layer_->hh->multiply_all(first, end, h_rows, {halves_, W, half_row_});
    }

    // Some rows by the units of blocks first ... end - 1. h_rows: null if the recurrent halves are
    // multiplied, or no gate has any; x_rows: null if the input is not multiplied in the step.
    void operator()(int rows, std::int64_t first, std::int64_t end, const Rows *h_rows,
                    const Rows *x_rows) {
        const StepLayer<T> &layer = *layer_;
        const std::int64_t unit = (*layer.blocks)[first].first * W;
        for (int r = 0; r < rows; r++) { // fetch what is written after the products
            for (T *to : after)
                __builtin_prefetch(to + unit + r * layer.units, 1);
            for (const auto &[value, to] : written)
                __builtin_prefetch(to[r] + unit, 1);
        }
        if (h_rows != nullptr) {
            half_row_ = rows * W;
            layer.hh->multiply(first, end, *h_rows, part, {halves_, W, half_row_});
        }
        if (x_rows != nullptr)
            layer.ih->multiply(first, end, *x_rows, part, {x_halves_, W, rows * W});
        const bool in_step = x_rows != nullptr;
        const std::int64_t compiled = compiled_blocks(first, end);
        if (compiled > first)
            run_compiled(rows, first, compiled, in_step);
        if (compiled < end)
            interpret(rows, first, compiled, end, in_step);
    }

  private:
    // The program on blocks from ... end - 1 of those from `first` on that were multiplied.
    void interpret(int rows, std::int64_t first, std::int64_t from, std::int64_t end,
                   bool in_step) {
        const StepLayer<T> &layer = *layer_;
        const Cell &cell = *layer.cell;
        const Block &begin = (*layer.blocks)[from], &last = (*layer.blocks)[end - 1];
        const int sub = static_cast<int>(last.first + last.vectors - begin.first);
        const std::int64_t unit = begin.first * W,
                           units = std::min<std::int64_t>(sub * W, layer.units - unit);
        const std::int64_t tile = static_cast<std::int64_t>(sub) * rows * W;
        if (saved != nullptr)
            for (std::size_t s = 0; s < cell.saved.size(); s++)
                values_.place(cell.saved[s], saved + static_cast<std::int64_t>(s) * tile);
        for (std::int32_t g = 0; g < cell.first_state(); g++)
            assemble(g, first, from, end, rows, in_step);

        const auto state0 = cell.first_state();
        for (int k = 0; k < cell.states; k++)
            if (reads_[state0 + k])
                gather(values_[state0 + k],
                       RowView<const T>{before[k] + unit, layer.units, nullptr}, rows, sub, units);
        for (int k = 0; k < cell.parameters; k++)
            gather(values_[state0 + cell.states + k],
                   RowView<const T>{layer.parameters[k] + unit, 0, nullptr}, rows, sub, units);

        values_.run(sub * rows);

        for (int k = 0; k < cell.states; k++)
            scatter(values_[cell.forward.outputs[k]],
                    RowView<T>{after[k] + unit, layer.units, nullptr}, rows, sub, units);
        for (const auto &[value, to] : written)
            scatter(values_[value], RowView<T>{to.data + unit, to.stride, to.index}, rows, sub,
                    units);
    }

    // The end of the blocks whose step is compiled, the others' being interpreted: those that are
    // there as a whole, unless other values than the states are to be written.
    std::int64_t compiled_blocks(std::int64_t first, std::int64_t end) const {
        if (compiled_ == nullptr || written.size() > 1 ||
            (written.size() == 1 && written[0].value != layer_->cell->forward.outputs[0]))
            return first;
        const Block &last = (*layer_->blocks)[end - 1];
        return end - ((last.first + last.vectors) * W > layer_->units);
    }

    void run_compiled(int rows, std::int64_t first, std::int64_t end, bool in_step) {
        const StepLayer<T> &layer = *layer_;
        ForwardPlaces<T> places;
        places.rows = rows;
        places.stride = layer.units;
        places.saved = saved;
        for_each_run(first, end, [&](std::int64_t n, int sub) {
            const std::int64_t unit = (*layer.blocks)[n].first * W;
            places.sub = sub;
            places.x.data = nullptr;
            for (std::int32_t g = 0; g < layer.cell->first_state(); g++) {
                Half<T> h, x_half;
                place_halves(g, first, n, rows, in_step, h, x_half);
                places.h[g] = h.data;
                places.h_bias[g] = h.bias;
                places.h_vector = h.vector;
                if (x_half.data == nullptr)
                    continue;
                if (places.x.data == nullptr)
                    places.x = {x_half.data, x_half.row, x_half.index};
                places.x_first[g] = x_half.data - places.x.data;
                places.x_bias[g] = x_half.bias;
                places.x_vector = x_half.vector;
            }
            for (int k = 0; k < layer.cell->states; k++) {
                places.before[k] = before[k] + unit;
                places.after[k] = after[k] + unit;
            }
            for (int k = 0; k < layer.cell->parameters; k++)
                places.parameters[k] = layer.parameters[k] + unit;
            places.output = written.empty() ? RowView<T>{} : from_unit(written[0].to, unit);
            compiled_->forward(places);
        });
    }

    // Call f(n, sub) for blocks first ... end - 1: the halves of `sub` vectors of units from block
    // n on are equally far apart.
    template <class F>
    ANAPHORA_INLINE void for_each_run(std::int64_t first, std::int64_t end, F f) {
        for (std::int64_t n = first, count = 1; n < end; n += count) {
            int sub = (*layer_->blocks)[n].vectors;
            if (sub == 1) // so are those that follow: take them at once
                sub = static_cast<int>(count = end - n);
            f(n, sub);
        }
    }

    // The halves of gate g from block n on, of blocks from `first` on that were multiplied.
    ANAPHORA_INLINE void place_halves(std::int32_t g, std::int64_t first, std::int64_t n, int rows,
                                      bool in_step, Half<T> &h, Half<T> &x_half) const {
        const StepLayer<T> &layer = *layer_;
        const auto [x_gate, h_gate] = layer.cell->gates[g];
        const Block &block = (*layer.blocks)[n];
        const std::int64_t Gh = layer.cell->h_blocks, Gx = layer.cell->x_blocks, H = layer.units,
                           tile = rows * W, at = block.first, unit = at * W, gap = block.vectors,
                           multiplied = at - (*layer.blocks)[first].first;
        const bool single = gap == 1;
        h = {nullptr, W, single ? Gh * half_row_ : half_row_, nullptr, nullptr};
        x_half = {nullptr, W, single ? Gx * tile : tile, nullptr, nullptr};
        if (h_gate >= 0) {
            h.data = halves_ + (Gh * multiplied + h_gate * gap) * half_row_ + first_row * W;
            h.bias = layer.bias_hh == nullptr ? nullptr : layer.bias_hh + h_gate * H + unit;
        }
        if (x_gate < 0)
            return;
        if (in_step)
            x_half.data = x_halves_ + (Gx * multiplied + x_gate * gap) * tile;
        else if (x.packed)
            x_half = {x.rows.data + (Gx * at + x_gate * gap) * W, x.rows.stride,
                      single ? Gx * W : W, x.rows.index, nullptr};
        else
            x_half = {x.rows.data + x_gate * H + unit, x.rows.stride, W, x.rows.index, nullptr};
        if ((in_step || x.packed) && layer.bias_ih != nullptr)
            x_half.bias = layer.bias_ih + x_gate * H + unit;
    }

    // One gate of blocks from ... end - 1: its halves and their biases.
    ANAPHORA_INLINE void assemble(std::int32_t g, std::int64_t first, std::int64_t from,
                                  std::int64_t end, int rows, bool in_step) {
        const StepLayer<T> &layer = *layer_;
        const GateInput gate = layer.cell->gates[g];
        Half<T> h, x_half;
        T *to = values_[g];
        for_each_run(from, end, [&](std::int64_t n, int sub) {
            const std::int64_t unit = (*layer.blocks)[n].first * W,
                               units = std::min<std::int64_t>(sub * W, layer.units - unit);
            place_halves(g, first, n, rows, in_step, h, x_half);
            if (gate.x < 0)
                add_halves<true, false>(to, h, x_half, rows, sub, units);
            else if (gate.h < 0)
                add_halves<false, true>(to, h, x_half, rows, sub, units);
            else
                add_halves<true, true>(to, h, x_half, rows, sub, units);
            to += static_cast<std::int64_t>(sub) * rows * W;
        });
    }

    const StepLayer<T> *layer_;
    const CompiledStep<T> *compiled_; // or null
    const std::vector<bool> &reads_;
    Tiles<T> values_;
    T *halves_, *x_halves_;     // [G * vectors, rows, lanes]
    std::int64_t half_row_ = 0; // the size of a vector of all rows of halves_
};

template <class T> class BackwardStep {
    static constexpr int W = lanes<T>;

  public:
    // What the caller sets for each tile, at its first row: the saved values; the gradients of the
    // states after the step, and of the output, if any; where those of gates go, x halves and h
    // halves (null: they are the same); those of the states before the step (null: nowhere); those
    // of the cell's parameters, to which they are added.
    const T *saved = nullptr;
    std::vector<RowView<const T>> d_after;
    RowView<const T> d_output{};
    RowView<T> d_x_gates{}, d_h_gates{};
    std::vector<T *> d_before, d_parameters;
    // What the next step reads, to be fetched meanwhile: the saved values, and the gradients of the
    // output at their first unit, if any.
    const T *next_saved = nullptr;
    RowView<const T> next_output{};

    BackwardStep(const Cell &cell, std::int64_t units, int vectors, Scratch &scratch)
        : d_after(cell.states), d_before(cell.states), d_parameters(cell.parameters), cell_(cell),
          compiled_(compiled_step<T>(cell)), units_(units),
          values_(cell.backward, vectors, scratch) {}

    // Some rows by the units of a block.
    void operator()(int rows, const Block &block) {
        const int sub = block.vectors;
        const std::int64_t unit = block.first * W,
                           units = std::min<std::int64_t>(sub * W, units_ - unit);
        if (compiled_ != nullptr && units == sub * W)
            return run_compiled(rows, sub, unit);
        const auto saved_count = static_cast<std::int32_t>(cell_.saved.size());
        const auto gate_count = static_cast<std::int32_t>(cell_.gates.size());
        for (std::int32_t s = 0; s < saved_count; s++)
            values_.place(s,
                          const_cast<T *>(saved) + static_cast<std::int64_t>(s) * sub * rows * W);
        for (int k = 0; k < cell_.states; k++)
            gather(values_[saved_count + k], from_unit(d_after[k], unit), rows, sub, units);
        if (d_output.data != nullptr)
            gather_add(values_[saved_count], from_unit(d_output, unit), rows, sub, units);
        for (int r = 0; r < rows; r++) { // fetch what is written after the program
            T *x_row = d_x_gates[r] + unit;
            for (std::int32_t g = 0; g < gate_count; g++)
                if (cell_.gates[g].x >= 0)
                    __builtin_prefetch(x_row + cell_.gates[g].x * units_, 1);
        }

        values_.run(sub * rows);

        for (std::int32_t g = 0; g < gate_count; g++) {
            const auto [x, h] = cell_.gates[g];
            const T *value = values_[cell_.backward.outputs[g]];
            if (x >= 0)
                scatter(value, from_unit(d_x_gates, x * units_ + unit), rows, sub, units);
            if (h >= 0 && d_h_gates.data != nullptr)
                scatter(value, from_unit(d_h_gates, h * units_ + unit), rows, sub, units);
        }
        for (int k = 0; k < cell_.states; k++)
            if (d_before[k] != nullptr)
                scatter(values_[cell_.backward.outputs[gate_count + k]],
                        RowView<T>{d_before[k] + unit, units_, nullptr}, rows, sub, units);
        for (int k = 0; k < cell_.parameters; k++)
            add_to(d_parameters[k] + unit,
                   values_[cell_.backward.outputs[gate_count + cell_.states + k]], rows, sub,
                   units);
    }

  private:
    void run_compiled(int rows, int sub, std::int64_t unit) const {
        BackwardPlaces<T> places{.rows = rows,
                                 .sub = sub,
                                 .stride = units_,
                                 .saved = saved,
                                 .d_after = {},
                                 .d_output = from_unit(d_output, unit),
                                 .d_x_gates = from_unit(d_x_gates, unit),
                                 .d_h_gates = from_unit(d_h_gates, unit),
                                 .gate_stride = units_,
                                 .d_before = {},
                                 .d_parameters = {},
                                 .next_saved = next_saved,
                                 .next_output = next_output};
        for (int k = 0; k < cell_.states; k++) {
            places.d_after[k] = from_unit(d_after[k], unit);
            places.d_before[k] = d_before[k] == nullptr ? nullptr : d_before[k] + unit;
        }
        for (int k = 0; k < cell_.parameters; k++)
            places.d_parameters[k] = d_parameters[k] + unit;
        compiled_->backward(places);
    }

    // total [rows, H] += a tile.
    ANAPHORA_INLINE void add_to(T *total, const T *tile, int rows, int sub,
                                std::int64_t units) const {
        for (int s = 0; s < sub; s++)
            for (int r = 0; r < rows; r++, tile += W) {
                const std::int64_t n = std::min<std::int64_t>(W, units - s * W);
                for (std::int64_t u = 0; u < n; u++)
                    total[r * units_ + s * W + u] += tile[u];
            }
    }

    const Cell &cell_;
    const CompiledStep<T> *compiled_; // or null
    std::int64_t units_;
    Tiles<T> values_;
};

} // namespace anaphora::ANAPHORA_ISA
