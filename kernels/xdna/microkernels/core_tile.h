// The matrix instruction of a core, and the sizes of a core tile: C (DIM_M, DIM_N) += A (DIM_M, DIM_K) B (DIM_K, DIM_N).
//
// The blocks of an operand lie one after the other, row by row of blocks, each block row by row.
#pragma once

#include <aie_api/aie.hpp>

#if __AIE_ARCH__ == 20
constexpr unsigned R = 4, S = 8, T = 4;
#elif __AIE_ARCH__ == 21 && defined(AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16)
constexpr unsigned R = 8, S = 8, T = 8;
#elif __AIE_ARCH__ == 21
constexpr unsigned R = 4, S = 8, T = 8;
#else
#error "these kernels are for AIE2 (__AIE_ARCH__ 20) and AIE2P (21)"
#endif

using Instruction = aie::mmul<R, S, T, bfloat16, bfloat16, accauto>;

constexpr unsigned ROWS = DIM_M / R, STEPS = DIM_K / S, COLUMNS = DIM_N / T;  // in blocks
static_assert(DIM_M % R == 0 && DIM_K % S == 0 && DIM_N % T == 0, "a core tile consists of whole blocks");
