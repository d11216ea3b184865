// The bodies of <gptq/io/gguf_model.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

/// What tensors are called in both kinds of files, without block, ".weight" and ".bias".
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 11> gguf_names = {{
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
}};

/// The rows of a tensor in the checkpoint's order, floats as they are and blocks as the floats they stand for.
class gguf_rows : public byte_source {
 public:
    gguf_rows(const gguf_tensor& tensor, std::size_t rows, const row_order& place)
        : stored_(tensor.bytes),
          place_(place),
          blocks_(layout::find_ggml_type(static_cast<std::uint32_t>(tensor.type))),
          stored_row_(tensor.bytes.size() / rows),
          row_(tensor.shape.back() * dtype_size(dtype_of(tensor.type))) {}

    void read_at(std::size_t offset, std::span<std::byte> out) const override {
        std::vector<std::byte> stored(stored_row_), row(row_);
        for (std::size_t r = offset / row_, begin = offset % row_; !out.empty(); ++r, begin = 0) {
            stored_.subspan(place_(r) * stored_row_, stored_row_).read(stored);
            if (blocks_ != nullptr)
                widen(stored, row);
            else
                row = stored;
            const std::size_t count = std::min(out.size(), row_ - begin);
            std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(begin), count, out.begin());
            out = out.subspan(count);
        }
    }

 private:
    void widen(std::span<const std::byte> stored, std::span<std::byte> row) const {
        for (std::size_t b = 0; b < stored.size() / blocks_->bytes; ++b) {
            const layout::ggml_block block =
                layout::decode(*blocks_, stored.subspan(b * blocks_->bytes, blocks_->bytes));
            for (std::size_t i = 0; i < blocks_->weights; ++i) {
                const float value = layout::value_of(*blocks_, block, i);
                std::memcpy(row.data() + (b * blocks_->weights + i) * sizeof value, &value, sizeof value);
            }
        }
    }

    file_bytes stored_;
    row_order place_;
    const layout::ggml_type* blocks_;  // null: floats
    std::size_t stored_row_, row_;     // bytes
};

/// A tensor under a name of the checkpoint.
inline tensor_info checkpoint_tensor(const gguf_file& file, const gguf_tensor& tensor, std::string name) {
    const dtype type = dtype_of(tensor.type);
    const std::size_t rows = tensor.shape.size() == 1 ? 1 : tensor.shape.front();
    const auto bytes = tensor_bytes(type, tensor.shape);
    const std::string where = file.path().string() + ": tensor " + in_quotes(tensor.name);
    if (!bytes || *bytes == 0 || tensor.shape.size() > 2)
        throw unsupported_error(where + ": has the shape " + shape_text(tensor.shape) +
                                "; vectors and matrices are read");
    const row_order place(file, tensor.name, tensor.shape.front());
    auto source = std::make_shared<const gguf_rows>(tensor, rows, place);
    return {std::move(name), type, tensor.shape, file_bytes(std::move(source), 0, *bytes)};
}

inline std::uint64_t needed_number(const gguf_file& file, const std::string& key) {
    if (const auto value = file.number(key)) return *value;
    throw format_error(file.path().string() + ": has no number " + in_quotes(key));
}

/// Adds the settings of the rotation. Throws unsupported_error for others than plain and linear ones.
inline void add_rotation(const gguf_file& file, const std::string& arch, nlohmann::json& config) {
    config["rope_theta"] = file.real(arch + ".rope.freq_base").value_or(10000.0);
    const std::string key = arch + ".rope.scaling.type";
    const std::string kind = file.contains(key) ? file.text(key) : "none";
    if (kind == "linear")
        config["rope_scaling"] = {{"rope_type", "linear"},
                                  {"factor", file.real(arch + ".rope.scaling.factor").value_or(1.0)}};
    else if (kind != "none")
        throw unsupported_error(file.path().string() + ": its rotation is scaled as " + in_quotes(kind) +
                                "; give the model's folder");
    const auto rotated = file.number(arch + ".rope.dimension_count");
    if (rotated && *rotated != config["head_dim"].get<std::uint64_t>())
        throw unsupported_error(file.path().string() + ": heads rotate only in part; give the model's folder");
}

}  // namespace detail

GPTQ_INLINE bool is_gguf(const std::filesystem::path& path) {
    std::error_code ignored;
    return path.extension() == ".gguf" && !std::filesystem::is_directory(path, ignored);
}

GPTQ_INLINE std::string name_of_gguf(std::string_view name) {
    static constexpr std::string_view block = "blk.";
    const std::size_t last = name.rfind('.');
    if (last == std::string_view::npos) return {};
    const std::string suffix(name.substr(last));
    const std::string_view stem = name.substr(0, last);
    if (suffix != ".weight" && suffix != ".bias") return {};
    if (stem == "token_embd") return "model.embed_tokens" + suffix;
    if (stem == "output_norm") return "model.norm" + suffix;
    if (stem == "output") return "lm_head" + suffix;
    const std::size_t dot = stem.find('.', block.size());
    if (!stem.starts_with(block) || dot == std::string_view::npos) return {};
    const std::string_view number = stem.substr(block.size(), dot - block.size());
    for (const auto& [theirs, ours] : detail::gguf_names)
        if (stem.substr(dot + 1) == theirs)
            return "model.layers." + std::string(number) + "." + std::string(ours) + suffix;
    return {};
}

GPTQ_INLINE row_order::row_order(const gguf_file& file, std::string_view tensor, std::size_t rows) : head_(rows) {
    const std::string arch = file.text("general.architecture");
    const bool query = tensor.find(".attn_q.") != std::string_view::npos;
    const bool key = tensor.find(".attn_k.") != std::string_view::npos;
    if (arch != "llama" || !(query || key)) return;
    const auto heads = file.number(arch + ".attention.head_count");
    const auto keys = file.number(arch + ".attention.head_count_kv");
    const std::uint64_t count = query ? heads.value_or(0) : keys.value_or(heads.value_or(0));
    if (count == 0 || count > rows || rows % (2 * count) != 0)
        throw format_error(file.path().string() + ": its number of heads does not divide the rows of " +
                           std::string(tensor));
    head_ = rows / static_cast<std::size_t>(count);
    interleaved_ = true;
}

GPTQ_INLINE std::vector<tensor_info> gguf_tensors(const gguf_file& file) {
    std::vector<tensor_info> tensors;
    for (const gguf_tensor& tensor : file.tensors()) {
        std::string name = name_of_gguf(tensor.name);
        if (name.empty())
            throw unsupported_error(file.path().string() + ": tensor " + in_quotes(tensor.name) +
                                    ": no such tensor is known; give the model's folder");
        tensors.push_back(detail::checkpoint_tensor(file, tensor, std::move(name)));
    }
    return tensors;
}

GPTQ_INLINE nlohmann::json gguf_config(const gguf_file& file) {
    const std::string arch = file.text("general.architecture");
    if (arch != "llama" && arch != "qwen2" && arch != "qwen3")
        throw unsupported_error(file.path().string() + ": the architecture " + in_quotes(arch) +
                                " is not read from GGUF; give the model's folder");
    const auto needed = [&](const char* key) { return detail::needed_number(file, arch + key); };
    const auto has = [&](std::string_view name) {
        return std::any_of(file.tensors().begin(), file.tensors().end(),
                           [&](const gguf_tensor& tensor) { return tensor.name == name; });
    };
    if (file.number(arch + ".expert_count").value_or(0) != 0)
        throw unsupported_error(file.path().string() + ": models with experts are not read from GGUF");
    nlohmann::json config{{"model_type", arch},
                          {"hidden_size", needed(".embedding_length")},
                          {"intermediate_size", needed(".feed_forward_length")},
                          {"num_hidden_layers", needed(".block_count")},
                          {"num_attention_heads", needed(".attention.head_count")},
                          {"max_position_embeddings", needed(".context_length")}};
    const std::uint64_t heads = config["num_attention_heads"].get<std::uint64_t>();
    if (heads == 0) throw format_error(file.path().string() + ": has no heads");
    config["num_key_value_heads"] = file.number(arch + ".attention.head_count_kv").value_or(heads);
    config["head_dim"] =
        file.number(arch + ".attention.key_length").value_or(config["hidden_size"].get<std::uint64_t>() / heads);
    config["rms_norm_eps"] = file.real(arch + ".attention.layer_norm_rms_epsilon").value_or(1e-6);
    config["attention_bias"] = has("blk.0.attn_output.bias") || (arch == "llama" && has("blk.0.attn_q.bias"));
    config["mlp_bias"] = has("blk.0.ffn_up.bias");
    config["tie_word_embeddings"] = !has("output.weight");
    for (const gguf_tensor& tensor : file.tensors())
        if (tensor.name == "token_embd.weight") config["vocab_size"] = std::uint64_t{tensor.shape.front()};
    for (const char* key : {"bos_token_id", "eos_token_id"})
        if (const auto id = file.number("tokenizer.ggml." + std::string(key))) config[key] = *id;
    detail::add_rotation(file, arch, config);
    return config;
}

}  // namespace gptq::io
