// out = activation(c + bias), rounded to bf16 to nearest even.
//
// `header` is an object of B: its rows 0, 1 and 2 sum to the bias of each column, and element (3, 0) names the activation: 0
// none, else GELU. Its other elements are 0.
#include "core_tile.h"
#include "gelu.h"
#include "loops.h"

// Blocks of C with 4 rows, also where the product has 8: block floating point would keep 8 bits of the bias.
using Half = aie::mmul<4, S, T, bfloat16, bfloat16, accauto>;
constexpr unsigned LANES = 4 * T, HALVES = R / 4;

template <bool GELU>
inline void finish(const float* __restrict c, const bfloat16* __restrict header, bfloat16* __restrict out) {
    // The matrix that adds the first three rows of the header to each row of C.
    aie::vector<bfloat16, S> row = aie::zeros<bfloat16, S>();
    UNROLLED for (unsigned i = 0; i < 3; ++i) { row.set(bfloat16(1.0F), i); }
    const aie::vector<bfloat16, 4 * S> first_three = row.grow_replicate<4 * S>();
    for (unsigned column = 0; column < COLUMNS; ++column) {
        const aie::vector<bfloat16, S * T> bias = aie::load_v<S * T>(header + column * S * T);
        for (unsigned i = 0; i < ROWS * HALVES; ++i) {
            const unsigned at = (i / HALVES * COLUMNS + column) * R * T + i % HALVES * LANES;
            Half sums(aie::load_v<LANES>(c + at));
            sums.mac(first_three, bias);
            const Sum<LANES> biased = sums.to_accum();
            if constexpr (GELU) {
                aie::store_v(out + at, gelu(biased).template to_vector<bfloat16>());
            } else {
                aie::store_v(out + at, biased.template to_vector<bfloat16>());
            }
        }
    }
}

extern "C" void finish_bf16(const float* c, const bfloat16* header, bfloat16* out) {
    aie::set_rounding(aie::rounding_mode::conv_even);
    if (__builtin_bit_cast(unsigned short, header[3 * T]) != 0) {
        finish<true>(c, header, out);
    } else {
        finish<false>(c, header, out);
    }
}
