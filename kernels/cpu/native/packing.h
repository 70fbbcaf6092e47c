// Packs the keys and values of heads, as attention takes them.
#pragma once

#include <tuple>

#include "packed.h"

namespace tilewhisper {

struct Heads {
    int64_t batch, heads, n, head_dim;
    int64_t all() const { return batch * heads; }
    bool operator==(const Heads&) const = default;
};

// Keys and values of heads (batch, heads, n, head_dim) as `attention` takes them, in 16 or 8 bits: keys, their scales (in 8
// bits: the scales of a head, then the sums of the values that its keys' entries stand for), values, their scales.
class Packing {
   public:
    // `lasting`: for all steps of a window.
    Packing(Heads h, int64_t bits, bool lasting = false)
        : h_(h),
          bits_(bits),
          lasting_(lasting),
          padded_(panels_of(h.n) * PANEL),
          keys_(words_of(padded_ * h.head_dim)),
          key_scale_(of(padded_ * (bits == 8 ? 2 : 1), ScalarType::Float)),
          values_(words_of(padded_to_words(h.n, bits == 8 ? Layout::QUADS : Layout::PAIRS) * h.head_dim)),
          value_scale_(make({h.batch, h.heads, h.head_dim})) {
        check_range(h.n, 1, MAX_POSITIONS, "the number of positions");
    }

    void keys(int64_t head, FloatRows k) const {
        float* scale = at<float>(key_scale_, head);
        kernels().pack_keys(k, h_.n, h_.head_dim, words(keys_, head), scale, bits_ == 8 ? scale + padded_ : nullptr);
    }
    void values(int64_t head, FloatRows v) const {
        kernels().pack_values(v, h_.n, h_.head_dim, bits_, words(values_, head), at<float>(value_scale_, head));
    }
    std::tuple<Tensor, Tensor, Tensor, Tensor> packed() const { return {keys_, key_scale_, values_, value_scale_}; }

   private:
    Tensor words_of(int64_t numbers) const {
        STD_TORCH_CHECK(bits_ == 16 || bits_ == 8, "bits must be 16 or 8, got ", bits_);
        return of(numbers, bits_ == 8 ? ScalarType::Char : ScalarType::Short);
    }
    Tensor of(int64_t numbers, ScalarType type) const {
        return lasting_ ? make_lasting({h_.batch, h_.heads, numbers}, type) : make({h_.batch, h_.heads, numbers}, type);
    }
    template <class T>
    static T* at(const Tensor& t, int64_t head) {
        return static_cast<T*>(t.data_ptr()) + head * t.size(2);
    }
    void* words(const Tensor& t, int64_t head) const {
        return bits_ == 8 ? static_cast<void*>(at<int8_t>(t, head)) : at<int16_t>(t, head);
    }

    const Heads h_;
    const int64_t bits_;
    const bool lasting_;
    const int64_t padded_;
    const Tensor keys_, key_scale_, values_, value_scale_;
};

// The columns of some whole panels of a weight as a weight of its own.
inline Weight columns_of(Weight w, int64_t first_panel, int64_t n) {
    const int64_t scales = first_panel * scales_of(w.k, w.layout);
    w.panels = static_cast<const char*>(w.panels) + first_panel * panel_bytes(w.k, w.layout);
    if (w.scale) w.scale += scales;
    if (w.group_scale) w.group_scale += scales;
    if (w.sum) w.sum += first_panel * PANEL;
    w.n = n;
    return w;
}

}  // namespace tilewhisper
