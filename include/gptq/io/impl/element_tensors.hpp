// Layers of the layouts of <gptq/layouts/compressed_elements.hpp> in a checkpoint, both ways.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/grids/fp8_e4m3.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/io/impl/tensor_parts.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/settings.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io::detail {

/// The rows of a matrix of bytes, two codes a byte or one.
inline tensor2<std::uint8_t> read_bytes(const model_folder& folder, const std::string& name, dtype type) {
    const tensor_info& info = typed_tensor(folder, name, type, 2);
    auto bytes = make_tensor2<std::uint8_t>(info.shape[0], info.shape[1]);
    info.bytes.read(std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
    return bytes;
}

inline non_finite_error no_number(const model_folder& folder, const std::string& name, std::size_t row,
                                  std::size_t column) {
    return non_finite_error(folder.describe(name) + ": what is stored at row " + std::to_string(row) + ", column " +
                            std::to_string(column) + " stands for no number");
}

using fp8_number = layout::sign_and_magnitude<8, fp8_e4m3_magnitudes::largest_bits>;

/// What a byte of FP8 stands for; NaN where it stands for no number.
inline float value_of_fp8(std::uint8_t stored) {
    const auto code = fp8_number::code_of(stored);
    return code ? fp8_e4m3_table::values[*code] : std::numeric_limits<float>::quiet_NaN();
}

/// The number that the scales of a tensor are divided by.
inline float read_tensor_scale(const model_folder& folder, const std::string& name) {
    const auto numbers = folder.read_vector(name);
    if (numbers.size() == 1 && numbers(0) != 0.0f) return numbers(0);
    throw format_error(folder.describe(name) + ": must be one number other than 0");
}

/// Scales of floats: of each row, of the whole tensor, or of blocks of 128 rows.                          [R, C]
inline tensor2<float> read_float_scales(const model_folder& folder, const std::string& name) {
    if (folder.tensor(name).shape.size() == 2) return folder.read_matrix(name);
    const auto column = folder.read_vector(name);
    auto scales = make_tensor2<float>(column.size(), 1);
    for (std::size_t n = 0; n < column.size(); ++n) scales(n, 0) = column(n);
    return scales;
}

/// The scales as the file has them, of rows or of what rows share.                                             [R, C]
template <class L>
tensor2<float> stored_scales(const model_folder& folder, const std::string& name) {
    if constexpr (L::scales == layout::scale_form::floats) {
        return read_float_scales(folder, name);
    } else {
        constexpr bool exponents = L::scales == layout::scale_form::exponents;
        const auto bytes = read_bytes(folder, name, exponents ? dtype::u8 : dtype::f8_e4m3);
        auto scales = make_tensor2<float>(bytes.shape()[0], bytes.shape()[1]);
        const float divisor =
            exponents ? 1.0f : read_tensor_scale(folder, name.substr(0, name.size() - 6) + "_global_scale");
        for (std::size_t i = 0; i < bytes.size(); ++i)
            scales.data()[i] =
                exponents ? std::ldexp(1.0f, bytes.data()[i] - 127) : value_of_fp8(bytes.data()[i]) / divisor;
        return scales;
    }
}

/// Fills in the scales of a layer, each of which times the largest level is a number.
template <class L>
void read_element_scales(const model_folder& folder, const std::string& name, const quantize_settings& settings,
                         quantized_layer& q) {
    constexpr std::size_t block = 128;
    const auto stored = stored_scales<L>(folder, name);
    const std::size_t rows = stored.shape()[0], N = q.out_features();
    const bool blocks = settings.group_size == static_cast<int>(block) && rows == group_count(N, block);
    const bool one = L::scales == layout::scale_form::floats && rows == 1;
    if (stored.shape()[1] != q.groups() || (rows != N && !one && !blocks))
        throw shape_error(folder.describe(name) + ": has the shape " + shape_text(folder.tensor(name).shape) +
                          ", but there are " + std::to_string(N) + " output features in " + std::to_string(q.groups()) +
                          " groups");
    const float largest = q.levels.empty() ? 255.0f : q.levels.back();
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t g = 0; g < q.groups(); ++g) {
            q.scales(n, g) = stored(rows == N ? n : (one ? 0 : n / block), g);
            if (!std::isfinite(q.scales(n, g) * largest)) throw no_number(folder, name, n, g);
        }
}

/// Zero points of affine layers, if the file has any; they are signed, too.
template <class L>
void read_element_zeros(const model_folder& folder, const std::string& name, quantized_layer& q) {
    constexpr std::uint8_t middle = layout::has_grid<L> ? 0 : 1u << (L::bits - 1);
    for (auto& zero : q.zeros) zero = middle;
    q.sym = !layout::has_grid<L>;
    if (layout::has_grid<L> || !folder.contains(name)) return;
    const auto stored = read_bytes(folder, name, dtype::i8);
    check_extents(folder, folder.tensor(name), {q.out_features(), q.groups()}, "zero points of its layer");
    for (std::size_t i = 0; i < stored.size(); ++i) q.zeros.data()[i] = *L::code_of(stored.data()[i]);
    q.sym = gptq::detail::all_equal(q.zeros, middle);
}

template <class L>
quantized_layer read_elements(const model_folder& folder, std::string_view module, const quantize_settings& settings) {
    const auto names = names_of<L>(module);
    const auto stored = read_bytes(folder, names.codes, L::code_type);
    const std::size_t N = stored.shape()[0], K = stored.shape()[1] * L::in_byte;
    if (N == 0 || K == 0) throw shape_error(folder.describe(names.codes) + ": is empty");
    quantized_layer q;
    allocate(q, L::bits, false, N, K, group_size<gptq::dynamic>::features(K, settings.group_size));
    q.levels = layout::levels_in_files<L>();
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) {
            const unsigned byte = stored(n, k / L::in_byte);
            const auto code = L::code_of(L::in_byte == 1 ? byte : byte >> (4 * (k % 2)) & 15u);
            if (!code) throw no_number(folder, names.codes, n, k);
            q.codes(n, k) = *code;
        }
    read_element_scales<L>(folder, names.scales, settings, q);
    read_element_zeros<L>(folder, std::string(module) + ".weight_zero_point", q);
    return q;
}

}  // namespace gptq::io::detail
