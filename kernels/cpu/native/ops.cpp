// Linear layers as torch operators, on torch's own threads.
//
// x is float32 with a contiguous last dimension; results are fresh and contiguous. Bits do not depend on the number of
// threads: work is divided by rows or columns, never along a sum.

#include "ops.h"

#include <cmath>
#include <tuple>

#include "feed_forward.h"
#include "packed.h"
#include "row_parts.h"

namespace tilewhisper {
namespace {

// ---------------------------------------------------------------- packing

// Quantises each row of a weight (n, k) to 16-bit numbers in `steps`, zeros up to `length` and up to whole panels; writes
// its scale, and passes the numbers to `place(column, numbers)`.
template <class Place>
void pack(const Tensor& weight, int64_t length, Steps steps, float* scale, const Place& place) {
    const int64_t n = weight.size(0), k = weight.size(1);
    share(panels_of(n), 16, [&](int64_t first, int64_t last) {
        auto* row = static_cast<int16_t*>(scratch(length * 2));
        for (int64_t column = first * PANEL; column < last * PANEL; ++column) {
            std::fill_n(row, length, int16_t{0});
            scale[column] =
                column < n ? kernels().quantize_row(floats(weight) + column * weight.stride(0), k, steps, row) : 0;
            place(column, row);
        }
    });
}

void check_weight(const Tensor& weight) {
    check_floats(weight, 2, "weight");
    check_range(weight.size(0), 1, MAX_SIZE, "the weight's number of rows");
    check_range(weight.size(1), 1, MAX_SIZE, "the weight's number of columns");
}

// A weight (n, k) as panels of pairs of 16 or 8 bits, and a scale for each row.
std::tuple<Tensor, Tensor> pack_weight(Tensor weight, int64_t bits) {
    check_weight(weight);
    STD_TORCH_CHECK(bits == 16 || bits == 8, "bits must be 16 or 8, got ", bits);
    const int64_t n = weight.size(0), count = pairs_of(weight.size(1));
    Tensor panels =
        make_weight(panels_of(n) * count * PANEL * 2, bits == 16 ? ScalarType::Short : ScalarType::Char, bits / 8);
    Tensor scales = make({panels_of(n) * PANEL});
    const auto write = [&](auto* to) {
        pack(weight, count * 2, bits == 16 ? PAIRS_STEPS : BYTES_STEPS, mutable_floats(scales),
             [&](int64_t column, const int16_t* row) {
                 auto* at = to + column / PANEL * count * PANEL * 2 + column % PANEL * 2;
                 for (int64_t i = 0; i < count * 2; ++i)
                     at[i / 2 * PANEL * 2 + i % 2] = static_cast<std::remove_reference_t<decltype(*to)>>(row[i]);
             });
    };
    if (bits == 16)
        write(static_cast<int16_t*>(panels.data_ptr()));
    else
        write(static_cast<int8_t*>(panels.data_ptr()));
    return {panels, scales};
}

// A weight (n, k) as panels of quads, a scale for each row, and the sum of the values that a row's entries stand for.
std::tuple<Tensor, Tensor, Tensor> pack_quads(Tensor weight) {
    check_weight(weight);
    const int64_t n = weight.size(0), count = words_of(weight.size(1), Layout::QUADS);
    Tensor panels = make_weight(panels_of(n) * count * PANEL * 4, ScalarType::Char, 1);
    Tensor scales = make({panels_of(n) * PANEL}), sums = make({panels_of(n) * PANEL});
    float *scale = mutable_floats(scales), *sum = mutable_floats(sums);
    auto* to = static_cast<int8_t*>(panels.data_ptr());
    pack(weight, count * 4, BYTES_STEPS, scale, [&](int64_t column, const int16_t* row) {
        int8_t* at = to + column / PANEL * count * PANEL * 4 + column % PANEL * 4;
        int64_t total = 0;
        for (int64_t i = 0; i < count * 4; ++i) {
            at[i / 4 * PANEL * 4 + i % 4] = static_cast<int8_t>(row[i]);
            total += row[i];
        }
        sum[column] = static_cast<float>(total) * scale[column];
    });
    return {panels, scales, sums};
}

// Packs 32 numbers by ggml's rule for q4_0: the one of largest magnitude becomes -8, the others are rounded to multiples of
// an eighth of it, up to 7. Numbers that were dequantised from q4_0 therefore become the same halves and the same scale.
struct PackedGroup {
    uint8_t halves[GROUP];
    torch::headeronly::Half scale;
    float squares;  // of the errors
};

PackedGroup packed_group(const float* x, int64_t count) {
    float most = 0, poison = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (std::fabs(x[i]) > std::fabs(most)) most = x[i];
        poison += x[i] * 0;
    }
    PackedGroup packed{{}, most / -NIBBLE_ZERO + poison, 0};
    const float scale = packed.scale, factor = std::isfinite(scale) && scale != 0 ? 1 / scale : 0;
    for (int64_t i = 0; i < GROUP; ++i) {
        const float number = i < count ? std::clamp(x[i] * factor + NIBBLE_ZERO, 0.0f, 15.0f) : NIBBLE_ZERO;
        packed.halves[i] = factor ? static_cast<uint8_t>(number + 0.5f) : NIBBLE_ZERO;
        const float error = i < count ? x[i] - (packed.halves[i] - NIBBLE_ZERO) * scale : 0;
        packed.squares += error * error;
    }
    return packed;
}

// A weight (n, k) as panels of nibbles, their scales (see panels.h), and the norm of each row's error (n,). A product of low
// rank is subtracted before: `parts` (n, rank) times `shared` (rank, k).
std::tuple<Tensor, Tensor, Tensor> pack_nibbles(Tensor weight, std::optional<Tensor> parts, std::optional<Tensor> shared) {
    check_weight(weight);
    const int64_t n = weight.size(0), k = weight.size(1), groups = groups_of(k);
    STD_TORCH_CHECK(parts.has_value() == shared.has_value(), "a product of low rank must have both sides, got only one");
    if (shared) check_floats(*shared, 2, "shared");
    const int64_t rank = shared ? shared->size(0) : 0;
    const float* left = contiguous_or_null(parts, numbers_of({n, rank}, "parts"), "parts");
    const float* right = contiguous_or_null(shared, numbers_of({rank, k}, "shared"), "shared");
    Tensor panels = make_weight(panels_of(n) * groups * GROUP_BYTES, ScalarType::Byte, 1);
    Tensor scales = make({panels_of(n) * groups * PANEL}, ScalarType::Half), errors = make({n});
    share(panels_of(n), 16, [&](int64_t first, int64_t last) {
        std::vector<float> row(k);
        for (int64_t column = first * PANEL; column < last * PANEL; ++column) {
            if (column < n) std::copy_n(floats(weight) + column * weight.stride(0), k, row.begin());
            for (int64_t t = 0; column < n && t < rank; ++t)
                for (int64_t i = 0; i < k; ++i) row[i] -= left[column * rank + t] * right[t * k + i];
            float squares = 0;
            for (int64_t group = 0; group < groups; ++group) {
                const int64_t at = (column / PANEL * groups + group) * PANEL;
                const PackedGroup packed =
                    packed_group(row.data() + group * GROUP, column < n ? std::min(GROUP, k - group * GROUP) : 0);
                auto* to = static_cast<uint8_t*>(panels.data_ptr()) + at * GROUP / 2 + column % PANEL * 4;
                for (int64_t i = 0; i < GROUP / 2; ++i)
                    to[i / 4 * PANEL * 4 + i % 4] = packed.halves[i] | packed.halves[i + GROUP / 2] << 4;
                static_cast<torch::headeronly::Half*>(scales.data_ptr())[at + column % PANEL] = packed.scale;
                squares += packed.squares;
            }
            if (column < n) mutable_floats(errors)[column] = std::sqrt(squares);
        }
    });
    return {panels, scales, errors};
}

// ---------------------------------------------------------------- linear layers

// Rows [first, last) of x (batch, m, k) in the words that a weight takes.
WordRows quantized(const Tensor& x, int64_t first, int64_t last, Norm norm, const Weight& weight, const Workspace& at) {
    const int64_t m = x.size(1);
    const WordRows to = at.words(weight.layout);
    for (int64_t row = first; row < last;) {  // as far as rows are evenly spaced
        const int64_t upto = std::min(last, (row / m + 1) * m), done = row - first;
        kernels().quantize({floats(x) + row / m * x.stride(0) + row % m * x.stride(1), x.stride(1)}, upto - row, weight.k,
                           norm, weight.layout, to.from(done), at.normed());
        row = upto;
    }
    return to;
}

// Layer norm of x (batch, m, k), if there is one, times a packed weight of n columns, + bias, GELU, + residual, which is
// contiguous: (batch, m, n). A product of low rank may be added: x times `shared` (rank, k), transposed, times `parts`
// (rank, n up to whole panels).
Tensor linear(Tensor x, Tensor panels, Tensor scales, std::optional<Tensor> sums, std::optional<Tensor> bias, int64_t n,
              bool gelu, std::optional<Tensor> residual, std::optional<Tensor> norm_weight, std::optional<Tensor> norm_bias,
              double eps, std::optional<Tensor> shared, std::optional<Tensor> parts) {
    check_floats(x, 3, "x");
    const int64_t batch = x.size(0), m = x.size(1), k = x.size(2), rows = batch * m;
    const Weight weight = weight_of(panels, scales, sums, k, n);
    const Norm norm = norm_of(norm_weight, norm_bias, eps, k);
    std::vector<float> left;
    const Epilogue then{contiguous_or_null(bias, panels_of(n) * PANEL, "bias"), gelu,
                        contiguous_or_null(residual, numbers_of({rows, n}, "the result"), "residual"),
                        low_rank_of(x, shared, parts, n, left)};
    Tensor out = make({batch, m, n});
    if (rows == 0) return out;
    float* to = mutable_floats(out);
    const Kernels& run = kernels();
    const auto words = [&](int64_t first, int64_t last) {
        auto* memory = static_cast<char*>(scratch(Workspace::bytes(last - first, k)));
        return quantized(x, first, last, norm, weight, Workspace(memory, last - first, k));
    };
    // With few rows divide the columns, so that the weight is read once: 16 rows of base's LM head 3.8 -> 2.7 ms.
    if (rows <= 4 * run.block) {
        const WordRows all = words(0, rows);
        share(panels_of(n), 16, [&](int64_t first, int64_t last) { run.product(all, rows, weight, first, last, then, to); });
        return out;
    }
    share_each(RowParts(rows, 96), [&](int64_t first, int64_t last) {
        Epilogue here = then;
        if (here.residual) here.residual += first * n;
        here.more = here.more.at(first, 0);
        run.product(words(first, last), last - first, weight, 0, panels_of(n), here, to + first * n);
    });
    return out;
}

// The layer norm of x (rows, k).
Tensor layer_norm(Tensor x, Tensor weight, Tensor bias, double eps) {
    check_floats(x, 2, "x");
    const int64_t rows = x.size(0), k = x.size(1);
    const Norm norm = norm_of(weight, bias, eps, k);
    Tensor out = make({rows, k});
    share(rows, 16, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
            kernels().layer_norm(floats(x) + i * x.stride(0), k, norm.weight, norm.bias, norm.eps,
                                 mutable_floats(out) + i * k);
    });
    return out;
}

// x + fc2(GELU(fc1(layer norm of x))) of contiguous x (batch, m, k), where fc1 has `hidden` columns and fc2 k.
Tensor feed_forward(Tensor x, Tensor norm_weight, Tensor norm_bias, double eps, Tensor panels1, Tensor scales1,
                    std::optional<Tensor> sums1, std::optional<Tensor> bias1, int64_t hidden, Tensor panels2, Tensor scales2,
                    std::optional<Tensor> sums2, std::optional<Tensor> bias2) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
    const int64_t batch = x.size(0), m = x.size(1), k = x.size(2), rows = batch * m;
    const Weight fc1 = weight_of(panels1, scales1, sums1, k, hidden), fc2 = weight_of(panels2, scales2, sums2, hidden, k);
    const Norm norm = norm_of(norm_weight, norm_bias, eps, k);
    const float* biases[] = {contiguous_or_null(bias1, panels_of(hidden) * PANEL, "fc1's bias"),
                             contiguous_or_null(bias2, panels_of(k) * PANEL, "fc2's bias")};
    Tensor out = make({batch, m, k});
    if (rows == 0) return out;
    share_each(RowParts(rows, FEED_FORWARD_ROWS), [&](int64_t first, int64_t last) {
        add_feed_forward(floats(x) + first * k, last - first, norm, fc1, biases[0], fc2, biases[1],
                         mutable_floats(out) + first * k);
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY(tilewhisper_native, m) {
    m.def("pack_weight(Tensor weight, int bits) -> (Tensor, Tensor)");
    m.def("pack_quads(Tensor weight) -> (Tensor, Tensor, Tensor)");
    m.def("pack_nibbles(Tensor weight, Tensor? parts=None, Tensor? shared=None) -> (Tensor, Tensor, Tensor)");
    m.def(
        "linear(Tensor x, Tensor panels, Tensor scales, Tensor? sums, Tensor? bias, int n, bool gelu, Tensor? residual, "
        "Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor? shared=None, Tensor? parts=None) -> Tensor");
    m.def("layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor");
    m.def(
        "feed_forward(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor panels1, Tensor scales1, Tensor? "
        "sums1, Tensor? bias1, int hidden, Tensor panels2, Tensor scales2, Tensor? sums2, Tensor? bias2) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("pack_weight", BOXED(&pack_weight));
    m.impl("pack_quads", BOXED(&pack_quads));
    m.impl("pack_nibbles", BOXED(&pack_nibbles));
    m.impl("linear", BOXED(&linear));
    m.impl("layer_norm", BOXED(&layer_norm));
    m.impl("feed_forward", BOXED(&feed_forward));
}

}  // namespace tilewhisper
