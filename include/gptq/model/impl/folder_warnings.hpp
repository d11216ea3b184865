// The bodies of <gptq/model/folder_warnings.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE bool tensor_use::reads(std::string_view name) const {
    const tensor_names& names = config_->arch.names;
    if (is_part(name, names.embedding) || is_part(name, names.head)) return true;
    if (is_part(name, names.positions) || is_part(name, names.project_in) || is_part(name, names.project_out))
        return true;
    if (is_norm_part(name, names.final_norm)) return true;
    const std::size_t index = block_of(name);
    return index < config_->blocks && reads_in_block(name.substr(config_->block_prefix(index).size()));
}

GPTQ_INLINE std::size_t tensor_use::block_of(std::string_view name) const {
    std::size_t index = 0;
    constexpr auto none = std::numeric_limits<std::size_t>::max();
    if (!name.starts_with(config_->arch.names.blocks)) return none;
    name.remove_prefix(config_->arch.names.blocks.size());
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), index);
    return problem == std::errc() && end != name.data() + name.size() && *end == '.' ? index : none;
}

GPTQ_INLINE bool tensor_use::is_part(std::string_view name, std::string_view module) {
    static constexpr std::array<std::string_view, 11> parts = {
        "weight",        "bias",         "qweight",           "qzeros",       "scales",      "g_idx",
        "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"};
    return is_one_of(name, module, parts);
}

GPTQ_INLINE bool tensor_use::is_norm_part(std::string_view name, std::string_view module) const {
    static constexpr std::array<std::string_view, 2> parts = {"weight", "bias"};
    if (config_->arch.norm != norm_kind::layer && name.ends_with(".bias")) return false;
    return is_one_of(name, module, parts);
}

GPTQ_INLINE bool tensor_use::reads_in_block(std::string_view name) const {
    const tensor_names& names = config_->arch.names;
    return std::any_of(stored_slots.begin(), stored_slots.end(),
                       [&](const auto& slot) { return is_part(name, names.*slot.name); }) ||
           std::any_of(stored_norms.begin(), stored_norms.end(),
                       [&](const auto& slot) { return is_norm_part(name, names.*slot.name); });
}

}  // namespace gptq::model

namespace gptq::model {
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
}  // namespace gptq::model

namespace gptq::model {

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
