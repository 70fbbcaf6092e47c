// Attention as torch operators: keys and values packed once, queries over them; self-attention over a cache that grows.

#include "ops.h"

#include <limits>
#include <tuple>

namespace tilewhisper {
namespace {

struct Heads {
    int64_t batch, heads, n, head_dim;
    int64_t all() const { return batch * heads; }
};

Heads checked(Heads h, const char* name) {
    STD_TORCH_CHECK(h.head_dim % PANEL == 0 && h.head_dim > 0 && h.head_dim <= MAX_HEAD_DIM, name,
                    "'s head size must be a multiple of 16 up to 256, not ", h.head_dim);
    STD_TORCH_CHECK(h.n > 0 && h.n < 1 << 20, name, " must have between 1 and 2^20 positions");
    return h;
}

Heads heads_of(const Tensor& t, const char* name) {
    check_floats(t, 4, name);
    return checked({t.size(0), t.size(1), t.size(2), t.size(3)}, name);
}

FloatRows head_of(const Tensor& t, int64_t head) {
    const int64_t heads = t.size(1);
    return {floats(t) + head / heads * t.stride(0) + head % heads * t.stride(1), t.stride(2)};
}

// Keys and values of heads (batch, heads, n, head_dim) as `attend` takes them, in `bits` = 16 or 8: keys, their scales (of
// bytes: the scales of a head, then the sums of what its keys stand for), values, their scales.
class Packing {
   public:
    Packing(Heads h, int64_t bits)
        : h_(h), bits_(bits), padded_(panels_of(h.n) * PANEL), keys_(of(padded_ * h.head_dim)),
          key_scale_(make({h.batch, h.heads, padded_ * (bits == 8 ? 2 : 1)})),
          values_(of(padded_to_words(h.n, bits == 8 ? Layout::QUADS : Layout::PAIRS) * h.head_dim)),
          value_scale_(make({h.batch, h.heads, h.head_dim})) {}

    void keys(int64_t head, FloatRows k) const {
        float* scale = at<float>(key_scale_, head);
        kernels().pack_keys(k, h_.n, h_.head_dim, words(keys_, head), scale, bits_ == 8 ? scale + padded_ : nullptr);
    }
    void values(int64_t head, FloatRows v) const {
        kernels().pack_values(v, h_.n, h_.head_dim, bits_, words(values_, head), at<float>(value_scale_, head));
    }
    std::tuple<Tensor, Tensor, Tensor, Tensor> packed() const { return {keys_, key_scale_, values_, value_scale_}; }

   private:
    Tensor of(int64_t numbers) const {
        STD_TORCH_CHECK(bits_ == 16 || bits_ == 8, "bits must be 16 or 8");
        return make({h_.batch, h_.heads, numbers}, bits_ == 8 ? ScalarType::Char : ScalarType::Short);
    }
    template <class T>
    static T* at(const Tensor& t, int64_t head) {
        return static_cast<T*>(t.data_ptr()) + head * t.size(2);
    }
    void* words(const Tensor& t, int64_t head) const {
        return bits_ == 8 ? static_cast<void*>(at<int8_t>(t, head)) : at<int16_t>(t, head);
    }

    const Heads h_;
    const int64_t bits_, padded_;
    const Tensor keys_, key_scale_, values_, value_scale_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> pack_keys_values(Tensor k, Tensor v, int64_t bits) {
    const Heads h = heads_of(k, "k"), same = heads_of(v, "v");
    STD_TORCH_CHECK(h.batch == same.batch && h.heads == same.heads && h.n == same.n && h.head_dim == same.head_dim,
                    "k and v must have the same shape");
    const Packing to(h, bits);
    share(h.all(), 1, [&](int64_t head, int64_t) {
        to.keys(head, head_of(k, head));
        to.values(head, head_of(v, head));
    });
    return to.packed();
}

// The columns of some whole panels of a weight as a weight of its own.
Weight columns_of(Weight w, int64_t first_panel, int64_t n) {
    const int64_t entries = first_panel * words_of(w.k, w.layout) * PANEL * (w.layout == Layout::QUADS ? 4 : 2);
    w.panels = static_cast<const char*>(w.panels) + entries * (w.layout == Layout::PAIRS ? 2 : 1);
    w.scale += first_panel * PANEL;
    if (w.sum) w.sum += first_panel * PANEL;
    w.n = n;
    return w;
}

// What pack_keys_values makes of x (1, n, k) times a packed weight of 2 * heads * head_dim columns, those of keys first, + bias.
// A head is packed while it is in the cache: all products first, and then all packing, 486 positions of base took 1.4 ms a layer in place of 0.9.
std::tuple<Tensor, Tensor, Tensor, Tensor> pack_products(Tensor x, Tensor panels, Tensor scales, std::optional<Tensor> sums,
                                                         std::optional<Tensor> bias, int64_t width, int64_t heads, int64_t bits) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.size(0) == 1 && heads > 0 && width % (2 * heads) == 0, "there must be one window, and keys and values of ",
                    heads, " heads of one size");
    const int64_t n = x.size(1), k = x.size(2);
    const Heads h = checked({1, heads, n, width / (2 * heads)}, "x");
    const Weight weight = weight_of(panels, scales, sums, k, width);
    const float* added = dense_or_null(bias, panels_of(width) * PANEL, "bias");
    Tensor memory = make({Workspace::bytes(n, k)}, ScalarType::Char);
    const Workspace at(static_cast<char*>(memory.data_ptr()), n, k);
    const WordRows words = at.words(weight.layout);
    const Packing to(h, bits);
    share(n, 96, [&](int64_t first, int64_t last) {
        const FloatRows rows{floats(x) + first * x.stride(1), x.stride(1)};
        kernels().quantize(rows, last - first, k, {}, weight.layout, words.from(first), nullptr);
    });
    share(2 * heads, 1, [&](int64_t item, int64_t) {
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
Tensor attend(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t n, double scale,
              std::optional<Tensor> bias) {
    const Heads h = heads_of(q, "q");
    const PackedHeads packed(keys, key_scale, values, value_scale, h.all(), n, h.head_dim);
    std::vector<float> added(panels_of(n) * PANEL, -std::numeric_limits<float>::infinity());
    if (const float* given = dense_or_null(bias, n, "bias"))
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
            auto* to = static_cast<float*>(out.data_ptr()) +
                       ((head / h.heads * h.n + row) * h.heads + head % h.heads) * h.head_dim;
            run.attention(queries, std::min(step, h.n - row), packed[head], static_cast<float>(scale), added.data(), memory, to,
                          h.heads * h.head_dim);
        }
    });
    return torch::stable::transpose(out, 1, 2);
}

// Self-attention of new tokens: qkv (batch, new, 3 * heads * head_dim) joins the caches (batch, heads, context, head_dim)
// after the `lengths` tokens of each row, and each token attends to itself and all before it: (batch, new, heads * head_dim).
Tensor self_attention(Tensor qkv, Tensor keys, Tensor values, std::vector<int64_t> lengths, double scale) {
    check_floats(qkv, 3, "qkv");
    const Heads h = heads_of(keys, "keys"), same = heads_of(values, "values");
    const int64_t fresh = qkv.size(1), width = h.heads * h.head_dim, context = h.n;
    STD_TORCH_CHECK(keys.is_contiguous() && values.is_contiguous() && same.all() == h.all() && same.n == context,
                    "keys and values must be dense and of the same shape");
    STD_TORCH_CHECK(qkv.size(0) == h.batch && qkv.size(2) == 3 * width && same.head_dim == h.head_dim,
                    "qkv does not fit the caches");
    STD_TORCH_CHECK(static_cast<int64_t>(lengths.size()) == h.batch, "there must be a length for each of ", h.batch, " rows");
    for (const int64_t length : lengths)
        STD_TORCH_CHECK(length >= 0 && length + fresh <= context, length + fresh, " tokens do not fit a cache of ", context);
    Tensor out = make({h.batch, fresh, width});
    auto *k = static_cast<float*>(keys.data_ptr()), *v = static_cast<float*>(values.data_ptr());
    share(h.all(), 1, [&](int64_t first, int64_t last) {
        auto* scores = static_cast<float*>(scratch(panels_of(context) * PANEL * 4));
        for (int64_t head = first; head < last; ++head)
            for (int64_t i = 0; i < fresh; ++i) {
                const int64_t row = lengths[head / h.heads] + i, cache = head * context * h.head_dim, at = head % h.heads * h.head_dim;
                const float* token = floats(qkv) + head / h.heads * qkv.stride(0) + i * qkv.stride(1) + at;
                std::copy_n(token + width, h.head_dim, k + cache + row * h.head_dim);
                std::copy_n(token + 2 * width, h.head_dim, v + cache + row * h.head_dim);
                auto* to = static_cast<float*>(out.data_ptr()) + (head / h.heads * fresh + i) * width + at;
                kernels().attend_rows(token, k + cache, v + cache, row + 1, h.head_dim, static_cast<float>(scale), scores, to);
            }
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("pack_keys_values(Tensor k, Tensor v, int bits) -> (Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "pack_products(Tensor x, Tensor panels, Tensor scales, Tensor? sums, Tensor? bias, int width, int heads, int bits) -> "
        "(Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "attend(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int n, float scale, "
        "Tensor? bias) -> Tensor");
    m.def("self_attention(Tensor qkv, Tensor(a!) keys, Tensor(b!) values, int[] lengths, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("pack_keys_values", TORCH_BOX(&pack_keys_values));
    m.impl("pack_products", TORCH_BOX(&pack_products));
    m.impl("attend", TORCH_BOX(&attend));
    m.impl("self_attention", TORCH_BOX(&self_attention));
}

}  // namespace tilewhisper
