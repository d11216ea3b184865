// What isa.hpp, which includes this, says of the machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/kernels/isa.hpp>

namespace gptq {

namespace detail {

#if defined(__x86_64__)

struct cpuid_registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// All zeros for a leaf that the processor does not have.
inline cpuid_registers cpuid(unsigned leaf, unsigned subleaf) {
    cpuid_registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

constexpr bool has_bits(unsigned value, unsigned bits) { return (value & bits) == bits; }

/// XCR0: which registers the operating system saves. Only for processors whose OSXSAVE bit is set.
inline unsigned saved_registers() {
    unsigned low = 0;
    [[maybe_unused]] unsigned high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

inline bool machine_has(isa which) {
    constexpr unsigned fma = 1u << 12, osxsave = 1u << 27;                                      // 1:ecx
    constexpr unsigned avx2 = 1u << 5;                                                          // 7.0:ebx
    constexpr unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;                      // 7.0:ebx f dq bw vl
    constexpr unsigned avx512_vnni = 1u << 11;                                                  // 7.0:ecx
    constexpr unsigned avx_vnni = 1u << 4;                                                      // 7.1:eax
    constexpr unsigned sse_and_avx_registers = 1u << 1 | 1u << 2;                               // XCR0
    constexpr unsigned avx512_registers = sse_and_avx_registers | 1u << 5 | 1u << 6 | 1u << 7;  // XCR0
    if (which == isa::portable) return true;
    if (which == isa::neon || !has_bits(cpuid(1, 0).ecx, fma | osxsave)) return false;
    const unsigned saved = saved_registers();
    const cpuid_registers leaf7 = cpuid(7, 0);
    if (!has_bits(saved, sse_and_avx_registers) || !has_bits(leaf7.ebx, avx2)) return false;
    if (which == isa::avx2) return true;
    if (which == isa::avx_vnni) return has_bits(cpuid(7, 1).eax, avx_vnni);
    if (!has_bits(saved, avx512_registers) || !has_bits(leaf7.ebx, avx512)) return false;
    return which == isa::avx512 || has_bits(leaf7.ecx, avx512_vnni);
}

#elif defined(__aarch64__)

inline bool machine_has(isa which) {
    if (which == isa::portable) return true;
#if defined(__linux__)
    return which == isa::neon && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
    return which == isa::neon;
#else
    return false;
#endif
}

#else

inline bool machine_has(isa which) { return which == isa::portable; }

#endif

}  // namespace detail

GPTQ_INLINE bool supports(isa which) {
    // Asked once: under a hypervisor, cpuid takes longer than a small product.
    static const std::array<bool, all_isas.size()> has = [] {
        std::array<bool, all_isas.size()> answers{};
        for (const isa asked : all_isas) answers[static_cast<std::size_t>(asked)] = detail::machine_has(asked);
        return answers;
    }();
    return has[static_cast<std::size_t>(which)];
}

namespace detail {

GPTQ_INLINE isa choose_isa(const char* forced) {
    std::string usable;
    isa best = isa::portable;
    for (const isa candidate : all_isas) {
        if (!supports(candidate)) continue;
        best = candidate;
        if (forced != nullptr && isa_name(candidate) == forced) return candidate;
        usable += " " + std::string(isa_name(candidate));
    }
    if (forced == nullptr || *forced == '\0') return best;
    throw unsupported_error("GPTQ_ISA is \"" + std::string(forced) + "\"; this machine has kernels for:" + usable);
}

}  // namespace detail

GPTQ_INLINE isa best_isa() {
    static const isa best = detail::choose_isa(std::getenv("GPTQ_ISA"));
    return best;
}

}  // namespace gptq
