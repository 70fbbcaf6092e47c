// The kernels as torch operators, on torch's own threads. Everything a caller could get wrong is checked here.
//
// x is float32 with its last dimension dense; results are fresh and dense. Bits do not depend on the number of threads:
// work is shared out by rows or columns, never by the length of a sum.

#include "ops.h"

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

namespace tilewhisper {
namespace {

// ---------------------------------------------------------------- which kernels

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
#ifdef TILEWHISPER_AVX512
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        usable.push_back(&avx512_kernels);
#endif
#ifdef TILEWHISPER_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) usable.push_back(&avx2_kernels);
#endif
    usable.push_back(&portable_kernels);
    return usable;
}

// Before anything runs: which kernels `kernels()` gives.
const bool best_is_chosen = (chosen.store(usable_kernels().front()), true);

// Names of the instruction sets this processor can run, best first, joined by spaces.
std::string instruction_sets() {
    std::string names;
    for (const Kernels* k : usable_kernels()) names.append(names.empty() ? "" : " ").append(k->name);
    return names;
}

std::string instruction_set() { return kernels().name; }

void use_instruction_set(std::string name) {
    for (const Kernels* k : usable_kernels())
        if (name == k->name) return chosen.store(k);
    STD_TORCH_CHECK(false, "no instruction set '", name, "' here; there is ", instruction_sets());
}

// ---------------------------------------------------------------- linear layers

// Writes each column of a weight (n, k), as 16-bit numbers in `steps`, to where `place(column, i)` says, and its
// scale; zeros up to whole panels and words.
template <class Place>
void pack(const Tensor& weight, int64_t length, Steps steps, float* scale, const Place& place) {
    const int64_t n = weight.size(0), k = weight.size(1);
    share(panels_of(n), 16, [&](int64_t first, int64_t last) {
        auto* row = static_cast<int16_t*>(scratch(length * 2));
        for (int64_t column = first * PANEL; column < last * PANEL; ++column) {
            std::fill_n(row, length, int16_t{0});
            scale[column] = column < n ? kernels().quantize_row(floats(weight) + column * weight.stride(0), k, steps, row) : 0;
            place(column, row);
        }
    });
}

void check_weight(const Tensor& weight) {
    check_floats(weight, 2, "weight");
    STD_TORCH_CHECK(weight.size(0) > 0 && weight.size(1) > 0, "weight must not be empty");
}

// A weight (n, k) as panels of pairs of `bits` = 16 or 8, and a scale a row.
std::tuple<Tensor, Tensor> pack_weight(Tensor weight, int64_t bits) {
    check_weight(weight);
    STD_TORCH_CHECK(bits == 16 || bits == 8, "bits must be 16 or 8");
    const int64_t n = weight.size(0), count = pairs_of(weight.size(1));
    Tensor panels =
        make_lasting(panels_of(n) * count * PANEL * 2, bits == 16 ? ScalarType::Short : ScalarType::Char, bits / 8);
    Tensor scales = make({panels_of(n) * PANEL});
    const auto write = [&](auto* to) {
        pack(weight, count * 2, bits == 16 ? PAIRS_STEPS : BYTES_STEPS, static_cast<float*>(scales.data_ptr()),
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

// A weight (n, k) as panels of quads, a scale a row, and the sum of what a row's entries stand for.
std::tuple<Tensor, Tensor, Tensor> pack_quads(Tensor weight) {
    check_weight(weight);
    const int64_t n = weight.size(0), count = words_of(weight.size(1), Layout::QUADS);
    Tensor panels = make_lasting(panels_of(n) * count * PANEL * 4, ScalarType::Char, 1);
    Tensor scales = make({panels_of(n) * PANEL}), sums = make({panels_of(n) * PANEL});
    auto *scale = static_cast<float*>(scales.data_ptr()), *sum = static_cast<float*>(sums.data_ptr());
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

// Rows of x that a thread takes at a time: up to `most`, which use a panel well while it is in the cache, and so many that
// every thread takes as often as the others. Of 661 rows two threads would else take 4 and 3 times 96.
int64_t rows_at_a_time(int64_t rows, int64_t most) {
    const int64_t threads = torch::stable::get_num_threads(), times = (rows + threads * most - 1) / (threads * most);
    const int64_t each = (rows + times * threads - 1) / (times * threads);
    return (each + MAX_BLOCK - 1) / MAX_BLOCK * MAX_BLOCK;
}

// Memory for some rows of words of any of `weights`, and for one row's norm.
class Workspace {
   public:
    static int64_t bytes(int64_t rows, int64_t k) { return rows * stride_of(k) + (rows * 2 + k) * 4 + 64; }
    Workspace(char* memory, int64_t rows, int64_t k) {
        words_ = {memory, stride_of(k), reinterpret_cast<float*>(memory + rows * stride_of(k)), nullptr, {}};
        words_.offset = words_.scale + rows;
        normed_ = words_.offset + rows;
    }
    WordRows words(Layout layout) const {
        WordRows words = words_;
        words.steps = steps_of(layout, false);
        return words;
    }
    float* normed() const { return normed_; }

   private:
    // Of 16-bit numbers, the longer; not a power of two, so that rows do not share cache sets.
    static int64_t stride_of(int64_t k) { return words_of(k, Layout::PAIRS) * 4 + 64; }

    WordRows words_;
    float* normed_;
};

// Rows [first, last) of x (batch, m, k) in the words that a weight takes.
WordRows quantized(const Tensor& x, int64_t first, int64_t last, Norm norm, const Weight& weight, const Workspace& at) {
    const int64_t m = x.size(1);
    const WordRows to = at.words(weight.layout);
    for (int64_t row = first; row < last;) {  // as far as rows are evenly spaced
        const int64_t upto = std::min(last, (row / m + 1) * m), done = row - first;
        kernels().quantize({floats(x) + row / m * x.stride(0) + row % m * x.stride(1), x.stride(1)}, upto - row, weight.k, norm,
                           weight.layout, to.from(done), at.normed());
        row = upto;
    }
    return to;
}

Norm norm_of(const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps, int64_t k) {
    STD_TORCH_CHECK(weight.has_value() == bias.has_value(), "a norm has a weight and a bias");
    return {dense_or_null(weight, k, "the norm's weight"), dense_or_null(bias, k, "the norm's bias"), static_cast<float>(eps)};
}

// Layer norm of x (batch, m, k), if there is one, times a packed weight of n columns, + bias, GELU, + residual: (batch, m, n).
Tensor linear(Tensor x, Tensor panels, Tensor scales, std::optional<Tensor> sums, std::optional<Tensor> bias, int64_t n,
              bool gelu, std::optional<Tensor> residual, std::optional<Tensor> norm_weight, std::optional<Tensor> norm_bias,
              double eps) {
    check_floats(x, 3, "x");
    const int64_t batch = x.size(0), m = x.size(1), k = x.size(2), rows = batch * m;
    const Weight weight = weight_of(panels, scales, sums, k, n);
    const Norm norm = norm_of(norm_weight, norm_bias, eps, k);
    const Epilogue then{dense_or_null(bias, panels_of(n) * PANEL, "bias"), gelu,
                        dense_or_null(residual, rows * n, "residual")};
    Tensor out = make({batch, m, n});
    auto* to = static_cast<float*>(out.data_ptr());
    const Kernels& run = kernels();
    const auto words = [&](int64_t first, int64_t last) {
        auto* memory = static_cast<char*>(scratch(Workspace::bytes(last - first, k)));
        return quantized(x, first, last, norm, weight, Workspace(memory, last - first, k));
    };
    if (rows <= 4 * run.block) {  // share the columns, so that the weight is read once: 16 rows of base's vocabulary 3.8 -> 2.7 ms
        const WordRows all = words(0, rows);
        share(panels_of(n), 16, [&](int64_t first, int64_t last) { run.product(all, rows, weight, first, last, then, to); });
        return out;
    }
    share(rows, rows_at_a_time(rows, 96), [&](int64_t first, int64_t last) {
        Epilogue here = then;
        if (here.residual) here.residual += first * n;
        run.product(words(first, last), last - first, weight, 0, panels_of(n), here, to + first * n);
    });
    return out;
}

// x + fc2(GELU(fc1(layer norm of x))) of dense x (batch, m, k), where fc1 has `hidden` columns and fc2 k. What lies between
// the two, and takes four times x's memory, stays in the second cache: 48 rows of it at a time.
Tensor feed_forward(Tensor x, Tensor norm_weight, Tensor norm_bias, double eps, Tensor panels1, Tensor scales1,
                    std::optional<Tensor> sums1, std::optional<Tensor> bias1, int64_t hidden, Tensor panels2, Tensor scales2,
                    std::optional<Tensor> sums2, std::optional<Tensor> bias2) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.is_contiguous(), "x must be dense");
    const int64_t batch = x.size(0), m = x.size(1), k = x.size(2), rows = batch * m;
    const Weight fc1 = weight_of(panels1, scales1, sums1, k, hidden), fc2 = weight_of(panels2, scales2, sums2, hidden, k);
    const Norm norm = norm_of(norm_weight, norm_bias, eps, k);
    const float* biases[] = {dense_or_null(bias1, panels_of(hidden) * PANEL, "fc1's bias"),
                             dense_or_null(bias2, panels_of(k) * PANEL, "fc2's bias")};
    Tensor out = make({batch, m, k});
    auto* to = static_cast<float*>(out.data_ptr());
    const Kernels& run = kernels();
    share(rows, rows_at_a_time(rows, 48), [&](int64_t first, int64_t last) {
        const int64_t count = last - first, between = (count * hidden * 4 + 63) / 64 * 64, widest = std::max(k, hidden);
        auto* memory = static_cast<char*>(scratch(between + Workspace::bytes(count, widest)));
        auto* values = reinterpret_cast<float*>(memory);
        const Workspace at(memory + between, count, widest);
        run.product(quantized(x, first, last, norm, fc1, at), count, fc1, 0, panels_of(hidden), {biases[0], true, nullptr}, values);
        run.quantize({values, hidden}, count, hidden, {}, fc2.layout, at.words(fc2.layout), nullptr);
        run.product(at.words(fc2.layout), count, fc2, 0, panels_of(k), {biases[1], false, floats(x) + first * k}, to + first * k);
    });
    return out;
}

// ---------------------------------------------------------------- attention

struct Heads {
    int64_t batch, heads, n, head_dim;
    int64_t all() const { return batch * heads; }
};

Heads checked(Heads h, const char* name) {
    STD_TORCH_CHECK(h.head_dim % PANEL == 0 && h.head_dim > 0 && h.head_dim <= MAX_HEAD_DIM, name,
                    "'s head size must be a multiple of 16 up to 256, not ", h.head_dim);
    STD_TORCH_CHECK(h.n > 0 && h.n < 1 << 20, name, " must have between 1 and 2^20 positions");
    return h;
}

Heads heads_of(const Tensor& t, const char* name) {
    check_floats(t, 4, name);
    return checked({t.size(0), t.size(1), t.size(2), t.size(3)}, name);
}

FloatRows head_of(const Tensor& t, int64_t head) {
    const int64_t heads = t.size(1);
    return {floats(t) + head / heads * t.stride(0) + head % heads * t.stride(1), t.stride(2)};
}

// Keys and values of heads (batch, heads, n, head_dim) as `attend` takes them, in `bits` = 16 or 8: keys, their scales (of
// bytes: the scales of a head, then the sums of what its keys stand for), values, their scales.
class Packing {
   public:
    Packing(Heads h, int64_t bits)
        : h_(h), bits_(bits), padded_(panels_of(h.n) * PANEL), keys_(of(padded_ * h.head_dim)),
          key_scale_(make({h.batch, h.heads, padded_ * (bits == 8 ? 2 : 1)})),
          values_(of(padded_to_words(h.n, bits == 8 ? Layout::QUADS : Layout::PAIRS) * h.head_dim)),
          value_scale_(make({h.batch, h.heads, h.head_dim})) {}

    void keys(int64_t head, FloatRows k) const {
        float* scale = at<float>(key_scale_, head);
        kernels().pack_keys(k, h_.n, h_.head_dim, words(keys_, head), scale, bits_ == 8 ? scale + padded_ : nullptr);
    }
    void values(int64_t head, FloatRows v) const {
        kernels().pack_values(v, h_.n, h_.head_dim, bits_, words(values_, head), at<float>(value_scale_, head));
    }
    std::tuple<Tensor, Tensor, Tensor, Tensor> packed() const { return {keys_, key_scale_, values_, value_scale_}; }

   private:
    Tensor of(int64_t numbers) const {
        STD_TORCH_CHECK(bits_ == 16 || bits_ == 8, "bits must be 16 or 8");
        return make({h_.batch, h_.heads, numbers}, bits_ == 8 ? ScalarType::Char : ScalarType::Short);
    }
    template <class T>
    static T* at(const Tensor& t, int64_t head) {
        return static_cast<T*>(t.data_ptr()) + head * t.size(2);
    }
    void* words(const Tensor& t, int64_t head) const {
        return bits_ == 8 ? static_cast<void*>(at<int8_t>(t, head)) : at<int16_t>(t, head);
    }

    const Heads h_;
    const int64_t bits_, padded_;
    const Tensor keys_, key_scale_, values_, value_scale_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> pack_keys_values(Tensor k, Tensor v, int64_t bits) {
    const Heads h = heads_of(k, "k"), same = heads_of(v, "v");
    STD_TORCH_CHECK(h.batch == same.batch && h.heads == same.heads && h.n == same.n && h.head_dim == same.head_dim,
                    "k and v must have the same shape");
    const Packing to(h, bits);
    share(h.all(), 1, [&](int64_t head, int64_t) {
        to.keys(head, head_of(k, head));
        to.values(head, head_of(v, head));
    });
    return to.packed();
}

// The columns of some whole panels of a weight as a weight of its own.
Weight columns_of(Weight w, int64_t first_panel, int64_t n) {
    const int64_t entries = first_panel * words_of(w.k, w.layout) * PANEL * (w.layout == Layout::QUADS ? 4 : 2);
    w.panels = static_cast<const char*>(w.panels) + entries * (w.layout == Layout::PAIRS ? 2 : 1);
    w.scale += first_panel * PANEL;
    if (w.sum) w.sum += first_panel * PANEL;
    w.n = n;
    return w;
}

// What pack_keys_values makes of x (1, n, k) times a packed weight of 2 * heads * head_dim columns, those of keys first, + bias.
// A head is packed while it is in the cache: all products first, and then all packing, 486 positions of base took 1.4 ms a layer in place of 0.9.
std::tuple<Tensor, Tensor, Tensor, Tensor> pack_products(Tensor x, Tensor panels, Tensor scales, std::optional<Tensor> sums,
                                                         std::optional<Tensor> bias, int64_t width, int64_t heads, int64_t bits) {
    check_floats(x, 3, "x");
    STD_TORCH_CHECK(x.size(0) == 1 && heads > 0 && width % (2 * heads) == 0, "there must be one window, and keys and values of ",
                    heads, " heads of one size");
    const int64_t n = x.size(1), k = x.size(2);
    const Heads h = checked({1, heads, n, width / (2 * heads)}, "x");
    const Weight weight = weight_of(panels, scales, sums, k, width);
    const float* added = dense_or_null(bias, panels_of(width) * PANEL, "bias");
    Tensor memory = make({Workspace::bytes(n, k)}, ScalarType::Char);
    const Workspace at(static_cast<char*>(memory.data_ptr()), n, k);
    const WordRows words = at.words(weight.layout);
    const Packing to(h, bits);
    share(n, 96, [&](int64_t first, int64_t last) {
        const FloatRows rows{floats(x) + first * x.stride(1), x.stride(1)};
        kernels().quantize(rows, last - first, k, {}, weight.layout, words.from(first), nullptr);
    });
    share(2 * heads, 1, [&](int64_t item, int64_t) {
        const int64_t panel = item * h.head_dim / PANEL;
        auto* numbers = static_cast<float*>(scratch(n * h.head_dim * 4));
        const Epilogue then{added ? added + panel * PANEL : nullptr, false, nullptr};
        kernels().product(words, n, columns_of(weight, panel, h.head_dim), 0, h.head_dim / PANEL, then, numbers);
        if (item < heads)
            to.keys(item, {numbers, h.head_dim});
        else
            to.values(item - heads, {numbers, h.head_dim});
    });
    return to.packed();
}

// softmax(scale * q k^T + bias) v of packed keys and values, n of them; q and result (batch, heads, m, head_dim), the
// result's memory laid out as (batch, m, heads, head_dim), so that joining the heads again is free.
Tensor attend(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int64_t n, double scale,
              std::optional<Tensor> bias) {
    const Heads h = heads_of(q, "q");
    const PackedHeads packed(keys, key_scale, values, value_scale, h.all(), n, h.head_dim);
    std::vector<float> added(panels_of(n) * PANEL, -std::numeric_limits<float>::infinity());
    if (const float* given = dense_or_null(bias, n, "bias"))
        std::copy_n(given, n, added.begin());
    else
        std::fill_n(added.begin(), n, 0.0f);
    Tensor out = make({h.batch, h.n, h.heads, h.head_dim});
    const Kernels& run = kernels();
    const int64_t step = 4 * MAX_BLOCK, steps = (h.n + step - 1) / step;
    share(h.all() * steps, 1, [&](int64_t first, int64_t last) {
        void* memory = scratch(attention_scratch(n));
        for (int64_t i = first; i < last; ++i) {
            const int64_t head = i / steps, row = i % steps * step;
            FloatRows queries = head_of(q, head);
            queries.data += row * queries.stride;
            auto* to = static_cast<float*>(out.data_ptr()) +
                       ((head / h.heads * h.n + row) * h.heads + head % h.heads) * h.head_dim;
            run.attention(queries, std::min(step, h.n - row), packed[head], static_cast<float>(scale), added.data(), memory, to,
                          h.heads * h.head_dim);
        }
    });
    return torch::stable::transpose(out, 1, 2);
}

// Self-attention of new tokens: qkv (batch, new, 3 * heads * head_dim) joins the caches (batch, heads, context, head_dim)
// after the `lengths` tokens of each row, and each token attends to itself and all before it: (batch, new, heads * head_dim).
Tensor self_attend(Tensor qkv, Tensor keys, Tensor values, std::vector<int64_t> lengths, double scale) {
    check_floats(qkv, 3, "qkv");
    const Heads h = heads_of(keys, "keys"), same = heads_of(values, "values");
    const int64_t fresh = qkv.size(1), width = h.heads * h.head_dim, context = h.n;
    STD_TORCH_CHECK(keys.is_contiguous() && values.is_contiguous() && same.all() == h.all() && same.n == context,
                    "keys and values must be dense and of the same shape");
    STD_TORCH_CHECK(qkv.size(0) == h.batch && qkv.size(2) == 3 * width && same.head_dim == h.head_dim,
                    "qkv does not fit the caches");
    STD_TORCH_CHECK(static_cast<int64_t>(lengths.size()) == h.batch, "there must be a length for each of ", h.batch, " rows");
    for (const int64_t length : lengths)
        STD_TORCH_CHECK(length >= 0 && length + fresh <= context, length + fresh, " tokens do not fit a cache of ", context);
    Tensor out = make({h.batch, fresh, width});
    auto *k = static_cast<float*>(keys.data_ptr()), *v = static_cast<float*>(values.data_ptr());
    share(h.all(), 1, [&](int64_t first, int64_t last) {
        auto* scores = static_cast<float*>(scratch(panels_of(context) * PANEL * 4));
        for (int64_t head = first; head < last; ++head)
            for (int64_t i = 0; i < fresh; ++i) {
                const int64_t row = lengths[head / h.heads] + i, cache = head * context * h.head_dim, at = head % h.heads * h.head_dim;
                const float* token = floats(qkv) + head / h.heads * qkv.stride(0) + i * qkv.stride(1) + at;
                std::copy_n(token + width, h.head_dim, k + cache + row * h.head_dim);
                std::copy_n(token + 2 * width, h.head_dim, v + cache + row * h.head_dim);
                auto* to = static_cast<float*>(out.data_ptr()) + (head / h.heads * fresh + i) * width + at;
                kernels().attend_rows(token, k + cache, v + cache, row + 1, h.head_dim, static_cast<float>(scale), scores, to);
            }
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY(tilewhisper_native, m) {
    m.def("instruction_sets() -> str");
    m.def("instruction_set() -> str");
    m.def("use_instruction_set(str name) -> ()");
    m.def("pack_weight(Tensor weight, int bits) -> (Tensor, Tensor)");
    m.def("pack_quads(Tensor weight) -> (Tensor, Tensor, Tensor)");
    m.def(
        "linear(Tensor x, Tensor panels, Tensor scales, Tensor? sums, Tensor? bias, int n, bool gelu, Tensor? residual, "
        "Tensor? norm_weight, Tensor? norm_bias, float eps) -> Tensor");
    m.def(
        "feed_forward(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor panels1, Tensor scales1, Tensor? "
        "sums1, Tensor? bias1, int hidden, Tensor panels2, Tensor scales2, Tensor? sums2, Tensor? bias2) -> Tensor");
    m.def("pack_keys_values(Tensor k, Tensor v, int bits) -> (Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "pack_products(Tensor x, Tensor panels, Tensor scales, Tensor? sums, Tensor? bias, int width, int heads, int bits) -> "
        "(Tensor, Tensor, Tensor, Tensor)");
    m.def(
        "attend(Tensor q, Tensor keys, Tensor key_scale, Tensor values, Tensor value_scale, int n, float scale, "
        "Tensor? bias) -> Tensor");
    m.def("self_attend(Tensor qkv, Tensor(a!) keys, Tensor(b!) values, int[] lengths, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) {
    m.impl("instruction_sets", TORCH_BOX(&instruction_sets));
    m.impl("instruction_set", TORCH_BOX(&instruction_set));
    m.impl("use_instruction_set", TORCH_BOX(&use_instruction_set));
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) {
    m.impl("pack_weight", TORCH_BOX(&pack_weight));
    m.impl("pack_quads", TORCH_BOX(&pack_quads));
    m.impl("linear", TORCH_BOX(&linear));
    m.impl("feed_forward", TORCH_BOX(&feed_forward));
    m.impl("pack_keys_values", TORCH_BOX(&pack_keys_values));
    m.impl("pack_products", TORCH_BOX(&pack_products));
    m.impl("attend", TORCH_BOX(&attend));
    m.impl("self_attend", TORCH_BOX(&self_attend));
}

}  // namespace tilewhisper
