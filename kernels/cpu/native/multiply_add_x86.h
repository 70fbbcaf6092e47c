// Multiply-adds by AVX2, AVX-VNNI and AVX-512 with VNNI (see multiply_add.h).
#pragma once

#include "simd.h"

namespace tilewhisper::ISA {

// 12 x 2 panels of AVX-512's 32 registers ran at 220 of 215-220 GOP/s (Zen 4, one core), 4 x 1 of AVX2's 16 at 175 of 170;
// 6 x 1 spilled, which takes no register for results in between with VNNI.
#if ISA_LANES == 16
inline constexpr int BLOCK = 12, NIBBLE_BLOCK = 12, ACCUMULATORS = 24, OFFSET_ROWS = 0;
#elif defined(ISA_VNNI)
inline constexpr int BLOCK = 6, NIBBLE_BLOCK = 4, ACCUMULATORS = 12, OFFSET_ROWS = 0;
#else
inline constexpr int BLOCK = 4, NIBBLE_BLOCK = 4, ACCUMULATORS = 8, OFFSET_ROWS = 0;
#endif

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
#if ISA_LANES == 16
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)row, (__m512i)columns);
#elif defined(ISA_VNNI)
    return (Ints)_mm256_dpwssd_epi32((__m256i)sums, (__m256i)row, (__m256i)columns);
#else
    return sums + (Ints)_mm256_madd_epi16((__m256i)row, (__m256i)columns);
#endif
}

inline Ints add_quads(Ints sums, Word row, Ints columns) {
#if ISA_LANES == 16
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)row, (__m512i)columns);
#elif defined(ISA_VNNI)
    return (Ints)_mm256_dpbusd_epi32((__m256i)sums, (__m256i)row, (__m256i)columns);
#else  // as two pairs of 16 bits; AVX2's own product of bytes saturates
    const Ints low = all(0x00ff00ff);
    const auto even = (Ints)((ShortPairs)((ShortPairs)columns << 8) >> 8), odd = (Ints)((ShortPairs)columns >> 8);
    return add_pairs(add_pairs(sums, row & low, even), (row >> 8) & low, odd);
#endif
}

inline Ints add_nibbles(Ints sums, Word row, Ints columns) {
#if ISA_LANES == 8 && !defined(ISA_VNNI)  // no pair of products exceeds 16 bits
    const auto pairs = (Ints)_mm256_maddubs_epi16((__m256i)columns, (__m256i)row);
    return add_pairs(sums, pairs, all(0x00010001));
#else
    return add_quads(sums, columns, row);
#endif
}

}  // namespace tilewhisper::ISA
