// C += A B. Blocks: A R x S, B S x T, C R x T.
#include "matmul.h"

extern "C" void matmul_bf16_f32(const bfloat16* a, const bfloat16* b, float* c) { matmul<BlocksOfB::ROW_BY_ROW>(a, b, c); }
