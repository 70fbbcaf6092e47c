// C = 0.
#include "core_tile.h"

extern "C" void zero_f32(float* c) {
    constexpr unsigned LANES = 16;
    static_assert(DIM_M * DIM_N % LANES == 0);
    const aie::vector<float, LANES> zeros = aie::zeros<float, LANES>();
    for (unsigned i = 0; i < DIM_M * DIM_N; i += LANES) {
        aie::store_v(c + i, zeros);
    }
}
