// A cell's program as data: a straight-line program of elementwise instructions over tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace anaphora {

// The operations, by the names that `equations` gives them.
#define ANAPHORA_OPS(OP)                                                                           \
    OP(add)                                                                                        \
    OP(subtract)                                                                                   \
    OP(multiply)                                                                                   \
    OP(divide)                                                                                     \
    OP(negative)                                                                                   \
    OP(sigmoid)                                                                                    \
    OP(tanh) OP(relu) OP(exp) OP(log) OP(softplus) OP(abs) OP(maximum) OP(minimum) OP(sign)

#define ANAPHORA_OP(name) name,
enum class Op : std::int32_t { ANAPHORA_OPS(ANAPHORA_OP) };
#undef ANAPHORA_OP
#define ANAPHORA_OP(name) #name,
inline constexpr const char *op_names[] = {ANAPHORA_OPS(ANAPHORA_OP)};
#undef ANAPHORA_OP
inline constexpr int op_count = sizeof op_names / sizeof *op_names;
inline constexpr std::size_t max_values = 1 << 20; // of a program; far more than any cell needs

inline constexpr bool has_two_operands(Op op) {
    return op == Op::add || op == Op::subtract || op == Op::multiply || op == Op::divide ||
           op == Op::maximum || op == Op::minimum;
}

// value = op(a, b). Operands are indices of values: the program's inputs, then its constants, then
// one for each earlier instruction.
struct Instruction {
    Op op;
    std::int32_t a, b; // b is any value if the operation has one operand

    bool operator==(const Instruction &) const = default;
};

struct Program {
    std::int32_t inputs = 0;
    std::vector<double> constants;
    std::vector<Instruction> instructions;
    std::vector<std::int32_t> outputs;

    bool operator==(const Program &) const = default;

    std::int32_t values() const {
        return inputs + static_cast<std::int32_t>(constants.size() + instructions.size());
    }

    // Throws std::invalid_argument unless every operand and output is an earlier value.
    void validate() const {
        if (inputs < 0)
            throw std::invalid_argument("program: a negative number of inputs");
        if (static_cast<std::size_t>(inputs) + constants.size() + instructions.size() > max_values)
            throw std::invalid_argument("program: too many values");
        std::int32_t known = inputs + static_cast<std::int32_t>(constants.size());
        for (const Instruction &i : instructions) {
            auto op = static_cast<std::int32_t>(i.op);
            if (op < 0 || op >= op_count)
                throw std::invalid_argument("program: unknown operation " + std::to_string(op));
            if (i.a < 0 || i.a >= known || i.b < 0 || i.b >= known) // unused operands too
                throw std::invalid_argument("program: instruction " +
                                            std::to_string(known - inputs - constants.size()) +
                                            " reads a value that is not computed before it");
            known++;
        }
        for (std::int32_t output : outputs)
            if (output < 0 || output >= known)
                throw std::invalid_argument("program: an output that does not exist");
    }
};

// The source of a gate that the forward program reads: the index of its block of H input halves and
// of its block of H recurrent halves, -1 for a half that it lacks. Each block belongs to one gate.
struct GateInput {
    std::int32_t x, h;

    bool operator==(const GateInput &) const = default;
};

// Whether instructions read a value, or it is among what their program returns or saves.
template <class Instructions, class Outputs, class Saved>
constexpr bool reads(std::int32_t value, const Instructions &instructions, const Outputs &outputs,
                     const Saved &saved) {
    auto among = [=](const auto &values) {
        return std::find(values.begin(), values.end(), value) != values.end();
    };
    auto reads_it = [=](const Instruction &i) {
        return i.a == value || (has_two_operands(i.op) && i.b == value);
    };
    return std::any_of(instructions.begin(), instructions.end(), reads_it) || among(outputs) ||
           among(saved);
}

// A cell: its forward program (inputs: gates, states, parameters; outputs: states), its backward
// program (inputs: the forward values `saved`, then the cotangents of the states; outputs: the
// cotangents of all forward inputs), and the sources of its gates.
struct Cell {
    Program forward, backward;
    std::vector<GateInput> gates;
    std::vector<std::int32_t> saved;
    std::int32_t states = 0, parameters = 0;
    std::int32_t x_blocks = 0, h_blocks = 0;
    std::int32_t built_in = -1; // its number among the built-in cells, which are compiled; or -1

    bool operator==(const Cell &) const = default;

    void validate() const {
        forward.validate();
        backward.validate();
        std::size_t count =
            gates.size() + static_cast<std::size_t>(states) + static_cast<std::size_t>(parameters);
        if (states < 1 || parameters < 0 || static_cast<std::size_t>(forward.inputs) != count ||
            static_cast<std::int32_t>(forward.outputs.size()) != states)
            throw std::invalid_argument(
                "cell: the forward program has a wrong number of inputs or outputs");
        if (static_cast<std::size_t>(backward.inputs) !=
                saved.size() + static_cast<std::size_t>(states) ||
            backward.outputs.size() != count)
            throw std::invalid_argument(
                "cell: the backward program does not match the forward one");
        auto first_instruction =
            forward.inputs + static_cast<std::int32_t>(forward.constants.size());
        std::vector<bool> seen(static_cast<std::size_t>(forward.values()), false);
        for (std::int32_t value : saved) {
            if (value < 0 || value >= forward.values())
                throw std::invalid_argument("cell: a saved value that does not exist");
            if (seen[value] || (value >= forward.inputs && value < first_instruction))
                throw std::invalid_argument("cell: a value saved twice, or a constant");
            seen[value] = true;
        }
        std::vector<bool> x_used(x_blocks, false), h_used(h_blocks, false);
        for (const GateInput &gate : gates) {
            if (gate.x < -1 || gate.x >= x_blocks || gate.h < -1 || gate.h >= h_blocks ||
                (gate.x < 0 && gate.h < 0))
                throw std::invalid_argument("cell: a gate comes from a block that does not exist");
            if ((gate.x >= 0 && x_used[gate.x]) || (gate.h >= 0 && h_used[gate.h]))
                throw std::invalid_argument("cell: two gates come from one block");
            if (gate.x >= 0)
                x_used[gate.x] = true;
            if (gate.h >= 0)
                h_used[gate.h] = true;
        }
    }

    // The index of the first state among the values of the forward program.
    std::int32_t first_state() const { return static_cast<std::int32_t>(gates.size()); }

    // Whether a step reads that state other than through the recurrent weights.
    bool reads_first_state() const {
        return reads(first_state(), forward.instructions, forward.outputs, saved);
    }
};

// The built-in cells, in the order of ANAPHORA_BUILT_IN_CELLS.
const std::vector<Cell> &built_in_cells();

} // namespace anaphora
