// A whole encoder layer as one torch operator.
//
// As operators of their own, the products and attention of a layer leave torch's threads, are called from Python, and pass
// their results through memory: q, k and v of 514 positions of base take 3 MB, more than the L2 cache. Here the threads go
// through a layer together, a head's keys and values are packed where they were computed, queries live for one block of
// rows, and so do the rows between attention and the layer's end.

#include "feed_forward.h"
#include "layer_weights.h"
#include "packing.h"
#include "phase.h"
#include "row_parts.h"

namespace tilewhisper {
namespace {

enum Product { QKV, OUT, FC1, FC2, PRODUCTS };
enum NormName { ATTENTION, FINAL, NORMS };

struct EncoderLayer : LayerWeights<PRODUCTS, NORMS> {
    static constexpr const char* KIND = "encoder layer";
    EncoderLayer(const LayerTensors& tensors, int64_t width, int64_t hidden, int64_t heads, int64_t bits, double scale)
        : LayerWeights(tensors, {{{width, 3 * width}, {width, width}, {width, hidden}, {hidden, width}}}),
          heads(heads),
          bits(bits),
          scale(static_cast<float>(scale)) {}
    int64_t heads, bits;  // of attention
    float scale;          // of attention scores
    int64_t width() const { return weights[OUT].n; }
    int64_t head_dim() const { return width() / heads; }
};

// Norms (attention, final) and products (qkv, out, fc1, fc2) of a layer `width` wide with a hidden layer of `hidden`, whose
// attention has `bits` 16 or 8.
Handle register_encoder_layer(std::vector<Tensor> norms, double eps, std::vector<Tensor> panels, std::vector<Tensor> scales,
                              std::vector<std::optional<Tensor>> sums, std::vector<std::optional<Tensor>> biases,
                              int64_t width, int64_t hidden, int64_t heads, int64_t bits, double scale) {
    check_range(width, 1, MAX_SIZE / 3, "width");
    check_range(hidden, 1, MAX_SIZE, "hidden");
    check_range(heads, 1, width, "the number of heads");
    STD_TORCH_CHECK(width % heads == 0, "the layer's ", width, " columns must be ", heads, " heads of one size");
    check_head_dim(width / heads, "the layer");
    const LayerTensors tensors{norms, eps, panels, scales, sums, biases};
    return registry().add(std::make_shared<EncoderLayer>(tensors, width, hidden, heads, bits, scale));
}

// The way of one window of n positions through a layer: each thread runs it.
class EncoderStep {
   public:
    EncoderStep(const EncoderLayer& layer, int64_t n, const float* bias, const Workspace& at, const Packing& packing,
                const PackedHeads& packed)
        : layer_(layer),
          n_(n),
          bias_(bias),
          quantised_(n, 2 * FEED_FORWARD_ROWS),
          finished_(n, FEED_FORWARD_ROWS),
          words_(at.words(layer.weights[QKV].layout)),
          packing_(packing),
          packed_(packed) {}

    static constexpr int64_t PHASES = 4;

    void run(const float* x, float* out, Phase* phases) const {
        quantize(phases[0], x);
        project_keys_values(phases[1]);
        attend(phases[2], out);
        finish(phases[3], x, out);
    }

   private:
    static constexpr int64_t QUERIES = 4 * MAX_BLOCK;  // at a time

    template <class Run>
    static void share_rows(Phase& phase, const RowParts& parts, const Run& run) {
        phase.share_each(parts.count(), [&](int64_t part) { run(parts.first(part), parts.last(part)); });
    }

    // One of the 3 * heads parts of qkv's columns, for some rows.
    void project(int64_t part, int64_t first, int64_t rows, float* to) const {
        const int64_t head_dim = layer_.head_dim(), panel = part * head_dim / PANEL;
        const float* bias = layer_.biases[QKV];
        kernels().product(words_.from(first), rows, columns_of(layer_.weights[QKV], panel, head_dim), 0, head_dim / PANEL,
                          {bias ? bias + panel * PANEL : nullptr}, to);
    }

    void quantize(Phase& phase, const float* x) const {
        const int64_t width = layer_.width();
        share_rows(phase, quantised_, [&](int64_t first, int64_t last) {
            auto* normed = static_cast<float*>(scratch(width * 4));
            kernels().quantize({x + first * width, width}, last - first, width, layer_.norms[ATTENTION],
                               layer_.weights[QKV].layout, words_.from(first), normed);
        });
    }

    void project_keys_values(Phase& phase) const {
        const int64_t heads = layer_.heads, head_dim = layer_.head_dim();
        phase.share_each(2 * heads, [&](int64_t item) {
            auto* numbers = static_cast<float*>(scratch(n_ * head_dim * 4));
            project(heads + item, 0, n_, numbers);
            if (item < heads)
                packing_.keys(item, {numbers, head_dim});
            else
                packing_.values(item - heads, {numbers, head_dim});
        });
    }

    void attend(Phase& phase, float* out) const {
        const int64_t width = layer_.width(), head_dim = layer_.head_dim(), blocks = (n_ + QUERIES - 1) / QUERIES;
        phase.share_each(layer_.heads * blocks, [&](int64_t item) {
            const int64_t head = item / blocks, first = item % blocks * QUERIES, rows = std::min(QUERIES, n_ - first);
            auto* memory = static_cast<char*>(scratch(attention_scratch(n_) + QUERIES * head_dim * 4));
            auto* queries = reinterpret_cast<float*>(memory + attention_scratch(n_));
            project(head, first, rows, queries);
            kernels().attention({queries, head_dim}, rows, packed_[head], layer_.scale, bias_, memory,
                                out + first * width + head * head_dim, width);
        });
    }

    // From what attention left in `out` to the layer's result.
    void finish(Phase& phase, const float* x, float* out) const {
        const int64_t width = layer_.width();
        const Weight& weight = layer_.weights[OUT];
        share_rows(phase, finished_, [&](int64_t first, int64_t last) {
            const int64_t rows = last - first;
            float* here = out + first * width;
            const Workspace at(static_cast<char*>(scratch(Workspace::bytes(rows, width))), rows, width);
            kernels().quantize({here, width}, rows, width, {}, weight.layout, at.words(weight.layout), nullptr);
            kernels().product(at.words(weight.layout), rows, weight, 0, panels_of(width),
                              {layer_.biases[OUT], false, x + first * width}, here);
            add_feed_forward(here, rows, layer_.norms[FINAL], layer_.weights[FC1], layer_.biases[FC1], layer_.weights[FC2],
                             layer_.biases[FC2], here);
        });
    }

    const EncoderLayer& layer_;
    const int64_t n_;
    const float* bias_;
    const RowParts quantised_, finished_;  // the rows as these steps divide them
    const WordRows words_;                 // of the normed input
    const Packing& packing_;
    const PackedHeads& packed_;
};

// x (batch, n, width) through a registered layer; `bias` (n,) is added to the scores of each key.
Tensor encoder_layer(Tensor x, Handle handle, std::optional<Tensor> bias) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
    const auto layer = find<EncoderLayer>(handle);
    const int64_t batch = x.size(0), n = x.size(1), width = layer->width(), heads = layer->heads;
    STD_TORCH_CHECK(x.size(2) == width, "x must be as wide as the layer: ", width, ", got ", x.size(2));
    const std::vector<float> added = score_biases(bias, n);
    Tensor out = make({batch, n, width}), words = make({Workspace::bytes(n, width)}, ScalarType::Char);
    const Workspace at(static_cast<char*>(words.data_ptr()), n, width);
    const Packing packing({1, heads, n, layer->head_dim()}, layer->bits);
    const auto [keys, key_scale, values, value_scale] = packing.packed();
    const PackedHeads packed(keys, key_scale, values, value_scale, heads, n, layer->head_dim());
    const EncoderStep step(*layer, n, added.data(), at, packing, packed);
    std::vector<Phase> phases(batch * EncoderStep::PHASES);
    on_all_threads([&] {
        for (int64_t i = 0; i < batch; ++i)
            step.run(floats(x) + i * n * width, mutable_floats(out) + i * n * width, &phases[i * EncoderStep::PHASES]);
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def(
        "register_encoder_layer(Tensor[] norms, float eps, Tensor[] panels, Tensor[] scales, Tensor?[] sums, Tensor?[] "
        "biases, int width, int hidden, int heads, int bits, float scale) -> int");
    m.def("encoder_layer(Tensor x, int layer, Tensor? bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("register_encoder_layer", BOXED(&register_encoder_layer));
    m.impl("encoder_layer", BOXED(&encoder_layer));
}

}  // namespace tilewhisper
