// The kernels for any processor.
#ifdef __AVX__
#error "compile this unit for any processor"
#endif
#define ISA portable
#define ISA_LANES 4
#include "isa.h"

const tilewhisper::Kernels tilewhisper::portable_kernels = tilewhisper::portable::kernels("portable");
