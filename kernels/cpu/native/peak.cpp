// This machine's peak rates on torch's own threads: multiply-adds of one kind of instruction, and bytes read from memory. A
// kernel's speed is compared with these.
//
//     peak(kind, isa) -> GOP/s, two for each multiply-add; kind: float32, int16, int8; isa: avx2, avx_vnni,
//         avx_vnni_evex (the same in AVX-512's encoding), avx512, or "" (fastest)
//     read_bandwidth() -> GB/s from memory, past the caches
//     read(memory) -> the sum of its 32-bit words, zeros up to a whole word: the least that a kernel can do with them
//
// 0 is "unknown": a machine, kind or instruction set that is not in the table below.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "boundary.h"
#include "processor.h"

namespace {

// The best of many short tries counts: other processes only take time away.
constexpr int TRIES = 25;
constexpr double TRY_SECONDS = 0.002;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// run(index) for each of `threads` indices, each on a thread of its own of torch's pool.
template <class Run>
void on_every_thread(int64_t threads, const Run& run) {
    torch::stable::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
        for (int64_t index = first; index < last; ++index) run(index);
    });
}

struct Instructions {
    const char* kind;
    const char* isa;
    bool available;
    int64_t operations;  // of one burst
    void (*burst)();
};

#if defined(__x86_64__)

constexpr int REPEATS = 2048;
constexpr int SUMS = 12;  // independent sums: two pipelines with a latency of five cycles need ten

// Assembly, since a compiler would drop or reorder results that nothing reads. All numbers are zero: no step can overflow,
// or be slowed down by a denormal number. Registers 12 and 13 are free for a step's intermediate results.
#define EACH_SUM(step) step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)
#define ZERO(r) "vpxor %%xmm" #r ", %%xmm" #r ", %%xmm" #r "\n"
#define BURST(step)                                                                                                         \
    [] {                                                                                                                    \
        int repeats = REPEATS;                                                                                              \
        asm volatile(EACH_SUM(ZERO) ZERO(14) ZERO(15) "1:\n" EACH_SUM(step) "decl %0\n jnz 1b\n vzeroupper\n"               \
                     : "+r"(repeats)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                               \
    }

#define FLOAT32_AVX2(r) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #r "\n"
#define FLOAT32_AVX512(r) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" #r "\n"
#define INT16_AVX2(r) "vpmaddwd %%ymm14, %%ymm15, %%ymm13\n vpaddd %%ymm13, %%ymm" #r ", %%ymm" #r "\n"
#define INT16_AVX512(r) "vpdpwssd %%zmm14, %%zmm15, %%zmm" #r "\n"
#define INT8_AVX2(r)                                                              \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n vpmaddwd %%ymm12, %%ymm15, %%ymm13\n" \
    "vpaddd %%ymm13, %%ymm" #r ", %%ymm" #r "\n"
#define INT16_AVX_VNNI(r) "%{vex%} vpdpwssd %%ymm14, %%ymm15, %%ymm" #r "\n"
#define INT16_EVEX(r) "%{evex%} vpdpwssd %%ymm14, %%ymm15, %%ymm" #r "\n"
#define INT8_AVX_VNNI(r) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #r "\n"
#define INT8_EVEX(r) "%{evex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #r "\n"
#define INT8_AVX512(r) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #r "\n"

// Operations of a burst of steps that take `bytes` of each operand, in entries of `size` bytes.
constexpr int64_t operations(int64_t bytes, int64_t size) { return int64_t{REPEATS} * SUMS * bytes / size * 2; }

std::vector<Instructions> table() {
    using tilewhisper::why_not;
    const bool avx2 = why_not({"avx2", "fma"}).empty(), vnni = why_not("avx_vnni").empty();
    const bool evex = why_not({"avx512vl", "avx512_vnni"}).empty(), avx512 = why_not({"avx512bw", "avx512_vnni"}).empty();
    return {
        {"float32", "avx2", avx2, operations(32, 4), BURST(FLOAT32_AVX2)},
        {"float32", "avx512", avx512, operations(64, 4), BURST(FLOAT32_AVX512)},
        {"int16", "avx2", avx2, operations(32, 2), BURST(INT16_AVX2)},
        {"int16", "avx_vnni", vnni, operations(32, 2), BURST(INT16_AVX_VNNI)},
        {"int16", "avx_vnni_evex", evex, operations(32, 2), BURST(INT16_EVEX)},
        {"int16", "avx512", avx512, operations(64, 2), BURST(INT16_AVX512)},
        {"int8", "avx2", avx2, operations(32, 1), BURST(INT8_AVX2)},
        {"int8", "avx_vnni", vnni, operations(32, 1), BURST(INT8_AVX_VNNI)},
        {"int8", "avx_vnni_evex", evex, operations(32, 1), BURST(INT8_EVEX)},
        {"int8", "avx512", avx512, operations(64, 1), BURST(INT8_AVX512)},
    };
}

#else

std::vector<Instructions> table() { return {}; }

#endif

// Operations per second on all threads at once, each by its own clock.
double rate(const Instructions& instructions) {
    const int64_t threads = torch::stable::get_num_threads();
    std::vector<double> rates(threads);
    on_every_thread(threads, [&](int64_t thread) {
        const double started = now();
        double seconds = 0;
        for (int64_t bursts = 1; seconds < TRY_SECONDS; ++bursts) {
            instructions.burst();
            seconds = now() - started;
            rates[thread] = double(bursts) * double(instructions.operations) / seconds;
        }
    });
    double total = 0;
    for (const double each : rates) total += each;
    return total;
}

double peak(std::string kind, std::string isa) {
    double best = 0;
    for (const Instructions& row : table())
        if (row.available && row.kind == kind && (isa.empty() || row.isa == isa))
            for (int i = 0; i < TRIES; ++i) best = std::max(best, rate(row));
    return best / 1e9;
}

// Sixteen numbers: the widest read of any machine; narrower machines split it.
typedef uint32_t Line __attribute__((vector_size(64)));
constexpr int64_t TRY_LINES = int64_t{1} << 19;  // 32 MiB
constexpr int64_t LINES = 8 * TRY_LINES;  // beyond the caches: 224 MiB are read before a try reads the same lines again

uint32_t sum(const Line* from, int64_t lines) {
    Line a{}, b{}, c{}, d{};
    int64_t i = 0;
    for (; i + 4 <= lines; i += 4) a += from[i], b += from[i + 1], c += from[i + 2], d += from[i + 3];
    for (; i < lines; ++i) a += from[i];
    a += b + c + d;
    uint32_t total = 0;
    for (int i = 0; i < 16; ++i) total += a[i];
    return total;
}

// By all threads, each reading a part of its own.
uint32_t read_lines(const Line* from, int64_t lines) {
    const int64_t threads = torch::stable::get_num_threads(), part = (lines + threads - 1) / threads;
    std::vector<uint32_t> sums(threads);
    on_every_thread(threads, [&](int64_t thread) {
        const int64_t first = std::min(lines, thread * part), last = std::min(lines, first + part);
        sums[thread] = sum(from + first, last - first);
    });
    uint32_t total = 0;
    for (const uint32_t each : sums) total += each;
    return total;
}

int64_t read_memory(torch::stable::Tensor memory) {
    STD_TORCH_CHECK(memory.is_cpu() && memory.is_contiguous(), "memory must be contiguous and on the CPU");
    const auto* from = static_cast<const Line*>(memory.data_ptr());
    STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(from) % sizeof(Line) == 0, "memory must be aligned to a cache line");
    const int64_t bytes = memory.numel() * int64_t(memory.element_size()), lines = bytes / int64_t{sizeof(Line)};
    Line rest{};
    if (const int64_t left = bytes % int64_t{sizeof(Line)}) std::memcpy(&rest, from + lines, left);
    return uint32_t(read_lines(from, lines) + sum(&rest, 1));
}

double read_bandwidth() {
    const std::unique_ptr<Line[]> memory(new Line[LINES]);
    std::memset(static_cast<void*>(memory.get()), 1, LINES * sizeof(Line));
    volatile uint32_t total = 0;  // a read whose sum is unused might be left out
    double best = 0;
    for (int i = 0; i < TRIES; ++i) {
        const double started = now();
        total = total + read_lines(&memory[i * TRY_LINES % LINES], TRY_LINES);
        best = std::max(best, double(TRY_LINES * sizeof(Line)) / (now() - started));
    }
    return best / 1e9;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("peak(str kind, str isa='') -> float");
    m.def("read_bandwidth() -> float");
    m.def("read(Tensor memory) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) {
    m.impl("peak", BOXED(&peak));
    m.impl("read_bandwidth", BOXED(&read_bandwidth));
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) { m.impl("read", BOXED(&read_memory)); }
