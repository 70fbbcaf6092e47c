// The choice of an instruction set by torch operators.
#include <torch/csrc/stable/library.h>

#include "boundary.h"
#include "instruction_sets.h"
#include "processor.h"

namespace tilewhisper {
namespace {

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
    m.impl("instruction_sets", BOXED(&tilewhisper::reasons));
    m.impl("instruction_set", BOXED(&tilewhisper::instruction_set));
    m.impl("use_instruction_set", BOXED(&tilewhisper::use_instruction_set));
}
