// A decoder's layers over a few rows as one torch operator.
//
// Taken one by one, the 8 products and attentions of a layer leave torch's threads and are called from Python each time:
// of a step of base (6 layers, one row) that was a third. Here the threads go through all of all layers together. Weights,
// and the keys and values of windows, are handed over once (see held.h).

#include <limits>
#include <thread>

#include "held.h"
#include "ops.h"

namespace tilewhisper {
namespace {

// Work that several threads share out among themselves, part by part, as they come for it. `run` returns when all of it
// is done. A thread that comes late holds up nobody: it finds nothing left to do.
class Phase {
   public:
    // run(first, last) over [0, total) in parts of `part`, `prepare()` once before on each thread that takes one.
    template <class Prepare, class Run>
    void share(int64_t total, int64_t part, const Prepare& prepare, const Run& run) {
        bool prepared = false;
        for (int64_t first; (first = next_.fetch_add(part)) < total;) {
            if (!prepared) prepare();
            prepared = true;
            const int64_t last = std::min(total, first + part);
            run(first, last);
            done_.fetch_add(last - first, std::memory_order_release);
        }
        for (int64_t waits = 0; done_.load(std::memory_order_acquire) < total; ++waits)
            if (waits > PATIENCE) std::this_thread::yield();
    }

   private:
    static constexpr int64_t PATIENCE = 4096;  // some 10 us: longer than a part takes, shorter than a time slice
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<int64_t> done_{0};
};

enum Product { QKV, OWN_OUT, CROSS_QUERY, CROSS_OUT, FC1, FC2, PRODUCTS };
enum NormName { OWN, CROSS, FINAL, NORMS };

struct Layer {
    Weight weights[PRODUCTS];
    const float* biases[PRODUCTS];
    Norm norms[NORMS];
    float scale;  // of scores
    int64_t width() const { return weights[OWN_OUT].n; }
};

struct HeldLayer : Held {
    Layer layer;
    std::vector<Tensor> memory;
};

// Packed keys and values of a window's positions, as one layer attends to them.
struct HeldWindow : Held {
    explicit HeldWindow(const PackedHeads& packed)
        : heads(packed), bias(panels_of(packed.positions()) * PANEL, -std::numeric_limits<float>::infinity()) {}
    PackedHeads heads;
    std::vector<float> bias;  // of each key, -inf up to whole panels
    std::vector<Tensor> memory;
};

// Rows that stand in one window.
struct Listeners {
    int64_t first, rows;
    std::shared_ptr<const HeldWindow> window;
};

struct Cache {
    float *keys, *values;  // (batch, heads, context, head_dim)
    int64_t heads, context, head_dim;
};

// New tokens of one row of the batch, `count` rows of x from `first` on, after `length` that it has already.
struct Text {
    int64_t first, count, length;
};

// Buffers that all threads share, layer after layer; rows are tokens, batch by batch.
struct Buffers {
    float *qkv, *attended, *after_own, *query, *after_cross, *hidden;

    static int64_t numbers(const Layer& layer, int64_t rows) { return rows * (7 * layer.width() + layer.weights[FC1].n); }
    Buffers(float* memory, const Layer& layer, int64_t rows) {
        const int64_t size = rows * layer.width();
        qkv = memory;
        attended = qkv + 3 * size;
        after_own = attended + size;
        query = after_own + size;
        after_cross = query + size;
        hidden = after_cross + size;
    }
};

// One thread's way through a layer.
class Step {
   public:
    Step(const Layer& layer, int64_t rows, const std::vector<Text>& texts, const Cache& cache,
         const std::vector<Listeners>& listeners, Buffers at, Phase* phases)
        : layer_(layer), rows_(rows), texts_(texts), cache_(cache), listeners_(listeners), at_(at), phases_(phases) {
        int64_t attention = panels_of(cache.context) * PANEL * 4;
        for (const Listeners& some : listeners) attention = std::max(attention, attention_scratch(some.window->heads.positions()));
        const int64_t widest = std::max(layer.width(), layer.weights[FC1].n);
        const int64_t stride = words_of(widest, Layout::PAIRS) * 4 + 64;
        const int64_t words = rows * stride, scales = (rows * 8 + 63) / 64 * 64;
        auto* memory = static_cast<char*>(scratch(attention + words + scales + layer.width() * 4));
        attention_ = memory;
        auto* scale = reinterpret_cast<float*>(memory + attention + words);
        words_ = {memory + attention, stride, scale, scale + rows, {}};
        normed_ = reinterpret_cast<float*>(memory + attention + words + scales);
    }

    static constexpr int64_t PHASES = 8;

    // `out` may be `x`: nothing is read of it any more when the last product writes.
    void run(const float* x, float* out) {
        normed_product(phases_[0], OWN, x, QKV, {}, at_.qkv);
        self_attention(phases_[1]);
        product(phases_[2], at_.attended, OWN_OUT, {.residual = x}, at_.after_own);
        normed_product(phases_[3], CROSS, at_.after_own, CROSS_QUERY, {}, at_.query);
        cross_attention(phases_[4]);
        product(phases_[5], at_.attended, CROSS_OUT, {.residual = at_.after_own}, at_.after_cross);
        normed_product(phases_[6], FINAL, at_.after_cross, FC1, {.gelu = true}, at_.hidden);
        product(phases_[7], at_.hidden, FC2, {.residual = at_.after_cross}, out);
    }

   private:
    // Panels at a time: as many as a tile of few rows takes, and so many that each thread comes about four times.
    static int64_t part_of(int64_t panels) {
        const int64_t parts = 4 * torch::stable::get_num_threads();
        return std::max<int64_t>(4, panels / parts / 4 * 4);
    }

    WordRows words(const Weight& weight) const {
        WordRows words = words_;
        words.steps = steps_of(weight.layout, true);
        return words;
    }

    template <class Prepare>
    void share_product(Phase& phase, Product which, Epilogue then, float* out, const Prepare& prepare) {
        const Weight& weight = layer_.weights[which];
        then.bias = layer_.biases[which];
        const int64_t panels = panels_of(weight.n);
        phase.share(panels, part_of(panels), prepare, [&](int64_t first, int64_t last) {
            kernels().product(words(weight), rows_, weight, first, last, then, out);
        });
    }

    void product(Phase& phase, const float* x, Product which, Epilogue then, float* out) {
        const Weight& weight = layer_.weights[which];
        share_product(phase, which, then, out,
                      [&] { kernels().quantize({x, weight.k}, rows_, weight.k, {}, weight.layout, words(weight), nullptr); });
    }

    // Each thread norms the rows for itself: that is done before another could be told of it.
    void normed_product(Phase& phase, NormName norm, const float* x, Product which, Epilogue then, float* out) {
        const Weight& weight = layer_.weights[which];
        share_product(phase, which, then, out, [&] {
            kernels().quantize({x, weight.k}, rows_, weight.k, layer_.norms[norm], weight.layout, words(weight), normed_);
        });
    }

    void self_attention(Phase& phase) {
        const int64_t width = layer_.width(), heads = cache_.heads, head_dim = cache_.head_dim;
        phase.share(static_cast<int64_t>(texts_.size()) * heads, 1, [] {}, [&](int64_t item, int64_t) {
            const Text& text = texts_[item / heads];
            const int64_t column = item % heads * head_dim;
            float* keys = cache_.keys + item * cache_.context * head_dim;
            float* values = cache_.values + item * cache_.context * head_dim;
            for (int64_t i = 0; i < text.count; ++i) {
                const int64_t row = text.first + i, place = text.length + i;
                const float* token = at_.qkv + row * 3 * width + column;
                std::copy_n(token + width, head_dim, keys + place * head_dim);
                std::copy_n(token + 2 * width, head_dim, values + place * head_dim);
                kernels().attend_rows(token, keys, values, place + 1, head_dim, layer_.scale,
                                      static_cast<float*>(attention_), at_.attended + row * width + column);
            }
        });
    }

    void cross_attention(Phase& phase) {
        const int64_t width = layer_.width(), heads = cache_.heads;
        phase.share(static_cast<int64_t>(listeners_.size()) * heads, 1, [] {}, [&](int64_t item, int64_t) {
            const Listeners& some = listeners_[item / heads];
            const int64_t head = item % heads, at = some.first * width + head * cache_.head_dim;
            kernels().attention({at_.query + at, width}, some.rows, some.window->heads[head], layer_.scale,
                                some.window->bias.data(), attention_, at_.attended + at, width);
        });
    }

    const Layer& layer_;
    const int64_t rows_;
    const std::vector<Text>& texts_;
    const Cache& cache_;
    const std::vector<Listeners>& listeners_;
    const Buffers at_;
    Phase* phases_;
    WordRows words_;
    float* normed_;
    void* attention_;
};

const float* numbers(const Tensor& t, int64_t numel, const char* name) { return dense_or_null(t, numel, name); }

// Norms (own, cross, final: weight and bias each) and products packed by pack_weight or pack_quads (qkv, own out, cross query,
// cross out, fc1, fc2) with padded biases, of a layer `width` wide with a hidden layer of `hidden`.
int64_t hold_layer(std::vector<Tensor> norms, double eps, std::vector<Tensor> panels, std::vector<Tensor> scales,
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
int64_t hold_window(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t heads, int64_t n, int64_t head_dim,
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
        "hold_layer(Tensor[] norms, float eps, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor[] biases, int width, "
        "int hidden, float scale) -> int");
    m.def(
        "hold_window(Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int heads, int n, int head_dim, "
        "Tensor? bias) -> int");
    m.def("release(int number) -> ()");
    m.def(
        "decoder_layers(Tensor x, int[] layers, Tensor(a!) keys, Tensor(b!) values, int[] lengths, int[] fresh, int[] windows, "
        "int[] window_rows) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) { m.impl("release", TORCH_BOX(&release)); }

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("hold_layer", TORCH_BOX(&hold_layer));
    m.impl("hold_window", TORCH_BOX(&hold_window));
    m.impl("decoder_layers", TORCH_BOX(&decoder_layers));
}

}  // namespace tilewhisper
