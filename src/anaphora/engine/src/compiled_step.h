// The step of a built-in cell, compiled: its values stay in registers. Its bits are those of the
// interpreter.
#pragma once

#include "built_in_cells.h"
#include "formats/chain.h"
#include "tiles.h"

#include <array>

namespace anaphora::ANAPHORA_ISA {

// A result, apart from the instruction that reads it: an interpreter fuses no two either.
template <class T> ANAPHORA_INLINE Vector<T> apart(Vector<T> v) {
#if defined(__x86_64__) && !defined(ANAPHORA_EMULATES_TILES) // where a vector is one register
    asm("" : "+v"(v));
#elif defined(__aarch64__) && !defined(ANAPHORA_EMULATES_TILES)
    asm("" : "+w"(v));
#else
    asm("" : "+m"(v));
#endif
    return v;
}

template <class P>
inline constexpr int value_count = P::inputs + P::constants.size() + P::instructions.size();
template <class P, class T> struct Values {
    Vector<T> at[value_count<P>];
};

// All values of a program, of which the inputs are given, several times: in turns, since one
// instruction waits for another.
template <class P, int Times, class T, int N = 0>
ANAPHORA_INLINE void compute(Values<P, T> *values) {
    constexpr int constants = P::constants.size(), count = constants + P::instructions.size();
#pragma GCC unroll 4
    for (int k = 0; k < Times; k++) {
        Vector<T> *at = values[k].at;
        if constexpr (N < constants)
            at[P::inputs + N] = broadcast<T>(static_cast<T>(P::constants[N]));
        else if constexpr (N < count) {
            constexpr Instruction i = P::instructions[N - constants];
            at[P::inputs + N] = apart<T>(apply<i.op, T>(at[i.a], at[i.b]));
        }
    }
    if constexpr (N < count)
        compute<P, Times, T, N + 1>(values);
}

inline constexpr int max_gates = 4, max_states = 2, max_parameters = 3; // of the built-in cells

// What a forward step reads and writes: `rows` rows by `sub` whole vectors of units, from the first
// of these units on. Each row of a state is `stride` numbers after the previous one.
template <class T> struct ForwardPlaces {
    int rows, sub;
    std::int64_t stride, h_vector, x_vector; // from a vector of halves to the next
    const T *h[max_gates], *h_bias[max_gates];
    RowView<const T> x; // the input halves, of which each gate's begin at:
    std::int64_t x_first[max_gates];
    const T *x_bias[max_gates]; // all null, or none
    const T *before[max_states], *parameters[max_parameters + 1];
    T *after[max_states];
    RowView<T> output; // where the first state goes too, unless its data is null
    T *saved;          // or null
};

// Whether a step reads the state number k other than through the recurrent weights. A projected one
// has fewer numbers than units.
template <class C> constexpr bool reads_state(int k) {
    return reads(static_cast<std::int32_t>(C::gates.size()) + k, C::forward::instructions,
                 C::forward::outputs, C::saved);
}

// The sums of all gates' halves, each with its bias.
template <class C, class T, class X, class H>
ANAPHORA_INLINE void read_gates(Vector<T> *sums, X x_half, H h_half) {
#pragma GCC unroll 8
    for (std::size_t g = 0; g < C::gates.size(); g++) {
        sums[g] = broadcast<T>(0);
        if (C::gates[g].x >= 0)
            sums[g] = x_half(static_cast<int>(g));
        if (C::gates[g].h >= 0) {
            const Vector<T> h = h_half(static_cast<int>(g));
            sums[g] = C::gates[g].x >= 0 ? h + sums[g] : h;
        }
    }
}

// A vector of units of a row, in registers.
template <class C, bool HasXBias, class T> class ForwardUnits {
    static constexpr int W = lanes<T>, gates = C::gates.size();
    static constexpr bool reads[max_states] = {reads_state<C>(0), reads_state<C>(1)};

  public:
    // Vector s of the units of any row.
    ANAPHORA_INLINE ForwardUnits(const ForwardPlaces<T> &p, std::int64_t s)
        : p_(p), s_(s), unit_(s * W) {
        for (int g = 0; g < gates; g++) {
            h_at_[g] = C::gates[g].h < 0 ? nullptr : p.h[g] + s * p.h_vector;
            x_at_[g] = C::gates[g].x < 0 ? 0 : p.x_first[g] + s * p.x_vector;
            h_bias_[g] = x_bias_[g] = broadcast<T>(0);
            if (C::gates[g].h >= 0 && p.h_bias[g] != nullptr)
                h_bias_[g] = load(p.h_bias[g] + unit_);
            if (C::gates[g].x >= 0 && HasXBias)
                x_bias_[g] = load(p.x_bias[g] + unit_);
        }
        for (int k = 0; k < C::parameters; k++)
            parameters_[k] = load(p.parameters[k] + unit_);
    }

    ANAPHORA_INLINE void read(int r, Values<typename C::forward, T> &values) const {
        const T *x_row = p_.x[r];
        read_gates<C, T>(
            values.at,
            [&](int g) {
                const Vector<T> half = load(x_row + x_at_[g]);
                return HasXBias ? half + x_bias_[g] : half;
            },
            [&](int g) { return load(h_at_[g] + r * W) + h_bias_[g]; });
#pragma GCC unroll 8
        for (int k = 0; k < C::states; k++) {
            values.at[gates + k] = broadcast<T>(0);
            if (reads[k])
                values.at[gates + k] = load(p_.before[k] + r * p_.stride + unit_);
        }
#pragma GCC unroll 8
        for (int k = 0; k < C::parameters; k++)
            values.at[gates + C::states + k] = parameters_[k];
    }

    // Fetch a row's input halves, each of which may be in two cache lines.
    ANAPHORA_INLINE void fetch(int r) const {
        const T *x_row = p_.x[r];
#pragma GCC unroll 8
        for (int g = 0; g < gates; g++)
            if (C::gates[g].x >= 0) {
                __builtin_prefetch(x_row + x_at_[g]);
                __builtin_prefetch(x_row + x_at_[g] + W - 1);
            }
    }

    ANAPHORA_INLINE void write(int r, const Values<typename C::forward, T> &values) const {
        if (p_.saved != nullptr) {
            const std::int64_t tile = static_cast<std::int64_t>(p_.sub) * p_.rows * W;
            T *to = p_.saved + (s_ * p_.rows + r) * W;
#pragma GCC unroll 16
            for (std::size_t k = 0; k < C::saved.size(); k++, to += tile)
                store(to, values.at[C::saved[k]]);
        }
#pragma GCC unroll 8
        for (int k = 0; k < C::states; k++)
            store(p_.after[k] + r * p_.stride + unit_, values.at[C::forward::outputs[k]]);
        if (p_.output.data != nullptr)
            store(p_.output[r] + unit_, values.at[C::forward::outputs[0]]);
    }

  private:
    const ForwardPlaces<T> &p_;
    const std::int64_t s_, unit_;
    const T *h_at_[gates];
    std::int64_t x_at_[gates];
    Vector<T> h_bias_[gates], x_bias_[gates], parameters_[C::parameters + 1];
};

template <class C, bool HasXBias, class T> void forward_rows(const ForwardPlaces<T> &p) {
    using P = typename C::forward;
    constexpr int ahead = 2; // rows
    for (std::int64_t s = 0; s < p.sub; s++) {
        const ForwardUnits<C, HasXBias, T> units(p, s);
        for (int r = 0; r < p.rows; r++) {
            units.fetch(std::min(r + ahead, p.rows - 1));
            Values<P, T> values[1];
            units.read(r, values[0]);
            compute<P, 1, T>(values);
            units.write(r, values[0]);
        }
    }
}

template <class C, class T> void forward_step(const ForwardPlaces<T> &p) {
    bool has_x_bias = false;
    for (std::size_t g = 0; g < C::gates.size(); g++)
        has_x_bias = has_x_bias || (C::gates[g].x >= 0 && p.x_bias[g] != nullptr);
    if (has_x_bias)
        forward_rows<C, true>(p);
    else
        forward_rows<C, false>(p);
}

// What a step of one row reads and writes, from the first of some blocks on. Gates are in the order
// of a packed weight's outputs: for each block its vectors of the first gate, then of the next.
template <class T> struct RowPlaces {
    const T *weight; // of the recurrent halves, packed: for each block [terms, its outputs]
    std::int64_t terms;
    const T *row;               // [terms] the state that it multiplies
    const T *x;                 // the input halves of these blocks
    bool x_packed;              // they are in that order too, else [gates, stride]
    const T *bias_ih, *bias_hh; // [gates, stride], or null
    std::int64_t stride;
    std::int64_t units; // of the layer
    bool backwards;     // which blocks come first: those that the previous step left in a cache
    const T *before[max_states], *const *parameters;
    T *after[max_states], *output; // where the first state goes too, or null
    // Several steps: from the input halves and the first state of one to those of the next. The
    // other states are updated in place.
    std::int64_t steps = 1, next_x = 0, next_state = 0;
};

// Whether the products of a last block of so few units are computed on half vectors: two of them
// take the time of one.
inline constexpr bool has_halves = ANAPHORA_VECTOR_BYTES == 64;
typedef float HalfVector __attribute__((vector_size(ANAPHORA_VECTOR_BYTES / 2)));

// The sums of add_products() for blocks of `Outputs` vectors, `next` apart, of the last of which
// the first half alone: of the other one they are 0.
template <int Outputs, int Blocks>
ANAPHORA_INLINE void add_products_to_half(std::int64_t K, const float *row, const float *b,
                                          std::int64_t next, Vector<float> *sums) {
    constexpr int W = lanes<float>, whole = (Blocks - 1) * Outputs;
    HalfVector halves[Outputs] = {};
    for (std::int64_t k = 0; k < K; k++, b += Outputs * W) {
        const Vector<float> x = broadcast(row[k]);
        const HalfVector half_x = row[k] - HalfVector{};
#pragma GCC unroll 12
        for (int v = 0; v < whole; v++)
            sums[v] += x * load(b + v / Outputs * next + v % Outputs * W);
#pragma GCC unroll 4
        for (int v = 0; v < Outputs; v++) {
            HalfVector w;
            std::memcpy(&w, b + (Blocks - 1) * next + v * W, sizeof w);
            halves[v] += half_x * w;
        }
    }
    const auto whole_vector = [&]<int... Lane>(HalfVector half,
                                               std::integer_sequence<int, Lane...>) {
        return __builtin_shufflevector(half, HalfVector{}, Lane...);
    };
#pragma GCC unroll 4
    for (int v = 0; v < Outputs; v++)
        sums[whole + v] = whole_vector(halves[v], std::make_integer_sequence<int, W>());
}

template <class C, bool HasXBias, int Sub, int Blocks, bool ToHalf, class T>
ANAPHORA_INLINE void row_blocks(const RowPlaces<T> &p, const T *weight, const T *x,
                                std::int64_t unit) {
    using P = typename C::forward;
    constexpr std::int64_t W = lanes<T>;
    constexpr int outputs = C::h_blocks * Sub, gates = C::gates.size();
    Vector<T> sums[1][std::max(Blocks * outputs, 1)] = {}, halves[std::max(Blocks * outputs, 1)];
    if constexpr (ToHalf)
        add_products_to_half<outputs, Blocks>(p.terms, p.row, weight, p.terms * outputs * W,
                                              sums[0]);
    else if constexpr (outputs > 0)
        add_products<Numbers<T>, 1, outputs, Operands::cached_rows, Blocks>(
            p.terms, p.row, 0, weight, p.terms * outputs * W, sums);
    std::memcpy(&halves, &sums, sizeof halves);
    if constexpr (Blocks > 1) // too many for registers: each is read when it is needed
        asm("" : "+m"(halves));
    const std::int64_t x_stride = p.x_packed ? Sub * W : p.stride,
                       x_step = p.x_packed ? C::x_blocks * Sub * W : Sub * W;
#pragma GCC unroll 4
    for (int s = 0; s < Sub; s++) {
        Values<P, T> values[Blocks];
#pragma GCC unroll 4
        for (int n = 0; n < Blocks; n++) {
            const std::int64_t at = unit + (n * Sub + s) * W;
            read_gates<C, T>(
                values[n].at,
                [&](int g) {
                    const int gate = C::gates[g].x;
                    const Vector<T> half = load(x + n * x_step + gate * x_stride + s * W);
                    return HasXBias ? half + load(p.bias_ih + gate * p.stride + at) : half;
                },
                [&](int g) {
                    const int gate = C::gates[g].h;
                    const Vector<T> bias = p.bias_hh == nullptr
                                               ? broadcast<T>(0)
                                               : load(p.bias_hh + gate * p.stride + at);
                    return halves[n * outputs + gate * Sub + s] + bias;
                });
#pragma GCC unroll 8
            for (int k = 0; k < C::states; k++)
                values[n].at[gates + k] =
                    reads_state<C>(k) ? load(p.before[k] + at) : broadcast<T>(0);
#pragma GCC unroll 8
            for (int k = 0; k < C::parameters; k++)
                values[n].at[gates + C::states + k] = load(p.parameters[k] + at);
        }
        compute<P, Blocks, T>(values);
#pragma GCC unroll 4
        for (int n = 0; n < Blocks; n++) {
            const std::int64_t at = unit + (n * Sub + s) * W;
#pragma GCC unroll 8
            for (int k = 0; k < C::states; k++)
                store(p.after[k] + at, values[n].at[P::outputs[k]]);
            if (p.output != nullptr)
                store(p.output + at, values[n].at[P::outputs[0]]);
        }
    }
}

template <class C, class T>
ANAPHORA_INLINE void take_row_step(const RowPlaces<T> &p, const Block *first, const Block *end) {
    constexpr std::int64_t W = lanes<T>;
    // Several blocks at a time keep enough chains in flight: up to three, if the weights are so few
    // that they stay in the first-level cache.
    constexpr std::int64_t first_level_bytes = 28000;
    const std::int64_t vectors = end[-1].first + end[-1].vectors - first->first;
    const bool cached =
        vectors * C::h_blocks * W * p.terms * std::int64_t(sizeof(T)) <= first_level_bytes;
    const std::int64_t most = cached && end - first != 4 ? 3 : 2;
    for (const Block *low = first, *high = end; low < high;) {
        std::int64_t together = 1;
        if (p.backwards)
            while (together < most && high - together > low &&
                   high[-1 - together].vectors == high[-1].vectors)
                together++;
        else
            while (together < most && low + together < high &&
                   low[together].vectors == low->vectors)
                together++;
        const Block *block = p.backwards ? high -= together : low;
        low += p.backwards ? 0 : together;
        with_vectors(block->vectors, [&](auto sub) {
            constexpr int Sub = sub, outputs = C::h_blocks * Sub;
            if constexpr (outputs <= max_vectors) { // a block has no more
                const std::int64_t before = (block->first - first->first) * W;
                const T *weight = p.weight + before * C::h_blocks * p.terms,
                        *x = p.x + before * (p.x_packed ? C::x_blocks : 1);
                const bool to_half = p.units <= block[together - 1].first * W + W / 2;
                with_vectors(static_cast<int>(together), [&](auto blocks) {
                    if constexpr (blocks < 4) {
                        auto run = [&](auto half) {
                            if (p.bias_ih != nullptr)
                                row_blocks<C, true, Sub, blocks, half>(p, weight, x,
                                                                       block->first * W);
                            else
                                row_blocks<C, false, Sub, blocks, half>(p, weight, x,
                                                                        block->first * W);
                        };
                        if constexpr (has_halves && Sub == 1 && outputs > 0)
                            if (to_half)
                                return run(std::true_type());
                        run(std::false_type());
                    }
                });
            }
        });
    }
}

template <class C, class T>
void row_steps(const RowPlaces<T> &places, const Block *first, const Block *end) {
    RowPlaces<T> p = places;
    for (std::int64_t t = 0; t < p.steps; t++) {
        take_row_step<C, T>(p, first, end);
        p.row = p.before[0] = p.after[0];
        p.after[0] += p.next_state;
        p.x += p.next_x;
        p.backwards = !p.backwards;
    }
}

// What a backward step reads and writes, from the first of its units on.
template <class T> struct BackwardPlaces {
    int rows, sub;
    std::int64_t stride; // of d_before and d_parameters
    const T *saved;
    std::array<RowView<const T>, max_states> d_after;
    RowView<const T> d_output; // its data may be null, as may those that follow
    RowView<T> d_x_gates, d_h_gates;
    std::int64_t gate_stride; // from the half of a gate to that of the next
    std::array<T *, max_states> d_before;
    std::array<T *, max_parameters> d_parameters;
    // What the next step reads, as many rows by as many units, is fetched meanwhile.
    const T *next_saved;
    RowView<const T> next_output;
};

template <class C, class T> void backward_step(const BackwardPlaces<T> &p) {
    constexpr int W = lanes<T>, gates = C::gates.size(), saved = C::saved.size(),
                  rows_ahead = 6; // of what is fetched
    constexpr const auto &outputs = C::backward::outputs;
    const std::int64_t tile = static_cast<std::int64_t>(p.sub) * p.rows * W;
    const T *from = p.saved, *next = p.next_saved;
    for (std::int64_t s = 0; s < p.sub; s++)
        for (int r = 0; r < p.rows; r++, from += W, next += W) {
            const std::int64_t unit = s * W;
            Values<typename C::backward, T> all[1];
            Vector<T> *values = all[0].at;
#pragma GCC unroll 16
            for (int k = 0; k < saved; k++) {
                values[k] = load(from + k * tile);
                __builtin_prefetch(next + k * tile);
            }
            if (p.next_output.data != nullptr)
                __builtin_prefetch(p.next_output[r] + unit);
#pragma GCC unroll 8
            for (int k = 0; k < C::states; k++)
                values[saved + k] = load(p.d_after[k][r] + unit);
            if (p.d_output.data != nullptr)
                values[saved] += load(p.d_output[r] + unit);
            compute<typename C::backward, 1, T>(all);
            auto scatter_gates = [&](const RowView<T> &to, auto half) {
                T *row = to[r] + unit, *later = to[std::min(r + rows_ahead, p.rows - 1)] + unit;
#pragma GCC unroll 8
                for (int g = 0; g < gates; g++)
                    if (C::gates[g].*half >= 0)
                        __builtin_prefetch(later + C::gates[g].*half * p.gate_stride, 1);
#pragma GCC unroll 8
                for (int g = 0; g < gates; g++)
                    if (C::gates[g].*half >= 0)
                        store(row + C::gates[g].*half * p.gate_stride, values[outputs[g]]);
            };
            scatter_gates(p.d_x_gates, &GateInput::x);
            if (p.d_h_gates.data != nullptr)
                scatter_gates(p.d_h_gates, &GateInput::h);
#pragma GCC unroll 8
            for (int k = 0; k < C::states; k++)
                if (p.d_before[k] != nullptr)
                    store(p.d_before[k] + r * p.stride + unit, values[outputs[gates + k]]);
#pragma GCC unroll 8
            for (int k = 0; k < C::parameters; k++) {
                T *total = p.d_parameters[k] + r * p.stride + unit;
                store(total, load(total) + values[outputs[gates + C::states + k]]);
            }
        }
}

// The compiled steps of a cell.
template <class T> struct CompiledStep {
    void (*forward)(const ForwardPlaces<T> &);
    void (*backward)(const BackwardPlaces<T> &);
    void (*row)(const RowPlaces<T> &, const Block *first, const Block *end);
};

// Those of this cell; null if it is interpreted, as all are in float64, which is for checks, with
// emulated tile registers, and on x86 processors without AVX2, whose kernels would take a third
// longer to compile.
template <class T> const CompiledStep<T> *compiled_step(const Cell &cell) {
#if !defined(ANAPHORA_EMULATES_TILES) && (defined(__AVX2__) || !defined(__x86_64__))
    if constexpr (sizeof(T) == 4) {
#define ANAPHORA_CELL(name)                                                                        \
    {forward_step<built_in::name, T>, backward_step<built_in::name, T>,                            \
     row_steps<built_in::name, T>},
        static constexpr CompiledStep<T> steps[] = {ANAPHORA_BUILT_IN_CELLS(ANAPHORA_CELL)};
#undef ANAPHORA_CELL
        if (cell.built_in >= 0)
            return &steps[cell.built_in];
    }
#endif
    (void)cell;
    return nullptr;
}

} // namespace anaphora::ANAPHORA_ISA
