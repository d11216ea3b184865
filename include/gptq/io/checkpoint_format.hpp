// The formats of quantized checkpoints: their names and their layouts.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/layouts/awq.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>

namespace gptq::io {

/// The formats of checkpoints, each with a layout of its own in gptq/layouts/.
enum class checkpoint_format {
    gptq,
    gptq_v2,
    awq,
    compressed_tensors,  ///< its format pack-quantized
    int_quantized,
    float_quantized,
    mxfp4,
    nvfp4
};

/// Calls `f.template operator()<L>()` with the layout of a format.
template <class F>
decltype(auto) visit_layout(checkpoint_format format, F&& f) {
    switch (format) {
        case checkpoint_format::gptq: return f.template operator()<layout::gptq_v1>();
        case checkpoint_format::gptq_v2: return f.template operator()<layout::gptq_v2>();
        case checkpoint_format::awq: return f.template operator()<layout::awq>();
        case checkpoint_format::compressed_tensors: return f.template operator()<layout::compressed_tensors>();
        case checkpoint_format::int_quantized: return f.template operator()<layout::int_quantized>();
        case checkpoint_format::float_quantized: return f.template operator()<layout::float_quantized>();
        case checkpoint_format::mxfp4: return f.template operator()<layout::mxfp4_packed>();
        case checkpoint_format::nvfp4: return f.template operator()<layout::nvfp4_packed>();
    }
    throw unsupported_error("checkpoint format: unknown kind");
}

/// Their names in programs and files, in the order of checkpoint_format.
inline constexpr std::array<std::string_view, 8> format_names{"gptq",
                                                              "gptq_v2",
                                                              "awq",
                                                              "compressed-tensors",
                                                              "int-quantized",
                                                              "float-quantized",
                                                              "mxfp4-pack-quantized",
                                                              "nvfp4-pack-quantized"};

inline std::string format_name(checkpoint_format format) {
    return std::string(format_names[static_cast<std::size_t>(format)]);
}

/// The format of that name; nothing if there is none.
inline std::optional<checkpoint_format> format_of_name(std::string_view name) {
    for (std::size_t i = 0; i < format_names.size(); ++i)
        if (format_names[i] == name) return static_cast<checkpoint_format>(i);
    return std::nullopt;
}

/// Whether a format is one of those of the library compressed-tensors.
constexpr bool is_compressed_tensors(checkpoint_format format) {
    return format >= checkpoint_format::compressed_tensors;
}

}  // namespace gptq::io
