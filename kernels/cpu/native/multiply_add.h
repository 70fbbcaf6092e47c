// Multiply-adds of a word of a row with the columns of a panel: what each instruction set does in its own way.
//
//     BLOCK          rows at a time, NIBBLE_BLOCK with nibbles, whose tiles have two vectors for a sum, and
//     ACCUMULATORS   the vectors of sums that leave registers free for a row's word and the panel's entries; a tile of quads
//     OFFSET_ROWS    needs as many as so many rows more
//     word           a row's word, made ready
//     columns        a panel's entries for one word, made ready: Columns for each vector of LANES columns. They are 16-bit
//                    pairs, stored in 16 or 8 bits, or 8-bit quads, and all rows of a tile share them
//     add_pairs      sums + low(row) * low(columns) + high(row) * high(columns), of 16-bit numbers
//     add_quads      the same with four 8-bit numbers in each lane, unsigned in the row, signed in the columns
//     add_nibbles    the same with numbers up to 15 in the columns, and signed in the row
//     quad_tile      optional, if HAS_QUAD_TILE: what word_tile in product.h does, for quads
#pragma once

#if defined(__x86_64__) && ISA_LANES > 4
#include "multiply_add_x86.h"
#elif defined(ISA_NEON)
#include "multiply_add_neon.h"
#else
#include "multiply_add_portable.h"
#endif

namespace tilewhisper::ISA {

#ifndef ISA_QUAD_TILE
template <int ROWS>
inline constexpr bool HAS_QUAD_TILE = false;
template <int ROWS, int PANELS>
void quad_tile(const char* x, int64_t stride, const Quad* panel, int64_t panel_stride, int64_t count, int32_t* sums);
#endif

// sums + a row's word times the columns' entries for it.
template <class Entry>
inline Ints add_products(Ints sums, Word row, Columns<Entry> columns) {
    if constexpr (__is_same(Entry, Quad))
        return add_quads(sums, row, columns);
    else
        return add_pairs(sums, row, columns);
}

}  // namespace tilewhisper::ISA
