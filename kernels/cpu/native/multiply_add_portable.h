// Multiply-adds in plain C++ (see multiply_add.h).
#pragma once

#include "simd.h"

namespace tilewhisper::ISA {

inline constexpr int BLOCK = 2, NIBBLE_BLOCK = 2, ACCUMULATORS = 8, OFFSET_ROWS = 0;

using Word = Ints;
template <class Entry>
using Columns = Ints;

inline Word word(const void* from) { return all(load<int32_t>(from)); }
inline Ints entries(const int16_t* from) { return load<Ints>(from); }
inline Ints entries(const int8_t* from) { return (Ints) __builtin_convertvector(load<BytePairs>(from), ShortPairs); }
inline Ints entries(const Quad* from) { return load<Ints>(from); }

template <class Entry>
inline void columns(const Entry* from, Ints* of) {
    for (int64_t v = 0; v < VECTORS; ++v) of[v] = entries(from + v * LANES * ENTRIES<Entry>);
}

inline Ints add_pairs(Ints sums, Word row, Ints columns) {
    return sums + ((row << 16) >> 16) * ((columns << 16) >> 16) + (row >> 16) * (columns >> 16);
}

inline Ints add_quads(Ints sums, Ints row, Ints columns) {
    const Ints low = all(0x00ff00ff);
    const auto even = (Ints)((ShortPairs)((ShortPairs)columns << 8) >> 8), odd = (Ints)((ShortPairs)columns >> 8);
    return add_pairs(add_pairs(sums, row & low, even), (row >> 8) & low, odd);
}

inline Ints add_nibbles(Ints sums, Word row, Ints columns) { return add_quads(sums, columns, row); }

}  // namespace tilewhisper::ISA
