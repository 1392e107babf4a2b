// The layout of a recurrence: which rows and units form a tile, which thread works on it, and where
// the weights and saved values of a tile are stored.
#pragma once

#include "matrix.h"

#include <vector>

namespace anaphora::ANAPHORA_ISA {

// A range of steps of a recurrence, and its number of active rows.
struct Span {
    std::int64_t first, end, rows;
};

// How the work is divided: rows are sorted by descending length and cut into tiles, units into
// blocks. Threads share either rows, which needs no synchronisation, or, without a projection,
// units: each then keeps its share of the weights in its cache, and all synchronise at every step.
template <class T> struct Layout {
    static constexpr int W = lanes<T>;
    const Cell &cell;
    std::int64_t steps, batch, hidden, projected;
    std::vector<std::int64_t> rows;   // [B] the row of the batch at each position
    std::vector<std::int64_t> length; // [B] at each position
    std::vector<std::int64_t> active; // [T] the number of positions that are active at step t
    std::vector<std::int64_t> offset; // [T+1] the prefix sums of `active`
    bool ragged, reverse, share_units;
    int threads, groups; // groups of rows, see group_of
    std::int64_t tiles, min_tiles;
    int gates, sub; // Gh, and vectors of units in a block
    int fixed_rows; // of a tile, or 0: whatever multiply-adds favour

    // `tile_rows_`: the maximum number of rows of a tile that is one vector wide, or 0 for the one
    // that multiply-adds favour. `tiles_`: the number of tiles, or 0 to choose it.
    Layout(const Cell &c, std::int64_t T_, std::int64_t B, std::int64_t H, std::int64_t P,
           const std::int64_t *lengths, bool reverse_, bool has_projection, int tile_rows_,
           std::int64_t tiles_)
        : cell(c), steps(T_), batch(B), hidden(H), projected(P), rows(B), length(B, T_),
          active(T_, B), offset(T_ + 1, 0), ragged(lengths != nullptr), reverse(reverse_),
          gates(c.h_blocks), fixed_rows(tile_rows_) {
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
        for (std::int64_t t = 0; t < T_; t++)
            offset[t + 1] = offset[t] + active[t];
        sub = vectors_in_block(W);
        std::int64_t weights = static_cast<std::int64_t>(gates) * H * P;
        std::int64_t work = B * (weights + 64 * H);
        threads = work < 100000 ? 1 : available_threads();
        share_units = !has_projection && threads > 1 &&
                      (B < 2 * threads || weights * std::int64_t(sizeof(T)) > cached_bytes);
        if (share_units)
            threads = static_cast<int>(std::min<std::int64_t>(threads, blocks()));
        else
            threads =
                static_cast<int>(std::min<std::int64_t>(threads, std::max<std::int64_t>(B, 1)));
        // Rows are grouped by the shape alone, as the tiles of AVX-512 would be, so that sums over
        // the rows of a group, and then over groups, are the same for any number of threads and on
        // any instruction set.
        groups = B >= 4 && weights * std::int64_t(sizeof(T)) <= cached_bytes ? 2 : 1;
        const std::int64_t height =
            max_tile_rows(64 / sizeof(T), [](int v) { return v == 4 ? 6 : 8; });
        min_tiles = ((B + height - 1) / height + groups - 1) / groups * groups;
        tiles = tiles_ == 0 ? best_tiles() : tiles_;
    }

    // The number of vectors of units in a block, given the number of lanes.
    int vectors_in_block(std::int64_t lanes) const {
        const int limit = gates > 2 || fixed_rows > 0 ? 1 : gates == 2 ? 2 : 4;
        return static_cast<int>(std::clamp<std::int64_t>((hidden + lanes - 1) / lanes, 1, limit));
    }

    // The maximum number of rows of a tile; rows_of gives it for a number of vectors.
    template <class F> std::int64_t max_tile_rows(std::int64_t lanes, F rows_of) const {
        if (fixed_rows > 0)
            return fixed_rows;
        const int in_block = vectors_in_block(lanes);
        const int rows = rows_of(std::max(1, chunk_width(0, gates * in_block)));
        return std::max(tile_vectors / (rows * in_block) * rows, rows);
    }

    // The multiple of min_tiles that minimises the time of the busiest thread, among those whose
    // tiles are not too large. The overhead of a tile is about that of two rows, with tile
    // registers of eight.
    std::int64_t best_tiles() const {
        const std::int64_t max_height =
            max_tile_rows(W, [](int vectors) { return tile_rows(vectors); });
        std::int64_t best = 0, best_time = 0;
        for (std::int64_t n = min_tiles; n > 0 && n <= batch; n += min_tiles) {
            if ((batch + n - 1) / n > max_height)
                continue;
            std::int64_t busiest = 0;
            for (std::int64_t thread = 0; thread < threads; thread++) {
                std::int64_t time = 0;
                for (std::int64_t k = thread; k < n; k += threads)
                    time += batch * (k + 1) / n - batch * k / n + (fixed_rows > 0 ? 8 : 2);
                busiest = std::max(busiest, time);
            }
            if (best == 0 || (!share_units && busiest < best_time)) {
                best = n;
                best_time = busiest;
            }
            if (share_units || n >= 8 * (threads + batch / max_height))
                break;
        }
        return best;
    }

    // A tile has as many vectors as one instruction of a program processes at a time: enough to
    // amortise the dispatch, few enough for all values to stay in L1.
    static constexpr int tile_vectors = 24;

    int largest_tile() const {
        return tiles == 0 ? 1 : static_cast<int>((batch + tiles - 1) / tiles);
    }
    std::int64_t tile_begin(std::int64_t tile) const { return batch * tile / tiles; }

    // The group of a tile. With as many threads as groups, each thread has the tiles of one group.
    int group_of(std::int64_t tile) const {
        return static_cast<int>(tile / std::max<std::int64_t>(1, tiles / min_tiles) % groups);
    }

    // A tile of one thread at step t: its positions, its number of active rows, and where these
    // start among the rows to be multiplied.
    struct Tile {
        std::int64_t number, first, end;
        int rows;
        std::int64_t row;
    };
    int rows_of(std::int64_t tile, std::int64_t t) const {
        std::int64_t first = tile_begin(tile), end = tile_begin(tile + 1);
        return static_cast<int>(std::clamp<std::int64_t>(active[t] - first, 0, end - first));
    }
    void tiles_of(int thread, std::int64_t t, std::vector<Tile> &list) const {
        list.clear();
        for (std::int64_t k = share_units ? 0 : thread; k < tiles; k += share_units ? 1 : threads) {
            std::int64_t first = tile_begin(k), end = tile_begin(k + 1);
            list.push_back({k, first, end, rows_of(k, t), first});
        }
    }

    // The row of the input, among T*B, that position p reads at its step t.
    std::int64_t input_row(std::int64_t p, std::int64_t t) const {
        return (reverse ? length[p] - 1 - t : t) * batch + rows[p];
    }
    // Whether that differs from t * B + p.
    bool indexed() const { return ragged || reverse; }

    // The index of position p at step t among the active rows of a span, in the order of steps.
    std::int64_t row(const Span &span, std::int64_t t, std::int64_t p) const {
        return offset[t] - offset[span.first] + p;
    }
    template <class F> void for_each_row(const Span &span, F f) const {
        parallel(span.end - span.first, [&](std::int64_t k) {
            std::int64_t t = span.first + k;
            for (std::int64_t p = 0; p < active[t]; p++)
                f(row(span, t, p), p, t);
        });
    }

    // Whether a step multiplies its input by the weights itself, instead of a span at a time: where
    // they fit into a core's cache beside the recurrent ones, since the gates of the input then
    // never leave the cache, nor the thread that works on their rows.
    bool input_in_step(std::int64_t inputs, std::int64_t weight_bytes) const {
        std::int64_t numbers = hidden * (cell.x_blocks * inputs + cell.h_blocks * projected);
        return !share_units && numbers * weight_bytes <= cached_bytes;
    }

    // Call f(span) once for all steps; or, where a span at a time is multiplied by the input
    // weights, for spans of so many rows that their gates stay in the cache, but not so few that
    // the gradient of the weights costs more to load than to compute. Steps at which no row is
    // active do not move the boundaries.
    template <class F> void for_each_span(bool with_weights, bool backwards, F f) const {
        std::int64_t count = 1, valid = steps;
        while (valid > 0 && active[valid - 1] == 0)
            valid--;
        if (with_weights) {
            std::int64_t size = std::max<std::int64_t>(1, cell.x_blocks * hidden);
            std::int64_t min_rows = (std::int64_t{1} << 20) / (size * std::int64_t(sizeof(T)));
            std::int64_t wanted = std::max<std::int64_t>({1, min_rows, 4 * hidden});
            count = std::max<std::int64_t>(1, std::min(valid, offset[steps] / wanted));
        }
        for (std::int64_t k = 0; k < count; k++) {
            std::int64_t number = backwards ? count - 1 - k : k;
            Span span{valid * number / count, valid * (number + 1) / count, 0};
            if (number + 1 == count)
                span.end = steps;
            span.rows = offset[span.end] - offset[span.first];
            f(span);
        }
    }

    std::int64_t vectors() const { return (hidden + W - 1) / W; }
    std::int64_t blocks() const { return (vectors() + sub - 1) / sub; }
    std::int64_t first_vector(int thread) const {
        return share_units ? blocks() * thread / threads * sub : 0;
    }
    std::int64_t end_vector(int thread) const {
        return share_units ? std::min(vectors(), blocks() * (thread + 1) / threads * sub)
                           : vectors();
    }

    // The blocks of units of one thread, in an order that alternates from step to step: what was
    // used last, and may still be cached, comes first.
    std::int64_t blocks_of(int thread) const {
        return (end_vector(thread) - first_vector(thread) + sub - 1) / sub;
    }
    int block_size(int thread, std::int64_t vector) const {
        return static_cast<int>(std::min<std::int64_t>(sub, end_vector(thread) - vector));
    }
    std::int64_t block_vector(int thread, std::int64_t number, std::int64_t t) const {
        return first_vector(thread) + (t % 2 == 0 ? number : blocks_of(thread) - 1 - number) * sub;
    }

    // What a step saves for the backward pass is stored tile by tile, in the order in which it is
    // read: [tiles, saved_size()].
    std::int64_t saved_block() const {
        return static_cast<std::int64_t>(cell.saved.size()) * sub * largest_tile() * W;
    }
    std::int64_t saved_size() const { return steps * blocks() * saved_block(); }
    std::int64_t saved_at(std::int64_t t, std::int64_t tile, std::int64_t vector) const {
        return ((tile * steps + t) * blocks() + vector / sub) * saved_block();
    }

    // The halves of a block, of `total` vectors, are computed in chunks of at most 4.
    static int chunks(int total) { return (total + max_vectors - 1) / max_vectors; }
    static int chunk_width(int chunk, int total) {
        int of = chunks(total);
        return of == 0 ? 0 : total / of + (chunk < total % of);
    }

    // Run body(thread) for every thread; concurrently where threads synchronise.
    template <class F> void run(F body) {
        if (share_units)
            run_concurrently(threads, body);
        else
            parallel(threads, [&](std::int64_t thread) { body(static_cast<int>(thread)); });
    }
};

// The order of the rows of a span in the backward pass: group by group, in each from the first step
// to the last.
template <class T> class GroupedRows {
  public:
    GroupedRows(const Layout<T> &layout, const Span &span, int groups)
        : layout_(layout), span_(span), starts_((span.end - span.first) * layout.tiles),
          first_(groups + 1) {
        std::int64_t row = 0;
        for (int g = 0; g < groups; g++) {
            first_[g] = row;
            for (std::int64_t t = span.first; t < span.end; t++)
                for (std::int64_t k = 0; k < layout.tiles; k++)
                    if (groups == 1 || layout.group_of(k) == g) {
                        starts_[(t - span.first) * layout.tiles + k] = row;
                        row += layout.rows_of(k, t);
                    }
        }
        first_[groups] = row;
    }

    std::int64_t row(std::int64_t t, std::int64_t tile) const {
        return starts_[(t - span_.first) * layout_.tiles + tile];
    }
    int groups() const { return static_cast<int>(first_.size()) - 1; }
    std::int64_t first(int group) const { return first_[group]; }
    std::int64_t size(int group) const { return first_[group + 1] - first_[group]; }

    // f(row within the group, position, step) for each row of a group.
    template <class F> void for_each_row(int group, F f) const {
        parallel(span_.end - span_.first, [&](std::int64_t step) {
            const std::int64_t t = span_.first + step;
            for (std::int64_t k = 0; k < layout_.tiles; k++)
                if (groups() == 1 || layout_.group_of(k) == group)
                    for (int r = 0; r < layout_.rows_of(k, t); r++)
                        f(row(t, k) + r - first(group), layout_.tile_begin(k) + r, t);
        });
    }

  private:
    const Layout<T> &layout_;
    Span span_;
    std::vector<std::int64_t> starts_, first_;
};

// Pack the weights [count*H, K] of `count` gates for the forward pass: for each block of units,
// chunk by chunk, [K, chunk vectors * lanes].
template <class T>
void pack_gates(const Layout<T> &layout, int count, std::int64_t K, const T *weight, T *packed) {
    constexpr int W = lanes<T>;
    constexpr std::int64_t step =
        64 / sizeof(T); // columns of a row at a time, so that source and destination stay in L1
    for (int thread = 0; thread < (layout.share_units ? layout.threads : 1); thread++)
        parallel(count == 0 ? 0 : layout.blocks_of(thread), [&](std::int64_t block) {
            const std::int64_t first = layout.block_vector(thread, block, 0);
            const int sub = layout.block_size(thread, first), total = count * sub;
            T *to = packed + first * count * W * K;
            for (int c = 0, v = 0; c < layout.chunks(total); c++) {
                const int width = layout.chunk_width(c, total);
                for (std::int64_t k0 = 0; k0 < K; k0 += step)
                    for (int column = 0; column < width * W; column++) {
                        std::int64_t gate = (v + column / W) / sub;
                        std::int64_t unit = (first + (v + column / W) % sub) * W + column % W;
                        const T *from = weight + (gate * layout.hidden + unit) * K;
                        for (std::int64_t k = k0; k < std::min(K, k0 + step); k++)
                            to[k * width * W + column] = unit < layout.hidden ? from[k] : T(0);
                    }
                v += width;
                to += static_cast<std::int64_t>(width) * W * K;
            }
        });
}

// `count` rows cut into groups of at most `max_size`, as evenly as possible.
struct RowGroups {
    int left, groups, first = 0, rows = 0;

    RowGroups(int count, int max_size) : left(count), groups((count + max_size - 1) / max_size) {
        cut();
    }
    explicit operator bool() const { return rows > 0; }
    void next() {
        first += rows;
        groups--;
        cut();
    }

  private:
    void cut() {
        rows = groups == 0 ? 0 : (left + groups - 1) / groups;
        left -= rows;
    }
};

// halves [count * sub, rows, lanes] = a [rows, K] times the weights of a block packed by
// pack_gates.
template <class T>
void multiply_gates(int count, int sub, int rows, std::int64_t K, const T *a, const T *packed,
                    T *halves) {
    constexpr int W = lanes<T>;
    const int total = count * sub;
    for (int c = 0, done = 0; c < Layout<T>::chunks(total); c++) {
        const int width = Layout<T>::chunk_width(c, total);
        for (RowGroups group(rows, tile_rows(width)); group; group.next())
            multiply_tile<T, Operands::cached_rows>(
                width, group.rows, K, a + group.first * K, K, packed + done * W * K,
                halves + (done * rows + group.first) * W, W, rows * W, false);
        done += width;
    }
}

// For each tile: [rows, columns] (+)= a [rows, K] times the packed panels of a range of vectors. A
// panel is used for all tiles while it is cached; `backwards` starts with the last panel.
template <class T>
void multiply_rows(const std::vector<typename Layout<T>::Tile> &tiles, std::int64_t K, const T *a,
                   const T *packed, std::int64_t first_vector, std::int64_t end_vector,
                   std::int64_t columns, T *c, std::int64_t c_row, bool accumulate,
                   bool backwards) {
    constexpr int W = lanes<T>;
    Panels<T> panels((end_vector - first_vector) * W);
    alignas(64) T edge[max_rows * max_vectors * W];
    for (std::int64_t n = 0; n < panels.count; n++) {
        std::int64_t p = backwards ? panels.count - 1 - n : n;
        int width = panels.width(p);
        std::int64_t begin = (first_vector + panels.first(p)) * W;
        std::int64_t valid = std::min<std::int64_t>(width * W, columns - begin);
        const T *b = packed + begin * K;
        for (const auto &tile : tiles)
            for (RowGroups group(tile.rows, tile_rows(width)); group; group.next()) {
                const int i = group.first, n = group.rows;
                const T *from = a + (tile.row + i) * K;
                T *to = c + (tile.first + i) * c_row + begin;
                if (valid == width * W) {
                    multiply_tile<T, Operands::cached_rows>(width, n, K, from, K, b, to, c_row, W,
                                                            accumulate);
                    continue;
                }
                if (accumulate)
                    for (int r = 0; r < n; r++)
                        std::memcpy(edge + r * width * W, to + r * c_row, valid * sizeof(T));
                multiply_tile<T, Operands::cached_rows>(width, n, K, from, K, b, edge, width * W, W,
                                                        accumulate);
                for (int r = 0; r < n; r++)
                    std::memcpy(to + r * c_row, edge + r * width * W, valid * sizeof(T));
            }
    }
}

// Pack B [K, N] into the panels that multiply_rows expects for this range of vectors.
template <class T>
void pack_rows(std::int64_t K, const Matrix<const T> &B, std::int64_t N, std::int64_t first_vector,
               std::int64_t end_vector, T *packed) {
    constexpr int W = lanes<T>;
    Panels<T> panels((end_vector - first_vector) * W);
    parallel(panels.count, [&](std::int64_t p) {
        std::int64_t begin = (first_vector + panels.first(p)) * W;
        int width = panels.width(p);
        pack_panel(K, B, begin, std::min<std::int64_t>(width * W, N - begin), width,
                   packed + begin * K);
    });
}

// How a recurrence multiplies: by FMA chains. (FixedProducts is the alternative.)
template <class T> struct ChainProducts {
    static constexpr std::int64_t weight_bytes = sizeof(T); // of a packed number
    static constexpr int tile_rows = 0; // of a layout: as many as multiply-adds favour
    // Whether a step may multiply inputs of this size with Gates, and gradients of this many gates
    // with Columns, with the same bits as the product over a span.
    static bool applies_to_gates(std::int64_t) { return true; }
    static bool applies_to_columns(std::int64_t) { return true; }

    // C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none)
    static void multiply(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                         Matrix<const T> B, T *C, std::int64_t c_row, const T *bias,
                         bool accumulate) {
        ANAPHORA_ISA::multiply<T>(M, N, K, A, B, C, c_row, bias, accumulate);
    }

    // The weights [count*H, K] of `count` gates, packed for a layout's blocks of units.
    class Gates {
      public:
        Gates(const Layout<T> &layout, int count, std::int64_t K, const T *weight, Scratch &scratch)
            : count_(count), K_(K),
              packed_(scratch.get<T>(layout.vectors() * lanes<T> * count * K + 1)) {
            pack_gates(layout, count, K, weight, packed_);
        }

        // The rows that a thread multiplies by the gates; it stays on its thread.
        class LeftOperand {
          public:
            LeftOperand(const Gates &gates, const Layout<T> &, Scratch &) : gates_(gates) {}
            // Select the rows of these tiles, position p at a + p * K.
            void read(const std::vector<typename Layout<T>::Tile> &, const T *a) { a_ = a; }
            // halves [count * sub, rows, lanes] = the rows of tile n times the weights of the block
            // of units that starts at this vector.
            void multiply(std::size_t, const typename Layout<T>::Tile &tile, std::int64_t vector,
                          int sub, T *halves) const {
                const std::int64_t K = gates_.K_;
                multiply_gates(gates_.count_, sub, tile.rows, K, a_ + tile.first * K,
                               gates_.packed_ + vector * gates_.count_ * lanes<T> * K, halves);
            }

          private:
            const Gates &gates_;
            const T *a_ = nullptr;
        };

      private:
        int count_;
        std::int64_t K_;
        T *packed_;
    };

    // The same for gradients.
    static void multiply(Gradient, std::int64_t M, std::int64_t N, std::int64_t K,
                         Matrix<const T> A, Matrix<const T> B, T *C, std::int64_t c_row,
                         bool accumulate) {
        ANAPHORA_ISA::multiply<T>(M, N, K, A, B, C, c_row, nullptr, accumulate);
    }

    // The columns of a weight B [K, N], packed; `shares` are the vectors at which the shares of
    // threads begin and end, from 0 to the last.
    class Columns {
      public:
        Columns(std::int64_t K, std::int64_t N, Matrix<const T> B,
                const std::vector<std::int64_t> &shares, Scratch &scratch)
            : K_(K), N_(N), packed_(scratch.get<T>(shares.back() * lanes<T> * K + 1)) {
            for (std::size_t n = 0; n + 1 < shares.size() && K > 0; n++)
                pack_rows(K, B, N, shares[n], shares[n + 1], packed_);
        }

        // The rows that a thread multiplies by these columns, or by others of the same K; it stays
        // on its thread.
        class LeftOperand {
          public:
            LeftOperand(const Columns &columns, std::int64_t /* row_count */, Scratch &)
                : K_(columns.K_) {}
            // Select the rows of these tiles, at tile.row in a [., K].
            void read(const std::vector<typename Layout<T>::Tile> &tiles, const T *a) {
                tiles_ = &tiles;
                a_ = a;
            }
            // c, by position, (+)= these rows times a range of vectors of columns; `backwards`
            // starts with the last.
            void multiply(const Columns &columns, std::int64_t first_vector,
                          std::int64_t end_vector, T *c, std::int64_t c_row, bool accumulate,
                          bool backwards) const {
                multiply_rows<T>(*tiles_, K_, a_, columns.packed_, first_vector, end_vector,
                                 columns.N_, c, c_row, accumulate, backwards);
            }

          private:
            std::int64_t K_;
            const std::vector<typename Layout<T>::Tile> *tiles_ = nullptr;
            const T *a_ = nullptr;
        };

      private:
        std::int64_t K_, N_;
        T *packed_;
    };
};

} // namespace anaphora::ANAPHORA_ISA
