// Rows of float32 to 16-bit numbers with one scale a row.
#pragma once

#include "kernels.h"
#include "panels.h"
#include "simd.h"

namespace tilewhisper::ISA {

inline constexpr float NOT_A_NUMBER = __builtin_nanf("");

// The largest magnitude of n numbers; NaN where one of them is a NaN or an infinity.
inline float largest_magnitude(const float* x, int64_t n) {
    Floats most{}, poison{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const Floats v = load<Floats>(x + i);
        most = larger(magnitude(v), most);
        poison += v * 0.0f;
    }
    float found = largest(most), bad = sum(poison);
    for (; i < n; ++i) {
        const float v = __builtin_fabsf(x[i]);
        found = v > found ? v : found;
        bad += v * 0.0f;
    }
    return found + bad;
}

inline Shorts shorts(Floats v) { return __builtin_convertvector(round(v), Shorts); }

// n numbers times `factor`, rounded; then a zero where n is odd.
inline void round_to(const float* x, int64_t n, float factor, int16_t* to) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, shorts(load<Floats>(x + i) * factor));
    if (i < n) {
        Floats rest{};
        std::memcpy(&rest, x + i, (n - i) * sizeof(float));
        const Shorts last = shorts(rest * factor);
        std::memcpy(to + i, &last, (n - i) * sizeof(int16_t));
    }
    if (n % 2) to[n] = 0;
}

// One row; returns its scale.
inline float quantize_row(const float* x, int64_t k, int32_t limit, int16_t* to) {
    const float most = largest_magnitude(x, k);
    if (!(most > 0)) {  // all zeros, or a NaN
        std::memset(to, 0, pairs_of(k) * 2 * sizeof(int16_t));
        return most;
    }
    round_to(x, k, limit / most, to);
    return most / limit;
}

inline void quantize(FloatRows x, int64_t rows, int64_t k, int32_t limit, ShortRows to) {
    for (int64_t i = 0; i < rows; ++i)
        to.scale[i] = quantize_row(x.data + i * x.stride, k, limit, to.data + i * to.stride);
}

}  // namespace tilewhisper::ISA
