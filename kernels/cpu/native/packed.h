// Packed weights, keys and values: from an operator's tensors, whose sizes must fit, to the structs that kernels read.
#pragma once

#include <limits>
#include <vector>

#include "ops.h"

namespace tilewhisper {

// A weight of n columns of k, packed by pack_weight, with `sums` by pack_quads, or in unsigned bytes by pack_nibbles.
inline Weight weight_of(const Tensor& panels, const Tensor& scales, const std::optional<Tensor>& sums, int64_t k,
                        int64_t n) {
    check_range(k, 1, MAX_SIZE, "a weight's input size");
    check_range(n, 1, MAX_SIZE, "a weight's output size");
    const ScalarType type = panels.scalar_type();
    const bool bytes = type == ScalarType::Char, nibbles = type == ScalarType::Byte;
    STD_TORCH_CHECK(panels.is_cpu() && (bytes || ((type == ScalarType::Short || nibbles) && !sums)),
                    "panels must be packed by pack_weight, pack_quads or pack_nibbles");
    const Layout layout = sums ? Layout::QUADS : bytes ? Layout::BYTE_PAIRS : nibbles ? Layout::NIBBLES : Layout::PAIRS;
    const int64_t entries = panels_of(n) * panel_bytes(k, layout) / (layout == Layout::PAIRS ? 2 : 1);
    STD_TORCH_CHECK(panels.is_contiguous() && panels.numel() == entries, "the weight must fit inputs of ", k,
                    " columns: ", n, " outputs have ", entries, " contiguous entries, got ", panels.numel());
    const int64_t all_scales = panels_of(n) * scales_of(k, layout);
    if (nibbles) {
        check_contiguous(scales, ScalarType::Half, all_scales, "scales");
        return {panels.data_ptr(), layout, nullptr, nullptr, k, n, static_cast<const uint16_t*>(scales.data_ptr())};
    }
    return {panels.data_ptr(),
            layout,
            contiguous_floats(scales, all_scales, "scales"),
            contiguous_or_null(sums, all_scales, "sums"),
            k,
            n,
            nullptr};
}

// x (batch, m, k) times `shared` (rank, k), transposed, to `left` (batch * m, rank); `parts` (rank, n up to whole panels) is
// the right side of the product.
inline LowRank low_rank_of(const Tensor& x, const std::optional<Tensor>& shared, const std::optional<Tensor>& parts,
                           int64_t n, std::vector<float>& left) {
    STD_TORCH_CHECK(shared.has_value() == parts.has_value(), "a product of low rank must have both sides, got only one");
    if (!shared) return {};
    check_floats(*parts, 2, "parts");
    const int64_t m = x.size(1), k = x.size(2), rank = parts->size(0), columns = panels_of(n) * PANEL;
    const float* directions = contiguous_floats(*shared, numbers_of({rank, k}, "shared"), "shared");
    const float* right = contiguous_floats(*parts, numbers_of({rank, columns}, "parts"), "parts");
    left.resize(numbers_of({x.size(0), m, rank}, "the left side"));
    for (int64_t i = 0; i < x.size(0) * m; ++i)
        for (int64_t t = 0; t < rank; ++t)
            left[i * rank + t] = kernels().dot(floats(x) + i / m * x.stride(0) + i % m * x.stride(1), directions + t * k, k);
    return {left.data(), right, columns, rank};
}

inline Norm norm_of(const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps, int64_t k) {
    STD_TORCH_CHECK(weight.has_value() == bias.has_value(), "a norm must have a weight and a bias, got only one of them");
    return {contiguous_or_null(weight, k, "the norm's weight"), contiguous_or_null(bias, k, "the norm's bias"),
            static_cast<float>(eps)};
}

// Memory for some rows in the words of any layout, and for one row's norm.
class Workspace {
   public:
    static int64_t bytes(int64_t rows, int64_t k) { return rows * stride_of(k) + (rows * 2 + k) * 4 + 64; }
    Workspace(char* memory, int64_t rows, int64_t k) {
        words_ = {memory, stride_of(k), reinterpret_cast<float*>(memory + rows * stride_of(k)), nullptr, {}};
        words_.offset = words_.scale + rows;
        normed_ = words_.offset + rows;
    }
    WordRows words(Layout layout) const {
        WordRows words = words_;
        words.steps = steps_of(layout, false);
        return words;
    }
    float* normed() const { return normed_; }

   private:
    // Of 16-bit numbers, the longer; not a power of two, so that rows do not share cache sets.
    static int64_t stride_of(int64_t k) { return words_of(k, Layout::PAIRS) * 4 + 64; }

    WordRows words_;
    float* normed_;
};

inline void check_head_dim(int64_t head_dim, const char* name) {
    STD_TORCH_CHECK(head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim % PANEL == 0, name,
                    " must have a head size that is a multiple of 16 up to 256, got ", head_dim);
}

// What is added to the score of each of n keys: `bias` (n,) or nothing, -inf up to whole panels.
inline std::vector<float> score_biases(const std::optional<Tensor>& bias, int64_t n) {
    check_range(n, 1, MAX_POSITIONS, "the number of positions");
    std::vector<float> all(panels_of(n) * PANEL, -std::numeric_limits<float>::infinity());
    if (const float* given = contiguous_or_null(bias, n, "bias"))
        std::copy_n(given, n, all.begin());
    else
        std::fill_n(all.begin(), n, 0.0f);
    return all;
}

// Packed keys and values of `heads` heads, as pack_keys_values makes them.
class PackedHeads {
   public:
    PackedHeads(const Tensor& keys, const Tensor& key_scale, const Tensor& values, const Tensor& value_scale, int64_t heads,
                int64_t n, int64_t head_dim)
        : count_(heads), bytes_(keys.scalar_type() == ScalarType::Char) {
        check_range(heads, 0, MAX_SIZE, "the number of heads");
        check_range(n, 1, MAX_POSITIONS, "the number of positions");
        check_head_dim(head_dim, "keys and values");
        padded_ = panels_of(n) * PANEL;
        value_rows_ = padded_to_words(n, bytes_ ? Layout::QUADS : Layout::PAIRS);
        const ScalarType type = bytes_ ? ScalarType::Char : ScalarType::Short;
        const int64_t key_scales = numbers_of({heads, padded_, bytes_ ? 2 : 1}, "the keys' scales");
        check_contiguous(keys, type, numbers_of({heads, padded_, head_dim}, "packed keys"), "packed keys");
        check_contiguous(values, type, numbers_of({heads, value_rows_, head_dim}, "packed values"), "packed values");
        first_ = {keys.data_ptr(),   contiguous_floats(key_scale, key_scales, "the keys' scales"),           nullptr,
                  values.data_ptr(), contiguous_floats(value_scale, heads * head_dim, "the values' scales"), n,
                  head_dim};
    }
    int64_t count() const { return count_; }
    int64_t positions() const { return first_.n; }
    int64_t head_dim() const { return first_.head_dim; }
    KeysValues operator[](int64_t head) const {
        const int64_t entry = bytes_ ? 1 : 2;
        KeysValues kv = first_;
        kv.keys = static_cast<const char*>(kv.keys) + head * padded_ * kv.head_dim * entry;
        kv.values = static_cast<const char*>(kv.values) + head * value_rows_ * kv.head_dim * entry;
        kv.key_scale += head * padded_ * (bytes_ ? 2 : 1);
        kv.key_sum = bytes_ ? kv.key_scale + padded_ : nullptr;
        kv.value_scale += head * kv.head_dim;
        return kv;
    }

   private:
    int64_t count_;
    bool bytes_;
    int64_t padded_, value_rows_;
    KeysValues first_;
};

}  // namespace tilewhisper
