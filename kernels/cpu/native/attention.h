// One block of queries against all keys and values of a head, with a float32 softmax between.
//
//     in 16 bits: both products of 16-bit pairs, in the same steps as a linear layer. All softmax weights of a row are known
//                 before they are quantised, so that their steps are as fine as the row's sums allow
//     in 8 bits:  both products of quads, which take half the time and memory. A row's largest weight is 255
//
// Scores exist for a block of queries only: BLOCK rows of n.
#pragma once

#include "kernels.h"
#include "panels.h"
#include "product.h"
#include "quantize.h"
#include "simd.h"

namespace tilewhisper::ISA {

static_assert(MAX_HEAD_DIM <= PAIRS_STEPS.words * 2);  // a score is one sum
inline constexpr int64_t SUM = PAIRS_STEPS.words * 2;  // positions whose weights and values are added up as whole numbers
// For softmax weights: dither and rounding add less than 1 to each, 8 more to a norm than rounding alone.
inline constexpr Steps WEIGHTS_STEPS{LIMIT_16 - 1, NORM - 8, PAIRS_STEPS.words};

// PANEL rows of `words` words each to a panel.
inline void pack_panel(const char* rows, int64_t words, char* panel) {
    for (int64_t word = 0; word < words; ++word)
        for (int64_t column = 0; column < PANEL; ++column)
            std::memcpy(panel + (word * PANEL + column) * 4, rows + (column * words + word) * 4, 4);
}

inline void pack_key_pairs(FloatRows k, int64_t n, int64_t head_dim, int16_t* panels, float* scale) {
    alignas(64) int16_t rows[PANEL * MAX_HEAD_DIM];
    for (int64_t first = 0; first < n; first += PANEL, panels += PANEL * head_dim) {
        for (int64_t j = first; j < first + PANEL; ++j) {
            int16_t* row = rows + (j - first) * head_dim;
            if (j < n)
                scale[j] = quantize_row(k.data + j * k.stride, head_dim, PAIRS_STEPS, row);
            else
                std::memset(row, 0, head_dim * sizeof *row), scale[j] = 0;
        }
        pack_panel(reinterpret_cast<char*>(rows), head_dim / 2, reinterpret_cast<char*>(panels));
    }
}

inline void pack_key_quads(FloatRows k, int64_t n, int64_t head_dim, Quad* panels, float* scale, float* of_entries) {
    alignas(64) int8_t rows[PANEL * MAX_HEAD_DIM];
    for (int64_t first = 0; first < n; first += PANEL, panels += PANEL * head_dim / 4) {
        for (int64_t j = first; j < first + PANEL; ++j) {
            int8_t* row = rows + (j - first) * head_dim;
            const float* key = k.data + (j < n ? j : first) * k.stride;
            const float most = j < n ? largest_magnitude(key, head_dim) : 0.0f;
            Ints total{};
            if (most > 0.0f) {
                const float factor = LIMIT_8 / most;
                for (int64_t i = 0; i < head_dim; i += LANES) {
                    const Ints whole = round(load<Floats>(key + i) * factor);
                    store(row + i, __builtin_convertvector(whole, Bytes));
                    total += whole;
                }
            } else {  // all zeros, or a NaN, which the scale keeps
                std::memset(row, 0, head_dim);
            }
            scale[j] = most / LIMIT_8;
            of_entries[j] = sum(to_float(total)) * scale[j];
        }
        pack_panel(reinterpret_cast<char*>(rows), head_dim / 4, reinterpret_cast<char*>(panels));
    }
}

inline void pack_keys(FloatRows k, int64_t n, int64_t head_dim, void* panels, float* scale, float* sum) {
    if (sum)
        pack_key_quads(k, n, head_dim, static_cast<Quad*>(panels), scale, sum);
    else
        pack_key_pairs(k, n, head_dim, static_cast<int16_t*>(panels), scale);
}

// The largest sum of squares, over `most` squared, of LANES columns in the pieces of SUM rows that n rows are cut into.
inline Floats largest_squares(FloatRows v, int64_t n, int64_t column, Floats most) {
    const Floats factor = 1.0f / most;
    Floats largest{};
    for (int64_t j = 0; j < n;) {
        const int64_t end = j + SUM < n ? j + SUM : n;
        Floats squares{};
        for (; j < end; ++j) {
            const Floats x = load<Floats>(v.data + j * v.stride + column) * factor;
            squares += x * x;
        }
        largest = larger(squares, largest);
    }
    return largest;
}

// With one scale for each column of v, over all n rows.
template <class Value>
inline void pack_value_words(FloatRows v, int64_t n, int64_t head_dim, Value* panels, float* scale) {
    constexpr int64_t NUMBERS = tilewhisper::NUMBERS<Value>, BITS = 32 / NUMBERS;
    const int64_t words = (n + NUMBERS - 1) / NUMBERS;
    for (int64_t column = 0; column < head_dim; column += LANES) {
        Floats most{}, poison{};
        for (int64_t j = 0; j < n; ++j) {
            const Floats x = load<Floats>(v.data + j * v.stride + column);
            most = larger(magnitude(x), most);
            poison += x * 0.0f;
        }
        Floats up = all(static_cast<float>(LIMIT_8));
        if constexpr (NUMBERS == 2) {
            const Floats squares = largest_squares(v, n, column, most);
            for (int64_t i = 0; i < LANES; ++i) up[i] = steps_for_norm(PAIRS_STEPS, __builtin_sqrtf(squares[i]));
        }
        const Floats factor = most > 0.0f ? up / most : Floats{};
        store(scale + column, most / up + poison);
        Value* to = panels + (column / PANEL * words * PANEL + column % PANEL) * ENTRIES<Value>;
        for (int64_t j = 0; j < n; j += NUMBERS, to += PANEL * ENTRIES<Value>) {
            Ints word{};
            for (int64_t i = 0; i < NUMBERS && j + i < n; ++i) {
                const Ints whole = round(load<Floats>(v.data + (j + i) * v.stride + column) * factor);
                word |= (whole & ((1 << BITS) - 1)) << (i * BITS);
            }
            store(to, word);
        }
    }
}

inline void pack_values(FloatRows v, int64_t n, int64_t head_dim, int64_t bits, void* panels, float* scale) {
    if (bits == 8)
        pack_value_words(v, n, head_dim, static_cast<Quad*>(panels), scale);
    else
        pack_value_words(v, n, head_dim, static_cast<int16_t*>(panels), scale);
}

// One thread's memory for a block of queries: their words, their scores, their softmax weights.
struct Scratch {
    float* scores;  // BLOCK x columns
    char* weights;  // BLOCK x columns, in 16 or 8 bits
    char* queries;  // BLOCK x head_dim, in 16 or 8 bits
    int64_t columns;

    Scratch(void* memory, int64_t n) : columns(scratch_columns(n)) {
        scores = static_cast<float*>(memory);
        weights = reinterpret_cast<char*>(scores + BLOCK * columns);
        queries = weights + BLOCK * columns * 2;
    }
};

// The scale and offset of a query's words, multiplied by the scale of attention scores.
struct QueryScale {
    float scale, offset;
};

inline QueryScale quantize_query(const float* q, int64_t head_dim, float scale, int16_t* to) {
    return {scale * quantize_row(q, head_dim, PAIRS_STEPS, to), 0.0f};
}

inline QueryScale quantize_query(const float* q, int64_t head_dim, float scale, Quad* to) {
    QueryScale of;
    quantize_bytes(q, head_dim, reinterpret_cast<uint8_t*>(to), &of.scale, &of.offset);
    return {scale * of.scale, scale * of.offset};
}

// Scores of ROWS queries against the keys of WIDTH panels, and the largest of each query in each lane.
template <int ROWS, int WIDTH, class Key>
inline void score_panels(const QueryScale* query, const KeysValues& kv, const float* bias, Scratch at, int64_t panel,
                         Floats* most) {
    alignas(64) int32_t sums[ROWS * WIDTH * PANEL];
    const int64_t count = kv.head_dim / NUMBERS<Key>, stride = count * PANEL * ENTRIES<Key>;
    dot_tile<ROWS, WIDTH>(at.queries, count * 4, static_cast<const Key*>(kv.keys) + panel * stride, stride, count, sums);
    for (int64_t i = 0; i < WIDTH * PANEL; i += LANES) {
        const int64_t column = panel * PANEL + i;
        const Floats scale = load<Floats>(kv.key_scale + column), added = load<Floats>(bias + column);
        const Floats of_entries = NUMBERS<Key> == 4 ? load<Floats>(kv.key_sum + column) : Floats{};
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            Floats x = to_float(load<Ints>(sums + r * WIDTH * PANEL + i)) * (query[r].scale * scale) + added;
            if constexpr (NUMBERS<Key> == 4) x += query[r].offset * of_entries;
            store(at.scores + r * at.columns + column, x);
            most[r] = larger(x, most[r]);
        }
    }
}

// Numbers evenly from -1/2 to 1/2, neighbours far apart (a van der Corput sequence). Added before rounding, they preserve
// the sum of small weights: of many weights of 0.1 every tenth becomes 1, where rounding alone makes all of them 0. Heads of
// Whisper's encoder spread much of their weight so thinly: the error of attention in 16 bits was 4e-4 with rounding alone
// and 1e-4 with dither, the error of tiny.en's encoder states with weights of 8 bits 5.2 % and 2.7 %.
struct Dither {
    static constexpr int64_t PERIOD = 64;
    float of[PERIOD];

    constexpr Dither() : of() {
        for (int64_t i = 0; i < PERIOD; ++i) {
            int64_t reversed = 0;
            for (int64_t bit = 1; bit < PERIOD; bit *= 2) reversed = reversed * 2 + (i & bit ? 1 : 0);
            of[i] = (static_cast<float>(reversed) + 0.5f) / PERIOD - 0.5f;
        }
    }
};
alignas(64) inline constexpr Dither DITHER;

// Scores of one row, `top` the largest, to softmax weights; returns the factor of their products with values.
inline float softmax_weights(float* scores, float top, int64_t n, int16_t* weights) {
    const int64_t padded = panels_of(n) * PANEL;
    Floats total{};
    float most = 0.0f;
    for (int64_t i = 0; i < padded;) {
        const int64_t end = i + SUM < padded ? i + SUM : padded;
        Floats squares{};
        for (; i < end; i += LANES) {
            const Floats p = exp(load<Floats>(scores + i) - top);
            total += p;
            squares += p * p;
            store(scores + i, p);
        }
        const float found = sum(squares);
        most = found > most ? found : most;
    }
    const float factor = steps_for_norm(WEIGHTS_STEPS, __builtin_sqrtf(most));
    Floats rounded{};
    for (int64_t i = 0; i < padded; i += LANES) {
        const Ints w = round(load<Floats>(scores + i) * factor + load<Floats>(DITHER.of + i % Dither::PERIOD));
        rounded += to_float(w);
        store(weights + i, __builtin_convertvector(w, Shorts));
    }
    return 1.0f / sum(rounded) + sum(total) * 0.0f;  // a NaN anywhere in the row stays one
}

inline float softmax_weights(float* scores, float top, int64_t n, Quad* weights) {
    const int64_t padded = panels_of(n) * PANEL;
    Ints rounded{};
    Floats total{};
    for (int64_t i = 0; i < padded; i += LANES) {
        const Floats p = exp(load<Floats>(scores + i) - top) * LIMIT_U8;
        const Ints w = round(p + load<Floats>(DITHER.of + i % Dither::PERIOD));
        rounded += w & LIMIT_U8;  // within 0 to 255 already, unless a score is NaN
        total += p;
        store(reinterpret_cast<char*>(weights) + i, __builtin_convertvector(w, Bytes));
    }
    return 1.0f / sum(to_float(rounded)) + sum(total) * 0.0f;
}

// The weights of ROWS queries times the columns of WIDTH panels of values.
template <int ROWS, int WIDTH, class Value>
inline void weighted_sum_panels(const float* row_scale, const KeysValues& kv, Scratch at, int64_t panel, float* out,
                                int64_t out_stride) {
    alignas(64) float sums[ROWS * WIDTH * PANEL];
    const int64_t count = (kv.n + NUMBERS<Value> - 1) / NUMBERS<Value>, stride = count * PANEL * ENTRIES<Value>;
    const int64_t step = NUMBERS<Value> == 4 ? QUADS_STEPS.words : PAIRS_STEPS.words;
    long_tile<ROWS, WIDTH>(at.weights, at.columns * 4 / NUMBERS<Value>, step,
                           static_cast<const Value*>(kv.values) + panel * stride, stride, count, sums);
    for (int r = 0; r < ROWS; ++r)
        for (int64_t i = 0; i < WIDTH * PANEL; i += LANES) {
            const int64_t column = panel * PANEL + i;
            const Floats factor = row_scale[r] * load<Floats>(kv.value_scale + column);
            store(out + r * out_stride + column, load<Floats>(sums + r * WIDTH * PANEL + i) * factor);
        }
}

template <class Entry, int ROWS = BLOCK>
inline void attention_of(FloatRows q, int64_t row, int64_t rows, const KeysValues& kv, float scale, const float* bias,
                         Scratch at, float* out, int64_t out_stride) {
    constexpr int PANELS = panels_for(ROWS);
    const int64_t key_panels = panels_of(kv.n), value_panels = kv.head_dim / PANEL;
    const int64_t query_bytes = kv.head_dim / NUMBERS<Entry> * 4, weight_bytes = at.columns * 4 / NUMBERS<Entry>;
    QueryScale query[ROWS];
    float row_scale[ROWS];
    for (; row + ROWS <= rows; row += ROWS) {
        for (int r = 0; r < ROWS; ++r)
            query[r] = quantize_query(q.data + (row + r) * q.stride, kv.head_dim, scale,
                                      reinterpret_cast<Entry*>(at.queries + r * query_bytes));
        int64_t panel = 0;
        Floats most[ROWS];
        for (Floats& of_row : most) of_row = all(-__builtin_inff());
        for (; panel + PANELS <= key_panels; panel += PANELS)
            score_panels<ROWS, PANELS, Entry>(query, kv, bias, at, panel, most);
        for (; panel < key_panels; ++panel) score_panels<ROWS, 1, Entry>(query, kv, bias, at, panel, most);
        for (int r = 0; r < ROWS; ++r)
            row_scale[r] = softmax_weights(at.scores + r * at.columns, largest(most[r]), kv.n,
                                           reinterpret_cast<Entry*>(at.weights + r * weight_bytes));
        float* to = out + row * out_stride;
        for (panel = 0; panel + PANELS <= value_panels; panel += PANELS)
            weighted_sum_panels<ROWS, PANELS, Entry>(row_scale, kv, at, panel, to, out_stride);
        for (; panel < value_panels; ++panel) weighted_sum_panels<ROWS, 1, Entry>(row_scale, kv, at, panel, to, out_stride);
    }
    if constexpr (ROWS > 1) attention_of<Entry, fewer(ROWS)>(q, row, rows, kv, scale, bias, at, out, out_stride);
}

inline void attention(FloatRows q, int64_t rows, KeysValues kv, float scale, const float* bias, void* scratch, float* out,
                      int64_t out_stride) {
    const Scratch at(scratch, kv.n);
    if (kv.key_sum)
        attention_of<Quad>(q, 0, rows, kv, scale, bias, at, out, out_stride);
    else
        attention_of<int16_t>(q, 0, rows, kv, scale, bias, at, out, out_stride);
}

}  // namespace tilewhisper::ISA
