// Extensions and caches: on x86 by cpuid, on ARM64 by what each operating system tells.
#include "processor.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>

#include <fstream>
#endif

namespace tilewhisper {
namespace {

#if defined(__x86_64__)

struct Registers {
    unsigned eax, ebx, ecx, edx;
};

// All zero for a leaf that the processor does not have.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
    Registers r{};
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// The registers that the operating system saves when it switches threads: bits of XCR0.
constexpr unsigned YMM = 0x6, ZMM = 0xe6;

unsigned saved_registers() {
    constexpr unsigned OSXSAVE = 1 << 27;
    if (!(cpuid(1).ecx & OSXSAVE)) return 0;
    unsigned low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

struct Extension {
    const char* name;
    unsigned leaf, subleaf;
    unsigned Registers::* in;
    int bit;
    unsigned registers;
};

constexpr Extension EXTENSIONS[] = {
    {"fma", 1, 0, &Registers::ecx, 12, YMM},         {"f16c", 1, 0, &Registers::ecx, 29, YMM},
    {"avx2", 7, 0, &Registers::ebx, 5, YMM},         {"avx_vnni", 7, 1, &Registers::eax, 4, YMM},
    {"avx512f", 7, 0, &Registers::ebx, 16, ZMM},     {"avx512dq", 7, 0, &Registers::ebx, 17, ZMM},
    {"avx512bw", 7, 0, &Registers::ebx, 30, ZMM},    {"avx512vl", 7, 0, &Registers::ebx, 31, ZMM},
    {"avx512_vnni", 7, 0, &Registers::ecx, 11, ZMM},
};

enum class Answer { YES, NOT_IN_PROCESSOR, NOT_IN_SYSTEM };

Answer ask(const char* name) {
    for (const Extension& e : EXTENSIONS)
        if (!std::strcmp(name, e.name)) {
            if (!(cpuid(e.leaf, e.subleaf).*e.in >> e.bit & 1)) break;
            return (saved_registers() & e.registers) == e.registers ? Answer::YES : Answer::NOT_IN_SYSTEM;
        }
    return Answer::NOT_IN_PROCESSOR;
}

// Intel's leaf 4 and AMD's 0x8000001d describe a cache in each subleaf, in the same way.
Caches find_caches() {
    Caches found;
    for (const unsigned leaf : {0x4u, 0x8000001du})
        for (unsigned subleaf = 0;; ++subleaf) {
            const Registers r = cpuid(leaf, subleaf);
            const unsigned type = r.eax & 31, level = r.eax >> 5 & 7;
            if (type == 0) break;
            const int64_t ways = (r.ebx >> 22) + 1, partitions = (r.ebx >> 12 & 1023) + 1, line = (r.ebx & 4095) + 1;
            constexpr unsigned INSTRUCTIONS = 2;
            if (level == 1 && type != INSTRUCTIONS) found.first = ways * partitions * line * (int64_t{r.ecx} + 1);
            if (level == 2) found.second = ways * partitions * line * (int64_t{r.ecx} + 1);
        }
    return found;
}

#else

enum class Answer { YES, NOT_IN_PROCESSOR, NOT_IN_SYSTEM };

struct Extension {
    const char* name;
    const char* apple;
    unsigned windows;  // PF_ARM_..._INSTRUCTIONS_AVAILABLE, the latter not in every SDK
    int linux_word, linux_bit;
};

constexpr Extension EXTENSIONS[] = {
    {"asimd", "hw.optional.AdvSIMD", 19, 0, 1},
    {"asimddp", "hw.optional.arm.FEAT_DotProd", 43, 0, 20},
    {"i8mm", "hw.optional.arm.FEAT_I8MM", 66, 1, 13},
};

#if defined(__APPLE__)

int64_t number(const char* name) {
    int64_t value = 0;  // a 32-bit answer leaves the upper half
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) ? 0 : value;
}

bool has(const Extension& e) { return number(e.apple); }

// Of the fast cores, which share their second cache.
Caches find_caches() {
    Caches found;
    if (const int64_t bytes = number("hw.perflevel0.l1dcachesize")) found.first = bytes;
    const int64_t bytes = number("hw.perflevel0.l2cachesize"), cores = number("hw.perflevel0.cpusperl2");
    if (bytes && cores) found.second = bytes / cores;
    return found;
}

#elif defined(_WIN32)

bool has(const Extension& e) { return IsProcessorFeaturePresent(e.windows); }

Caches find_caches() {
    Caches found;
    DWORD bytes = 0;
    GetLogicalProcessorInformation(nullptr, &bytes);
    std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> all(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
    if (!GetLogicalProcessorInformation(all.data(), &bytes)) return found;
    for (const auto& one : all) {
        if (one.Relationship != RelationCache || !(one.ProcessorMask & 1)) continue;  // of the first core
        if (one.Cache.Level == 1 && one.Cache.Type != CacheInstruction) found.first = one.Cache.Size;
        if (one.Cache.Level == 2) found.second = one.Cache.Size;
    }
    return found;
}

#elif defined(__aarch64__)

bool has(const Extension& e) { return getauxval(e.linux_word ? AT_HWCAP2 : AT_HWCAP) >> e.linux_bit & 1; }

// Of the first core. A virtual machine may have none of these files.
Caches find_caches() {
    Caches found;
    for (int index = 0; index < 8; ++index) {
        const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
        int64_t level = 0, kib = 0;
        std::string type;
        std::ifstream(folder + "level") >> level;
        std::ifstream(folder + "type") >> type;
        std::ifstream(folder + "size") >> kib;  // such as 64K
        if (!kib || type == "Instruction") continue;
        if (level == 1) found.first = kib << 10;
        if (level == 2) found.second = kib << 10;
    }
    return found;
}

#else

bool has(const Extension&) { return false; }
Caches find_caches() { return {}; }

#endif

Answer ask(const char* name) {
    for (const Extension& e : EXTENSIONS)
        if (!std::strcmp(name, e.name) && has(e)) return Answer::YES;
    return Answer::NOT_IN_PROCESSOR;
}

#endif

}  // namespace

std::string why_not(const char* extension) {
    switch (ask(extension)) {
        case Answer::YES: return "";
        case Answer::NOT_IN_PROCESSOR: return std::string("this processor does not have ") + extension;
        case Answer::NOT_IN_SYSTEM: return std::string("the operating system does not enable ") + extension;
    }
    return "";
}

std::string why_not(const std::vector<const char*>& extensions) {
    for (const char* each : extensions)
        if (std::string reason = why_not(each); !reason.empty()) return reason;
    return "";
}

const Caches& caches() {
    static const Caches found = find_caches();
    return found;
}

}  // namespace tilewhisper
