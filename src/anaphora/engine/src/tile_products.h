// How float32 is multiplied where there are tile registers: in fixed point forward, split for
// gradients.
#pragma once

#include "fixed.h"
#include "split.h"

#if defined(ANAPHORA_HAS_TILES) // of AVX-512 alone

namespace anaphora::ANAPHORA_ISA {

// The same functions as ChainProducts, for recurrent weights that suit tiles.
struct TileProducts : FixedProducts, SplitProducts {
    static constexpr int tile_rows = FixedTile::lines;
    static bool suits_gates(std::int64_t) { return true; }
    using FixedProducts::multiply;
    using SplitProducts::multiply;
};

// For smaller ones: chains in a step, and an input's weight that suits tiles multiplies a span.
struct SmallProducts : ChainProducts<float> {
    static bool suits_gates(std::int64_t inputs) { return !FixedTile::suits(inputs); }
    static constexpr auto multiply = FixedProducts::multiply;
    using Projection = FixedProducts::Projection;
};

} // namespace anaphora::ANAPHORA_ISA

#endif
