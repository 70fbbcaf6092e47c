// The kernels for ARM64 with dot products.
#ifndef __ARM_FEATURE_DOTPROD
#error "compile this unit for ARM64 with dot products"
#endif
#define ISA neon_dot
#define ISA_LANES 4
#define ISA_NEON
#define ISA_DOT
#include "isa.h"

const tilewhisper::Kernels tilewhisper::neon_dot_kernels = tilewhisper::neon_dot::kernels("neon_dot");
