// What this processor offers, as far as its operating system lets programs use it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tilewhisper {

// Why the instructions of an extension cannot be used here; empty if they can. Extensions have the names that Linux prints
// in /proc/cpuinfo: avx2, avx512_vnni, asimddp, i8mm.
std::string why_not(const char* extension);

// Of the first extension that cannot be used.
std::string why_not(const std::vector<const char*>& extensions);

// Bytes of data that the caches of one core hold. A size that the system does not tell is that of a small core.
struct Caches {
    int64_t first = 32 << 10;
    int64_t second = 256 << 10;
};

const Caches& caches();

}  // namespace tilewhisper
