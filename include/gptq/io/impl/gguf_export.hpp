// The bodies of <gptq/io/gguf_export.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_export.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/quote.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io {
namespace detail {

/// The checkpoint's name of the layer that a tensor holds; empty for tensors that are none.
inline std::string module_of_gguf(std::string_view name) {
    static constexpr std::string_view suffix = ".weight";
    std::string module = name_of_gguf(name);
    if (!module.ends_with(suffix)) return {};
    module.resize(module.size() - suffix.size());
    return module;
}

/// Weights in a block of Q4_0, Q5_0 and Q8_0.
inline constexpr std::size_t small_block = 32;

/// The elements of a float tensor.
inline std::vector<float> gguf_floats(const gguf_tensor& tensor) {
    const dtype type = dtype_of(tensor.type);
    std::vector<float> values(tensor.bytes.size() / dtype_size(type));
    read_floats({tensor.name, type, tensor.shape, tensor.bytes}, values, tensor.name);
    return values;
}

/// The type of blocks of that number, which is one of them.
inline const layout::ggml_type& blocks_of(gguf_type type) {
    return *layout::find_ggml_type(static_cast<std::uint32_t>(type));
}

/// The smallest type that holds every level code - zero of the layer, each block in one group.
inline gguf_type gguf_type_of(const quantized_layer& q, const std::string& where) {
    if (!q.levels.empty())
        throw unsupported_error(where + ": is of a grid whose values are not evenly spaced, which GGUF's blocks are");
    if (q.in_features() % small_block != 0)
        throw unsupported_error(where + ": has " + std::to_string(q.in_features()) +
                                " inputs, and rows of GGUF's blocks are multiples of 32");
    for (std::size_t k = 0; k < q.in_features(); ++k)
        if (q.g_idx(k) != q.g_idx(k - k % small_block))
            throw unsupported_error(where +
                                    ": has groups that blocks of 32 neighbours do not fit in; quantize with "
                                    "--order gar and a group size that is a multiple of 32");
    int least = 0, most = 0;
    for (std::size_t n = 0; n < q.out_features(); ++n)
        for (std::size_t k = 0; k < q.in_features(); ++k) {
            const int level = q.codes(n, k) - q.zeros(n, static_cast<std::size_t>(q.g_idx(k)));
            least = std::min(least, level);
            most = std::max(most, level);
        }
    for (const gguf_type type : {gguf_type::q4_0, gguf_type::q5_0, gguf_type::q8_0}) {
        const layout::ggml_type& blocks = blocks_of(type);
        if (-blocks.zero <= least && most <= blocks.max_code() - blocks.zero) return type;
    }
    throw unsupported_error(where + ": has levels from " + std::to_string(least) + " to " + std::to_string(most) +
                            ", and Q8_0 holds -128 to 127; quantize to symmetric 8 bits");
}

/// The blocks of a layer, rows where the file has them.
inline void encode_layer(const layout::ggml_type& type, const quantized_layer& q, const row_order& place,
                         std::span<std::byte> out, const std::string& where) {
    const std::size_t blocks = q.in_features() / type.weights;
    for (std::size_t n = 0; n < q.out_features(); ++n)
        for (std::size_t b = 0; b < blocks; ++b) {
            const auto g = static_cast<std::size_t>(q.g_idx(b * type.weights));
            layout::ggml_block block{to_half(q.scales(n, g)), {}, {1}, {}, {}};
            if (to_float(block.d) != q.scales(n, g))
                throw unsupported_error(where + ": has a scale that is no half, and GGUF's scales are halves");
            for (std::size_t i = 0; i < type.weights; ++i)
                block.codes[i] =
                    static_cast<std::uint8_t>(q.codes(n, b * type.weights + i) - q.zeros(n, g) + type.zero);
            layout::encode(type, block, out.subspan((place(n) * blocks + b) * type.bytes, type.bytes));
        }
}

/// Throws format_error unless the codes stand for the weights of `base`: those of another model, or rows in another
/// order, differ by more than any quantization does.
inline void check_same_weights(const quantized_layer& q, const row_order& place, const gguf_tensor& base,
                               const std::string& where) {
    static constexpr double too_much = 0.5;
    const std::vector<float> weights = gguf_floats(base);
    double difference = 0.0, energy = 0.0;
    for (std::size_t n = 0; n < q.out_features(); ++n)
        for (std::size_t k = 0; k < q.in_features(); ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx(k));
            const double w = double{weights[place(n) * q.in_features() + k]};
            const double d = w - double{q.scales(n, g)} * (q.codes(n, k) - q.zeros(n, g));
            difference += d * d;
            energy += w * w;
        }
    if (!(difference <= too_much * energy))
        throw format_error(where + ": its codes do not stand for the weights of " + base.name +
                           "; give the GGUF file that was made of the model before it was quantized");
}

/// Rounds a float matrix to Q8_0 as llama.cpp does: d is the largest magnitude of a block by 127.
inline void round_to_q8_0(const gguf_tensor& tensor, std::span<std::byte> out) {
    const layout::ggml_type& type = blocks_of(gguf_type::q8_0);
    const std::vector<float> weights = gguf_floats(tensor);
    for (std::size_t b = 0; b < out.size() / type.bytes; ++b) {
        const auto w = std::span(weights).subspan(b * type.weights, type.weights);
        float largest = 0.0f;
        for (const float x : w) largest = std::max(largest, std::abs(x));
        const float d = largest / 127.0f;
        layout::ggml_block block{to_half(d), {}, {1}, {}, {}};
        for (std::size_t i = 0; i < type.weights; ++i)
            block.codes[i] =
                static_cast<std::uint8_t>(type.zero + (d == 0.0f ? 0 : static_cast<int>(std::nearbyint(w[i] / d))));
        layout::encode(type, block, out.subspan(b * type.bytes, type.bytes));
    }
}

/// Throws format_error unless a layer [rows, cols] has a float tensor of that shape.
inline void check_base(const gguf_file& base, const gguf_tensor& tensor, std::size_t rows, std::size_t cols) {
    const std::string where = base.path().string() + ": " + in_quotes(tensor.name);
    if (tensor.shape != std::vector<std::size_t>{rows, cols})
        throw format_error(where + " has another shape than the layer, " + shape_string(rows, cols));
    if (!holds_floats(tensor.type)) throw format_error(where + " is quantized; give the float file");
}

}  // namespace detail

GPTQ_INLINE gguf_export::gguf_export(const gguf_file& base, const std::set<std::string>& modules, gguf_rest rest,
                                     const type_of_layer& type_of)
    : base_(base) {
    for (const gguf_tensor& tensor : base.tensors()) {
        std::string module = detail::module_of_gguf(tensor.name);
        if (!modules.contains(module)) module.clear();
        gguf_output output{tensor.name, tensor.type, tensor.shape, 0};
        if (!module.empty())
            output.type = type_of(module, tensor);
        else if (rest == gguf_rest::q8_0 && tensor.shape.size() == 2 && holds_floats(tensor.type) &&
                 tensor.shape[1] % detail::small_block == 0)
            output.type = gguf_type::q8_0;
        output.bytes = gguf_bytes(output.type, output.shape).value();
        outputs_.push_back(std::move(output));
        modules_.push_back(std::move(module));
    }
    for (const std::string& module : modules)
        if (std::find(modules_.begin(), modules_.end(), module) == modules_.end())
            throw format_error(base.path().string() + ": has no tensor for the layer " + module);
}

GPTQ_INLINE gguf_result gguf_export::write(const std::filesystem::path& out, const fill_layer& fill) const {
    gguf_result result;
    std::uint32_t file_type = 0;
    std::vector<std::size_t> weights(layout::ggml_types.size());  // of the layers of each type
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
        result.bytes += outputs_[i].bytes;
        if (modules_[i].empty() || holds_floats(outputs_[i].type)) continue;
        ++result.layers;
        weights[static_cast<std::size_t>(&detail::blocks_of(outputs_[i].type) - layout::ggml_types.data())] +=
            outputs_[i].shape[0] * outputs_[i].shape[1];
    }
    const std::size_t most = *std::max_element(weights.begin(), weights.end());
    for (std::size_t t = 0; t < weights.size(); ++t) {
        if (weights[t] == 0) continue;
        result.types.emplace_back(layout::ggml_types[t].name);
        if (weights[t] == most) file_type = layout::ggml_types[t].file_type;
    }
    write_gguf(out, base_, file_type, outputs_, [&](std::size_t i, std::span<std::byte> bytes) {
        const gguf_tensor& tensor = base_.tensors()[i];
        if (outputs_[i].type == tensor.type) return tensor.bytes.read(bytes);
        if (modules_[i].empty()) return detail::round_to_q8_0(tensor, bytes);
        fill(modules_[i], tensor, row_order(base_, tensor.name, tensor.shape.front()), bytes);
    });
    return result;
}

GPTQ_INLINE gguf_result export_gguf(const model_folder& folder, const std::filesystem::path& base,
                                    const std::filesystem::path& out, gguf_rest rest) {
    const auto config = quantization_config::parse(folder);
    if (!config) throw format_error(folder.path().string() + ": is not quantized; give the folder that quantize wrote");
    const gguf_file file(base);
    const auto where = [&](const std::string& module) { return folder.path().string() + ": " + module; };
    const gguf_export planned(file, quantized_modules(folder), rest,
                              [&](const std::string& module, const gguf_tensor& tensor) {
                                  const quantized_layer q = read_quantized(folder, *config, module);
                                  detail::check_base(file, tensor, q.out_features(), q.in_features());
                                  return detail::gguf_type_of(q, where(module));
                              });
    return planned.write(out, [&](const std::string& module, const gguf_tensor& tensor, const row_order& place,
                                  std::span<std::byte> bytes) {
        const quantized_layer q = read_quantized(folder, *config, module);
        const gguf_type type = detail::gguf_type_of(q, where(module));
        detail::check_same_weights(q, place, tensor, where(module));
        detail::encode_layer(detail::blocks_of(type), q, place, bytes, where(module));
    });
}

}  // namespace gptq::io
