// Multiply-adds by NEON (see multiply_add.h): plain, with dot products of bytes (sdot), and with products of 2 x 8 by 8 x 2
// matrices of bytes (usmmla).
#pragma once

#include "simd.h"

namespace tilewhisper::ISA {

#if defined(ISA_I8MM)
inline constexpr int BLOCK = 6, NIBBLE_BLOCK = 3, ACCUMULATORS = 24, OFFSET_ROWS = 0;
#elif defined(ISA_DOT)
inline constexpr int BLOCK = 4, NIBBLE_BLOCK = 3, ACCUMULATORS = 20, OFFSET_ROWS = 1;
#else
inline constexpr int BLOCK = 4, NIBBLE_BLOCK = 2, ACCUMULATORS = 16, OFFSET_ROWS = 0;
#endif

using Word = int32x2_t;  // in the first lane; no instruction but a load
inline Word word(const void* from) { return vcreate_s32(load<uint32_t>(from)); }

// 16-bit entries are multiplied by one number of the row at a time: a vector for each number, of four columns.
template <int NUMBERS>
struct Apart {
    int16x4_t of[NUMBERS];
};

inline void halve(int16x8_t even, int16x8_t odd, Apart<2>* of) {
    of[0] = {vget_low_s16(even), vget_low_s16(odd)};
    of[1] = {vget_high_s16(even), vget_high_s16(odd)};
}

inline void columns(const int16_t* from, Apart<2>* of) {
    for (int half = 0; half < 2; ++half) {
        const int16x8x2_t apart = vuzpq_s16(load<int16x8_t>(from + half * 16), load<int16x8_t>(from + half * 16 + 8));
        halve(apart.val[0], apart.val[1], of + half * 2);
    }
}

inline void columns(const int8_t* from, Apart<2>* of) {
    const int8x16x2_t apart = vuzpq_s8(load<int8x16_t>(from), load<int8x16_t>(from + 16));
    halve(vmovl_s8(vget_low_s8(apart.val[0])), vmovl_s8(vget_low_s8(apart.val[1])), of);
    halve(vmovl_high_s8(apart.val[0]), vmovl_high_s8(apart.val[1]), of + 2);
}

inline Ints add_pairs(Ints sums, Word row, Apart<2> columns) {
    const auto numbers = (int16x4_t)row;
    const int32x4_t more = vmlal_lane_s16((int32x4_t)sums, columns.of[0], numbers, 0);
    return (Ints)vmlal_lane_s16(more, columns.of[1], numbers, 1);
}

#if defined(ISA_DOT) || defined(ISA_I8MM)

template <class Entry>
struct ColumnsOf {
    using type = Apart<2>;
};
template <>
struct ColumnsOf<Quad> {
    using type = Ints;
};

inline void columns(const Quad* from, Ints* of) {
    for (int v = 0; v < 4; ++v) of[v] = load<Ints>(from + v * 4);
}

inline Ints add_nibbles(Ints sums, Word row, Ints columns) {
    return (Ints)vdotq_lane_s32((int32x4_t)sums, (int8x16_t)columns, (int8x8_t)row, 0);
}

#else

template <class Entry>
struct ColumnsOf {
    using type = Apart<2>;
};
template <>
struct ColumnsOf<Quad> {
    using type = Apart<4>;
};

inline void columns(const Quad* from, Apart<4>* of) {
    const int8x16x4_t apart = vld4q_s8(from->of);
    for (int i = 0; i < 4; ++i) {
        const int16x8_t low = vmovl_s8(vget_low_s8(apart.val[i])), high = vmovl_high_s8(apart.val[i]);
        of[0].of[i] = vget_low_s16(low);
        of[1].of[i] = vget_high_s16(low);
        of[2].of[i] = vget_low_s16(high);
        of[3].of[i] = vget_high_s16(high);
    }
}

inline Ints add_quads(Ints sums, Word row, Apart<4> columns) {
    const auto numbers = (int16x4_t)vget_low_u16(vmovl_u8((uint8x8_t)row));
    int32x4_t more = vmlal_lane_s16((int32x4_t)sums, columns.of[0], numbers, 0);
    more = vmlal_lane_s16(more, columns.of[1], numbers, 1);
    more = vmlal_lane_s16(more, columns.of[2], numbers, 2);
    return (Ints)vmlal_lane_s16(more, columns.of[3], numbers, 3);
}

inline Ints add_nibbles(Ints sums, Word row, Ints columns) {  // four products add up within 16 bits
    const auto x = (int8x16_t)vdupq_lane_s32(row, 0), w = (int8x16_t)columns;
    const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
    return (Ints)vpadalq_s16((int32x4_t)sums, pairs);
}

#endif

template <class Entry>
using Columns = typename ColumnsOf<Entry>::type;

#if defined(ISA_I8MM)

#define ISA_QUAD_TILE

inline Ints add_quads(Ints sums, Word row, Ints columns) {
    return (Ints)vsudotq_lane_s32((int32x4_t)sums, (int8x16_t)columns, (uint8x8_t)row, 0);
}

// Two rows and two words at a time. QUADS has a column's two words in two vectors, which are zipped for all rows at once.
// Where there is no second word, the entries for it are zero, and the rows' words are whatever follows.
template <int ROWS>
inline constexpr bool HAS_QUAD_TILE = ROWS % 2 == 0;
alignas(16) inline constexpr Quad NO_ENTRIES[PANEL] = {};

template <int ROWS, int PANELS>
STANDALONE void quad_tile(const char* x, int64_t stride, const Quad* panel, int64_t panel_stride, int64_t count,
                          int32_t* sums) {
    constexpr int WIDE = PANELS * 4;         // vectors of four columns
    int32x4_t tile[ROWS / 2][WIDE][2] = {};  // of two rows by two columns
    for (int64_t i = 0; i < count; i += 2) {
        uint8x16_t rows[ROWS / 2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS / 2; ++r) {
            const char* row = x + 2 * r * stride + i * 4;
            rows[r] = vcombine_u8(load<uint8x8_t>(row), load<uint8x8_t>(row + stride));
        }
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) {
            const Quad *first = panel + v / 4 * panel_stride + i * PANEL,
                       *second = i + 1 < count ? first + PANEL : NO_ENTRIES;
            const auto one = load<int32x4_t>(first + v % 4 * 4), two = load<int32x4_t>(second + v % 4 * 4);
            const auto left = (int8x16_t)vzip1q_s32(one, two), right = (int8x16_t)vzip2q_s32(one, two);
            asm("" ::: "memory");  // gcc would load all columns at once, and spill sums
#pragma GCC unroll 16
            for (int r = 0; r < ROWS / 2; ++r) {
                tile[r][v][0] = vusmmlaq_s32(tile[r][v][0], rows[r], left);
                tile[r][v][1] = vusmmlaq_s32(tile[r][v][1], rows[r], right);
                asm("" : "+w"(tile[r][v][0]), "+w"(tile[r][v][1]));  // clang would move sums from register to register
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS / 2; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) {
            const auto left = (int64x2_t)tile[r][v][0], right = (int64x2_t)tile[r][v][1];
            store(sums + (2 * r * WIDE + v) * 4, vzip1q_s64(left, right));
            store(sums + ((2 * r + 1) * WIDE + v) * 4, vzip2q_s64(left, right));
        }
}

#elif defined(ISA_DOT)

#define ISA_QUAD_TILE

// sdot multiplies signed bytes: the rows' numbers minus 128, and 128 times the sum of each column's entries is added.
template <int ROWS>
inline constexpr bool HAS_QUAD_TILE = true;

template <int ROWS, int PANELS>
STANDALONE void quad_tile(const char* x, int64_t stride, const Quad* panel, int64_t panel_stride, int64_t count,
                          int32_t* sums) {
    constexpr int WIDE = PANELS * 4;
    int32x4_t tile[ROWS][WIDE] = {}, of_columns[WIDE] = {};
    for (int64_t i = 0; i < count; ++i) {
        int8x16_t columns[WIDE];
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) {
            columns[v] = load<int8x16_t>(panel + v / 4 * panel_stride + i * PANEL + v % 4 * 4);
            of_columns[v] = vdotq_s32(of_columns[v], columns[v], vdupq_n_s8(1));
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const auto row = (int8x8_t)veor_u8((uint8x8_t)word(x + r * stride + i * 4), vdup_n_u8(128));
#pragma GCC unroll 16
            for (int v = 0; v < WIDE; ++v) tile[r][v] = vdotq_lane_s32(tile[r][v], columns[v], row, 0);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v)
            store(sums + (r * WIDE + v) * 4, vaddq_s32(tile[r][v], vshlq_n_s32(of_columns[v], 7)));
}

#endif

}  // namespace tilewhisper::ISA
