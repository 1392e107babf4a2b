// The built-in cells as the engine sees them. Written by `make cells` from their equations.
#pragma once

#include "program.h"

#include <array>

namespace anaphora::built_in {

// clang-format off
// h' = tanh(a)
// return h: h'
struct rnn {
struct forward {
static constexpr int inputs = 2;
static constexpr std::array<double, 0> constants{{}};
static constexpr std::array<Instruction, 1> instructions{{{Op::tanh, 0, 0}}};
static constexpr std::array<std::int32_t, 1> outputs{{2}};
};
struct backward {
static constexpr int inputs = 2;
static constexpr std::array<double, 2> constants{{1.0, 0.0}};
static constexpr std::array<Instruction, 3> instructions{{{Op::multiply, 0, 0}, {Op::subtract, 2, 4}, {Op::multiply, 1, 5}}};
static constexpr std::array<std::int32_t, 2> outputs{{6, 3}};
};
static constexpr std::array<GateInput, 1> gates{{{0, 0}}};
static constexpr std::array<std::int32_t, 1> saved{{2}};
static constexpr int states = 1, parameters = 0;
static constexpr int x_blocks = 1, h_blocks = 1;
};

// h' = relu(a)
// return h: h'
struct rnn_relu {
struct forward {
static constexpr int inputs = 2;
static constexpr std::array<double, 0> constants{{}};
static constexpr std::array<Instruction, 1> instructions{{{Op::relu, 0, 0}}};
static constexpr std::array<std::int32_t, 1> outputs{{2}};
};
struct backward {
static constexpr int inputs = 2;
static constexpr std::array<double, 1> constants{{0.0}};
static constexpr std::array<Instruction, 2> instructions{{{Op::sign, 0, 0}, {Op::multiply, 1, 3}}};
static constexpr std::array<std::int32_t, 2> outputs{{4, 2}};
};
static constexpr std::array<GateInput, 1> gates{{{0, 0}}};
static constexpr std::array<std::int32_t, 1> saved{{2}};
static constexpr int states = 1, parameters = 0;
static constexpr int x_blocks = 1, h_blocks = 1;
};

// i' = sigmoid(i)
// f' = sigmoid(f)
// g' = tanh(g)
// o' = sigmoid(o)
// t1 = f' * c
// t2 = i' * g'
// c' = t1 + t2
// t3 = tanh(c')
// h' = o' * t3
// return h: h', c: c'
struct lstm {
struct forward {
static constexpr int inputs = 6;
static constexpr std::array<double, 0> constants{{}};
static constexpr std::array<Instruction, 9> instructions{{{Op::sigmoid, 0, 0}, {Op::sigmoid, 1, 1}, {Op::tanh, 2, 2}, {Op::sigmoid, 3, 3}, {Op::multiply, 7, 5}, {Op::multiply, 6, 8}, {Op::add, 10, 11}, {Op::tanh, 12, 12}, {Op::multiply, 9, 13}}};
static constexpr std::array<std::int32_t, 2> outputs{{14, 12}};
};
struct backward {
static constexpr int inputs = 8;
static constexpr std::array<double, 2> constants{{1.0, 0.0}};
static constexpr std::array<Instruction, 22> instructions{{{Op::multiply, 6, 5}, {Op::multiply, 6, 4}, {Op::multiply, 5, 5}, {Op::subtract, 8, 12}, {Op::multiply, 11, 13}, {Op::add, 7, 14}, {Op::multiply, 15, 3}, {Op::multiply, 15, 1}, {Op::multiply, 15, 0}, {Op::multiply, 15, 2}, {Op::subtract, 8, 4}, {Op::multiply, 4, 20}, {Op::multiply, 10, 21}, {Op::multiply, 3, 3}, {Op::subtract, 8, 23}, {Op::multiply, 17, 24}, {Op::subtract, 8, 2}, {Op::multiply, 2, 26}, {Op::multiply, 18, 27}, {Op::subtract, 8, 1}, {Op::multiply, 1, 29}, {Op::multiply, 16, 30}}};
static constexpr std::array<std::int32_t, 6> outputs{{31, 28, 25, 22, 9, 19}};
};
static constexpr std::array<GateInput, 4> gates{{{0, 0}, {1, 1}, {2, 2}, {3, 3}}};
static constexpr std::array<std::int32_t, 6> saved{{5, 6, 7, 8, 9, 13}};
static constexpr int states = 2, parameters = 0;
static constexpr int x_blocks = 4, h_blocks = 4;
};

// r' = sigmoid(r)
// z' = sigmoid(z)
// t1 = r' * n.h
// t2 = n.x + t1
// n = tanh(t2)
// t3 = 1 - z'
// t4 = t3 * n
// t5 = z' * h
// h' = t4 + t5
// return h: h'
struct gru {
struct forward {
static constexpr int inputs = 5;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 9> instructions{{{Op::sigmoid, 0, 0}, {Op::sigmoid, 1, 1}, {Op::multiply, 6, 3}, {Op::add, 2, 8}, {Op::tanh, 9, 9}, {Op::subtract, 5, 7}, {Op::multiply, 11, 10}, {Op::multiply, 7, 4}, {Op::add, 12, 13}}};
static constexpr std::array<std::int32_t, 1> outputs{{14}};
};
struct backward {
static constexpr int inputs = 7;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 17> instructions{{{Op::multiply, 6, 1}, {Op::multiply, 6, 3}, {Op::multiply, 6, 4}, {Op::multiply, 6, 5}, {Op::negative, 10, 10}, {Op::add, 8, 12}, {Op::multiply, 4, 4}, {Op::subtract, 7, 14}, {Op::multiply, 11, 15}, {Op::multiply, 16, 0}, {Op::multiply, 16, 2}, {Op::subtract, 7, 3}, {Op::multiply, 3, 19}, {Op::multiply, 13, 20}, {Op::subtract, 7, 2}, {Op::multiply, 2, 22}, {Op::multiply, 17, 23}}};
static constexpr std::array<std::int32_t, 5> outputs{{24, 21, 16, 18, 9}};
};
static constexpr std::array<GateInput, 4> gates{{{0, 0}, {1, 1}, {2, -1}, {-1, 2}}};
static constexpr std::array<std::int32_t, 6> saved{{3, 4, 6, 7, 10, 11}};
static constexpr int states = 1, parameters = 0;
static constexpr int x_blocks = 3, h_blocks = 3;
};

// t1 = p_i * c
// t2 = i + t1
// i' = sigmoid(t2)
// t3 = p_f * c
// t4 = f + t3
// f' = sigmoid(t4)
// g' = tanh(g)
// t5 = f' * c
// t6 = i' * g'
// c' = t5 + t6
// t7 = p_o * c'
// t8 = o + t7
// o' = sigmoid(t8)
// t9 = tanh(c')
// h' = o' * t9
// return h: h', c: c'
struct peephole_lstm {
struct forward {
static constexpr int inputs = 9;
static constexpr std::array<double, 0> constants{{}};
static constexpr std::array<Instruction, 15> instructions{{{Op::multiply, 6, 5}, {Op::add, 0, 9}, {Op::sigmoid, 10, 10}, {Op::multiply, 7, 5}, {Op::add, 1, 12}, {Op::sigmoid, 13, 13}, {Op::tanh, 2, 2}, {Op::multiply, 14, 5}, {Op::multiply, 11, 15}, {Op::add, 16, 17}, {Op::multiply, 8, 18}, {Op::add, 3, 19}, {Op::sigmoid, 20, 20}, {Op::tanh, 18, 18}, {Op::multiply, 21, 22}}};
static constexpr std::array<std::int32_t, 2> outputs{{23, 18}};
};
struct backward {
static constexpr int inputs = 12;
static constexpr std::array<double, 2> constants{{1.0, 0.0}};
static constexpr std::array<Instruction, 31> instructions{{{Op::multiply, 10, 9}, {Op::multiply, 10, 8}, {Op::multiply, 9, 9}, {Op::subtract, 12, 16}, {Op::multiply, 15, 17}, {Op::add, 11, 18}, {Op::subtract, 12, 8}, {Op::multiply, 8, 20}, {Op::multiply, 14, 21}, {Op::multiply, 22, 7}, {Op::multiply, 22, 3}, {Op::add, 19, 24}, {Op::multiply, 25, 6}, {Op::multiply, 25, 4}, {Op::multiply, 25, 0}, {Op::multiply, 25, 5}, {Op::multiply, 6, 6}, {Op::subtract, 12, 30}, {Op::multiply, 27, 31}, {Op::subtract, 12, 5}, {Op::multiply, 5, 33}, {Op::multiply, 28, 34}, {Op::multiply, 35, 0}, {Op::multiply, 35, 2}, {Op::add, 29, 37}, {Op::subtract, 12, 4}, {Op::multiply, 4, 39}, {Op::multiply, 26, 40}, {Op::multiply, 41, 0}, {Op::multiply, 41, 1}, {Op::add, 38, 43}}};
static constexpr std::array<std::int32_t, 9> outputs{{41, 35, 32, 22, 13, 44, 42, 36, 23}};
};
static constexpr std::array<GateInput, 4> gates{{{0, 0}, {1, 1}, {2, 2}, {3, 3}}};
static constexpr std::array<std::int32_t, 10> saved{{5, 6, 7, 8, 11, 14, 15, 18, 21, 22}};
static constexpr int states = 2, parameters = 3;
static constexpr int x_blocks = 4, h_blocks = 4;
};

// f' = sigmoid(f)
// g' = tanh(g)
// o' = sigmoid(o)
// t1 = f' * c
// t2 = 1 - f'
// t3 = t2 * g'
// c' = t1 + t3
// t4 = tanh(c')
// h' = o' * t4
// return h: h', c: c'
struct coupled_lstm {
struct forward {
static constexpr int inputs = 5;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 9> instructions{{{Op::sigmoid, 0, 0}, {Op::tanh, 1, 1}, {Op::sigmoid, 2, 2}, {Op::multiply, 6, 4}, {Op::subtract, 5, 6}, {Op::multiply, 10, 7}, {Op::add, 9, 11}, {Op::tanh, 12, 12}, {Op::multiply, 8, 13}}};
static constexpr std::array<std::int32_t, 2> outputs{{14, 12}};
};
struct backward {
static constexpr int inputs = 8;
static constexpr std::array<double, 2> constants{{1.0, 0.0}};
static constexpr std::array<Instruction, 21> instructions{{{Op::multiply, 6, 5}, {Op::multiply, 6, 3}, {Op::multiply, 5, 5}, {Op::subtract, 8, 12}, {Op::multiply, 11, 13}, {Op::add, 7, 14}, {Op::multiply, 15, 2}, {Op::multiply, 15, 4}, {Op::negative, 16, 16}, {Op::multiply, 15, 0}, {Op::multiply, 15, 1}, {Op::add, 18, 19}, {Op::subtract, 8, 3}, {Op::multiply, 3, 22}, {Op::multiply, 10, 23}, {Op::multiply, 2, 2}, {Op::subtract, 8, 25}, {Op::multiply, 17, 26}, {Op::subtract, 8, 1}, {Op::multiply, 1, 28}, {Op::multiply, 21, 29}}};
static constexpr std::array<std::int32_t, 5> outputs{{30, 27, 24, 9, 20}};
};
static constexpr std::array<GateInput, 3> gates{{{0, 0}, {1, 1}, {2, 2}}};
static constexpr std::array<std::int32_t, 6> saved{{4, 6, 7, 8, 10, 13}};
static constexpr int states = 2, parameters = 0;
static constexpr int x_blocks = 3, h_blocks = 3;
};

// f' = sigmoid(f)
// t1 = f' * n.h
// t2 = n.x + t1
// n = tanh(t2)
// t3 = 1 - f'
// t4 = t3 * h
// t5 = f' * n
// h' = t4 + t5
// return h: h'
struct mgu {
struct forward {
static constexpr int inputs = 4;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 8> instructions{{{Op::sigmoid, 0, 0}, {Op::multiply, 5, 2}, {Op::add, 1, 6}, {Op::tanh, 7, 7}, {Op::subtract, 4, 5}, {Op::multiply, 9, 3}, {Op::multiply, 5, 8}, {Op::add, 10, 11}}};
static constexpr std::array<std::int32_t, 1> outputs{{12}};
};
struct backward {
static constexpr int inputs = 6;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 15> instructions{{{Op::multiply, 5, 3}, {Op::multiply, 5, 2}, {Op::multiply, 5, 1}, {Op::multiply, 5, 4}, {Op::negative, 9, 9}, {Op::add, 7, 11}, {Op::multiply, 3, 3}, {Op::subtract, 6, 13}, {Op::multiply, 8, 14}, {Op::multiply, 15, 0}, {Op::multiply, 15, 2}, {Op::add, 12, 16}, {Op::subtract, 6, 2}, {Op::multiply, 2, 19}, {Op::multiply, 18, 20}}};
static constexpr std::array<std::int32_t, 4> outputs{{21, 15, 17, 10}};
};
static constexpr std::array<GateInput, 3> gates{{{0, 0}, {1, -1}, {-1, 1}}};
static constexpr std::array<std::int32_t, 5> saved{{2, 3, 5, 8, 9}};
static constexpr int states = 1, parameters = 0;
static constexpr int x_blocks = 2, h_blocks = 2;
};

// z = sigmoid(z.x)
// t1 = 1 - z
// t2 = t1 * h
// t3 = z * n.x
// h' = t2 + t3
// return h: h'
struct mingru {
struct forward {
static constexpr int inputs = 3;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 5> instructions{{{Op::sigmoid, 0, 0}, {Op::subtract, 3, 4}, {Op::multiply, 5, 2}, {Op::multiply, 4, 1}, {Op::add, 6, 7}}};
static constexpr std::array<std::int32_t, 1> outputs{{8}};
};
struct backward {
static constexpr int inputs = 5;
static constexpr std::array<double, 1> constants{{1.0}};
static constexpr std::array<Instruction, 9> instructions{{{Op::multiply, 4, 0}, {Op::multiply, 4, 2}, {Op::multiply, 4, 1}, {Op::multiply, 4, 3}, {Op::negative, 8, 8}, {Op::add, 6, 10}, {Op::subtract, 5, 2}, {Op::multiply, 2, 12}, {Op::multiply, 11, 13}}};
static constexpr std::array<std::int32_t, 3> outputs{{14, 7, 9}};
};
static constexpr std::array<GateInput, 2> gates{{{0, -1}, {1, -1}}};
static constexpr std::array<std::int32_t, 4> saved{{1, 2, 4, 5}};
static constexpr int states = 1, parameters = 0;
static constexpr int x_blocks = 2, h_blocks = 0;
};

#define ANAPHORA_BUILT_IN_CELLS(CELL) CELL(rnn) CELL(rnn_relu) CELL(lstm) CELL(gru) CELL(peephole_lstm) CELL(coupled_lstm) CELL(mgu) CELL(mingru)
// clang-format on

} // namespace anaphora::built_in
