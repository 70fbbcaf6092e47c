// Operators over a decode step's logits: masks, top-k with the log-sum-exp, and exact rescoring of logits from products of
// few bits.
//
// Rows of 50,000 logits are searched in blocks. The k-th largest of the blocks' maxima is a lower bound of a row's k largest
// logits, so that few blocks are searched logit by logit.

#include <cmath>
#include <functional>
#include <limits>
#include <tuple>

#include "file_rows.h"

namespace tilewhisper {
namespace {

constexpr float SUPPRESSED = -std::numeric_limits<float>::infinity();
constexpr int64_t BLOCK = 256;
// Nats by which all tokens of a part may together be below the most probable one of the other part before their errors show
// in the log-sum-exp, which beams add up: 0.7 % of the probability. With 0, texts of 2 in 60 clips with 5 beams changed.
constexpr float NEGLIGIBLE = 5;

struct Candidate {
    float logit;
    int64_t token;
};

// A part of one row, as blocks; the last may be shorter.
struct Part {
    const float* logits;
    int64_t n;
    const float* maxima;  // of the blocks
    int64_t blocks() const { return (n + BLOCK - 1) / BLOCK; }

    // found(j) for every logit of at least `bound`; a NaN is none.
    template <class Found>
    void at_least(float bound, const Found& found) const {
        for (int64_t block = 0; block < blocks(); ++block) {
            if (!(maxima[block] >= bound)) continue;
            for (int64_t j = block * BLOCK; j < std::min(n, (block + 1) * BLOCK); ++j)
                if (logits[j] >= bound) found(j);
        }
    }

    float max() const { return *std::max_element(maxima, maxima + blocks()); }
    float log_sum_exp() const {
        const float most = max();
        return most == SUPPRESSED ? SUPPRESSED : most + std::log(kernels().sum_exp(logits, n, most));
    }

    // The `count` largest, largest first, of equals the first; fewer where the others are suppressed.
    std::vector<Candidate> top_k(int64_t count) const {
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
          count_((n_ + BLOCK - 1) / BLOCK),
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
                to[item] = of(i, block, logits_ + i * stride_ + block * BLOCK, std::min(BLOCK, n_ - block * BLOCK));
            }
        });
    }

    const float* logits_;
    int64_t stride_, n_, count_;
    std::vector<float> maxima_;
};

void check_writable_logits(const Tensor& logits) {
    check_floats(logits, 2, "logits");
    STD_TORCH_CHECK(logits.size(0) <= 1 || logits.stride(0) >= logits.size(1), "the rows of logits must not overlap");
}

// Sets to -inf, of logits (rows, n), the `tokens` of all rows, and for each (row, first, end) of `spans` that row's logits
// from the first to before the end.
void mask(Tensor logits, Tensor tokens, std::vector<int64_t> spans) {
    check_writable_logits(logits);
    check_contiguous(tokens, ScalarType::Long, tokens.numel(), "tokens");
    STD_TORCH_CHECK(spans.size() % 3 == 0, "spans must have three numbers each, got ", spans.size(), " in all");
    const int64_t rows = logits.size(0), n = logits.size(1), count = tokens.numel();
    const auto* token = static_cast<const int64_t*>(tokens.data_ptr());
    for (int64_t i = 0; i < count; ++i) check_range(token[i], 0, n - 1, "a token");
    for (size_t i = 0; i < spans.size(); i += 3) {
        check_range(spans[i], 0, rows - 1, "a span's row");
        check_range(spans[i + 1], 0, n, "a span's first token");
        check_range(spans[i + 2], spans[i + 1], n, "a span's end");
    }
    const auto row = [&](int64_t i) { return mutable_floats(logits) + i * logits.stride(0); };
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < count; ++j) row(i)[token[j]] = SUPPRESSED;
    for (size_t i = 0; i < spans.size(); i += 3)
        std::fill(row(spans[i]) + spans[i + 1], row(spans[i]) + spans[i + 2], SUPPRESSED);
}

// Sets to -inf the logits before `split` of each row (rows, n) where those from there on are together more probable than the
// most probable one before: Whisper's choice between timestamps and text.
void prefer_last_part(Tensor logits, int64_t split) {
    check_writable_logits(logits);
    const int64_t rows = logits.size(0), n = logits.size(1);
    check_range(split, 1, n - 1, "split");
    if (rows == 0) return;
    const Blocks first(floats(logits), rows, logits.stride(0), 0, split);
    const std::vector<float> last = Blocks(floats(logits), rows, logits.stride(0), split, n).log_sum_exp();
    for (int64_t i = 0; i < rows; ++i)
        if (last[i] > first.max(i)) std::fill_n(mutable_floats(logits) + i * logits.stride(0), split, SUPPRESSED);
}

// Of each row of logits (rows, n): the `count` largest, largest first, their tokens, and log(sum of e^logit): (rows, count),
// (rows, count), (rows, 1). Where fewer are not suppressed, the rest is -inf.
std::tuple<Tensor, Tensor, Tensor> top_k(Tensor logits, int64_t count) {
    check_floats(logits, 2, "logits");
    const int64_t rows = logits.size(0), n = logits.size(1);
    check_range(n, 1, MAX_NUMBERS, "the number of tokens");
    check_range(count, 1, n, "count");
    Tensor values = make({rows, count}), tokens = make({rows, count}, ScalarType::Long), sums = make({rows, 1});
    if (rows == 0) return {values, tokens, sums};
    const Blocks blocks(floats(logits), rows, logits.stride(0), 0, n);
    const std::vector<float> logs = blocks.log_sum_exp();
    std::copy(logs.begin(), logs.end(), mutable_floats(sums));
    for (int64_t i = 0; i < rows; ++i) {
        float* value = mutable_floats(values) + i * count;
        auto* token = static_cast<int64_t*>(tokens.data_ptr()) + i * count;
        std::fill_n(value, count, SUPPRESSED);
        std::fill_n(token, count, int64_t{0});
        for (const Candidate& candidate : blocks.row(i).top_k(count)) *value++ = candidate.logit, *token++ = candidate.token;
    }
    return {values, tokens, sums};
}

// A bound of the error of logits from 8 or 4 bits, six times its standard deviation: x_k is off by up to half a step of its
// row, w_k by up to half a step of its token's, evenly distributed, so that this is sqrt((|x| step of w)^2 + (|w| step of
// x)^2) / sqrt(12). Rows of x have 255 steps from their least to their largest number beside 8 bits, and at least 127 to
// their largest magnitude beside 4.
class ErrorBound {
   public:
    ErrorBound(const float* x, int64_t k, int64_t bits) : norm_(std::sqrt(kernels().dot(x, x, k))) {
        const auto [min, max] = std::minmax_element(x, x + k);
        const float range = std::max(*max, 0.0f) - std::min(*min, 0.0f);
        step_ = bits == 8 ? range / LIMIT_U8 : std::max(*max, -*min) / LIMIT_8;
    }
    // Of a token whose row of the weight has this step and norm.
    float operator()(float step, float norm) const { return 6 / std::sqrt(12.0f) * std::hypot(norm_ * step, norm * step_); }

   private:
    float norm_, step_;
};

// What of a row's logits before `split` decides about those after; -inf where there are too few.
struct Rivals {
    float largest = SUPPRESSED;
    float left = SUPPRESSED;   // the largest that is certain to be left where `lowered` of them become smaller
    float least = SUPPRESSED;  // that may be among the `count` largest then
};

// Logits (rows, n) that are x (rows, k) times a weight (n, k) in `bits` 8 or 4, whose rows had `steps` (n or more,); `norms`
// (n,) are the norms of the weight's rows where x had 8 bits as well, and zeros where it had 16.
class Uncertain {
   public:
    Uncertain(const Tensor& logits, const Tensor& x, const Tensor& steps, const Tensor& norms, int64_t bits, int64_t split,
              int64_t count, int64_t lowered)
        : rows_(logits.size(0)), n_(logits.size(1)), k_(x.size(1)), bits_(bits), split_(split), lowered_(lowered) {
        check_writable_logits(logits);
        check_floats(x, 2, "x");
        STD_TORCH_CHECK(x.size(0) == rows_ && k_ > 0, "x must be (", rows_, ", k) with k > 0, got (", x.size(0), ", ", k_,
                        ")");
        check_range(split, 0, n_, "split");
        check_range(count, 1, MAX_NUMBERS, "count");
        check_range(lowered, 0, MAX_NUMBERS, "lowered");
        count_ = count + lowered;
        STD_TORCH_CHECK(bits == 8 || bits == 4, "bits must be 8 or 4, got ", bits);
        logits_ = {floats(logits), logits.stride(0)};
        x_ = {floats(x), x.stride(0)};
        step_ = contiguous_floats(steps, std::max(n_, steps.numel()), "steps");
        norm_ = contiguous_floats(norms, n_, "norms");
    }

    const float* x(int64_t row) const { return x_.data + row * x_.stride; }

    // exact(row, token) for each logit before `split` that may be among the `count` largest there, even where `lowered` of
    // them become smaller; it returns the logit.
    template <class Exact>
    std::vector<Rivals> first_part(const Exact& exact) const {
        std::vector<Rivals> rivals(rows_);
        each(0, split_, [&](int64_t i, const Uncertainties& of) {
            std::vector<float> found;
            of.exact(of.least(count_), [&](int64_t token) { found.push_back(exact(i, token)); });
            rivals[i] = rivals_of(found);
        });
        return rivals;
    }

    // The same from `split` on, against all of the row: few, unless the tokens of this part together may be more probable
    // than the first part's largest, by which Whisper chooses between timestamps and text. With 4 bits it is the whole part
    // where this choice is open.
    template <class Exact>
    void second_part(const std::vector<Rivals>& of_first, const Exact& exact) const {
        each(split_, n_, [&](int64_t i, const Uncertainties& of) {
            const float together = of.part.log_sum_exp();
            float least = of_first[i].least;
            if (together + of.largest_error + NEGLIGIBLE >= of_first[i].left) {
                const bool open = together - of.largest_error <= of_first[i].largest;
                least = bits_ == 4 && open ? SUPPRESSED : of.least(count_);
            }
            of.exact(least, [&](int64_t token) { exact(i, split_ + token); });
        });
    }

    // Those of the first part, whose largest logits are exact already.
    std::vector<Rivals> rivals() const {
        std::vector<Rivals> rivals(rows_);
        each(0, split_, [&](int64_t i, const Uncertainties& of) {
            std::vector<float> largest;
            for (const Candidate& candidate : of.part.top_k(count_)) largest.push_back(candidate.logit);
            rivals[i] = rivals_of(largest);
        });
        return rivals;
    }

   private:
    // A part of one row, and how far off its logits may be.
    struct Uncertainties {
        Part part;
        ErrorBound error;
        const float *step, *norm;
        float largest_error;

        // The least that one of the `count` largest may be; the largest float where all are suppressed.
        float least(int64_t count) const {
            float least = std::numeric_limits<float>::max();
            for (const auto& [logit, token] : part.top_k(count))
                least = std::min(least, logit - error(step[token], norm[token]));
            return least;
        }

        // found(token) for each that may be at least `least`; a suppressed one is never found.
        template <class Found>
        void exact(float least, const Found& found) const {
            part.at_least(std::max(least - largest_error, std::numeric_limits<float>::lowest()), [&](int64_t token) {
                if (part.logits[token] + error(step[token], norm[token]) >= least) found(token);
            });
        }
    };

    // run(row, its logits of [first, last)), for all rows.
    template <class Run>
    void each(int64_t first, int64_t last, const Run& run) const {
        if (rows_ == 0 || first == last) return;
        const Blocks blocks(logits_.data, rows_, logits_.stride, first, last);
        const float *step = step_ + first, *norm = norm_ + first;
        const float largest_step = kernels().max(step, last - first), largest_norm = kernels().max(norm, last - first);
        share_each(rows_, [&](int64_t i) {
            const ErrorBound error(x(i), k_, bits_);
            run(i, Uncertainties{blocks.row(i), error, step, norm, error(largest_step, largest_norm)});
        });
    }

    Rivals rivals_of(std::vector<float>& largest) const {
        const auto place = [&](int64_t i) {
            if (i >= static_cast<int64_t>(largest.size())) return SUPPRESSED;
            std::nth_element(largest.begin(), largest.begin() + i, largest.end(), std::greater<>());
            return largest[i];
        };
        return {place(0), place(lowered_), place(count_ - 1)};
    }

    int64_t rows_, n_, k_, bits_, split_, lowered_;
    int64_t count_;  // `lowered` included
    FloatRows logits_, x_;
    const float *step_, *norm_;
};

Number numbers_in(const Tensor& table) {
    switch (table.scalar_type()) {
        case ScalarType::Float: return Number::FLOAT32;
        case ScalarType::Half: return Number::FLOAT16;
        case ScalarType::BFloat16: return Number::BFLOAT16;
        default: STD_TORCH_CHECK(false, "the weight must be float32, float16 or bfloat16");
    }
}

// Computes logits again, in place, where they may be among the largest (see Uncertain), from the weight (n, k) itself in
// the numbers of its file, which need not be aligned. Where `file` is a descriptor and not -1, the weight's rows are read
// from there, the first at `offset` bytes, and not from its memory, which is their mapping. Returns false where the file
// does not have them.
bool rescore(Tensor logits, Tensor x, Tensor weight, Tensor steps, Tensor norms, int64_t bits, int64_t split, int64_t count,
             int64_t lowered, int64_t file, int64_t offset) {
    const Uncertain uncertain(logits, x, steps, norms, bits, split, count, lowered);
    const int64_t n = logits.size(1), k = x.size(1);
    STD_TORCH_CHECK(weight.is_cpu() && weight.dim() == 2 && weight.size(0) == n && weight.size(1) == k &&
                        (k == 1 || weight.stride(1) == 1),
                    "the weight must be (", n, ", ", k, ") on the CPU, contiguous in its last dimension");
    const Number numbers = numbers_in(weight);
    const int64_t number_bytes = numbers == Number::FLOAT32 ? 4 : 2;
    const auto exact = [&](int64_t row, int64_t token, const void* numbers_of_token) {
        float& logit = mutable_floats(logits)[row * logits.stride(0) + token];
        return logit = kernels().dot_stored(uncertain.x(row), numbers_of_token, numbers, k);
    };
    if (file == -1) {
        const auto* table = static_cast<const char*>(weight.data_ptr());
        const int64_t row_bytes = weight.stride(0) * number_bytes;
        const auto in_memory = [&](int64_t row, int64_t token) { return exact(row, token, table + token * row_bytes); };
        uncertain.second_part(uncertain.first_part(in_memory), in_memory);
        return true;
    }
    check_range(file, 0, std::numeric_limits<int>::max(), "the file");
    check_range(offset, 0, MAX_NUMBERS, "the offset");
    const FileRows rows(file, offset, k * number_bytes);
    std::atomic<bool> complete{true};
    const auto read = [&](int64_t row, int64_t token) {
        if (const void* found = rows(token)) return exact(row, token, found);
        complete = false;
        return SUPPRESSED;
    };
    uncertain.second_part(uncertain.first_part(read), read);
    return complete;
}

// The rows and the tokens of the logits of one part that `rescore` would compute again, for a caller that has the weight in
// another form: both (found,). The second part's depend on the first part's exact logits, which must be in place.
std::tuple<Tensor, Tensor> candidates(Tensor logits, Tensor x, Tensor steps, Tensor norms, int64_t bits, int64_t split,
                                      int64_t count, int64_t lowered, bool second_part) {
    const Uncertain uncertain(logits, x, steps, norms, bits, split, count, lowered);
    std::vector<std::vector<int64_t>> of_row(logits.size(0));
    const auto found = [&](int64_t row, int64_t token) {
        of_row[row].push_back(token);
        return SUPPRESSED;
    };
    if (second_part)
        uncertain.second_part(uncertain.rivals(), found);
    else
        uncertain.first_part(found);
    int64_t total = 0;
    for (const auto& tokens : of_row) total += static_cast<int64_t>(tokens.size());
    Tensor rows = make({total}, ScalarType::Long), tokens = make({total}, ScalarType::Long);
    auto *row = static_cast<int64_t*>(rows.data_ptr()), *token = static_cast<int64_t*>(tokens.data_ptr());
    for (size_t i = 0; i < of_row.size(); ++i) {
        row = std::fill_n(row, of_row[i].size(), static_cast<int64_t>(i));
        token = std::copy(of_row[i].begin(), of_row[i].end(), token);
    }
    return {rows, tokens};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("mask(Tensor(a!) logits, Tensor tokens, int[] spans) -> ()");
    m.def("prefer_last_part(Tensor(a!) logits, int split) -> ()");
    m.def("top_k(Tensor logits, int count) -> (Tensor, Tensor, Tensor)");
    m.def(
        "candidates(Tensor logits, Tensor x, Tensor steps, Tensor norms, int bits, int split, int count, int lowered, bool "
        "second_part) "
        "-> "
        "(Tensor, Tensor)");
    m.def(
        "rescore(Tensor(a!) logits, Tensor x, Tensor weight, Tensor steps, Tensor norms, int bits, int split, int count, "
        "int lowered, int file, int offset) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("mask", BOXED(&mask));
    m.impl("prefer_last_part", BOXED(&prefer_last_part));
    m.impl("top_k", BOXED(&top_k));
    m.impl("candidates", BOXED(&candidates));
    m.impl("rescore", BOXED(&rescore));
}

}  // namespace tilewhisper
