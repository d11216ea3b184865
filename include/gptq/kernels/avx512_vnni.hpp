// The kernels for x86-64 processors with AVX-512 and its VNNI: dot products of bytes and of 16-bit integers.
#pragma once

#if defined(__x86_64__)

#include <gptq/kernels/avx512.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace gptq::kernels::avx512_vnni {

struct vec : avx512::vec {
    static constexpr std::size_t quad_chains = 2;
    static constexpr std::size_t quad_tile_rows = tile_rows;
    static constexpr int largest_quad = 255;
    static constexpr bool splits = true;

    // Not by intrinsics: g++ 12 copies the sums from register to register, and to memory, around those.
    static ints dot_pairs(ints sum, ints a, ints b) {
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
    }
    static ints begin_quads(ints sum) { return sum; }
    static ints dot_quads(ints sum, ints codes, ints inputs) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(inputs));
        return sum;
    }
    static ints end_quads(ints, ints sum) { return sum; }
    static ints dot_bytes(ints sum, ints levels, ints inputs) { return dot_quads(sum, levels, inputs); }
};

#include <gptq/kernels/loops.inl>

}  // namespace gptq::kernels::avx512_vnni

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
