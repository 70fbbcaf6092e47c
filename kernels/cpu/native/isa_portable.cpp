// The kernels for any processor.
#include "isa.h"

static_assert(tilewhisper::ISA::LANES == 4, "compile this unit for any processor");

const tilewhisper::Kernels tilewhisper::portable_kernels = tilewhisper::ISA::kernels("portable");
