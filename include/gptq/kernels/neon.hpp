// The kernels for AArch64 processors with dot products (ARMv8.2 DotProd).
#pragma once

#if defined(__aarch64__)

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/weigh.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

namespace gptq::kernels::neon {

/// 16 lanes of 32 bits in four registers; portable.hpp says what each operation means.
struct vec {
    struct ints {
        uint32x4_t part[4];
    };
    struct floats {
        float32x4_t part[4];
    };

    static constexpr std::size_t tile_rows = 4;
    static constexpr std::size_t width = 1;
    static constexpr bool fuses = true;
    static constexpr bool splits = false;
    static constexpr std::size_t chains = 1;
    static constexpr std::size_t quad_chains = 1;
    static constexpr std::size_t quad_tile_rows = tile_rows;
    template <int Bits>
    static constexpr std::size_t prefetch_words = 512;
    static constexpr int table_bits = 0;
    static constexpr int largest_quad = 127;  // codes are taken for signed bytes

    template <class R, class F>
    static R map(const F& f) {
        return {{f(0), f(1), f(2), f(3)}};
    }

    static ints load(const std::uint32_t* p) {
        return map<ints>([=](int i) { return vld1q_u32(p + 4 * i); });
    }
    static void store(std::uint32_t* p, ints x) {
        for (int i = 0; i < 4; ++i) vst1q_u32(p + 4 * i, x.part[i]);
    }
    static floats load_floats(const float* p) {
        return map<floats>([=](int i) { return vld1q_f32(p + 4 * i); });
    }
    static void store_floats(float* p, floats x) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.part[i]);
    }
    static ints widen(const std::uint8_t* p) {
        const uint8x16_t bytes = vld1q_u8(p);
        const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
        return {{vmovl_u16(vget_low_u16(low)), vmovl_u16(vget_high_u16(low)), vmovl_u16(vget_low_u16(high)),
                 vmovl_u16(vget_high_u16(high))}};
    }
    static ints splat(std::uint32_t x) {
        return map<ints>([=](int) { return vdupq_n_u32(x); });
    }
    static floats splat_float(float x) {
        return map<floats>([=](int) { return vdupq_n_f32(x); });
    }

    static ints bit_and(ints a, ints b) {
        return map<ints>([&](int i) { return vandq_u32(a.part[i], b.part[i]); });
    }
    static ints bit_or(ints a, ints b) {
        return map<ints>([&](int i) { return vorrq_u32(a.part[i], b.part[i]); });
    }
    template <int Count>
    static ints shift_right(ints x) {
        return map<ints>([&](int i) {
            if constexpr (Count < 0)
                return vshlq_n_u32(x.part[i], -Count);
            else if constexpr (Count > 0)
                return vshrq_n_u32(x.part[i], Count);
            else
                return x.part[i];
        });
    }
    template <int Count>
    static ints shift_right_16(ints x) {
        return map<ints>(
            [&](int i) { return vreinterpretq_u32_u16(vshrq_n_u16(vreinterpretq_u16_u32(x.part[i]), Count)); });
    }

    static ints add(ints a, ints b) {
        return map<ints>([&](int i) { return vaddq_u32(a.part[i], b.part[i]); });
    }
    static ints multiply_ints(ints a, ints b) {
        return map<ints>([&](int i) { return vmulq_u32(a.part[i], b.part[i]); });
    }
    static floats to_floats(ints x) {
        return map<floats>([&](int i) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x.part[i])); });
    }
    template <int Bits>
    static floats low_bits_to_floats(ints x) {
        return to_floats(bit_and(x, splat((1u << Bits) - 1u)));
    }
    static floats look_up(floats table, ints x) {
        uint8x16x4_t entries;
        for (int i = 0; i < 4; ++i) entries.val[i] = vreinterpretq_u8_f32(table.part[i]);
        return map<floats>([&](int i) {
            // The four bytes of entry e are 4 e, 4 e + 1, ...
            const uint32x4_t at = vandq_u32(x.part[i], vdupq_n_u32(15));
            const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100u), at, vdupq_n_u32(0x04040404u));
            return vreinterpretq_f32_u8(vqtbl4q_u8(entries, vreinterpretq_u8_u32(bytes)));
        });
    }
    static floats gather(const float* table, ints x) {
        return map<floats>([&](int i) {
            const uint32x4_t at = x.part[i];
            const float found[4] = {table[vgetq_lane_u32(at, 0)], table[vgetq_lane_u32(at, 1)],
                                    table[vgetq_lane_u32(at, 2)], table[vgetq_lane_u32(at, 3)]};
            return vld1q_f32(found);
        });
    }
    static ints load_bytes(const std::uint8_t* p) {
        return map<ints>([=](int) { return vreinterpretq_u32_u8(vld1q_u8(p)); });
    }
    static ints look_up_bytes(ints table, ints x) {
        return map<ints>([&](int i) {
            return vreinterpretq_u32_u8(
                vqtbl1q_u8(vreinterpretq_u8_u32(table.part[i]), vreinterpretq_u8_u32(x.part[i])));
        });
    }
    static ints as_ints(floats x) {
        return map<ints>([&](int i) { return vreinterpretq_u32_f32(x.part[i]); });
    }
    static floats as_floats(ints x) {
        return map<floats>([&](int i) { return vreinterpretq_f32_u32(x.part[i]); });
    }

    static floats multiply(floats a, floats b) {
        return map<floats>([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
    }
    static floats add_floats(floats a, floats b) {
        return map<floats>([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
    }
    static floats divide(floats a, floats b) {
        return map<floats>([&](int i) { return vdivq_f32(a.part[i], b.part[i]); });
    }
    static floats minimum(floats a, floats b) {
        return map<floats>([&](int i) { return vminnmq_f32(a.part[i], b.part[i]); });
    }
    static floats maximum(floats a, floats b) {
        return map<floats>([&](int i) { return vmaxnmq_f32(a.part[i], b.part[i]); });
    }
    static floats multiply_add(floats a, floats b, floats c) {
        return map<floats>([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
    }

    static ints dot_pairs(ints sum, ints a, ints b) {
        return map<ints>([&](int i) {
            const int16x8_t x = vreinterpretq_s16_u32(a.part[i]), y = vreinterpretq_s16_u32(b.part[i]);
            const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
            return vaddq_u32(sum.part[i], vreinterpretq_u32_s32(vpaddq_s32(low, high)));
        });
    }

    static ints begin_quads(ints sum) { return sum; }
    static ints dot_quads(ints sum, ints codes, ints inputs) {
        return map<ints>([&](int i) {
            return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sum.part[i]),
                                                   vreinterpretq_s8_u32(codes.part[i]),
                                                   vreinterpretq_s8_u32(inputs.part[i])));
        });
    }
    static ints end_quads(ints, ints sum) { return sum; }
    static ints dot_bytes(ints sum, ints levels, ints inputs) { return dot_quads(sum, levels, inputs); }
};

#include <gptq/kernels/columns.inl>
#include <gptq/kernels/loops.inl>
#include <gptq/kernels/weigh.inl>

}  // namespace gptq::kernels::neon

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
