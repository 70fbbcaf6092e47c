// Work within one parallel region: threads go through several phases together, without leaving torch's threads between.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

namespace tilewhisper {

// Work that several threads divide among themselves, part by part. `share` returns when all of it is done. A late thread
// delays no other: it finds nothing left to do.
class Phase {
   public:
    // run(first, last) over [0, total) in parts of `part`, `prepare()` once before on each thread that takes one.
    template <class Prepare, class Run>
    void share(int64_t total, int64_t part, const Prepare& prepare, const Run& run) {
        bool prepared = false;
        for (int64_t first; (first = next_.fetch_add(part)) < total;) {
            const int64_t last = std::min(total, first + part);
            try {
                if (!prepared) prepare();
                prepared = true;
                run(first, last);
            } catch (...) {
                done_.fetch_add(total);  // the others must not wait for this thread, which leaves
                throw;
            }
            done_.fetch_add(last - first, std::memory_order_release);
        }
        for (int64_t waits = 0; done_.load(std::memory_order_acquire) < total; ++waits)
            if (waits > PATIENCE) std::this_thread::yield();
    }

    // run(item) for every item of [0, total).
    template <class Run>
    void share_each(int64_t total, const Run& run) {
        share(total, 1, [] {}, [&](int64_t item, int64_t) { run(item); });
    }

   private:
    static constexpr int64_t PATIENCE = 4096;  // some 10 us: longer than a part takes, shorter than a time slice
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<int64_t> done_{0};
};

}  // namespace tilewhisper
