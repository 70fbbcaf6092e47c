// The kernels for ARM64 with 8-bit matrix products.
#ifndef __ARM_FEATURE_MATMUL_INT8
#error "compile this unit for ARM64 with 8-bit matrix products"
#endif
#define ISA neon_i8mm
#define ISA_LANES 4
#define ISA_NEON
#define ISA_I8MM
#include "isa.h"

const tilewhisper::Kernels tilewhisper::neon_i8mm_kernels = tilewhisper::neon_i8mm::kernels("neon_i8mm");
