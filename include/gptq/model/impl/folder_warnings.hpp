// The bodies of <gptq/model/folder_warnings.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE tensor_use::tensor_use(const model_config& config) : config_(&config) {
    const tensor_names& names = config.arch.names;
    for (const std::string_view name :
         {names.embedding, names.head, names.positions, names.project_in, names.project_out})
        if (!name.empty()) modules_.emplace(name);
    norms_.emplace(names.final_norm);
    for (std::size_t i = 0; i < config.blocks; ++i) {
        const block_description block = describe_block(config, i);
        for (const block_site& site : block.sites)
            for (const block_module& m : site.modules) modules_.insert(block.full_name(m));
        for (const block_norm& norm : block.norms) norms_.insert(block.prefix + norm.name);
        if (!block.router) continue;
        modules_.insert(block.prefix + block.router->name);
        if (!block.router->shared_gate.empty()) modules_.insert(block.prefix + block.router->shared_gate);
    }
}

GPTQ_INLINE bool tensor_use::reads(std::string_view name) const {
    static constexpr std::array<std::string_view, 11> parts = {
        "weight",        "bias",         "qweight",           "qzeros",       "scales",      "g_idx",
        "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"};
    const std::size_t dot = name.rfind('.');
    if (dot == std::string_view::npos) return false;
    const std::string module(name.substr(0, dot));
    const std::string_view part = name.substr(dot + 1);
    if (modules_.contains(module)) return std::find(parts.begin(), parts.end(), part) != parts.end();
    const bool of_norm = part == "weight" || (part == "bias" && config_->norm_bias());
    return of_norm && norms_.contains(module);
}

GPTQ_INLINE std::size_t tensor_use::block_of(std::string_view name) const {
    std::size_t index = 0;
    constexpr auto none = std::numeric_limits<std::size_t>::max();
    if (!name.starts_with(config_->arch.names.blocks)) return none;
    name.remove_prefix(config_->arch.names.blocks.size());
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), index);
    return problem == std::errc() && end != name.data() + name.size() && *end == '.' ? index : none;
}

namespace detail {

/// Tensors that some programs store although they follow from the config.
inline bool is_computed(std::string_view name) {
    return name.ends_with("rotary_emb.inv_freq") || name.ends_with(".masked_bias") || name.ends_with(".bias_mask");
}

inline void warn_about_tensors(const model_config& config, const io::model_folder& folder,
                               std::vector<std::string>& warnings) {
    const tensor_use use(config);
    std::size_t unused = 0, last_block = 0;
    std::string example;
    for (const std::string& name : folder.tensor_names()) {
        if (use.reads(name) || is_computed(name)) continue;
        const std::size_t block = use.block_of(name);
        if (block >= config.blocks && block != std::numeric_limits<std::size_t>::max()) {
            last_block = std::max(last_block, block);
            continue;
        }
        if (unused++ == 0) example = name;
    }
    if (last_block != 0)
        warnings.push_back(folder.path().string() + ": the weights hold " + std::to_string(last_block + 1) +
                           " blocks, but config.json says num_hidden_layers " + std::to_string(config.blocks) +
                           ": the others are not used");
    if (unused != 0)
        warnings.push_back(folder.path().string() + ": " + std::to_string(unused) +
                           (unused == 1 ? " tensor is" : " tensors are") + " not used by the architecture " +
                           in_quotes(config.arch.model_type) + ", such as " + in_quotes(example));
}

}  // namespace detail
GPTQ_INLINE std::vector<std::string> folder_warnings(const model_config& config, const io::model_folder& folder) {
    std::vector<std::string> warnings = folder.warnings();
    if (config.ignores_tying)
        warnings.push_back(folder.path().string() + ": config.json says tie_word_embeddings, but " +
                           std::string(config.arch.names.head) + ".weight differs from the embedding: it is used");
    if (!io::holds_quantized_tensors(folder))
        for (const auto& stale : io::detail::read_descriptions(folder.path()))
            warnings.push_back(stale.where +
                               ": describes a quantization, but the weights are float numbers: it is "
                               "stale and ignored");
    detail::warn_about_tensors(config, folder, warnings);
    return warnings;
}

GPTQ_INLINE std::string left_files_warning(const io::model_folder& folder) {
    static constexpr std::size_t most = 5;
    const std::vector<std::string> names = folder.left_files();
    if (names.empty()) return "";
    std::string list;
    for (std::size_t i = 0; i < std::min(names.size(), most); ++i)
        list += (i == 0 ? "" : ", ") + printable(names[i], 60);
    if (names.size() > most) list += " and " + std::to_string(names.size() - most) + " more";
    return folder.path().string() + ": not copied, for they are not known to belong to a model: " + list;
}

}  // namespace gptq::model
