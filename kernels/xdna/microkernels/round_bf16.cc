// out = c, rounded to nearest even.
#include "core_tile.h"

extern "C" void round_bf16(const float* __restrict c, bfloat16* __restrict out) {
    constexpr unsigned LANES = 16;
    static_assert(DIM_M * DIM_N % LANES == 0);
    aie::set_rounding(aie::rounding_mode::conv_even);
    for (unsigned i = 0; i < DIM_M * DIM_N; i += LANES) {
        const aie::accum<accfloat, LANES> sums(aie::load_v<LANES>(c + i));
        aie::store_v(out + i, sums.to_vector<bfloat16>());
    }
}
