// A decoder's layers over a few rows as one torch operator.
//
// Taken one by one, the 8 products and attentions of a layer leave torch's threads and are called from Python each time:
// of a step of base (6 layers, one row) that was a third. Here the threads go through all layers together. Weights, and the
// keys and values of windows, are handed over once (see held.h).

#include "decoder_layer.h"

namespace tilewhisper {
namespace {

// Norms (own, cross, final: weight and bias each) and products packed by pack_weight or pack_quads (qkv, own out, cross query,
// cross out, fc1, fc2) with padded biases, of a layer `width` wide with a hidden layer of `hidden`.
int64_t register_layer(std::vector<Tensor> norms, double eps, std::vector<Tensor> panels, std::vector<Tensor> scales,
                   std::vector<std::optional<Tensor>> sums, std::vector<Tensor> biases, int64_t width, int64_t hidden,
                   double scale) {
    STD_TORCH_CHECK(norms.size() == 2 * NORMS && panels.size() == PRODUCTS && scales.size() == PRODUCTS && sums.size() == PRODUCTS &&
                        biases.size() == PRODUCTS,
                    "a layer has 3 norms of a weight and a bias, and 6 products");
    auto held = std::make_shared<HeldLayer>();
    const int64_t d = width, sizes[PRODUCTS][2] = {{d, 3 * d}, {d, d}, {d, d}, {d, d}, {d, hidden}, {hidden, d}};
    held->layer.scale = static_cast<float>(scale);
    for (int i = 0; i < PRODUCTS; ++i) {
        held->layer.weights[i] = weight_of(panels[i], scales[i], sums[i], sizes[i][0], sizes[i][1]);
        held->layer.biases[i] = dense_or_null(biases[i], panels_of(sizes[i][1]) * PANEL, "a bias");
        if (sums[i]) held->memory.push_back(*sums[i]);
    }
    for (int i = 0; i < NORMS; ++i) {
        held->layer.norms[i] = {dense_or_null(norms[2 * i], d, "a norm's weight"), dense_or_null(norms[2 * i + 1], d, "a norm's bias"),
                                static_cast<float>(eps)};
    }
    for (const auto* tensors : {&norms, &panels, &scales, &biases})
        held->memory.insert(held->memory.end(), tensors->begin(), tensors->end());
    return hold(std::move(held));
}

// Keys and values of n positions as pack_keys_values gives them; `bias` (n,) is one of each key.
int64_t register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t heads, int64_t n, int64_t head_dim,
                    std::optional<Tensor> bias) {
    auto held = std::make_shared<HeldWindow>(PackedHeads(keys, key_scale, values, value_scale, heads, n, head_dim));
    if (const float* given = dense_or_null(bias, n, "a bias"))
        std::copy_n(given, n, held->bias.begin());
    else
        std::fill_n(held->bias.begin(), n, 0.0f);
    held->memory = {keys, key_scale, values, value_scale};
    return hold(std::move(held));
}

// Caches (layers, batch, heads, context, head_dim), each layer's dense: where one layer's begins.
float* cache_of(const Tensor& caches, int64_t layer) {
    return static_cast<float*>(caches.data_ptr()) + layer * caches.stride(0);
}

void check_caches(const Tensor& caches, int64_t layers, int64_t batch, int64_t width, const char* name) {
    check_floats(caches, 5, name);
    const int64_t head = caches.size(3) * caches.size(4);
    STD_TORCH_CHECK(caches.size(0) == layers && caches.size(1) == batch && caches.size(2) * caches.size(4) == width, name,
                    " must be of ", layers, " layers, ", batch, " rows, and heads ", width, " wide together");
    STD_TORCH_CHECK(caches.stride(3) == caches.size(4) && caches.stride(2) == head && caches.stride(1) == caches.size(2) * head,
                    "a layer's ", name, " must be dense");
    STD_TORCH_CHECK(caches.size(4) % PANEL == 0 && caches.size(4) <= MAX_HEAD_DIM,
                    "the head size must be a multiple of 16 up to 256, not ", caches.size(4));
}

// Who listens to what in one layer: `windows` has the number of each window for each layer, window by window.
std::vector<Listeners> listeners_of(const std::vector<int64_t>& windows, const std::vector<int64_t>& rows, int64_t layer,
                                    int64_t layers, int64_t heads, int64_t head_dim) {
    std::vector<Listeners> listeners;
    int64_t first = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        auto window = find<HeldWindow>(windows[i * layers + layer]);
        STD_TORCH_CHECK(rows[i] > 0, "a window must have rows");
        STD_TORCH_CHECK(window->heads.count() == heads && window->heads.head_dim() == head_dim, "a window must have ", heads,
                        " heads of ", head_dim);
        listeners.push_back({first, rows[i], std::move(window)});
        first += rows[i];
    }
    return listeners;
}

std::vector<Text> texts_of(const std::vector<int64_t>& fresh, const std::vector<int64_t>& lengths, int64_t rows, int64_t context) {
    STD_TORCH_CHECK(fresh.size() == lengths.size(), "each row of the batch must have a length and new tokens");
    std::vector<Text> texts;
    int64_t first = 0;
    for (size_t i = 0; i < fresh.size(); ++i) {
        STD_TORCH_CHECK(lengths[i] >= 0 && fresh[i] > 0 && lengths[i] + fresh[i] <= context, lengths[i], " tokens and ", fresh[i],
                        " new ones do not fit a cache of ", context);
        texts.push_back({first, fresh[i], lengths[i]});
        first += fresh[i];
    }
    STD_TORCH_CHECK(first == rows, "x has ", rows, " rows, and there are ", first, " new tokens");
    return texts;
}

struct LayerStep {
    std::shared_ptr<const HeldLayer> held;
    Cache cache;
    std::vector<Listeners> listeners;
};

// x (tokens, d) through layers that were held: `fresh` tokens of each row of the batch, one after the other. Their keys and
// values join the caches after the `lengths` tokens that each has already. Cross-attention goes over `windows`, `window_rows`
// rows of x, one after the other, in each.
Tensor decoder_layers(Tensor x, std::vector<int64_t> layers, Tensor keys, Tensor values, std::vector<int64_t> lengths,
                      std::vector<int64_t> fresh, std::vector<int64_t> windows, std::vector<int64_t> window_rows) {
    check_floats(x, 2, "x");
    const int64_t batch = lengths.size(), rows = x.size(0), width = x.size(1), count = layers.size();
    STD_TORCH_CHECK(x.is_contiguous() && rows > 0 && count > 0, "x must be dense, and there must be layers");
    check_caches(keys, count, batch, width, "keys");
    check_caches(values, count, batch, width, "values");
    const int64_t heads = keys.size(2), context = keys.size(3), head_dim = keys.size(4);
    STD_TORCH_CHECK(values.size(2) == heads && values.size(3) == context, "keys and values must be of one shape");
    const std::vector<Text> texts = texts_of(fresh, lengths, rows, context);
    STD_TORCH_CHECK(windows.size() == window_rows.size() * count, "each window must have a number for each of ", count, " layers");

    std::vector<LayerStep> steps;
    int64_t numbers = 0;
    for (int64_t i = 0; i < count; ++i) {
        const Cache cache{cache_of(keys, i), cache_of(values, i), heads, context, head_dim};
        steps.push_back({find<HeldLayer>(layers[i]), cache, listeners_of(windows, window_rows, i, count, heads, head_dim)});
        const LayerStep& step = steps.back();
        STD_TORCH_CHECK(step.held->layer.width() == width, "x must be as wide as the layers");
        STD_TORCH_CHECK(!step.listeners.empty() && step.listeners.back().first + step.listeners.back().rows == rows, "each of ", rows,
                        " rows must be in a window");
        numbers = std::max(numbers, Buffers::numbers(step.held->layer, rows));
    }
    thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), numbers));
    float* const buffers = memory.data();
    Tensor out = make({rows, width});
    auto* const to = static_cast<float*>(out.data_ptr());
    std::vector<Phase> phases(count * Step::PHASES);
    torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
        for (int64_t i = 0; i < count; ++i) {
            const auto& [held, cache, listeners] = steps[i];
            Step(held->layer, rows, texts, cache, listeners, Buffers(buffers, held->layer, rows), &phases[i * Step::PHASES])
                .run(i ? to : floats(x), to);
        }
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def(
        "register_layer(Tensor[] norms, float eps, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor[] biases, int width, "
        "int hidden, float scale) -> int");
    m.def(
        "register_cross_kv(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int heads, int n, int head_dim, "
        "Tensor? bias) -> int");
    m.def("release(int number) -> ()");
    m.def(
        "decoder_layers(Tensor x, int[] layers, Tensor(a!) keys, Tensor(b!) values, int[] lengths, int[] fresh, int[] windows, "
        "int[] window_rows) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) { m.impl("release", TORCH_BOX(&release)); }

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("register_layer", TORCH_BOX(&register_layer));
    m.impl("register_cross_kv", TORCH_BOX(&register_cross_kv));
    m.impl("decoder_layers", TORCH_BOX(&decoder_layers));
}

}  // namespace tilewhisper
