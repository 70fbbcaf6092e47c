// weights = softmax(scores + bias) of one row, rounded to bf16 to nearest even. `scores` is overwritten.
//
// A key whose bias is -infinity has weight 0 exactly; each row must have another. exp(x) = 2^n p(f) with the integer n next
// to x / ln 2 and f = x - n ln 2, |f| < 0.36; p differs from exp by at most 2^-18. Errors relative to the exact weight:
//
//   f           4 * 2^-24 * 88 = 2^-15.5, of rounded float32 sums
//   computed p  2^-16 |f p'| < 2^-17 of p
//   2^n p       2^-17; the sum of a row's exponentials has the same relative error, and 2^-24 for each of its additions
//   1 / sum     2^-20 after two steps of Newton's method from 2^-7; the product by it 2^-16
//
// Together below 2^-13; then follows the rounding by up to 2^-8. Weights with x < -88 are 0.
#include "loops.h"
#include "parts.h"

constexpr unsigned LANES = 16;
static_assert(WIDTH % LANES == 0);

using Floats = aie::vector<float, LANES>;

inline Floats constant(float x) { return aie::broadcast<float, LANES>(x); }

// exp of x <= 0, and 0 exactly for x < -88.03.
inline Floats exponential(const Floats& x) {
    constexpr float MINUS_127_LN_2 = -88.0296919F;
    constexpr float P[] = {0.999999074F, 0.999957485F, 0.500050722F, 0.168006453F, 0.0414422094F};
    // Added to a small number, it leaves the nearest integer in the lowest bits, 127 more: the exponent of a power of two.
    constexpr float INTEGER = 12582912.0F + 127;
    constexpr int BITS = 0x4B400000;  // of 12582912

    const Sum<LANES> limited(aie::max(x, constant(MINUS_127_LN_2)));
    const Sum<LANES> quotient = product(parts(limited), parts<LANES>(1.44269504F));
    const Floats shifted = aie::add(quotient, Sum<LANES>(constant(INTEGER))).to_vector<float>();
    const aie::vector<int32, LANES> exponent = aie::sub(shifted.cast_to<int32>(), aie::broadcast<int32, LANES>(BITS));
    const Sum<LANES> power(aie::upshift(exponent, 23).cast_to<float>());
    const Sum<LANES> integer(aie::sub(shifted, constant(INTEGER)));

    // ln 2 = 0.69140625 + 1.7409e-3 (8 bits each) + the rest, so that the first products are exact.
    const auto n = integer.to_vector<bfloat16>();
    const auto minus = [](float part) { return Sum<LANES>(constant(-part)).to_vector<bfloat16>(); };
    Sum<LANES> f = aie::mac(limited, n, minus(0.69140625F));
    f = aie::mac(f, n, minus(0.00173950195F));
    f = aie::mac(f, n, minus(1.43051147e-6F));

    const Parts<LANES> p = parts(polynomial(parts(f), P));
    const auto two_to_n = power.to_vector<bfloat16>();
    return aie::mac(aie::mul(p.low, two_to_n), p.high, two_to_n).to_vector<float>();
}

// 1 / x, to 2^-20.
inline Floats reciprocal(const Floats& x) {
    const Floats rough = aie::inv(x);
    const Floats rest = aie::sub(constant(2), aie::mul(x, rough).to_vector<float>());
    const Floats better = aie::mul(rough, rest).to_vector<float>();
    const Floats again = aie::sub(constant(2), aie::mul(x, better).to_vector<float>());
    return aie::mul(better, again).to_vector<float>();
}

extern "C" void softmax(float* __restrict scores, const float* __restrict bias, bfloat16* __restrict weights) {
    aie::set_rounding(aie::rounding_mode::conv_even);
    Floats largest = constant(-3.40282347e38F);
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Floats biased = aie::add(aie::load_v<LANES>(scores + i), aie::load_v<LANES>(bias + i));
        aie::store_v(scores + i, biased);
        largest = aie::max(largest, biased);
    }
    const Floats maximum = constant(aie::reduce_max(largest));
    Sum<LANES> sum(aie::zeros<float, LANES>());
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Floats term = exponential(aie::sub(aie::load_v<LANES>(scores + i), maximum));
        aie::store_v(scores + i, term);
        sum = aie::add(sum, Sum<LANES>(term));
    }
    const Parts<LANES> share = parts(Sum<LANES>(reciprocal(constant(aie::reduce_add(sum.to_vector<float>())))));
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Parts<LANES> term = parts(Sum<LANES>(aie::load_v<LANES>(scores + i)));
        aie::store_v(weights + i, product(term, share).to_vector<bfloat16>());
    }
}
