// The right side of a product, packed for the dot products of product.h.
//
// A panel holds 16 columns of a matrix (k, n). Two rows of it lie together: panel[pair][column][2], so that one 32-bit
// lane has what one column takes from a pair. Rows beyond an even k and columns beyond n are zero.
#pragma once

#include <cstdint>

namespace tilewhisper {

inline constexpr int64_t PANEL = 16;  // columns

// A sum of 256 products of two numbers up to 2896 fits an int32 (2,147,024,896), and so does one of bytes with numbers of
// 16 bits. Longer sums are cut there and go on in float32. Cut at 512, with numbers up to 2047, the encoder of base was
// no faster, and its error 5.4e-3 in place of 3.7e-3; cut at 128 (4095) it was 5 % slower, at 3.2e-3.
inline constexpr int64_t CHUNK = 256;
inline constexpr int32_t LIMIT = 2896;
inline constexpr int32_t LIMIT_16 = 32767;
inline constexpr int32_t LIMIT_8 = 127;
static_assert(int64_t{LIMIT} * LIMIT * CHUNK <= INT32_MAX);

// A decoder's step waits for its weights, so that its few rows can have finer steps in shorter sums. Beam search adds up
// what they are wrong by: see quantized.py.
inline constexpr int64_t CHUNK_OF_A_STEP = 64;
inline constexpr int32_t LIMIT_OF_A_STEP = 4 * LIMIT;
static_assert(int64_t{LIMIT_OF_A_STEP} * LIMIT * CHUNK_OF_A_STEP <= INT32_MAX);
static_assert(int64_t{LIMIT_16} * LIMIT_8 * CHUNK <= INT32_MAX);

inline constexpr int64_t pairs_of(int64_t k) { return (k + 1) / 2; }
inline constexpr int64_t panels_of(int64_t n) { return (n + PANEL - 1) / PANEL; }

// What attention wants of memory: a block of rows of scores and of weights, each row a little over n long, so that rows do
// not fall on the same cache sets.
inline constexpr int64_t MAX_BLOCK = 12;
inline constexpr int64_t MAX_HEAD_DIM = 256;
inline constexpr int64_t scratch_columns(int64_t n) { return panels_of(n) * PANEL + 3 * PANEL; }
inline constexpr int64_t attention_scratch(int64_t n) {
    return MAX_BLOCK * (scratch_columns(n) * 6 + MAX_HEAD_DIM * 2);  // bytes: float32 scores, 16-bit weights, queries
}

}  // namespace tilewhisper
