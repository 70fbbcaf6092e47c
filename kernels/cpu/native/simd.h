// Vectors of one instruction set, in the compiler's own vector types: arithmetic on them is plain C++.
//
// A unit that includes this is compiled for one set (see isa_*.cpp), and everything below is in that set's namespace: two
// units' inline functions must never be merged by the linker, or the portable path would run AVX-512 code. For the same
// reason no template of the standard library is used in such a unit.
#pragma once

#include <cstdint>
#include <cstring>

#include "panels.h"

#if !defined(ISA) || !defined(ISA_LANES)
#error "include isa.h after the definition of the set's name, ISA, and of its 32-bit lanes, ISA_LANES"
#endif

#if defined(__x86_64__) && ISA_LANES > 4
#include <immintrin.h>
#elif defined(ISA_NEON)
#include <arm_neon.h>
#endif

// A function that stays one of its own. gcc clones some for constant arguments; clang does not know the attribute.
#ifdef __clang__
#define STANDALONE __attribute__((noinline))
#else
#define STANDALONE __attribute__((noinline, noclone))
#endif

namespace tilewhisper::ISA {

inline constexpr int64_t LANES = ISA_LANES;    // 32-bit lanes of a vector
inline constexpr int VECTORS = PANEL / LANES;  // of a panel's columns

typedef float Floats __attribute__((vector_size(4 * ISA_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * ISA_LANES)));
typedef int16_t Shorts __attribute__((vector_size(2 * ISA_LANES)));      // one for each lane
typedef int16_t ShortPairs __attribute__((vector_size(4 * ISA_LANES)));  // two for each lane
typedef uint16_t UnsignedShorts __attribute__((vector_size(2 * ISA_LANES)));
typedef int8_t BytePairs __attribute__((vector_size(2 * ISA_LANES)));
typedef uint8_t Bytes __attribute__((vector_size(ISA_LANES)));  // one for each lane

struct Half {
    int16_t bits;
};
struct BFloat {
    int16_t bits;
};

template <class V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V>
inline void store(void* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

inline Floats all(float x) { return x - Floats{}; }
inline Ints all(int32_t x) { return x - Ints{}; }

inline Floats to_float(Ints v) { return __builtin_convertvector(v, Floats); }

// LANES float16 numbers.
inline Floats halves(const void* from) {
#if ISA_LANES == 16
    return (Floats)_mm512_cvtph_ps((__m256i)load<Shorts>(from));
#elif ISA_LANES == 8
    return (Floats)_mm256_cvtph_ps((__m128i)load<Shorts>(from));
#elif defined(ISA_NEON)
    return (Floats)vcvt_f32_f16((float16x4_t)load<Shorts>(from));
#else  // the exponent moved to its place; its bias differs by 112, and its largest value is kept for NaN and infinity
    const Ints half = __builtin_convertvector(load<UnsignedShorts>(from), Ints);
    const Ints bits = (half & 0x8000) << 16 | (half & 0x7fff) << 13;
    return (half & 0x7c00) == 0x7c00 ? all(__builtin_nanf("")) : (Floats)bits * 0x1p112f;
#endif
}

// LANES numbers of a file as float32.
inline Floats stored_floats(const float* from) { return load<Floats>(from); }
inline Floats stored_floats(const Half* from) { return halves(from); }
inline Floats stored_floats(const BFloat* from) { return (Floats)(__builtin_convertvector(load<Shorts>(from), Ints) << 16); }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats magnitude(Floats v) { return (Floats)((Ints)v & all(0x7fffffff)); }

// To the nearest whole number, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits below the unit.
inline Ints round(Floats v) {
    const float shift = 12582912.0f;
    return (Ints)(v + shift) - (Ints)all(shift);
}

inline float sum(Floats v) {
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += v[i];
    return total;
}

inline float largest(Floats v) {
    float most = v[0];
    for (int i = 1; i < LANES; ++i) most = v[i] > most ? v[i] : most;
    return most;
}

// e^x for x <= 0, to 3e-6 relative; 0 or the least normal number below -87.
inline Floats exp(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;  // a NaN stays
    const Ints n = round(x * 1.44269504f);
    const Floats whole = to_float(n);
    const Floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
    // The Taylor polynomial of degree 5: |r| <= ln(2)/2, so the truncation error is below 0.3466^6 / 6! = 2.4e-6.
    Floats p = all(1.0f / 120);
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (Floats)((Ints)p + (n << 23));
}

// x * Phi(x), with erf by Abramowitz and Stegun 7.1.26 (|error| <= 1.5e-7).
inline Floats gelu(Floats x) {
    const Floats z = magnitude(x) * 0.70710678f;
    const Floats t = 1.0f / (1.0f + 0.3275911f * z);
    Floats p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats tail = 0.5f * p * t * exp(-z * z);  // 1 - Phi(|x|)
    return x > 0.0f ? x - x * tail : x * tail;
}

}  // namespace tilewhisper::ISA
