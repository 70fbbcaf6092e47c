// A layer's norms and products, registered once: each tensor argument of a call costs 0.8 us.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "handles.h"
#include "packed.h"

namespace tilewhisper {

// A weight and a bias of each norm, and of each product what pack_weight, pack_quads or pack_nibbles made of it, with its
// padded bias.
struct LayerTensors {
    std::vector<Tensor> norms;
    double eps;
    std::vector<Tensor> panels, scales;
    std::vector<std::optional<Tensor>> sums, biases;
};

// They point into tensors that they keep.
template <int PRODUCTS, int NORMS>
struct LayerWeights : Registered {
    struct Size {
        int64_t k, n;
    };

    Weight weights[PRODUCTS];
    const float* biases[PRODUCTS];
    Norm norms[NORMS];

   protected:
    LayerWeights(const LayerTensors& of, const std::array<Size, PRODUCTS>& sizes) : tensors_(of) {
        STD_TORCH_CHECK(of.norms.size() == 2 * NORMS, "a layer must have ", NORMS, " norms of a weight and a bias");
        for (const size_t count : {of.panels.size(), of.scales.size(), of.sums.size(), of.biases.size()})
            STD_TORCH_CHECK(count == PRODUCTS, "a layer must have ", PRODUCTS, " products, got ", count);
        for (int i = 0; i < PRODUCTS; ++i) {
            weights[i] = weight_of(of.panels[i], of.scales[i], of.sums[i], sizes[i].k, sizes[i].n);
            biases[i] = contiguous_or_null(of.biases[i], panels_of(sizes[i].n) * PANEL, "a bias");
        }
        for (int i = 0; i < NORMS; ++i) norms[i] = norm_of(of.norms[2 * i], of.norms[2 * i + 1], of.eps, sizes[0].k);
    }

   private:
    const LayerTensors tensors_;
};

}  // namespace tilewhisper
