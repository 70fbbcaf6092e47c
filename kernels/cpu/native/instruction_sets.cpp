// The table of instruction sets, and the choice of one by torch operators.
#include "instruction_sets.h"

#include <torch/csrc/stable/library.h>

#include "processor.h"

namespace tilewhisper {

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> all = {
#ifdef TILEWHISPER_AVX512
        {&avx512_kernels,
         {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}},
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
        {&neon_kernels, {"asimd"}},
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

// A line "name: reason" for each set, fastest first; no reason for a set that this processor can run.
std::string reasons() {
    std::string lines;
    for (const InstructionSet& set : instruction_sets())
        lines.append(set.kernels->name).append(": ").append(why_not(set.extensions)).append("\n");
    return lines;
}

std::string instruction_set() { return kernels().name; }

void use_instruction_set(std::string name) {
    std::string usable;
    for (const InstructionSet& set : instruction_sets()) {
        if (!why_not(set.extensions).empty()) continue;
        if (name == set.kernels->name) return chosen.store(set.kernels);
        usable.append(usable.empty() ? "" : ", ").append(set.kernels->name);
    }
    STD_TORCH_CHECK(false, "the instruction set must be one of ", usable, ", got '", name, "'");
}

}  // namespace
}  // namespace tilewhisper

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("instruction_sets() -> str");
    m.def("instruction_set() -> str");
    m.def("use_instruction_set(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CompositeExplicitAutograd, m) {
    m.impl("instruction_sets", TORCH_BOX(&tilewhisper::reasons));
    m.impl("instruction_set", TORCH_BOX(&tilewhisper::instruction_set));
    m.impl("use_instruction_set", TORCH_BOX(&tilewhisper::use_instruction_set));
}
