// Objects that outlive the operator call that made them: Python has a number for each, its handle, and releases it.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "ops.h"

namespace tilewhisper {

using Handle = int64_t;

struct Registered {
    virtual ~Registered() = default;
};

class Registry {
   public:
    Handle add(std::shared_ptr<const Registered> object) {
        const std::lock_guard<std::mutex> guard(lock_);
        objects_[++last_] = std::move(object);
        return last_;
    }
    std::shared_ptr<const Registered> find(Handle handle) {
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = objects_.find(handle);
        return found == objects_.end() ? nullptr : found->second;
    }
    // The object is destroyed outside the lock, by whoever uses it last.
    void remove(Handle handle) {
        std::shared_ptr<const Registered> last;
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = objects_.find(handle);
        if (found == objects_.end()) return;
        last = std::move(found->second);
        objects_.erase(found);
    }

   private:
    std::mutex lock_;
    Handle last_ = 0;
    std::unordered_map<Handle, std::shared_ptr<const Registered>> objects_;
};

// Never destroyed: Python may release handles while the process ends.
inline Registry& registry() {
    static auto* all = new Registry;
    return *all;
}

// The object of a handle; T::KIND names its kind in the error.
template <class T>
std::shared_ptr<const T> find(Handle handle) {
    auto found = std::dynamic_pointer_cast<const T>(registry().find(handle));
    STD_TORCH_CHECK(found, handle, " is not the handle of a ", T::KIND, "; it may have been released");
    return found;
}

}  // namespace tilewhisper
