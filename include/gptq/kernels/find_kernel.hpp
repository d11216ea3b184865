// Finds the kernels of an instruction set. Includes the kernels of all sets, for dispatch.hpp, which includes this
// file.
#pragma once

#include <string>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/kernels/avx2.hpp>
#include <gptq/kernels/avx512.hpp>
#include <gptq/kernels/avx512_vnni.hpp>
#include <gptq/kernels/avx_vnni.hpp>
#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/dispatch.hpp>
#include <gptq/kernels/isa.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/neon.hpp>
#include <gptq/kernels/portable.hpp>
#include <gptq/kernels/weigh.hpp>

namespace gptq::kernels {

/// Throws unsupported_error where this machine cannot run kernels of `which`.
inline void require_supported(isa which) {
    if (!supports(which))
        throw unsupported_error("kernels: this machine has no " + std::string(isa_name(which)) +
                                "; leave the choice to best_isa()");
}

template <held_as Held, int Bits, levels_as Levels>
kernel find_kernel(isa which) {
    require_supported(which);
    // Floats gain nothing from dot products of integers: those kernels need not be compiled twice.
    constexpr bool floats = Held == held_as::floats || Levels == levels_as::floats;
    if (floats && which == isa::avx_vnni) which = isa::avx2;
    if (floats && which == isa::avx512_vnni) which = isa::avx512;
    switch (which) {
#if defined(__x86_64__)
        case isa::avx2: return avx2::make_kernel<Held, Bits, Levels>();
        case isa::avx_vnni:
            if constexpr (!floats) return avx_vnni::make_kernel<Held, Bits, Levels>();
            break;
        case isa::avx512: return avx512::make_kernel<Held, Bits, Levels>();
        case isa::avx512_vnni:
            if constexpr (!floats) return avx512_vnni::make_kernel<Held, Bits, Levels>();
            break;
#elif defined(__aarch64__)
        case isa::neon: return neon::make_kernel<Held, Bits, Levels>();
#endif
        default: break;
    }
    return portable::make_kernel<Held, Bits, Levels>();
}

/// take(float_kernels) of `which`, or of the best set below it that has its own.
template <class Take>
auto take_float_kernels(isa which, const Take& take) {
    require_supported(which);
    switch (which) {
#if defined(__x86_64__)
        case isa::avx2:
        case isa::avx_vnni: return take(avx2::float_kernels{});
        case isa::avx512:
        case isa::avx512_vnni: return take(avx512::float_kernels{});
#elif defined(__aarch64__)
        case isa::neon: return take(neon::float_kernels{});
#endif
        default: return take(portable::float_kernels{});
    }
}

GPTQ_INLINE column_kernels find_column_kernels(isa which) {
    return take_float_kernels(which, [](auto set) { return set.columns(); });
}

GPTQ_INLINE weigh_kernels find_weigh_kernels(isa which) {
    return take_float_kernels(which, [](auto set) { return set.weighing(); });
}

}  // namespace gptq::kernels
