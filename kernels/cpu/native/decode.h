// Small float32 kernels of a decode step: self-attention of a new token over its cache, layer norm, sums and maxima of
// logits.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace tilewhisper::ISA {

inline float dot(const float* a, const float* b, int64_t n) {
    Floats total{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) total += load<Floats>(a + i) * load<Floats>(b + i);
    float rest = sum(total);
    for (; i < n; ++i) rest += a[i] * b[i];
    return rest;
}

// The same products and order of sums as `dot` of b in float32.
template <class Stored>
inline float dot_stored(const float* a, const Stored* b, int64_t n) {
    Floats total{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) total += load<Floats>(a + i) * stored_floats(b + i);
    float rest = sum(total);
    if (i < n) {
        Stored last[LANES] = {};
        std::memcpy(last, b + i, (n - i) * sizeof(Stored));
        const Floats values = stored_floats(last);
        for (int64_t j = 0; i + j < n; ++j) rest += a[i + j] * values[j];
    }
    return rest;
}

inline float dot_stored(const float* a, const void* b, Number numbers, int64_t n) {
    switch (numbers) {
        case Number::FLOAT32: return dot_stored(a, static_cast<const float*>(b), n);
        case Number::FLOAT16: return dot_stored(a, static_cast<const Half*>(b), n);
        case Number::BFLOAT16: return dot_stored(a, static_cast<const BFloat*>(b), n);
    }
    return 0;
}

template <class Stored>
inline void add_stored(const float* a, const Stored* b, int64_t n, float* to) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load<Floats>(a + i) + stored_floats(b + i));
    if (i == n) return;
    Stored last[LANES] = {};
    std::memcpy(last, b + i, (n - i) * sizeof(Stored));
    const Floats values = stored_floats(last);
    for (int64_t j = 0; i + j < n; ++j) to[i + j] = a[i + j] + values[j];
}

inline void add_stored(const float* a, const void* b, Number numbers, int64_t n, float* to) {
    switch (numbers) {
        case Number::FLOAT32: return add_stored(a, static_cast<const float*>(b), n, to);
        case Number::FLOAT16: return add_stored(a, static_cast<const Half*>(b), n, to);
        case Number::BFLOAT16: return add_stored(a, static_cast<const BFloat*>(b), n, to);
    }
}

// The sum of the first n values, weighted by `weights`: VECTORS of their columns, from `column` on.
template <int VECTORS>
inline void weighted_sum(const float* weights, const PagedKeysValues& cache, int64_t n, int64_t column, float factor,
                         float* out) {
    Floats sums[VECTORS] = {};
    for (int64_t first = 0; first < n; first += cache.tokens) {
        const float* values = cache.value(first) + column;
        const int64_t count = n - first < cache.tokens ? n - first : cache.tokens;
        for (int64_t j = 0; j < count; ++j)
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v)
                sums[v] += weights[first + j] * load<Floats>(values + j * cache.head_dim + v * LANES);
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) store(out + v * LANES, sums[v] * factor);
}

// softmax(scale * q keys^T) values over the first n tokens of a head's cache; `scores` has space for n, rounded up to LANES.
inline void self_attention(const float* q, const PagedKeysValues& cache, int64_t n, float scale, float* scores, float* out) {
    constexpr int WIDE = PANEL / LANES;  // vectors of a panel's columns: a head's size is a multiple of PANEL
    const int64_t padded = (n + LANES - 1) / LANES * LANES;
    float most = -__builtin_inff();
    for (int64_t first = 0; first < n; first += cache.tokens) {
        const float* key = cache.key(first);
        const int64_t last = n - first < cache.tokens ? n : first + cache.tokens;
        for (int64_t j = first; j < last; ++j, key += cache.head_dim) {
            scores[j] = scale * dot(q, key, cache.head_dim);
            most = scores[j] > most ? scores[j] : most;
        }
    }
    for (int64_t j = n; j < padded; ++j) scores[j] = -__builtin_inff();
    Floats total{};
    for (int64_t j = 0; j < padded; j += LANES) {
        const Floats p = exp(load<Floats>(scores + j) - most);
        total += p;
        store(scores + j, p);
    }
    const float factor = 1.0f / sum(total);
    int64_t i = 0;
    for (; i + 4 * PANEL <= cache.head_dim; i += 4 * PANEL) weighted_sum<4 * WIDE>(scores, cache, n, i, factor, out + i);
    for (; i < cache.head_dim; i += PANEL) weighted_sum<WIDE>(scores, cache, n, i, factor, out + i);
}

inline float max_of(const float* x, int64_t n) {
    Floats most = all(-__builtin_inff());
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) most = larger(load<Floats>(x + i), most);
    float found = largest(most);
    for (; i < n; ++i) found = x[i] > found ? x[i] : found;
    return found;
}

// A suppressed logit, -inf, counts as e^-87: 50,000 of them vanish beside the 1 of the largest.
inline float sum_exp(const float* x, int64_t n, float most) {
    Floats total{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) total += exp(load<Floats>(x + i) - most);
    float found = sum(total);
    for (; i < n; ++i) found += exp(all(x[i] - most))[0];
    return found;
}

inline void layer_norm(const float* x, int64_t n, const float* weight, const float* bias, float eps, float* to) {
    const int64_t whole = n / LANES * LANES;
    Floats total{}, squares{};
    for (int64_t i = 0; i < whole; i += LANES) total += load<Floats>(x + i);
    float mean = sum(total);
    for (int64_t i = whole; i < n; ++i) mean += x[i];
    mean /= n;
    for (int64_t i = 0; i < whole; i += LANES) {
        const Floats off = load<Floats>(x + i) - mean;
        squares += off * off;
    }
    float variance = sum(squares);
    for (int64_t i = whole; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / __builtin_sqrtf(variance / n + eps);
    for (int64_t i = 0; i < whole; i += LANES)
        store(to + i, (load<Floats>(x + i) - mean) * factor * load<Floats>(weight + i) + load<Floats>(bias + i));
    for (int64_t i = whole; i < n; ++i) to[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

}  // namespace tilewhisper::ISA
