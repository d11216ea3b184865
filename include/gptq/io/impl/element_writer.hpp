// Hands layers of the layouts of <gptq/layouts/compressed_elements.hpp> to a checkpoint.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/grids/fp8_e4m3.hpp>
#include <gptq/grids/nvfp4.hpp>
#include <gptq/half.hpp>
#include <gptq/io/impl/element_tensors.hpp>
#include <gptq/io/impl/tensor_parts.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io::detail {

/// Throws where L cannot hold the layer exactly.
template <class L>
void check_elements(const quantized_layer& q) {
    const auto refuse = [](const std::string& why) {
        throw unsupported_error("layout: " + why + "; choose another format");
    };
    if (q.bits != L::bits)
        refuse("it holds " + std::to_string(L::bits) + " bits a code, not " + std::to_string(q.bits));
    L::check_shape(q.out_features(), q.in_features());
    if (q.levels != layout::levels_in_files<L>())
        refuse("the codes of this layer stand for other numbers than the format's");
    gptq::detail::check_range(view_of(q.codes), 0, (1 << L::bits) - 1, "code", "column", "");
    if (!gptq::detail::all_equal(q.zeros, layout::has_grid<L> ? 0 : 1 << (L::bits - 1)))
        refuse("it holds symmetric layers, and this one has zero points");
    const bool groups =
        L::group_size == -1 ? q.groups() == 1 : q.group_features == static_cast<std::size_t>(L::group_size);
    if (!groups || !has_plain_groups(q))
        refuse(L::group_size == -1
                   ? "it holds one scale for each row"
                   : "it holds groups of " + std::to_string(L::group_size) + " neighbouring input features");
}

/// A scale as the byte that stands for it; throws format_error where none does.
template <class L>
std::uint8_t byte_of_scale(float scale) {
    if constexpr (L::scales == layout::scale_form::exponents) {
        const int exponent = std::ilogb(scale) + 127;
        if (scale > 0.0f && exponent >= 0 && exponent < 255 && std::ldexp(1.0f, exponent - 127) == scale)
            return static_cast<std::uint8_t>(exponent);
        throw format_error("the scale " + std::to_string(scale) + " is no power of two");
    } else {
        const float number = scale / fp8_scale::unit;
        const auto code = fp8_e4m3::encode<8>(number, {});
        if (fp8_e4m3_table::values[code] == number) return fp8_number::stored_of(code);
        throw format_error("the scale " + std::to_string(scale) + " is no FP8 number times 2^-7");
    }
}

/// The scales of a layer and what belongs to them.                                                          [N, G]
template <class L>
void write_element_scales(const tensor_sink& sink, std::string_view module, const tensor2<float>& scales) {
    const std::string name = names_of<L>(module).scales;
    const std::size_t rows = scales.shape()[0], cols = scales.shape()[1];
    if constexpr (L::scales == layout::scale_form::floats) {
        const auto is_half = [](float x) { return round_to_half(x) == x; };
        if (!std::all_of(scales.begin(), scales.end(), is_half)) return add_matrix(sink, name, dtype::f32, scales);
        auto halves = make_tensor2<half>(rows, cols);
        std::transform(scales.begin(), scales.end(), halves.begin(), [](float x) { return to_half(x); });
        add_matrix(sink, name, dtype::f16, halves);
    } else {
        constexpr bool exponents = L::scales == layout::scale_form::exponents;
        auto bytes = make_tensor2<std::uint8_t>(rows, cols);
        std::transform(scales.begin(), scales.end(), bytes.begin(), byte_of_scale<L>);
        add_matrix(sink, name, exponents ? dtype::u8 : dtype::f8_e4m3, bytes);
        const std::array<float, 1> divisor{1.0f / fp8_scale::unit};
        if (!exponents) add_vector<float>(sink, std::string(module) + ".weight_global_scale", dtype::f32, divisor);
    }
}

template <class L>
void write_elements(const tensor_sink& sink, std::string_view module, const quantized_layer& q) {
    naming("module " + std::string(module), [&] {
        check_elements<L>(q);
        const std::size_t K = q.in_features();
        auto stored = make_tensor2<std::uint8_t>(q.out_features(), K / L::in_byte);
        for (auto& byte : stored) byte = 0;
        for (std::size_t n = 0; n < q.out_features(); ++n)
            for (std::size_t k = 0; k < K; ++k) {
                const unsigned bits = L::stored_of(q.codes(n, k));
                std::uint8_t& byte = stored(n, k / L::in_byte);
                byte = static_cast<std::uint8_t>(L::in_byte == 1 ? bits : byte | bits << (4 * (k % 2)));
            }
        add_matrix(sink, names_of<L>(module).codes, L::code_type, stored);
        write_element_scales<L>(sink, module, q.scales);
    });
}

}  // namespace gptq::io::detail
