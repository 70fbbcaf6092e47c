// The kernels for AVX2.
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile this unit for AVX2"
#endif
#define ISA avx2
#define ISA_LANES 8
#include "isa.h"

const tilewhisper::Kernels tilewhisper::avx2_kernels = tilewhisper::avx2::kernels("avx2");
