// Packed weights, keys and values: from an operator's tensors, whose sizes must fit, to the structs that kernels read.
#pragma once

#include "ops.h"

namespace tilewhisper {

// A weight of n columns of k, packed by pack_weight, or with `sums` by pack_quads.
inline Weight weight_of(const Tensor& panels, const Tensor& scales, const std::optional<Tensor>& sums, int64_t k,
                        int64_t n) {
    check_range(k, 1, MAX_SIZE, "a weight's input size");
    check_range(n, 1, MAX_SIZE, "a weight's output size");
    const bool bytes = panels.scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(panels.is_cpu() && (bytes || (panels.scalar_type() == ScalarType::Short && !sums)),
                    "panels must be packed by pack_weight or pack_quads");
    const Layout layout = sums ? Layout::QUADS : bytes ? Layout::BYTE_PAIRS : Layout::PAIRS;
    const int64_t entries = panels_of(n) * words_of(k, layout) * PANEL * entries_of(layout);
    STD_TORCH_CHECK(panels.is_contiguous() && panels.numel() == entries, "the weight must fit inputs of ", k,
                    " columns: ", n, " outputs have ", entries, " contiguous entries, got ", panels.numel());
    return {panels.data_ptr(),
            layout,
            contiguous_floats(scales, panels_of(n) * PANEL, "scales"),
            contiguous_or_null(sums, panels_of(n) * PANEL, "sums"),
            k,
            n};
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
