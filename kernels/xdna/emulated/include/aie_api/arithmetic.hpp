// Operations on whole vectors and accumulators, lane by lane, and reductions to one number.
#pragma once

#include <algorithm>

#include "types.hpp"
#include "unit.hpp"

namespace aie::model {

template <unsigned N>
accum<accfloat, N> add_products(const accum<accfloat, N>& start, const vector<bfloat16, N>& a,
                                const vector<bfloat16, N>& b) {
    accum<accfloat, N> sum;
    if constexpr (!EXACT) {
        for (unsigned i = 0; i < N; ++i) {
            sum.lanes[i] = start.lanes[i] + value(a.lanes[i]) * value(b.lanes[i]);
        }
        return sum;
    }
    Simd<double, N> left, right, powers_of_left, powers_of_right;
    bool special = false;
    for (unsigned i = 0; i < N; ++i) {
        const float x = value(a.lanes[i]), y = value(b.lanes[i]);
        left[i] = x;
        right[i] = y;
        powers_of_left[i] = power(x);
        powers_of_right[i] = power(y);
        special |= is_special(x) || is_special(y) || is_special(start.lanes[i]);
    }
    if (special) {
        for (unsigned i = 0; i < N; ++i) {
            sum.lanes[i] = integers::step(start.lanes[i], &a.lanes[i], &b.lanes[i], 1);
        }
        return sum;
    }
    const auto first = std::bit_cast<Simd<float, N>>(start);
    return std::bit_cast<accum<accfloat, N>>(finite_step<1, N>(first, &left, &powers_of_left, &right, &powers_of_right));
}

template <typename T, unsigned N, typename Operation>
vector<T, N> each(const vector<T, N>& a, const vector<T, N>& b, Operation operation) {
    vector<T, N> v;
    for (unsigned i = 0; i < N; ++i) {
        v.lanes[i] = operation(a.lanes[i], b.lanes[i]);
    }
    return v;
}

// As rough as the API may be: callers must refine it.
inline float to_8_bits(float x) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xFFFF0000); }

}  // namespace aie::model

namespace aie {

template <typename T, unsigned N>
vector<T, N> zeros() {
    return {};
}

template <typename T, unsigned N>
vector<T, N> broadcast(T x) {
    vector<T, N> v;
    v.lanes.fill(x);
    return v;
}

template <unsigned N>
accum<accfloat, N> mul(const vector<bfloat16, N>& a, const vector<bfloat16, N>& b) {
    return model::add_products(accum<accfloat, N>(zeros<float, N>()), a, b);
}

template <unsigned N>
accum<accfloat, N> mac(const accum<accfloat, N>& sum, const vector<bfloat16, N>& a, const vector<bfloat16, N>& b) {
    return model::add_products(sum, a, b);
}

template <unsigned N>
accum<accfloat, N> mul(const vector<float, N>& a, const vector<float, N>& b) {
    return accum<accfloat, N>(model::each(a, b, [](float x, float y) { return x * y; }));
}

template <typename T, unsigned N>
vector<T, N> add(const vector<T, N>& a, const vector<T, N>& b) {
    return model::each(a, b, [](T x, T y) { return x + y; });
}

template <typename T, unsigned N>
vector<T, N> sub(const vector<T, N>& a, const vector<T, N>& b) {
    return model::each(a, b, [](T x, T y) { return x - y; });
}

template <unsigned N>
accum<accfloat, N> add(const accum<accfloat, N>& a, const accum<accfloat, N>& b) {
    return accum<accfloat, N>(add(a.template to_vector<float>(), b.template to_vector<float>()));
}

template <unsigned N>
accum<accfloat, N> sub(const accum<accfloat, N>& a, const accum<accfloat, N>& b) {
    return accum<accfloat, N>(sub(a.template to_vector<float>(), b.template to_vector<float>()));
}

template <typename T, unsigned N>
vector<T, N> max(const vector<T, N>& a, const vector<T, N>& b) {
    return model::each(a, b, [](T x, T y) { return x < y ? y : x; });
}

template <typename T, unsigned N>
vector<T, N> min(const vector<T, N>& a, const vector<T, N>& b) {
    return model::each(a, b, [](T x, T y) { return y < x ? y : x; });
}

template <unsigned N>
vector<int32, N> upshift(const vector<int32, N>& v, unsigned shift) {
    return model::each(v, v, [=](int32 x, int32) { return static_cast<int32>(static_cast<std::uint32_t>(x) << shift); });
}

template <unsigned N>
vector<float, N> inv(const vector<float, N>& v) {
    return model::each(v, v, [](float x, float) { return model::to_8_bits(1 / x); });
}

template <unsigned N>
vector<float, N> invsqrt(const vector<float, N>& v) {
    return model::each(v, v, [](float x, float) { return model::to_8_bits(1 / std::sqrt(x)); });
}

// The rows x columns matrix in v, as columns x rows.
template <typename T, unsigned N>
vector<T, N> transpose(const vector<T, N>& v, unsigned rows, unsigned columns) {
    vector<T, N> out;
    for (unsigned i = 0; i < rows; ++i) {
        for (unsigned j = 0; j < columns; ++j) {
            out.lanes[j * rows + i] = v.lanes[i * columns + j];
        }
    }
    return out;
}

// In pairs, halves first.
template <unsigned N>
float reduce_add(const vector<float, N>& v) {
    auto lanes = v.lanes;
    for (unsigned half = N / 2; half; half /= 2) {
        for (unsigned i = 0; i < half; ++i) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

template <unsigned N>
float reduce_max(const vector<float, N>& v) {
    return *std::max_element(v.lanes.begin(), v.lanes.end());
}

}  // namespace aie
