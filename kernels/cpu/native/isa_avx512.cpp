// The kernels for AVX-512 with VNNI.
#if !defined(__AVX512VNNI__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "compile this unit for AVX-512 with VNNI"
#endif
#define ISA avx512
#define ISA_LANES 16
#include "isa.h"

const tilewhisper::Kernels tilewhisper::avx512_kernels = tilewhisper::avx512::kernels("avx512");
