// Rows of a decode step's logits, searched in blocks: of 50,000 logits, few blocks are searched logit by logit, because the
// k-th largest of the blocks' maxima is a lower bound of a row's k largest logits.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ops.h"

namespace tilewhisper {

inline constexpr float SUPPRESSED = -std::numeric_limits<float>::infinity();
inline constexpr int64_t BLOCK_LOGITS = 256;

struct Candidate {
    float logit;
    int64_t token;
};

// A part of one row, as blocks; the last may be shorter.
struct Part {
    const float* logits;
    int64_t n;
    const float* maxima;  // of the blocks
    int64_t blocks() const { return (n + BLOCK_LOGITS - 1) / BLOCK_LOGITS; }

    // found(j) for every logit of at least `bound`; a NaN is none.
    template <class Found>
    void at_least(float bound, const Found& found) const {
        for (int64_t block = 0; block < blocks(); ++block) at_least(bound, block, found);
    }

    // Those of one block.
    template <class Found>
    void at_least(float bound, int64_t block, const Found& found) const {
        if (!(maxima[block] >= bound)) return;
        for (int64_t j = block * BLOCK_LOGITS; j < std::min(n, (block + 1) * BLOCK_LOGITS); ++j)
            if (logits[j] >= bound) found(j);
    }

    float max() const { return n ? *std::max_element(maxima, maxima + blocks()) : SUPPRESSED; }

    float log_sum_exp() const {
        const float most = max();
        return most == SUPPRESSED ? SUPPRESSED : most + std::log(kernels().sum_exp(logits, n, most));
    }

    // The `count` largest, largest first, of equals the first; fewer where the others are suppressed.
    std::vector<Candidate> top_k(int64_t count) const {
        if (!n) return {};
        std::vector<float> largest(maxima, maxima + blocks());
        const int64_t place = std::min<int64_t>(count, blocks()) - 1;
        std::nth_element(largest.begin(), largest.begin() + place, largest.end(), std::greater<>());
        const float bound = count <= blocks() ? largest[place] : SUPPRESSED;
        std::vector<Candidate> found;
        at_least(std::max(bound, std::numeric_limits<float>::lowest()), [&](int64_t j) { found.push_back({logits[j], j}); });
        const auto end = found.begin() + std::min<int64_t>(count, found.size());
        std::partial_sort(found.begin(), end, found.end(), [](const Candidate& a, const Candidate& b) {
            return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
        });
        found.erase(end, found.end());
        return found;
    }
};

// The maximum of each block, of columns [first, last) of all rows.
class Blocks {
   public:
    Blocks(const float* logits, int64_t rows, int64_t stride, int64_t first, int64_t last)
        : logits_(logits + first),
          stride_(stride),
          n_(last - first),
          count_((n_ + BLOCK_LOGITS - 1) / BLOCK_LOGITS),
          maxima_(rows * count_) {
        each([&](int64_t, int64_t, const float* from, int64_t n) { return kernels().max(from, n); }, maxima_);
    }

    Part row(int64_t i) const { return {logits_ + i * stride_, n_, maxima_.data() + i * count_}; }

    float max(int64_t i) const { return row(i).max(); }

    // log(sum of e^logit) of each row. Blocks are added up in order, whichever threads computed them.
    std::vector<float> log_sum_exp() const {
        const int64_t rows = static_cast<int64_t>(maxima_.size()) / count_;
        std::vector<float> largest(rows), sums(maxima_.size()), logs(rows);
        for (int64_t i = 0; i < rows; ++i) largest[i] = max(i);
        each([&](int64_t i, int64_t, const float* from, int64_t n) { return kernels().sum_exp(from, n, largest[i]); }, sums);
        for (int64_t i = 0; i < rows; ++i) {
            double sum = 0;
            for (int64_t block = 0; block < count_; ++block) sum += sums[i * count_ + block];
            logs[i] = largest[i] == SUPPRESSED ? SUPPRESSED : static_cast<float>(largest[i] + std::log(sum));
        }
        return logs;
    }

   private:
    template <class Of>
    void each(const Of& of, std::vector<float>& to) const {
        share(static_cast<int64_t>(to.size()), 32, [&](int64_t first, int64_t last) {
            for (int64_t item = first; item < last; ++item) {
                const int64_t i = item / count_, block = item % count_;
                to[item] = of(i, block, logits_ + i * stride_ + block * BLOCK_LOGITS,
                              std::min(BLOCK_LOGITS, n_ - block * BLOCK_LOGITS));
            }
        });
    }

    const float* logits_;
    int64_t stride_, n_, count_;
    std::vector<float> maxima_;
};

inline void check_writable_logits(const Tensor& logits) {
    check_floats(logits, 2, "logits");
    STD_TORCH_CHECK(logits.size(0) <= 1 || logits.stride(0) >= logits.size(1), "the rows of logits must not overlap");
}

}  // namespace tilewhisper
