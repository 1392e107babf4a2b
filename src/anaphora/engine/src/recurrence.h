// The recurrence: any cell over time, forward and backward.
//
// Letters: T steps, B rows of the batch, H hidden units, P the size of the first state (H without a
// projection), Gx and Gh the numbers of input and recurrent halves of gates.
#pragma once

#include "kernels.h"
#include "matrix.h"

#include <vector>

namespace anaphora::ANAPHORA_ISA {

// An interpreter for one program over tiles. A value lies in memory of its own, or wherever
// `place` says.
template <class T> class Tiles {
  public:
    Tiles(const Program &program, int vectors, Scratch &scratch)
        : program_(program), places_(program.values()) {
        std::int64_t size = vectors * lanes<T>;
        T *memory = scratch.get<T>(static_cast<std::size_t>(program.values() * size));
        for (std::size_t v = 0; v < places_.size(); v++)
            places_[v] = memory + static_cast<std::int64_t>(v) * size;
        for (std::size_t c = 0; c < program.constants.size(); c++)
            std::fill_n(places_[program.inputs + c], size, static_cast<T>(program.constants[c]));
    }

    T *operator[](std::int32_t value) const { return places_[value]; }
    void place(std::int32_t value, T *at) { places_[value] = at; }

    void run(int vectors) const {
        auto y = places_.begin() + program_.inputs +
                 static_cast<std::ptrdiff_t>(program_.constants.size());
        for (const Instruction &i : program_.instructions)
            step(i.op, places_[i.a], places_[i.b], *y++, vectors);
    }

  private:
    template <class F> static ANAPHORA_INLINE void map(const T *a, T *y, int n, F f) {
        for (int k = 0; k < n; k++)
            store(y + k * lanes<T>, f(load(a + k * lanes<T>)));
    }
    template <class F> static ANAPHORA_INLINE void map(const T *a, const T *b, T *y, int n, F f) {
        for (int k = 0; k < n; k++)
            store(y + k * lanes<T>, f(load(a + k * lanes<T>), load(b + k * lanes<T>)));
    }

    static void step(Op op, const T *a, const T *b, T *y, int n) {
        using V = Vector<T>;
        switch (op) {
        case Op::add: return map(a, b, y, n, [](V p, V q) { return p + q; });
        case Op::subtract: return map(a, b, y, n, [](V p, V q) { return p - q; });
        case Op::multiply: return map(a, b, y, n, [](V p, V q) { return p * q; });
        case Op::divide: return map(a, b, y, n, [](V p, V q) { return p / q; });
        case Op::negative: return map(a, y, n, [](V p) { return -p; });
        case Op::sigmoid: return map(a, y, n, [](V p) { return vsigmoid<T>(p); });
        case Op::tanh: return map(a, y, n, [](V p) { return vtanh<T>(p); });
        case Op::relu: return map(a, y, n, [](V p) { return p < T(0) ? all<T>(0) : p; });
        case Op::exp: return map(a, y, n, [](V p) { return vexp<T>(p); });
        case Op::log: return map(a, y, n, [](V p) { return vlog<T>(p); });
        case Op::softplus: return map(a, y, n, [](V p) { return vsoftplus<T>(p); });
        case Op::abs: return map(a, y, n, [](V p) { return p < T(0) ? -p : p; });
        case Op::maximum:
            return map(a, b, y, n, [](V p, V q) {
                V m = p > q ? p : q;
                return p == p ? m : p;
            });
        case Op::minimum:
            return map(a, b, y, n, [](V p, V q) {
                V m = p < q ? p : q;
                return p == p ? m : p;
            });
        case Op::sign: return map(a, y, n, [](V p) { return vsign<T>(p); });
        }
    }

    const Program &program_;
    std::vector<T *> places_;
};

// Where the rows of a tile lie in an array: row r at data + at(r) * stride.
template <class T> struct Rows {
    T *data;
    std::int64_t stride;
    const std::int64_t *index; // null: one after the other

    ANAPHORA_INLINE T *operator[](std::int64_t r) const {
        return data + (index == nullptr ? r : index[r]) * stride;
    }
};

// A tile's piece of an array: `rows` rows of `units` numbers, units <= sub * lanes. In the tile the
// layout is [sub, rows, lanes]; lanes beyond the units are 0.
template <class T>
ANAPHORA_INLINE void gather(T *tile, Rows<const T> from, int rows, int sub, std::int64_t units) {
    constexpr int W = lanes<T>;
    for (int s = 0; s < sub; s++, tile += rows * W) {
        std::int64_t left = units - s * W;
        for (int r = 0; r < rows; r++) {
            if (left >= W)
                store(tile + r * W, load(from[r] + s * W));
            else {
                store(tile + r * W, all<T>(0));
                std::memcpy(tile + r * W, from[r] + s * W, left * sizeof(T));
            }
        }
    }
}

template <class T>
ANAPHORA_INLINE void scatter(const T *tile, Rows<T> to, int rows, int sub, std::int64_t units) {
    constexpr int W = lanes<T>;
    for (int s = 0; s < sub; s++, tile += rows * W) {
        std::int64_t left = units - s * W;
        for (int r = 0; r < rows; r++) {
            if (left >= W)
                store(to[r] + s * W, load(tile + r * W));
            else
                std::memcpy(to[r] + s * W, tile + r * W, left * sizeof(T));
        }
    }
}

// How the work is laid out: rows sorted by falling length and cut into tiles, units into blocks.
// Without a projection threads may share either rows (no waiting for each other) or units (each
// keeps its part of the weights in its cache, and all wait for each other at every step).
template <class T> struct Layout {
    static constexpr int W = lanes<T>;
    const Cell &cell;
    std::int64_t steps, batch, hidden, projected;
    std::vector<std::int64_t> rows;   // [B] the row of the batch at each position
    std::vector<std::int64_t> length; // [B] at each position
    std::vector<std::int64_t> active; // [T] how many positions have a step t
    bool reverse, share_units;
    int threads;
    std::int64_t tiles;
    int gates, sub; // Gh, and vectors of units in a block

    Layout(const Cell &c, std::int64_t T_, std::int64_t B, std::int64_t H, std::int64_t P,
           const std::int64_t *lengths, bool reverse_, bool has_projection)
        : cell(c), steps(T_), batch(B), hidden(H), projected(P), rows(B), length(B, T_),
          active(T_, B), reverse(reverse_), gates(c.h_blocks) {
        for (std::int64_t p = 0; p < B; p++)
            rows[p] = p;
        if (lengths != nullptr) {
            std::stable_sort(rows.begin(), rows.end(), [&](std::int64_t p, std::int64_t q) {
                return lengths[p] > lengths[q];
            });
            for (std::int64_t p = 0; p < B; p++)
                length[p] = lengths[rows[p]];
            for (std::int64_t t = 0; t < T_; t++)
                while (active[t] > 0 && length[active[t] - 1] <= t)
                    active[t]--;
        }
        sub = static_cast<int>(std::clamp<std::int64_t>((H + W - 1) / W, 1,
                                                        gates <= 1   ? 4
                                                        : gates == 2 ? 2
                                                                     : 1));
        std::int64_t weights = static_cast<std::int64_t>(gates) * H * P;
        std::int64_t work = B * (weights + 64 * H);
        threads = work < 100000 ? 1 : threads_at_hand();
        share_units = !has_projection && threads > 1 &&
                      (B < 2 * threads || weights * std::int64_t(sizeof(T)) > (3 << 19));
        if (share_units)
            threads = static_cast<int>(std::min<std::int64_t>(threads, blocks()));
        else
            threads =
                static_cast<int>(std::min<std::int64_t>(threads, std::max<std::int64_t>(B, 1)));
        tiles = (B + max_tile() - 1) / max_tile();
        tiles += tiles > 1 && tiles % 2 == 1 && tiles < B; // even, for two threads
    }

    int max_tile() const {
        int vectors = std::max(1, chunk_width(0, chunks(sub)));
        return tile_rows(vectors);
    }
    std::int64_t tile_begin(std::int64_t tile) const { return batch * tile / tiles; }

    // The tiles of one thread at step t: their first positions and how many rows are not at an end.
    struct Tile {
        std::int64_t number, first, end;
        int rows;
    };
    void tiles_of(int part, std::int64_t t, std::vector<Tile> &list) const {
        list.clear();
        for (std::int64_t k = share_units ? 0 : part; k < tiles; k += share_units ? 1 : threads) {
            std::int64_t first = tile_begin(k), end = tile_begin(k + 1);
            list.push_back(
                {k, first, end,
                 static_cast<int>(std::clamp<std::int64_t>(active[t] - first, 0, end - first))});
        }
    }

    // The step of the input that position p takes at its step t.
    std::int64_t input_step(std::int64_t p, std::int64_t t) const {
        return reverse ? length[p] - 1 - t : t;
    }

    std::int64_t vectors() const { return (hidden + W - 1) / W; }
    std::int64_t blocks() const { return (vectors() + sub - 1) / sub; }
    std::int64_t first_vector(int part) const {
        return share_units ? blocks() * part / threads * sub : 0;
    }
    std::int64_t end_vector(int part) const {
        return share_units ? std::min(vectors(), blocks() * (part + 1) / threads * sub) : vectors();
    }

    // What a step leaves for the way back lies tile by tile, just as it is read again.
    std::int64_t saved_block() const {
        return static_cast<std::int64_t>(cell.saved.size()) * sub * max_tile() * W;
    }
    std::int64_t saved_size() const { return steps * tiles * blocks() * saved_block(); }
    std::int64_t saved_at(std::int64_t t, std::int64_t tile, std::int64_t vector) const {
        return ((t * tiles + tile) * blocks() + vector / sub) * saved_block();
    }

    // The recurrent halves of a block of `block_sub` unit vectors: gates * block_sub vectors, in
    // chunks of at most 4.
    int chunks(int block_sub) const { return (gates * block_sub + max_vectors - 1) / max_vectors; }
    int chunk_width(int chunk, int of, int block_sub) const {
        int all = gates * block_sub;
        return of == 0 ? 0 : all / of + (chunk < all % of);
    }
    int chunk_width(int chunk, int of) const { return chunk_width(chunk, of, sub); }

    // Run body(part) on every thread, all at the same time.
    template <class F> void run(F body) { together(threads, body); }
};

// W_hh for forward: for each block of units, chunk by chunk, [P, chunk vectors * lanes].
template <class T>
void pack_forward(const Layout<T> &layout, const T *weight, T *packed, std::int64_t first,
                  int block_sub) {
    constexpr int W = lanes<T>;
    std::int64_t H = layout.hidden, P = layout.projected;
    int chunks = layout.chunks(block_sub), v = 0;
    T *to = packed + first * layout.gates * W * P;
    for (int c = 0; c < chunks; c++) {
        int width = layout.chunk_width(c, chunks, block_sub);
        for (int w = 0; w < width; w++, v++) {
            std::int64_t gate = v / block_sub, unit = (first + v % block_sub) * W;
            for (int lane = 0; lane < W; lane++) {
                bool real = unit + lane < H;
                const T *from = weight + (gate * H + unit + lane) * P;
                T *column = to + w * W + lane;
                for (std::int64_t k = 0; k < P; k++)
                    column[k * width * W] = real ? from[k] : T(0);
            }
        }
        to += static_cast<std::int64_t>(width) * W * P;
    }
}

// For each tile: [rows, columns] (+)= a [rows, K] times packed panels of these vectors. Rows of the
// tiles are those of a and c. A panel is used for all tiles while it is in the cache.
template <class T>
void multiply_rows(const std::vector<typename Layout<T>::Tile> &tiles, std::int64_t K, const T *a,
                   const T *packed, std::int64_t first_vector, std::int64_t end_vector,
                   std::int64_t columns, T *c, std::int64_t c_row, bool accumulate) {
    constexpr int W = lanes<T>;
    std::int64_t count = (end_vector - first_vector + max_vectors - 1) / max_vectors;
    alignas(64) T edge[max_rows * max_vectors * W];
    std::int64_t v = first_vector;
    for (std::int64_t p = 0; p < count; p++) {
        int width = static_cast<int>((end_vector - v + count - p - 1) / (count - p));
        std::int64_t begin = v * W, real = std::min<std::int64_t>(width * W, columns - begin);
        const T *b = packed + begin * K;
        int height = tile_rows(width);
        for (const auto &tile : tiles)
            for (int i = 0; i < tile.rows; i += height) {
                int n = std::min(height, tile.rows - i);
                const T *from = a + (tile.first + i) * K;
                T *to = c + (tile.first + i) * c_row + begin;
                if (real == width * W) {
                    multiply_tile<T, false>(width, n, K, from, K, b, to, c_row, W, accumulate);
                    continue;
                }
                if (accumulate)
                    for (int r = 0; r < n; r++)
                        std::memcpy(edge + r * width * W, to + r * c_row, real * sizeof(T));
                multiply_tile<T, false>(width, n, K, from, K, b, edge, width * W, W, accumulate);
                for (int r = 0; r < n; r++)
                    std::memcpy(to + r * c_row, edge + r * width * W, real * sizeof(T));
            }
        v += width;
    }
}

// Pack B [K, N] into the panels that multiply_rows expects for these vectors.
template <class T>
void pack_rows(std::int64_t K, const Matrix<const T> &B, std::int64_t N, std::int64_t first_vector,
               std::int64_t end_vector, T *packed) {
    constexpr int W = lanes<T>;
    std::int64_t count = (end_vector - first_vector + max_vectors - 1) / max_vectors;
    std::int64_t v = first_vector;
    for (std::int64_t p = 0; p < count; p++) {
        int width = static_cast<int>((end_vector - v + count - p - 1) / (count - p));
        pack_panel(K, B, v * W, std::min<std::int64_t>(width * W, N - v * W), width,
                   packed + v * W * K);
        v += width;
    }
}

template <class T> void recurrence_forward(const Forward<T> &f) {
    constexpr int W = lanes<T>;
    const Cell &cell = *f.cell;
    const std::int64_t B = f.batch, H = f.hidden, P = f.projected;
    Layout<T> layout(cell, f.steps, B, H, P, f.lengths, f.reverse, f.weight_hr != nullptr);
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

    static thread_local Scratch weight_scratch, projection_scratch;
    T *packed = weight_scratch.get<T>(layout.vectors() * W * layout.gates * P + 1);
    T *projection = nullptr;
    std::int64_t p_vectors = (P + W - 1) / W;
    for (int part = 0; part < (layout.share_units ? layout.threads : 1); part++)
        for (std::int64_t v = layout.first_vector(part); v < layout.end_vector(part);
             v += layout.sub)
            pack_forward(
                layout, f.weight_hh, packed, v,
                static_cast<int>(std::min<std::int64_t>(layout.sub, layout.end_vector(part) - v)));
    if (f.weight_hr != nullptr) {
        projection = projection_scratch.get<T>(p_vectors * W * H);
        pack_rows(H, Matrix<const T>{f.weight_hr, 1, H}, P, 0, p_vectors, projection);
    }
    Barrier barrier(layout.threads);

    layout.run([&](int part) {
        static thread_local Scratch tile_scratch, half_scratch;
        const int height = layout.max_tile();
        Tiles<T> values(cell.forward, layout.sub * height, tile_scratch);
        T *halves = half_scratch.get<T>(std::max(1, layout.gates * layout.sub) * height * W);
        const auto state0 = static_cast<std::int32_t>(cell.gates.size());
        std::vector<typename Layout<T>::Tile> tiles;
        std::vector<std::int64_t> input_row(B); // of each position, among the T*B of the input

        for (std::int64_t t = 0; t < f.steps; t++) {
            layout.tiles_of(part, t, tiles);
            for (const auto &tile : tiles) {
                for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    input_row[p] = layout.input_step(p, t) * B + layout.rows[p];
                if (part > 0 && layout.share_units)
                    continue;
                // Rows that have ended keep their state; the output beyond them is 0.
                for (std::int64_t p = tile.first + tile.rows; p < tile.end; p++) {
                    for (int k = 0; k < cell.states; k++) {
                        std::int64_t size = k == 0 ? P : H;
                        std::memcpy(f.states[k] + ((t + 1) * B + p) * size,
                                    f.states[k] + (t * B + p) * size, size * sizeof(T));
                    }
                    std::fill_n(f.output + (t * B + layout.rows[p]) * P, P, T(0));
                    if (f.unprojected != nullptr)
                        std::fill_n(f.unprojected + (t * B + p) * H, H, T(0));
                    for (int n = 0; n < f.named_count; n++)
                        std::fill_n(f.record[n] + (t * B + layout.rows[p]) * H, H, T(0));
                }
            }

            for (std::int64_t v = layout.first_vector(part); v < layout.end_vector(part);
                 v += layout.sub) {
                const int sub = static_cast<int>(
                    std::min<std::int64_t>(layout.sub, layout.end_vector(part) - v));
                const std::int64_t unit = v * W, units = std::min<std::int64_t>(sub * W, H - unit);
                const int chunks = layout.chunks(sub);
                for (const auto &tile : tiles) {
                    const int rows = tile.rows;
                    if (rows == 0)
                        continue;
                    const std::int64_t at = t * B + tile.first; // among the [T, B] of positions
                    const std::int64_t *in = input_row.data() + tile.first;

                    if (f.saved != nullptr)
                        for (std::size_t s = 0; s < cell.saved.size(); s++)
                            values.place(cell.saved[s],
                                         f.saved + layout.saved_at(t, tile.number, v) +
                                             static_cast<std::int64_t>(s) * sub * rows * W);

                    // The recurrent halves of all gates: [gates, sub, rows, lanes].
                    for (int c = 0, done = 0; c < chunks; c++) {
                        int width = layout.chunk_width(c, chunks, sub);
                        multiply_tile<T, false>(width, rows, P, f.states[0] + at * P, P,
                                                packed + (v * layout.gates + done) * W * P,
                                                halves + done * rows * W, W, rows * W, false);
                        done += width;
                    }
                    for (std::int32_t g = 0; g < state0; g++) {
                        auto [x, h] = cell.gates[g];
                        T *value = values[g];
                        if (x >= 0)
                            gather(value,
                                   Rows<const T>{f.x_gates + x * H + unit, cell.x_blocks * H, in},
                                   rows, sub, units);
                        if (h < 0)
                            continue;
                        const T *half = halves + h * sub * rows * W;
                        alignas(64) T bias[max_vectors * W] = {};
                        if (f.bias_hh != nullptr)
                            std::memcpy(bias, f.bias_hh + h * H + unit, units * sizeof(T));
                        for (int s = 0; s < sub; s++) {
                            Vector<T> b = load(bias + s * W);
                            for (int n = s * rows * W; n < (s + 1) * rows * W; n += W) {
                                Vector<T> sum = load(half + n) + b;
                                store(value + n, x >= 0 ? load(value + n) + sum : sum);
                            }
                        }
                    }
                    for (int k = 0; k < cell.states; k++)
                        if (read[state0 + k])
                            gather(values[state0 + k],
                                   Rows<const T>{f.states[k] + at * H + unit, H, nullptr}, rows,
                                   sub, units);
                    for (int k = 0; k < cell.parameters; k++)
                        gather(values[state0 + cell.states + k],
                               Rows<const T>{f.parameters[k] + unit, 0, nullptr}, rows, sub, units);

                    values.run(sub * rows);

                    for (int k = 0; k < cell.states; k++) {
                        T *to = k == 0 && f.unprojected != nullptr ? f.unprojected + at * H
                                                                   : f.states[k] + (at + B) * H;
                        scatter(values[cell.forward.outputs[k]], Rows<T>{to + unit, H, nullptr},
                                rows, sub, units);
                    }
                    if (f.unprojected == nullptr)
                        scatter(values[cell.forward.outputs[0]], Rows<T>{f.output + unit, H, in},
                                rows, sub, units);
                    for (int n = 0; n < f.named_count; n++)
                        scatter(values[f.named[n]], Rows<T>{f.record[n] + unit, H, in}, rows, sub,
                                units);
                }
            }
            if (f.unprojected != nullptr) {
                T *to = f.states[0] + (t + 1) * B * P;
                multiply_rows<T>(tiles, H, f.unprojected + t * B * H, projection, 0, p_vectors, P,
                                 to, P, false);
                for (const auto &tile : tiles)
                    for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                        std::memcpy(f.output + input_row[p] * P, to + p * P, P * sizeof(T));
            }
            if (layout.share_units)
                barrier.wait();
        }
    });
}

template <class T>
std::int64_t recurrence_saved(const Cell &cell, std::int64_t T_, std::int64_t B, std::int64_t H,
                              std::int64_t P) {
    return Layout<T>(cell, T_, B, H, P, nullptr, false, false).saved_size();
}

template <class T> void recurrence_backward(const Backward<T> &f) {
    constexpr int W = lanes<T>;
    const Cell &cell = *f.cell;
    const std::int64_t B = f.batch, H = f.hidden, P = f.projected;
    const std::int64_t gates_size = static_cast<std::int64_t>(cell.h_blocks) * H;
    Layout<T> layout(cell, f.steps, B, H, P, f.lengths, f.reverse, f.weight_hr != nullptr);

    static thread_local Scratch weight_scratch, projection_scratch;
    std::int64_t p_vectors = (P + W - 1) / W, h_vectors = layout.vectors();
    T *packed = weight_scratch.get<T>(p_vectors * W * gates_size + 1), *projection = nullptr;
    for (int part = 0; part < (layout.share_units ? layout.threads : 1); part++)
        if (gates_size > 0)
            pack_rows(gates_size, Matrix<const T>{f.weight_hh, P, 1}, P,
                      layout.share_units ? layout.first_vector(part) : 0,
                      layout.share_units ? layout.end_vector(part) : p_vectors, packed);
    if (f.weight_hr != nullptr) {
        projection = projection_scratch.get<T>(h_vectors * W * P);
        pack_rows(P, Matrix<const T>{f.weight_hr, H, 1}, H, 0, h_vectors, projection);
    }
    Barrier barrier(layout.threads);

    layout.run([&](int part) {
        static thread_local Scratch tile_scratch, row_scratch;
        const int height = layout.max_tile();
        Tiles<T> values(cell.backward, layout.sub * height, tile_scratch);
        const int saved_count = static_cast<int>(cell.saved.size());
        const int gate_count = static_cast<int>(cell.gates.size());
        T *d_unprojected = f.weight_hr == nullptr ? nullptr : row_scratch.get<T>(B * h_vectors * W);
        std::vector<typename Layout<T>::Tile> tiles;
        std::vector<std::int64_t> input_row(B);

        for (std::int64_t t = f.steps - 1; t >= 0; t--) {
            layout.tiles_of(part, t, tiles);
            for (const auto &tile : tiles) {
                for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    input_row[p] = layout.input_step(p, t) * B + layout.rows[p];
                if (part > 0 && layout.share_units)
                    continue;
                for (std::int64_t p = tile.first + tile.rows; p < tile.end; p++) {
                    std::fill_n(f.d_x_gates + (t * B + layout.rows[p]) * cell.x_blocks * H,
                                cell.x_blocks * H, T(0));
                    if (gates_size > 0)
                        std::fill_n(f.d_h_gates + (t * B + p) * gates_size, gates_size, T(0));
                    if (f.d_projected != nullptr)
                        std::fill_n(f.d_projected + (t * B + p) * P, P, T(0));
                }
            }
            if (f.weight_hr != nullptr) {
                T *d = f.d_projected + t * B * P;
                for (const auto &tile : tiles)
                    for (std::int64_t p = tile.first; p < tile.first + tile.rows; p++)
                        for (std::int64_t k = 0; k < P; k++) {
                            T &state = f.d_states[0][p * P + k];
                            T out = f.d_output == nullptr ? T(0) : f.d_output[input_row[p] * P + k];
                            d[p * P + k] = state + out;
                            state = 0;
                        }
                multiply_rows<T>(tiles, P, d, projection, 0, h_vectors, h_vectors * W,
                                 d_unprojected, h_vectors * W, false);
            }

            for (std::int64_t v = layout.first_vector(part); v < layout.end_vector(part);
                 v += layout.sub) {
                const int sub = static_cast<int>(
                    std::min<std::int64_t>(layout.sub, layout.end_vector(part) - v));
                const std::int64_t unit = v * W, units = std::min<std::int64_t>(sub * W, H - unit);
                for (const auto &tile : tiles) {
                    const int rows = tile.rows;
                    if (rows == 0)
                        continue;
                    const std::int64_t at = t * B + tile.first;
                    const std::int64_t *in = input_row.data() + tile.first;

                    for (int s = 0; s < saved_count; s++)
                        values.place(s, const_cast<T *>(f.saved) +
                                            layout.saved_at(t, tile.number, v) +
                                            static_cast<std::int64_t>(s) * sub * rows * W);
                    for (int k = 0; k < cell.states; k++) {
                        T *value = values[saved_count + k];
                        if (k == 0 && f.weight_hr != nullptr) {
                            gather(value,
                                   Rows<const T>{d_unprojected + tile.first * h_vectors * W + unit,
                                                 h_vectors * W, nullptr},
                                   rows, sub, units);
                            continue;
                        }
                        gather(value,
                               Rows<const T>{f.d_states[k] + tile.first * H + unit, H, nullptr},
                               rows, sub, units);
                        if (k > 0 || f.d_output == nullptr)
                            continue;
                        alignas(64) T more[max_rows * max_vectors * W];
                        gather(more, Rows<const T>{f.d_output + unit, H, in}, rows, sub, units);
                        for (int n = 0; n < sub * rows * W; n += W)
                            store(value + n, load(value + n) + load(more + n));
                    }

                    values.run(sub * rows);

                    for (int g = 0; g < gate_count; g++) {
                        auto [x, h] = cell.gates[g];
                        const T *value = values[cell.backward.outputs[g]];
                        if (x >= 0)
                            scatter(value,
                                    Rows<T>{f.d_x_gates + x * H + unit, cell.x_blocks * H, in},
                                    rows, sub, units);
                        if (h >= 0 && f.d_h_gates != f.d_x_gates)
                            scatter(value,
                                    Rows<T>{f.d_h_gates + at * gates_size + h * H + unit,
                                            gates_size, nullptr},
                                    rows, sub, units);
                    }
                    for (int k = f.weight_hr != nullptr; k < cell.states; k++)
                        scatter(values[cell.backward.outputs[gate_count + k]],
                                Rows<T>{f.d_states[k] + tile.first * H + unit, H, nullptr}, rows,
                                sub, units);
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
            if (gates_size > 0)
                multiply_rows<T>(tiles, gates_size, f.d_h_gates + t * B * gates_size, packed,
                                 layout.share_units ? layout.first_vector(part) : 0,
                                 layout.share_units ? layout.end_vector(part) : p_vectors, P,
                                 f.d_states[0], P, true);
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
