// The kernels for AVX2.
#include "isa.h"

static_assert(tilewhisper::ISA::LANES == 8, "compile this unit for AVX2");

const tilewhisper::Kernels tilewhisper::avx2_kernels = tilewhisper::ISA::kernels("avx2");
