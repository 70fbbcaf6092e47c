// The table of one unit's kernels.
#pragma once

#include "attention.h"
#include "kernels.h"
#include "product.h"
#include "quantize.h"
#include "step.h"

namespace tilewhisper::ISA {

constexpr Kernels kernels(const char* name) {
    return {name, BLOCK, quantize, quantize_row, product, attention, attend_rows, layer_norm, dot, largest_of, sum_of_exps, pack_keys, pack_values};
}

}  // namespace tilewhisper::ISA
