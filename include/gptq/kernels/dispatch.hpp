// From the name of an instruction set to its kernels.
#pragma once

#include <string>

#include <gptq/error.hpp>
#include <gptq/kernels/avx2.hpp>
#include <gptq/kernels/avx512.hpp>
#include <gptq/kernels/avx512_vnni.hpp>
#include <gptq/kernels/avx_vnni.hpp>
#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/isa.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/neon.hpp>
#include <gptq/kernels/portable.hpp>

namespace gptq::kernels {

/// Throws unsupported_error where this machine cannot run kernels of `which`.
inline void require_supported(isa which) {
    if (!supports(which))
        throw unsupported_error("kernels: this machine has no " + std::string(isa_name(which)) +
                                "; leave the choice to best_isa()");
}

/// The kernel of `which` for codes of 2, 3, 4 or 8 bits. Throws unsupported_error where this machine cannot run it.
template <held_as Held>
kernel find_kernel(isa which, int bits) {
    require_supported(which);
    // Floats gain nothing from dot products of integers: those kernels need not be compiled twice.
    constexpr bool floats = Held == held_as::floats;
    if (floats && which == isa::avx_vnni) which = isa::avx2;
    if (floats && which == isa::avx512_vnni) which = isa::avx512;
    switch (which) {
#if defined(__x86_64__)
        case isa::avx2: return avx2::find_kernel<Held>(bits);
        case isa::avx_vnni:
            if constexpr (!floats) return avx_vnni::find_kernel<Held>(bits);
            break;
        case isa::avx512: return avx512::find_kernel<Held>(bits);
        case isa::avx512_vnni:
            if constexpr (!floats) return avx512_vnni::find_kernel<Held>(bits);
            break;
#elif defined(__aarch64__)
        case isa::neon: return neon::find_kernel<Held>(bits);
#endif
        default: break;
    }
    return portable::find_kernel<Held>(bits);
}

/// The solver's kernels of `which`, or of the best set below it that has its own. Throws as find_kernel().
inline column_kernels find_column_kernels(isa which) {
    require_supported(which);
    switch (which) {
#if defined(__x86_64__)
        case isa::avx2:
        case isa::avx_vnni: return avx2::find_column_kernels();
        case isa::avx512:
        case isa::avx512_vnni: return avx512::find_column_kernels();
#elif defined(__aarch64__)
        case isa::neon: return neon::find_column_kernels();
#endif
        default: return portable::find_column_kernels();
    }
}

// All kernels are compiled wherever a product is: some seconds a file. A program of many files may define this macro in
// all of them, and have one that does not, with the three definitions (`template kernel find_kernel<...>(isa, int);`).
#ifdef GPTQ_KERNELS_ELSEWHERE
extern template kernel find_kernel<held_as::floats>(isa, int);
extern template kernel find_kernel<held_as::int16>(isa, int);
extern template kernel find_kernel<held_as::int8>(isa, int);
#endif

}  // namespace gptq::kernels
