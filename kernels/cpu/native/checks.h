// Checks of an operator's arguments. Python can pass tensors of any size, type, strides and device, and any integer:
// arguments that the kernels cannot read correctly raise RuntimeError here, before a pointer is computed.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "panels.h"

namespace tilewhisper {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// More numbers than a memory holds, and so few that their padded size in bytes is far below 2^63. An expanded tensor takes
// no memory, so that its sizes prove nothing.
inline constexpr int64_t MAX_NUMBERS = int64_t{1} << 46;
inline constexpr int64_t MAX_SIZE = int64_t{1} << 31;       // of a weight, either way
inline constexpr int64_t MAX_POSITIONS = int64_t{1} << 20;  // that attention goes over

// The product of sizes. A size of 0 counts as 1 for the limit, so that every single size is limited too.
template <class Sizes>
inline int64_t numbers_of(const Sizes& sizes, const char* name) {
    int64_t product = 1, limited = 1;
    for (const int64_t size : sizes) {
        STD_TORCH_CHECK(size >= 0, name, " must have sizes >= 0, got ", size);
        const bool overflows = __builtin_mul_overflow(limited, std::max<int64_t>(size, 1), &limited);
        STD_TORCH_CHECK(!overflows && limited <= MAX_NUMBERS, name, " must have <= 2^46 numbers");
        product *= size;
    }
    return product;
}

inline int64_t numbers_of(std::initializer_list<int64_t> sizes, const char* name) {
    return numbers_of<std::initializer_list<int64_t>>(sizes, name);
}

inline void check_range(int64_t value, int64_t least, int64_t most, const char* name) {
    STD_TORCH_CHECK(value >= least && value <= most, name, " must be ", least, " to ", most, ", got ", value);
}

// float32 of `dims` dimensions, the last contiguous; the others may have any strides.
inline void check_floats(const Tensor& t, int64_t dims, const char* name) {
    STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Float, name, " must be float32 on the CPU");
    STD_TORCH_CHECK(t.dim() == dims, name, " must have ", dims, " dimensions, got ", t.dim());
    numbers_of(t.sizes(), name);
    STD_TORCH_CHECK(t.size(dims - 1) <= 1 || t.stride(dims - 1) == 1, name, " must be contiguous in its last dimension");
}

inline void check_contiguous(const Tensor& t, ScalarType type, int64_t numel, const char* name) {
    STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == type, name, " has the wrong type, or is not on the CPU");
    STD_TORCH_CHECK(t.is_contiguous() && t.numel() == numel, name, " must be contiguous with ", numel, " numbers, got ",
                    t.numel());
}

inline const float* floats(const Tensor& t) { return static_cast<const float*>(t.data_ptr()); }
inline float* mutable_floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

// `numel` contiguous float32 numbers.
inline const float* contiguous_floats(const Tensor& t, int64_t numel, const char* name) {
    STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Float, name, " must be float32 on the CPU");
    check_contiguous(t, ScalarType::Float, numel, name);
    return floats(t);
}

inline const float* contiguous_or_null(const std::optional<Tensor>& t, int64_t numel, const char* name) {
    return t ? contiguous_floats(*t, numel, name) : nullptr;
}

}  // namespace tilewhisper
