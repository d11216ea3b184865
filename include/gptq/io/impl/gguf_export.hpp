// The bodies of <gptq/io/gguf_export.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
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
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io {
namespace detail {

/// What layers are called in both kinds of files, without block and ".weight".
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 7> gguf_names = {{
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

/// The checkpoint's name of the layer that "blk.3.attn_q.weight" holds; empty for tensors that are none.
inline std::string module_of_gguf(std::string_view name) {
    static constexpr std::string_view block = "blk.", suffix = ".weight";
    if (!name.ends_with(suffix)) return {};
    name.remove_suffix(suffix.size());
    if (name == "output") return "lm_head";
    if (!name.starts_with(block)) return {};
    name.remove_prefix(block.size());
    const std::size_t dot = name.find('.');
    if (dot == std::string_view::npos) return {};
    for (const auto& [theirs, ours] : gguf_names)
        if (name.substr(dot + 1) == theirs)
            return "model.layers." + std::string(name.substr(0, dot)) + "." + std::string(ours);
    return {};
}

/// Where row r of a layer lies in the file: llama.cpp rotates neighbours, the checkpoint the halves of a head, so the
/// converter interleaves the halves of q's and k's heads for the architecture "llama".
class row_order {
 public:
    row_order(const gguf_file& base, std::string_view tensor, std::size_t rows) : head_(rows) {
        const std::string arch = base.text("general.architecture");
        const bool query = tensor.ends_with(".attn_q.weight"), key = tensor.ends_with(".attn_k.weight");
        if (arch != "llama" || !(query || key)) return;
        const auto heads = base.number(arch + ".attention.head_count");
        const auto keys = base.number(arch + ".attention.head_count_kv");
        const std::uint64_t count = query ? heads.value_or(0) : keys.value_or(heads.value_or(0));
        if (count == 0 || rows % (2 * count) != 0)
            throw format_error(base.path().string() + ": its number of heads does not divide the rows of " +
                               std::string(tensor));
        head_ = rows / static_cast<std::size_t>(count);
        interleaved_ = true;
    }

    std::size_t operator()(std::size_t r) const {
        if (!interleaved_) return r;
        const std::size_t in_head = r % head_, half = head_ / 2;
        return r - in_head + 2 * (in_head % half) + in_head / half;
    }

 private:
    std::size_t head_;
    bool interleaved_ = false;
};

/// The elements of a float tensor.
inline std::vector<float> gguf_floats(const gguf_tensor& tensor) {
    const dtype type = tensor.type == gguf_type::f16    ? dtype::f16
                       : tensor.type == gguf_type::bf16 ? dtype::bf16
                                                        : dtype::f32;
    std::vector<float> values(tensor.bytes.size() / dtype_size(type));
    read_floats({tensor.name, type, tensor.shape, tensor.bytes}, values, tensor.name);
    return values;
}

inline bool is_float(gguf_type type) {
    return type == gguf_type::f32 || type == gguf_type::f16 || type == gguf_type::bf16;
}

/// Calls f.template operator()<T>() with a type of blocks by its number in files.
template <class F>
decltype(auto) visit_ggml(gguf_type type, F&& f) {
    switch (type) {
        case gguf_type::q4_0: return f.template operator()<layout::q4_0>();
        case gguf_type::q5_0: return f.template operator()<layout::q5_0>();
        default: return f.template operator()<layout::q8_0>();
    }
}

/// The smallest type that holds every level code - zero of the layer, each block in one group.
inline gguf_type gguf_type_of(const quantized_layer& q, const std::string& where) {
    if (q.in_features() % layout::ggml_block != 0)
        throw unsupported_error(where + ": has " + std::to_string(q.in_features()) +
                                " inputs, and rows of GGUF's blocks are multiples of 32");
    for (std::size_t k = 0; k < q.in_features(); ++k)
        if (q.g_idx(k) != q.g_idx(k - k % layout::ggml_block))
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
    for (const gguf_type type : {gguf_type::q4_0, gguf_type::q5_0, gguf_type::q8_0})
        if (visit_ggml(type, [&]<class T>() { return T::least <= least && most <= T::most; })) return type;
    throw unsupported_error(where + ": has levels from " + std::to_string(least) + " to " + std::to_string(most) +
                            ", and Q8_0 holds -128 to 127; quantize to symmetric 8 bits");
}

/// The blocks of a layer, rows where the file has them.
template <class T>
void encode_layer(const quantized_layer& q, const row_order& place, std::span<std::byte> out,
                  const std::string& where) {
    const std::size_t blocks = q.in_features() / layout::ggml_block;
    for (std::size_t n = 0; n < q.out_features(); ++n)
        for (std::size_t b = 0; b < blocks; ++b) {
            const auto g = static_cast<std::size_t>(q.g_idx(b * layout::ggml_block));
            layout::ggml_values values{to_half(q.scales(n, g)), {}, {}};
            if (to_float(values.d) != q.scales(n, g))
                throw unsupported_error(where + ": has a scale that is no half, and GGUF's scales are halves");
            for (std::size_t i = 0; i < layout::ggml_block; ++i)
                values.levels[i] = q.codes(n, b * layout::ggml_block + i) - q.zeros(n, g);
            T::encode(values, out.subspan((place(n) * blocks + b) * T::bytes, T::bytes));
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
    const std::size_t blocks = out.size() / layout::q8_0::bytes;
    const std::vector<float> weights = gguf_floats(tensor);
    for (std::size_t b = 0; b < blocks; ++b) {
        float largest = 0.0f;
        for (std::size_t i = 0; i < layout::ggml_block; ++i)
            largest = std::max(largest, std::abs(weights[b * layout::ggml_block + i]));
        const float d = largest / 127.0f;
        layout::ggml_values values{to_half(d), {}, {}};
        for (std::size_t i = 0; i < layout::ggml_block; ++i)
            values.levels[i] =
                d == 0.0f ? 0 : static_cast<int>(std::nearbyint(weights[b * layout::ggml_block + i] / d));
        layout::q8_0::encode(values, out.subspan(b * layout::q8_0::bytes, layout::q8_0::bytes));
    }
}

/// One run of export_gguf.
class gguf_exporter {
 public:
    gguf_exporter(const model_folder& folder, const quantization_config& config, const gguf_file& base, gguf_rest rest)
        : folder_(folder), config_(config), base_(base) {
        for (const gguf_tensor& tensor : base.tensors()) plan(tensor, rest);
        check_complete();
    }

    gguf_result write(const std::filesystem::path& out) {
        gguf_result result;
        std::uint32_t file_type = 0;
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            result.bytes += outputs_[i].bytes;
            if (modules_[i].empty()) continue;
            ++result.layers;
            const auto [name, number] =
                visit_ggml(outputs_[i].type, []<class T>() { return std::pair(std::string(T::name), T::file_type); });
            if (std::find(result.types.begin(), result.types.end(), name) == result.types.end())
                result.types.push_back(name);
            file_type = number;
        }
        write_gguf(out, base_, file_type, outputs_,
                   [this](std::size_t i, std::span<std::byte> bytes) { fill(i, bytes); });
        return result;
    }

 private:
    quantized_layer layer(const std::string& module) const { return read_quantized(folder_, config_, module); }
    std::string where(const std::string& module) const { return folder_.path().string() + ": " + module; }

    void plan(const gguf_tensor& tensor, gguf_rest rest) {
        gguf_output output{tensor.name, tensor.type, tensor.shape, tensor.bytes.size()};
        std::string module = module_of_gguf(tensor.name);
        if (!module.empty() && is_quantized(folder_, module)) {
            const quantized_layer q = layer(module);
            if (tensor.shape != std::vector<std::size_t>{q.out_features(), q.in_features()})
                throw format_error(base_.path().string() + ": \"" + tensor.name + "\" has another shape than " +
                                   where(module));
            if (!is_float(tensor.type))
                throw format_error(base_.path().string() + ": \"" + tensor.name +
                                   "\" is quantized; give the float file");
            output.type = gguf_type_of(q, where(module));
        } else {
            module.clear();
            if (rest == gguf_rest::q8_0 && tensor.shape.size() == 2 && is_float(tensor.type) &&
                tensor.shape[1] % layout::ggml_block == 0)
                output.type = gguf_type::q8_0;
        }
        output.bytes = gguf_bytes(output.type, output.shape).value();
        outputs_.push_back(std::move(output));
        modules_.push_back(std::move(module));
    }

    /// Every quantized layer has a place in the file.
    void check_complete() const {
        for (const std::string& module : quantized_modules(folder_))
            if (std::find(modules_.begin(), modules_.end(), module) == modules_.end())
                throw format_error(base_.path().string() + ": has no tensor for the layer " + module);
    }

    void fill(std::size_t i, std::span<std::byte> bytes) const {
        const gguf_tensor& tensor = base_.tensors()[i];
        if (modules_[i].empty()) {
            if (outputs_[i].type != tensor.type) return round_to_q8_0(tensor, bytes);
            return tensor.bytes.read(bytes);
        }
        const quantized_layer q = layer(modules_[i]);
        const row_order place(base_, tensor.name, q.out_features());
        check_same_weights(q, place, tensor, where(modules_[i]));
        visit_ggml(outputs_[i].type, [&]<class T>() { encode_layer<T>(q, place, bytes, where(modules_[i])); });
    }

    const model_folder& folder_;
    const quantization_config& config_;
    const gguf_file& base_;
    std::vector<gguf_output> outputs_;
    std::vector<std::string> modules_;  // of each output; empty for what comes from the base
};

}  // namespace detail

GPTQ_INLINE gguf_result export_gguf(const model_folder& folder, const std::filesystem::path& base,
                                    const std::filesystem::path& out, gguf_rest rest) {
    const auto config = quantization_config::parse(folder);
    if (!config) throw format_error(folder.path().string() + ": is not quantized; give the folder that quantize wrote");
    const gguf_file file(base);
    return detail::gguf_exporter(folder, *config, file, rest).write(out);
}

}  // namespace gptq::io
