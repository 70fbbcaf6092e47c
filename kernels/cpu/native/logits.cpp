// Operators over a decode step's logits: masks, Whisper's choice between timestamps and text, top-k with the log-sum-exp.

#include <tuple>

#include "logit_blocks.h"

namespace tilewhisper {
namespace {

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

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("mask(Tensor(a!) logits, Tensor tokens, int[] spans) -> ()");
    m.def("prefer_last_part(Tensor(a!) logits, int split) -> ()");
    m.def("top_k(Tensor logits, int count) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("mask", BOXED(&mask));
    m.impl("prefer_last_part", BOXED(&prefer_last_part));
    m.impl("top_k", BOXED(&top_k));
}

}  // namespace tilewhisper
