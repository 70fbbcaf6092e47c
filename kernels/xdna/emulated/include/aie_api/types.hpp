// bf16, vectors, accumulators, and the rounding register.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

using int32 = std::int32_t;
struct bfloat16 {
    std::uint16_t bits;
    bfloat16() = default;
    explicit bfloat16(float x);
};
static_assert(sizeof(bfloat16) == 2);

struct accfloat {};
struct accauto {};

namespace aie {

enum class rounding_mode { floor = 0, conv_even = 12 };

}  // namespace aie

namespace aie::model {

// Of the core that this thread plays. Cores start with floor, toward minus infinity.
inline thread_local rounding_mode rounding = rounding_mode::floor;

inline float value(bfloat16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

inline bfloat16 stored(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    std::uint32_t high = bits >> 16;
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        high |= (high & 0x7F) == 0;  // stays a NaN
    } else if (rounding == rounding_mode::floor) {
        high += (bits >> 31) & ((bits & 0xFFFF) != 0);
    } else {
        high = (bits + 0x7FFF + (high & 1)) >> 16;
    }
    bfloat16 result;
    result.bits = static_cast<std::uint16_t>(high);
    return result;
}

}  // namespace aie::model

inline bfloat16::bfloat16(float x) : bfloat16(aie::model::stored(x)) {}

namespace aie {

inline void set_rounding(rounding_mode mode) { model::rounding = mode; }

template <typename T, unsigned N>
struct vector {
    std::array<T, N> lanes;

    void set(T x, unsigned lane) { lanes.at(lane) = x; }

    template <typename To>
    vector<To, N> cast_to() const {
        static_assert(sizeof(To) == sizeof(T), "the model casts to elements of the same size only");
        return std::bit_cast<vector<To, N>>(*this);
    }

    template <unsigned M>
    vector<T, M> grow_replicate() const {
        static_assert(M % N == 0);
        vector<T, M> grown;
        for (unsigned i = 0; i < M; ++i) {
            grown.lanes[i] = lanes[i % N];
        }
        return grown;
    }
};

template <typename Tag, unsigned N>
struct accum {
    static_assert(std::is_same_v<Tag, accfloat>, "the model has float32 accumulators only");
    std::array<float, N> lanes;

    accum() = default;
    explicit accum(const vector<float, N>& v) : lanes(v.lanes) {}
    explicit accum(const vector<bfloat16, N>& v) {
        for (unsigned i = 0; i < N; ++i) {
            lanes[i] = model::value(v.lanes[i]);
        }
    }

    // To bf16 in the mode of the rounding register.
    template <typename T>
    vector<T, N> to_vector() const {
        vector<T, N> v;
        if constexpr (std::is_same_v<T, float>) {
            v.lanes = lanes;
        } else {
            static_assert(std::is_same_v<T, bfloat16>);
            for (unsigned i = 0; i < N; ++i) {
                v.lanes[i] = model::stored(lanes[i]);
            }
        }
        return v;
    }
};

}  // namespace aie
