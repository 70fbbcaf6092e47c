// Attention as torch operators: keys and values packed once, queries over them; self-attention over a cache that grows.

#include <tuple>

#include "packing.h"
#include "pages.h"

namespace tilewhisper {
namespace {

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
    const std::vector<float> added = score_biases(bias, n);
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
    m.impl("pack_keys_values", BOXED(&pack_keys_values));
    m.impl("project_keys_values", BOXED(&project_keys_values));
    m.impl("attention", BOXED(&attention));
    m.impl("self_attention", BOXED(&self_attention));
}

}  // namespace tilewhisper
