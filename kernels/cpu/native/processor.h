// What this processor offers, as far as its operating system lets programs use it.
#pragma once

#include <string>
#include <vector>

namespace tilewhisper {

// Why the instructions of an extension cannot be used here; empty if they can. Extensions have the names that Linux prints
// in /proc/cpuinfo: avx2, avx512_vnni, asimddp, i8mm.
std::string why_not(const char* extension);

// Of the first extension that cannot be used.
std::string why_not(const std::vector<const char*>& extensions);

}  // namespace tilewhisper
