// One decoder layer over a few tokens, as each of several threads goes through it.
#pragma once

#include <memory>
#include <vector>

#include "layer_weights.h"
#include "packed.h"
#include "pages.h"
#include "phase.h"

namespace tilewhisper {

enum Product { QKV, SELF_OUT, CROSS_QUERY, CROSS_OUT, FC1, FC2, PRODUCTS };
enum NormName { SELF, CROSS, FINAL, NORMS };

struct Layer : LayerWeights<PRODUCTS, NORMS> {
    static constexpr const char* KIND = "decoder layer";
    Layer(const LayerTensors& tensors, int64_t width, int64_t hidden, double scale_of_scores)
        : LayerWeights(
              tensors,
              {{{width, 3 * width}, {width, width}, {width, width}, {width, width}, {width, hidden}, {hidden, width}}}),
          scale(static_cast<float>(scale_of_scores)) {}
    float scale;  // of attention scores
    int64_t width() const { return weights[SELF_OUT].n; }
};

// The cross-attention K/V cache of one window in one layer.
struct CrossKV : Registered {
    static constexpr const char* KIND = "cross-attention K/V cache";
    CrossKV(const PackedHeads& packed, const std::optional<Tensor>& bias_of_keys)
        : heads(packed), bias(score_biases(bias_of_keys, packed.positions())) {}
    PackedHeads heads;
    std::vector<float> bias;
    std::vector<Tensor> memory;
};

// Successive rows of x that attend to one window.
struct CrossRows {
    int64_t first, count;
    std::shared_ptr<const CrossKV> kv;
};

// Buffers that all threads share, layer after layer; rows are tokens, batch by batch.
struct Buffers {
    float *qkv, *attended, *after_self, *query, *after_cross, *hidden;

    static int64_t numbers(const Layer& layer, int64_t rows) { return rows * (7 * layer.width() + layer.weights[FC1].n); }
    Buffers(float* memory, const Layer& layer, int64_t rows) {
        const int64_t size = rows * layer.width();
        qkv = memory;
        attended = qkv + 3 * size;
        after_self = attended + size;
        query = after_self + size;
        after_cross = query + size;
        hidden = after_cross + size;
    }
};

// One thread's way through a layer.
class LayerStep {
   public:
    LayerStep(const Layer& layer, int64_t number, int64_t rows, const PagedCaches& caches,
              const std::vector<CrossRows>& cross, Buffers at, Phase* phases)
        : layer_(layer), number_(number), rows_(rows), caches_(caches), cross_(cross), at_(at), phases_(phases) {
        int64_t attention = panels_of(caches.longest()) * PANEL * 4;
        for (const CrossRows& some : cross) attention = std::max(attention, attention_scratch(some.kv->heads.positions()));
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

    // `out` may be `x`: x is not read any more when the last product writes.
    void run(const float* x, float* out) {
        normed_product(phases_[0], SELF, x, QKV, {}, at_.qkv);
        self_attention(phases_[1]);
        product(phases_[2], at_.attended, SELF_OUT, {.residual = x}, at_.after_self);
        normed_product(phases_[3], CROSS, at_.after_self, CROSS_QUERY, {}, at_.query);
        cross_attention(phases_[4]);
        product(phases_[5], at_.attended, CROSS_OUT, {.residual = at_.after_self}, at_.after_cross);
        normed_product(phases_[6], FINAL, at_.after_cross, FC1, {.gelu = true}, at_.hidden);
        product(phases_[7], at_.hidden, FC2, {.residual = at_.after_cross}, out);
    }

   private:
    // Panels at a time: as many as a tile of few rows takes, and a number that gives each thread about four parts.
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
        share_product(phase, which, then, out, [&] {
            kernels().quantize({x, weight.k}, rows_, weight.k, {}, weight.layout, words(weight), nullptr);
        });
    }

    // Each thread norms the rows for itself, which takes less time than to wait for another thread's.
    void normed_product(Phase& phase, NormName norm, const float* x, Product which, Epilogue then, float* out) {
        const Weight& weight = layer_.weights[which];
        share_product(phase, which, then, out, [&] {
            kernels().quantize({x, weight.k}, rows_, weight.k, layer_.norms[norm], weight.layout, words(weight), normed_);
        });
    }

    // Head by head over all texts: those that begin alike share pages, which then come from the cache. Steps of 5 beams over
    // 150 s (base): the layers 2.6 -> 2.1 ms.
    void self_attention(Phase& phase) {
        const int64_t texts = static_cast<int64_t>(caches_.texts().size());
        phase.share_each(texts * caches_.heads(), [&](int64_t item) {
            caches_.attend(number_, item / texts, caches_.texts()[item % texts], {at_.qkv, 3 * layer_.width()}, layer_.scale,
                           static_cast<float*>(attention_), at_.attended);
        });
    }

    void cross_attention(Phase& phase) {
        const int64_t width = layer_.width(), heads = caches_.heads();
        phase.share_each(static_cast<int64_t>(cross_.size()) * heads, [&](int64_t item) {
            const CrossRows& rows = cross_[item / heads];
            const int64_t head = item % heads, at = rows.first * width + head * caches_.head_dim();
            kernels().attention({at_.query + at, width}, rows.count, rows.kv->heads[head], layer_.scale,
                                rows.kv->bias.data(), attention_, at_.attended + at, width);
        });
    }

    const Layer& layer_;
    const int64_t number_;  // of the layer
    const int64_t rows_;
    const PagedCaches& caches_;
    const std::vector<CrossRows>& cross_;
    const Buffers at_;
    Phase* phases_;
    WordRows words_;
    float* normed_;
    void* attention_;
};

}  // namespace tilewhisper
