// Attention as torch operators: keys and values packed once, queries over them; self-attention over a cache that grows.

#include <limits>
#include <tuple>

#include "packed.h"
#include "pages.h"

namespace tilewhisper {
namespace {

struct Heads {
    int64_t batch, heads, n, head_dim;
    int64_t all() const { return batch * heads; }
    bool operator==(const Heads&) const = default;
};

Heads heads_of(const Tensor& t, const char* name) {
    check_floats(t, 4, name);
    check_head_dim(t.size(3), name);
    STD_TORCH_CHECK(t.size(2) <= MAX_POSITIONS, name, " must have up to 2^20 positions, got ", t.size(2));
    return {t.size(0), t.size(1), t.size(2), t.size(3)};
}

FloatRows head_of(const Tensor& t, int64_t head) {
    const int64_t heads = t.size(1);
    return {floats(t) + head / heads * t.stride(0) + head % heads * t.stride(1), t.stride(2)};
}

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

std::tuple<Tensor, Tensor, Tensor, Tensor> pack_keys_values(Tensor k, Tensor v, int64_t bits) {
    const Heads h = heads_of(k, "k");
    STD_TORCH_CHECK(h == heads_of(v, "v"), "k and v must have the same shape");
    const Packing to(h, bits);
    share_each(h.all(), [&](int64_t head) {
        to.keys(head, head_of(k, head));
        to.values(head, head_of(v, head));
    });
    return to.packed();
}

// The columns of some whole panels of a weight as a weight of its own.
Weight columns_of(Weight w, int64_t first_panel, int64_t n) {
    const int64_t scales = first_panel * scales_of(w.k, w.layout);
    w.panels = static_cast<const char*>(w.panels) + first_panel * panel_bytes(w.k, w.layout);
    if (w.scale) w.scale += scales;
    if (w.group_scale) w.group_scale += scales;
    if (w.sum) w.sum += first_panel * PANEL;
    w.n = n;
    return w;
}

// pack_keys_values of x (1, n, k) times a packed weight of width = 2 * heads * head_dim columns, the keys' first, + bias. A
// head is packed while it is in the cache: with all products before all packing, 486 positions of base took 1.4 ms a layer
// instead of 0.9.
std::tuple<Tensor, Tensor, Tensor, Tensor> project_keys_values(Tensor x, Tensor panels, Tensor scales,
                                                               std::optional<Tensor> sums, std::optional<Tensor> bias,
                                                               int64_t width, int64_t heads, int64_t bits) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.size(0) == 1, "x must be one window, got ", x.size(0));
    const int64_t n = x.size(1), k = x.size(2);
    check_range(n, 1, MAX_POSITIONS, "the number of positions");
    const Weight weight = weight_of(panels, scales, sums, k, width);
    check_range(heads, 1, width, "the number of heads");
    STD_TORCH_CHECK(width % (2 * heads) == 0, "the weight's ", width, " columns must be keys and values of ", heads,
                    " heads of one size");
    const Heads h{1, heads, n, width / (2 * heads)};
    check_head_dim(h.head_dim, "the weight");
    const float* added = contiguous_or_null(bias, panels_of(width) * PANEL, "bias");
    Tensor memory = make({Workspace::bytes(n, k)}, ScalarType::Char);
    const Workspace at(static_cast<char*>(memory.data_ptr()), n, k);
    const WordRows words = at.words(weight.layout);
    const Packing to(h, bits, true);
    share(n, 96, [&](int64_t first, int64_t last) {
        const FloatRows rows{floats(x) + first * x.stride(1), x.stride(1)};
        kernels().quantize(rows, last - first, k, {}, weight.layout, words.from(first), nullptr);
    });
    share_each(2 * heads, [&](int64_t item) {
        const int64_t panel = item * h.head_dim / PANEL;
        auto* numbers = static_cast<float*>(scratch(n * h.head_dim * 4));
        const Epilogue then{added ? added + panel * PANEL : nullptr, false, nullptr};
        kernels().product(words, n, columns_of(weight, panel, h.head_dim), 0, h.head_dim / PANEL, then, numbers);
        if (item < heads)
            to.keys(item, {numbers, h.head_dim});
        else
            to.values(item - heads, {numbers, h.head_dim});
    });
    return to.packed();
}

// softmax(scale * q k^T + bias) v of packed keys and values, n of them; q and result (batch, heads, m, head_dim), the
// result's memory laid out as (batch, m, heads, head_dim), so that joining the heads again is free.
Tensor attention(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t n, double scale,
                 std::optional<Tensor> bias) {
    const Heads h = heads_of(q, "q");
    const PackedHeads packed(keys, key_scale, values, value_scale, h.all(), n, h.head_dim);
    std::vector<float> added(panels_of(n) * PANEL, -std::numeric_limits<float>::infinity());
    if (const float* given = contiguous_or_null(bias, n, "bias"))
        std::copy_n(given, n, added.begin());
    else
        std::fill_n(added.begin(), n, 0.0f);
    Tensor out = make({h.batch, h.n, h.heads, h.head_dim});
    const Kernels& run = kernels();
    const int64_t step = 4 * MAX_BLOCK, steps = (h.n + step - 1) / step;
    share(h.all() * steps, 1, [&](int64_t first, int64_t last) {
        void* memory = scratch(attention_scratch(n));
        for (int64_t i = first; i < last; ++i) {
            const int64_t head = i / steps, row = i % steps * step;
            FloatRows queries = head_of(q, head);
            queries.data += row * queries.stride;
            float* to = mutable_floats(out) + ((head / h.heads * h.n + row) * h.heads + head % h.heads) * h.head_dim;
            run.attention(queries, std::min(step, h.n - row), packed[head], static_cast<float>(scale), added.data(), memory,
                          to, h.heads * h.head_dim);
        }
    });
    return torch::stable::transpose(out, 1, 2);
}

// Causal self-attention of new tokens in one layer: the keys and values of qkv (batch, new, 3 * heads * head_dim) join the
// caches (see pages.h), and each token attends to itself and all before it: (batch, new, heads * head_dim).
Tensor self_attention(Tensor qkv, std::vector<Tensor> slabs, std::vector<int64_t> pages, std::vector<int64_t> lengths,
                      int64_t layer, double scale) {
    check_floats(qkv, 3, "qkv");
    STD_TORCH_CHECK(qkv.is_contiguous(), "qkv must be contiguous");
    const int64_t batch = qkv.size(0), fresh = qkv.size(1);
    STD_TORCH_CHECK(static_cast<int64_t>(lengths.size()) == batch, "lengths must have ", batch, " entries, got ",
                    lengths.size());
    const PagedCaches caches(slabs, pages, lengths, std::vector<int64_t>(batch, fresh));
    check_range(layer, 0, caches.layers() - 1, "the layer");
    STD_TORCH_CHECK(qkv.size(2) == 3 * caches.width(), "qkv must have rows of 3 * ", caches.width(), " numbers, got ",
                    qkv.size(2));
    Tensor out = make({batch, fresh, caches.width()});
    share(batch * caches.heads(), 1, [&](int64_t first, int64_t last) {
        auto* scores = static_cast<float*>(scratch(panels_of(caches.longest()) * PANEL * 4));
        for (int64_t item = first; item < last; ++item)
            caches.attend(layer, item % caches.heads(), caches.texts()[item / caches.heads()], {floats(qkv), qkv.size(2)},
                          static_cast<float>(scale), scores, mutable_floats(out));
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("pack_keys_values(Tensor k, Tensor v, int bits) -> (Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "project_keys_values(Tensor x, Tensor panels, Tensor scales, Tensor? sums, Tensor? bias, int width, int heads, "
        "int bits) -> (Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "attention(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int n, float scale, "
        "Tensor? bias) -> Tensor");
    m.def("self_attention(Tensor qkv, Tensor(a!)[] slabs, int[] pages, int[] lengths, int layer, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("pack_keys_values", TORCH_BOX(&pack_keys_values));
    m.impl("project_keys_values", TORCH_BOX(&project_keys_values));
    m.impl("attention", TORCH_BOX(&attention));
    m.impl("self_attention", TORCH_BOX(&self_attention));
}

}  // namespace tilewhisper
