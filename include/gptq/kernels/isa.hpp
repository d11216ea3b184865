// The instruction sets that there are kernels for, and which of them this machine has.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <gptq/compiled.hpp>

namespace gptq {

/// In ascending order of preference.
enum class isa { portable, neon, avx2, avx_vnni, avx512, avx512_vnni };

inline constexpr std::array<isa, 6> all_isas = {isa::portable, isa::neon,   isa::avx2,
                                                isa::avx_vnni, isa::avx512, isa::avx512_vnni};

/// As GPTQ_ISA and reports spell it.
constexpr std::string_view isa_name(isa which) {
    constexpr std::array<std::string_view, 6> names = {"portable", "neon", "avx2", "avx_vnni", "avx512", "avx512_vnni"};
    return names[static_cast<std::size_t>(which)];
}

/// Whether kernels for `which` run on this machine, under this operating system.
GPTQ_INLINE bool supports(isa which);

namespace detail {

/// What GPTQ_ISA says, or the best that the machine has.
GPTQ_INLINE isa choose_isa(const char* forced);

}  // namespace detail

/// The instruction set that matmul takes unless it is told another: the last of all_isas that the machine has, or what
/// the environment variable GPTQ_ISA named when this was first asked. Throws unsupported_error where GPTQ_ISA names
/// none that the machine has.
GPTQ_INLINE isa best_isa();

}  // namespace gptq

#ifndef GPTQ_COMPILED
#include <gptq/kernels/find_isa.hpp>
#endif
