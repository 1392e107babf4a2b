// Tiles, a few rows by a few units of an array, and the interpreter that runs a program on them.
#pragma once

#include "memory.h"
#include "program.h"
#include "vector.h"

#include <algorithm>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

// op(a, b), or op(a) if it has one operand.
template <Op op, class T> ANAPHORA_INLINE Vector<T> apply(Vector<T> a, Vector<T> b) {
    if constexpr (op == Op::add)
        return a + b;
    else if constexpr (op == Op::subtract)
        return a - b;
    else if constexpr (op == Op::multiply)
        return a * b;
    else if constexpr (op == Op::divide)
        return a / b;
    else if constexpr (op == Op::negative)
        return -a;
    else if constexpr (op == Op::sigmoid)
        return vsigmoid<T>(a);
    else if constexpr (op == Op::tanh)
        return vtanh<T>(a);
    else if constexpr (op == Op::relu)
        return a < T(0) ? broadcast<T>(0) : a;
    else if constexpr (op == Op::exp)
        return vexp<T>(a);
    else if constexpr (op == Op::log)
        return vlog<T>(a);
    else if constexpr (op == Op::softplus)
        return vsoftplus<T>(a);
    else if constexpr (op == Op::abs)
        return a < T(0) ? -a : a;
    else if constexpr (op == Op::sign)
        return vsign<T>(a);
    else {
        static_assert(op == Op::maximum || op == Op::minimum);
        const Vector<T> y = (op == Op::maximum ? a > b : a < b) ? a : b;
        return a == a ? y : a;
    }
}

// An interpreter of one program over tiles. Each value has memory of its own, unless `place` puts
// it elsewhere.
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

    // y = op(a, b), n vectors.
    static void step(Op op, const T *a, const T *b, T *y, int n) {
        switch (op) {
#define ANAPHORA_OP(name)                                                                          \
    case Op::name: return map<Op::name>(a, b, y, n);
            ANAPHORA_OPS(ANAPHORA_OP)
#undef ANAPHORA_OP
        }
    }

  private:
    template <Op op> static ANAPHORA_INLINE void map(const T *a, const T *b, T *y, int n) {
        for (int k = 0; k < n * lanes<T>; k += lanes<T>)
            store(y + k, apply<op, T>(load(a + k), load((has_two_operands(op) ? b : a) + k)));
    }

    const Program &program_;
    std::vector<T *> places_;
};

// The rows of a tile within an array: row r is at data + index[r] * stride.
template <class T> struct RowView {
    T *data;
    std::int64_t stride;
    const std::int64_t *index; // null: consecutive rows

    ANAPHORA_INLINE T *operator[](std::int64_t r) const {
        return data + (index == nullptr ? r : index[r]) * stride;
    }
};

// Read a tile from an array: `rows` rows of `units` elements, units <= sub * lanes. The layout of a
// tile is [sub, rows, lanes]; lanes after the units are 0.
template <class T>
ANAPHORA_INLINE void gather(T *tile, RowView<const T> from, int rows, int sub, std::int64_t units) {
    constexpr int W = lanes<T>;
    for (int s = 0; s < sub; s++, tile += rows * W) {
        std::int64_t left = units - s * W;
        for (int r = 0; r < rows; r++) {
            if (left >= W)
                store(tile + r * W, load(from[r] + s * W));
            else {
                store(tile + r * W, broadcast<T>(0));
                std::memcpy(tile + r * W, from[r] + s * W, left * sizeof(T));
            }
        }
    }
}

// tile += what `gather` would read.
template <class T>
ANAPHORA_INLINE void gather_add(T *tile, RowView<const T> from, int rows, int sub,
                                std::int64_t units) {
    constexpr int W = lanes<T>;
    for (int s = 0; s < sub; s++)
        for (int r = 0; r < rows; r++, tile += W) {
            const T *row = from[r] + s * W;
            std::int64_t left = units - s * W;
            if (left >= W)
                store(tile, load(tile) + load(row));
            else
                for (std::int64_t u = 0; u < left; u++)
                    tile[u] += row[u];
        }
}

template <class T>
ANAPHORA_INLINE void scatter(const T *tile, RowView<T> to, int rows, int sub, std::int64_t units) {
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

} // namespace anaphora::ANAPHORA_ISA
