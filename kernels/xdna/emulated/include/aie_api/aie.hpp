// A model of the part of AMD's aie_api that the micro-kernels use, for the host's compiler. Any other use does not compile.
//
// Written from the public documentation of the API; results are those of the documented operations, not their speed. Macros:
//
//   __AIE_ARCH__     20: AIE2, 21: AIE2P
//   MODEL_EXACT      the multiply-accumulate unit of AIE2 bit for bit (see unit.hpp); else float32 sums in the host's order
//   MODEL_CHECKED    loads and stores outside the buffers named with `model_allow` are noted and not carried out
//
// AIE2P's unit is not known bit for bit, nor is its block floating point: MODEL_EXACT has float32 sums there, too.
//
// Assumed and not read from a chip: sums and differences of two float32 numbers are rounded once, to nearest even; aie::mul
// of float32 numbers, which the API composes of bf16 products, is rounded once, too.
#pragma once

#include "arithmetic.hpp"
#include "memory.hpp"
#include "mmul.hpp"
#include "types.hpp"
