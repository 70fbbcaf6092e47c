// Rows of float32 to words of 16-bit or 8-bit numbers, with a scale for each row, and an offset if they are 8-bit.
#pragma once

#include "decode.h"
#include "kernels.h"
#include "panels.h"
#include "simd.h"

namespace tilewhisper::ISA {

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

// The largest norm of the pieces of `length` numbers that n numbers are cut into, in units of `most`, the largest magnitude.
inline float largest_norm(const float* x, int64_t n, int64_t length, float most) {
    const float factor = 1.0f / most;  // so that no square overflows
    float largest = 0.0f;
    for (int64_t i = 0; i < n;) {
        const int64_t end = i + length < n ? i + length : n;
        Floats squares{};
        for (; i + LANES <= end; i += LANES) {
            const Floats v = load<Floats>(x + i) * factor;
            squares += v * v;
        }
        float total = sum(squares);
        for (; i < end; ++i) total += x[i] * factor * (x[i] * factor);
        largest = total > largest ? total : largest;
    }
    return __builtin_sqrtf(largest);
}

// The number of steps from zero to the largest magnitude, a whole number, so that it maps exactly: `norm` is the norm of a
// sum's numbers in units of that magnitude.
inline float steps_for_norm(Steps steps, float norm) {
    const float fit = steps.norm / norm;
    return fit < steps.limit ? static_cast<float>(static_cast<int32_t>(fit)) : steps.limit;
}

// One row; returns its scale.
inline float quantize_row(const float* x, int64_t k, Steps steps, int16_t* to) {
    const float most = largest_magnitude(x, k);
    if (!(most > 0)) {  // all zeros, or a NaN
        std::memset(to, 0, pairs_of(k) * 2 * sizeof(int16_t));
        return most;
    }
    const float up = steps.norm < ANY_NORM ? steps_for_norm(steps, largest_norm(x, k, steps.words * 2, most)) : steps.limit;
    round_to(x, k, up / most, to);
    return most / up;
}

// The minimum and the maximum of n numbers and zero; both NaN if there is a NaN or an infinity.
struct Range {
    float least, most;
};

inline Range range_of(const float* x, int64_t n) {
    Floats least{}, most{}, poison{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const Floats v = load<Floats>(x + i);
        least = v < least ? v : least;
        most = larger(v, most);
        poison += v * 0.0f;
    }
    float low = -largest(-least), high = largest(most), bad = sum(poison);
    for (; i < n; ++i) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        bad += x[i] * 0.0f;
    }
    return {low + bad, high + bad};
}

inline Bytes bytes(Floats v) {
    Ints whole = round(v);
    whole = whole < 0 ? Ints{} : whole;
    return __builtin_convertvector(whole > LIMIT_U8 ? all(LIMIT_U8) : whole, Bytes);
}

// One row in bytes 0 to 255 from its minimum to its maximum. Zero is a multiple of the step, so that it stays exact: most
// results of GELU are near it.
inline void quantize_bytes(const float* x, int64_t k, uint8_t* to, float* scale, float* offset) {
    const Range range = range_of(x, k);
    const int64_t padded = (k + 3) / 4 * 4;
    *scale = (range.most - range.least) / LIMIT_U8;
    *offset = 0;
    if (!(*scale > 0)) {  // all zeros, or a NaN
        std::memset(to, 0, padded);
        return;
    }
    const float factor = 1.0f / *scale, zero = to_float(round(all(-range.least * factor)))[0];
    *offset = -zero * *scale;
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES) store(to + i, bytes(load<Floats>(x + i) * factor + zero));
    if (i < k) {
        Floats rest{};
        std::memcpy(&rest, x + i, (k - i) * sizeof(float));
        const Bytes last = bytes(rest * factor + zero);
        std::memcpy(to + i, &last, k - i);
    }
    std::memset(to + k, 0, padded - k);
}

// One row in groups. A number below 1e-30 beside no larger one becomes zero: its step could not be inverted.
inline void quantize_groups(const float* x, int64_t k, RowGroup* to) {
    const float poison = largest_magnitude(x, k) * 0.0f;
    for (int64_t first = 0; first < k; first += GROUP, ++to) {
        alignas(64) float piece[GROUP] = {};
        std::memcpy(piece, x + first, (k - first < GROUP ? k - first : GROUP) * sizeof(float));
        Floats magnitudes{};
        for (int64_t i = 0; i < GROUP; i += LANES) magnitudes = larger(magnitude(load<Floats>(piece + i)), magnitudes);
        const float most = largest(magnitudes), factor = most > 1e-30f && poison == 0.0f ? LIMIT_8 / most : 0.0f;
        int32_t total = 0;
        for (int64_t i = 0; i < GROUP; i += LANES) {
            const Ints whole = round(load<Floats>(piece + i) * factor);
            store(to->numbers + i, __builtin_convertvector(whole, Bytes));
        }
        for (int64_t i = 0; i < GROUP; ++i) total += to->numbers[i];
        to->minus = -NIBBLE_ZERO * total;
        to->scale = most / LIMIT_8 + poison;
    }
}

inline void quantize(FloatRows x, int64_t rows, int64_t k, Norm norm, Layout layout, WordRows to, float* normed) {
    for (int64_t i = 0; i < rows; ++i) {
        const float* row = x.data + i * x.stride;
        if (norm.weight) {
            layer_norm(row, k, norm.weight, norm.bias, norm.eps, normed);
            row = normed;
        }
        char* at = to.data + i * to.stride;
        if (layout == Layout::NIBBLES)
            quantize_groups(row, k, reinterpret_cast<RowGroup*>(at));
        else if (layout == Layout::QUADS)
            quantize_bytes(row, k, reinterpret_cast<uint8_t*>(at), to.scale + i, to.offset + i);
        else
            to.scale[i] = quantize_row(row, k, to.steps, reinterpret_cast<int16_t*>(at));
    }
}

}  // namespace tilewhisper::ISA
