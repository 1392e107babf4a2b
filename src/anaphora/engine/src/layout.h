// The layout of a recurrence: which rows and units make a tile, who works on it, and where the
// weights and the saved values of a tile lie.
#pragma once

#include "matrix.h"

#include <vector>

namespace anaphora::ANAPHORA_ISA {

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

} // namespace anaphora::ANAPHORA_ISA
