// Extensions: on x86 by cpuid, on ARM64 by what each operating system tells.
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

#else

enum class Answer { YES, NOT_IN_PROCESSOR, NOT_IN_SYSTEM };

struct Extension {
    const char* name;
    const char* apple;
    unsigned windows;           // PF_ARM_V82_..._INSTRUCTIONS_AVAILABLE, not all of them in every SDK
    int linux_word, linux_bit;  // of AT_HWCAP and AT_HWCAP2
};

constexpr Extension EXTENSIONS[] = {
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

#elif defined(_WIN32)

bool has(const Extension& e) { return IsProcessorFeaturePresent(e.windows); }

#elif defined(__aarch64__)

bool has(const Extension& e) { return getauxval(e.linux_word ? AT_HWCAP2 : AT_HWCAP) >> e.linux_bit & 1; }

#else

bool has(const Extension&) { return false; }

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

}  // namespace tilewhisper
