// Every kernel of every instruction set that this processor can run, compared with the portable kernels; and sums of
// products with sums of 64-bit integers. Prints a line for each set; the exit status is 1 at the first difference.
#include "checks.h"
#include "instruction_sets.h"
#include "processor.h"

using namespace tilewhisper;
using namespace checks;

namespace {

const char* const LAYOUTS[] = {"pairs", "byte pairs", "quads", "nibbles"};
const int64_t LENGTHS[] = {1, 2, 3, 7, 31, 32, 64, 255, 257, 515, 1031, 4096};

std::string named(const char* what, Layout layout, int64_t rows, int64_t k, int64_t n = 0) {
    return std::string(what) + " of " + LAYOUTS[static_cast<int>(layout)] + ", " + std::to_string(rows) + " x " +
           std::to_string(k) + " x " + std::to_string(n);
}

// Rows in words of a layout, and their memory.
struct Rows {
    Rows(Layout layout, int64_t rows, int64_t k)
        : stride(words_of(k, Layout::PAIRS) * 4 + 64), words(rows * stride), scale(rows), offset(rows) {
        at = {words.data(), stride, scale.data(), offset.data(), steps_of(layout, false)};
    }
    int64_t stride;
    Line64<char> words;
    Line64<float> scale, offset;
    WordRows at;
};

void quantization(const Kernels& set, Random& random) {
    for (const Layout layout : {Layout::PAIRS, Layout::BYTE_PAIRS, Layout::QUADS, Layout::NIBBLES})
        for (const int64_t k : LENGTHS) {
            constexpr int64_t ROWS = 5;
            std::vector<float> x = random.normals(ROWS * k), weight = random.normals(k), bias = random.normals(k), normed(k);
            for (int64_t i = 0; i < k; ++i) x[i] = 0;
            x[k] = 40;                 // far above the others of its row
            x[2 * k] = std::nanf("");  // makes its row one
            for (const bool with_norm : {false, true}) {
                const Norm norm = with_norm ? Norm{weight.data(), bias.data(), 1e-5f} : Norm{};
                Rows one(layout, ROWS, k), other(layout, ROWS, k);
                set.quantize({x.data(), k}, ROWS, k, norm, layout, one.at, normed.data());
                portable_kernels.quantize({x.data(), k}, ROWS, k, norm, layout, other.at, normed.data());
                const std::string what = named("quantisation", layout, ROWS, k);
                for (int64_t r = 0; r < ROWS; ++r) {
                    if (r == 2) continue;
                    const char *a = one.at.data + r * one.stride, *b = other.at.data + r * one.stride;
                    if (layout == Layout::QUADS)
                        rounded(what, reinterpret_cast<const uint8_t*>(a), reinterpret_cast<const uint8_t*>(b), k);
                    else if (layout != Layout::NIBBLES)
                        rounded(what, reinterpret_cast<const int16_t*>(a), reinterpret_cast<const int16_t*>(b), k);
                    else
                        for (int64_t group = 0; group < groups_of(k); ++group) {
                            const auto &left = reinterpret_cast<const RowGroup*>(a)[group],
                                       &right = reinterpret_cast<const RowGroup*>(b)[group];
                            rounded(what, left.numbers, right.numbers, GROUP);
                            nearly(what + ", scale", &left.scale, &right.scale, 1, 1e-5);
                        }
                }
                if (layout != Layout::NIBBLES) nearly(what + ", scales", one.scale.data(), other.scale.data(), ROWS, 1e-5);
                if (layout == Layout::QUADS) nearly(what + ", offsets", one.offset.data(), other.offset.data(), ROWS, 2e-2);
            }
        }
}

// A panel's entry for number `i` of a row, by panels.h.
int64_t entry(const char* panels, Layout layout, int64_t k, int64_t i, int64_t column) {
    const int64_t word = entries_of(layout), at = (i / word * PANEL + column % PANEL) * word + i % word;
    const char* panel = panels + column / PANEL * panel_bytes(k, layout);
    return layout == Layout::PAIRS ? reinterpret_cast<const int16_t*>(panel)[at]
                                   : reinterpret_cast<const int8_t*>(panel)[at];
}

int64_t number(const char* row, Layout layout, int64_t i) {
    return layout == Layout::QUADS ? reinterpret_cast<const uint8_t*>(row)[i] : reinterpret_cast<const int16_t*>(row)[i];
}

// A weight of random entries; `extreme` has all products of one sign, as large as they can be.
struct RandomWeight {
    RandomWeight(Layout layout, int64_t k, int64_t n, bool extreme, Random& random)
        : panels(panels_of(n) * panel_bytes(k, layout)),
          scale(panels_of(n) * PANEL),
          sum(panels_of(n) * PANEL),
          halves(panels_of(n) * groups_of(k) * PANEL) {
        for (int64_t i = 0; i < scale.size(); ++i) scale[i] = 1, sum[i] = random.normal();
        for (int64_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(random.whole(0x2000, 0x3c00));
        if (layout == Layout::PAIRS) {
            const std::vector<float> x = random.normals(k);
            std::vector<int16_t> row(k + 2);
            for (int64_t column = 0; column < n; ++column) {
                const std::vector<float> values = extreme ? std::vector<float>(k, 1.0f) : random.normals(k);
                portable_kernels.quantize_row(values.data(), k, PAIRS_STEPS, row.data());
                for (int64_t i = 0; i < k; ++i)
                    reinterpret_cast<int16_t*>(
                        panels.data() +
                        column / PANEL * panel_bytes(k, layout))[(i / 2 * PANEL + column % PANEL) * 2 + i % 2] = row[i];
            }
        } else {
            for (int64_t i = 0; i < panels.size(); ++i)
                panels[i] = static_cast<char>(layout == Layout::NIBBLES ? random.whole(0, 255)
                                              : extreme                 ? LIMIT_8
                                                                        : random.whole(-LIMIT_8, LIMIT_8));
        }
        weight = {panels.data(),
                  layout,
                  layout == Layout::NIBBLES ? nullptr : scale.data(),
                  nullptr,
                  k,
                  n,
                  layout == Layout::NIBBLES ? halves.data() : nullptr};
    }
    Line64<char> panels;
    Line64<float> scale, sum;
    Line64<uint16_t> halves;
    Weight weight;
};

void products(const Kernels& set, Random& random) {
    for (const Layout layout : {Layout::PAIRS, Layout::BYTE_PAIRS, Layout::QUADS, Layout::NIBBLES})
        for (const int64_t k : LENGTHS)
            for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 12, 13, 25}) {
                const int64_t n = random.whole(1, 90);
                const bool extreme = rows % 4 == 1;
                const std::vector<float> x = extreme ? std::vector<float>(rows * k, 1.0f) : random.normals(rows * k);
                Rows words(layout, rows, k);
                portable_kernels.quantize({x.data(), k}, rows, k, {}, layout, words.at, nullptr);
                RandomWeight random_weight(layout, k, n, extreme, random);
                Weight& weight = random_weight.weight;
                std::vector<float> found(rows * n), expected(rows * n);
                const std::string what = named("product", layout, rows, k, n);
                if (layout != Layout::NIBBLES) {  // whole numbers: their sums are exact within one step
                    for (int64_t r = 0; r < rows; ++r) words.scale[r] = 1;
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t column = 0; column < n; ++column) {
                            int64_t sum = 0;
                            for (int64_t i = 0; i < k; ++i)
                                sum += number(words.at.data + r * words.stride, layout, i) *
                                       entry(random_weight.panels.data(), layout, k, i, column);
                            expected[r * n + column] = static_cast<float>(sum);
                        }
                    set.product(words.at, rows, weight, 0, panels_of(n), {}, found.data());
                    if (k <= words.at.steps.words * entries_of(layout))
                        exactly(what, found.data(), expected.data(), rows * n);
                    else
                        nearly(what, found.data(), expected.data(), rows * n, 1e-6);
                    for (int64_t r = 0; r < rows; ++r) words.scale[r] = 1e-4f;
                    if (layout == Layout::QUADS) weight.sum = random_weight.sum.data();
                }
                const std::vector<float> bias = random.normals(panels_of(n) * PANEL), residual = random.normals(rows * n);
                const std::vector<float> left = random.normals(rows * 3), right = random.normals(3 * panels_of(n) * PANEL);
                const Epilogue then{
                    bias.data(), rows % 2 == 0, residual.data(), {left.data(), right.data(), panels_of(n) * PANEL, 3}};
                set.product(words.at, rows, weight, 0, panels_of(n), then, found.data());
                portable_kernels.product(words.at, rows, weight, 0, panels_of(n), then, expected.data());
                nearly(what + ", with all that follows", found.data(), expected.data(), rows * n, 1e-5);
            }
}

void attention(const Kernels& set, Random& random) {
    for (const int64_t bits : {8, 16})
        for (const int64_t head_dim : {16, 64, 128})
            for (const int64_t n : {1, 15, 16, 17, 61, 201, 700}) {
                const int64_t padded = panels_of(n) * PANEL, value_rows = (n + 3) / 4 * 4, bytes = bits / 8;
                const std::vector<float> keys = random.normals(n * head_dim), values = random.normals(n * head_dim);
                Line64<char> key_words(padded * head_dim * bytes), value_words(value_rows * head_dim * bytes);
                Line64<char> other_keys(key_words.size()), other_values(value_words.size());
                Line64<float> scale(padded), sum(padded), value_scale(head_dim), other_scale(padded), other_sum(padded),
                    other_value_scale(head_dim);
                const std::string what = "of " + std::to_string(n) + " positions in " + std::to_string(bits) +
                                         " bits, head size " + std::to_string(head_dim);
                set.pack_keys({keys.data(), head_dim}, n, head_dim, other_keys.data(), other_scale.data(),
                              bits == 8 ? other_sum.data() : nullptr);
                set.pack_values({values.data(), head_dim}, n, head_dim, bits, other_values.data(), other_value_scale.data());
                portable_kernels.pack_keys({keys.data(), head_dim}, n, head_dim, key_words.data(), scale.data(),
                                           bits == 8 ? sum.data() : nullptr);
                portable_kernels.pack_values({values.data(), head_dim}, n, head_dim, bits, value_words.data(),
                                             value_scale.data());
                if (bits == 8) {
                    rounded("keys " + what, reinterpret_cast<int8_t*>(other_keys.data()),
                            reinterpret_cast<int8_t*>(key_words.data()), padded * head_dim);
                    rounded("values " + what, reinterpret_cast<int8_t*>(other_values.data()),
                            reinterpret_cast<int8_t*>(value_words.data()), value_rows * head_dim);
                    nearly("sums of keys " + what, other_sum.data(), sum.data(), padded, 2e-2);
                } else {
                    rounded("keys " + what, reinterpret_cast<int16_t*>(other_keys.data()),
                            reinterpret_cast<int16_t*>(key_words.data()), padded * head_dim);
                    rounded("values " + what, reinterpret_cast<int16_t*>(other_values.data()),
                            reinterpret_cast<int16_t*>(value_words.data()), (n + 1) / 2 * 2 * head_dim);
                }
                nearly("scales of keys " + what, other_scale.data(), scale.data(), padded, 1e-5);
                nearly("scales of values " + what, other_value_scale.data(), value_scale.data(), head_dim, 1e-5);
                std::vector<float> bias(padded, -INFINITY);
                for (int64_t i = 0; i < n; ++i) bias[i] = random.normal();
                const KeysValues kv{key_words.data(),
                                    scale.data(),
                                    bits == 8 ? sum.data() : nullptr,
                                    value_words.data(),
                                    value_scale.data(),
                                    n,
                                    head_dim};
                for (const int64_t rows : {1, 3, 4, 6, 13}) {
                    const std::vector<float> q = random.normals(rows * head_dim);
                    std::vector<float> found(rows * head_dim), expected(rows * head_dim);
                    Line64<char> scratch(attention_scratch(n));
                    set.attention({q.data(), head_dim}, rows, kv, 0.125f, bias.data(), scratch.data(), found.data(),
                                  head_dim);
                    portable_kernels.attention({q.data(), head_dim}, rows, kv, 0.125f, bias.data(), scratch.data(),
                                               expected.data(), head_dim);
                    nearly("attention " + what, found.data(), expected.data(), rows * head_dim, bits == 8 ? 3e-3 : 1e-4);
                }
            }
}

void small_kernels(const Kernels& set, Random& random) {
    for (const int64_t n : LENGTHS) {
        const std::vector<float> a = random.normals(n), b = random.normals(n), c = random.normals(n);
        std::vector<float> found(n), expected(n);
        const std::string what = " of " + std::to_string(n);
        set.layer_norm(a.data(), n, b.data(), c.data(), 1e-5f, found.data());
        portable_kernels.layer_norm(a.data(), n, b.data(), c.data(), 1e-5f, expected.data());
        nearly("layer norm" + what, found.data(), expected.data(), n, 1e-5);
        double sum = 0, halves = 0, brains = 0, size = 0;
        std::vector<uint16_t> half(n), brain(n);
        float most = -INFINITY;
        for (int64_t i = 0; i < n; ++i) {
            half[i] = static_cast<uint16_t>(random.whole(0, 0x7bff) | random.whole(0, 1) << 15);  // any finite number
            const int exponent = half[i] >> 10 & 31, fraction = half[i] & 1023;
            const double value = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
            brain[i] = static_cast<uint16_t>(random.whole(0x3f00, 0x4000));
            uint32_t bits = static_cast<uint32_t>(brain[i]) << 16;
            float as_float;
            __builtin_memcpy(&as_float, &bits, 4);
            sum += static_cast<double>(a[i]) * b[i];
            halves += a[i] * (half[i] >> 15 ? -value : value);
            brains += static_cast<double>(a[i]) * as_float;
            size += std::fabs(a[i]) * (1 + std::fabs(b[i]) + value + as_float);
            most = a[i] > most ? a[i] : most;
        }
        const auto is_near = [&](const char* name, double got, double wanted) {
            ++compared;
            if (!(std::fabs(got - wanted) <= 1e-5 * size)) fail(name + what, got, wanted);
        };
        is_near("dot", set.dot(a.data(), b.data(), n), sum);
        is_near("dot of float32", set.dot_stored(a.data(), b.data(), Number::FLOAT32, n), sum);
        is_near("dot of float16", set.dot_stored(a.data(), half.data(), Number::FLOAT16, n), halves);
        is_near("dot of bfloat16", set.dot_stored(a.data(), brain.data(), Number::BFLOAT16, n), brains);
        for (const auto& [stored, numbers] : {std::pair<const void*, Number>{b.data(), Number::FLOAT32},
                                              {half.data(), Number::FLOAT16},
                                              {brain.data(), Number::BFLOAT16}}) {
            std::vector<float> got(n), wanted(n);
            set.add_stored(a.data(), stored, numbers, n, got.data());
            portable_kernels.add_stored(a.data(), stored, numbers, n, wanted.data());
            exactly("sum with stored numbers" + what, got.data(), wanted.data(), n);
        }
        const float largest = set.max(a.data(), n);
        exactly("max" + what, &largest, &most, 1);
        double powers = 0;
        for (const float each : a) powers += std::exp(static_cast<double>(each) - most);
        if (const float got = set.sum_exp(a.data(), n, most); !(std::fabs(got - powers) <= 1e-5 * powers))
            fail("sum of powers" + what, got, powers);
    }
    constexpr int64_t TOKENS = 16, HEAD = 64;
    std::vector<float> pages[] = {random.normals(2 * TOKENS * HEAD), random.normals(2 * TOKENS * HEAD),
                                  random.normals(2 * TOKENS * HEAD)};
    float* const starts[] = {pages[2].data(), pages[0].data(), pages[1].data()};
    const PagedKeysValues cache{starts, 0, TOKENS * HEAD, TOKENS, HEAD};
    const std::vector<float> q = random.normals(HEAD);
    for (int64_t n = 1; n <= 3 * TOKENS; n += 5) {
        Line64<float> scores(panels_of(n) * PANEL);
        std::vector<float> found(HEAD), expected(HEAD);
        set.self_attention(q.data(), cache, n, 0.125f, scores.data(), found.data());
        portable_kernels.self_attention(q.data(), cache, n, 0.125f, scores.data(), expected.data());
        nearly("self-attention over " + std::to_string(n), found.data(), expected.data(), HEAD, 1e-5);
    }
}

}  // namespace

int main() {
    for (const InstructionSet& set : instruction_sets()) {
        if (const std::string reason = why_not(set.extensions); !reason.empty()) {
            std::printf("%s: left out: %s\n", set.kernels->name, reason.c_str());
            continue;
        }
        Random random;
        compared = 0;
        quantization(*set.kernels, random);
        products(*set.kernels, random);
        attention(*set.kernels, random);
        small_kernels(*set.kernels, random);
        std::printf("%s: equal, %lld numbers compared\n", set.kernels->name, static_cast<long long>(compared));
        std::fflush(stdout);
    }
}
