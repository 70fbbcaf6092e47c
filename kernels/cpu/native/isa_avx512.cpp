// The kernels for AVX-512 with VNNI.
#include "isa.h"

static_assert(tilewhisper::ISA::LANES == 16, "compile this unit for AVX-512 with VNNI");

const tilewhisper::Kernels tilewhisper::avx512_kernels = tilewhisper::ISA::kernels("avx512");
