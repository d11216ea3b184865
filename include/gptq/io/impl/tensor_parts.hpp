// What reading and writing the tensors of quantized layers have in common.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/layouts/parts.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io::detail {

/// Runs `operation`; what pack() and unpack() throw about the layer in hand gets `where` at its beginning.
template <class Operation>
auto naming(const std::string& where, Operation&& operation) {
    try {
        return operation();
    } catch (const shape_error& e) {
        throw shape_error(where + ": " + e.what());
    } catch (const format_error& e) {
        throw format_error(where + ": " + e.what());
    } catch (const unsupported_error& e) {
        throw unsupported_error(where + ": " + e.what());
    }
}

/// What the parts of a layer are called in files of one layout.
struct part_names {
    std::string codes, zeros, scales, g_idx;
};

template <class L>
part_names names_of(std::string_view module) {
    const auto name = [module](std::string_view part) { return std::string(module) + std::string(part); };
    const layout::layer_parts& parts = L::parts;
    return {name(parts.codes), name(parts.zeros), name(parts.scales), name(parts.g_idx)};
}

/// Whether files of one layout say which group an input feature is in.
template <class L>
inline constexpr bool has_g_idx = !L::parts.g_idx.empty();

/// Whether the shape of the packed codes says that of the layer; where not, files hold it in a tensor of its own.
template <class L>
inline constexpr bool knows_shape = requires(extent2 words) {
    L::layer_of(words, 4);
};

/// Throws format_error unless the tensor has that type and that number of dimensions.
inline const tensor_info& typed_tensor(const model_folder& folder, const std::string& name, dtype type,
                                       std::size_t rank) {
    const auto& info = folder.tensor(name);
    if (info.dtype != type || info.shape.size() != rank)
        throw format_error(folder.describe(name) + ": is " + std::string(dtype_name(info.dtype)) +
                           shape_text(info.shape) + "; " + std::string(dtype_name(type)) + " with " +
                           std::to_string(rank) + " dimensions is needed");
    return info;
}

inline void check_extents(const model_folder& folder, const tensor_info& info, extent2 expected,
                          const std::string& why) {
    if (info.shape[0] == expected.rows && info.shape[1] == expected.cols) return;
    throw shape_error(folder.describe(info.name) + ": has the shape " + shape_text(info.shape) + ", but " +
                      shape_string(expected.rows, expected.cols) + " is needed for " + why);
}

template <class T>
void add_matrix(const tensor_sink& sink, const std::string& name, dtype type, const tensor2<T>& values) {
    const std::array<std::size_t, 2> shape{values.shape()[0], values.shape()[1]};
    sink(name, type, shape, std::as_bytes(std::span(values.data(), values.size())));
}

template <class T>
void add_vector(const tensor_sink& sink, const std::string& name, dtype type, std::span<const T> values) {
    const std::array<std::size_t, 1> shape{values.size()};
    sink(name, type, shape, std::as_bytes(values));
}

/// What is said of groups in the order of activations where files have no g_idx.
inline constexpr const char* no_g_idx =
    ": its groups follow the order of activations, and files of this format do not hold which input feature is in "
    "which "
    "group; quantize with --order gar, or choose gptq";

/// Whether groups are runs of neighbouring input features.
inline bool has_plain_groups(const quantized_layer& layer) {
    for (std::size_t k = 0; k < layer.in_features(); ++k)
        if (static_cast<std::size_t>(layer.g_idx(k)) != k / layer.group_features) return false;
    return true;
}

}  // namespace gptq::io::detail
