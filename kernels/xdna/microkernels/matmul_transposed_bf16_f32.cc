// C += A B, where each block of B is stored as T x S. Blocks otherwise: A R x S, C R x T.
#include "matmul.h"

extern "C" void matmul_transposed_bf16_f32(const bfloat16* a, const bfloat16* b, float* c) {
    matmul<BlocksOfB::COLUMN_BY_COLUMN>(a, b, c);
}
