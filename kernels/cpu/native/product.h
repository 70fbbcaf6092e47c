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

// A call, so that its code does not stand in every tile's.
template <int ROWS>
__attribute__((noinline)) void gelu_of(Floats* values) {
    for (int r = 0; r < ROWS; ++r) values[r] = gelu(values[r]);
}

// Stores a tile's sums as results: scaled, + low rank, + bias, GELU, + residual. `sum(i)` has LANES sums from number i of
// the tile on. Column by column, so that what columns need is loaded once for all rows.
template <int PANELS, int ROWS, bool SCALED, class Sum>
inline void finish(const Sum& sum, WordRows x, int64_t row, const Weight& w, int64_t panel, const Epilogue& then,
                   float* out) {
    for (int64_t v = 0; v < PANELS * VECTORS; ++v) {
        const int64_t column = panel * PANEL + v * LANES, left = w.n - column;
        if (left <= 0) return;
        const bool whole = left >= LANES;
        const Floats scale = SCALED ? load<Floats>(w.scale + column) : Floats{};
        const Floats added = then.bias ? load<Floats>(then.bias + column) : Floats{};
        Floats values[ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            Floats y = sum(r * PANELS * PANEL + v * LANES);
            if (SCALED) y *= x.scale[row + r] * scale;
            if (w.sum) y += x.offset[row + r] * load<Floats>(w.sum + column);
            const LowRank more = then.more.at(row + r, column);
            for (int64_t t = 0; t < more.rank; ++t) y += more.row[t] * load<Floats>(more.column + t * more.stride);
            values[r] = y + added;
        }
        if (then.gelu) gelu_of<ROWS>(values);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const int64_t at = (row + r) * w.n + column;
            Floats y = values[r];
            if (then.residual) y += whole ? load<Floats>(then.residual + at) : load_some(then.residual + at, left);
            if (whole)
                store(out + at, y);
            else
                std::memcpy(out + at, &y, left * sizeof(float));
        }
    }
}

template <int PANELS, class Entry, int ROWS>
inline void tile(WordRows x, int64_t row, const Weight& w, int64_t panel, const Epilogue& then, float* out) {
    constexpr int64_t NUMBERS_OF_TILE = ROWS * PANELS * PANEL;
    alignas(64) float sums[NUMBERS_OF_TILE];
    const char* rows = x.data + row * x.stride;
    if constexpr (__is_same(Entry, Nibbles)) {
        const int64_t groups = groups_of(w.k);
        nibble_tile<ROWS, PANELS>(rows, x.stride, static_cast<const char*>(w.panels) + panel * groups * GROUP_BYTES,
                                  w.group_scale + panel * groups * PANEL, groups, sums);
        finish<PANELS, ROWS, false>([&](int64_t i) { return load<Floats>(sums + i); }, x, row, w, panel, then, out);
    } else {
        const int64_t count = words_of(w.k, w.layout), stride = count * PANEL * ENTRIES<Entry>;
        const auto* panels = static_cast<const Entry*>(w.panels) + panel * stride;
        const int64_t before = (count - 1) / x.steps.words * x.steps.words;
        alignas(64) int32_t last[NUMBERS_OF_TILE];
        if (before) long_tile<ROWS, PANELS>(rows, x.stride, x.steps.words, panels, stride, before, sums);
        dot_tile<ROWS, PANELS>(rows + before * 4, x.stride, panels + before * PANEL * ENTRIES<Entry>, stride, count - before,
                               last);
        const auto sum = [&](int64_t i) {
            const Floats y = to_float(load<Ints>(last + i));
            return before ? load<Floats>(sums + i) + y : y;
        };
        finish<PANELS, ROWS, true>(sum, x, row, w, panel, then, out);
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
