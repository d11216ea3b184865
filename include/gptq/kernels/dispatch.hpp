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

/// The kernel of `which` for codes of Bits = 2, 3, 4 or 8 bits. Throws unsupported_error where this machine cannot run
/// it.
template <held_as Held, int Bits>
kernel find_kernel(isa which) {
    require_supported(which);
    // Floats gain nothing from dot products of integers: those kernels need not be compiled twice.
    constexpr bool floats = Held == held_as::floats;
    if (floats && which == isa::avx_vnni) which = isa::avx2;
    if (floats && which == isa::avx512_vnni) which = isa::avx512;
    switch (which) {
#if defined(__x86_64__)
        case isa::avx2: return avx2::make_kernel<Held, Bits>();
        case isa::avx_vnni:
            if constexpr (!floats) return avx_vnni::make_kernel<Held, Bits>();
            break;
        case isa::avx512: return avx512::make_kernel<Held, Bits>();
        case isa::avx512_vnni:
            if constexpr (!floats) return avx512_vnni::make_kernel<Held, Bits>();
            break;
#elif defined(__aarch64__)
        case isa::neon: return neon::make_kernel<Held, Bits>();
#endif
        default: break;
    }
    return portable::make_kernel<Held, Bits>();
}

/// The kernels for codes of one number of bits. Code that knows this number when it is compiled gets the kernels of no
/// other: each takes a good part of a second to compile.
struct kernel_family {
    int bits;                   ///< that a code is held in: 2, 3, 4 or 8
    kernel (*find)(isa which);  ///< find_kernel
};

/// The family for codes of Bits bits, 2 to 8.
template <held_as Held, int Bits>
constexpr kernel_family family_of() {
    constexpr int held = held_bits(Bits);
    return {held, find_kernel<Held, held>};
}

/// The same for a number of bits known at run time. Throws unsupported_error where it is not 2 to 8.
template <held_as Held>
kernel_family find_family(int bits) {
    if (bits < 2 || bits > 8)
        throw unsupported_error("prepare: codes of " + std::to_string(bits) + " bits; there are kernels for 2 to 8");
    switch (held_bits(bits)) {
        case 2: return family_of<Held, 2>();
        case 3: return family_of<Held, 3>();
        case 4: return family_of<Held, 4>();
        default: return family_of<Held, 8>();
    }
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

/// f(r) for r in [first, last), compiled for `which`, which the machine has, or for the best set below it that gains from
/// more than the compiler's usual target.
template <class F>
void run_rows([[maybe_unused]] isa which, const F& f, std::size_t first, std::size_t last) {
#if defined(__x86_64__)
    if (which >= isa::avx512) return avx512::run_rows(f, first, last);
    if (which >= isa::avx2) return avx2::run_rows(f, first, last);
#endif
    portable::run_rows(f, first, last);
}

// Kernels are compiled wherever a product is: some seconds a file, if bits are known at run time only. A program of many
// files may define this macro in all of them, and have one that does not, which defines what is declared here.
#ifdef GPTQ_KERNELS_ELSEWHERE
#define GPTQ_DECLARE_KERNELS(held)                          \
    extern template kernel find_kernel<held, 2>(isa which); \
    extern template kernel find_kernel<held, 3>(isa which); \
    extern template kernel find_kernel<held, 4>(isa which); \
    extern template kernel find_kernel<held, 8>(isa which);
GPTQ_DECLARE_KERNELS(held_as::floats)
GPTQ_DECLARE_KERNELS(held_as::int16)
GPTQ_DECLARE_KERNELS(held_as::int8)
#undef GPTQ_DECLARE_KERNELS
#endif

}  // namespace gptq::kernels
