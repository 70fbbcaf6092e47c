// A decoder's layer over a few rows as one torch operator.
//
// Taken one by one, the 8 products and attentions of a layer leave torch's threads and are called from Python each time:
// of a step of base (6 layers, one row) that was a third. Here the threads go through all 8 together.

#include <array>
#include <limits>
#include <thread>

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
    int64_t heads, head_dim;
    int64_t width() const { return heads * head_dim; }
};

// Rows that stand in one window, and the packed keys and values of its positions.
struct Window {
    int64_t first, rows;
    PackedHeads heads;
    int64_t positions;
    std::vector<float> bias;  // of each key, -inf up to whole panels
};

struct Cache {
    float *keys, *values;  // (batch, heads, context, head_dim)
    int64_t context;
    const std::vector<int64_t>& lengths;  // tokens that each row of the batch has already
};

// Buffers of one layer, shared by all threads; rows are tokens, batch by batch.
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
    Step(const Layer& layer, int64_t rows, int64_t fresh, const Cache& cache, const std::vector<Window>& windows, Buffers at,
         std::array<Phase, 8>& phases)
        : layer_(layer), rows_(rows), fresh_(fresh), cache_(cache), windows_(windows), at_(at), phases_(phases) {
        int64_t attention = panels_of(cache.context) * PANEL * 4;
        for (const Window& window : windows) attention = std::max(attention, attention_scratch(window.positions));
        const int64_t widest = std::max(layer.width(), layer.weights[FC1].n);
        const int64_t stride = words_of(widest, Layout::PAIRS) * 4 + 64;
        const int64_t words = rows * stride, scales = (rows * 8 + 63) / 64 * 64;
        auto* memory = static_cast<char*>(scratch(attention + words + scales + layer.width() * 4));
        attention_ = memory;
        auto* scale = reinterpret_cast<float*>(memory + attention + words);
        words_ = {memory + attention, stride, scale, scale + rows, {}};
        normed_ = reinterpret_cast<float*>(memory + attention + words + scales);
    }

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
        const int64_t width = layer_.width(), head_dim = layer_.head_dim;
        phase.share(rows_ / fresh_ * layer_.heads, 1, [] {}, [&](int64_t item, int64_t) {
            const int64_t batch = item / layer_.heads, column = item % layer_.heads * head_dim;
            float* keys = cache_.keys + item * cache_.context * head_dim;
            float* values = cache_.values + item * cache_.context * head_dim;
            for (int64_t i = 0; i < fresh_; ++i) {
                const int64_t row = batch * fresh_ + i, place = cache_.lengths[batch] + i;
                const float* token = at_.qkv + row * 3 * width + column;
                std::copy_n(token + width, head_dim, keys + place * head_dim);
                std::copy_n(token + 2 * width, head_dim, values + place * head_dim);
                kernels().attend_rows(token, keys, values, place + 1, head_dim, layer_.scale,
                                      static_cast<float*>(attention_), at_.attended + row * width + column);
            }
        });
    }

    void cross_attention(Phase& phase) {
        const int64_t width = layer_.width(), windows = static_cast<int64_t>(windows_.size());
        phase.share(windows * layer_.heads, 1, [] {}, [&](int64_t item, int64_t) {
            const Window& window = windows_[item / layer_.heads];
            const int64_t head = item % layer_.heads, at = window.first * width + head * layer_.head_dim;
            kernels().attention({at_.query + at, width}, window.rows, window.heads[head], layer_.scale,
                                window.bias.data(), attention_, at_.attended + at, width);
        });
    }

    const Layer& layer_;
    const int64_t rows_, fresh_;
    const Cache& cache_;
    const std::vector<Window>& windows_;
    const Buffers at_;
    std::array<Phase, 8>& phases_;
    WordRows words_;
    float* normed_;
    void* attention_;
};

const float* numbers(const Tensor& t, int64_t numel, const char* name) { return dense_or_null(t, numel, name); }

Layer layer_of(const std::vector<Tensor>& norms, const std::vector<Tensor>& panels, const std::vector<Tensor>& scales,
               const std::vector<std::optional<Tensor>>& sums, const std::vector<Tensor>& biases, int64_t ffn, const Tensor& keys,
               double eps, double scale) {
    Layer layer{.scale = static_cast<float>(scale), .heads = keys.size(1), .head_dim = keys.size(3)};
    STD_TORCH_CHECK(layer.head_dim % PANEL == 0 && layer.head_dim <= MAX_HEAD_DIM,
                    "the head size must be a multiple of 16 up to 256, not ", layer.head_dim);
    STD_TORCH_CHECK(norms.size() == 2 * NORMS && panels.size() == PRODUCTS && scales.size() == PRODUCTS && sums.size() == PRODUCTS &&
                        biases.size() == PRODUCTS,
                    "a layer has 3 norms of a weight and a bias, and 6 products");
    const int64_t d = layer.width();
    const int64_t sizes[PRODUCTS][2] = {{d, 3 * d}, {d, d}, {d, d}, {d, d}, {d, ffn}, {ffn, d}};
    for (int i = 0; i < PRODUCTS; ++i) {
        layer.weights[i] = weight_of(panels[i], scales[i], sums[i], sizes[i][0], sizes[i][1]);
        layer.biases[i] = numbers(biases[i], panels_of(sizes[i][1]) * PANEL, "a bias");
    }
    for (int i = 0; i < NORMS; ++i) {
        layer.norms[i] = {numbers(norms[2 * i], d, "a norm's weight"), numbers(norms[2 * i + 1], d, "a norm's bias"),
                          static_cast<float>(eps)};
    }
    return layer;
}

// `kept` has four tensors a window: keys, their scales, values, their scales.
std::vector<Window> windows_of(const std::vector<Tensor>& kept, const std::vector<int64_t>& positions,
                               const std::vector<std::optional<Tensor>>& biases, const std::vector<int64_t>& rows,
                               const Layer& layer) {
    const size_t count = positions.size();
    STD_TORCH_CHECK(kept.size() == 4 * count && biases.size() == count && rows.size() == count,
                    "there must be 4 tensors, a bias and a number of rows for each of ", count, " windows");
    std::vector<Window> windows;
    int64_t first = 0;
    for (size_t i = 0; i < count; ++i) {
        const int64_t n = positions[i];
        STD_TORCH_CHECK(n > 0 && rows[i] > 0, "a window must have positions and rows");
        const Tensor* of = &kept[4 * i];
        Window window{first, rows[i], PackedHeads(of[0], of[1], of[2], of[3], layer.heads, n, layer.head_dim), n,
                      std::vector<float>(panels_of(n) * PANEL, -std::numeric_limits<float>::infinity())};
        if (const float* bias = dense_or_null(biases[i], n, "a bias"))
            std::copy_n(bias, n, window.bias.begin());
        else
            std::fill_n(window.bias.begin(), n, 0.0f);
        first += rows[i];
        windows.push_back(std::move(window));
    }
    return windows;
}

// x (batch, new, d) through a layer: norms (own, cross, final: weight and bias each), products packed by pack_weight or
// pack_quads (qkv, own out, cross query, cross out, fc1 of `ffn` columns, fc2) with padded biases. Its new keys and values join the caches
// (batch, heads, context, head_dim) after `lengths` tokens of each row of the batch. Cross-attention goes over `windows`
// of packed keys and values, `window_rows` rows of x, one after the other, in each.
Tensor decoder_layer(Tensor x, std::vector<Tensor> norms, std::vector<Tensor> panels, std::vector<Tensor> scales,
                     std::vector<std::optional<Tensor>> sums, std::vector<Tensor> biases, int64_t ffn, Tensor keys, Tensor values, std::vector<int64_t> lengths,
                     std::vector<Tensor> windows, std::vector<int64_t> positions,
                     std::vector<std::optional<Tensor>> window_biases, std::vector<int64_t> window_rows, double eps,
                     double scale) {
    check_floats(x, 3, "x");
    check_floats(keys, 4, "keys");
    check_floats(values, 4, "values");
    const int64_t batch = x.size(0), fresh = x.size(1), rows = batch * fresh, context = keys.size(2);
    STD_TORCH_CHECK(x.is_contiguous() && rows > 0 && x.size(2) == keys.size(1) * keys.size(3), "x must be dense and fit the caches");
    STD_TORCH_CHECK(keys.is_contiguous() && values.is_contiguous() && keys.numel() == values.numel() && keys.size(0) == batch &&
                        static_cast<int64_t>(lengths.size()) == batch,
                    "the caches must be dense, of one shape, and have ", batch, " rows, each with a length");
    for (const int64_t length : lengths)
        STD_TORCH_CHECK(length >= 0 && length + fresh <= context, length + fresh, " tokens do not fit a cache of ", context);
    const Layer layer = layer_of(norms, panels, scales, sums, biases, ffn, keys, eps, scale);
    const std::vector<Window> heard = windows_of(windows, positions, window_biases, window_rows, layer);
    STD_TORCH_CHECK(!heard.empty() && heard.back().first + heard.back().rows == rows, "each of ", rows, " rows must be in a window");
    const Cache cache{static_cast<float*>(keys.data_ptr()), static_cast<float*>(values.data_ptr()), context, lengths};
    thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), Buffers::numbers(layer, rows)));
    const Buffers buffers(memory.data(), layer, rows);
    Tensor out = make({batch, fresh, layer.width()});
    std::array<Phase, 8> phases;
    torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
        Step(layer, rows, fresh, cache, heard, buffers, phases).run(floats(x), static_cast<float*>(out.data_ptr()));
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def(
        "decoder_layer(Tensor x, Tensor[] norms, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor[] biases, int ffn, Tensor(a!) keys, "
        "Tensor(b!) values, int[] lengths, Tensor[] windows, int[] positions, Tensor?[] window_biases, int[] window_rows, "
        "float eps, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) { m.impl("decoder_layer", TORCH_BOX(&decoder_layer)); }

}  // namespace tilewhisper
