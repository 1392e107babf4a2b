// Tiles, a few rows by a few units of an array, and the interpreter that runs a program on them.
#pragma once

#include "memory.h"
#include "program.h"
#include "vector.h"

#include <algorithm>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

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
        using V = Vector<T>;
        switch (op) {
        case Op::add: return map(a, b, y, n, [](V p, V q) { return p + q; });
        case Op::subtract: return map(a, b, y, n, [](V p, V q) { return p - q; });
        case Op::multiply: return map(a, b, y, n, [](V p, V q) { return p * q; });
        case Op::divide: return map(a, b, y, n, [](V p, V q) { return p / q; });
        case Op::negative: return map(a, y, n, [](V p) { return -p; });
        case Op::sigmoid: return map(a, y, n, [](V p) { return vsigmoid<T>(p); });
        case Op::tanh: return map(a, y, n, [](V p) { return vtanh<T>(p); });
        case Op::relu: return map(a, y, n, [](V p) { return p < T(0) ? broadcast<T>(0) : p; });
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

  private:
    template <class F> static ANAPHORA_INLINE void map(const T *a, T *y, int n, F f) {
        for (int k = 0; k < n; k++)
            store(y + k * lanes<T>, f(load(a + k * lanes<T>)));
    }
    template <class F> static ANAPHORA_INLINE void map(const T *a, const T *b, T *y, int n, F f) {
        for (int k = 0; k < n; k++)
            store(y + k * lanes<T>, f(load(a + k * lanes<T>), load(b + k * lanes<T>)));
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
