// Models that hold a text model among other things, such as an encoder of pictures. The text model is one of
// `architectures`; this table says where config.json and the weights have it.
#pragma once

#include <array>
#include <string_view>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/architecture.hpp>

namespace gptq::model {

/// One kind of such models.
struct wrapped_model {
    std::string_view model_type;  ///< of the whole, in config.json
    std::string_view class_name;  ///< of the whole likewise
    std::string_view text_type;   ///< the architecture of the text model, where "text_config" names no other one
    std::string_view defaults;    ///< JSON of the settings whose defaults differ from those of that architecture
};

inline constexpr std::string_view qwen2_vl_defaults =
    R"({"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "max_window_layers": 80})";

inline constexpr std::array<wrapped_model, 7> wrapped_models = {{
    {"gemma3", "Gemma3ForConditionalGeneration", "gemma3_text",
     R"({"vocab_size": 262208, "num_attention_heads": 8, "max_position_embeddings": 131072})"},
    {"llava", "LlavaForConditionalGeneration", "llama", "{}"},
    {"mistral3", "Mistral3ForConditionalGeneration", "mistral", "{}"},
    {"qwen2_vl", "Qwen2VLForConditionalGeneration", "qwen2", qwen2_vl_defaults},
    {"qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "qwen2", qwen2_vl_defaults},
    {"qwen3_vl", "Qwen3VLForConditionalGeneration", "qwen3", R"({"rope_theta": 500000.0})"},
    {"qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", "qwen3_moe",
     R"({"num_key_value_heads": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "norm_topk_prob": true,
         "rope_theta": 500000.0})"},
}};

/// The entry of wrapped_models for a config.json; nullptr for a model of text alone.
const wrapped_model* find_wrapped(const nlohmann::json& config);

/// The settings of the text model as its own config.json would have them: "text_config", or in older files the whole.
/// Throws format_error for a "text_config" that is no object, and what config_values throws. `what` names the file in
/// messages.
nlohmann::json text_settings(const wrapped_model& wrapped, const nlohmann::json& config, const std::string& what);

/// `names` with what the folder puts before those of the text model: "language_model.", "model.language_model.", or
/// nothing.
tensor_names wrapped_names(tensor_names names, const io::model_folder& folder);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/wrapped_text.hpp>
#endif
