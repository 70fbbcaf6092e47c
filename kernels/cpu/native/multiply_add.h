// Multiply-adds of a word of a row with the columns of a panel: what each instruction set does in its own way.
//
//     BLOCK          rows at a time, and
//     ACCUMULATORS   the vectors of sums that leave registers free for a row's word and the panel's entries
//     word           a row's word, made ready
//     columns        the entries of LANES columns of a panel for one word, made ready: 16-bit pairs, stored in 16 or 8
//                    bits, or 8-bit quads. Rows of a tile share them
//     add_pairs      sums + low(row) * low(columns) + high(row) * high(columns), of 16-bit numbers
//     add_quads      the same with four 8-bit numbers in each lane, unsigned in the row, signed in the columns
//     add_nibbles    the same with numbers up to 15 in the columns, and signed in the row
#pragma once

#if defined(__x86_64__) && ISA_LANES > 4
#include "multiply_add_x86.h"
#elif defined(ISA_NEON)
#include "multiply_add_neon.h"
#else
#include "multiply_add_portable.h"
#endif

namespace tilewhisper::ISA {

// sums + a row's word times the columns' entries for it.
template <class Entry>
inline Ints add_products(Ints sums, Word row, Columns<Entry> columns) {
    if constexpr (__is_same(Entry, Quad))
        return add_quads(sums, row, columns);
    else
        return add_pairs(sums, row, columns);
}

}  // namespace tilewhisper::ISA
