// A decoder's layers over a few tokens as one torch operator.
//
// As operators of their own, the 8 products and attentions of a layer leave torch's threads and are called from Python each
// time: of a step of base (6 layers, one row) that took a third. Here the threads go through all layers together. Weights
// and cross-attention K/V caches are registered once (see handles.h).

#include "decoder_layer.h"

namespace tilewhisper {
namespace {

// Norms (self, cross, final) and products (qkv, self out, cross query, cross out, fc1, fc2) of a layer `width` wide with a
// hidden layer of `hidden`.
Handle register_layer(std::vector<Tensor> norms, double eps, std::vector<Tensor> panels, std::vector<Tensor> scales,
                      std::vector<std::optional<Tensor>> sums, std::vector<std::optional<Tensor>> biases, int64_t width,
                      int64_t hidden, double scale) {
    check_range(width, 1, MAX_SIZE / 3, "width");
    check_range(hidden, 1, MAX_SIZE, "hidden");
    return registry().add(
        std::make_shared<Layer>(LayerTensors{norms, eps, panels, scales, sums, biases}, width, hidden, scale));
}

// Keys and values of n positions as pack_keys_values makes them; `bias` (n,) has one number for each key.
Handle register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t heads, int64_t n,
                         int64_t head_dim, std::optional<Tensor> bias) {
    auto kv = std::make_shared<CrossKV>(PackedHeads(keys, key_scale, values, value_scale, heads, n, head_dim), bias);
    kv->memory = {keys, key_scale, values, value_scale};
    return registry().add(std::move(kv));
}

// An unknown handle is ignored, as a null pointer is by `free`.
void release(Handle handle) { registry().remove(handle); }

// The rows of x for each window in one layer: `cross_kv` has the handles of each window's layers, window by window.
std::vector<CrossRows> cross_rows_of(const std::vector<Handle>& cross_kv, const std::vector<int64_t>& counts, int64_t layer,
                                     int64_t layers, const PagedCaches& caches, int64_t rows) {
    std::vector<CrossRows> all;
    int64_t first = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
        auto kv = find<CrossKV>(cross_kv[i * layers + layer]);
        STD_TORCH_CHECK(counts[i] > 0 && counts[i] <= rows - first, "the windows' rows must be > 0 and together ", rows,
                        ", got ", counts[i], " after ", first);
        STD_TORCH_CHECK(kv->heads.count() == caches.heads() && kv->heads.head_dim() == caches.head_dim(),
                        "a window must have ", caches.heads(), " heads of ", caches.head_dim());
        all.push_back({first, counts[i], std::move(kv)});
        first += counts[i];
    }
    STD_TORCH_CHECK(first == rows, "the windows' rows must be together ", rows, ", got ", first);
    return all;
}

struct LayerCall {
    std::shared_ptr<const Layer> layer;
    std::vector<CrossRows> cross;
};

// x (tokens, d) through registered layers: `new_tokens` of each text of the batch, one after the other. Their keys and
// values join the caches (see pages.h). Cross-attention goes over `cross_kv`, `cross_rows` rows of x, one after the other,
// for each window.
Tensor decoder_layers(Tensor x, std::vector<Handle> layers, std::vector<Tensor> slabs, std::vector<int64_t> pages,
                      std::vector<int64_t> lengths, std::vector<int64_t> new_tokens, std::vector<Handle> cross_kv,
                      std::vector<int64_t> cross_rows) {
    check_floats(x, 2, "x");
    const int64_t rows = x.size(0), width = x.size(1), count = layers.size();
    STD_TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
    STD_TORCH_CHECK(count > 0, "there must be at least one layer");
    const PagedCaches caches(slabs, pages, lengths, new_tokens);
    STD_TORCH_CHECK(caches.layers() == count && caches.width() == width, "the caches must be of ", count,
                    " layers, and heads ", width, " wide together");
    STD_TORCH_CHECK(caches.new_tokens() == rows, "x must have a row for each of ", caches.new_tokens(), " new tokens, got ",
                    rows);
    STD_TORCH_CHECK(cross_kv.size() == cross_rows.size() * count, "each window must have a handle for each of ", count,
                    " layers");

    std::vector<LayerCall> calls;
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i) {
        calls.push_back({find<Layer>(layers[i]), cross_rows_of(cross_kv, cross_rows, i, count, caches, rows)});
        const Layer& layer = *calls.back().layer;
        STD_TORCH_CHECK(layer.width() == width, "x must be as wide as the layers: ", layer.width(), ", got ", width);
        numbers = std::max(numbers, Buffers::numbers(layer, rows));
    }
    Tensor out = make({rows, width});
    if (rows == 0) return out;
    thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), numbers));
    float *const buffers = memory.data(), *const to = mutable_floats(out);
    std::vector<Phase> phases(count * LayerStep::PHASES);
    on_all_threads([&] {
        for (int64_t i = 0; i < count; ++i) {
            const auto& [layer, cross] = calls[i];
            LayerStep(*layer, i, rows, caches, cross, Buffers(buffers, *layer, rows), &phases[i * LayerStep::PHASES])
                .run(i ? to : floats(x), to);
        }
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def(
        "register_layer(Tensor[] norms, float eps, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor?[] biases, "
        "int width, int hidden, float scale) -> int");
    m.def(
        "register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int heads, int n, int "
        "head_dim, "
        "Tensor? bias) -> int");
    m.def("release(int handle) -> ()");
    m.def(
        "decoder_layers(Tensor x, int[] layers, Tensor(a!)[] slabs, int[] pages, int[] lengths, int[] new_tokens, "
        "int[] cross_kv, int[] cross_rows) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) { m.impl("release", BOXED(&release)); }

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("register_layer", BOXED(&register_layer));
    m.impl("register_cross_kv", BOXED(&register_cross_kv));
    m.impl("decoder_layers", BOXED(&decoder_layers));
}

}  // namespace tilewhisper
