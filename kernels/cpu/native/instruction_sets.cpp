// The table of instruction sets, and the choice of the fastest.
#include "instruction_sets.h"

#include "processor.h"

namespace tilewhisper {

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> all = {
#ifdef TILEWHISPER_AVX512
        {&avx512_kernels, {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}},
#endif
#ifdef TILEWHISPER_AVX_VNNI
#ifdef TILEWHISPER_EVEX
        {&avx_vnni_kernels, {"avx2", "fma", "f16c", "avx512vl", "avx512_vnni"}},
#else
        {&avx_vnni_kernels, {"avx2", "fma", "f16c", "avx_vnni"}},
#endif
#endif
#ifdef TILEWHISPER_AVX2
        {&avx2_kernels, {"avx2", "fma", "f16c"}},
#endif
#ifdef TILEWHISPER_NEON_I8MM
        {&neon_i8mm_kernels, {"asimddp", "i8mm"}},
#endif
#ifdef TILEWHISPER_NEON_DOT
        {&neon_dot_kernels, {"asimddp"}},
#endif
#ifdef TILEWHISPER_NEON
        {&neon_kernels, {}},
#endif
        {&portable_kernels, {}},
    };
    return all;
}

namespace {

const Kernels* fastest() {
    for (const InstructionSet& set : instruction_sets())
        if (why_not(set.extensions).empty()) return set.kernels;
    return &portable_kernels;
}

const bool fastest_is_chosen = (chosen.store(fastest()), true);  // when the library is loaded

}  // namespace
}  // namespace tilewhisper
