// float32 arithmetic on the bf16 multipliers: a number as the sum of two bf16 numbers, which hold 16 of its 24 bits.
#pragma once

#include <aie_api/aie.hpp>

#include "loops.h"

template <unsigned N>
using Sum = aie::accum<accfloat, N>;

template <unsigned N>
struct Parts {
    aie::vector<bfloat16, N> high, low;
};

// |x - high - low| <= 2^-17 |x|, rounding to nearest: |low| <= 2^-8 |x|, and is itself rounded by 2^-9 of that.
template <unsigned N>
inline Parts<N> parts(const Sum<N>& x) {
    const aie::vector<bfloat16, N> high = x.template to_vector<bfloat16>();
    return {high, aie::sub(x, Sum<N>(high)).template to_vector<bfloat16>()};
}

template <unsigned N>
inline Parts<N> parts(float x) {
    return parts(Sum<N>(aie::broadcast<float, N>(x)));
}

// sum + x y. The error is at most 2^-16 |x y|, 2^-17 for each factor, and that of four float32 additions.
template <unsigned N>
inline Sum<N> add_product(const Sum<N>& sum, const Parts<N>& x, const Parts<N>& y) {
    const Sum<N> low = aie::mac(aie::mac(sum, x.low, y.low), x.low, y.high);
    return aie::mac(aie::mac(low, x.high, y.low), x.high, y.high);
}

template <unsigned N>
inline Sum<N> product(const Parts<N>& x, const Parts<N>& y) {
    return aie::mac(aie::mac(aie::mac(aie::mul(x.low, y.low), x.low, y.high), x.high, y.low), x.high, y.high);
}

// c[0] + c[1] x + c[2] x^2 + ...
template <unsigned N, unsigned TERMS>
inline Sum<N> polynomial(const Parts<N>& x, const float (&c)[TERMS]) {
    Sum<N> value(aie::broadcast<float, N>(c[TERMS - 1]));
    UNROLLED for (unsigned i = 2; i <= TERMS; ++i) {
        value = add_product(Sum<N>(aie::broadcast<float, N>(c[TERMS - i])), parts(value), x);
    }
    return value;
}
