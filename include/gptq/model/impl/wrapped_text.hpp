// The bodies of <gptq/model/wrapped_text.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/config_values.hpp>
#include <gptq/model/wrapped_text.hpp>

namespace gptq::model {

GPTQ_INLINE const wrapped_model* find_wrapped(const nlohmann::json& config) {
    const auto type = config.find("model_type");
    const auto found = std::find_if(wrapped_models.begin(), wrapped_models.end(), [&](const wrapped_model& w) {
        return type != config.end() && *type == std::string(w.model_type);
    });
    return found == wrapped_models.end() ? nullptr : &*found;
}

GPTQ_INLINE nlohmann::json text_settings(const wrapped_model& wrapped, const nlohmann::json& config,
                                         const std::string& what) {
    const config_values whole(config, what);
    const auto classes = nlohmann::json::array({std::string(wrapped.class_name)});
    if (const nlohmann::json* own = whole.find("architectures"); own != nullptr && !own->empty() && *own != classes)
        whole.unsupported("architectures", "is another class than " + std::string(wrapped.class_name));
    const std::string inner = std::string(wrapped.model_type) + "_text";
    nlohmann::json text = config;
    if (const nlohmann::json* own = whole.find("text_config")) {
        if (!own->is_object()) whole.fail("text_config", "is not an object");
        text = *own;
    }
    text.erase("architectures");
    const std::string type = config_values(text, what).text("model_type", inner);
    const bool usual = type == inner || type == wrapped.model_type;
    text["model_type"] = usual ? std::string(wrapped.text_type) : type;
    const auto defaults = nlohmann::json::parse(wrapped.defaults);
    for (const auto& [key, value] : defaults.items())
        if (usual && !text.contains(key)) text[key] = value;
    if (const nlohmann::json* tied = whole.find("tie_word_embeddings")) text["tie_word_embeddings"] = *tied;
    return text;
}

namespace detail {

/// Names of what is not in a block.
struct outer_names {
    std::string_view embedding, blocks, final_norm, head;
};

inline constexpr std::array<outer_names, 2> names_within = {{
    {"language_model.model.embed_tokens", "language_model.model.layers.", "language_model.model.norm",
     "language_model.lm_head"},
    {"model.language_model.embed_tokens", "model.language_model.layers.", "model.language_model.norm", "lm_head"},
}};

}  // namespace detail

GPTQ_INLINE tensor_names wrapped_names(tensor_names names, const io::model_folder& folder) {
    for (const detail::outer_names& outer : detail::names_within) {
        if (!folder.contains(std::string(outer.final_norm) + ".weight")) continue;
        names.embedding = outer.embedding;
        names.blocks = outer.blocks;
        names.final_norm = outer.final_norm;
        names.head = outer.head;
    }
    return names;
}

}  // namespace gptq::model
