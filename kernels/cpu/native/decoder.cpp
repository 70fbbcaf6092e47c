// A decoder's layers over a few tokens as one torch operator.
//
// As operators of their own, the 8 products and attentions of a layer leave torch's threads and are called from Python each
// time: of a step of base (6 layers, one row) that took a third. Here the threads go through all layers together. Weights
// and cross-attention K/V caches are registered once (see handles.h).

#include "decoder_layer.h"

namespace tilewhisper {
namespace {

// Norms (self, cross, final: weight and bias each) and products packed by pack_weight or pack_quads (qkv, self out, cross
// query, cross out, fc1, fc2) with padded biases, of a layer `width` wide with a hidden layer of `hidden`.
Handle register_layer(std::vector<Tensor> norms, double eps, std::vector<Tensor> panels, std::vector<Tensor> scales,
                      std::vector<std::optional<Tensor>> sums, std::vector<Tensor> biases, int64_t width, int64_t hidden,
                      double scale) {
    STD_TORCH_CHECK(norms.size() == 2 * NORMS && panels.size() == PRODUCTS && scales.size() == PRODUCTS &&
                        sums.size() == PRODUCTS && biases.size() == PRODUCTS,
                    "a layer must have 3 norms of a weight and a bias, and 6 products");
    check_range(width, 1, MAX_SIZE / 3, "width");
    check_range(hidden, 1, MAX_SIZE, "hidden");
    auto registered = std::make_shared<RegisteredLayer>();
    Layer& layer = registered->layer;
    const int64_t d = width, sizes[PRODUCTS][2] = {{d, 3 * d}, {d, d}, {d, d}, {d, d}, {d, hidden}, {hidden, d}};
    layer.scale = static_cast<float>(scale);
    for (int i = 0; i < PRODUCTS; ++i) {
        layer.weights[i] = weight_of(panels[i], scales[i], sums[i], sizes[i][0], sizes[i][1]);
        layer.biases[i] = contiguous_floats(biases[i], panels_of(sizes[i][1]) * PANEL, "a bias");
        if (sums[i]) registered->memory.push_back(*sums[i]);
    }
    for (int i = 0; i < NORMS; ++i) layer.norms[i] = norm_of(norms[2 * i], norms[2 * i + 1], eps, d);
    for (const auto* tensors : {&norms, &panels, &scales, &biases})
        registered->memory.insert(registered->memory.end(), tensors->begin(), tensors->end());
    return registry().add(std::move(registered));
}

// Keys and values of n positions as pack_keys_values makes them; `bias` (n,) has one number for each key.
Handle register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t heads, int64_t n,
                         int64_t head_dim, std::optional<Tensor> bias) {
    auto kv = std::make_shared<CrossKV>(PackedHeads(keys, key_scale, values, value_scale, heads, n, head_dim));
    if (const float* given = contiguous_or_null(bias, n, "bias"))
        std::copy_n(given, n, kv->bias.begin());
    else
        std::fill_n(kv->bias.begin(), n, 0.0f);
    kv->memory = {keys, key_scale, values, value_scale};
    return registry().add(std::move(kv));
}

// An unknown handle is ignored, as a null pointer is by `free`.
void release(Handle handle) { registry().remove(handle); }

// The size of all caches (layers, batch, heads, context, head_dim), each layer's contiguous.
Cache checked_caches(const Tensor& keys, const Tensor& values, int64_t layers, int64_t batch, int64_t width) {
    for (const auto& [t, name] : {std::pair{&keys, "keys"}, std::pair{&values, "values"}}) {
        check_floats(*t, 5, name);
        const int64_t heads = t->size(2), head = t->size(3) * t->size(4), layer = batch * heads * head;
        check_head_dim(t->size(4), name);
        STD_TORCH_CHECK(t->size(0) == layers && t->size(1) == batch && heads * t->size(4) == width, name, " must be of ",
                        layers, " layers, ", batch, " rows, and heads ", width, " wide together");
        STD_TORCH_CHECK(layer == 0 || (t->stride(3) == t->size(4) && t->stride(2) == head && t->stride(1) == heads * head),
                        "a layer's ", name, " must be contiguous");
        STD_TORCH_CHECK(layers == 1 || t->stride(0) >= layer, "the layers' ", name, " must not overlap");
    }
    STD_TORCH_CHECK(values.size(2) == keys.size(2) && values.size(3) == keys.size(3),
                    "keys and values must have the same shape");
    STD_TORCH_CHECK(keys.numel() == 0 || keys.data_ptr() != values.data_ptr(), "keys and values must not share memory");
    return {mutable_floats(keys), mutable_floats(values), keys.size(2), keys.size(3), keys.size(4)};
}

// The rows of x for each window in one layer: `cross_kv` has the handles of each window's layers, window by window.
std::vector<CrossRows> cross_rows_of(const std::vector<Handle>& cross_kv, const std::vector<int64_t>& counts, int64_t layer,
                                     int64_t layers, const Cache& cache, int64_t rows) {
    std::vector<CrossRows> all;
    int64_t first = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
        auto kv = find<CrossKV>(cross_kv[i * layers + layer]);
        STD_TORCH_CHECK(counts[i] > 0 && counts[i] <= rows - first, "the windows' rows must be > 0 and together ", rows,
                        ", got ", counts[i], " after ", first);
        STD_TORCH_CHECK(kv->heads.count() == cache.heads && kv->heads.head_dim() == cache.head_dim, "a window must have ",
                        cache.heads, " heads of ", cache.head_dim);
        all.push_back({first, counts[i], std::move(kv)});
        first += counts[i];
    }
    STD_TORCH_CHECK(first == rows, "the windows' rows must be together ", rows, ", got ", first);
    return all;
}

std::vector<NewTokens> new_tokens_of(const std::vector<int64_t>& counts, const std::vector<int64_t>& lengths, int64_t rows,
                                     int64_t context) {
    STD_TORCH_CHECK(counts.size() == lengths.size(), "each row of the batch must have a length and new tokens");
    std::vector<NewTokens> batch;
    int64_t first = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
        STD_TORCH_CHECK(lengths[i] >= 0 && lengths[i] <= context && counts[i] > 0 && counts[i] <= context - lengths[i],
                        "a cache of ", context, " tokens has no place for ", counts[i], " after ", lengths[i]);
        STD_TORCH_CHECK(counts[i] <= rows - first, "x must have a row for each new token, got ", rows);
        batch.push_back({first, counts[i], lengths[i]});
        first += counts[i];
    }
    STD_TORCH_CHECK(first == rows, "x must have a row for each of ", first, " new tokens, got ", rows);
    return batch;
}

struct LayerCall {
    std::shared_ptr<const RegisteredLayer> registered;
    Cache cache;
    std::vector<CrossRows> cross;
};

// x (tokens, d) through registered layers: `new_tokens` of each row of the batch, one after the other. Their keys and values
// join the caches after the `lengths` tokens that are in each already. Cross-attention goes over `cross_kv`, `cross_rows`
// rows of x, one after the other, for each window.
Tensor decoder_layers(Tensor x, std::vector<Handle> layers, Tensor keys, Tensor values, std::vector<int64_t> lengths,
                      std::vector<int64_t> new_tokens, std::vector<Handle> cross_kv, std::vector<int64_t> cross_rows) {
    check_floats(x, 2, "x");
    const int64_t rows = x.size(0), width = x.size(1), count = layers.size();
    STD_TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
    STD_TORCH_CHECK(count > 0, "there must be at least one layer");
    const Cache caches = checked_caches(keys, values, count, lengths.size(), width);
    const std::vector<NewTokens> batch = new_tokens_of(new_tokens, lengths, rows, caches.context);
    STD_TORCH_CHECK(cross_kv.size() == cross_rows.size() * count, "each window must have a handle for each of ", count,
                    " layers");

    std::vector<LayerCall> calls;
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i) {
        Cache cache = caches;
        cache.keys += rows ? i * keys.stride(0) : 0;
        cache.values += rows ? i * values.stride(0) : 0;
        calls.push_back(
            {find<RegisteredLayer>(layers[i]), cache, cross_rows_of(cross_kv, cross_rows, i, count, cache, rows)});
        const Layer& layer = calls.back().registered->layer;
        STD_TORCH_CHECK(layer.width() == width, "x must be as wide as the layers: ", layer.width(), ", got ", width);
        numbers = std::max(numbers, Buffers::numbers(layer, rows));
    }
    Tensor out = make({rows, width});
    if (rows == 0) return out;
    thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), numbers));
    float *const buffers = memory.data(), *const to = mutable_floats(out);
    std::vector<Phase> phases(count * LayerStep::PHASES);
    torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
        for (int64_t i = 0; i < count; ++i) {
            const auto& [registered, cache, cross] = calls[i];
            const Layer& layer = registered->layer;
            LayerStep(layer, rows, batch, cache, cross, Buffers(buffers, layer, rows), &phases[i * LayerStep::PHASES])
                .run(i ? to : floats(x), to);
        }
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def(
        "register_layer(Tensor[] norms, float eps, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor[] biases, int "
        "width, "
        "int hidden, float scale) -> int");
    m.def(
        "register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int heads, int n, int "
        "head_dim, "
        "Tensor? bias) -> int");
    m.def("release(int handle) -> ()");
    m.def(
        "decoder_layers(Tensor x, int[] layers, Tensor(a!) keys, Tensor(b!) values, int[] lengths, int[] new_tokens, "
        "int[] cross_kv, int[] cross_rows) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) { m.impl("release", TORCH_BOX(&release)); }

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("register_layer", TORCH_BOX(&register_layer));
    m.impl("register_cross_kv", TORCH_BOX(&register_cross_kv));
    m.impl("decoder_layers", TORCH_BOX(&decoder_layers));
}

}  // namespace tilewhisper
