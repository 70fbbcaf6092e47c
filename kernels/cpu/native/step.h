// What else a decoding step takes, in float32: self-attention of a few new tokens against a cache that grows by them, which
// is small; layer norm; sums and maxima over scores.
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

// `values` weighted by `weights`, n rows `head_dim` apart: VECTORS of their columns.
template <int VECTORS>
inline void mix_rows(const float* weights, const float* values, int64_t n, int64_t head_dim, float share, float* out) {
    Floats mixed[VECTORS] = {};
    for (int64_t j = 0; j < n; ++j)
#pragma GCC unroll 16
        for (int v = 0; v < VECTORS; ++v) mixed[v] += weights[j] * load<Floats>(values + j * head_dim + v * LANES);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) store(out + v * LANES, mixed[v] * share);
}

// softmax(scale * q keys^T) values over the first n rows of a head's cache; `scores` has room for n, rounded up to LANES.
inline void attend_rows(const float* q, const float* keys, const float* values, int64_t n, int64_t head_dim, float scale,
                        float* scores, float* out) {
    constexpr int WIDE = PANEL / LANES;  // vectors of the least that a head's size is a multiple of
    const int64_t padded = (n + LANES - 1) / LANES * LANES;
    float most = -__builtin_inff();
    for (int64_t j = 0; j < n; ++j) {
        scores[j] = scale * dot(q, keys + j * head_dim, head_dim);
        most = scores[j] > most ? scores[j] : most;
    }
    for (int64_t j = n; j < padded; ++j) scores[j] = -__builtin_inff();
    Floats total{};
    for (int64_t j = 0; j < padded; j += LANES) {
        const Floats p = exp(load<Floats>(scores + j) - most);
        total += p;
        store(scores + j, p);
    }
    const float share = 1.0f / sum(total);
    int64_t i = 0;
    for (; i + 4 * PANEL <= head_dim; i += 4 * PANEL) mix_rows<4 * WIDE>(scores, values + i, n, head_dim, share, out + i);
    for (; i < head_dim; i += PANEL) mix_rows<WIDE>(scores, values + i, n, head_dim, share, out + i);
}

inline float largest_of(const float* x, int64_t n) {
    Floats most = all(-__builtin_inff());
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) most = larger(load<Floats>(x + i), most);
    float found = largest(most);
    for (; i < n; ++i) found = x[i] > found ? x[i] : found;
    return found;
}

// What must not come, -inf, counts as e^-87: 50,000 of them are nothing beside the 1 of the largest.
inline float sum_of_exps(const float* x, int64_t n, float most) {
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
