// The multiply-accumulate unit: `step` adds COUNT <= 8 products of bf16 numbers to each of N accumulators.
//
// With MODEL_EXACT on AIE2 it is kernels/xdna/datapath.py in C++, bit for bit: every term is rounded to a common grid, 2^-23
// of the leading power, then the exact sum once to float32.
#pragma once

#include <cfloat>
#include <cstdlib>

#include "types.hpp"

namespace aie::model {

#if defined(MODEL_EXACT) && __AIE_ARCH__ == 20
constexpr bool EXACT = true;
#else
constexpr bool EXACT = false;
#endif

template <typename T, unsigned N>
struct SimdOf {
    typedef T type __attribute__((vector_size(sizeof(T) * N)));
};
template <typename T, unsigned N>
using Simd = typename SimdOf<T, N>::type;

inline float power(float x) {  // 2^e of x = 2^e * m with 1 <= m < 2, or of the least normal number; 0 for 0
    const float leading = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7F800000);
    return x == 0 ? 0 : std::max(leading, FLT_MIN);
}

inline bool is_special(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7F800000) == 0x7F800000; }

// One lane in integers: NaNs and infinities.
namespace integers {

struct Number {
    std::int64_t mantissa;
    int exponent;  // biased; 1 for a denormal
};

template <typename Bits>
Number unpack(Bits bits, int fraction) {
    const int exponent = (bits >> fraction) & 0xFF;
    const std::int64_t magnitude = (bits & ((Bits{1} << fraction) - 1)) | (std::int64_t{exponent != 0} << fraction);
    return {bits >> (fraction + 8) ? -magnitude : magnitude, std::max(exponent, 1)};
}

inline std::int64_t shift_and_round(std::int64_t x, int shift) {  // to nearest even; shift >= 1
    return (x + ((std::int64_t{1} << (shift - 1)) - 1) + ((x >> shift) & 1)) >> shift;
}

inline float step(float start, const bfloat16* a, const bfloat16* b, unsigned count) {
    constexpr int GRID = 23, PRODUCT = 14, FLOAT = 23;
    const Number sum = unpack(std::bit_cast<std::uint32_t>(start), FLOAT);
    const int exponent_of_sum = sum.mantissa ? sum.exponent + 128 : 0;
    std::int64_t mantissas[8];
    int exponents[8], top = exponent_of_sum;
    double ieee = 0;
    for (unsigned k = 0; k < count; ++k) {
        const Number x = unpack(a[k].bits, 7), y = unpack(b[k].bits, 7);
        mantissas[k] = x.mantissa * y.mantissa;
        exponents[k] = mantissas[k] ? x.exponent + y.exponent + 1 : 0;
        top = std::max(top, exponents[k]);
        ieee += double{value(a[k])} * double{value(b[k])};
    }
    ieee += start;
    const auto aligned = [&](std::int64_t mantissa, int fraction, int exponent) {
        return shift_and_round(mantissa * (std::int64_t{1} << GRID), std::min(top - exponent + fraction, 61));
    };
    std::int64_t total = aligned(sum.mantissa, FLOAT, exponent_of_sum);
    for (unsigned k = 0; k < count; ++k) {
        total += aligned(mantissas[k], PRODUCT, exponents[k]);
    }

    const std::int64_t magnitude = std::abs(total);
    const int lead = magnitude ? 63 - std::countl_zero(static_cast<std::uint64_t>(magnitude)) : 0;
    const std::int64_t mantissa = shift_and_round(magnitude << (FLOAT + 1), lead + 1);
    // An addition: a mantissa that was rounded up to 2^24 carries into the exponent.
    const std::int64_t bits = std::int64_t{top + lead - GRID - 128} * (1 << FLOAT) + mantissa - (std::int64_t{1} << FLOAT);
    const std::int64_t exponent = bits >> FLOAT;
    const bool vanished = total == 0 || exponent <= 0;
    const std::uint32_t sign = total < 0 ? 0x80000000 : 0, infinity = 0x7F800000;
    if (std::isnan(ieee)) {
        const auto fraction = vanished || exponent >= 0xFF ? 0 : static_cast<std::uint32_t>(bits) & 0x7FFFFF;
        return std::bit_cast<float>(sign | infinity | fraction | 1);
    }
    if (std::isinf(ieee)) {
        return ieee < 0 ? -INFINITY : INFINITY;
    }
    if (vanished) {
        return 0;
    }
    return std::bit_cast<float>(sign | (exponent >= 0xFF ? infinity : static_cast<std::uint32_t>(bits)));
}

}  // namespace integers

// Finite terms, in float64: it holds each product, and the sum of the aligned terms, exactly. Adding and subtracting
// 1.5 * 2^52 units of the grid rounds a term to it. A factor is one number for all lanes, or one for each.
template <unsigned COUNT, unsigned N, typename Factor>
Simd<float, N> finite_step(const Simd<float, N>& start, const Factor* a, const Factor* powers_of_a, const Simd<double, N>* b,
                           const Simd<double, N>* powers_of_b) {
    Simd<double, N> sum, top;
    for (unsigned j = 0; j < N; ++j) {
        sum[j] = start[j];
        top[j] = power(start[j]);
    }
    for (unsigned k = 0; k < COUNT; ++k) {
        const Simd<double, N> powers = powers_of_a[k] * powers_of_b[k];
        top = top > powers ? top : powers;
    }
    const Simd<double, N> units = top * (1.5 * (1 << 29));
    sum = (sum + units) - units;
    for (unsigned k = 0; k < COUNT; ++k) {
        sum += (a[k] * b[k] + units) - units;
    }
    Simd<float, N> result;
    for (unsigned j = 0; j < N; ++j) {
        constexpr double LEAST = 0x1p-126 - 0x1p-151;  // smaller sums round to denormal numbers, which are flushed
        result[j] = std::abs(sum[j]) >= LEAST ? static_cast<float>(sum[j]) : 0;
    }
    return result;
}

}  // namespace aie::model
