// The instruction sets of this library, and the choice of one.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "kernels.h"

namespace tilewhisper {

struct InstructionSet {
    const Kernels* kernels;
    std::vector<const char*> extensions;  // that it needs, by their names in processor.h
};

// Of this architecture, fastest first; the last needs nothing.
const std::vector<InstructionSet>& instruction_sets();

// The kernels in use: at first the fastest that this processor can run.
inline std::atomic<const Kernels*> chosen{&portable_kernels};

inline const Kernels& kernels() { return *chosen.load(std::memory_order_relaxed); }

}  // namespace tilewhisper
