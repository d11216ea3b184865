// The description of a quantized checkpoint: quantize_config.json, quant_config.json, or "quantization_config" in
// config.json, as GPTQModel, AutoGPTQ, Optimum and compressed-tensors write it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/settings.hpp>

namespace gptq::io {

/// The text that a model was quantized with, as windows of tokens.
struct calibration_record {
    std::size_t windows = 0;
    std::size_t seqlen = 0;                             ///< tokens a window
    std::string sampling = {};                          ///< where in the text they are: "spread", "first"; "": unknown
    std::optional<bool> special_tokens = std::nullopt;  ///< with those that the tokenizer adds; nothing: unknown

    bool operator==(const calibration_record&) const = default;
};

/// How the scales of a checkpoint were tuned after its quantization.
struct tuning_record {
    std::size_t steps = 0;      ///< of a window each
    std::size_t kept_step = 0;  ///< the step that the scales are of
    double rate = 0.0;          ///< relative change of a scale in a step at most; 0: by the bits of each layer
    bool norms = false;         ///< the weights of norms were tuned as well
    std::size_t windows = 0;    ///< of text, those that decided which step to keep included
    std::size_t seqlen = 0;     ///< tokens a window

    bool operator==(const tuning_record&) const = default;
};

/// What a checkpoint says about its quantization.
struct quantization_config {
    checkpoint_format format = checkpoint_format::gptq;
    /// Of modules that no rule changes. Where another program wrote the checkpoint, what its description leaves open is
    /// as in settings::paper().
    quantize_settings settings = {};
    bool true_sequential = true;
    bool lm_head = false;  ///< the output layer is quantized too
    dynamic_rules dynamic;
    /// Ends of the names of the modules that are quantized, where rules leave others alone: for transformers, which reads
    /// no rules in GPTQ's format. Written, and not looked at when it is read.
    std::vector<std::string> quantized_modules;
    /// There where this library wrote the checkpoint; then `settings` are all those that made it.
    std::optional<calibration_record> calibration = std::nullopt;
    /// There where this library tuned the scales, whoever quantized.
    std::optional<tuning_record> tuning = std::nullopt;
    /// Programs that wrote the checkpoint, "name:version"; what to_json() writes is this library's, whatever is here.
    std::vector<std::string> quantizer;

    /// The description in `folder`, looked for in quantize_config.json, quant_config.json and config.json (under
    /// "quantization_config" or its older name "compression_config"), in this order; nothing if there is none. Throws
    /// io_error, format_error for a description that is not well formed or contradicts itself or another one in the
    /// folder, unsupported_error for methods, formats and bits that the library does not read.
    static std::optional<quantization_config> parse(const std::filesystem::path& folder);
    /// The same, but nothing if the weights are float: what the tensors are decides, not a description of what the
    /// model once was.
    static std::optional<quantization_config> parse(const model_folder& folder);

    /// From the object itself; `where` begins every message. Throws as parse().
    static quantization_config from_json(const nlohmann::ordered_json& object, const std::string& where);

    /// The object that quantize_config.json consists of and config.json holds as "quantization_config". The order of
    /// its keys matters where there are dynamic rules: do not convert it to nlohmann::json, which sorts them. Throws
    /// unsupported_error for what the format's description has no words for.
    nlohmann::ordered_json to_json() const;

    /// The settings of a module after the dynamic rules; nothing if they leave it alone. Throws format_error if a rule
    /// is too costly to match.
    std::optional<quantize_settings> settings_of(std::string_view module) const;
};

/// Whether any weights of the folder are stored in another form than float numbers, by whatever method.
bool holds_quantized_tensors(const model_folder& folder);

namespace detail {

/// The first of several synonyms that is set; throws format_error if two of them are set and differ.
template <class T>
std::optional<T> setting_of(const nlohmann::ordered_json& object, std::initializer_list<const char*> synonyms,
                            const std::string& where) {
    std::optional<T> result;
    const char* name = "";
    for (const char* synonym : synonyms) {
        const auto value = setting<T>(object, synonym, where);
        if (value && result && *value != *result)
            throw format_error(where + ": \"" + name + "\" and \"" + synonym + "\" contradict each other");
        if (!value || result) continue;
        result = value;
        name = synonym;
    }
    return result;
}

void check_bits(checkpoint_format format, int bits, const std::string& where);

quantization_config read_gptq_config(const nlohmann::ordered_json& object, const std::string& where);

// ---- several descriptions of one checkpoint -------------------------------------------------------------------------

/// One description as it stands in a file; `where` names file and place.
struct description {
    nlohmann::ordered_json object;
    std::string where;
};

/// All descriptions in the folder, the one that counts first.
std::vector<description> read_descriptions(const std::filesystem::path& folder);

/// A value short enough for a message whatever the file holds.
std::string shown(const nlohmann::ordered_json& value);

/// Throws format_error, naming the field and both values, if both descriptions state something that decides how the
/// tensors are read, and differ.
void check_agreement(const description& a, const description& b);

// ---- compressed-tensors ---------------------------------------------------------------------------------------------

quantization_config read_compressed_config(const nlohmann::ordered_json& object, const std::string& where);

// ---- AutoRound ------------------------------------------------------------------------------------------------------

/// AutoRound's own description of a checkpoint that holds the tensors of gptq.
quantization_config read_auto_round_config(const nlohmann::ordered_json& object, const std::string& where);

// ---- AWQ ------------------------------------------------------------------------------------------------------------

quantization_config read_awq_config(const nlohmann::ordered_json& object, const std::string& where);

/// Throws unsupported_error for what the description has no words for: other settings for some modules, a quantized
/// output layer, and rules that are no names.
nlohmann::ordered_json awq_config_json(const quantization_config& config);

nlohmann::ordered_json compressed_config_json(const quantization_config& config);

nlohmann::ordered_json gptq_config_json(const quantization_config& config);

}  // namespace detail

inline quantization_config quantization_config::from_json(const nlohmann::ordered_json& object,
                                                          const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": not a JSON object");
    const auto method = detail::setting_of<std::string>(object, {"quant_method", "method"}, where);
    const std::string name =
        detail::lower_case(method.value_or(object.contains("config_groups") ? "compressed-tensors" : "gptq"));
    if (name == "gptq") return detail::read_gptq_config(object, where);
    if (name == "auto-round" || name == "auto_round" || name == "intel/auto-round")
        return detail::read_auto_round_config(object, where);
    if (name == "compressed-tensors" || name == "sparseml") return detail::read_compressed_config(object, where);
    if (name == "awq") return detail::read_awq_config(object, where);
    throw unsupported_error(where + ": the quantization method \"" + *method +
                            "\" is not supported; only gptq, awq and compressed-tensors are (and auto-round with the "
                            "tensors of gptq)");
}

inline std::optional<quantization_config> quantization_config::parse(const std::filesystem::path& folder) {
    const auto all = detail::read_descriptions(folder);
    if (all.empty()) return std::nullopt;
    for (std::size_t i = 1; i < all.size(); ++i) detail::check_agreement(all[0], all[i]);
    return from_json(all[0].object, all[0].where);
}

inline std::optional<quantization_config> quantization_config::parse(const model_folder& folder) {
    if (!holds_quantized_tensors(folder)) return std::nullopt;
    if (folder.config().contains("quantization"))
        throw unsupported_error(folder.path().string() +
                                ": config.json has \"quantization\", so MLX quantized the weights; only gptq, awq "
                                "and compressed-tensors are read; take the float model");
    return parse(folder.path());
}

inline nlohmann::ordered_json quantization_config::to_json() const {
    if (format == checkpoint_format::awq) return detail::awq_config_json(*this);
    return is_compressed_tensors(format) ? detail::compressed_config_json(*this) : detail::gptq_config_json(*this);
}

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/quantization_config.hpp>
#endif
