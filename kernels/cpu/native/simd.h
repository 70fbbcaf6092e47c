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

// The first n < LANES numbers, and zeros.
inline Floats load_some(const float* from, int64_t n) {
    Floats v{};
    std::memcpy(&v, from, n * sizeof(float));
    return v;
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

// Half as many lanes.
typedef float Lanes2 __attribute__((vector_size(8)));
typedef float Lanes4 __attribute__((vector_size(16)));
typedef float Lanes8 __attribute__((vector_size(32)));
template <class V>
struct HalfOf;
template <>
struct HalfOf<Lanes4> {
    typedef Lanes2 type;
};
template <>
struct HalfOf<Lanes8> {
    typedef Lanes4 type;
};
#if ISA_LANES == 16
template <>
struct HalfOf<Floats> {
    typedef Lanes8 type;
};
#endif

// All lanes in one, by halves: one after the other, 16 additions would wait for each other.
template <class V, class Combine>
inline float across(V v, const Combine& combine) {
    if constexpr (sizeof v == sizeof(Lanes2)) {
        return combine(v[0], v[1]);
    } else {
        typedef typename HalfOf<V>::type Half;
        return across(combine(load<Half>(&v), load<Half>(reinterpret_cast<const char*>(&v) + sizeof(Half))), combine);
    }
}

inline float sum(Floats v) {
    return across(v, [](auto a, auto b) { return a + b; });
}

inline float largest(Floats v) {
    return across(v, [](auto a, auto b) { return b > a ? b : a; });
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

// x * Phi(x), to 1.6e-6. erf is the quotient of two polynomials that Eigen uses too, beyond 4 that at 4: half the time of
// one by e^(-x^2).
inline Floats gelu(Floats x) {
    const float end = 5.6568542f;  // 4 sqrt(2)
    const Floats least = x < -end ? all(-end) : x, z = (least > end ? all(end) : least) * 0.70710678f, square = z * z;
    Floats p = all(-2.72614225801306e-10f);
    p = p * square + 2.77068142495902e-08f;
    p = p * square - 2.10102402082508e-06f;
    p = p * square - 5.69250639462346e-05f;
    p = p * square - 7.34990630326855e-04f;
    p = p * square - 2.95459980854025e-03f;
    p = p * square - 1.60960333262415e-02f;
    Floats q = all(-1.45660718464996e-05f);
    q = q * square - 2.13374055278905e-04f;
    q = q * square - 1.68282697438203e-03f;
    q = q * square - 7.37332916720468e-03f;
    q = q * square - 1.42647390514189e-02f;
    const Floats half = 0.5f * least;
    return half + half * (z * p / q);
}

}  // namespace tilewhisper::ISA
