// The kernels for x86-64 processors with AVX2 and AVX-VNNI: 256-bit dot products of bytes and of 16-bit integers.
#pragma once

#if defined(__x86_64__)

#include <gptq/kernels/avx2.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")
#endif

namespace gptq::kernels::avx_vnni {

struct vec : avx2::vec {
    static constexpr std::size_t quad_chains = 4;
    static constexpr int largest_quad = 255;

    static ints dot_pairs(ints sum, ints a, ints b) {
        return {_mm256_dpwssd_avx_epi32(sum.low, a.low, b.low), _mm256_dpwssd_avx_epi32(sum.high, a.high, b.high)};
    }
    static ints begin_quads(ints sum) { return sum; }
    static ints dot_quads(ints sum, ints codes, ints inputs) {
        return {_mm256_dpbusd_avx_epi32(sum.low, codes.low, inputs.low),
                _mm256_dpbusd_avx_epi32(sum.high, codes.high, inputs.high)};
    }
    static ints end_quads(ints, ints sum) { return sum; }
    static ints dot_bytes(ints sum, ints levels, ints inputs) { return dot_quads(sum, levels, inputs); }
};

#include <gptq/kernels/loops.inl>

}  // namespace gptq::kernels::avx_vnni

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
