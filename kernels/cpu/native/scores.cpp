// What a decoder's step asks of its scores over the vocabulary: the likeliest, and what all of them come to.
//
// Rows of 50,000 numbers are looked at in blocks. The `keep`-th of the blocks' largest numbers is a bound below which none of
// the `keep` largest of the row lies, so that few blocks are searched number by number.

#include <cmath>
#include <functional>
#include <limits>
#include <tuple>

#include "ops.h"

namespace tilewhisper {
namespace {

constexpr float NEVER = -std::numeric_limits<float>::infinity();
constexpr int64_t BLOCK = 2048;

struct Scored {
    float score;
    int64_t token;
};

// A part of one row, as blocks; the last may be shorter.
struct Part {
    const float* scores;
    int64_t n;
    const float* largest;  // of each block
    int64_t blocks() const { return (n + BLOCK - 1) / BLOCK; }

    // found(j) for every score of at least `least`.
    template <class Found>
    void at_least(float least, const Found& found) const {
        for (int64_t block = 0; block < blocks(); ++block) {
            if (!(largest[block] >= least)) continue;
            for (int64_t j = block * BLOCK; j < std::min(n, (block + 1) * BLOCK); ++j)
                if (scores[j] >= least) found(j);
        }
    }

    // The `keep` largest, largest first, of equals the first; fewer where fewer may come.
    std::vector<Scored> likeliest(int64_t keep) const {
        std::vector<float> most(largest, largest + blocks());
        const int64_t place = std::min<int64_t>(keep, blocks()) - 1;
        std::nth_element(most.begin(), most.begin() + place, most.end(), std::greater<>());
        const float bound = keep <= blocks() ? most[place] : NEVER;
        std::vector<Scored> found;
        at_least(std::max(bound, std::numeric_limits<float>::lowest()), [&](int64_t j) { found.push_back({scores[j], j}); });
        const auto end = found.begin() + std::min<int64_t>(keep, found.size());
        std::partial_sort(found.begin(), end, found.end(), [](const Scored& a, const Scored& b) {
            return a.score != b.score ? a.score > b.score : a.token < b.token;
        });
        found.erase(end, found.end());
        return found;
    }
};

// The largest of each block, of columns [first, last) of all rows.
class Blocks {
   public:
    Blocks(const float* scores, int64_t rows, int64_t stride, int64_t first, int64_t last)
        : scores_(scores + first), stride_(stride), n_(last - first), count_((n_ + BLOCK - 1) / BLOCK), largest_(rows * count_) {
        each([&](int64_t, int64_t, const float* from, int64_t n) { return kernels().largest(from, n); }, largest_);
    }

    Part row(int64_t i) const { return {scores_ + i * stride_, n_, largest_.data() + i * count_}; }

    float largest(int64_t i) const { return *std::max_element(largest_.begin() + i * count_, largest_.begin() + (i + 1) * count_); }

    // log(sum of e^score) of each row. Blocks are added up in order, whatever thread they came from.
    std::vector<float> log_sums() const {
        const int64_t rows = static_cast<int64_t>(largest_.size()) / count_;
        std::vector<float> most(rows), sums(largest_.size()), logs(rows);
        for (int64_t i = 0; i < rows; ++i) most[i] = largest(i);
        each([&](int64_t i, int64_t, const float* from, int64_t n) { return kernels().sum_of_exps(from, n, most[i]); }, sums);
        for (int64_t i = 0; i < rows; ++i) {
            double sum = 0;
            for (int64_t block = 0; block < count_; ++block) sum += sums[i * count_ + block];
            logs[i] = most[i] == NEVER ? NEVER : static_cast<float>(most[i] + std::log(sum));
        }
        return logs;
    }

   private:
    template <class Of>
    void each(const Of& of, std::vector<float>& to) const {
        share(static_cast<int64_t>(to.size()), 4, [&](int64_t first, int64_t last) {
            for (int64_t item = first; item < last; ++item) {
                const int64_t i = item / count_, block = item % count_;
                to[item] = of(i, block, scores_ + i * stride_ + block * BLOCK, std::min(BLOCK, n_ - block * BLOCK));
            }
        });
    }

    const float* scores_;
    int64_t stride_, n_, count_;
    std::vector<float> largest_;
};

// The `keep` largest of each row of scores (rows, n), largest first, where they are, and log(sum of e^score): (rows, keep),
// (rows, keep), (rows, 1). Where fewer may come, the rest is -inf.
std::tuple<Tensor, Tensor, Tensor> top_k(Tensor scores, int64_t keep) {
    check_floats(scores, 2, "scores");
    const int64_t rows = scores.size(0), n = scores.size(1);
    STD_TORCH_CHECK(keep >= 1 && keep <= n, "of ", n, " scores 1 or more can be kept, not ", keep);
    Tensor values = make({rows, keep}), tokens = make({rows, keep}, ScalarType::Long), sums = make({rows, 1});
    const Blocks blocks(floats(scores), rows, scores.stride(0), 0, n);
    const std::vector<float> logs = blocks.log_sums();
    std::copy(logs.begin(), logs.end(), static_cast<float*>(sums.data_ptr()));
    for (int64_t i = 0; i < rows; ++i) {
        auto* value = static_cast<float*>(values.data_ptr()) + i * keep;
        auto* token = static_cast<int64_t*>(tokens.data_ptr()) + i * keep;
        std::fill_n(value, keep, NEVER);
        std::fill_n(token, keep, int64_t{0});
        for (const Scored& one : blocks.row(i).likeliest(keep)) *value++ = one.score, *token++ = one.token;
    }
    return {values, tokens, sums};
}

// What scores in 8 bits may be wrong by, six times their standard deviation: x_k is off by up to half a step of its row,
// w_k by up to half of its token's, evenly, so that this is sqrt((|x| scale)^2 + (|w| step)^2) / sqrt(12).
class Doubt {
   public:
    Doubt(const float* x, int64_t k) : length_(std::sqrt(kernels().dot(x, x, k))) {
        const auto [least, most] = std::minmax_element(x, x + k);
        step_ = (std::max(*most, 0.0f) - std::min(*least, 0.0f)) / LIMIT_U8;
    }
    // Of a token whose weight's scale and norm are these.
    float operator()(float scale, float norm) const { return 6 / std::sqrt(12.0f) * std::hypot(length_ * scale, norm * step_); }

   private:
    float length_, step_;
};

// scores (rows, n) are those of x (rows, k) times the weight (n, k) in bytes with these scales; `norms` (n,) are those of the
// weight's rows where x had bytes as well, and zeros where it had 16 bits. Scores that may be among the `keep` best of their
// part of a row, before `split` or from there on, are computed anew, in place.
void rescore(Tensor scores, Tensor x, Tensor weight, Tensor scales, Tensor norms, int64_t split, int64_t keep) {
    check_floats(scores, 2, "scores");
    check_floats(x, 2, "x");
    check_floats(weight, 2, "weight");
    const int64_t rows = scores.size(0), n = scores.size(1), k = x.size(1);
    STD_TORCH_CHECK(x.size(0) == rows && weight.size(0) == n && weight.size(1) == k && scales.numel() >= n && norms.numel() == n,
                    "scores, x, weight, scales and norms do not fit each other");
    STD_TORCH_CHECK(split >= 0 && split <= n, "there are ", n, " scores, none of number ", split);
    STD_TORCH_CHECK(keep >= 1, "at least one score must be kept, not ", keep);
    const auto settle_part = [&](int64_t first, int64_t last) {
        if (first == last) return;
        const Blocks blocks(floats(scores), rows, scores.stride(0), first, last);
        const float *scale = floats(scales) + first, *norm = floats(norms) + first;
        const float coarsest = kernels().largest(scale, last - first), longest = kernels().largest(norm, last - first);
        share(rows, 1, [&](int64_t i, int64_t) {
            const Part part = blocks.row(i);
            auto* row = static_cast<float*>(scores.data_ptr()) + i * scores.stride(0) + first;
            const float* given = floats(x) + i * x.stride(0);
            const Doubt doubt(given, k);
            float least = std::numeric_limits<float>::max();  // stays where none of them may come
            for (const Scored& one : part.likeliest(keep))
                least = std::min(least, one.score - doubt(scale[one.token], norm[one.token]));
            const float bound = std::max(least - doubt(coarsest, longest), std::numeric_limits<float>::lowest());
            part.at_least(bound, [&](int64_t j) {
                if (row[j] + doubt(scale[j], norm[j]) >= least)
                    row[j] = kernels().dot(given, floats(weight) + (first + j) * weight.stride(0), k);
            });
        });
    };
    settle_part(0, split);
    settle_part(split, n);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("top_k(Tensor scores, int keep) -> (Tensor, Tensor, Tensor)");
    m.def("rescore(Tensor(a!) scores, Tensor x, Tensor weight, Tensor scales, Tensor norms, int split, int keep) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("top_k", TORCH_BOX(&top_k));
    m.impl("rescore", TORCH_BOX(&rescore));
}

}  // namespace tilewhisper
