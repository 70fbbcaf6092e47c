// What outlives the call that made it: Python has a number for it, and releases it.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "ops.h"

namespace tilewhisper {

struct Held {
    virtual ~Held() = default;
};

class Holdings {
   public:
    int64_t add(std::shared_ptr<const Held> what) {
        const std::lock_guard<std::mutex> guard(lock_);
        held_[++last_] = std::move(what);
        return last_;
    }
    std::shared_ptr<const Held> at(int64_t number) {
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = held_.find(number);
        return found == held_.end() ? nullptr : found->second;
    }
    // The last that holds it lets go of it, outside the lock.
    void remove(int64_t number) {
        std::shared_ptr<const Held> last;
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = held_.find(number);
        if (found == held_.end()) return;
        last = std::move(found->second);
        held_.erase(found);
    }

   private:
    std::mutex lock_;
    int64_t last_ = 0;
    std::unordered_map<int64_t, std::shared_ptr<const Held>> held_;
};

// Never destroyed: Python may release what it holds while the process ends.
inline Holdings& holdings() {
    static auto* all = new Holdings;
    return *all;
}

inline int64_t hold(std::shared_ptr<const Held> what) { return holdings().add(std::move(what)); }
inline void release(int64_t number) { holdings().remove(number); }

template <class T>
std::shared_ptr<const T> find(int64_t number) {
    auto found = std::dynamic_pointer_cast<const T>(holdings().at(number));
    STD_TORCH_CHECK(found, "nothing of this kind is held as number ", number);
    return found;
}

}  // namespace tilewhisper
