// C += A B for a core tile. C stays in registers over all of DIM_K, a group of its blocks at a time.
#pragma once

#include "core_tile.h"
#include "loops.h"

// Each loaded block is used GROUP times. The sums of a group, of 16 (AIE2) or 32 (AIE2P) lanes, fill most of the
// accumulator registers.
constexpr unsigned GROUP = __AIE_ARCH__ == 20 ? 4 : 2;
static_assert(ROWS % GROUP == 0 && COLUMNS % GROUP == 0, "C consists of whole groups of blocks");

enum class BlocksOfB { ROW_BY_ROW, COLUMN_BY_COLUMN };

template <BlocksOfB ORDER>
inline aie::vector<bfloat16, S * T> load_block_of_b(const bfloat16* block) {
    const aie::vector<bfloat16, S * T> stored = aie::load_v<S * T>(block);
    if constexpr (ORDER == BlocksOfB::ROW_BY_ROW) {
        return stored;
    } else {
        return aie::transpose(stored, T, S);
    }
}

template <BlocksOfB ORDER>
inline void matmul(const bfloat16* __restrict a, const bfloat16* __restrict b, float* __restrict c) {
#ifdef AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16
    aie::set_rounding(aie::rounding_mode::conv_even);  // of bf16 to block floating point
#endif
    for (unsigned row = 0; row < ROWS; row += GROUP) {
        for (unsigned column = 0; column < COLUMNS; column += GROUP) {
            float* const group = c + (row * COLUMNS + column) * R * T;
            Instruction sums[GROUP][GROUP];
            UNROLLED for (unsigned i = 0; i < GROUP; ++i) {
                UNROLLED for (unsigned j = 0; j < GROUP; ++j) {
                    sums[i][j] = Instruction(aie::load_v<R * T>(group + (i * COLUMNS + j) * R * T));
                }
            }
            for (unsigned step = 0; step < STEPS; ++step) {
                aie::vector<bfloat16, R * S> left[GROUP];
                aie::vector<bfloat16, S * T> right[GROUP];
                UNROLLED for (unsigned i = 0; i < GROUP; ++i) {
                    left[i] = aie::load_v<R * S>(a + ((row + i) * STEPS + step) * R * S);
                }
                UNROLLED for (unsigned j = 0; j < GROUP; ++j) {
                    right[j] = load_block_of_b<ORDER>(b + (step * COLUMNS + column + j) * S * T);
                }
                UNROLLED for (unsigned i = 0; i < GROUP; ++i) {
                    UNROLLED for (unsigned j = 0; j < GROUP; ++j) { sums[i][j].mac(left[i], right[j]); }
                }
            }
            UNROLLED for (unsigned i = 0; i < GROUP; ++i) {
                UNROLLED for (unsigned j = 0; j < GROUP; ++j) {
                    aie::store_v(group + (i * COLUMNS + j) * R * T, sums[i][j].template to_vector<float>());
                }
            }
        }
    }
}
