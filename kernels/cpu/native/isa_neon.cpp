// The kernels for ARM64.
#ifndef __ARM_NEON
#error "compile this unit for ARM64"
#endif
#define ISA neon
#define ISA_LANES 4
#define ISA_NEON
#include "isa.h"

const tilewhisper::Kernels tilewhisper::neon_kernels = tilewhisper::neon::kernels("neon");
