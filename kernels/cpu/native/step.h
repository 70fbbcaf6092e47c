// Self-attention of a decoding step: a few new tokens against a cache that grows by them. Float32: the cache is small.
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

// softmax(scale * q keys^T) values over the first n rows of a head's cache; `scores` has room for n, rounded up to LANES.
inline void attend_rows(const float* q, const float* keys, const float* values, int64_t n, int64_t head_dim, float scale,
                        float* scores, float* out) {
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
    for (int64_t i = 0; i < head_dim; i += LANES) {
        Floats mixed{};
        for (int64_t j = 0; j < n; ++j) mixed += scores[j] * load<Floats>(values + j * head_dim + i);
        store(out + i, mixed * share);
    }
}

}  // namespace tilewhisper::ISA
