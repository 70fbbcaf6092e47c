// The feed-forward part of a layer over a few rows, for one thread.
#pragma once

#include "packed.h"

namespace tilewhisper {

// At a time: their hidden layer, which takes four times their memory, stays in the L2 cache.
inline constexpr int64_t FEED_FORWARD_ROWS = 48;

// x + fc2(GELU(fc1(norm of x))) of contiguous rows; `out` may be `x`.
inline void add_feed_forward(const float* x, int64_t rows, Norm norm, const Weight& fc1, const float* bias1,
                             const Weight& fc2, const float* bias2, float* out) {
    const Kernels& run = kernels();
    const int64_t hidden = fc1.n, between = (rows * hidden * 4 + 63) / 64 * 64, widest = std::max(fc1.k, hidden);
    auto* memory = static_cast<char*>(scratch(between + Workspace::bytes(rows, widest)));
    auto* values = reinterpret_cast<float*>(memory);
    const Workspace at(memory + between, rows, widest);
    run.quantize({x, fc1.k}, rows, fc1.k, norm, fc1.layout, at.words(fc1.layout), at.normed());
    run.product(at.words(fc1.layout), rows, fc1, 0, panels_of(hidden), {bias1, true}, values);
    run.quantize({values, hidden}, rows, hidden, {}, fc2.layout, at.words(fc2.layout), nullptr);
    run.product(at.words(fc2.layout), rows, fc2, 0, panels_of(fc2.n), {bias2, false, x}, out);
}

}  // namespace tilewhisper
