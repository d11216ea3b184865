// The bodies of <gptq/model/adapter.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/config_values.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/quote.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {
namespace detail {

/// Ranks and alphas are far below; larger ones are damage.
inline constexpr std::size_t largest_rank = std::size_t{1} << 20;

/// rank_pattern or alpha_pattern: values for layers whose name is a key, or ends with a dot and a key. The first key
/// that fits counts.
class adapter_pattern {
 public:
    adapter_pattern(const nlohmann::ordered_json& config, const config_values& values, std::string_view key) {
        const auto at = config.find(std::string(key));
        if (at == config.end() || at->is_null()) return;
        if (!at->is_object()) values.fail(key, "is not an object");
        for (const auto& [name, value] : at->items()) {
            if (name.find_first_of("\\^$*+?()[]{}|") != std::string::npos)
                values.unsupported(key,
                                   "has the regular expression " + in_quotes(name) + "; only names of layers are read");
            if (!value.is_number() || !(value.get<double>() > 0.0))
                values.fail(key, "has no number above 0 for " + in_quotes(name));
        }
        numbers_ = *at;
    }

    double value_for(const std::string& layer, double otherwise) const {
        for (const auto& [name, value] : numbers_.items())
            if (layer == name || layer.ends_with("." + name)) return value.template get<double>();
        return otherwise;
    }

 private:
    nlohmann::ordered_json numbers_ = nlohmann::ordered_json::object();
};

/// Settings of PEFT that change what an adapter computes, or the base model.
inline void refuse_other_arithmetic(const config_values& values) {
    if (const std::string type = values.text("peft_type", ""); type != "LORA")
        values.unsupported("peft_type", "is " + in_quotes(type) + "; only LORA is supported");
    for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"})
        if (values.flag(key, false)) values.unsupported(key, "is true; only plain LoRA is supported");
    if (const std::string bias = values.text("bias", "none"); bias != "none")
        values.unsupported("bias", "is " + in_quotes(bias) + "; only \"none\" is supported");
    for (const char* key : {"modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters",
                            "alora_invocation_tokens"})
        if (const nlohmann::json* value = values.find(key); value != nullptr && !value->empty())
            values.unsupported(key, "is given; only adapters of linear layers are supported");
    const nlohmann::json* start = values.find("init_lora_weights");
    if (start == nullptr || !start->is_string()) return;
    const std::string name = *start;
    if (name != "gaussian" && name != "eva" && name != "orthogonal")
        values.unsupported("init_lora_weights", "is " + in_quotes(name) +
                                                    ", which changes the base model; convert the adapter " +
                                                    "to a plain one with PEFT");
}

/// The factor of B A for each layer.
class adapter_scales {
 public:
    explicit adapter_scales(const std::filesystem::path& path)
        : json_(io::read_json<nlohmann::ordered_json>(path)),
          plain_(json_),
          values_(plain_, path.string()),
          ranks_(json_, values_, "rank_pattern"),
          alphas_(json_, values_, "alpha_pattern") {
        refuse_other_arithmetic(values_);
        rank_ = values_.size("r", largest_rank);
        alpha_ = values_.positive("lora_alpha");
        rank_stabilized_ = values_.flag("use_rslora", false);
    }
    adapter_scales(const adapter_scales&) = delete;
    adapter_scales& operator=(const adapter_scales&) = delete;

    std::size_t rank(const std::string& layer) const {
        return static_cast<std::size_t>(std::clamp(ranks_.value_for(layer, static_cast<double>(rank_)), 1.0, 0x1p20));
    }

    double scale(const std::string& layer) const {
        const auto rank_of_layer = static_cast<double>(rank(layer));
        const double alpha = alphas_.value_for(layer, alpha_);
        return alpha / (rank_stabilized_ ? std::sqrt(rank_of_layer) : rank_of_layer);
    }

 private:
    nlohmann::ordered_json json_;
    nlohmann::json plain_;
    config_values values_;
    adapter_pattern ranks_, alphas_;
    std::size_t rank_ = 0;
    double alpha_ = 0.0;
    bool rank_stabilized_ = false;
};

inline std::string describe(const io::safetensors_file& file, const io::tensor_info& tensor) {
    return file.path().string() + ": tensor " + in_quotes(tensor.name);
}

/// The numbers times `factor`.
inline tensor2<float> read_factor(const io::safetensors_file& file, const io::tensor_info& tensor, double factor) {
    const std::string where = describe(file, tensor);
    if (tensor.shape.size() != 2) throw shape_error(where + ": is no matrix: " + io::shape_text(tensor.shape));
    auto numbers = make_tensor2<float>(tensor.shape[0], tensor.shape[1]);
    io::detail::read_floats(tensor, {numbers.data(), numbers.size()}, where);
    for (float& x : numbers) {
        x = static_cast<float>(factor * static_cast<double>(x));
        if (!std::isfinite(x)) throw non_finite_error(where + ": has NaN or infinity, or its scale makes one");
    }
    return numbers;
}

/// Whether the tensor is PEFT's copy of the frozen weights below an adapter, which it makes of a changed head. The base
/// model has them.
inline bool copies_base_layer(const io::safetensors_file& file, std::string_view name) {
    static constexpr std::string_view base = ".base_layer.weight";
    return name.ends_with(base) &&
           file.find(std::string(name.substr(0, name.size() - base.size())) + ".lora_A.weight") != nullptr;
}

/// The other tensor of a layer.
inline const io::tensor_info& partner(const io::safetensors_file& file, const io::tensor_info& tensor,
                                      const std::string& name) {
    const io::tensor_info* found = file.find(name);
    if (found == nullptr) throw format_error(describe(file, tensor) + ": has no partner " + in_quotes(name));
    return *found;
}

}  // namespace detail

GPTQ_INLINE adapter adapter::load(const std::filesystem::path& folder, double weight) {
    static constexpr std::string_view prefix = "base_model.model.", down = ".lora_A.weight", up = ".lora_B.weight";
    const detail::adapter_scales scales(folder / "adapter_config.json");
    const io::safetensors_file file(folder / "adapter_model.safetensors");
    adapter result;
    result.where_ = folder.string();
    for (const io::tensor_info& a : file.tensors()) {
        const std::string_view name = a.name;
        if (detail::copies_base_layer(file, name)) continue;
        if (!name.starts_with(prefix) || !(name.ends_with(down) || name.ends_with(up)) ||
            name.size() <= prefix.size() + down.size())
            throw unsupported_error(detail::describe(file, a) + ": is no " + std::string(prefix) + "LAYER" +
                                    std::string(down) + " or " + std::string(up));
        const std::string stem(name.substr(0, name.size() - down.size()));
        const std::string layer = stem.substr(prefix.size());
        if (name.ends_with(up)) {
            detail::partner(file, a, stem + std::string(down));
            continue;
        }
        const io::tensor_info& b = detail::partner(file, a, stem + std::string(up));
        low_rank_term term{detail::read_factor(file, a, 1.0),
                           detail::read_factor(file, b, weight * scales.scale(layer))};
        const std::size_t rank = scales.rank(layer);
        if (term.down.shape()[0] != rank || term.up.shape()[1] != rank)
            throw shape_error(detail::describe(file, a) + ": has the shape " + io::shape_text(a.shape) + ", and B " +
                              io::shape_text(b.shape) + "; adapter_config.json asks for a rank of " +
                              std::to_string(rank));
        result.terms_.emplace(layer, std::move(term));
    }
    if (result.terms_.empty()) throw format_error(file.path().string() + ": has no tensors");
    return result;
}

GPTQ_INLINE void add_terms(stored_layer& layer, const std::string& name, std::span<const adapter> adapters) {
    for (const adapter& a : adapters)
        if (const auto found = a.terms().find(name); found != a.terms().end()) layer.terms.push_back(found->second);
}

}  // namespace gptq::model
