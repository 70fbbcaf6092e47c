// The table of one instruction set's kernels.
#pragma once

#include "attention.h"
#include "decode.h"
#include "kernels.h"
#include "product.h"
#include "quantize.h"

namespace tilewhisper::ISA {

constexpr Kernels kernels(const char* name) {
    return {name, BLOCK,      quantize,   quantize_row, product, attention, self_attention, layer_norm,
            dot,  dot_stored, add_stored, max_of,       sum_exp, pack_keys, pack_values};
}

}  // namespace tilewhisper::ISA
