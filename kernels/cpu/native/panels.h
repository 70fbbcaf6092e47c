// The right side of a product, packed for the dot products of product.h.
//
// A panel holds 16 columns of a matrix (k, n). Two rows of it are stored together: panel[pair][column][2], so that one
// 32-bit lane has a column's two entries for a pair of the left side. For a left side of 8 bits it is four rows:
// panel[quad][column][4]. A pair or quad is a *word* of the left side. Rows beyond whole words and columns beyond n are
// zero.
//
// Entries of 4 bits come in groups of 32 rows, with a scale for each column of a group: panel[group][4][column][4], where
// byte [j][column][i] has row 4 j + i of the group in its low half and row 16 + 4 j + i in its high half. A half stands for
// its number minus 8. The scales are apart, float16, as scales[panel][group][column].
#pragma once

#include <cstdint>

namespace tilewhisper {

inline constexpr int64_t PANEL = 16;  // columns

inline constexpr int32_t LIMIT_16 = 32767;
inline constexpr int32_t LIMIT_8 = 127;
inline constexpr int32_t LIMIT_U8 = 255;

// How a weight's entries are stored.
enum class Layout {
    PAIRS,       // 16 bits each
    BYTE_PAIRS,  // 8 bits, for a left side of 16
    QUADS,       // 8 bits, for a left side of 8
    NIBBLES,     // 4 bits, for a left side of 8, both with scales by group
};

inline constexpr int64_t GROUP = 32;                       // rows of nibbles with one scale
inline constexpr int64_t GROUP_BYTES = GROUP * PANEL / 2;  // of a panel
inline constexpr int32_t NIBBLE_ZERO = 8;

// 32 numbers of a left side for nibbles: each stands for numbers[i] * scale. The nibbles' offset of 8 adds 8 times the sum
// of the numbers to a product with them, so that the product starts at `minus`.
struct RowGroup {
    int8_t numbers[GROUP];
    int32_t minus;
    float scale;
};

struct Quad {
    int8_t of[4];
};

// Numbers in a word of the left side, and elements of type Entry in one column of a panel for it.
template <class Entry>
inline constexpr int64_t NUMBERS = 2;
template <class Entry>
inline constexpr int64_t ENTRIES = 2;
template <>
inline constexpr int64_t NUMBERS<Quad> = 4;
template <>
inline constexpr int64_t ENTRIES<Quad> = 1;

// The range of whole numbers that rows are quantised to, so that their products add up within an int32 over `words` words,
// after which a longer sum continues in float32: each number up to `limit`, and the numbers of one such sum up to the
// Euclidean norm `norm`.
struct Steps {
    int32_t limit;
    float norm;
    int64_t words;
};

// By Cauchy and Schwarz |sum of x w| <= |x| |w|, so that no sum of two rows whose norms are below sqrt(2^31) can overflow.
// Rounding adds at most a half to each number, 8 to the norm of 256. A limit to each number alone would be 2896: with the
// norm a row of normal numbers has some 11,600 steps up and down, a row with outliers up to 32767.
inline constexpr float NORM = 46332;
static_assert((int64_t{46332} + 8) * (46332 + 8) <= INT32_MAX);
inline constexpr float ANY_NORM = 1e9f;

// Cut at 512 numbers the encoder of base was no faster than at 256, cut at 128 it was 5 % slower.
inline constexpr Steps PAIRS_STEPS{LIMIT_16, NORM, 128};
inline constexpr Steps BYTE_PAIRS_STEPS{LIMIT_16, ANY_NORM, 128};
inline constexpr Steps QUADS_STEPS{LIMIT_U8, ANY_NORM, 1 << 14};
inline constexpr Steps BYTES_STEPS{LIMIT_8, ANY_NORM, 1 << 14};  // of a weight, with either left side
// A decode step waits for its weights, so that its few rows can have finer steps in shorter sums. Beam search adds up their
// errors: see quantized.py.
inline constexpr Steps FEW_PAIRS_STEPS{LIMIT_16, NORM, 32};
static_assert(int64_t{LIMIT_16} * LIMIT_8 * BYTE_PAIRS_STEPS.words * 2 <= INT32_MAX);
static_assert(int64_t{LIMIT_U8} * LIMIT_8 * QUADS_STEPS.words * 4 <= INT32_MAX);

inline constexpr Steps steps_of(Layout layout, bool few_rows) {
    if (layout == Layout::QUADS) return QUADS_STEPS;
    if (layout == Layout::BYTE_PAIRS) return BYTE_PAIRS_STEPS;
    return few_rows ? FEW_PAIRS_STEPS : PAIRS_STEPS;
}

inline constexpr int64_t pairs_of(int64_t k) { return (k + 1) / 2; }
inline constexpr int64_t words_of(int64_t k, Layout layout) { return layout == Layout::QUADS ? (k + 3) / 4 : pairs_of(k); }
inline constexpr int64_t entries_of(Layout layout) { return layout == Layout::QUADS ? 4 : 2; }  // of a word
inline constexpr int64_t padded_to_words(int64_t k, Layout layout) { return words_of(k, layout) * entries_of(layout); }
inline constexpr int64_t panels_of(int64_t n) { return (n + PANEL - 1) / PANEL; }
inline constexpr int64_t groups_of(int64_t k) { return (k + GROUP - 1) / GROUP; }
inline constexpr int64_t scales_of(int64_t k, Layout layout) {  // of a panel
    return layout == Layout::NIBBLES ? groups_of(k) * PANEL : PANEL;
}
inline constexpr int64_t panel_bytes(int64_t k, Layout layout) {
    if (layout == Layout::NIBBLES) return groups_of(k) * GROUP_BYTES;
    return words_of(k, layout) * PANEL * (layout == Layout::BYTE_PAIRS ? 2 : 4);
}

// The memory of attention: a block of rows of scores and of softmax weights, each row a little over n long, so that rows do
// not share cache sets.
inline constexpr int64_t MAX_BLOCK = 12;
inline constexpr int64_t MAX_HEAD_DIM = 256;
inline constexpr int64_t scratch_columns(int64_t n) { return panels_of(n) * PANEL + 3 * PANEL; }
inline constexpr int64_t attention_scratch(int64_t n) {
    return MAX_BLOCK * (scratch_columns(n) * 6 + MAX_HEAD_DIM * 2);  // bytes: float32 scores, 16-bit weights, queries
}

}  // namespace tilewhisper
