// Products as chains of multiply-adds. Each element of the result is one chain of fused
// multiply-adds along K in ascending order, whatever its tile: its bits depend on its row of A and
// its column of B alone.
#pragma once

#include "../kernels.h"
#include "../memory.h"
#include "../plan.h"
#include "../vector.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

#if defined(ANAPHORA_EMULATES_TILES) // whose vectors are several registers
inline constexpr bool many_registers = false;
#elif defined(__aarch64__) // NEON has 32 registers, as AVX-512
inline constexpr bool many_registers = true;
#else
inline constexpr bool many_registers = ANAPHORA_VECTOR_BYTES == 64;
#endif
inline constexpr int tile_rows(int vectors) { return rows_in_registers(many_registers, vectors); }

// What chains are made of: how their terms are packed, and how they are added. Here numbers of T
// one by one; formats/bfloat16.h has pairs.
template <class T> struct Numbers {
    using Number = T;
    using Packed = T;
    static constexpr std::int64_t together = 1; // terms in a Packed
    static constexpr std::int64_t multiple = 1; // of Packed, to which a sum is filled up with 0
    static constexpr bool own_tiles = false;    // whether multiply_tile is its own
    // Rows of a chunk of a weight after its terms; if there are any, sums are computed at once,
    // over all terms of a row.
    static constexpr std::int64_t rows_after_terms = 0;
    static constexpr int max_rows = anaphora::max_rows, max_vectors = anaphora::max_vectors;

    struct Registers {}; // what must be set up for products

    static constexpr int tile_rows(int vectors) { return ANAPHORA_ISA::tile_rows(vectors); }
    ANAPHORA_INLINE static Vector<T> add(Vector<T> sums, Vector<T> x, Vector<T> w) {
        return sums + x * w;
    }
};

// How a tile reads its operands. Either the rows of a are contiguous, element (i, k) at a[i *
// stride + k]; or its columns are, at a[i + k * stride], and are prefetched. So is b, unless it was
// just packed or used and is cached.
enum class Operands { rows, columns, cached_rows };

// Where a product goes: vector n of row r to data + r * row + n * vector, as far as there are
// columns; added to what is there if accumulate.
template <class T> struct Target {
    T *data;
    std::int64_t row, vector;
    bool accumulate = false;
    std::int64_t columns = std::numeric_limits<std::int64_t>::max();

    Target at_row(std::int64_t r) const {
        return {data + r * row, row, vector, accumulate, columns};
    }
    // From vector n on.
    Target from(std::int64_t n) const {
        return {data + n * vector, row, vector, accumulate, columns - n * lanes<T>};
    }
};

// sums[i, v] += sum over k of a[i, k] * b[k, v], in registers, for S matrices b of the same shape.
//   a: see Operands.
//   b: S times [K, NV * lanes], `next` apart.
template <class Terms, int R, int NV, Operands O, int S = 1>
ANAPHORA_INLINE void add_products(std::int64_t K, const typename Terms::Packed *a,
                                  std::int64_t row_stride, const typename Terms::Packed *b,
                                  std::int64_t next,
                                  Vector<typename Terms::Number> (&sums)[R][S * NV]) {
    using P = typename Terms::Packed;
    constexpr int W = lanes<P>, N = S * NV, ahead = 16;
    for (std::int64_t k = 0; k < K; k++) {
        Vector<P> bs[N];
#pragma GCC unroll 12
        for (int v = 0; v < N; v++) {
            const P *from = b + v / NV * next + k * (NV * W) + v % NV * W;
            bs[v] = load(from);
            if (O != Operands::cached_rows)
                __builtin_prefetch(from + ahead * (NV * W));
        }
        if (O == Operands::columns)
            __builtin_prefetch(a + (k + 12) * row_stride);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++) {
            Vector<P> x = broadcast<P>(O == Operands::columns ? a[k * row_stride + i]
                                                              : a[i * row_stride + k]);
#pragma GCC unroll 12
            for (int v = 0; v < N; v++)
                sums[i][v] = Terms::add(sums[i][v], x, bs[v]);
        }
    }
}

// c[i, v] (+)= what `add_products` adds. c: NV vectors for each b, the first ones `next_vector`
// apart.
template <class Terms, int R, int NV, Operands O, int S = 1>
ANAPHORA_INLINE void multiply_tile_of(std::int64_t K, const typename Terms::Packed *a,
                                      std::int64_t row_stride, const typename Terms::Packed *b,
                                      typename Terms::Number *c, std::int64_t c_row,
                                      std::int64_t c_vector, bool accumulate, std::int64_t next = 0,
                                      std::int64_t next_vector = NV) {
    using T = typename Terms::Number;
    constexpr int N = S * NV;
    auto at = [&](int i, int v) {
        return c + i * c_row + (v / NV * next_vector + v % NV) * c_vector;
    };
    Vector<T> sums[R][N];
#pragma GCC unroll 12
    for (int i = 0; i < R; i++)
#pragma GCC unroll 12
        for (int v = 0; v < N; v++)
            sums[i][v] = accumulate ? load(at(i, v)) : broadcast<T>(0);
    add_products<Terms, R, NV, O, S>(K, a, row_stride, b, next, sums);
#pragma GCC unroll 12
    for (int i = 0; i < R; i++)
#pragma GCC unroll 12
        for (int v = 0; v < N; v++)
            store(at(i, v), sums[i][v]);
}

// The same for a number of rows, 1 to tile_rows(NV), known at run time.
template <class Terms, int NV, Operands O, int R = tile_rows(NV)>
void multiply_tile(int rows, std::int64_t K, const typename Terms::Packed *a,
                   std::int64_t row_stride, const typename Terms::Packed *b,
                   typename Terms::Number *c, std::int64_t c_row, std::int64_t c_vector,
                   bool accumulate) {
    if (rows == R)
        multiply_tile_of<Terms, R, NV, O>(K, a, row_stride, b, c, c_row, c_vector, accumulate);
    else if constexpr (R > 1)
        multiply_tile<Terms, NV, O, R - 1>(rows, K, a, row_stride, b, c, c_row, c_vector,
                                           accumulate);
}

// Call f with a number of vectors, 1 to 4, known at compile time.
template <class F> ANAPHORA_INLINE void with_vectors(int vectors, F f) {
    switch (vectors) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: return f(std::integral_constant<int, 4>());
    }
}

// And for a number of vectors: as many as a chunk of a packed weight has.
template <class Terms, Operands O>
ANAPHORA_INLINE void multiply_tile(int vectors, int rows, std::int64_t K,
                                   const typename Terms::Packed *a, std::int64_t row_stride,
                                   const typename Terms::Packed *b, typename Terms::Number *c,
                                   std::int64_t c_row, std::int64_t c_vector, bool accumulate) {
    if constexpr (Terms::own_tiles)
        Terms::multiply_tile(vectors, rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
    else
        with_vectors(vectors, [&](auto NV) {
            multiply_tile<Terms, NV, O>(rows, K, a, row_stride, b, c, c_row, c_vector, accumulate);
        });
}

// Pack vectors of columns of B [K, .], vector v from column begins[v], of which `valid` are there,
// into [K, vectors * lanes]; zeros elsewhere.
struct Columns {
    std::int64_t begin, valid;
};
template <class T>
void pack_columns(std::int64_t K, const Matrix<const T> &B, int vectors, const Columns *columns,
                  T *to) {
    constexpr std::int64_t W = lanes<T>;
    const std::int64_t padded = vectors * W;
    if (B.column == 1) {
        for (std::int64_t k = 0; k < K; k++, to += padded)
            for (int v = 0; v < vectors; v++) {
                const T *from = B.data + k * B.row + columns[v].begin;
                if (columns[v].valid >= W) {
                    store(to + v * W, load(from));
                    continue;
                }
                const std::int64_t valid = std::max<std::int64_t>(columns[v].valid, 0);
                std::copy_n(from, valid, to + v * W);
                std::fill(to + v * W + valid, to + (v + 1) * W, T(0));
            }
        return;
    }
    // One vector after the other: so few rows at a time are read as streams.
    for (int v = 0; v < vectors; v++) {
        const T *from = B.data + columns[v].begin * B.column;
        T *at = to + v * W;
        std::int64_t k = 0;
        for (; B.row == 1 && columns[v].valid >= W && k + W <= K; k += W) {
            Vector<T> rows[W];
            for (std::int64_t j = 0; j < W; j++)
                rows[j] = load(from + j * B.column + k);
            transpose_lanes<T>(rows);
            for (std::int64_t i = 0; i < W; i++)
                store(at + (k + i) * padded, rows[i]);
        }
        for (; k < K; k++)
            for (std::int64_t j = 0; j < W; j++)
                at[k * padded + j] = j < columns[v].valid ? from[k * B.row + j * B.column] : T(0);
    }
}

// A packed weight ---------------------------------------------------------------------------------

// The outputs of a weight are the gates of units: of each block its units' first gates, then their
// second ones ... A weight without gates has one. Only chains take blocks of several vectors of
// several gates.
struct WeightShape {
    std::int64_t gates, units, K; // K: the size of a row
    std::vector<Block> blocks;    // of units
    bool single_rows = false;     // whether single rows should be fast, and packing may take longer

    std::int64_t vectors(const Block &block) const { return gates * block.vectors; }
    // The column of the weight's transpose at which a vector of a gate begins, and those it has.
    Columns columns(const Block &block, std::int64_t vector, std::int64_t lanes) const {
        const std::int64_t unit = (block.first + vector % block.vectors) * lanes;
        return {vector / block.vectors * units + unit, units - unit};
    }
};

// Consecutive rows of a left operand; row r of them is row `to + r` of the result.
template <class T> struct RowRange {
    const T *from;
    int rows;
    std::int64_t to;
};

// A packed weight: for each block of units, chunk by chunk of a few vectors, [terms, vectors *
// lanes].
template <class Terms> class ChainWeight {
    using T = typename Terms::Number;
    using P = typename Terms::Packed;
    static_assert(sizeof(P) == sizeof(T));

  public:
    static std::int64_t size(const WeightShape &shape) { // in numbers
        std::int64_t total = 1;
        for (const Block &block : shape.blocks)
            total += shape.vectors(block) * lanes<T> * packed_rows(shape, block);
        return total;
    }
    // What so many terms are packed to.
    static std::int64_t packed_terms(std::int64_t terms) {
        constexpr std::int64_t step = Terms::together * Terms::multiple;
        return (terms + step - 1) / step * Terms::multiple;
    }

    // Packs B [K, gates * units].
    ChainWeight(const WeightShape &shape, Matrix<const T> B, T *memory) : K_(shape.K) {
        P *packed = reinterpret_cast<P *>(memory);
        std::int64_t vector = 0;
        for (const Block &block : shape.blocks) {
            const Parts parts = Parts::of(shape.vectors(block), Terms::max_vectors);
            first_chunk_.push_back(std::ssize(chunks_));
            for (std::int64_t c = 0; c < parts.parts; c++) {
                chunks_.push_back({packed, vector, first_packed(block),
                                   packed_rows(shape, block) - Terms::rows_after_terms,
                                   parts.size(c)});
                packed += parts.size(c) * lanes<T> * packed_rows(shape, block);
                vector += parts.size(c);
            }
        }
        first_chunk_.push_back(std::ssize(chunks_));
        chunks_.push_back({packed, vector, 0, 0, 0});
        parallel(std::ssize(shape.blocks), [&](std::int64_t n) {
            // So many rows are read together, as far as the block has columns of them; all, if a
            // scale depends on them.
            const std::int64_t terms = chunks_[first_chunk_[n]].terms;
            const std::int64_t step =
                Terms::together == 1 || whole_sums ? std::max<std::int64_t>(terms, 1) : 64;
            for (std::int64_t k = 0; k == 0 || k < terms; k += step)
                for (std::int64_t c = first_chunk_[n]; c < first_chunk_[n + 1]; c++)
                    pack(shape, n, chunks_[c], B, k, step);
        });
    }

    // The number of vectors before those of a block.
    std::int64_t first_vector(std::int64_t block) const {
        return chunks_[first_chunk_[block]].vector;
    }

    const P *packed(std::int64_t block) const { return chunks_[first_chunk_[block]].packed; }

    // Rows to be multiplied by such a weight, on one thread; see weight.h.
    class Rows {
      public:
        Rows(const ChainWeight &weight, std::int64_t, bool weights_stream, Scratch &scratch)
            : K_(weight.K_), weights_stream_(weights_stream), scratch_(scratch) {}

        void read(const std::vector<RowRange<T>> &ranges, std::int64_t stride, bool) {
            if constexpr (Terms::together == 1) {
                ranges_ = &ranges;
                stride_ = stride;
            } else {
                std::int64_t count = 0;
                for (const RowRange<T> &range : ranges)
                    count += range.rows;
                stride_ = Terms::row_stride(packed_terms(K_));
                P *to = scratch_.get<P>(count * stride_ + 1);
                packed_.clear();
                for (const RowRange<T> &range : ranges) {
                    packed_.push_back({to, range.rows, range.to});
                    for (int r = 0; r < range.rows; r++, to += stride_)
                        Terms::pack_row(K_, packed_terms(K_), range.from + r * stride, to);
                }
                ranges_ = &packed_;
            }
        }
        // Rows that are packed already.
        void take(const P *packed, std::int64_t count, std::int64_t stride) {
            packed_.assign(1, {packed, static_cast<int>(count), 0});
            ranges_ = &packed_;
            stride_ = stride;
        }
        std::int64_t parts() const { return std::ssize(*ranges_); }

      private:
        friend class ChainWeight;
        std::int64_t K_;
        bool weights_stream_;
        Scratch &scratch_;
        [[no_unique_address]] typename Terms::Registers registers_;
        std::vector<RowRange<P>> packed_;
        const std::vector<RowRange<P>> *ranges_ = nullptr;
        std::int64_t stride_ = 0;
    };

    ANAPHORA_INLINE void multiply(std::int64_t first, std::int64_t end, const Rows &rows,
                                  std::int64_t first_part, std::int64_t end_part,
                                  const Target<T> &to, bool backwards) const {
        const std::int64_t vector = first_vector(first);
        if constexpr (!Terms::own_tiles)
            if (end_part - first_part == 1 && (*rows.ranges_)[first_part].rows == 1) {
                std::int64_t full = end; // all columns of the blocks before it are there
                while (full > first && (first_vector(full) - vector) * lanes<T> > to.columns)
                    full--;
                multiply_row(first, full, (*rows.ranges_)[first_part], to);
                first = full;
            }
        const std::int64_t begin = first_chunk_[first], chunks = first_chunk_[end] - begin;
        for (std::int64_t n = 0; n < chunks; n++) {
            const Chunk &chunk = chunks_[begin + (backwards ? chunks - 1 - n : n)];
            const Target<T> at = to.from(chunk.vector - vector);
            multiply_chunk(chunk, rows, first_part, end_part, at.data, at.row, at.vector,
                           at.columns, at.accumulate);
        }
    }

  private:
    struct Chunk {
        P *packed;                 // [terms, width * lanes]
        std::int64_t vector;       // the number of vectors before it
        std::int64_t begin, terms; // of what terms are packed to
        int width;
    };

    static constexpr bool whole_sums = Terms::rows_after_terms > 0;

    // Some terms of a chunk of block n.
    void pack(const WeightShape &shape, std::int64_t n, const Chunk &chunk, Matrix<const T> B,
              std::int64_t first, std::int64_t count) const {
        Columns columns[max_vectors];
        for (int v = 0; v < chunk.width; v++)
            columns[v] =
                shape.columns(shape.blocks[n], chunk.vector - first_vector(n) + v, lanes<T>);
        const std::int64_t begin = (chunk.begin + first) * Terms::together;
        const Matrix<const T> terms{B.data + begin * B.row, B.row, B.column};
        P *to = chunk.packed + first * chunk.width * lanes<T>;
        count = std::min(count, chunk.terms - first);
        if constexpr (Terms::together == 1)
            pack_columns(count, terms, chunk.width, columns, to);
        else
            Terms::pack_columns(K_ - begin, count, terms, chunk.width, columns, to);
    }

    static std::int64_t first_packed(const Block &block) {
        constexpr std::int64_t step = Terms::together * Terms::multiple;
        return whole_sums ? 0 : block.begin_term / step * Terms::multiple;
    }
    static std::int64_t packed_rows(const WeightShape &shape, const Block &block) {
        return packed_terms(whole_sums ? shape.K : block.end_term) - first_packed(block) +
               Terms::rows_after_terms;
    }

    // Some parts by a chunk.
    static void multiply_chunk(const Chunk &chunk, const Rows &rows, std::int64_t first_part,
                               std::int64_t end_part, T *to, std::int64_t to_row,
                               std::int64_t to_vector, std::int64_t columns, bool accumulate) {
        const std::int64_t terms = chunk.terms, padded = chunk.width * lanes<T>;
        const int height = Terms::tile_rows(chunk.width);
        std::int64_t depth = terms;
        if (rows.weights_stream_ &&
            !whole_sums) { // many rows take the part of weights that fits in L1
            std::int64_t count = 0;
            for (std::int64_t part = first_part; part < end_part; part++)
                count += (*rows.ranges_)[part].rows;
            if (count > height)
                depth = (1 << 14) / sizeof(P) / padded / Terms::multiple * Terms::multiple;
        }
        const P *b = chunk.packed;
        for (std::int64_t k = 0;;) {
            const std::int64_t size = std::min(depth, terms - k);
            for (std::int64_t part = first_part; part < end_part; part++) {
                const RowRange<P> &range = (*rows.ranges_)[part];
                const P *from = range.from + chunk.begin + k;
                const Parts groups = Parts::of(range.rows, height);
                for (std::int64_t g = 0, row = range.to; g < groups.parts; g++) {
                    const int count = groups.size(g);
                    T *at = to + row * to_row;
                    if (columns >= padded)
                        multiply_tile<Terms, Operands::cached_rows>(chunk.width, count, size, from,
                                                                    rows.stride_, b, at, to_row,
                                                                    to_vector, accumulate);
                    else
                        multiply_edge(chunk.width, count, size, from, rows.stride_, b, at, to_row,
                                      columns, accumulate);
                    from += count * rows.stride_;
                    row += count;
                }
            }
            k += size;
            if (k == terms)
                return;
            b += size * padded;
            accumulate = true;
        }
    }

    // A tile of which some columns are there; those are adjacent.
    static void multiply_edge(int width, int rows, std::int64_t K, const P *a, std::int64_t stride,
                              const P *b, T *c, std::int64_t c_row, std::int64_t columns,
                              bool accumulate) {
        alignas(64) T edge[Terms::max_rows * Terms::max_vectors * lanes<T>];
        const std::int64_t padded = width * lanes<T>;
        const std::size_t bytes = columns * sizeof(T);
        for (int r = 0; r < rows && accumulate; r++)
            std::memcpy(edge + r * padded, c + r * c_row, bytes);
        multiply_tile<Terms, Operands::cached_rows>(width, rows, K, a, stride, b, edge, padded,
                                                    lanes<T>, accumulate);
        for (int r = 0; r < rows; r++)
            std::memcpy(c + r * c_row, edge + r * padded, bytes);
    }

    // One row by blocks all of whose columns are there; by two blocks at a time if they are alike,
    // which keeps enough chains in flight.
    void multiply_row(std::int64_t first, std::int64_t end, const RowRange<P> &row,
                      const Target<T> &to) const {
        const std::int64_t vector = first_vector(first);
        for (std::int64_t n = first; n < end; n++) {
            const std::int64_t c0 = first_chunk_[n], count = first_chunk_[n + 1] - c0;
            const bool two = n + 1 < end && alike(c0, count, first_chunk_[n + 2] - c0 - count);
            for (std::int64_t c = c0; c < c0 + count; c++) {
                const Chunk &chunk = chunks_[c], &next = chunks_[c + count];
                const P *a = row.from + chunk.begin;
                const Target<T> at = to.from(chunk.vector - vector).at_row(row.to);
                with_vectors(chunk.width, [&](auto NV) {
                    constexpr Operands O = Operands::cached_rows;
                    if (two)
                        multiply_tile_of<Terms, 1, NV, O, 2>(
                            chunk.terms, a, 0, chunk.packed, at.data, at.row, at.vector,
                            at.accumulate, next.packed - chunk.packed, next.vector - chunk.vector);
                    else
                        multiply_tile_of<Terms, 1, NV, O>(chunk.terms, a, 0, chunk.packed, at.data,
                                                          at.row, at.vector, at.accumulate);
                });
            }
            n += two;
        }
    }

    // Whether so many chunks of a block have the shapes of those of the next one.
    bool alike(std::int64_t first, std::int64_t count, std::int64_t next_count) const {
        if (count != next_count || count == 0)
            return false;
        const Chunk &last = chunks_[first + count - 1], &next = chunks_[first + 2 * count - 1];
        return chunks_[first].width == chunks_[first + count].width && last.width == next.width &&
               last.begin == next.begin && last.terms == next.terms;
    }

    std::int64_t K_;
    std::vector<Chunk> chunks_;             // and one that is empty
    std::vector<std::int64_t> first_chunk_; // of each block, and the end
};

// The product of matrices -------------------------------------------------------------------------

// C [M, N] (+)= A [M, K] B [K, N] + bias [N] (or none). C's columns are adjacent. A block of rows
// and a group of panels of columns go through K in blocks, so that their part of C and a block of B
// stay in the cache.
template <class T> class ChainProduct {
  public:
    ChainProduct(std::int64_t M, std::int64_t N, std::int64_t K, Matrix<const T> A,
                 Matrix<const T> B, T *C, std::int64_t c_row, const T *bias, bool accumulate)
        : M_(M), N_(N), K_(K), A_(A), B_(B), C_(C), c_row_(c_row), bias_(bias),
          accumulate_(accumulate), panels_(Parts::of((N + W - 1) / W, max_vectors)),
          threads_(available_threads()), height_(tile_rows(panels_.size(0))),
          tiles_((M + height_ - 1) / height_),
          // Columns of A that are far apart are read in place unless they would evict each other.
          by_columns_(A.column != 1),
          copies_a_(by_columns_ &&
                    !(A.row == 1 && (A.column <= set_stride || A.column % set_stride))),
          // With enough columns for all threads, each packs its own panels; otherwise all threads
          // pack B together and share its rows.
          packs_own_panels_(panels_.parts >= (copies_a_ ? 4 * max_panels : 3) * threads_),
          groups_((panels_.parts + max_panels - 1) / max_panels),
          row_blocks_((M + max_block_rows - 1) / max_block_rows) {
        if (packs_own_panels_) {
            const std::int64_t share = panels_.parts >= 6 * threads_ ? 2 * threads_ : threads_;
            groups_ = (groups_ + share - 1) / share * share;
        } else if (threads_ > 1) {
            row_blocks_ = std::max(row_blocks_, std::min(4 * threads_, (tiles_ + 3) / 4));
            row_blocks_ = std::min(tiles_, (row_blocks_ + threads_ - 1) / threads_ * threads_);
            while (panels_.parts > 4 * groups_ && row_blocks_ * groups_ < 6 * threads_)
                groups_ *= 2;
        }
    }

    void operator()() const {
        const std::int64_t depth = std::max<std::int64_t>(K_, 1);
        if (packs_own_panels_) {
            parallel(groups_, [&](std::int64_t group) {
                static thread_local Scratch scratch;
                const std::int64_t panel0 = first_panel(group), panel1 = first_panel(group + 1);
                const std::int64_t vectors = panels_.first(panel1) - panels_.first(panel0);
                T *packed = scratch.get<T>(vectors * W * depth);
                for (std::int64_t p = panel0; p < panel1; p++)
                    pack(p, 0, K_, packed + (panels_.first(p) - panels_.first(panel0)) * W * K_);
                for (std::int64_t block = 0; block < row_blocks_; block++)
                    multiply_block(block, panel0, panel1, packed);
            });
            return;
        }
        static thread_local Scratch scratch;
        T *packed = scratch.get<T>(panels_.count() * W * depth);
        const std::int64_t k_parts =
            panels_.parts < 2 * threads_ && K_ >= min_split_terms ? 2 * threads_ : 1;
        parallel(panels_.parts * k_parts, [&](std::int64_t task) {
            const std::int64_t p = task / k_parts, part = task % k_parts,
                               first = K_ * part / k_parts;
            pack(p, first, K_ * (part + 1) / k_parts - first, packed + panels_.first(p) * W * K_);
        });
        parallel(row_blocks_ * groups_, [&](std::int64_t task) {
            const std::int64_t block = task / groups_, group = task % groups_;
            const std::int64_t panel0 = first_panel(group);
            multiply_block(block, panel0, first_panel(group + 1),
                           packed + panels_.first(panel0) * W * K_);
        });
    }

  private:
    static constexpr std::int64_t W = lanes<T>;
    // A part of B of this depth and so many panels, and rows of A, stay in the second-level cache;
    // columns of A a multiple of a stride apart share a few sets of the first-level cache; B of so
    // many rows is packed by several threads.
    static constexpr std::int64_t max_depth = 384, max_block_rows = 192, max_panels = 12,
                                  set_stride = 2048 / sizeof(T), min_split_terms = 512;

    std::int64_t first_row(std::int64_t block) const {
        return std::min(M_, tiles_ * block / row_blocks_ * height_);
    }
    std::int64_t first_panel(std::int64_t group) const { return panels_.parts * group / groups_; }

    // Pack so many rows of B from the first one on.
    void pack(std::int64_t panel, std::int64_t first, std::int64_t depth, T *to) const {
        Columns columns[max_vectors];
        const int width = panels_.size(panel);
        for (int v = 0; v < width; v++) {
            const std::int64_t begin = (panels_.first(panel) + v) * W;
            columns[v] = {begin, N_ - begin};
        }
        pack_columns(depth, Matrix<const T>{B_.data + first * B_.row, B_.row, B_.column}, width,
                     columns, to + first * width * W);
    }

    void multiply_block(std::int64_t block, std::int64_t panel0, std::int64_t panel1,
                        const T *packed) const {
        static thread_local Scratch scratch;
        const std::int64_t row0 = first_row(block), row1 = first_row(block + 1);
        const std::int64_t depths = std::max<std::int64_t>(1, (K_ + max_depth - 1) / max_depth);
        for (std::int64_t d = 0; d < depths; d++) {
            const std::int64_t k0 = K_ * d / depths, depth = K_ * (d + 1) / depths - k0;
            const T *a = A_.data + row0 * A_.row + k0 * A_.column;
            std::int64_t stride = by_columns_ ? A_.column : A_.row;
            if (copies_a_) { // [depth, row1 - row0]
                stride = row1 - row0;
                T *copy = scratch.get<T>(stride * depth);
                for (std::int64_t k = 0; k < depth; k++)
                    if (A_.row == 1)
                        std::memcpy(copy + k * stride, a + k * A_.column, stride * sizeof(T));
                    else
                        for (std::int64_t i = 0; i < stride; i++)
                            copy[k * stride + i] = a[i * A_.row + k * A_.column];
                a = copy;
            }
            const T *bias = d + 1 == depths ? bias_ : nullptr;
            for (std::int64_t p = panel0; p < panel1; p++) {
                const T *b = packed + (panels_.first(p) - panels_.first(panel0)) * W * K_ +
                             k0 * panels_.size(p) * W;
                multiply_panel(p, row0, row1, depth, a, stride, b, accumulate_ || d > 0, bias);
            }
        }
    }

    void multiply_panel(std::int64_t p, std::int64_t row0, std::int64_t row1, std::int64_t depth,
                        const T *a, std::int64_t stride, const T *b, bool adding,
                        const T *bias) const {
        alignas(64) T edge[max_rows * max_vectors * W];
        const int vectors = panels_.size(p), height = tile_rows(vectors);
        const std::int64_t begin = panels_.first(p) * W;
        const std::int64_t width = std::min<std::int64_t>(vectors * W, N_ - begin);
        const bool full_panel = width == vectors * W;
        for (std::int64_t i = row0; i < row1; i += height) {
            const int count = static_cast<int>(std::min<std::int64_t>(height, row1 - i));
            T *c = C_ + i * c_row_ + begin;
            T *to = full_panel ? c : edge;
            const std::int64_t to_row = full_panel ? c_row_ : vectors * W;
            for (int r = 0; r < height; r++) // what the next tile will write
                for (int v = 0; v < vectors; v++)
                    __builtin_prefetch(c + (height + r) * c_row_ + v * W, 1);
            if (!full_panel && adding)
                for (int r = 0; r < count; r++)
                    std::memcpy(edge + r * to_row, c + r * c_row_, width * sizeof(T));
            if (by_columns_)
                multiply_tile<Numbers<T>, Operands::columns>(vectors, count, depth, a + (i - row0),
                                                             stride, b, to, to_row, W, adding);
            else
                multiply_tile<Numbers<T>, Operands::rows>(vectors, count, depth,
                                                          a + (i - row0) * stride, stride, b, to,
                                                          to_row, W, adding);
            for (int r = 0; r < count && (bias != nullptr || !full_panel); r++) {
                T *row = to + r * to_row;
                for (std::int64_t j = 0; j < width && bias != nullptr; j++)
                    row[j] += bias[begin + j];
                if (!full_panel)
                    std::memcpy(c + r * c_row_, row, width * sizeof(T));
            }
        }
    }

    std::int64_t M_, N_, K_;
    Matrix<const T> A_, B_;
    T *C_;
    std::int64_t c_row_;
    const T *bias_;
    bool accumulate_;
    Parts panels_;
    std::int64_t threads_, height_, tiles_;
    bool by_columns_, copies_a_, packs_own_panels_;
    std::int64_t groups_, row_blocks_;
};

} // namespace anaphora::ANAPHORA_ISA
