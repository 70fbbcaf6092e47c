// One block of queries against all keys and values of a head, in 16-bit products with a float32 softmax between.
//
// Scores live for a block of queries only: BLOCK rows of n. The softmax's weights become 16-bit numbers by a factor of
// each row's own: since the row's sum is known by then, the factor can be the largest for which the int32 sum over all
// values still holds, however many keys there are.
#pragma once

#include "kernels.h"
#include "panels.h"
#include "product.h"
#include "quantize.h"
#include "simd.h"

namespace tilewhisper::ISA {

// The largest magnitude of a query's and a key's numbers such that head_dim products fit an int32.
inline int32_t score_limit(int64_t head_dim) {
    const auto limit = static_cast<int32_t>(__builtin_sqrt(static_cast<double>(INT32_MAX) / head_dim));
    return limit < LIMIT_16 ? limit : LIMIT_16;
}

inline void pack_keys(FloatRows k, int64_t n, int64_t head_dim, int16_t* panels, float* scale) {
    alignas(64) int16_t row[MAX_HEAD_DIM];
    const int64_t count = head_dim / 2;
    for (int64_t j = 0; j < panels_of(n) * PANEL; ++j) {
        if (j == n) std::memset(row, 0, sizeof row);
        scale[j] = j < n ? quantize_row(k.data + j * k.stride, head_dim, score_limit(head_dim), row) : 0.0f;
        int16_t* column = panels + j / PANEL * count * PANEL * 2 + j % PANEL * 2;
        for (int64_t pair = 0; pair < count; ++pair) std::memcpy(column + pair * PANEL * 2, row + pair * 2, 4);
    }
}

// One scale a column of v, over all n rows.
inline void pack_values(FloatRows v, int64_t n, int64_t head_dim, int16_t* panels, float* scale) {
    for (int64_t column = 0; column < head_dim; column += LANES) {
        Floats most{}, poison{};
        for (int64_t j = 0; j < n; ++j) {
            const Floats x = load<Floats>(v.data + j * v.stride + column);
            most = larger(magnitude(x), most);
            poison += x * 0.0f;
        }
        const Floats factor = most > 0.0f ? LIMIT / most : Floats{};
        store(scale + column, most / LIMIT + poison);
        int16_t* to = panels + column / PANEL * pairs_of(n) * PANEL * 2 + column % PANEL * 2;
        for (int64_t j = 0; j < n; j += 2, to += PANEL * 2) {
            const Ints low = round(load<Floats>(v.data + j * v.stride + column) * factor);
            const Ints high = j + 1 < n ? round(load<Floats>(v.data + (j + 1) * v.stride + column) * factor) : Ints{};
            store(to, (low & 0xffff) | (high << 16));
        }
    }
}

struct Scratch {
    float* scores;     // BLOCK x columns
    int16_t* weights;  // BLOCK x columns
    int16_t* queries;  // BLOCK x head_dim
    int64_t columns;

    Scratch(void* memory, int64_t n) : columns(scratch_columns(n)) {
        scores = static_cast<float*>(memory);
        weights = reinterpret_cast<int16_t*>(scores + BLOCK * columns);
        queries = weights + BLOCK * columns;
    }
};

inline const char* bytes_at(const int16_t* words) { return reinterpret_cast<const char*>(words); }

// Scores of ROWS queries against the keys of WIDTH panels.
template <int ROWS, int WIDTH>
inline void score_panels(const float* query_scale, const KeysValues& kv, const float* bias, Scratch at, int64_t panel) {
    alignas(64) int32_t sums[ROWS * WIDTH * PANEL];
    const int64_t count = kv.head_dim / 2, stride = count * PANEL * 2;
    dot_tile<ROWS, WIDTH>(bytes_at(at.queries), kv.head_dim * 2, kv.keys + panel * stride, stride, count, sums);
    for (int r = 0; r < ROWS; ++r)
        for (int64_t i = 0; i < WIDTH * PANEL; i += LANES) {
            const int64_t column = panel * PANEL + i;
            const Floats factor = query_scale[r] * load<Floats>(kv.key_scale + column);
            const Floats x = to_float(load<Ints>(sums + r * WIDTH * PANEL + i)) * factor;
            store(at.scores + r * at.columns + column, x + load<Floats>(bias + column));
        }
}

// Scores of one row to 16-bit weights; returns what their products with values are to be multiplied by.
inline float weigh(float* scores, int64_t n, int16_t* weights) {
    const int64_t padded = panels_of(n) * PANEL;
    Floats most = load<Floats>(scores), total{};
    for (int64_t i = LANES; i < padded; i += LANES) most = larger(load<Floats>(scores + i), most);
    const float top = largest(most);
    for (int64_t i = 0; i < padded; i += LANES) {
        const Floats p = exp(load<Floats>(scores + i) - top);
        total += p;
        store(scores + i, p);
    }
    // Rounding adds at most a half to each weight; a part in a thousand is kept for the sum's own rounding.
    const float room = 0.999f * (INT32_MAX / LIMIT) - 0.5f * n, fit = room / sum(total);
    const float factor = fit < LIMIT_16 ? fit : LIMIT_16;
    Floats kept{};
    for (int64_t i = 0; i < padded; i += LANES) {
        const Ints w = round(load<Floats>(scores + i) * factor);
        kept += to_float(w);
        store(weights + i, __builtin_convertvector(w, Shorts));
    }
    return 1.0f / sum(kept) + sum(total) * 0.0f;  // a NaN anywhere in the row stays one
}

// The weights of ROWS queries times the columns of WIDTH panels of values.
template <int ROWS, int WIDTH>
inline void mix_panels(const float* row_scale, const KeysValues& kv, Scratch at, int64_t panel, float* out,
                       int64_t out_stride) {
    alignas(64) int32_t sums[ROWS * WIDTH * PANEL];
    const int64_t count = pairs_of(kv.n), stride = count * PANEL * 2;
    dot_tile<ROWS, WIDTH>(bytes_at(at.weights), at.columns * 2, kv.values + panel * stride, stride, count, sums);
    for (int r = 0; r < ROWS; ++r)
        for (int64_t i = 0; i < WIDTH * PANEL; i += LANES) {
            const int64_t column = panel * PANEL + i;
            const Floats factor = row_scale[r] * load<Floats>(kv.value_scale + column);
            store(out + r * out_stride + column, to_float(load<Ints>(sums + r * WIDTH * PANEL + i)) * factor);
        }
}

template <int ROWS = BLOCK>
inline void attention_of(FloatRows q, int64_t row, int64_t rows, const KeysValues& kv, float scale, const float* bias,
                         Scratch at, float* out, int64_t out_stride) {
    constexpr int PANELS = panels_for(ROWS);
    const int64_t key_panels = panels_of(kv.n), value_panels = kv.head_dim / PANEL;
    float row_scale[ROWS];
    for (; row + ROWS <= rows; row += ROWS) {
        for (int r = 0; r < ROWS; ++r)
            row_scale[r] = scale * quantize_row(q.data + (row + r) * q.stride, kv.head_dim, score_limit(kv.head_dim),
                                                at.queries + r * kv.head_dim);
        int64_t panel = 0;
        for (; panel + PANELS <= key_panels; panel += PANELS)
            score_panels<ROWS, PANELS>(row_scale, kv, bias, at, panel);
        for (; panel < key_panels; ++panel) score_panels<ROWS, 1>(row_scale, kv, bias, at, panel);
        for (int r = 0; r < ROWS; ++r)
            row_scale[r] = weigh(at.scores + r * at.columns, kv.n, at.weights + r * at.columns);
        float* to = out + row * out_stride;
        for (panel = 0; panel + PANELS <= value_panels; panel += PANELS)
            mix_panels<ROWS, PANELS>(row_scale, kv, at, panel, to, out_stride);
        for (; panel < value_panels; ++panel) mix_panels<ROWS, 1>(row_scale, kv, at, panel, to, out_stride);
    }
    if constexpr (ROWS > 1)
        attention_of<fewer(ROWS)>(q, row, rows, kv, scale, bias, at, out, out_stride);
}

inline void attention(FloatRows q, int64_t rows, KeysValues kv, float scale, const float* bias, void* scratch, float* out,
                      int64_t out_stride) {
    attention_of(q, 0, rows, kv, scale, bias, Scratch(scratch, kv.n), out, out_stride);
}

}  // namespace tilewhisper::ISA
