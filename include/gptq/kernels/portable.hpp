// The kernels in plain C++: the fallback, and what each vector operation of the other headers means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <gptq/kernels/columns.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/weigh.hpp>

namespace gptq::kernels::portable {

/// 16 lanes of 32 bits, in four vectors of the compilers' own kind. Lambdas make vectors from vectors only: they are
/// constexpr without being called so, and of some that do more nvcc cannot make code for a device.
struct vec {
    using word4 = std::uint32_t __attribute__((vector_size(16)));
    using int4 = std::int32_t __attribute__((vector_size(16)));
    using float4 = float __attribute__((vector_size(16)));
    struct ints {
        word4 part[4];
    };
    struct floats {
        float4 part[4];
    };

    static constexpr std::size_t tile_rows = 4;    // rows of a large tile, as many as the registers hold
    static constexpr std::size_t width = 1;        // vectors of a panel that are multiplied together, 1 or 2
    static constexpr bool fuses = false;           // a single row is multiplied by codes as they are unpacked
    static constexpr bool splits = false;          // a row of 16 bits is multiplied alone as bytes
    static constexpr std::size_t chains = 1;       // sums side by side that hide the latency of an addition
    static constexpr std::size_t quad_chains = 1;  // the same for dot_quads
    static constexpr std::size_t quad_tile_rows = tile_rows;  // the same for those of dot_quads
    static constexpr int largest_quad = 0;                    // dot_quads takes codes up to this
    static constexpr int table_bits = 0;                      // add_entry and digits are there, for up to so many bits
    /// How far ahead weights are asked for by kernels for a single row; 0 for not at all.
    template <int Bits>
    static constexpr std::size_t prefetch_words = 0;

    template <class Vector, class F>
    static Vector map(const F& f) {
        return {{f(0), f(1), f(2), f(3)}};
    }

    static ints load(const std::uint32_t* p) {
        ints x;
        __builtin_memcpy(&x, p, sizeof x);
        return x;
    }
    static void store(std::uint32_t* p, ints x) { __builtin_memcpy(p, &x, sizeof x); }
    static floats load_floats(const float* p) {
        floats x;
        __builtin_memcpy(&x, p, sizeof x);
        return x;
    }
    static void store_floats(float* p, floats x) { __builtin_memcpy(p, &x, sizeof x); }
    static ints widen(const std::uint8_t* p) {
        ints x;
        for (word4& part : x.part) {
            part = word4{p[0], p[1], p[2], p[3]};
            p += 4;
        }
        return x;
    }
    static ints splat(std::uint32_t x) {
        const word4 part = {x, x, x, x};
        return {{part, part, part, part}};
    }
    static floats splat_float(float x) {
        const float4 part = {x, x, x, x};
        return {{part, part, part, part}};
    }

    static ints bit_and(ints a, ints b) {
        return map<ints>([&](int i) { return a.part[i] & b.part[i]; });
    }
    static ints bit_or(ints a, ints b) {
        return map<ints>([&](int i) { return a.part[i] | b.part[i]; });
    }
    /// To the left if Count is negative.
    template <int Count>
    static ints shift_right(ints x) {
        return map<ints>([&](int i) {
            if constexpr (Count < 0)
                return x.part[i] << -Count;
            else
                return x.part[i] >> Count;
        });
    }
    /// Each half of a lane by itself.
    template <int Count>
    static ints shift_right_16(ints x) {
        return bit_and(shift_right<Count>(x), splat((0xffffu >> Count) * 0x10001u));
    }

    static ints add(ints a, ints b) {
        return map<ints>([&](int i) { return a.part[i] + b.part[i]; });
    }
    /// The lower 32 bits of the products.
    static ints multiply_ints(ints a, ints b) {
        return map<ints>([&](int i) { return a.part[i] * b.part[i]; });
    }
    /// Lanes as signed integers.
    static floats to_floats(ints x) {
        floats y;
        for (int i = 0; i < 4; ++i) y.part[i] = __builtin_convertvector(reinterpret_cast<int4>(x.part[i]), float4);
        return y;
    }
    /// The lowest Bits bits of each lane.
    template <int Bits>
    static floats low_bits_to_floats(ints x) {
        return to_floats(bit_and(x, splat((1u << Bits) - 1u)));
    }
    /// The entries of a table of 16 that the lowest four bits of each lane name.
    static floats look_up(floats table, ints x) {
        float entries[16];
        store_floats(entries, table);
        return gather(entries, bit_and(x, splat(15)));
    }
    /// The entries of a table in memory that the lanes name.
    static floats gather(const float* table, ints x) {
        floats found;
        for (int i = 0; i < 4; ++i) {
            const word4 at = x.part[i];
            found.part[i] = float4{table[at[0]], table[at[1]], table[at[2]], table[at[3]]};
        }
        return found;
    }
    /// A table of 16 bytes, and those of its entries that the bytes of x, each below 16, name.
    static ints load_bytes(const std::uint8_t* p) {
        word4 table;
        __builtin_memcpy(&table, p, sizeof table);
        return {{table, table, table, table}};
    }
    static ints look_up_bytes(ints table, ints x) {
        std::uint8_t entries[16], bytes[64];
        __builtin_memcpy(entries, &table, sizeof entries);
        __builtin_memcpy(bytes, &x, sizeof bytes);
        for (std::uint8_t& byte : bytes) byte = entries[byte];
        __builtin_memcpy(&x, bytes, sizeof bytes);
        return x;
    }
    static ints as_ints(floats x) {
        return map<ints>([&](int i) { return reinterpret_cast<word4>(x.part[i]); });
    }
    static floats as_floats(ints x) {
        return map<floats>([&](int i) { return reinterpret_cast<float4>(x.part[i]); });
    }

    static floats multiply(floats a, floats b) {
        return map<floats>([&](int i) { return a.part[i] * b.part[i]; });
    }
    static floats add_floats(floats a, floats b) {
        return map<floats>([&](int i) { return a.part[i] + b.part[i]; });
    }
    static floats divide(floats a, floats b) {
        return map<floats>([&](int i) { return a.part[i] / b.part[i]; });
    }
    /// The smaller, or b where a is no number.
    static floats minimum(floats a, floats b) {
        return map<floats>([&](int i) { return a.part[i] < b.part[i] ? a.part[i] : b.part[i]; });
    }
    /// The larger, or b where a is no number.
    static floats maximum(floats a, floats b) {
        return map<floats>([&](int i) { return a.part[i] > b.part[i] ? a.part[i] : b.part[i]; });
    }
    /// a * b + c.
    static floats multiply_add(floats a, floats b, floats c) {
        return map<floats>([&](int i) { return a.part[i] * b.part[i] + c.part[i]; });
    }

    /// sum + the dot product of the two signed 16-bit integers of each lane.
    static ints dot_pairs(ints sum, ints a, ints b) {
        return map<ints>([&](int i) {
            const auto x = reinterpret_cast<int4>(a.part[i]), y = reinterpret_cast<int4>(b.part[i]);
            const int4 low = (x << 16 >> 16) * (y << 16 >> 16), high = (x >> 16) * (y >> 16);
            return sum.part[i] + reinterpret_cast<word4>(low) + reinterpret_cast<word4>(high);
        });
    }

    // Where largest_quad is not 0, the sums of a run are dot_quads(... dot_quads(begin_quads(sum), codes, inputs) ...),
    // the dot products of the four unsigned bytes of a lane of codes with the four signed ones of inputs, and
    // end_quads(sum, that) adds them up in 32 bits.
    static ints begin_quads(ints sum) { return sum; }
    static ints dot_quads(ints sum, ints, ints) { return sum; }
    static ints end_quads(ints, ints sum) { return sum; }
    /// The same in sums of 32 bits, for bytes up to level_table::largest_byte in place of codes.
    static ints dot_bytes(ints sum, ints, ints) { return sum; }
};

#include <gptq/kernels/columns.inl>
#include <gptq/kernels/loops.inl>
#include <gptq/kernels/weigh.inl>

}  // namespace gptq::kernels::portable
