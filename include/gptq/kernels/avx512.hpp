// The kernels for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/weigh.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

namespace gptq::kernels::avx512 {

/// 16 lanes of 32 bits in one register; portable.hpp says what each operation means.
struct vec {
    using ints = __m512i;
    using floats = __m512;

    /// Intrinsics without a mask make g++ 12 warn of uninitialized values in its own header (GCC bug 105593).
    static constexpr __mmask16 all = 0xffff;

    static constexpr std::size_t tile_rows = 12;
    static constexpr std::size_t width = 2;
    static constexpr bool fuses = true;
    static constexpr bool splits = false;
    static constexpr std::size_t chains = 2;
    static constexpr std::size_t quad_chains = 1;
    static constexpr std::size_t quad_tile_rows = 8;
    // Where codes take little work, Zen 4 asks for lines early enough by itself, and 512 words ahead cost a tenth of
    // the rate; for 2 and 3 bits they are worth as much.
    template <int Bits>
    static constexpr std::size_t prefetch_words = Bits < 4 ? 512 : 0;
    static constexpr int table_bits = 3;
    static constexpr int largest_quad = 15;  // 32 products of it and a byte fit into 16 bits

    /// Left to itself, g++ puts additions off until it has no registers left for what is to be added.
    template <class Register>
    static Register at_once(Register sum) {
        __asm__("" : "+v"(sum));
        return sum;
    }

    static ints load(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
    static void store(std::uint32_t* p, ints x) { _mm512_storeu_si512(p, x); }
    static floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
    static void store_floats(float* p, floats x) { _mm512_storeu_ps(p, x); }
    static ints widen(const std::uint8_t* p) {
        return _mm512_maskz_cvtepu8_epi32(all, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static ints splat(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
    static floats splat_float(float x) { return _mm512_set1_ps(x); }

    static ints bit_and(ints a, ints b) { return _mm512_and_si512(a, b); }
    static ints bit_or(ints a, ints b) { return _mm512_or_si512(a, b); }
    template <int Count>
    static ints shift_right(ints x) {
        if constexpr (Count < 0)
            return _mm512_maskz_slli_epi32(all, x, -Count);
        else
            return _mm512_maskz_srli_epi32(all, x, Count);
    }
    template <int Count>
    static ints shift_right_16(ints x) {
        return _mm512_srli_epi16(x, Count);
    }

    static ints add(ints a, ints b) { return _mm512_add_epi32(a, b); }
    static ints multiply_ints(ints a, ints b) { return _mm512_mullo_epi32(a, b); }
    static floats to_floats(ints x) { return _mm512_maskz_cvtepi32_ps(all, x); }
    static ints as_ints(floats x) { return _mm512_castps_si512(x); }
    static floats as_floats(ints x) { return _mm512_castsi512_ps(x); }

    static floats multiply(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static floats add_floats(floats a, floats b) { return _mm512_add_ps(a, b); }
    static floats divide(floats a, floats b) { return _mm512_div_ps(a, b); }
    static floats minimum(floats a, floats b) { return _mm512_maskz_min_ps(all, a, b); }
    static floats maximum(floats a, floats b) { return _mm512_maskz_max_ps(all, a, b); }
    static floats multiply_add(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

    template <int Bits, std::size_t Position, int Weight>
    static floats digits() {
        constexpr auto entry = [](int i) {
            return static_cast<float>((i >> (static_cast<int>(Position) * Bits) & ((1 << Bits) - 1)) * Weight);
        };
        return _mm512_setr_ps(entry(0), entry(1), entry(2), entry(3), entry(4), entry(5), entry(6), entry(7), entry(8),
                              entry(9), entry(10), entry(11), entry(12), entry(13), entry(14), entry(15));
    }
    static floats look_up(floats table, ints x) { return _mm512_maskz_permutexvar_ps(all, x, table); }
    static floats gather(const float* table, ints x) {
        return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), all, x, table, 4);
    }
    static ints load_bytes(const std::uint8_t* p) {
        return _mm512_maskz_broadcast_i32x4(all, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static ints look_up_bytes(ints table, ints x) { return _mm512_shuffle_epi8(table, x); }
    static floats add_entry(floats sum, floats table, ints x) { return at_once(add_floats(sum, look_up(table, x))); }

    /// Up to 4 bits are looked up in a table, which takes no mask: the permutation reads the lowest four bits only.
    template <int Bits>
    static floats low_bits_to_floats(ints x) {
        if constexpr (Bits <= 4)
            return look_up(digits<Bits, 0, 1>(), x);
        else
            return to_floats(_mm512_and_si512(x, _mm512_set1_epi32((1 << Bits) - 1)));
    }

    static ints dot_pairs(ints sum, ints a, ints b) { return at_once(_mm512_add_epi32(sum, _mm512_madd_epi16(a, b))); }

    // The sums of a run are 16 bits wide.
    static ints begin_quads(ints) { return _mm512_setzero_si512(); }
    static ints dot_quads(ints sum, ints codes, ints inputs) {
        return at_once(_mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, inputs)));
    }
    static ints dot_bytes(ints sum, ints levels, ints inputs) {
        return dot_pairs(sum, _mm512_maddubs_epi16(levels, inputs), splat(0x00010001u));
    }
    static ints end_quads(ints before, ints sum) { return dot_pairs(before, sum, splat(0x00010001u)); }
};

#include <gptq/kernels/columns.inl>
#include <gptq/kernels/loops.inl>
#include <gptq/kernels/weigh.inl>

}  // namespace gptq::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
