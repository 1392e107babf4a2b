// The built-in cells as data, by which they are recognised.
#include "built_in_cells.h"

namespace anaphora {
namespace {

template <class P> Program program() {
    return {.inputs = P::inputs,
            .constants = {P::constants.begin(), P::constants.end()},
            .instructions = {P::instructions.begin(), P::instructions.end()},
            .outputs = {P::outputs.begin(), P::outputs.end()}};
}

template <class C> Cell cell(std::int32_t number) {
    Cell made{.forward = program<typename C::forward>(),
              .backward = program<typename C::backward>(),
              .gates = {C::gates.begin(), C::gates.end()},
              .saved = {C::saved.begin(), C::saved.end()},
              .states = C::states,
              .parameters = C::parameters,
              .x_blocks = C::x_blocks,
              .h_blocks = C::h_blocks};
    made.built_in = number;
    return made;
}

} // namespace

const std::vector<Cell> &built_in_cells() {
    static const std::vector<Cell> cells = [] {
        std::vector<Cell> all;
#define ANAPHORA_CELL(name) all.push_back(cell<built_in::name>(static_cast<int>(all.size())));
        ANAPHORA_BUILT_IN_CELLS(ANAPHORA_CELL)
#undef ANAPHORA_CELL
        return all;
    }();
    return cells;
}

} // namespace anaphora
