// The matrix instruction: C (M, N) += A (M, 8) B (8, N), each row by row.
#pragma once

#include <cstring>

#include "types.hpp"
#include "unit.hpp"

namespace aie {

template <unsigned M, unsigned K, unsigned N, typename TypeA, typename TypeB, typename Tag>
class mmul {
    static_assert(std::is_same_v<TypeA, bfloat16> && std::is_same_v<TypeB, bfloat16> && std::is_same_v<Tag, accauto>);
#if __AIE_ARCH__ == 20
    static_assert(M == 4 && K == 8 && N == 4, "the model has AIE2's native shape only");
#else
    static_assert(K == 8 && N == 8, "the model has 4x8x8, and 8x8x8 in block floating point only");
    static_assert(M == 4 || M == 8);
#ifndef AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16
    static_assert(M == 4, "8x8x8 needs AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16");
#endif
#endif
    using Row = model::Simd<float, N>;
    using DoubleRow = model::Simd<double, N>;
    Row sums[M];

   public:
    static constexpr unsigned size_A = M * K, size_B = K * N, size_C = M * N;

    mmul() = default;
    explicit mmul(const vector<float, M * N>& c) { std::memcpy(sums, c.lanes.data(), sizeof sums); }

    template <typename T>
    vector<T, M * N> to_vector() const {
        return to_accum().template to_vector<T>();
    }

    accum<accfloat, M * N> to_accum() const {
        accum<accfloat, M * N> c;
        std::memcpy(c.lanes.data(), sums, sizeof sums);
        return c;
    }

    void mac(const vector<bfloat16, M * K>& a, const vector<bfloat16, K * N>& b) {
        if constexpr (!model::EXACT) {
            add_in_float(a, b);
        } else if (any_special(a, b)) {
            add_in_integers(a, b);
        } else {
            add_in_double(a, b);
        }
    }

   private:
    void add_in_float(const vector<bfloat16, M * K>& a, const vector<bfloat16, K * N>& b) {
        for (unsigned k = 0; k < K; ++k) {
            Row right;
            for (unsigned j = 0; j < N; ++j) {
                right[j] = model::value(b.lanes[k * N + j]);
            }
            for (unsigned i = 0; i < M; ++i) {
                sums[i] += model::value(a.lanes[i * K + k]) * right;
            }
        }
    }

    void add_in_double(const vector<bfloat16, M * K>& a, const vector<bfloat16, K * N>& b) {
        DoubleRow right[K], powers_of_right[K];
        for (unsigned k = 0; k < K; ++k) {
            for (unsigned j = 0; j < N; ++j) {
                right[k][j] = model::value(b.lanes[k * N + j]);
                powers_of_right[k][j] = model::power(model::value(b.lanes[k * N + j]));
            }
        }
        for (unsigned i = 0; i < M; ++i) {
            double left[K], powers_of_left[K];
            for (unsigned k = 0; k < K; ++k) {
                left[k] = model::value(a.lanes[i * K + k]);
                powers_of_left[k] = model::power(model::value(a.lanes[i * K + k]));
            }
            sums[i] = model::finite_step<K, N>(sums[i], left, powers_of_left, right, powers_of_right);
        }
    }

    void add_in_integers(const vector<bfloat16, M * K>& a, const vector<bfloat16, K * N>& b) {
        for (unsigned j = 0; j < N; ++j) {
            std::array<bfloat16, K> column;
            for (unsigned k = 0; k < K; ++k) {
                column[k] = b.lanes[k * N + j];
            }
            for (unsigned i = 0; i < M; ++i) {
                sums[i][j] = model::integers::step(sums[i][j], a.lanes.data() + i * K, column.data(), K);
            }
        }
    }

    bool any_special(const vector<bfloat16, M * K>& a, const vector<bfloat16, K * N>& b) const {
        bool found = false;
        for (const bfloat16 x : a.lanes) {
            found |= (x.bits & 0x7F80) == 0x7F80;
        }
        for (const bfloat16 x : b.lanes) {
            found |= (x.bits & 0x7F80) == 0x7F80;
        }
        for (unsigned i = 0; i < M; ++i) {
            for (unsigned j = 0; j < N; ++j) {
                found |= model::is_special(sums[i][j]);
            }
        }
        return found;
    }
};

}  // namespace aie
