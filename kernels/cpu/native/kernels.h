// What every instruction set provides: plain functions on plain memory, for one thread. ops.cpp shares the work out.
#pragma once

#include <cstdint>

#include "panels.h"

namespace tilewhisper {

// Rows of numbers: row i starts at data + i * stride.
struct FloatRows {
    const float* data;
    int64_t stride;
};

// Rows in words of a layout (see panels.h), row i from data + i * stride bytes on, with a scale and an offset each: a 16-bit
// number x stands for x * scale[i], an 8-bit number for x * scale[i] + offset[i].
struct WordRows {
    char* data;
    int64_t stride;
    float* scale;
    float* offset;
    Steps steps;
    WordRows from(int64_t row) const { return {data + row * stride, stride, scale + row, offset + row, steps}; }
};

// A packed weight (see panels.h): n columns of k, a scale a column (panels_of(n) * PANEL of them), and for quads the sum
// of what a column stands for: the rows' offsets are multiplied by it.
struct Weight {
    const void* panels;
    Layout layout;
    const float* scale;
    const float* sum;
    int64_t k;
    int64_t n;
};

// What happens to a row before it is quantised: layer norm, unless `weight` is null.
struct Norm {
    const float* weight;
    const float* bias;
    float eps;
};

// What happens to a sum before it is stored: + bias, GELU, + residual. A null pointer leaves a step out.
struct Epilogue {
    const float* bias;      // (n,)
    bool gelu;
    const float* residual;  // laid out as the result
};

// Keys and values of one head, packed by `pack_keys` and `pack_values`: both in 16 bits or both in 8.
struct KeysValues {
    const void* keys;          // panels of n columns, head_dim long: pairs, or quads
    const float* key_scale;    // (panels_of(n) * PANEL,)
    const float* key_sum;      // of quads, as a weight's: (panels_of(n) * PANEL,); else null
    const void* values;        // panels of head_dim columns, n long: pairs, or quads
    const float* value_scale;  // (head_dim,)
    int64_t n;
    int64_t head_dim;
};

struct Kernels {
    const char* name;
    int64_t block;  // rows at a time that keep every register busy

    // Rows [0, rows) of x (k long) in the words that a weight of that layout takes. A row with a NaN or an infinity gets
    // the scale NaN. `normed` has room for k numbers where there is a norm.
    void (*quantize)(FloatRows x, int64_t rows, int64_t k, Norm norm, Layout layout, WordRows to, float* normed);

    // One row in 16-bit numbers; returns its scale.
    float (*quantize_row)(const float* x, int64_t k, Steps steps, int16_t* to);

    // out[i * n + j] for the given rows and panels of columns.
    void (*product)(WordRows x, int64_t rows, Weight w, int64_t first_panel, int64_t last_panel, Epilogue then, float* out);

    // softmax(scale * q k^T + bias) v for `rows` queries; `bias` has panels_of(n) * PANEL entries, -inf beyond n.
    // `scratch` is attention_scratch(n) bytes, aligned to 64.
    void (*attention)(FloatRows q, int64_t rows, KeysValues kv, float scale, const float* bias, void* scratch, float* out,
                      int64_t out_stride);

    // softmax(scale * q keys^T) values for one float32 query over n dense rows of keys and values; `scores` has room for
    // panels_of(n) * PANEL numbers.
    void (*attend_rows)(const float* q, const float* keys, const float* values, int64_t n, int64_t head_dim, float scale,
                        float* scores, float* out);

    // One row of n numbers less their mean, over their standard deviation, times `weight`, plus `bias`.
    void (*layer_norm)(const float* x, int64_t n, const float* weight, const float* bias, float eps, float* to);

    float (*dot)(const float* a, const float* b, int64_t n);
    float (*largest)(const float* x, int64_t n);
    float (*sum_of_exps)(const float* x, int64_t n, float most);  // of e^(x - most), where most is at least each x

    // In 16 bits, or with a `sum` in 8.
    void (*pack_keys)(FloatRows k, int64_t n, int64_t head_dim, void* panels, float* scale, float* sum);
    // In 16 bits or 8.
    void (*pack_values)(FloatRows v, int64_t n, int64_t head_dim, int64_t bits, void* panels, float* scale);
};

extern const Kernels portable_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;

}  // namespace tilewhisper
