// The kernels for x86-64 processors with AVX2 and FMA.
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
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace gptq::kernels::avx2 {

/// 16 lanes of 32 bits in two registers; portable.hpp says what each operation means.
struct vec {
    struct ints {
        __m256i low, high;
    };
    struct floats {
        __m256 low, high;
    };

    static constexpr std::size_t tile_rows = 4;
    static constexpr std::size_t width = 1;
    static constexpr bool fuses = true;
    static constexpr bool splits = false;
    static constexpr std::size_t chains = 4;
    static constexpr std::size_t quad_chains = 1;
    static constexpr std::size_t quad_tile_rows = tile_rows;
    template <int Bits>
    static constexpr std::size_t prefetch_words = 512;
    static constexpr int table_bits = 0;
    static constexpr int largest_quad = 15;  // 32 products of it and a byte fit into 16 bits

    static ints load(const std::uint32_t* p) {
        const auto* q = reinterpret_cast<const __m256i*>(p);
        return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
    }
    static void store(std::uint32_t* p, ints x) {
        auto* q = reinterpret_cast<__m256i*>(p);
        _mm256_storeu_si256(q, x.low);
        _mm256_storeu_si256(q + 1, x.high);
    }
    static floats load_floats(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static void store_floats(float* p, floats x) {
        _mm256_storeu_ps(p, x.low);
        _mm256_storeu_ps(p + 8, x.high);
    }
    static ints widen(const std::uint8_t* p) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
    }
    static ints splat(std::uint32_t x) {
        const __m256i all = _mm256_set1_epi32(static_cast<int>(x));
        return {all, all};
    }
    static floats splat_float(float x) {
        const __m256 all = _mm256_set1_ps(x);
        return {all, all};
    }

    static ints bit_and(ints a, ints b) { return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
    static ints bit_or(ints a, ints b) { return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}; }
    template <int Count>
    static ints shift_right(ints x) {
        if constexpr (Count < 0)
            return {_mm256_slli_epi32(x.low, -Count), _mm256_slli_epi32(x.high, -Count)};
        else
            return {_mm256_srli_epi32(x.low, Count), _mm256_srli_epi32(x.high, Count)};
    }
    template <int Count>
    static ints shift_right_16(ints x) {
        return {_mm256_srli_epi16(x.low, Count), _mm256_srli_epi16(x.high, Count)};
    }

    static ints add(ints a, ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
    static ints multiply_ints(ints a, ints b) {
        return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
    }
    static floats to_floats(ints x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }
    template <int Bits>
    static floats low_bits_to_floats(ints x) {
        return to_floats(bit_and(x, splat((1u << Bits) - 1u)));
    }
    static floats look_up(floats table, ints x) {
        const auto entries = [&](__m256i at) {
            const __m256 upper_half = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28));  // by its sign bit
            return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, at), _mm256_permutevar8x32_ps(table.high, at),
                                    upper_half);
        };
        return {entries(x.low), entries(x.high)};
    }
    static floats gather(const float* table, ints x) {
        return {_mm256_i32gather_ps(table, x.low, 4), _mm256_i32gather_ps(table, x.high, 4)};
    }
    static ints load_bytes(const std::uint8_t* p) {
        const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {all, all};
    }
    static ints look_up_bytes(ints table, ints x) {
        return {_mm256_shuffle_epi8(table.low, x.low), _mm256_shuffle_epi8(table.high, x.high)};
    }
    static ints as_ints(floats x) { return {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)}; }
    static floats as_floats(ints x) { return {_mm256_castsi256_ps(x.low), _mm256_castsi256_ps(x.high)}; }

    static floats multiply(floats a, floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
    static floats add_floats(floats a, floats b) {
        return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
    }
    static floats divide(floats a, floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
    static floats minimum(floats a, floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
    static floats maximum(floats a, floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
    static floats multiply_add(floats a, floats b, floats c) {
        return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
    }

    static ints dot_pairs(ints sum, ints a, ints b) {
        return add(sum, {_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high)});
    }

    // The sums of a run are 16 bits wide.
    static ints begin_quads(ints) { return splat(0); }
    static ints dot_quads(ints sum, ints codes, ints inputs) {
        return {_mm256_add_epi16(sum.low, _mm256_maddubs_epi16(codes.low, inputs.low)),
                _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(codes.high, inputs.high))};
    }
    static ints dot_bytes(ints sum, ints levels, ints inputs) {
        const ints pairs = {_mm256_maddubs_epi16(levels.low, inputs.low),
                            _mm256_maddubs_epi16(levels.high, inputs.high)};
        return dot_pairs(sum, pairs, splat(0x00010001u));
    }
    static ints end_quads(ints before, ints sum) { return dot_pairs(before, sum, splat(0x00010001u)); }
};

#include <gptq/kernels/columns.inl>
#include <gptq/kernels/loops.inl>
#include <gptq/kernels/weigh.inl>

}  // namespace gptq::kernels::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
