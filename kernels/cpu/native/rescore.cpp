// Exact logits where those from products of few bits leave open which tokens are the most probable.

#include <array>
#include <bitset>
#include <tuple>

#include "logit_blocks.h"
#include "stored_table.h"

namespace tilewhisper {
namespace {

// Nats by which all tokens of a part may together be below the most probable one of the other part before their errors show
// in the log-sum-exp, which beams add up: 0.7 % of the probability. With 0, texts of 2 in 60 clips with 5 beams changed.
constexpr float NEGLIGIBLE = 5;

// A bound of the error of logits from 8 or 4 bits, six times its standard deviation. x_k and w_k are off by up to half a
// step, evenly distributed, so that this is sqrt((|x| step of w)^2 + (|w| step of x)^2) / sqrt(12), with the root of the
// mean square of steps where they differ. Beside 4 bits each group of x has steps of its own; beside 8, x has 16 bits, whose
// errors do not count. Of 4 million logits of base with 4 bits, the errors were 0.955 times this deviation, and 5.2 times at
// most.
class ErrorBound {
   public:
    ErrorBound(const float* x, int64_t k) : of_weight_(6 * 6 / 12.0f * kernels().dot(x, x, k)) {
        float squares = 0;
        for (int64_t i = 0; i < k; i += GROUP) {
            const auto [min, max] = std::minmax_element(x + i, x + std::min(k, i + GROUP));
            const float step = std::max(*max, -*min) / LIMIT_8;
            squares += step * step;
        }
        of_x_ = 6 * 6 / 12.0f * squares / groups_of(k);
    }
    // Of a token whose row of the weight has this step and norm.
    float operator()(float step, float norm) const { return std::sqrt(of_weight_ * step * step + of_x_ * norm * norm); }

   private:
    float of_weight_, of_x_;
};

// A logit that must be exact.
struct Open {
    int64_t row, token;
};
using OpenLogits = std::vector<Open>;

// How a weight's rows were rounded to 8 or 4 bits: the steps of each, and their norms, or zeros where rows of x have 16
// bits.
struct Rounding {
    const float *steps, *norms;                  // (n,)
    const float *largest_steps, *largest_norms;  // of each block of rows
    int64_t bits;
};

std::vector<float> maxima_of_blocks(const float* numbers, int64_t n) {
    std::vector<float> maxima;
    for (int64_t i = 0; i < n; i += BLOCK_LOGITS)
        maxima.push_back(kernels().max(numbers + i, std::min(BLOCK_LOGITS, n - i)));
    return maxima;
}

// One part of all rows: its logits, how far off they may be, and which of them may be among the largest.
class PartBounds {
   public:
    // Of the columns from `first` on that `blocks` are of, with the rounding of their weights.
    PartBounds(Blocks blocks, int64_t first, const std::vector<ErrorBound>& errors, const Rounding& rounding)
        : blocks_(std::move(blocks)), first_(first), errors_(errors), rounding_(rounding) {}

    Part row(int64_t i) const { return blocks_.row(i); }

    // The most that a row's largest may be.
    float most(int64_t i) const {
        float most = SUPPRESSED;
        at_least(i, row(i).max(), [&](int64_t at) { most = std::max(most, row(i).logits[at] + error(i, at)); });
        return most;
    }

    // The least that one of a row's `count` largest may be; NONE where all are suppressed.
    float least(int64_t i, int64_t count) const {
        float least = NONE;
        for (const auto& [logit, at] : row(i).top_k(count)) least = std::min(least, logit - error(i, at));
        return least;
    }

    float largest_error(int64_t i) const {
        float largest = 0;
        for (int64_t block = 0; block < row(i).blocks(); ++block) largest = std::max(largest, error_of_block(i, block));
        return largest;
    }

    // exact(open, first) for each block, from column `first` on, that has logits which may be at least their row's `least`
    // and are not suppressed. Returns what was open, block by block.
    template <class Exact>
    std::vector<OpenLogits> open(const std::vector<float>& least, const Exact& exact) const {
        const auto rows = static_cast<int64_t>(least.size());
        std::vector<OpenLogits> blocks(rows ? row(0).blocks() : 0);
        share(blocks.size(), 8, [&](int64_t block, int64_t last) {
            for (; block < last; ++block) {
                OpenLogits& open = blocks[block];
                for (int64_t i = 0; i < rows; ++i)
                    at_least(i, block, least[i], [&](int64_t at) { open.push_back({i, first_ + at}); });
                if (!open.empty()) exact(open, first_ + block * BLOCK_LOGITS);
            }
        });
        return blocks;
    }

    static constexpr float NONE = std::numeric_limits<float>::infinity();  // no logit is at least this

   private:
    float error(int64_t i, int64_t at) const { return errors_[i](rounding_.steps[at], rounding_.norms[at]); }

    float error_of_block(int64_t i, int64_t block) const {
        return errors_[i](rounding_.largest_steps[block], rounding_.largest_norms[block]);
    }

    // found(at) for each of a row's logits that may be at least `least`; for a suppressed one never.
    template <class Found>
    void at_least(int64_t i, float least, const Found& found) const {
        for (int64_t block = 0; block < row(i).blocks(); ++block) at_least(i, block, least, found);
    }

    template <class Found>
    void at_least(int64_t i, int64_t block, float least, const Found& found) const {
        const float bound = std::max(least - error_of_block(i, block), std::numeric_limits<float>::lowest());
        row(i).at_least(bound, block, [&](int64_t at) {
            if (row(i).logits[at] + error(i, at) >= least) found(at);
        });
    }

    Blocks blocks_;
    int64_t first_;
    const std::vector<ErrorBound>& errors_;
    Rounding rounding_;
};

// What of a row's logits before `split` decides about those after; -inf where there are too few.
struct Rivals {
    float largest = SUPPRESSED;
    float left = SUPPRESSED;   // the largest that is certain to be left where `lowered` of them become smaller
    float least = SUPPRESSED;  // that may be among the `count` largest then
};

// Logits (rows, n) that are x (rows, k) times a rounded weight (n, k).
class Uncertain {
   public:
    Uncertain(const Tensor& logits, const Tensor& x, const Tensor& steps, const Tensor& norms, const Tensor& largest_steps,
              const Tensor& largest_norms, int64_t bits, int64_t split, int64_t count, int64_t lowered)
        : rows_(logits.size(0)), n_(logits.size(1)), split_(split), lowered_(lowered) {
        check_writable_logits(logits);
        check_floats(x, 2, "x");
        const int64_t k = x.size(1);
        STD_TORCH_CHECK(x.size(0) == rows_ && k > 0, "x must be (", rows_, ", k) with k > 0, got (", x.size(0), ", ", k,
                        ")");
        check_range(split, 0, n_, "split");
        check_range(count, 1, MAX_NUMBERS, "count");
        check_range(lowered, 0, MAX_NUMBERS, "lowered");
        count_ = count + lowered;
        STD_TORCH_CHECK(bits == 8 || bits == 4, "bits must be 8 or 4, got ", bits);
        logits_ = {floats(logits), logits.stride(0)};
        x_ = {floats(x), x.stride(0)};
        const int64_t blocks = (n_ + BLOCK_LOGITS - 1) / BLOCK_LOGITS;
        rounding_ = {contiguous_floats(steps, n_, "steps"), contiguous_floats(norms, n_, "norms"),
                     contiguous_floats(largest_steps, blocks, "largest_steps"),
                     contiguous_floats(largest_norms, blocks, "largest_norms"), bits};
        second_steps_ = maxima_of_blocks(rounding_.steps + split_, n_ - split_);
        second_norms_ = maxima_of_blocks(rounding_.norms + split_, n_ - split_);
        for (int64_t i = 0; i < rows_; ++i) errors_.emplace_back(this->x(i), k);
    }

    const float* x(int64_t row) const { return x_.data + row * x_.stride; }

    // exact(open, first) for logits of one block, from column `first` on, that may be among the `count` largest of their
    // row, even where `lowered` of them become smaller: it sets them in place. First for those before `split`, then for the
    // rest: few, unless the tokens from there on together may be more probable than the largest before, by which Whisper
    // chooses between timestamps and text. Where they are so for certain, those before are of no use.
    template <class Exact>
    void compute(const Exact& exact) const {
        second_part(rivals_of(first_part(exact)), exact);
    }

    template <class Exact>
    std::vector<OpenLogits> first_part(const Exact& exact) const {
        const PartBounds first = first_bounds(), second = second_bounds();
        std::vector<float> least(rows_);
        share_each(rows_, [&](int64_t i) {
            const float together = second.row(i).log_sum_exp() - second.largest_error(i);
            const bool of_use = lowered_ || !(together > first.row(i).max()) || !(together > first.most(i));
            least[i] = of_use ? first.least(i, count_) : PartBounds::NONE;
        });
        return first.open(least, exact);
    }

    // With 4 bits it is the whole part where the choice is open.
    template <class Exact>
    std::vector<OpenLogits> second_part(const std::vector<Rivals>& of_first, const Exact& exact) const {
        const PartBounds second = second_bounds();
        std::vector<float> least(rows_);
        share_each(rows_, [&](int64_t i) {
            const float together = second.row(i).log_sum_exp(), error = second.largest_error(i);
            const auto& [largest, left, least_of_first] = of_first[i];
            const bool open = together + error >= left && together - error <= largest;
            if (open && rounding_.bits == 4)
                least[i] = SUPPRESSED;
            else if (together + error + NEGLIGIBLE >= left)
                least[i] = second.least(i, count_);
            else
                least[i] = least_of_first;
        });
        return second.open(least, exact);
    }

    // From the exact logits of the first part.
    std::vector<Rivals> rivals_of(const std::vector<OpenLogits>& first_part) const {
        std::vector<std::vector<float>> largest(rows_);
        for (const OpenLogits& block : first_part)
            for (const auto& [row, token] : block) largest[row].push_back(logits_.data[row * logits_.stride + token]);
        return rivals_of(largest);
    }

    // Where the largest of the first part are in place already.
    std::vector<Rivals> rivals() const {
        const Blocks blocks(logits_.data, rows_, logits_.stride, 0, split_);
        std::vector<std::vector<float>> largest(rows_);
        for (int64_t i = 0; i < rows_; ++i)
            for (const Candidate& candidate : blocks.row(i).top_k(count_)) largest[i].push_back(candidate.logit);
        return rivals_of(largest);
    }

   private:
    PartBounds first_bounds() const {
        return {Blocks(logits_.data, rows_, logits_.stride, 0, split_), 0, errors_, rounding_};
    }

    PartBounds second_bounds() const {
        const Rounding own{rounding_.steps + split_, rounding_.norms + split_, second_steps_.data(), second_norms_.data(),
                           rounding_.bits};
        return {Blocks(logits_.data, rows_, logits_.stride, split_, n_), split_, errors_, own};
    }

    std::vector<Rivals> rivals_of(std::vector<std::vector<float>>& largest) const {
        std::vector<Rivals> rivals;
        for (std::vector<float>& of_row : largest) {
            const auto place = [&](int64_t i) {
                if (i >= static_cast<int64_t>(of_row.size())) return SUPPRESSED;
                std::nth_element(of_row.begin(), of_row.begin() + i, of_row.end(), std::greater<>());
                return of_row[i];
            };
            rivals.push_back({place(0), place(lowered_), place(count_ - 1)});
        }
        return rivals;
    }

    int64_t rows_, n_, split_, lowered_;
    int64_t count_;  // `lowered` included
    FloatRows logits_, x_;
    Rounding rounding_;
    std::vector<float> second_steps_, second_norms_;  // the largest of the second part's blocks
    std::vector<ErrorBound> errors_;                  // of each row
};

// Where the rows of the open logits of one block are, by their places in it; the others are not set.
using RowsOfBlock = std::array<const char*, BLOCK_LOGITS>;

// Finds the rows of open logits, or reads them into this thread's memory: each token's once, whichever rows of logits need
// it, and successive ones together. Timestamps are often open all at once.
bool find_rows(const StoredTable& table, const OpenLogits& open, int64_t first, RowsOfBlock& rows) {
    std::bitset<BLOCK_LOGITS> needed;
    for (const auto& [row, token] : open) needed.set(token - first);
    auto* memory = static_cast<char*>(scratch(needed.count() * table.row_bytes()));
    for (int64_t from = 0, end; from < BLOCK_LOGITS; from = end + 1) {
        end = from;
        while (end < BLOCK_LOGITS && needed[end]) ++end;
        if (end == from) continue;
        const char* found = table.rows(first + from, end - from, memory);
        if (!found) return false;
        for (int64_t i = from; i < end; ++i) rows[i] = found + (i - from) * table.stride();
        memory += (end - from) * table.row_bytes();
    }
    return true;
}

// Computes logits again, in place, where they may be among the largest (see Uncertain), from the weight (n, k) itself, which
// is read as StoredTable says. Returns false where the file does not have its rows.
bool rescore(Tensor logits, Tensor x, Tensor weight, Tensor steps, Tensor norms, Tensor largest_steps, Tensor largest_norms,
             int64_t bits, int64_t split, int64_t count, int64_t lowered, int64_t file, int64_t offset) {
    const Uncertain uncertain(logits, x, steps, norms, largest_steps, largest_norms, bits, split, count, lowered);
    const StoredTable table(weight, file, offset);
    STD_TORCH_CHECK(table.n() == logits.size(1) && table.k() == x.size(1), "the weight must be (", logits.size(1), ", ",
                    x.size(1), "), got (", table.n(), ", ", table.k(), ")");
    std::atomic<bool> complete{true};
    uncertain.compute([&](const OpenLogits& block, int64_t first) {
        RowsOfBlock rows;
        if (!find_rows(table, block, first, rows))
            complete = false;
        else
            for (const auto& [row, token] : block)
                mutable_floats(logits)[row * logits.stride(0) + token] =
                    kernels().dot_stored(uncertain.x(row), rows[token - first], table.numbers(), table.k());
    });
    return complete;
}

// The largest number of each block of `numbers` (n,).
Tensor block_maxima(Tensor numbers) {
    const std::vector<float> maxima =
        maxima_of_blocks(contiguous_floats(numbers, numbers.numel(), "numbers"), numbers.numel());
    Tensor result = make({static_cast<int64_t>(maxima.size())});
    std::copy(maxima.begin(), maxima.end(), mutable_floats(result));
    return result;
}

// The rows and the tokens of the logits of one part that `rescore` would compute again, for a caller that has the weight in
// another form: both (found,). The second part's depend on the first part's exact logits, which must be in place.
std::tuple<Tensor, Tensor> candidates(Tensor logits, Tensor x, Tensor steps, Tensor norms, Tensor largest_steps,
                                      Tensor largest_norms, int64_t bits, int64_t split, int64_t count, int64_t lowered,
                                      bool second_part) {
    const Uncertain uncertain(logits, x, steps, norms, largest_steps, largest_norms, bits, split, count, lowered);
    const auto nothing = [](const OpenLogits&, int64_t) {};
    const std::vector<OpenLogits> blocks =
        second_part ? uncertain.second_part(uncertain.rivals(), nothing) : uncertain.first_part(nothing);
    int64_t total = 0;
    for (const OpenLogits& block : blocks) total += static_cast<int64_t>(block.size());
    Tensor rows = make({total}, ScalarType::Long), tokens = make({total}, ScalarType::Long);
    auto *row = static_cast<int64_t*>(rows.data_ptr()), *token = static_cast<int64_t*>(tokens.data_ptr());
    for (const OpenLogits& block : blocks)
        for (const Open& open : block) *row++ = open.row, *token++ = open.token;
    return {rows, tokens};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("block_maxima(Tensor numbers) -> Tensor");
    m.def(
        "candidates(Tensor logits, Tensor x, Tensor steps, Tensor norms, Tensor largest_steps, Tensor largest_norms, "
        "int bits, int split, int count, int lowered, bool second_part) -> (Tensor, Tensor)");
    m.def(
        "rescore(Tensor(a!) logits, Tensor x, Tensor weight, Tensor steps, Tensor norms, Tensor largest_steps, Tensor "
        "largest_norms, int bits, int split, int count, int lowered, int file, int offset) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("block_maxima", BOXED(&block_maxima));
    m.impl("candidates", BOXED(&candidates));
    m.impl("rescore", BOXED(&rescore));
}

}  // namespace tilewhisper
