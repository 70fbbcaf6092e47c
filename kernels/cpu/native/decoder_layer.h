// One decoder layer over a few rows, as each of several threads goes through it.
#pragma once

#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "held.h"
#include "ops.h"

namespace tilewhisper {

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

}  // namespace tilewhisper
