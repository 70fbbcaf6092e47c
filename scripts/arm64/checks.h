// Random inputs, and comparisons of results, for compare_sets.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace checks {

// A sequence that is the same everywhere.
class Random {
   public:
    int64_t whole(int64_t least, int64_t most) { return least + static_cast<int64_t>(next() % (most - least + 1)); }
    // Nearly normal: the sum of twelve even numbers, less their mean.
    float normal() {
        double sum = -6;
        for (int i = 0; i < 12; ++i) sum += static_cast<double>(next() & 0xffffff) / 0x1000000;
        return static_cast<float>(sum);
    }
    std::vector<float> normals(int64_t n) {
        std::vector<float> x(n);
        for (float& each : x) each = normal();
        return x;
    }

   private:
    uint64_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return state_ >> 33;
    }
    uint64_t state_ = 1;
};

// Memory aligned to a cache line, zero at first, with a line more: kernels may read a little beyond a row's words.
template <class T>
class Line64 {
   public:
    explicit Line64(int64_t n) : memory_(n * sizeof(T) + 128), size_(n) {
        const auto at = reinterpret_cast<uintptr_t>(memory_.data());
        data_ = reinterpret_cast<T*>((at + 63) / 64 * 64);
    }
    Line64(const Line64&) = delete;
    T* data() const { return data_; }
    T& operator[](int64_t i) const { return data_[i]; }
    int64_t size() const { return size_; }

   private:
    std::vector<char> memory_;
    int64_t size_;
    T* data_;
};

inline int64_t compared = 0;  // numbers

[[noreturn]] inline void fail(const std::string& what, double found, double expected) {
    std::printf("FAILED: %s: got %.9g, expected %.9g\n", what.c_str(), found, expected);
    std::exit(1);
}

inline void exactly(const std::string& what, const float* found, const float* expected, int64_t n) {
    for (int64_t i = 0; i < n; ++i, ++compared)
        if (!(found[i] == expected[i])) fail(what + " at " + std::to_string(i), found[i], expected[i]);
}

// The norm of the difference is at most `tolerance` of the norm of what is expected; NaN only where it is expected.
inline void nearly(const std::string& what, const float* found, const float* expected, int64_t n, double tolerance) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; ++i, ++compared) {
        if (std::isnan(found[i]) != std::isnan(expected[i])) fail(what + " at " + std::to_string(i), found[i], expected[i]);
        if (std::isnan(expected[i])) continue;
        difference += std::pow(static_cast<double>(found[i]) - expected[i], 2);
        size += std::pow(static_cast<double>(expected[i]), 2);
    }
    if (!(std::sqrt(difference) <= tolerance * std::sqrt(size)))
        fail(what + ", norm of the error", std::sqrt(difference), 0);
}

// Whole numbers that were rounded, of which one half way between two may have gone either way.
template <class T>
void rounded(const std::string& what, const T* found, const T* expected, int64_t n) {
    for (int64_t i = 0; i < n; ++i, ++compared)
        if (std::abs(found[i] - expected[i]) > 1) fail(what + " at " + std::to_string(i), found[i], expected[i]);
}

}  // namespace checks
