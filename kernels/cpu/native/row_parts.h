// Rows divided among threads.
#pragma once

#include "ops.h"

namespace tilewhisper {

// Rows in parts of about `most`, which reuse a panel well while it is in the cache. Each thread gets equally many parts,
// which differ by one block of MAX_BLOCK at most: in parts of 96 of 514 rows one of two threads would have 288. To be made
// before the threads part: torch tells a worker thread another number of threads than the caller's.
class RowParts {
   public:
    RowParts(int64_t rows, int64_t most) : rows_(rows), blocks_((rows + MAX_BLOCK - 1) / MAX_BLOCK) {
        const int64_t threads = torch::stable::get_num_threads();
        count_ = std::min((rows + threads * most - 1) / (threads * most) * threads, blocks_);
    }
    int64_t count() const { return count_; }
    int64_t first(int64_t part) const { return part * blocks_ / count_ * MAX_BLOCK; }
    int64_t last(int64_t part) const { return std::min(rows_, first(part + 1)); }

   private:
    int64_t rows_, blocks_, count_;
};

template <class Run>
void share_each(const RowParts& parts, const Run& run) {
    share_each(parts.count(), [&](int64_t part) { run(parts.first(part), parts.last(part)); });
}

}  // namespace tilewhisper
