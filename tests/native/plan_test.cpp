// The plan of a recurrence: every row, unit and step of random shapes is done exactly once.
#include "plan.h"
#include "testing.h"

#include <algorithm>

namespace testing {
namespace {

// Counts how often things are done.
struct Times {
    std::vector<int> times;
    explicit Times(int64_t count) : times(static_cast<std::size_t>(count)) {}
    void add(int64_t k) {
        check(k >= 0 && k < static_cast<int64_t>(times.size()), "something that does not exist");
        times[static_cast<std::size_t>(k)]++;
    }
    void are(int expected, const char *what) const {
        for (int count : times)
            check(count == expected, what);
    }
};

void test_blocks(const Plan &plan, int64_t vectors) {
    Times owned(vectors), ordered(std::ssize(plan.blocks)), columns(vectors);
    std::vector<int64_t> ends;
    const std::vector<Block> shared = plan.shared_columns(5, ends);
    const int threads = plan.share_units ? plan.threads : 1;
    check(std::ssize(ends) == threads, "a thread has no columns");
    for (int thread = 0; thread < threads; thread++) {
        int64_t first = vectors, end = 0;
        for (int64_t k = 0; k < plan.blocks_of(thread); k++) {
            const Block &block = plan.blocks[plan.first_block(thread) + k];
            check(block.vectors >= 1 && block.vectors <= plan.sub, "a block is too large");
            for (int64_t v = block.first; v < block.first + block.vectors; v++)
                owned.add(v);
            first = std::min(first, block.first);
            end = std::max(end, block.first + block.vectors);
            ordered.add(plan.block(thread, k, k % 2));
        }
        for (int64_t n = thread == 0 ? 0 : ends[thread - 1]; n < ends[thread]; n++)
            for (int64_t v = shared[n].first; v < shared[n].first + shared[n].vectors; v++) {
                columns.add(v);
                check(v >= first && v < end, "a thread has another one's column");
            }
    }
    owned.are(1, "a unit is not done once");
    columns.are(1, "a column is not done once");
    for (int64_t t : {0, 1}) {
        Times blocks(std::ssize(plan.blocks));
        for (int thread = 0; thread < threads; thread++)
            for (int64_t k = 0; k < plan.blocks_of(thread); k++)
                blocks.add(plan.block(thread, k, t));
        blocks.are(1, "a block is not done once in a step");
    }
}

} // namespace

void test_plan(Random &random) {
    const int64_t steps = random.one_of({0, 1, 2, 7}),
                  batch = random.one_of({0, 1, 2, 3, 9, 33, 70});
    Array<int64_t> lengths(batch);
    for (int64_t b = 0; b < batch; b++)
        lengths[b] = random.between(0, steps);
    const bool ragged = random.chance(2);
    const int bytes = random.chance(2) ? 4 : 8;
    const Machine machine{static_cast<int>(random.one_of({16, 32, 64})) / bytes, bytes,
                          random.chance(2), static_cast<int>(random.between(1, 6))};
    const PlanSizes sizes{.steps = steps,
                          .batch = batch,
                          .hidden = random.one_of({1, 3, 16, 100, 130, 700}),
                          .projected = random.one_of({1, 40, 700}),
                          .x_blocks = random.between(0, 4),
                          .h_blocks = random.between(0, 5),
                          .projects = random.chance(3),
                          .lengths = ragged ? lengths.data() : nullptr,
                          .reverse = random.chance(2),
                          .format = random.chance(3) ? Format::fixed : Format::chain};
    const Plan plan(sizes, machine);
    where = "plan T " + std::to_string(steps) + " B " + std::to_string(batch) + " H " +
            std::to_string(sizes.hidden) + " threads " + std::to_string(machine.threads);
    test_blocks(plan, (sizes.hidden + machine.lanes - 1) / machine.lanes);

    // Groups have the same rows whatever the threads, and shares of about as many.
    Machine alone = machine;
    alone.threads = 1;
    const Plan by_one(sizes, alone);
    check(plan.groups == by_one.groups && plan.min_tiles == by_one.min_tiles, "other groups");
    auto groups_of = [](const Plan &of) {
        std::vector<int> groups;
        for (int64_t k = 0; k < of.tiles; k++)
            groups.insert(groups.end(), of.tile_begin(k + 1) - of.tile_begin(k), of.group_of(k));
        return groups;
    };
    const std::vector<int> of_rows = groups_of(plan);
    check(of_rows == groups_of(by_one), "a row is in another group with other threads");
    if (plan.groups == 2)
        check(std::abs(std::ssize(of_rows) - 2 * std::count(of_rows.begin(), of_rows.end(), 0)) <=
                  1,
              "a group has more than a row more");

    auto length = [&](int64_t b) { return ragged ? lengths[b] : steps; };
    Times inputs(steps * batch),
        places(plan.tiles * plan.saved_size(3) > 100000 ? 0 : plan.tiles * plan.saved_size(3));
    for (int64_t t = 0; t < steps; t++) {
        Times tiles(plan.tiles), positions(batch);
        for (int thread = 0; thread < plan.threads; thread++) {
            std::vector<RowTile> list;
            plan.tiles_of(thread, t, list);
            if (plan.share_units && thread > 0)
                continue; // the same tiles, other units
            for (const RowTile &tile : list) {
                tiles.add(tile.number);
                check(tile.end - tile.first <= plan.largest_tile(), "a tile is too large");
                for (int64_t p = tile.first; p < tile.end; p++) {
                    positions.add(p);
                    check((p < tile.first + tile.rows) == (t < length(plan.rows[p])),
                          "a row is active beyond its length");
                }
                for (int64_t p = tile.first; p < tile.first + tile.rows; p++)
                    inputs.add(plan.input_row(p, t));
                for (int64_t n = 0; n < std::ssize(plan.blocks) && !places.times.empty(); n++)
                    for (int64_t k = 0; k < 3 * plan.blocks[n].vectors * tile.rows * machine.lanes;
                         k++)
                        places.add(plan.saved_at(3, t, tile.number, n) + k);
            }
        }
        tiles.are(1, "a tile is not done once");
        positions.are(1, "a row is not done once");
    }
    for (int count : places.times)
        check(count <= 1, "saved values overlap");
    for (int64_t t = 0; t < steps; t++)
        for (int64_t b = 0; b < batch; b++)
            check(inputs.times[t * batch + b] == (t < length(b)), "an input is not read once");

    for (bool backwards : {false, true}) {
        Times in_span(steps);
        plan.for_each_span(random.chance(2), backwards, [&](const Span &span) {
            for (int groups : {1, plan.groups}) {
                Times rows(span.rows), grouped_rows(span.rows);
                const GroupedRows grouped(plan, span, groups);
                for (int64_t t = span.first; t < span.end; t++)
                    for (int64_t p = 0; p < plan.active[t]; p++)
                        rows.add(plan.row(span, t, p));
                for (int g = 0; g < groups; g++)
                    for (int64_t t = span.first; t < span.end; t++)
                        for (int64_t k = 0; k < plan.tiles; k++)
                            for (int r = 0; r < plan.rows_of(k, t); r++)
                                if (groups == 1 || plan.group_of(k) == g) {
                                    const int64_t row = grouped.row(t, k) + r;
                                    grouped_rows.add(row);
                                    check(row >= grouped.first(g) &&
                                              row < grouped.first(g) + grouped.size(g),
                                          "a row is in another group");
                                }
                rows.are(1, "a row of a span is not done once");
                grouped_rows.are(1, "a row of a group is not done once");
            }
            for (int64_t t = span.first; t < span.end; t++)
                in_span.add(t);
        });
        in_span.are(1, "a step is not done once");
    }
}

} // namespace testing
