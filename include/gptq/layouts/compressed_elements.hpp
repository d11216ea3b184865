// The layouts of compressed-tensors checkpoints whose codes are numbers by themselves, not fields of 32-bit words.
//
//      format                  codes                    scales
//      int-quantized           weight  I8 [N, K]        weight_scale  floats [N, 1], or [1] for the whole tensor
//      float-quantized         weight  F8_E4M3 [N, K]   the same, or [ceil(N/128), ceil(K/128)] for blocks
//      mxfp4-pack-quantized    weight_packed            weight_scale  U8 [N, K/32], exponents of 2 plus 127
//                                U8 [N, K/2]
//      nvfp4-pack-quantized    the same                 weight_scale  F8_E4M3 [N, K/16], divided by the one number of
//                                                       weight_global_scale  F32 [1]
//
// Two numbers of FP4 share a byte, the first one in its lower half. Codes are in the order of the values, as in the
// grids; what files store are a sign and a magnitude, or two's complements.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/grids/fp4.hpp>
#include <gptq/grids/fp8_e4m3.hpp>
#include <gptq/grids/mxfp4.hpp>
#include <gptq/grids/nvfp4.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/layouts/parts.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq::layout {

/// How scales are stored.
enum class scale_form { floats, exponents, fp8_of_tensor };

/// Numbers with a sign bit, the magnitudes 0 to `Largest` being valid, as codes in the order of their values.
template <int Bits, unsigned Largest>
struct sign_and_magnitude {
    /// Nothing for bits that stand for no number.
    static constexpr std::optional<std::uint8_t> code_of(unsigned stored) {
        const unsigned sign = 1u << (Bits - 1), magnitude = stored & (sign - 1);
        if (magnitude > Largest) return std::nullopt;
        return static_cast<std::uint8_t>((stored & sign) != 0 ? Largest - magnitude : Largest + magnitude);
    }
    static constexpr std::uint8_t stored_of(unsigned code) {
        const unsigned bits = code < Largest ? 1u << (Bits - 1) | (Largest - code) : std::min(code - Largest, Largest);
        return static_cast<std::uint8_t>(bits);
    }
};

/// What the layouts have in common; beside it, each has code_of, stored_of and
///  - code_type and in_byte, the type of the codes' tensor and how many a byte holds
///  - numbers, strategy and scale_type, the words of compressed-tensors for what it stores; read_strategies, those for
///    what else is read
///  - rounds_inputs, which says that runtimes round the inputs of each token to the same numbers
///  - grid, where the codes are levels of one, and not affine.
template <int Bits, int GroupSize>
struct element_layout {
    static constexpr int bits = Bits;
    static constexpr int group_size = GroupSize;  ///< the one that is written; -1: one group per row
    static constexpr bool supports(int wanted) { return wanted == Bits; }
    static constexpr bool reads_groups_of(int size) { return size == GroupSize; }
    static void check_shape(std::size_t out_features, std::size_t in_features) {
        if (Bits == 8 || in_features % 2 == 0) return;
        throw shape_error("layout fp4: a layer of [out_features, in_features] = " +
                          shape_string(out_features, in_features) + " has an odd number of input features");
    }
};

/// Numbers that are bytes, with a scale for each row.
struct whole_bytes : element_layout<8, -1> {
    static constexpr layer_parts parts{".weight", "", ".weight_scale", ""};
    static constexpr std::size_t in_byte = 1;
    static constexpr scale_form scales = scale_form::floats;
    static constexpr std::string_view strategy = "channel", scale_type = "";
    static constexpr bool rounds_inputs = true;
};

/// compressed-tensors "int-quantized": signed bytes, for products of integers (W8A8).
struct int_quantized : whole_bytes {
    static constexpr io::dtype code_type = io::dtype::i8;
    static constexpr std::string_view numbers = "int";
    static constexpr std::array<std::string_view, 2> read_strategies{"channel", "tensor"};
    static constexpr std::optional<std::uint8_t> code_of(unsigned stored) {
        return static_cast<std::uint8_t>(stored ^ 0x80u);
    }
    static constexpr std::uint8_t stored_of(unsigned code) { return static_cast<std::uint8_t>(code ^ 0x80u); }
};

/// compressed-tensors "float-quantized": FP8, E4M3.
struct float_quantized : whole_bytes, sign_and_magnitude<8, fp8_e4m3_magnitudes::largest_bits> {
    using grid = fp8_e4m3;
    static constexpr io::dtype code_type = io::dtype::f8_e4m3;
    static constexpr std::string_view numbers = "float";
    static constexpr std::array<std::string_view, 3> read_strategies{"channel", "tensor", "block"};
};

/// Numbers of FP4, two in a byte, with a scale for each group.
template <int GroupSize>
struct fp4_pairs : element_layout<4, GroupSize>, sign_and_magnitude<4, 7> {
    static constexpr layer_parts parts{".weight_packed", "", ".weight_scale", ""};
    static constexpr io::dtype code_type = io::dtype::u8;
    static constexpr std::size_t in_byte = 2;
    static constexpr std::string_view numbers = "float";
    static constexpr bool rounds_inputs = false;
};

/// compressed-tensors "mxfp4-pack-quantized".
struct mxfp4_packed : fp4_pairs<32> {
    using grid = mxfp4;
    static constexpr scale_form scales = scale_form::exponents;
    static constexpr std::string_view strategy = "group", scale_type = "torch.uint8";
    static constexpr std::array<std::string_view, 1> read_strategies{strategy};
};

/// compressed-tensors "nvfp4-pack-quantized".
struct nvfp4_packed : fp4_pairs<16> {
    using grid = nvfp4;
    static constexpr scale_form scales = scale_form::fp8_of_tensor;
    static constexpr std::string_view strategy = "tensor_group", scale_type = "torch.float8_e4m3fn";
    static constexpr std::array<std::string_view, 1> read_strategies{strategy};
};

/// Whether L is one of these.
template <class L>
inline constexpr bool holds_elements = requires {
    L::in_byte;
};

/// Whether a layer's codes are levels of L's grid, and not affine.
template <class L>
inline constexpr bool has_grid = requires {
    typename L::grid;
};

/// What the codes of L stand for: 2^bits levels, or none where they are affine.
template <class L>
std::vector<float> levels_in_files() {
    if constexpr (has_grid<L>)
        return levels_of<L::bits, typename L::grid>();
    else
        return {};
}

}  // namespace gptq::layout
