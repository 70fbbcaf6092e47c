// The kernels for AVX2 with AVX-VNNI. The same instructions exist in AVX-512's encoding, in which they can be timed on a
// processor without AVX-VNNI (see scripts/kernel_bench/instruction_sets.py).
#if defined(__AVXVNNI__)
#define ISA_NAME "avx_vnni"
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define ISA_NAME "avx_vnni_evex"
#else
#error "compile this unit for AVX-VNNI"
#endif
#define ISA avx_vnni
#define ISA_LANES 8
#define ISA_VNNI
#include "isa.h"

const tilewhisper::Kernels tilewhisper::avx_vnni_kernels = tilewhisper::avx_vnni::kernels(ISA_NAME);
