// Who does what in a recurrence: which rows and units form a tile, which thread works on it, which
// steps are computed together. Integers only; the same for all instruction sets but for their
// sizes.
#pragma once

#include "format.h"
#include "pool.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace anaphora {

// Weights of up to this size stay in a core's L2 cache.
inline constexpr std::int64_t cached_bytes = 3 << 19;

// Registers: an accumulator tile of some rows by up to 4 vectors, these vectors of B, and a
// broadcast of A.
inline constexpr int max_vectors = 4;
inline constexpr int max_rows = 8;
inline constexpr int rows_in_registers(bool many_registers, int vectors) {
    return many_registers ? (vectors == 4 ? 6 : 8) : (vectors == 4 ? 2 : vectors == 3 ? 3 : 5);
}

// A tile has about as many vectors as one instruction of a program processes at a time: enough to
// amortise the dispatch, few enough for all values to stay in L1.
inline constexpr int tile_vectors = 24;

// `count` things cut into parts as evenly as possible, the larger ones first.
struct Parts {
    std::int64_t parts, smaller, larger; // the size of the smaller ones; the number of larger ones

    // Into parts of at most `largest`.
    static Parts of(std::int64_t count, std::int64_t largest) {
        if (count <= largest) // most calls, some of them in a step
            return {count > 0, count, 0};
        const std::int64_t parts = (count + largest - 1) / largest;
        return {parts, count / parts, count % parts};
    }
    std::int64_t first(std::int64_t part) const { return part * smaller + std::min(part, larger); }
    int size(std::int64_t part) const { return static_cast<int>(smaller + (part < larger)); }
    std::int64_t count() const { return parts * smaller + larger; }
};

// Vectors of units whose gates are computed together, and the range of terms that they are sums of.
struct Block {
    std::int64_t first;
    int vectors;
    std::int64_t begin_term, end_term;
};

// Add blocks of at most `largest` vectors for vectors [first, end); all have K terms.
inline void add_blocks(std::vector<Block> &blocks, std::int64_t first, std::int64_t end,
                       int largest, std::int64_t K) {
    const Parts parts = Parts::of(end - first, largest);
    for (std::int64_t n = 0; n < parts.parts; n++)
        blocks.push_back({first + parts.first(n), parts.size(n), 0, K});
}

// The blocks of a block-diagonal weight of `units` units and `terms` terms in `heads` equal parts:
// the units of each part are sums over its terms alone (and zeros, where a block has units of two).
inline std::vector<Block> diagonal_blocks(std::int64_t units, std::int64_t terms,
                                          std::int64_t heads, int lanes, int largest) {
    std::vector<Block> blocks;
    add_blocks(blocks, 0, (units + lanes - 1) / lanes, largest, terms);
    for (Block &block : blocks) {
        const std::int64_t last = std::min((block.first + block.vectors) * lanes, units) - 1;
        block.begin_term = block.first * lanes / (units / heads) * (terms / heads);
        block.end_term = (last / (units / heads) + 1) * (terms / heads);
    }
    return blocks;
}

// A range of steps of a recurrence, and its number of active rows.
struct Span {
    std::int64_t first, end, rows;
};

// A tile of one thread at a step: its positions, its number of active rows, and where these start
// among the rows to be multiplied.
struct RowTile {
    std::int64_t number, first, end;
    int rows;
    std::int64_t row;
};

struct PlanSizes {
    std::int64_t steps, batch, hidden, projected; // T, B, H, P
    std::int64_t x_blocks, h_blocks;              // Gx, Gh
    bool projects = false;
    const std::int64_t *lengths = nullptr; // [B]
    bool reverse = false;
    Format format = Format::chain; // of the recurrent weights
    std::int64_t tiles = 0;        // their number, or 0 to choose it
};

// An instruction set, for one precision.
struct Machine {
    int lanes, bytes; // of a vector; of a number
    bool many_registers;
    int threads;
};

// How the work is divided: rows are sorted by descending length and cut into tiles, units into
// blocks. Threads share either rows, which needs no synchronisation, or, without a projection,
// units: each then keeps its share of the weights in its cache, and all synchronise at every step.
class Plan {
  public:
    std::int64_t steps, batch, hidden, projected;
    std::vector<std::int64_t> rows;   // [B] the row of the batch at each position
    std::vector<std::int64_t> length; // [B] at each position
    std::vector<std::int64_t> active; // [T] the number of positions that are active at step t
    std::vector<std::int64_t> offset; // [T+1] the prefix sums of `active`
    bool ragged, reverse, share_units;
    int threads, groups; // groups of rows, see group_of
    std::int64_t tiles, min_tiles;
    int sub;                   // vectors of units in a block, at most
    std::vector<Block> blocks; // of units

    Plan(const PlanSizes &s, const Machine &machine)
        : steps(s.steps), batch(s.batch), hidden(s.hidden), projected(s.projected),
          ragged(s.lengths != nullptr), reverse(s.reverse), sizes_(s), machine_(machine) {
        sort_rows();
        sub = vectors_in_block(machine.lanes);
        const std::int64_t weights = s.h_blocks * hidden * projected;
        const bool are_cached = weights * machine.bytes <= cached_bytes;
        // With less work than this a second thread takes longer to come than it saves.
        constexpr std::int64_t min_shared_work = 100000, work_of_unit = 64;
        threads = batch * (weights + work_of_unit * hidden) < min_shared_work ? 1 : machine.threads;
        share_units = !s.projects && threads > 1 && (batch < 2 * threads || !are_cached);
        add_blocks(blocks, 0, vectors(), sub, projected);
        const std::int64_t shared =
            share_units ? std::ssize(blocks) : std::max<std::int64_t>(batch, 1);
        threads = static_cast<int>(std::min<std::int64_t>(threads, shared));
        // Rows are grouped by the shape alone, as the tiles of AVX-512 would be, so that sums over
        // the rows of a group, and then over groups, are the same for any number of threads and on
        // any instruction set.
        groups = batch >= 4 && are_cached ? 2 : 1;
        const std::int64_t height = max_tile_rows(64 / machine.bytes, true);
        min_tiles = ((batch + height - 1) / height + groups - 1) / groups * groups;
        tiles = s.tiles == 0 ? best_tiles() : s.tiles;
    }

    // The rows of a tile at most.
    std::int64_t max_rows_of_tile() const {
        return max_tile_rows(machine_.lanes, machine_.many_registers);
    }
    int largest_tile() const {
        return tiles == 0 ? 1 : static_cast<int>((batch + tiles - 1) / tiles);
    }
    std::int64_t tile_begin(std::int64_t tile) const { return tile_begin(tile, tiles); }

    // The group of a tile. With as many threads as groups, each thread has the tiles of one group.
    int group_of(std::int64_t tile) const {
        return turn(tile / std::max<std::int64_t>(1, tiles / min_tiles), groups);
    }

    int rows_of(std::int64_t tile, std::int64_t t) const {
        std::int64_t first = tile_begin(tile), end = tile_begin(tile + 1);
        return static_cast<int>(std::clamp<std::int64_t>(active[t] - first, 0, end - first));
    }
    void tiles_of(int thread, std::int64_t t, std::vector<RowTile> &list) const {
        list.clear();
        const std::int64_t step = share_units ? 1 : threads;
        for (std::int64_t round = 0; round < tiles; round += step) {
            const std::int64_t k = share_units ? round : round + turn(round + thread, threads);
            if (k >= tiles)
                break;
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

    // Whether a step multiplies its input by weights of this format itself, instead of a span at a
    // time: where they fit into a core's cache beside the recurrent ones, since the gates of the
    // input then never leave the cache, nor the thread that works on their rows. For few rows it
    // takes longer to read the weights than to multiply: a span reads them once for several steps.
    bool input_in_step(std::int64_t inputs) const {
        constexpr std::int64_t few = 4;
        std::int64_t numbers = hidden * (sizes_.x_blocks * inputs + sizes_.h_blocks * projected);
        return !share_units && batch >= few &&
               numbers * packed_bytes(sizes_.format, machine_.bytes) <= cached_bytes;
    }
    // Whether the tiles suit gates of this format.
    bool suits(Format format) const { return format == Format::chain || format == sizes_.format; }

    // Call f(span) once for all steps; or, where a span at a time is multiplied by the input
    // weights, for spans of so many rows that their gates stay in the cache, but not so few that
    // the gradient of the weights costs more to load than to compute. Steps at which no row is
    // active do not move the boundaries.
    template <class F> void for_each_span(bool with_weights, bool backwards, F f) const {
        std::int64_t count = 1, valid = steps;
        while (valid > 0 && active[valid - 1] == 0)
            valid--;
        if (with_weights) {
            std::int64_t size = std::max<std::int64_t>(1, sizes_.x_blocks * hidden);
            std::int64_t min_rows = (std::int64_t{1} << 20) / (size * machine_.bytes);
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

    std::int64_t vectors() const { return (hidden + machine_.lanes - 1) / machine_.lanes; }
    // The blocks of units of one thread.
    std::int64_t first_block(int thread) const {
        return share_units ? std::ssize(blocks) * thread / threads : 0;
    }
    std::int64_t blocks_of(int thread) const {
        return share_units ? first_block(thread + 1) - first_block(thread) : std::ssize(blocks);
    }
    // They are used in an order that alternates from step to step: what was used last, and may
    // still be cached, comes first.
    std::int64_t block(int thread, std::int64_t number, std::int64_t t) const {
        return first_block(thread) + (t % 2 == 0 ? number : blocks_of(thread) - 1 - number);
    }
    // The columns of a weight with one column for each unit, such that no block has columns of two
    // threads; `ends`: the end of the blocks of each.
    std::vector<Block> shared_columns(std::int64_t K, std::vector<std::int64_t> &ends) const {
        std::vector<Block> columns;
        for (int thread = 0; thread < (share_units ? threads : 1); thread++) {
            const std::int64_t first = first_block(thread), end = first + blocks_of(thread);
            if (first < end)
                add_blocks(columns, blocks[first].first,
                           blocks[end - 1].first + blocks[end - 1].vectors, max_vectors, K);
            ends.push_back(std::ssize(columns));
        }
        return columns;
    }

    // What a step saves for the backward pass, `values` numbers a unit, is stored tile by tile, in
    // the order in which it is read: [tiles, saved_size(values)].
    std::int64_t saved_size(std::int64_t values) const {
        return steps * std::ssize(blocks) * saved_block(values);
    }
    std::int64_t saved_at(std::int64_t values, std::int64_t t, std::int64_t tile,
                          std::int64_t block) const {
        return ((tile * steps + t) * std::ssize(blocks) + block) * saved_block(values);
    }

    // Run body(thread) for every thread; concurrently where threads synchronise, at the barrier.
    template <class F> void run(Barrier &barrier, F body) const {
        if (share_units)
            run_concurrently(threads, barrier, body);
        else
            parallel(threads, [&](std::int64_t thread) { body(static_cast<int>(thread)); });
    }

  private:
    // Which of n has the tile number k: they take turns to and fro, since tiles have ever fewer
    // rows and steps. In a round of n the same maps who has a tile to its place.
    static int turn(std::int64_t k, int n) {
        const auto place = static_cast<int>(k % n);
        return k / n % 2 == 0 ? place : n - 1 - place;
    }

    // Where a tile begins, if there are so many: the rows are cut into min_tiles parts, and each
    // into as many parts as another, so that a group has the same rows for any number.
    std::int64_t tile_begin(std::int64_t tile, std::int64_t count) const {
        const std::int64_t each = std::max<std::int64_t>(1, count / min_tiles), part = tile / each;
        const Parts parts{min_tiles, batch / min_tiles, batch % min_tiles},
            of_part{each, parts.size(part) / each, parts.size(part) % each};
        return parts.first(part) + of_part.first(tile % each);
    }

    void sort_rows() {
        const std::int64_t *lengths = sizes_.lengths;
        rows.resize(batch);
        for (std::int64_t p = 0; p < batch; p++)
            rows[p] = p;
        length.assign(batch, steps);
        active.assign(steps, batch);
        offset.assign(steps + 1, 0);
        if (lengths != nullptr) {
            std::stable_sort(rows.begin(), rows.end(), [&](std::int64_t p, std::int64_t q) {
                return lengths[p] > lengths[q];
            });
            for (std::int64_t p = 0; p < batch; p++)
                length[p] = lengths[rows[p]];
            for (std::int64_t t = 0; t < steps; t++)
                while (active[t] > 0 && length[active[t] - 1] <= t)
                    active[t]--;
        }
        for (std::int64_t t = 0; t < steps; t++)
            offset[t + 1] = offset[t] + active[t];
    }

    // The number of vectors of units in a block, given the number of lanes.
    int vectors_in_block(std::int64_t lanes) const {
        const std::int64_t gates = sizes_.h_blocks;
        const int limit = gates > 2 || sizes_.format == Format::fixed ? 1 : gates == 2 ? 2 : 4;
        return static_cast<int>(std::clamp<std::int64_t>((hidden + lanes - 1) / lanes, 1, limit));
    }

    // The maximum number of rows of a tile.
    std::int64_t max_tile_rows(std::int64_t lanes, bool many_registers) const {
        if (const int rows = tile_rows_of(sizes_.format); rows > 0)
            return rows;
        const int in_block = vectors_in_block(lanes);
        const std::int64_t total = sizes_.h_blocks * in_block;
        const int width = total == 0 ? 1 : Parts::of(total, max_vectors).size(0);
        const int rows = rows_in_registers(many_registers, width);
        return std::max(tile_vectors / (rows * in_block) * rows, rows);
    }

    // The multiple of min_tiles that minimises the time of the busiest thread, among those whose
    // tiles are not too large. The overhead of a tile is about that of two rows, with tile
    // registers of eight.
    std::int64_t best_tiles() const {
        const std::int64_t max_height = max_rows_of_tile();
        const std::int64_t overhead = tile_rows_of(sizes_.format) > 0 ? 8 : 2;
        std::int64_t best = 0, best_time = 0;
        for (std::int64_t n = min_tiles; n > 0 && n <= batch; n += min_tiles) {
            if ((batch + n - 1) / n > max_height)
                continue;
            std::vector<std::int64_t> times(threads);
            for (std::int64_t k = 0; k < n; k++)
                times[turn(k, threads)] += tile_begin(k + 1, n) - tile_begin(k, n) + overhead;
            const std::int64_t busiest = *std::max_element(times.begin(), times.end());
            if (best == 0 || (!share_units && busiest < best_time)) {
                best = n;
                best_time = busiest;
            }
            if (share_units || n >= 8 * (threads + batch / max_height))
                break;
        }
        return best;
    }

    std::int64_t saved_block(std::int64_t values) const {
        return values * sub * largest_tile() * machine_.lanes;
    }

    PlanSizes sizes_; // `lengths` is not read after construction
    Machine machine_;
};

// The order of the rows of a span in the backward pass: group by group, in each from the first step
// to the last.
class GroupedRows {
  public:
    GroupedRows(const Plan &plan, const Span &span, int groups)
        : plan_(plan), span_(span), starts_((span.end - span.first) * plan.tiles),
          first_(groups + 1) {
        std::int64_t row = 0;
        for (int g = 0; g < groups; g++) {
            first_[g] = row;
            for (std::int64_t t = span.first; t < span.end; t++)
                for (std::int64_t k = 0; k < plan.tiles; k++)
                    if (groups == 1 || plan.group_of(k) == g) {
                        starts_[(t - span.first) * plan.tiles + k] = row;
                        row += plan.rows_of(k, t);
                    }
        }
        first_[groups] = row;
    }

    std::int64_t row(std::int64_t t, std::int64_t tile) const {
        return starts_[(t - span_.first) * plan_.tiles + tile];
    }
    int groups() const { return static_cast<int>(first_.size()) - 1; }
    std::int64_t first(int group) const { return first_[group]; }
    std::int64_t size(int group) const { return first_[group + 1] - first_[group]; }

    // f(row within the group, position, step) for each row of a group.
    template <class F> void for_each_row(int group, F f) const {
        parallel(span_.end - span_.first, [&](std::int64_t step) {
            const std::int64_t t = span_.first + step;
            for (std::int64_t k = 0; k < plan_.tiles; k++)
                if (groups() == 1 || plan_.group_of(k) == group)
                    for (int r = 0; r < plan_.rows_of(k, t); r++)
                        f(row(t, k) + r - first(group), plan_.tile_begin(k) + r, t);
        });
    }

  private:
    const Plan &plan_;
    Span span_;
    std::vector<std::int64_t> starts_, first_;
};

} // namespace anaphora
