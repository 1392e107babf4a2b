// Along an axis: sums of all elements up to each, elements taken and added by their numbers, and
// the order of the elements.
//
// An array is [A, N, C]: the axes before the axis, itself, and those after it. The columns [N] of
// each of the A blocks are independent of each other: each is summed and added to by one thread,
// in the order of its elements, whatever is beside it.
#pragma once

#include "rows.h"

#include <atomic>

namespace anaphora::ANAPHORA_ISA {

// f(a, begin, count) of all columns, in spans of adjacent ones of one block; `work` is what a
// column costs, in elements.
template <class F> void for_each_span(std::int64_t A, std::int64_t C, std::int64_t work, F f) {
    constexpr std::int64_t width = 256;
    const std::int64_t spans = (C + width - 1) / width,
                       each = rows_in_task(work * std::min(C, width));
    parallel((A * spans + each - 1) / each, [=](std::int64_t task) {
        for (std::int64_t n = task * each; n < std::min(A * spans, (task + 1) * each); n++) {
            const std::int64_t begin = n % spans * width;
            f(n / spans, begin, std::min(width, C - begin));
        }
    });
}

// -0, to which adding x gives x, 0 and -0 too.
template <class T> ANAPHORA_INLINE Vector<T> nothing() { return broadcast<T>(T(-0.0)); }

// The sums of `count` adjacent columns, at most all lanes of some vectors: a lane is a column.
template <class T, int Vectors>
ANAPHORA_INLINE void sum_columns_up_to(std::int64_t N, std::int64_t C, std::int64_t count,
                                       const T *x, bool reverse, T *y) {
    constexpr int W = lanes<T>;
    Vector<T> sums[Vectors];
    for (int v = 0; v < Vectors; v++)
        sums[v] = nothing<T>();
    for (std::int64_t n = 0; n < N; n++) {
        const std::int64_t at = (reverse ? N - 1 - n : n) * C;
        for (int v = 0; v < Vectors; v++) {
            if (count == Vectors * W) {
                sums[v] += load(x + at + v * W);
                store(y + at + v * W, sums[v]);
            } else {
                sums[v] += load_some(x + at + v * W, count - v * W);
                store_some(y + at + v * W, sums[v], count - v * W);
            }
        }
    }
}

// The same of W rows [N], one after the other, of which `count` exist: a lane is a row.
template <class T>
ANAPHORA_INLINE void sum_rows_up_to(std::int64_t N, std::int64_t count, const T *x, bool reverse,
                                    T *y) {
    constexpr std::int64_t W = lanes<T>;
    Vector<T> sums = nothing<T>();
    for (std::int64_t n = 0; n < N; n += W) {
        const std::int64_t depth = std::min(W, N - n), at = reverse ? N - n - depth : n;
        Vector<T> block[W];
        for (std::int64_t i = 0; i < W; i++)
            block[i] = load_some(x + (i < count ? i * N + at : 0), i < count ? depth : 0);
        transpose_lanes<T>(block);
        auto add = [&](std::int64_t i) {
            const std::int64_t k = reverse ? depth - 1 - i : i;
            block[k] = sums = sums + block[k];
        };
        if (depth == W)
#pragma GCC unroll 16
            for (std::int64_t i = 0; i < W; i++)
                add(i);
        else
            for (std::int64_t i = 0; i < depth; i++)
                add(i);
        transpose_lanes<T>(block);
        for (std::int64_t i = 0; i < count; i++)
            store_some(y + i * N + at, block[i], depth);
    }
}

template <class T>
void cumulative_sums(std::int64_t A, std::int64_t N, std::int64_t C, const T *x, bool reverse,
                     T *y) {
    constexpr std::int64_t W = lanes<T>;
    if (C == 1) { // the columns are rows: W of them at once
        const std::int64_t groups = (A + W - 1) / W, each = rows_in_task(W * N);
        parallel((groups + each - 1) / each, [=](std::int64_t task) {
            for (std::int64_t g = task * each; g < std::min(groups, (task + 1) * each); g++)
                sum_rows_up_to(N, std::min(W, A - g * W), x + g * W * N, reverse, y + g * W * N);
        });
        return;
    }
    for_each_span(A, C, N, [=](std::int64_t a, std::int64_t begin, std::int64_t count) {
        const std::int64_t first = a * N * C + begin;
        std::int64_t c = 0;
        for (; c + 4 * W <= count; c += 4 * W)
            sum_columns_up_to<T, 4>(N, C, 4 * W, x + first + c, reverse, y + first + c);
        for (; c < count; c += W)
            sum_columns_up_to<T, 1>(N, C, std::min(W, count - c), x + first + c, reverse,
                                    y + first + c);
    });
}

// An index of N elements, where -1 is the last; or 0, and false, if there is no such element.
struct Place {
    std::int64_t at;
    bool exists;
};
ANAPHORA_INLINE Place place_of(std::int64_t index, std::int64_t N) {
    const std::int64_t at = index + (index < 0 ? N : 0);
    const bool exists = at >= 0 && at < N;
    return {exists ? at : 0, exists};
}

template <class T> bool take_along(const Along &s, const T *x, const std::int64_t *indices, T *y) {
    std::atomic<bool> all{true};
    for_each_span(s.A, s.C, s.M, [=, &all](std::int64_t a, std::int64_t begin, std::int64_t count) {
        const T *from = x + a * s.N * s.C + begin;
        const std::int64_t first = a * s.M * s.C + begin;
        bool exist = true;
        for (std::int64_t m = 0; m < s.M; m++)
            for (std::int64_t c = 0; c < count; c++) {
                const Place place = place_of(indices[first + m * s.C + c], s.N);
                exist &= place.exists;
                y[first + m * s.C + c] = from[place.at * s.C + c];
            }
        if (!exist)
            all = false;
    });
    return all;
}

template <class T> bool add_along(const Along &s, const T *dy, const std::int64_t *indices, T *dx) {
    std::atomic<bool> all{true};
    for_each_span(s.A, s.C, s.M + s.N,
                  [=, &all](std::int64_t a, std::int64_t begin, std::int64_t count) {
                      T *to = dx + a * s.N * s.C + begin;
                      if (count == s.C)
                          std::fill_n(to, s.N * s.C, T(0));
                      else
                          for (std::int64_t n = 0; n < s.N; n++)
                              std::fill_n(to + n * s.C, count, T(0));
                      bool exist = true;
                      for (std::int64_t m = 0; m < s.M; m++) {
                          const std::int64_t first = (a * s.M + m) * s.C + begin;
                          if (s.shared) {
                              const Place place = place_of(indices[a * s.M + m], s.N);
                              exist &= place.exists;
                              T *sums = to + place.at * s.C;
                              ANAPHORA_INDEPENDENT
                              for (std::int64_t c = 0; c < count; c++)
                                  sums[c] += dy[first + c];
                          } else {
                              for (std::int64_t c = 0; c < count; c++) {
                                  const Place place = place_of(indices[first + c], s.N);
                                  exist &= place.exists;
                                  to[place.at * s.C + c] += dy[first + c];
                              }
                          }
                      }
                      if (!exist)
                          all = false;
                  });
    return all;
}

// An element and its place in its row: in the order of these pairs, elements are in theirs, equal
// ones in that of their places. The key is the bits of the number as an integer of the same order.
template <class T> struct Ranked {
    typename Float<T>::Unsigned key, place;

    bool operator<(const Ranked &other) const {
        return key < other.key || (key == other.key && place < other.place);
    }
};

// NaN has the largest key, and 0 that of -0. In descending order keys are reversed.
template <class T> ANAPHORA_INLINE typename Float<T>::Unsigned sort_key(T x, bool descending) {
    using U = typename Float<T>::Unsigned;
    constexpr U sign = U{1} << (8 * sizeof(T) - 1);
    U bits;
    std::memcpy(&bits, &x, sizeof bits);
    const U magnitude = bits & ~sign;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    U infinite;
    std::memcpy(&infinite, &infinity, sizeof infinite);
    U key = magnitude == 0 ? sign : (bits & sign) != 0 ? ~bits : bits | sign;
    key = magnitude > infinite ? ~U{0} : key;
    return descending ? ~key : key;
}

// The first `count` of N elements in order. Those found so far are a heap with the last of them at
// its top: later elements are before it only if their key is less.
template <class T>
void select(std::int64_t N, std::int64_t count, const T *x, bool descending, Ranked<T> *found) {
    using U = typename Float<T>::Unsigned;
    constexpr std::int64_t chunk = 64;
    for (std::int64_t n = 0; n < count; n++)
        found[n] = {sort_key(x[n], descending), static_cast<U>(n)};
    std::make_heap(found, found + count);
    for (std::int64_t begin = count; begin < N && count > 0; begin += chunk) {
        const std::int64_t size = std::min(chunk, N - begin);
        U keys[chunk], top = found[0].key, some = 0;
        for (std::int64_t k = 0; k < size; k++) {
            keys[k] = sort_key(x[begin + k], descending);
            some |= keys[k] < top;
        }
        for (std::int64_t k = 0; k < size && some != 0; k++)
            if (keys[k] < found[0].key) {
                std::pop_heap(found, found + count);
                found[count - 1] = {keys[k], static_cast<U>(begin + k)};
                std::push_heap(found, found + count);
            }
    }
    std::sort_heap(found, found + count);
}

template <class T>
void order_rows(std::int64_t rows, std::int64_t N, std::int64_t count, const T *x, bool descending,
                std::int64_t *order) {
    using U = typename Float<T>::Unsigned;
    const bool selects = count < N / 8;
    const std::int64_t each = rows_in_task(8 * N);
    parallel((rows + each - 1) / each, [=](std::int64_t task) {
        static thread_local Scratch scratch;
        auto *ranked = scratch.get<Ranked<T>>(static_cast<std::size_t>(selects ? count : N));
        for (std::int64_t r = task * each; r < std::min(rows, (task + 1) * each); r++) {
            if (selects) {
                select(N, count, x + r * N, descending, ranked);
            } else {
                for (std::int64_t n = 0; n < N; n++)
                    ranked[n] = {sort_key(x[r * N + n], descending), static_cast<U>(n)};
                std::sort(ranked, ranked + N);
            }
            for (std::int64_t k = 0; k < count; k++)
                order[r * count + k] = static_cast<std::int64_t>(ranked[k].place);
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
