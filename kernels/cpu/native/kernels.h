// The kernels that every instruction set provides: plain functions on plain memory, for one thread. Operators divide the
// work among threads, and check every size before.
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
// number x stands for x * scale[i], an 8-bit number for x * scale[i] + offset[i]. For nibbles a row is RowGroups.
struct WordRows {
    char* data;
    int64_t stride;
    float* scale;
    float* offset;
    Steps steps;
    WordRows from(int64_t row) const { return {data + row * stride, stride, scale + row, offset + row, steps}; }
};

// A packed weight (see panels.h): n columns of k, a scale for each column (panels_of(n) * PANEL of them), and for quads the
// sum of the values that a column's entries stand for, by which the rows' offsets are multiplied. Nibbles have scales by
// group instead, the bits of float16.
struct Weight {
    const void* panels;
    Layout layout;
    const float* scale;
    const float* sum;
    int64_t k;
    int64_t n;
    const uint16_t* group_scale;
};

// Layer norm of a row before it is quantised; none if `weight` is null.
struct Norm {
    const float* weight;
    const float* bias;
    float eps;
};

// A product of `rank` terms, added to a product: row[i * rank + t] column[t * stride + j] for each term t.
struct LowRank {
    const float* row;
    const float* column;
    int64_t stride;
    int64_t rank;
    LowRank at(int64_t i, int64_t j) const { return rank ? LowRank{row + i * rank, column + j, stride, rank} : *this; }
};

// Operations on a sum before it is stored: + low rank, + bias, GELU, + residual. A null pointer leaves a step out.
struct Epilogue {
    const float* bias;  // (n,)
    bool gelu;
    const float* residual;  // with the result's layout
    LowRank more;
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

// The numbers that a weight's rows may have in its file.
enum class Number { FLOAT32, FLOAT16, BFLOAT16 };

// Float32 keys and values of one head of one text, in pages of a few tokens each.
struct PagedKeysValues {
    float* const* pages;   // where each page starts
    int64_t keys, values;  // from there to the head's first key and its first value
    int64_t tokens;        // of a page
    int64_t head_dim;
    float* key(int64_t token) const { return pages[token / tokens] + keys + token % tokens * head_dim; }
    float* value(int64_t token) const { return pages[token / tokens] + values + token % tokens * head_dim; }
};

struct Kernels {
    const char* name;
    int64_t block;  // rows at a time that use every register

    // Rows [0, rows) of x (k long) in the words that a weight of that layout takes. A row with a NaN or an infinity gets
    // the scale NaN. `normed` has space for k numbers if there is a norm.
    void (*quantize)(FloatRows x, int64_t rows, int64_t k, Norm norm, Layout layout, WordRows to, float* normed);

    // One row in 16-bit numbers; returns its scale.
    float (*quantize_row)(const float* x, int64_t k, Steps steps, int16_t* to);

    // out[i * n + j] for the given rows and panels of columns.
    void (*product)(WordRows x, int64_t rows, Weight w, int64_t first_panel, int64_t last_panel, Epilogue then, float* out);

    // softmax(scale * q k^T + bias) v for `rows` queries; `bias` has panels_of(n) * PANEL entries, -inf beyond n.
    // `scratch` is attention_scratch(n) bytes, aligned to 64.
    void (*attention)(FloatRows q, int64_t rows, KeysValues kv, float scale, const float* bias, void* scratch, float* out,
                      int64_t out_stride);

    // softmax(scale * q keys^T) values for one float32 query over the first n tokens; `scores` has space for
    // panels_of(n) * PANEL numbers.
    void (*self_attention)(const float* q, const PagedKeysValues& cache, int64_t n, float scale, float* scores, float* out);

    // One row of n numbers minus their mean, over their standard deviation, times `weight`, plus `bias`.
    void (*layer_norm)(const float* x, int64_t n, const float* weight, const float* bias, float eps, float* to);

    float (*dot)(const float* a, const float* b, int64_t n);
    float (*dot_stored)(const float* a, const void* b, Number numbers, int64_t n);  // b of any alignment, and finite
    void (*add_stored)(const float* a, const void* b, Number numbers, int64_t n, float* to);  // a + b
    float (*max)(const float* x, int64_t n);                                                  // NaN is passed over
    float (*sum_exp)(const float* x, int64_t n, float max);  // of e^(x - max), where max is at least each x

    // In 16 bits, or with a `sum` in 8 bits.
    void (*pack_keys)(FloatRows k, int64_t n, int64_t head_dim, void* panels, float* scale, float* sum);
    // In 16 bits or 8.
    void (*pack_values)(FloatRows v, int64_t n, int64_t head_dim, int64_t bits, void* panels, float* scale);
};

extern const Kernels portable_kernels;
extern const Kernels avx2_kernels, avx_vnni_kernels, avx512_kernels;
extern const Kernels neon_kernels, neon_dot_kernels, neon_i8mm_kernels;

}  // namespace tilewhisper
