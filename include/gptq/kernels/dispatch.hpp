// The kernels by the names of instruction sets and numbers of bits.
#pragma once

#include <string>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/isa.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/weigh.hpp>

namespace gptq::kernels {

/// The kernel of `which` for codes of Bits = 2, 3, 4 or 8 bits that stand for such levels; levels as bytes are for 4
/// bits. Throws unsupported_error where this machine cannot run it.
template <held_as Held, int Bits, levels_as Levels>
kernel find_kernel(isa which);

/// The solver's kernels of `which`, or of the best set below it that has its own. Throws as find_kernel().
GPTQ_INLINE column_kernels find_column_kernels(isa which);

/// The kernels of attention likewise.
GPTQ_INLINE weigh_kernels find_weigh_kernels(isa which);

/// The kernels for codes of one number of bits. Code that knows this number when it is compiled gets the kernels of no
/// other: each takes a good part of a second to compile.
struct kernel_family {
    int bits;                   ///< that a code is held in: 2, 3, 4 or 8
    kernel (*find)(isa which);  ///< find_kernel
};

/// The family for codes of Bits bits, 2 to 8, that stand for themselves.
template <held_as Held, int Bits>
constexpr kernel_family family_of() {
    constexpr int held = held_bits(Bits);
    return {held, find_kernel<Held, held, levels_as::codes>};
}

/// The family for codes of Bits bits, 2 to 8, and levels of any kind; bytes for 4 bits and integer inputs only.
template <held_as Held, int Bits>
constexpr kernel_family family_of(levels_as levels) {
    constexpr int held = held_bits(Bits);
    if constexpr (held == 4 && Held != held_as::floats)
        if (levels == levels_as::bytes) return {held, find_kernel<Held, held, levels_as::bytes>};
    if (levels == levels_as::floats) return {held, find_kernel<Held, held, levels_as::floats>};
    return family_of<Held, Bits>();
}

/// The same for a number of bits known at run time. Throws unsupported_error where it is not 2 to 8.
template <held_as Held>
kernel_family find_family(int bits, levels_as levels) {
    if (bits < 2 || bits > 8)
        throw unsupported_error("prepare: codes of " + std::to_string(bits) + " bits; there are kernels for 2 to 8");
    switch (held_bits(bits)) {
        case 2: return family_of<Held, 2>(levels);
        case 3: return family_of<Held, 3>(levels);
        case 4: return family_of<Held, 4>(levels);
        default: return family_of<Held, 8>(levels);
    }
}

}  // namespace gptq::kernels

#ifndef GPTQ_COMPILED
#include <gptq/kernels/find_kernel.hpp>
#endif
