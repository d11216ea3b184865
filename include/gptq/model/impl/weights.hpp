// The bodies of <gptq/model/weights.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {
namespace detail {

/// No element is NaN or infinite: those have all bits of the exponent set.
template <class T>
bool all_finite(std::span<const T> numbers) {
    constexpr std::uint16_t exponent = std::is_same_v<T, half> ? 0x7c00 : 0x7f80;
    std::size_t wrong = 0;
    for (const T x : numbers) wrong += (x.bits & exponent) == exponent;
    return wrong == 0;
}

}  // namespace detail

GPTQ_INLINE tensor2<float> weight_reader::matrix(const std::string& name, std::size_t rows, std::size_t cols) const {
    require_shape(name + ".weight", {rows, cols});
    return folder_->read_matrix(name + ".weight");
}

GPTQ_INLINE table weight_reader::read_table(const std::string& name, std::size_t rows, std::size_t cols) const {
    const std::string full = name + ".weight";
    require_shape(full, {rows, cols});
    const io::tensor_info& info = folder_->tensor(full);
    if (info.dtype != io::dtype::f16 && info.dtype != io::dtype::bf16) return folder_->read_matrix(full);
    const auto copied = [&]<class T>(gptq::matrix<T>&& numbers) {
        info.bytes.read(std::as_writable_bytes(std::span(numbers.data(), rows * cols)));
        if (!detail::all_finite<T>({numbers.data(), rows * cols})) folder_->require_finite(full);
        return table(std::move(numbers));
    };
    if (info.dtype == io::dtype::f16) return copied(gptq::matrix<half>(rows, cols));
    return copied(gptq::matrix<bfloat16>(rows, cols));
}

GPTQ_INLINE tensor1<float> weight_reader::vector(const std::string& name, std::size_t size) const {
    require_shape(name, {size});
    return folder_->read_vector(name);
}

GPTQ_INLINE stored_layer weight_reader::read_linear(const std::string& name, std::size_t rows, std::size_t cols,
                                                    bool needs_bias) const {
    stored_layer layer;
    if (is_quantized(name))
        layer.weights = codes(name, rows, cols);
    else
        layer.weights = read_table(name, rows, cols);
    if (needs_bias || folder_->contains(name + ".bias")) layer.bias = vector(name + ".bias", rows);
    return layer;
}

GPTQ_INLINE norm_layer weight_reader::read_norm(const model_config& config, const std::string& name,
                                                std::size_t features) const {
    norm_layer layer{.kind = config.arch.norm, .eps = config.norm_eps};
    if (!config.norm_parameters) return layer;
    layer.weight = vector(name + ".weight", features);
    if (config.norm_bias()) layer.bias = vector(name + ".bias", features);
    if (config.arch.norm_adds_one)
        for (std::size_t i = 0; i < features; ++i) layer.weight(i) += 1.0f;
    return layer;
}

GPTQ_INLINE bool weight_reader::is_quantized(const std::string& name) const {
    return folder_->contains(name + ".qweight") || folder_->contains(name + ".weight_packed");
}

GPTQ_INLINE void weight_reader::require_shape(const std::string& name, const std::vector<std::size_t>& shape) const {
    const auto& info = folder_->tensor(name);
    if (info.shape != shape)
        throw shape_error(folder_->describe(name) + ": has the shape " + io::shape_text(info.shape) +
                          "; config.json asks for " + io::shape_text(shape));
}

GPTQ_INLINE quantized_layer weight_reader::codes(const std::string& name, std::size_t rows, std::size_t cols) const {
    if (!quantization_)
        throw format_error(folder_->describe(name) + ": is quantized, but neither quantize_config.json nor " +
                           "config.json says how");
    quantized_layer q = io::read_quantized(*folder_, *quantization_, name);
    if (q.out_features() != rows || q.in_features() != cols)
        throw shape_error(folder_->describe(name) + ": is a quantized layer of " +
                          shape_string(q.out_features(), q.in_features()) + "; config.json asks for " +
                          shape_string(rows, cols));
    return q;
}

}  // namespace gptq::model
