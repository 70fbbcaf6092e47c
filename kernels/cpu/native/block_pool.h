// Memory for large results: blocks outside malloc's heap, which the next results use again.
//
// In the heap, what is allocated beside such results and lives longer leaves gaps that the next ones do not fit, and pages
// that malloc has given back are faulted in anew.
#pragma once

#ifdef __linux__
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

namespace tilewhisper {

struct Block {
    void* memory;
    int64_t bytes;
};

class BlockPool {
   public:
    // Results that live for a few calls. Of free blocks 16 MB are kept: the encode of a clip of 8 s (base) takes 44 ms; with
    // 8 MB it faulted 2,200 pages in anew, and took 52.
    static constexpr int64_t LEAST = 256 << 10;  // smaller ones are malloc's
    // Pools are never destroyed: a tensor may outlive every static object.
    static BlockPool& of_results() {
        static auto* const pool = new BlockPool(16 << 20, 2);
        return *pool;
    }

    // Results that stay while many others come and go: within the heap they leave holes, 60 MB of them after ten minutes in
    // batches of 8 (base). Each block that is unmapped interrupts the other threads, and each page of a new one faults: of a
    // clip of 8 s, which has 3 MB of them, 2 ms together (base).
    static constexpr int64_t LEAST_LASTING = 64 << 10;
    static BlockPool& of_lasting_results() {
        static auto* const pool = new BlockPool(4 << 20, 1.5);
        return *pool;
    }

    // A block of at least `bytes`, with undefined contents; null memory where there is none left. Where no free block
    // fits, as many bytes of free blocks are dropped as are mapped, so that blocks of sizes that no longer occur do not
    // add to those that do.
    Block take(int64_t bytes) {
        if (const std::unique_lock lock(lock_, std::try_to_lock); lock) {
            auto best = free_.end();
            for (auto block = free_.begin(); block != free_.end(); ++block)
                if (block->bytes >= bytes && block->bytes <= most_ * bytes &&
                    (best == free_.end() || block->bytes < best->bytes))
                    best = block;
            if (best != free_.end()) {
                const Block found = *best;
                free_.erase(best);
                free_bytes_ -= found.bytes;
                return found;
            }
            drop_oldest(free_bytes_ - bytes);
        }
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return {memory == MAP_FAILED ? nullptr : memory, bytes};
    }

    void give_back(Block block) {
        // Another thread's call, or in a forked process one that was under way at the fork: not worth waiting for.
        const std::unique_lock lock(lock_, std::try_to_lock);
        if (!lock) {
            munmap(block.memory, block.bytes);
            return;
        }
        free_.push_back(block);
        free_bytes_ += block.bytes;
        drop_oldest(kept_);
    }

   private:
    // Keeps `kept` bytes of free blocks, and uses one for a result if it is at most `most` times as large.
    BlockPool(int64_t kept, double most) : kept_(kept), most_(most) {}

    void drop_oldest(int64_t kept) {
        auto block = free_.begin();
        for (; block != free_.end() && free_bytes_ > kept; ++block) {
            munmap(block->memory, block->bytes);
            free_bytes_ -= block->bytes;
        }
        free_.erase(free_.begin(), block);
    }

    const int64_t kept_;
    const double most_;
    std::mutex lock_;
    std::vector<Block> free_;  // the oldest first
    int64_t free_bytes_ = 0;
};

}  // namespace tilewhisper
#endif
