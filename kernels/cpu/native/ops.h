// Memory and threads for the torch operators.
#pragma once

#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

#include "block_pool.h"
#include "boundary.h"
#include "checks.h"
#include "instruction_sets.h"
#include "kernels.h"

namespace tilewhisper {

inline void free_aligned(void* memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

struct Free {
    void operator()(void* p) const { free_aligned(p); }
};

inline void* aligned_memory(int64_t alignment, int64_t bytes) {
    const int64_t whole = (bytes + alignment - 1) / alignment * alignment;
#ifdef _WIN32  // has no aligned_alloc, as its free could not release such memory
    void* memory = _aligned_malloc(whole, alignment);
#else
    void* memory = std::aligned_alloc(alignment, whole);
#endif
    STD_TORCH_CHECK(memory, "out of memory: ", bytes, " bytes");
    return memory;
}

// This thread's scratch memory, which grows and is reused: aligned to a cache line, contents undefined.
inline void* scratch(int64_t bytes) {
    thread_local std::unique_ptr<void, Free> memory;
    thread_local int64_t size = 0;
    if (size < bytes) {
        size = 0;
        memory.reset();  // before the larger one is allocated
        memory.reset(aligned_memory(64, bytes));
        size = bytes;
    }
    return memory.get();
}

// run() on each of torch's threads. The first error is thrown again here: none may pass through torch (see boundary.h).
template <class Run>
void on_all_threads(const Run& run) {
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
        try {
            run();
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    });
    if (error) std::rethrow_exception(error);
}

// run(first, last) over [0, total) in parts of `part`, never an empty one. Each thread takes the next part when it has
// finished one, so that a thread which is interrupted, by another process say, delays no other.
template <class Run>
void share(int64_t total, int64_t part, const Run& run) {
    if (total <= 0) return;
    if (total <= part) return run(0, total);
    std::atomic<int64_t> next{0};
    on_all_threads([&] {
        for (int64_t first; (first = next.fetch_add(part)) < total;) run(first, std::min(total, first + part));
    });
}

// run(item) for every item of [0, total), one at a time.
template <class Run>
void share_each(int64_t total, const Run& run) {
    share(total, 1, [&](int64_t first, int64_t last) {
        for (; first < last; ++first) run(first);
    });
}

inline int64_t entry_bytes(ScalarType type) {
    switch (type) {
        case ScalarType::Char:
        case ScalarType::Byte: return 1;
        case ScalarType::Short:
        case ScalarType::Half: return 2;
        case ScalarType::Long: return 8;
        default: return 4;
    }
}

// A contiguous tensor in memory that `release` frees.
template <class Release>
Tensor tensor_in(void* memory, std::initializer_list<int64_t> sizes, ScalarType type, const Release& release) {
    std::vector<int64_t> strides(sizes.size(), 1);
    for (size_t i = sizes.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * sizes.begin()[i];
    const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
    return torch::stable::from_blob(memory, {sizes.begin(), sizes.size()}, {strides.data(), strides.size()}, cpu, type,
                                    release);
}

#ifdef __linux__
inline Tensor make_in(BlockPool& pool, std::initializer_list<int64_t> sizes, ScalarType type, int64_t bytes) {
    const Block block = pool.take(bytes);
    STD_TORCH_CHECK(block.memory, "out of memory: ", bytes, " bytes");
    return tensor_in(block.memory, sizes, type, [block, &pool](void*) { pool.give_back(block); });
}
#endif

inline Tensor make(std::initializer_list<int64_t> sizes, ScalarType type = ScalarType::Float) {
    const int64_t numbers = numbers_of(sizes, "the result");
#ifdef __linux__
    if (const int64_t bytes = numbers * entry_bytes(type); bytes >= BlockPool::LEAST)
        return make_in(BlockPool::of_results(), sizes, type, bytes);
#endif
    const std::vector<int64_t> shape(sizes);
    return torch::stable::empty({shape.data(), shape.size()}, type);
}

// A tensor that stays while many others come and go.
inline Tensor make_lasting(std::initializer_list<int64_t> sizes, ScalarType type) {
#ifdef __linux__
    if (const int64_t bytes = numbers_of(sizes, "the result") * entry_bytes(type); bytes >= BlockPool::LEAST_LASTING)
        return make_in(BlockPool::of_lasting_results(), sizes, type, bytes);
#endif
    return make(sizes, type);
}

// A tensor for weights, which are read over and over: a large one asks for huge pages, with which the processor prefetches
// further and misses fewer addresses. The LM head of base (26 MB in 8 bits) was read in 1.18 ms instead of 1.34.
inline Tensor make_weight(int64_t numel, ScalarType type, int64_t entry_bytes) {
#ifdef __linux__
    constexpr int64_t HUGE_PAGE = 2 << 20;
    if (const int64_t bytes = numel * entry_bytes; bytes >= HUGE_PAGE) {
        void* memory = aligned_memory(HUGE_PAGE, bytes);
        // Only whole pages, so that the rest does not take one of its own. Advice: may be ignored.
        madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
        const int64_t stride = 1;
        const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
        return torch::stable::from_blob(memory, {&numel, 1}, {&stride, 1}, cpu, type, &free_aligned);
    }
#endif
    return make({numel}, type);
}

}  // namespace tilewhisper
