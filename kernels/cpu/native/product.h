// Products of rows in words with packed panels: the inner loop that linear layers and attention share.
#pragma once

#include <cstddef>

#include "kernels.h"
#include "multiply_add.h"
#include "panels.h"
#include "simd.h"

namespace tilewhisper::ISA {

constexpr int panels_for(int rows, int accumulators = ACCUMULATORS) {
    const int fit = accumulators / ((rows + OFFSET_ROWS) * VECTORS);
    return fit < 1 ? 1 : fit > 4 ? 4 : fit;
}

// sums[row][column] = x[row] . panel[column] for ROWS rows `stride` bytes apart and PANELS panels `panel_stride` entries
// apart, over `count` words. Not to be cloned for constant strides: gcc 12 then spills accumulators and halves the speed.
template <int ROWS, int PANELS, class Entry>
STANDALONE void word_tile(const char* x, int64_t stride, const Entry* panel, int64_t panel_stride, int64_t count,
                          int32_t* sums) {
    constexpr int WIDE = PANELS * VECTORS;
    Ints tile[ROWS][WIDE] = {};
    for (int64_t i = 0; i < count; ++i) {
        Columns<Entry> of[WIDE];
        // Bound by memory: prefetch the next panels. The LM head of base, 1 row 1.34 -> 1.06 ms, 8 rows 1.5 -> 1.24.
        if constexpr (ROWS <= 8) {
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; ++p)
                __builtin_prefetch(panel + (p + PANELS) * panel_stride + i * PANEL * ENTRIES<Entry>, 0, 2);
        }
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; ++p) columns(panel + p * panel_stride + i * PANEL * ENTRIES<Entry>, of + p * VECTORS);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const Word row = word(x + r * stride + i * 4);
#pragma GCC unroll 16
            for (int v = 0; v < WIDE; ++v) tile[r][v] = add_products<Entry>(tile[r][v], row, of[v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) store(sums + (r * WIDE + v) * LANES, tile[r][v]);
}

template <int ROWS, int PANELS, class Entry>
inline void dot_tile(const char* x, int64_t stride, const Entry* panel, int64_t panel_stride, int64_t count, int32_t* sums) {
    if constexpr (__is_same(Entry, Quad) && HAS_QUAD_TILE<ROWS>)
        quad_tile<ROWS, PANELS>(x, stride, panel, panel_stride, count, sums);
    else
        word_tile<ROWS, PANELS>(x, stride, panel, panel_stride, count, sums);
}

// The same as float32 and over any length >= 1: `step` words at a time, which stay within an int32.
template <int ROWS, int PANELS, class Entry>
inline void long_tile(const char* x, int64_t stride, int64_t step, const Entry* panel, int64_t panel_stride, int64_t count,
                      float* sums) {
    alignas(64) int32_t part[ROWS * PANELS * PANEL];
    int64_t done = 0;
    do {
        const int64_t now = count - done < step ? count - done : step;
        dot_tile<ROWS, PANELS>(x + done * 4, stride, panel + done * PANEL * ENTRIES<Entry>, panel_stride, now, part);
        for (int i = 0; i < ROWS * PANELS * PANEL; i += LANES) {
            const Floats more = to_float(load<Ints>(part + i));
            store(sums + i, done ? load<Floats>(sums + i) + more : more);
        }
        done += now;
    } while (done < count);
}

// Panels of nibbles, and their sums, scaled. Each group has an integer sum and adds it to a float32 one: two accumulators.
struct Nibbles {
    uint8_t of[4];
};

template <int ROWS, int PANELS>
STANDALONE void nibble_tile(const char* x, int64_t stride, const char* panel, const uint16_t* scales, int64_t groups,
                            float* sums) {
    constexpr int WIDE = PANELS * VECTORS;
    Floats tile[ROWS][WIDE] = {};
    for (int64_t group = 0; group < groups; ++group, x += sizeof(RowGroup)) {
        if constexpr (ROWS <= 8) {
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; ++p) {
                const int64_t ahead = (p + PANELS) * groups + group;
                for (int64_t line = 0; line < GROUP_BYTES; line += 64)
                    __builtin_prefetch(panel + ahead * GROUP_BYTES + line, 0, 2);
                __builtin_prefetch(scales + ahead * PANEL, 0, 2);
            }
        }
        Ints part[ROWS][WIDE];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
            for (int v = 0; v < WIDE; ++v) part[r][v] = all(load<int32_t>(x + r * stride + offsetof(RowGroup, minus)));
#pragma GCC unroll 4
        for (int64_t j = 0; j < 4; ++j)
#pragma GCC unroll 16
            for (int v = 0; v < WIDE; ++v) {
                const int64_t at = v / VECTORS * groups + group;
                const Ints both = load<Ints>(panel + at * GROUP_BYTES + (j * PANEL + v % VECTORS * LANES) * 4);
                const Ints half = all(0x0f0f0f0f), low = both & half, high = (both >> 4) & half;
#pragma GCC unroll 16
                for (int r = 0; r < ROWS; ++r) {
                    const char* row = x + r * stride + j * 4;
                    part[r][v] = add_nibbles(part[r][v], word(row), low);
                    part[r][v] = add_nibbles(part[r][v], word(row + GROUP / 2), high);
                }
            }
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) {
            const Floats scale = halves(scales + (v / VECTORS * groups + group) * PANEL + v % VECTORS * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r)
                tile[r][v] += to_float(part[r][v]) * (scale * load<float>(x + r * stride + offsetof(RowGroup, scale)));
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < WIDE; ++v) store(sums + (r * WIDE + v) * LANES, tile[r][v]);
}

// After blocks of 12 rows the rest goes in blocks of 8, and at last all at once, since each block reads the weight.
constexpr int fewer(int n) { return n == 12 ? 8 : n - 1; }

// Stores one row's 16 sums of a panel: scaled unless `column_scale` is null, + low rank, + bias, GELU, + residual; the first
// `columns` of them are in the matrix.
inline void finish(const float* sums, float row_scale, const float* column_scale, float row_offset, const float* column_sum,
                   const float* bias, LowRank more, bool with_gelu, const float* residual, float* out, int64_t columns) {
    alignas(64) float edge[PANEL] = {};
    const bool whole = columns == PANEL;
    if (!whole && residual) std::memcpy(edge, residual, columns * sizeof(float));
    const float* added = whole ? residual : edge;
    float* to = whole ? out : edge;
    for (int64_t v = 0; v < PANEL; v += LANES) {
        Floats y = load<Floats>(sums + v);
        if (column_scale) y *= row_scale * load<Floats>(column_scale + v);
        if (column_sum) y += row_offset * load<Floats>(column_sum + v);
        for (int64_t t = 0; t < more.rank; ++t) y += more.row[t] * load<Floats>(more.column + t * more.stride + v);
        if (bias) y += load<Floats>(bias + v);
        if (with_gelu) y = gelu(y);
        if (residual) y += load<Floats>(added + v);
        store(to + v, y);
    }
    if (!whole) std::memcpy(out, edge, columns * sizeof(float));
}

template <int PANELS, class Entry, int ROWS>
inline void tile(WordRows x, int64_t row, Weight w, int64_t panel, Epilogue then, float* out) {
    constexpr bool NIBBLES = __is_same(Entry, Nibbles);
    alignas(64) float sums[ROWS * PANELS * PANEL];
    const char* rows = x.data + row * x.stride;
    if constexpr (NIBBLES) {
        const int64_t groups = groups_of(w.k);
        nibble_tile<ROWS, PANELS>(rows, x.stride, static_cast<const char*>(w.panels) + panel * groups * GROUP_BYTES,
                                  w.group_scale + panel * groups * PANEL, groups, sums);
    } else {
        const int64_t count = words_of(w.k, w.layout), stride = count * PANEL * ENTRIES<Entry>;
        const auto* panels = static_cast<const Entry*>(w.panels) + panel * stride;
        long_tile<ROWS, PANELS>(rows, x.stride, x.steps.words, panels, stride, count, sums);
    }
    for (int r = 0; r < ROWS; ++r)
        for (int p = 0; p < PANELS; ++p) {
            const int64_t column = (panel + p) * PANEL, at = (row + r) * w.n + column;
            const int64_t columns = w.n - column < PANEL ? w.n - column : PANEL;
            finish(sums + (r * PANELS + p) * PANEL, NIBBLES ? 1.0f : x.scale[row + r], NIBBLES ? nullptr : w.scale + column,
                   w.sum ? x.offset[row + r] : 0.0f, w.sum ? w.sum + column : nullptr,
                   then.bias ? then.bias + column : nullptr, then.more.at(row + r, column), then.gelu,
                   then.residual ? then.residual + at : nullptr, out + at, columns);
        }
}

// Panel by panel, all rows over it: a panel stays in the first cache, the rows in the second.
template <class Entry, int ROWS = __is_same(Entry, Nibbles) ? NIBBLE_BLOCK : BLOCK>
inline void product_of(WordRows x, int64_t row, int64_t rows, Weight w, int64_t first, int64_t last, Epilogue then,
                       float* out) {
    constexpr int PANELS = panels_for(ROWS, __is_same(Entry, Nibbles) ? ACCUMULATORS / 2 : ACCUMULATORS);
    const int64_t end = row + (rows - row) / ROWS * ROWS;
    int64_t panel = row < end ? first : last;
    for (; panel + PANELS <= last; panel += PANELS)
        for (int64_t r = row; r < end; r += ROWS) tile<PANELS, Entry, ROWS>(x, r, w, panel, then, out);
    for (; panel < last; ++panel)
        for (int64_t r = row; r < end; r += ROWS) tile<1, Entry, ROWS>(x, r, w, panel, then, out);
    if constexpr (ROWS > 1) product_of<Entry, fewer(ROWS)>(x, end, rows, w, first, last, then, out);
}

inline void product(WordRows x, int64_t rows, Weight w, int64_t first, int64_t last, Epilogue then, float* out) {
    switch (w.layout) {
        case Layout::PAIRS: return product_of<int16_t>(x, 0, rows, w, first, last, then, out);
        case Layout::BYTE_PAIRS: return product_of<int8_t>(x, 0, rows, w, first, last, then, out);
        case Layout::QUADS: return product_of<Quad>(x, 0, rows, w, first, last, then, out);
        case Layout::NIBBLES: return product_of<Nibbles>(x, 0, rows, w, first, last, then, out);
    }
}

}  // namespace tilewhisper::ISA
