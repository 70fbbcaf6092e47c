// GELU, exact: x Phi(x) with the normal distribution Phi, not the approximation by tanh.
//
// gelu(x) = max(x, 0) - t Phi(-t) with t = |x|, and Phi(-t) = S(t)^16 with a polynomial S, whose coefficients minimise the
// largest relative error on [0, 6]. Beyond, t Phi(-t) stays at its value at 6, 6e-9. Errors relative to t Phi(-t):
//
//   the fit     16 times that of S: 2^-18.8
//   computed S  each step adds 2^-16 |t S'|, where S' is the polynomial above it; times 16
//   four squares and the product by t   (1 + 2 + 4 + 8 + 1) * 2^-16 = 2^-12
//
// Together at most 2^-11.1 for t <= 3, 2^-10.5 for t <= 4 and 2^-8.6 for t <= 6, where t Phi(-t) is below 2^-12. Where x >
// 0, it is a smaller part of the result. bf16 rounds by up to 2^-8.
#pragma once

#include "parts.h"

template <unsigned N>
inline Sum<N> gelu(const Sum<N>& x) {
    constexpr float S[] = {0.957603407F,    -0.0477576018F,  -0.01783871F,   -0.00128950510F, 0.000609442235F,
                           -1.11938881e-5F, -7.32312092e-6F, 7.02714159e-7F, -2.05768113e-8F};
    const aie::vector<float, N> value = x.template to_vector<float>();
    const aie::vector<float, N> zero = aie::zeros<float, N>();
    const aie::vector<float, N> size = aie::max(value, aie::sub(zero, value));
    const Parts<N> t = parts(Sum<N>(aie::min(size, aie::broadcast<float, N>(6))));
    Sum<N> power = polynomial(t, S);
    UNROLLED for (unsigned i = 0; i < 4; ++i) {
        const Parts<N> root = parts(power);
        power = product(root, root);
    }
    return aie::sub(Sum<N>(aie::max(value, zero)), product(parts(power), t));
}
