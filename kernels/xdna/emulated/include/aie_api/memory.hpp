// Loads and stores of whole vectors, which must be aligned: 256 bits on AIE2, 512 bits on AIE2P, or the vector's size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "types.hpp"

namespace aie::model {

struct Buffer {
    std::uintptr_t begin, end;
};

constexpr unsigned MAX_BUFFERS = 4;
inline thread_local std::array<Buffer, MAX_BUFFERS> buffers{};  // of the call that runs
inline thread_local unsigned invalid = 0;                       // accesses of that call

template <typename T, unsigned N>
bool is_valid([[maybe_unused]] const T* at) {
#ifdef MODEL_CHECKED
    constexpr std::size_t size = sizeof(T) * N, alignment = std::min<std::size_t>(size, __AIE_ARCH__ == 20 ? 32 : 64);
    const auto begin = reinterpret_cast<std::uintptr_t>(at);
    const auto holds = [&](const Buffer& b) { return begin >= b.begin && begin + size <= b.end; };
    if (begin % alignment || std::none_of(buffers.begin(), buffers.end(), holds)) {
        ++invalid;
        return false;
    }
#endif
    return true;
}

}  // namespace aie::model

namespace aie {

template <unsigned N, typename T>
vector<T, N> load_v(const T* at) {
    vector<T, N> v{};
    if (model::is_valid<T, N>(at)) {
        std::memcpy(v.lanes.data(), at, sizeof v.lanes);
    }
    return v;
}

template <typename T, unsigned N>
void store_v(T* at, const vector<T, N>& v) {
    if (model::is_valid<T, N>(at)) {
        std::memcpy(at, v.lanes.data(), sizeof v.lanes);
    }
}

}  // namespace aie
