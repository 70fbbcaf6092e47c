// sum = x + y of one row, and normed = (sum - mean) / sqrt(variance + EPS), rounded to bf16 to nearest even.
//
// The variance is of the differences from the mean, divided by WIDTH.
#include "loops.h"
#include "parts.h"

#ifndef EPS
#define EPS 1e-5F
#endif

constexpr unsigned LANES = 16;
static_assert(WIDTH % LANES == 0);

using Floats = aie::vector<float, LANES>;

inline Floats constant(float x) { return aie::broadcast<float, LANES>(x); }

inline Floats mean(const Sum<LANES>& sums) {
    return aie::mul(constant(aie::reduce_add(sums.to_vector<float>())), constant(1.0F / WIDTH)).to_vector<float>();
}

// 1 / sqrt(x), to 2^-20: two steps of Newton's method from 2^-7.
inline Floats reciprocal_root(const Floats& x) {
    Floats root = aie::invsqrt(x);
    UNROLLED for (unsigned i = 0; i < 2; ++i) {
        const Floats square = aie::mul(root, root).to_vector<float>();
        const Floats half = aie::mul(aie::mul(x, square).to_vector<float>(), constant(0.5F)).to_vector<float>();
        root = aie::mul(root, aie::sub(constant(1.5F), half)).to_vector<float>();
    }
    return root;
}

extern "C" void add_norm(const float* __restrict x, const bfloat16* __restrict y, float* __restrict sum,
                         bfloat16* __restrict normed) {
    aie::set_rounding(aie::rounding_mode::conv_even);
    Sum<LANES> total(aie::zeros<float, LANES>());
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Sum<LANES> added = aie::add(Sum<LANES>(aie::load_v<LANES>(x + i)), Sum<LANES>(aie::load_v<LANES>(y + i)));
        aie::store_v(sum + i, added.to_vector<float>());
        total = aie::add(total, added);
    }
    const Sum<LANES> centre(mean(total));
    Sum<LANES> squares(aie::zeros<float, LANES>());
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Parts<LANES> difference = parts(aie::sub(Sum<LANES>(aie::load_v<LANES>(sum + i)), centre));
        squares = add_product(squares, difference, difference);
    }
    const Floats variance = aie::add(mean(squares), constant(EPS));
    const Parts<LANES> scale = parts(Sum<LANES>(reciprocal_root(variance)));
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Parts<LANES> difference = parts(aie::sub(Sum<LANES>(aie::load_v<LANES>(sum + i)), centre));
        aie::store_v(normed + i, product(difference, scale).to_vector<bfloat16>());
    }
}
