// What the torch operators share: the kernels in use, memory, threads, checks of what comes in.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "kernels.h"
#include "panels.h"

namespace tilewhisper {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::atomic<const Kernels*> chosen{&portable_kernels};

inline const Kernels& kernels() { return *chosen.load(std::memory_order_relaxed); }

struct Free {
    void operator()(void* p) const { std::free(p); }
};

// Memory of this thread's own that grows and is kept: aligned to a cache line, contents undefined.
inline void* scratch(int64_t bytes) {
    thread_local std::unique_ptr<void, Free> memory;
    thread_local int64_t size = 0;
    if (size < bytes) {
        memory.reset(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
        size = memory ? bytes : 0;
        STD_TORCH_CHECK(memory, "out of memory: ", bytes, " bytes");
    }
    return memory.get();
}

// run(first, last) over [0, total) in parts of `part`. Each thread takes the next part when it is done with one, so that
// a thread that is held up, by another process say, holds up nobody else.
template <class Run>
void share(int64_t total, int64_t part, const Run& run) {
    if (total <= part) return run(0, total);
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
        for (int64_t first; (first = next.fetch_add(part)) < total;) run(first, std::min(total, first + part));
    });
}

inline Tensor make(std::initializer_list<int64_t> sizes, ScalarType type = ScalarType::Float) {
    const std::vector<int64_t> shape(sizes);
    return torch::stable::empty({shape.data(), shape.size()}, type);
}

// The same for what is read over and over: a large one asks for huge pages, with which the processor looks ahead further
// and misses fewer addresses. The vocabulary of base (26 MB of bytes) was read in 1.18 ms in place of 1.34.
inline Tensor make_lasting(int64_t numel, ScalarType type, int64_t entry_bytes) {
#ifdef __linux__
    constexpr int64_t HUGE_PAGE = 2 << 20;
    const int64_t bytes = (numel * entry_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (numel * entry_bytes >= HUGE_PAGE) {
        void* memory = std::aligned_alloc(HUGE_PAGE, bytes);
        STD_TORCH_CHECK(memory, "out of memory: ", bytes, " bytes");
        madvise(memory, bytes, MADV_HUGEPAGE);  // advice: whether it is taken makes no difference to what follows
        const int64_t dense = 1;
        const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
        return torch::stable::from_blob(memory, {&numel, 1}, {&dense, 1}, cpu, type, &std::free);
    }
#endif
    return make({numel}, type);
}

inline void check_floats(const Tensor& t, int64_t dims, const char* name) {
    STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Float, name, " must be float32 on the CPU");
    STD_TORCH_CHECK(t.dim() == dims, name, " must have ", dims, " dimensions, not ", t.dim());
    STD_TORCH_CHECK(t.size(dims - 1) <= 1 || t.stride(dims - 1) == 1, name, "'s last dimension must be dense");
}

inline const float* floats(const Tensor& t) { return static_cast<const float*>(t.data_ptr()); }

inline const float* dense_or_null(const std::optional<Tensor>& t, int64_t numel, const char* name) {
    if (!t) return nullptr;
    STD_TORCH_CHECK(t->is_cpu() && t->scalar_type() == ScalarType::Float, name, " must be float32 on the CPU");
    STD_TORCH_CHECK(t->is_contiguous() && t->numel() == numel, name, " must be dense and hold ", numel, " numbers");
    return floats(*t);
}

// A weight of n columns of k, packed by pack_weight, or with `sums` by pack_quads.
inline Weight weight_of(const Tensor& panels, const Tensor& scales, const std::optional<Tensor>& sums, int64_t k, int64_t n) {
    const bool bytes = panels.scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(bytes || (panels.scalar_type() == ScalarType::Short && !sums),
                    "panels must be packed by pack_weight or pack_quads");
    const Layout layout = sums ? Layout::QUADS : bytes ? Layout::BYTE_PAIRS : Layout::PAIRS;
    const int64_t entries = panels_of(n) * words_of(k, layout) * PANEL * (layout == Layout::QUADS ? 4 : 2);
    STD_TORCH_CHECK(panels.is_contiguous() && panels.numel() == entries,
                    "x has ", k, " columns, which the weight does not fit: ", n, " columns would have ", entries, " entries, not ",
                    panels.numel());
    return {panels.data_ptr(), layout, dense_or_null(scales, panels_of(n) * PANEL, "scales"),
            dense_or_null(sums, panels_of(n) * PANEL, "sums"), k, n};
}

// Memory for some rows in the words of any layout, and for one row's norm.
class Workspace {
   public:
    static int64_t bytes(int64_t rows, int64_t k) { return rows * stride_of(k) + (rows * 2 + k) * 4 + 64; }
    Workspace(char* memory, int64_t rows, int64_t k) {
        words_ = {memory, stride_of(k), reinterpret_cast<float*>(memory + rows * stride_of(k)), nullptr, {}};
        words_.offset = words_.scale + rows;
        normed_ = words_.offset + rows;
    }
    WordRows words(Layout layout) const {
        WordRows words = words_;
        words.steps = steps_of(layout, false);
        return words;
    }
    float* normed() const { return normed_; }

   private:
    // Of 16-bit numbers, the longer; not a power of two, so that rows do not share cache sets.
    static int64_t stride_of(int64_t k) { return words_of(k, Layout::PAIRS) * 4 + 64; }

    WordRows words_;
    float* normed_;
};

// Packed keys and values of some heads, as pack_keys_values gives them.
class PackedHeads {
   public:
    PackedHeads(const Tensor& keys, const Tensor& key_scale, const Tensor& values, const Tensor& value_scale, int64_t heads,
                int64_t n, int64_t head_dim)
        : count_(heads), bytes_(keys.scalar_type() == ScalarType::Char), padded_(panels_of(n) * PANEL),
          value_rows_(padded_to_words(n, bytes_ ? Layout::QUADS : Layout::PAIRS)) {
        const ScalarType type = bytes_ ? ScalarType::Char : ScalarType::Short;
        STD_TORCH_CHECK(n > 0 && keys.scalar_type() == type && keys.is_contiguous() && keys.numel() == heads * padded_ * head_dim &&
                            values.scalar_type() == type && values.is_contiguous() &&
                            values.numel() == heads * value_rows_ * head_dim,
                        "keys and values must be packed by pack_keys_values, ", n, " positions of ", heads, " heads of ", head_dim);
        first_ = {keys.data_ptr(), dense_or_null(key_scale, heads * padded_ * (bytes_ ? 2 : 1), "the keys' scales"), nullptr,
                  values.data_ptr(), dense_or_null(value_scale, heads * head_dim, "the values' scales"), n, head_dim};
    }
    int64_t count() const { return count_; }
    int64_t positions() const { return first_.n; }
    int64_t head_dim() const { return first_.head_dim; }
    KeysValues operator[](int64_t head) const {
        const int64_t entry = bytes_ ? 1 : 2;
        KeysValues of = first_;
        of.keys = static_cast<const char*>(of.keys) + head * padded_ * of.head_dim * entry;
        of.values = static_cast<const char*>(of.values) + head * value_rows_ * of.head_dim * entry;
        of.key_scale += head * padded_ * (bytes_ ? 2 : 1);
        of.key_sum = bytes_ ? of.key_scale + padded_ : nullptr;
        of.value_scale += head * of.head_dim;
        return of;
    }

   private:
    int64_t count_;
    bool bytes_;
    int64_t padded_, value_rows_;
    KeysValues first_;
};

}  // namespace tilewhisper
