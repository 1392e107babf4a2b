// The recurrence: any cell over time, forward and backward.
#pragma once

#include "layout.h"
#include "softmax.h"
#include "tiles.h"

#include <optional>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

// value (+)= half + bias for every row of a tile; bias [units] or null.
template <bool Accumulate, class T>
ANAPHORA_INLINE void add_bias(T *value, const T *half, const T *bias, int rows, int sub,
                              std::int64_t units) {
    constexpr int W = lanes<T>;
    alignas(64) T padded[max_vectors * W] = {};
    if (bias != nullptr)
        std::memcpy(padded, bias, units * sizeof(T));
    for (int s = 0; s < sub; s++) {
        Vector<T> b = load(padded + s * W);
        for (int n = s * rows * W; n < (s + 1) * rows * W; n += W)
            store(value + n,
                  Accumulate ? load(value + n) + (load(half + n) + b) : load(half + n) + b);
    }
}

// The rows of x [T, B, size], in the order of the batch and the input, that a span reads,
// consecutively: x itself where they are consecutive, else a copy.
template <class T>
const T *input_rows(const Layout<T> &layout, const Span &span, const T *x, std::int64_t size,
                    Scratch &scratch) {
    if (!layout.indexed())
        return x + span.first * layout.batch * size;
    T *copy = scratch.get<T>(span.rows * size);
    layout.for_each_row(span, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
        std::copy_n(x + layout.input_row(p, t) * size, size, copy + row * size);
    });
    return copy;
}

template <class T, class Products> void recurrence_forward(const Forward<T> &f) {
    constexpr int W = lanes<T>;
    const Cell &cell = *f.cell;
    const std::int64_t B = f.batch, H = f.hidden, P = f.projected;
    Layout<T> layout(cell, f.steps, B, H, P, f.lengths, f.reverse, f.weight_hr != nullptr,
                     Products::tile_rows, f.tiles);
    std::vector<bool> read(cell.forward.inputs, false);
    for (const Instruction &i : cell.forward.instructions)
        for (std::int32_t operand : {i.a, has_two_operands(i.op) ? i.b : i.a})
            if (operand < cell.forward.inputs)
                read[operand] = true;
    for (std::int32_t output : cell.forward.outputs)
        if (output < cell.forward.inputs)
            read[output] = true;

    for (std::int32_t value : cell.saved)
        if (value < cell.forward.inputs)
            read[value] = true;
    for (int n = 0; n < f.named_count; n++)
        if (f.named[n] < cell.forward.inputs)
            read[f.named[n]] = true;

    const bool in_step = f.weight_ih != nullptr && Products::applies_to_gates(f.inputs) &&
                         layout.input_in_step(f.inputs, Products::weight_bytes);
    static thread_local Scratch weight_scratch, input_weight_scratch, projection_scratch;
    using Gates = typename Products::Gates;
    using Columns = typename Products::Columns;
    const std::int64_t p_vectors = (P + W - 1) / W;
    std::optional<Columns> projection;
    const Gates hh(layout, layout.gates, P, f.weight_hh, weight_scratch);
    const Gates ih(layout, in_step ? cell.x_blocks : 0, f.inputs, f.weight_ih,
                   input_weight_scratch);
    if (f.weight_hr != nullptr)
        projection.emplace(H, P, Matrix<const T>{f.weight_hr, 1, H},
                           std::vector<std::int64_t>{0, p_vectors}, projection_scratch);
    Barrier barrier(layout.threads);
    auto state_at = [&](int k, std::int64_t t) {
        return f.states[k] + (f.saved == nullptr ? t % 2 : t) * B * (k == 0 ? P : H);
    };
    auto unprojected_at = [&](std::int64_t t) {
        return f.unprojected + (f.saved == nullptr ? 0 : t) * B * H;
    };
    const std::int64_t gates_size = static_cast<std::int64_t>(cell.x_blocks) * H;
    const bool scattered = f.weight_ih == nullptr && layout.indexed();
    static thread_local Scratch input_scratch, gate_scratch;

    layout.for_each_span(f.weight_ih != nullptr && !in_step, false, [&](Span span) {
        const T *x_gates = f.x + (scattered ? 0 : span.first * B * gates_size);
        if (f.weight_ih != nullptr && !in_step) {
            const T *x = input_rows(layout, span, f.x, f.inputs, input_scratch);
            T *halves = gate_scratch.get<T>(span.rows * gates_size);
            Products::multiply(span.rows, gates_size, f.inputs, Matrix<const T>{x, f.inputs, 1},
                               Matrix<const T>{f.weight_ih, 1, f.inputs}, halves, gates_size,
                               f.bias_ih, false);
            x_gates = halves;
        }
        layout.run([&](int thread) {
            static thread_local Scratch tile_scratch, half_scratch, x_half_scratch, row_scratch;
            static thread_local Scratch h_row_scratch, x_row_scratch, unprojected_scratch;
            typename Gates::LeftOperand h_rows(hh, layout, h_row_scratch),
                x_rows(ih, layout, x_row_scratch);
            std::optional<typename Columns::LeftOperand> unprojected_rows;
            if (projection)
                unprojected_rows.emplace(*projection, B, unprojected_scratch);
            const int height = layout.largest_tile();
            Tiles<T> values(cell.forward, layout.sub * height, tile_scratch);
            T *halves = half_scratch.get<T>(std::max(1, layout.gates * layout.sub) * height * W);
            T *x_halves = nullptr, *x_copy = nullptr;
            if (in_step) {
                x_halves = x_half_scratch.get<T>(cell.x_blocks * layout.sub * height * W + 1);
                x_copy = row_scratch.get<T>(layout.indexed() ? B * f.inputs : 1);
            }
            const auto state0 = static_cast<std::int32_t>(cell.gates.size());
            std::vector<typename Layout<T>::Tile> tiles;
            std::vector<std::int64_t> input_row(B); // of each position, among the T*B of the input

            for (std::int64_t t = span.first; t < span.end; t++) {
                layout.tiles_of(thread, t, tiles);
                for (const auto &tile : tiles) {
                    for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                        input_row[p] = layout.input_row(p, t);
                    if (thread > 0 && layout.share_units)
                        continue;
                    // Inactive rows keep their state; the output after a row's length is 0.
                    for (std::int64_t p = tile.first + tile.rows; p < tile.end; p++) {
                        for (int k = 0; k < cell.states; k++) {
                            std::int64_t size = k == 0 ? P : H;
                            std::memcpy(state_at(k, t + 1) + p * size, state_at(k, t) + p * size,
                                        size * sizeof(T));
                        }
                        std::fill_n(f.output + (t * B + layout.rows[p]) * P, P, T(0));
                        if (f.unprojected != nullptr)
                            std::fill_n(unprojected_at(t) + p * H, H, T(0));
                        for (int n = 0; n < f.named_count; n++)
                            std::fill_n(f.record[n] + (t * B + layout.rows[p]) * H, H, T(0));
                    }
                }

                const T *x_step = f.x + t * B * f.inputs;
                if (in_step && layout.indexed()) {
                    x_step = x_copy;
                    for (const auto &tile : tiles)
                        for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                            std::copy_n(f.x + input_row[p] * f.inputs, f.inputs,
                                        x_copy + p * f.inputs);
                }
                h_rows.read(tiles, state_at(0, t));
                if (in_step)
                    x_rows.read(tiles, x_step);

                for (std::int64_t block = 0; block < layout.blocks_of(thread); block++) {
                    const std::int64_t v = layout.block_vector(thread, block, t);
                    const int sub = layout.block_size(thread, v);
                    const std::int64_t unit = v * W,
                                       units = std::min<std::int64_t>(sub * W, H - unit);
                    for (std::size_t n = 0; n < tiles.size(); n++) {
                        const auto &tile = tiles[n];
                        const int rows = tile.rows;
                        if (rows == 0)
                            continue;
                        const std::int64_t *in = input_row.data() + tile.first;

                        if (f.saved != nullptr)
                            for (std::size_t s = 0; s < cell.saved.size(); s++)
                                values.place(cell.saved[s],
                                             f.saved + layout.saved_at(t, tile.number, v) +
                                                 static_cast<std::int64_t>(s) * sub * rows * W);

                        h_rows.multiply(n, tile, v, sub, halves);
                        if (in_step)
                            x_rows.multiply(n, tile, v, sub, x_halves);
                        for (std::int32_t g = 0; g < state0; g++) {
                            auto [x, h] = cell.gates[g];
                            T *value = values[g];
                            if (h >= 0)
                                add_bias<false>(value, halves + h * sub * rows * W,
                                                f.bias_hh == nullptr ? nullptr
                                                                     : f.bias_hh + h * H + unit,
                                                rows, sub, units);
                            if (x < 0)
                                continue;
                            if (in_step) {
                                const T *half = x_halves + x * sub * rows * W;
                                const T *bias =
                                    f.bias_ih == nullptr ? nullptr : f.bias_ih + x * H + unit;
                                if (h >= 0)
                                    add_bias<true>(value, half, bias, rows, sub, units);
                                else
                                    add_bias<false>(value, half, bias, rows, sub, units);
                                continue;
                            }
                            RowView<const T> from{x_gates + x * H + unit, gates_size, in};
                            if (!scattered)
                                from = {from.data + layout.row(span, t, tile.first) * gates_size,
                                        gates_size, nullptr};
                            if (h >= 0)
                                gather_add(value, from, rows, sub, units);
                            else
                                gather(value, from, rows, sub, units);
                        }
                        for (int k = 0; k < cell.states; k++)
                            if (read[state0 + k])
                                gather(values[state0 + k],
                                       RowView<const T>{state_at(k, t) + tile.first * H + unit, H,
                                                        nullptr},
                                       rows, sub, units);
                        for (int k = 0; k < cell.parameters; k++)
                            gather(values[state0 + cell.states + k],
                                   RowView<const T>{f.parameters[k] + unit, 0, nullptr}, rows, sub,
                                   units);

                        values.run(sub * rows);

                        for (int k = 0; k < cell.states; k++) {
                            T *to = k == 0 && f.unprojected != nullptr ? unprojected_at(t)
                                                                       : state_at(k, t + 1);
                            scatter(values[cell.forward.outputs[k]],
                                    RowView<T>{to + tile.first * H + unit, H, nullptr}, rows, sub,
                                    units);
                        }
                        if (f.unprojected == nullptr)
                            scatter(values[cell.forward.outputs[0]],
                                    RowView<T>{f.output + unit, H, in}, rows, sub, units);
                        for (int n = 0; n < f.named_count; n++)
                            scatter(values[f.named[n]], RowView<T>{f.record[n] + unit, H, in}, rows,
                                    sub, units);
                    }
                }
                if (f.unprojected != nullptr) {
                    T *to = state_at(0, t + 1);
                    unprojected_rows->read(tiles, unprojected_at(t));
                    unprojected_rows->multiply(*projection, 0, p_vectors, to, P, false, false);
                    for (const auto &tile : tiles)
                        for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                            std::memcpy(f.output + input_row[p] * P, to + p * P, P * sizeof(T));
                }
                if (layout.share_units)
                    barrier.wait();
            }
        });
    });
}

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

template <class T, class Products>
SavedShape recurrence_saved(const Cell &cell, std::int64_t T_, std::int64_t B, std::int64_t H,
                            std::int64_t P, bool has_projection, std::int64_t tiles) {
    Layout<T> layout(cell, T_, B, H, P, nullptr, false, has_projection, Products::tile_rows, tiles);
    return {layout.tiles, layout.saved_size()};
}

template <class T, class Products> void recurrence_backward(const Backward<T> &f) {
    constexpr int W = lanes<T>;
    const Cell &cell = *f.cell;
    const std::int64_t B = f.batch, H = f.hidden, P = f.projected;
    const std::int64_t gates_size = static_cast<std::int64_t>(cell.h_blocks) * H;
    const std::int64_t d_x_size = f.weight_ih == nullptr ? cell.x_blocks * H : f.inputs;
    Layout<T> layout(cell, f.steps, B, H, P, f.lengths, f.reverse, f.weight_hr != nullptr,
                     Products::tile_rows, f.tiles);

    static thread_local Scratch weight_scratch, input_weight_scratch, projection_scratch;
    using Columns = typename Products::Columns;
    const std::int64_t p_vectors = (P + W - 1) / W, h_vectors = layout.vectors();
    const std::int64_t i_vectors = (f.inputs + W - 1) / W;
    std::vector<std::int64_t> shares{0};
    for (int thread = 0; thread + 1 < layout.threads && layout.share_units; thread++)
        shares.push_back(layout.end_vector(thread));
    shares.push_back(p_vectors);
    const Columns hh(gates_size, P, Matrix<const T>{f.weight_hh, P, 1}, shares, weight_scratch);
    std::optional<Columns> projection, ih;
    if (f.weight_hr != nullptr)
        projection.emplace(P, H, Matrix<const T>{f.weight_hr, H, 1},
                           std::vector<std::int64_t>{0, h_vectors}, projection_scratch);
    const bool in_step = f.weight_ih != nullptr && f.d_x != nullptr &&
                         Products::applies_to_columns(cell.x_blocks * H) &&
                         layout.input_in_step(f.inputs, Products::weight_bytes);
    if (in_step)
        ih.emplace(cell.x_blocks * H, f.inputs, Matrix<const T>{f.weight_ih, f.inputs, 1},
                   std::vector<std::int64_t>{0, i_vectors}, input_weight_scratch);
    Barrier barrier(layout.threads);
    const std::int64_t x_size = static_cast<std::int64_t>(cell.x_blocks) * H, I = f.inputs;
    const bool scattered = f.weight_ih == nullptr && layout.indexed();
    bool shared_gradient = !scattered; // the two halves of every gate share one gradient
    for (const GateInput &gate : cell.gates)
        shared_gradient = shared_gradient && gate.x == gate.h;
    static thread_local Scratch x_gate_scratch, h_gate_scratch, projected_scratch;
    bool adding = false; // weight gradients are accumulated from the second span on
    // Without input weights, the gradients of gates go straight to the caller's array.
    const int groups = f.weight_ih == nullptr ? 1 : layout.groups;
    static thread_local Scratch sum_scratch[5];
    GroupSums<T> d_weight_hr(f.d_weight_hr, P * H, groups, sum_scratch[0]),
        d_weight_hh(f.d_weight_hh, gates_size * P, groups, sum_scratch[1]),
        d_bias_hh(f.d_bias_hh, gates_size, groups, sum_scratch[2]),
        d_weight_ih(f.d_weight_ih, x_size * I, groups, sum_scratch[3]),
        d_bias_ih(shared_gradient && f.d_bias_hh != nullptr ? nullptr : f.d_bias_ih, x_size, groups,
                  sum_scratch[4]);

    layout.for_each_span(f.weight_ih != nullptr, true, [&](Span span) {
        const GroupedRows<T> grouped(layout, span, groups);
        T *d_x_gates = f.d_x + (scattered ? 0 : span.first * B * x_size);
        if (f.weight_ih != nullptr)
            d_x_gates = x_gate_scratch.get<T>(span.rows * x_size);
        T *d_h_gates = shared_gradient ? d_x_gates : h_gate_scratch.get<T>(span.rows * gates_size);
        T *d_projected = f.weight_hr == nullptr ? nullptr : projected_scratch.get<T>(span.rows * P);
        layout.run([&](int thread) {
            static thread_local Scratch tile_scratch, row_scratch, d_row_scratch;
            static thread_local Scratch d_h_scratch, d_x_scratch, d_projected_scratch;
            typename Columns::LeftOperand d_h_rows(hh, B, d_h_scratch);
            std::optional<typename Columns::LeftOperand> d_x_rows, d_projected_rows;
            if (in_step && !shared_gradient)
                d_x_rows.emplace(*ih, B, d_x_scratch);
            if (projection)
                d_projected_rows.emplace(*projection, B, d_projected_scratch);
            const int height = layout.largest_tile();
            Tiles<T> values(cell.backward, layout.sub * height, tile_scratch);
            const int saved_count = static_cast<int>(cell.saved.size());
            const int gate_count = static_cast<int>(cell.gates.size());
            T *d_unprojected =
                f.weight_hr == nullptr ? nullptr : row_scratch.get<T>(B * h_vectors * W);
            std::vector<typename Layout<T>::Tile> tiles;
            std::vector<std::int64_t> input_row(B);

            for (std::int64_t t = span.end - 1; t >= span.first; t--) {
                layout.tiles_of(thread, t, tiles);
                for (auto &tile : tiles) {
                    tile.row = grouped.row(t, tile.number);
                    for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                        input_row[p] = layout.input_row(p, t);
                    if (thread > 0 && layout.share_units)
                        continue;
                    for (std::int64_t p = tile.first + tile.rows; p < tile.end; p++)
                        if (f.d_x != nullptr)
                            std::fill_n(f.d_x + (t * B + layout.rows[p]) * d_x_size, d_x_size,
                                        T(0));
                }
                if (f.weight_hr != nullptr) {
                    for (const auto &tile : tiles)
                        for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                            for (std::int64_t k = 0; k < P; k++) {
                                T &state = f.d_states[0][p * P + k];
                                T out =
                                    f.d_output == nullptr ? T(0) : f.d_output[input_row[p] * P + k];
                                d_projected[(tile.row + p - tile.first) * P + k] = state + out;
                                state = 0;
                            }
                    d_projected_rows->read(tiles, d_projected);
                    d_projected_rows->multiply(*projection, 0, h_vectors, d_unprojected,
                                               h_vectors * W, false, false);
                }

                for (std::int64_t block = 0; block < layout.blocks_of(thread); block++) {
                    const std::int64_t v = layout.block_vector(thread, block, t);
                    const int sub = layout.block_size(thread, v);
                    const std::int64_t unit = v * W,
                                       units = std::min<std::int64_t>(sub * W, H - unit);
                    for (const auto &tile : tiles) {
                        const int rows = tile.rows;
                        if (rows == 0)
                            continue;
                        const std::int64_t row = tile.row;
                        const std::int64_t *in = input_row.data() + tile.first;

                        for (int s = 0; s < saved_count; s++)
                            values.place(s, const_cast<T *>(f.saved) +
                                                layout.saved_at(t, tile.number, v) +
                                                static_cast<std::int64_t>(s) * sub * rows * W);
                        for (int k = 0; k < cell.states; k++) {
                            T *value = values[saved_count + k];
                            if (k == 0 && f.weight_hr != nullptr) {
                                gather(value,
                                       RowView<const T>{d_unprojected + tile.first * h_vectors * W +
                                                            unit,
                                                        h_vectors * W, nullptr},
                                       rows, sub, units);
                                continue;
                            }
                            gather(
                                value,
                                RowView<const T>{f.d_states[k] + tile.first * H + unit, H, nullptr},
                                rows, sub, units);
                            if (k > 0 || f.d_output == nullptr)
                                continue;
                            gather_add(value, RowView<const T>{f.d_output + unit, H, in}, rows, sub,
                                       units);
                        }

                        values.run(sub * rows);

                        for (int g = 0; g < gate_count; g++) {
                            auto [x, h] = cell.gates[g];
                            const T *value = values[cell.backward.outputs[g]];
                            if (x >= 0) {
                                RowView<T> to{d_x_gates + x * H + unit, x_size, in};
                                if (!scattered)
                                    to = {to.data + row * x_size, x_size, nullptr};
                                scatter(value, to, rows, sub, units);
                            }
                            if (h >= 0 && !shared_gradient)
                                scatter(value,
                                        RowView<T>{d_h_gates + row * gates_size + h * H + unit,
                                                   gates_size, nullptr},
                                        rows, sub, units);
                        }
                        for (int k = f.weight_hr != nullptr; k < cell.states; k++)
                            scatter(values[cell.backward.outputs[gate_count + k]],
                                    RowView<T>{f.d_states[k] + tile.first * H + unit, H, nullptr},
                                    rows, sub, units);
                        for (int k = 0; k < cell.parameters; k++) {
                            const T *value =
                                values[cell.backward.outputs[gate_count + cell.states + k]];
                            T *total = f.d_parameters + (k * B + tile.first) * H + unit;
                            for (int s = 0; s < sub; s++)
                                for (int r = 0; r < rows; r++, value += W) {
                                    std::int64_t n = std::min<std::int64_t>(W, units - s * W);
                                    for (std::int64_t u = 0; u < n; u++)
                                        total[r * H + s * W + u] += value[u];
                                }
                        }
                    }
                }
                if (layout.share_units)
                    barrier.wait();
                d_h_rows.read(tiles, d_h_gates);
                if (gates_size > 0)
                    d_h_rows.multiply(hh, layout.share_units ? layout.first_vector(thread) : 0,
                                      layout.share_units ? layout.end_vector(thread) : p_vectors,
                                      f.d_states[0], P, true, t % 2 == 1);
                if (in_step) {
                    T *to = f.d_x + t * B * I;
                    if (layout.indexed())
                        to = d_row_scratch.get<T>(B * I);
                    if (!shared_gradient)
                        d_x_rows->read(tiles, d_x_gates);
                    (shared_gradient ? d_h_rows : *d_x_rows)
                        .multiply(*ih, 0, i_vectors, to, I, false, t % 2 == 1);
                    if (layout.indexed())
                        for (const auto &tile : tiles)
                            for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                                std::copy_n(to + p * I, I, f.d_x + input_row[p] * I);
                }
            }
        });

        // The contribution of all steps of the span to the gradients of weights and input; each
        // group to its own sums.
        auto add_group = [&](int g) {
            static thread_local Scratch copy_scratch, d_input_scratch;
            const std::int64_t rows = grouped.size(g), first = grouped.first(g);
            // total [columns of d, columns of x] += d [rows, .]^T x [rows, .]
            auto add_outer = [&](const T *d, std::int64_t d_columns, const T *x,
                                 std::int64_t x_columns, T *total) {
                Products::multiply(Gradient::weight, d_columns, x_columns, rows,
                                   Matrix<const T>{d + first * d_columns, 1, d_columns},
                                   Matrix<const T>{x, x_columns, 1}, total, x_columns, adding);
            };
            // The group's rows of x [T * B, columns], where row_of(p, t) is the row of a position
            // at a step: x itself where they are consecutive.
            auto rows_of_group = [&](const T *x, std::int64_t columns, bool copies, auto row_of) {
                if (!copies && groups == 1)
                    return x + span.first * B * columns;
                T *copy = copy_scratch.get<T>(rows * columns);
                grouped.for_each_row(g, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
                    std::copy_n(x + row_of(p, t) * columns, columns, copy + row * columns);
                });
                return static_cast<const T *>(copy);
            };
            auto by_position = [&](std::int64_t p, std::int64_t t) { return t * B + p; };
            auto by_input = [&](std::int64_t p, std::int64_t t) { return layout.input_row(p, t); };

            if (f.d_weight_hr != nullptr)
                add_outer(d_projected, P,
                          rows_of_group(f.unprojected, H, layout.ragged, by_position), H,
                          d_weight_hr.of(g));
            if (f.d_weight_hh != nullptr)
                add_outer(d_h_gates, gates_size,
                          rows_of_group(f.state, P, layout.ragged, by_position), P,
                          d_weight_hh.of(g));
            if (f.d_bias_hh != nullptr)
                sum_columns(rows, gates_size, d_h_gates + first * gates_size, d_bias_hh.of(g),
                            adding);
            if (f.weight_ih == nullptr)
                return;
            if (f.d_weight_ih != nullptr)
                add_outer(d_x_gates, x_size, rows_of_group(f.x, I, layout.indexed(), by_input), I,
                          d_weight_ih.of(g));
            if (d_bias_ih.of(g) != nullptr)
                sum_columns(rows, x_size, d_x_gates + first * x_size, d_bias_ih.of(g), adding);
            if (f.d_x == nullptr || in_step)
                return;
            const bool copies = layout.indexed() || groups > 1;
            T *d_x = copies ? d_input_scratch.get<T>(rows * I) : f.d_x + span.first * B * I;
            Products::multiply(Gradient::input, rows, I, x_size,
                               Matrix<const T>{d_x_gates + first * x_size, x_size, 1},
                               Matrix<const T>{f.weight_ih, I, 1}, d_x, I, false);
            if (copies)
                grouped.for_each_row(g, [&](std::int64_t row, std::int64_t p, std::int64_t t) {
                    std::copy_n(d_x + row * I, I, f.d_x + layout.input_row(p, t) * I);
                });
        };
        // On the thread that has the group's rows, or on all threads, one group after the other.
        const int tasks = groups == 1 || available_threads() > groups ? 1 : layout.threads;
        parallel(tasks, [&](std::int64_t task) {
            for (auto g = static_cast<int>(task); g < groups; g += tasks)
                add_group(g);
        });
        adding = true;
    });
    for (GroupSums<T> *sums : {&d_weight_hr, &d_weight_hh, &d_bias_hh, &d_weight_ih, &d_bias_ih})
        sums->add();
    if (f.d_bias_ih != nullptr && d_bias_ih.of(0) == nullptr)
        std::copy_n(f.d_bias_hh, x_size, f.d_bias_ih);
}

} // namespace anaphora::ANAPHORA_ISA
