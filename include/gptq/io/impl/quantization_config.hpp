// The bodies of <gptq/io/quantization_config.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/settings_json.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/settings.hpp>
#include <gptq/version.hpp>

namespace gptq::io {
namespace detail {

/// The order that the three switches of the file formats tell.
inline order_kind order_of(bool desc_act, bool static_groups, bool act_group_aware) {
    if (desc_act) return static_groups ? order_kind::act_static : order_kind::act;
    return act_group_aware ? order_kind::group_aware : order_kind::natural;
}

inline bool has_desc_act(order_kind order) { return order == order_kind::act || order == order_kind::act_static; }

/// `base` with what a rule changes.
inline quantize_settings changed_by(const dynamic_match& rule, quantize_settings base) {
    base.bits = rule.bits.value_or(base.bits);
    base.group_size = rule.group_size.value_or(base.group_size);
    base.sym = rule.sym.value_or(base.sym);
    base.order = order_of(rule.desc_act.value_or(has_desc_act(base.order)),
                          rule.static_groups.value_or(base.order == order_kind::act_static),
                          rule.act_group_aware.value_or(base.order == order_kind::group_aware));
    if (rule.damp_percent) base.damp_percent = rule.damp_percent;
    return base;
}

}  // namespace detail

GPTQ_INLINE std::optional<quantize_settings> quantization_config::settings_of(std::string_view module) const {
    const dynamic_match rule = dynamic.match(module);
    if (rule.skip) return std::nullopt;
    return detail::changed_by(rule, settings);
}

GPTQ_INLINE bool holds_quantized_tensors(const model_folder& folder) {
    static constexpr std::string_view suffixes[] = {".qweight", ".weight_packed", ".W_q",     ".absmax",
                                                    ".SCB",     ".q_weight",      ".trellis", ".codes",
                                                    ".indices", "._data",         "_qdata"};
    for (const std::string& name : folder.tensor_names()) {
        const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
        if (std::any_of(std::begin(suffixes), std::end(suffixes), ends)) return true;
        if (name.ends_with(".weight") && !is_float(folder.tensor(name).dtype)) return true;
    }
    return false;
}

namespace detail {

GPTQ_INLINE void check_bits(checkpoint_format format, int bits, const std::string& where) {
    visit_layout(format, [&]<class L>() {
        if (!L::supports(bits))
            throw unsupported_error(where + ": " + std::to_string(bits) + " bits are not supported in the format " +
                                    format_name(format));
    });
}

inline void check_group_size(int group_size, const std::string& where) {
    if (group_size <= 0 && group_size != -1)
        throw format_error(where + ": group_size " + std::to_string(group_size) +
                           "; a positive number or -1 is needed");
}

/// Base settings and those of the rules are such that the format's layout has a form for them.
inline void check_supported(const quantization_config& config, const std::string& where) {
    check_bits(config.format, config.settings.bits, where);
    check_group_size(config.settings.group_size, where);
    for (const auto& rule : config.dynamic.rules())
        if (rule.effect.bits)
            check_bits(config.format, *rule.effect.bits, where + ": rule \"" + rule.expression + "\"");
}

/// Layouts whose codes are numbers by themselves have few forms.
inline void check_elements_supported(const quantization_config& config, const std::string& where) {
    const auto check = [&](const quantize_settings& s, const std::string& place) {
        visit_layout(config.format, [&]<class L>() {
            if constexpr (layout::holds_elements<L>) {
                const bool blocks = config.format == checkpoint_format::float_quantized && s.group_size == 128;
                if (!L::reads_groups_of(s.group_size) && !blocks)
                    throw unsupported_error(place + ": group_size " + std::to_string(s.group_size) +
                                            " is not supported in the format " + format_name(config.format));
                if (s.order == order_kind::act)
                    throw unsupported_error(place + ": actorder \"group\" is not supported in the format " +
                                            format_name(config.format));
            }
        });
    };
    check(config.settings, where);
    for (const auto& rule : config.dynamic.rules())
        if (!rule.effect.skip)
            check(changed_by(rule.effect, config.settings), where + ": rule \"" + rule.expression + "\"");
}

inline checkpoint_format read_gptq_format(const nlohmann::ordered_json& object, const std::string& where) {
    if (setting<bool>(object, "is_marlin_format", where).value_or(false))
        throw unsupported_error(where + ": the Marlin format is not supported; only gptq and gptq_v2 are");
    const auto name =
        setting_of<std::string>(object, {"checkpoint_format", "format", "version"}, where).value_or("gptq");
    if (lower_case(name) == "gptq") return checkpoint_format::gptq;
    if (lower_case(name) == "gptq_v2") return checkpoint_format::gptq_v2;
    throw unsupported_error(where + ": the checkpoint format \"" + name +
                            "\" is not supported; only gptq and gptq_v2 are");
}

/// `sym` or the opposite of `zero_point`; symmetric if neither is there.
inline bool read_sym(const nlohmann::ordered_json& object, const std::string& where) {
    const auto sym = setting<bool>(object, "sym", where);
    const auto zero_point = setting<bool>(object, "zero_point", where);
    if (sym && zero_point && *sym == *zero_point)
        throw format_error(where + ": \"sym\" and \"zero_point\" contradict each other");
    return sym.value_or(!zero_point.value_or(false));
}

/// `meta.quantizer`: a string or a list of strings; anything else tells nothing.
inline std::vector<std::string> read_quantizer(const nlohmann::ordered_json& meta) {
    std::vector<std::string> names;
    if (!meta.is_object() || !meta.contains("quantizer")) return names;
    const auto& value = meta["quantizer"];
    if (value.is_string()) names.push_back(value.get<std::string>());
    if (value.is_array())
        for (const auto& name : value)
            if (name.is_string()) names.push_back(name.get<std::string>());
    return names;
}

// ---- what made a checkpoint of this library's -----------------------------------------------------------------------

/// The place under "meta" that no other program uses.
inline constexpr const char* origin_key = "made_with";

/// A number that is not negative; 0 where there is none.
inline std::size_t read_count(const nlohmann::ordered_json& object, const char* key, const std::string& where) {
    return static_cast<std::size_t>(std::max(0, setting<int>(object, key, where).value_or(0)));
}

inline tuning_record read_tuning(const nlohmann::ordered_json& object, const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": must be an object");
    tuning_record tuning{.steps = read_count(object, "steps", where),
                         .kept_step = read_count(object, "kept_step", where),
                         .norms = setting<bool>(object, "norms", where).value_or(false),
                         .windows = read_count(object, "windows", where),
                         .seqlen = read_count(object, "seqlen", where)};
    if (object.contains("rate") && object["rate"] != "auto")
        tuning.rate = setting<double>(object, "rate", where).value_or(0.0);
    return tuning;
}

/// Takes the settings, the calibration and the tuning of a checkpoint of this library's. Others get what their programs
/// leave open: GPTQ as it was published.
inline void read_origin(const nlohmann::ordered_json& object, const std::string& where, quantization_config& config) {
    config.settings = settings::paper();
    const auto meta = object.find("meta");
    if (meta == object.end() || !meta->is_object() || !meta->contains(origin_key)) return;
    const std::string here = where + ": meta." + origin_key;
    const auto& origin = (*meta)[origin_key];
    if (!origin.is_object()) throw format_error(here + ": must be an object");
    if (origin.contains("tuning")) config.tuning = read_tuning(origin["tuning"], here + ".tuning");
    const bool quantized = origin.contains("settings") || origin.contains("calibration");
    if (config.tuning && !quantized) return;
    if (!origin.contains("settings") || !origin.contains("calibration") || !origin["calibration"].is_object())
        throw format_error(here + ": must be an object with \"settings\" and \"calibration\"");
    config.settings = settings_from_json(origin["settings"], here + ".settings");
    const auto& text = origin["calibration"];
    config.calibration = {read_count(text, "windows", here), read_count(text, "seqlen", here),
                          setting<std::string>(text, "sampling", here).value_or(""),
                          setting<bool>(text, "special_tokens", here)};
}

inline nlohmann::ordered_json calibration_json(const calibration_record& text) {
    nlohmann::ordered_json calibration = {{"windows", text.windows}, {"seqlen", text.seqlen}};
    if (!text.sampling.empty()) calibration["sampling"] = text.sampling;
    if (text.special_tokens) calibration["special_tokens"] = *text.special_tokens;
    return calibration;
}

inline nlohmann::ordered_json tuning_json(const tuning_record& tuning) {
    using json = nlohmann::ordered_json;
    return {{"steps", tuning.steps},
            {"kept_step", tuning.kept_step},
            {"rate", tuning.rate > 0.0 ? json(tuning.rate) : json("auto")},
            {"norms", tuning.norms},
            {"windows", tuning.windows},
            {"seqlen", tuning.seqlen}};
}

inline nlohmann::ordered_json meta_json(const quantization_config& config) {
    using json = nlohmann::ordered_json;
    json meta = {{"quantizer", json::array({"gptq:" + std::string(version_string)})}};
    json origin = json::object();
    if (config.calibration) {
        origin["settings"] = settings_json(config.settings);
        origin["calibration"] = calibration_json(*config.calibration);
    }
    if (config.tuning) origin["tuning"] = tuning_json(*config.tuning);
    if (!origin.empty()) meta[origin_key] = origin;
    return meta;
}

/// Throws unsupported_error where a description says under `key` that runtimes rotate the inputs of layers: the weights
/// alone give another model.
inline void check_no_rotation(const nlohmann::ordered_json& object, const char* key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null() || (found->is_structured() && found->empty()) || *found == "" ||
        *found == false || *found == "none")
        return;
    throw unsupported_error(where + ": \"" + key +
                            "\": rotations at run time are not supported; take a checkpoint without them");
}

GPTQ_INLINE quantization_config read_gptq_config(const nlohmann::ordered_json& object, const std::string& where) {
    quantization_config config;
    const auto required = [&](std::initializer_list<const char*> synonyms) {
        const auto value = setting_of<int>(object, synonyms, where);
        if (!value) throw format_error(where + ": \"" + *synonyms.begin() + "\" is missing");
        return *value;
    };
    read_origin(object, where, config);
    config.format = read_gptq_format(object, where);
    config.settings.bits = required({"bits", "w_bit", "wbits"});
    config.settings.group_size = required({"group_size", "q_group_size"});
    config.settings.sym = read_sym(object, where);
    config.lm_head = setting<bool>(object, "lm_head", where).value_or(false);
    const auto pack_dtype = setting<std::string>(object, "pack_dtype", where).value_or("int32");
    if (lower_case(pack_dtype) != "int32")
        throw unsupported_error(where + ": pack_dtype \"" + pack_dtype + "\" is not supported; only int32 is");

    // GPTQModel keeps how the codes came about in `meta`, AutoGPTQ beside the rest.
    const auto empty = nlohmann::ordered_json::object();
    const auto& meta = object.contains("meta") && object["meta"].is_object() ? object["meta"] : empty;
    const auto either = [&]<class T>(const char* key, T otherwise) {
        const auto inner = setting<T>(meta, key, where + ": meta"), outer = setting<T>(object, key, where);
        return outer ? *outer : inner.value_or(otherwise);
    };
    check_no_rotation(object, "rotation", where);
    check_no_rotation(meta, "rotation", where + ": meta");
    // 0 is not written, so it says nothing when it is read.
    if (const double damping = either("damp_percent", 0.0); damping > 0.0) config.settings.damp_percent = damping;
    config.true_sequential = either("true_sequential", true);
    config.settings.order = order_of(setting<bool>(object, "desc_act", where).value_or(false),
                                     either("static_groups", false), either("act_group_aware", false));
    config.quantizer = read_quantizer(meta);
    if (object.contains("dynamic") && !object["dynamic"].is_null())
        config.dynamic = dynamic_rules(object["dynamic"], where, unknown_settings::kept);
    check_supported(config, where);
    return config;
}

GPTQ_INLINE std::vector<description> read_descriptions(const std::filesystem::path& folder) {
    std::vector<description> all;
    for (const char* name : {"quantize_config.json", "quant_config.json"}) {
        std::error_code code;
        const auto path = folder / name;
        if (std::filesystem::exists(path, code))
            all.push_back({read_json<nlohmann::ordered_json>(path), path.string()});
    }
    const auto path = folder / "config.json";
    if (is_gguf(folder)) return all;  // it has none
    const auto config = read_model_json<nlohmann::ordered_json>(path);
    if (!config.is_object()) throw format_error(path.string() + ": not a JSON object");
    for (const char* key : {"quantization_config", "compression_config"})
        if (config.contains(key) && !config[key].is_null()) all.push_back({config[key], path.string() + ": " + key});
    return all;
}

/// The value of the first of the synonyms that is stated, in lower case; null if none is.
inline nlohmann::ordered_json stated(const nlohmann::ordered_json& object, std::initializer_list<const char*> names) {
    for (const char* name : names)
        if (object.is_object() && object.contains(name) && !object[name].is_null())
            return object[name].is_string() ? nlohmann::ordered_json(lower_case(object[name].get<std::string>()))
                                            : object[name];
    return nullptr;
}

GPTQ_INLINE std::string shown(const nlohmann::ordered_json& value) {
    const std::string whole = value.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
    return whole.size() <= 60 ? whole : whole.substr(0, 60) + "...";
}

GPTQ_INLINE void check_agreement(const description& a, const description& b) {
    static constexpr std::initializer_list<const char*> fields[] = {{"quant_method", "method"},
                                                                    {"checkpoint_format"},
                                                                    {"bits", "w_bit", "wbits"},
                                                                    {"group_size", "q_group_size"},
                                                                    {"sym"},
                                                                    {"zero_point"},
                                                                    {"desc_act"},
                                                                    {"dynamic"}};
    for (const auto& names : fields) {
        const auto left = stated(a.object, names), right = stated(b.object, names);
        if (left.is_null() || right.is_null() || left == right) continue;
        throw format_error(a.where + ": " + *names.begin() + " is " + shown(left) + ", but " + b.where + " says " +
                           shown(right) + "; correct the one that is wrong");
    }
}

/// A regular expression that matches exactly `text`.
inline std::string exact_expression(std::string_view text) { return "^" + escaped(text) + "$"; }

/// Targets and `ignore` name modules exactly, or by a regular expression after "re:".
inline std::string target_expression(const std::string& target) {
    return target.starts_with("re:") ? target.substr(3) : exact_expression(target);
}

/// A list of strings under `key`; empty if it is absent or null.
inline std::vector<std::string> string_list(const nlohmann::ordered_json& object, const char* key,
                                            const std::string& where) {
    std::vector<std::string> list;
    if (!object.contains(key) || object[key].is_null()) return list;
    for (const auto& item : object[key]) {
        if (!object[key].is_array() || !item.is_string())
            throw format_error(where + ": \"" + key + "\" must be a list of strings");
        list.push_back(item.get<std::string>());
    }
    return list;
}

/// Throws unsupported_error unless `key` is absent, null, or one of `accepted`.
inline void require_setting(const nlohmann::ordered_json& object, const char* key,
                            std::span<const std::string_view> accepted, const std::string& where) {
    const auto value = setting<std::string>(object, key, where);
    if (!value || std::find(accepted.begin(), accepted.end(), *value) != accepted.end()) return;
    throw unsupported_error(where + ": " + key + " \"" + *value + "\" is not supported; only \"" +
                            std::string(accepted.front()) + "\" is");
}
inline void require_setting(const nlohmann::ordered_json& object, const char* key,
                            std::initializer_list<std::string_view> accepted, const std::string& where) {
    require_setting(object, key, std::span(accepted.begin(), accepted.size()), where);
}

/// The formats of compressed-tensors under their names in its files.
inline std::string compressed_name(checkpoint_format format) {
    return format == checkpoint_format::compressed_tensors ? "pack-quantized" : format_name(format);
}

inline checkpoint_format read_compressed_format(const nlohmann::ordered_json& object, const std::string& where) {
    const auto name = setting<std::string>(object, "format", where).value_or("pack-quantized");
    for (const auto format : {checkpoint_format::compressed_tensors, checkpoint_format::int_quantized,
                              checkpoint_format::float_quantized, checkpoint_format::mxfp4, checkpoint_format::nvfp4})
        if (compressed_name(format) == name) return format;
    throw unsupported_error(where + ": format \"" + name +
                            "\" is not supported; only \"pack-quantized\", \"int-quantized\", \"float-quantized\", "
                            "\"mxfp4-pack-quantized\" and \"nvfp4-pack-quantized\" are");
}

/// What runtimes round a layer's inputs to does not change its weights, unless the file has a scale for it.
inline void check_activations(const nlohmann::ordered_json& group, checkpoint_format format, const std::string& where) {
    const auto quantized = [&](const char* key) { return group.contains(key) && !group[key].is_null(); };
    if (quantized("output_activations")) throw unsupported_error(where + ": quantized activations are not supported");
    if (!quantized("input_activations")) return;
    const auto& inputs = group["input_activations"];
    const bool by_token =
        inputs.is_object() && inputs.contains("dynamic") && (inputs["dynamic"] == true || inputs["dynamic"] == "local");
    if (format == checkpoint_format::compressed_tensors || !by_token)
        throw unsupported_error(where + ": quantized activations are not supported" +
                                (by_token ? " in this format" : " but those with scales of each token"));
}

/// The group size of a strategy of compressed-tensors.
inline int compressed_group_size(const nlohmann::ordered_json& weights, const std::string& where) {
    const auto group_size = setting<int>(weights, "group_size", where);
    const auto strategy = setting<std::string>(weights, "strategy", where).value_or(group_size ? "group" : "channel");
    if (strategy == "block") {
        if (weights.contains("block_structure") && weights["block_structure"] == nlohmann::ordered_json({128, 128}))
            return 128;
        throw unsupported_error(where + ": only blocks of 128 x 128 are supported");
    }
    if (strategy != "group" && strategy != "tensor_group") return per_channel;
    if (!group_size) throw format_error(where + ": \"group_size\" is missing");
    return *group_size;
}

/// The `weights` of a group of modules as the settings of a dynamic rule.
inline nlohmann::ordered_json compressed_group_settings(const nlohmann::ordered_json& group, checkpoint_format format,
                                                        const std::string& where) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object())
        throw unsupported_error(where + ": has no quantized weights");
    check_activations(group, format, where);
    require_setting(group, "format", {compressed_name(format)}, where);
    const auto& weights = group["weights"];
    visit_layout(format, [&]<class L>() {
        if constexpr (layout::holds_elements<L>) {
            require_setting(weights, "type", {L::numbers}, where);
            require_setting(weights, "strategy", L::read_strategies, where);
        } else {
            require_setting(weights, "type", {"int"}, where);
            require_setting(weights, "strategy", {"group", "channel"}, where);
        }
    });
    require_setting(weights, "actorder", {"group", "weight", "dynamic", "static"}, where);
    const auto bits = setting<int>(weights, "num_bits", where);
    if (!bits) throw format_error(where + ": \"num_bits\" is missing");
    // "group" and "dynamic", "weight" and "static" are the older and the newer names of the same two.
    const auto order = setting<std::string>(weights, "actorder", where).value_or("");
    const bool groups_follow_order = order == "group" || order == "dynamic";
    return {{"bits", *bits},
            {"group_size", compressed_group_size(weights, where)},
            {"sym", setting<bool>(weights, "symmetric", where).value_or(true)},
            {"desc_act", !order.empty()},
            {"static_groups", !order.empty() && !groups_follow_order}};
}

GPTQ_INLINE quantization_config read_compressed_config(const nlohmann::ordered_json& object, const std::string& where) {
    const checkpoint_format format = read_compressed_format(object, where);
    check_no_rotation(object, "transform_config", where);
    if (!object.contains("config_groups") || !object["config_groups"].is_object() || object["config_groups"].empty())
        throw format_error(where + ": has no \"config_groups\"");
    nlohmann::ordered_json rules = nlohmann::ordered_json::object();
    std::optional<nlohmann::ordered_json> base;
    for (const auto& name : string_list(object, "ignore", where)) rules["-:" + target_expression(name)] = nullptr;
    for (const auto& [name, group] : object["config_groups"].items()) {
        const std::string here = where + ": config_groups." + name;
        const auto settings = compressed_group_settings(group, format, here);
        for (const auto& target : string_list(group, "targets", here)) {
            if (target == "Linear")
                base = settings;
            else
                rules["+:" + target_expression(target)] = settings;
        }
        if (!base && object["config_groups"].size() == 1) base = settings;
    }
    if (!base) {  // what no target names is not quantized
        std::string named;
        for (const auto& [rule, settings] : rules.items()) {
            if (rule.starts_with("-:")) continue;
            if (!base) base = settings;
            named += (named.empty() ? "(?:" : "|(?:") + rule.substr(2) + ")";
        }
        if (!base) throw format_error(where + ": no group has targets");
        rules["-:(?!" + named + ")"] = nullptr;
    }
    quantization_config config;
    read_origin(object, where, config);
    config.format = format;
    config.settings.bits = (*base)["bits"].get<int>();
    config.settings.group_size = (*base)["group_size"].get<int>();
    config.settings.sym = (*base)["sym"].get<bool>();
    // The format has one name for the static and the group-aware order.
    const order_kind order = order_of((*base)["desc_act"].get<bool>(), (*base)["static_groups"].get<bool>(), false);
    if (order != order_kind::act_static || config.settings.order != order_kind::group_aware)
        config.settings.order = order;
    config.dynamic = dynamic_rules(rules, where, unknown_settings::kept);
    config.lm_head = !config.dynamic.match("lm_head").skip;
    check_supported(config, where);
    check_elements_supported(config, where);
    return config;
}

/// Settings of single layers as AutoRound names them, as the settings of dynamic rules.
inline nlohmann::ordered_json auto_round_rules(const nlohmann::ordered_json& object, const std::string& where) {
    auto rules = nlohmann::ordered_json::object();
    if (!object.contains("extra_config") || object["extra_config"].is_null()) return rules;
    if (!object["extra_config"].is_object()) throw format_error(where + ": \"extra_config\" must be an object");
    for (const auto& [name, layer] : object["extra_config"].items()) {
        const std::string here = where + ": extra_config." + name;
        if (!layer.is_object()) throw format_error(here + ": must be an object");
        const bool plain = name.find_first_of("*+?^$|()[]{}\\") == std::string::npos;
        const std::string expression = plain ? exact_expression(name) : name;
        if (setting<int>(layer, "bits", here).value_or(4) >= 16) {
            rules["-:" + expression] = nullptr;
            continue;
        }
        auto settings = nlohmann::ordered_json::object();
        for (const char* key : {"bits", "group_size", "sym"})
            if (layer.contains(key)) settings[key] = layer[key];
        rules["+:" + expression] = settings;
    }
    return rules;
}

GPTQ_INLINE quantization_config read_auto_round_config(const nlohmann::ordered_json& object, const std::string& where) {
    require_setting(object, "packing_format", {"auto_round:auto_gptq", "auto_gptq", "auto_round:gptq", "gptq"}, where);
    require_setting(object, "data_type", {"int"}, where);
    auto settings = object;
    settings["dynamic"] = auto_round_rules(object, where);
    return read_gptq_config(settings, where);
}

/// The weights of a group of modules, and what runtimes do with their inputs.
inline nlohmann::ordered_json compressed_group(checkpoint_format format, const quantize_settings& settings,
                                               const std::string& target) {
    using json = nlohmann::ordered_json;
    const bool by_group = settings.group_size != per_channel;
    json order = nullptr, inputs = nullptr;
    // Neighbours in a group of a whole row are what they are in any order.
    if (by_group && settings.order != order_kind::natural)
        order = settings.order == order_kind::act ? "group" : "weight";
    json weights = {{"num_bits", settings.bits},
                    {"type", "int"},
                    {"symmetric", settings.sym},
                    {"strategy", by_group ? "group" : "channel"},
                    {"group_size", by_group ? json(settings.group_size) : json(nullptr)},
                    {"actorder", order},
                    {"dynamic", false}};
    visit_layout(format, [&]<class L>() {
        if constexpr (layout::holds_elements<L>) {
            weights["type"] = L::numbers;
            weights["strategy"] = L::strategy;
            weights["actorder"] = nullptr;
            if (!L::scale_type.empty()) weights["scale_dtype"] = weights["zp_dtype"] = L::scale_type;
            if (L::rounds_inputs)
                inputs = {{"num_bits", 8},
                          {"type", L::numbers},
                          {"symmetric", true},
                          {"strategy", "token"},
                          {"dynamic", true}};
        }
    });
    return {{"targets", json::array({target})},
            {"weights", weights},
            {"input_activations", inputs},
            {"output_activations", nullptr}};
}

GPTQ_INLINE nlohmann::ordered_json compressed_config_json(const quantization_config& config) {
    using json = nlohmann::ordered_json;
    json groups = json::object();
    json ignore = json::array();
    const auto add_group = [&](const quantize_settings& settings, const std::string& target) {
        groups["group_" + std::to_string(groups.size())] = compressed_group(config.format, settings, target);
    };
    add_group(config.settings, "Linear");
    if (!config.lm_head && !config.dynamic.match("lm_head").skip) ignore.push_back("lm_head");
    for (const auto& rule : config.dynamic.rules()) {
        if (rule.effect.skip)
            ignore.push_back("re:" + rule.expression);
        else
            add_group(changed_by(rule.effect, config.settings), "re:" + rule.expression);
    }
    return {{"quant_method", "compressed-tensors"},
            {"format", compressed_name(config.format)},
            {"quantization_status", "compressed"},
            {"config_groups", groups},
            {"ignore", ignore},
            {"kv_cache_scheme", nullptr},
            {"meta", meta_json(config)}};
}

GPTQ_INLINE quantization_config read_awq_config(const nlohmann::ordered_json& object, const std::string& where) {
    const auto version = setting_of<std::string>(object, {"version", "checkpoint_format", "format"}, where);
    if (version && lower_case(*version) != "gemm")
        throw unsupported_error(where + ": the version \"" + *version + "\" of AWQ is not supported; only gemm is");
    if (!setting<bool>(object, "zero_point", where).value_or(true))
        throw unsupported_error(where + ": AWQ without zero points is not supported");
    quantization_config config;
    read_origin(object, where, config);
    config.format = checkpoint_format::awq;
    const auto group_size = setting_of<int>(object, {"group_size", "q_group_size"}, where);
    if (!group_size) throw format_error(where + ": \"group_size\" is missing");
    config.settings.bits = setting_of<int>(object, {"bits", "w_bit"}, where).value_or(4);
    config.settings.group_size = *group_size;
    config.settings.sym = setting<bool>(object, "sym", where).value_or(false);
    config.quantizer = read_quantizer(object.value("meta", nlohmann::ordered_json::object()));
    // Names of modules or of what they are parts of.
    auto rules = nlohmann::ordered_json::object();
    for (const auto& name : string_list(object, "modules_to_not_convert", where))
        rules["-:(.*\\.)?" + escaped(name) + "(\\..*)?$"] = nullptr;
    config.dynamic = dynamic_rules(rules, where, unknown_settings::kept);
    check_supported(config, where);
    return config;
}

/// The name that a rule of read_awq_config, or one that ends in an escaped name, stands for. Throws unsupported_error
/// for other expressions.
inline std::string name_of_rule(std::string expression) {
    const std::string whole = expression;
    for (const std::string_view begin : {"^", "(.*\\.)?", ".*\\.", ".*"})
        if (expression.starts_with(begin)) expression.erase(0, begin.size());
    for (const std::string_view end : {"$", "(\\..*)?"})
        if (expression.ends_with(end)) expression.erase(expression.size() - end.size());
    std::string name;
    bool plain = !expression.empty();
    for (std::size_t i = 0; i < expression.size(); ++i) {
        const bool quoted = expression[i] == '\\' && i + 1 < expression.size();
        if (quoted) ++i;
        const auto c = static_cast<unsigned char>(expression[i]);
        const bool word = std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
        plain = plain && (quoted ? std::isalnum(c) == 0 : word);
        name += expression[i];
    }
    if (plain) return name;
    throw unsupported_error("format awq names the modules that it leaves alone, and the dynamic rule \"" + whole +
                            "\" is an expression; write the rule as the end of a name, or choose gptq");
}

GPTQ_INLINE nlohmann::ordered_json awq_config_json(const quantization_config& config) {
    using json = nlohmann::ordered_json;
    json left_alone = json::array();
    for (const auto& rule : config.dynamic.rules()) {
        if (!rule.effect.skip)
            throw unsupported_error("format awq has the same settings for all modules, and the dynamic rule \"" +
                                    rule.expression + "\" changes some; choose gptq or compressed-tensors");
        left_alone.push_back(name_of_rule(rule.expression));
    }
    if (config.lm_head)
        throw unsupported_error("format awq: readers take the output layer for a float one; leave out --lm-head");
    return {{"quant_method", "awq"},
            {"version", "gemm"},
            {"bits", config.settings.bits},
            {"group_size", config.settings.group_size},
            {"zero_point", true},
            {"sym", config.settings.sym},
            {"modules_to_not_convert", left_alone.empty() ? json(nullptr) : left_alone},
            {"meta", meta_json(config)}};
}

GPTQ_INLINE nlohmann::ordered_json gptq_config_json(const quantization_config& config) {
    const quantize_settings& settings = config.settings;
    nlohmann::ordered_json object = {{"bits", settings.bits},
                                     {"group_size", settings.group_size},
                                     {"desc_act", has_desc_act(settings.order)},
                                     {"sym", settings.sym},
                                     {"lm_head", config.lm_head},
                                     {"quant_method", "gptq"},
                                     {"checkpoint_format", format_name(config.format)},
                                     {"pack_dtype", "int32"}};
    // Other readers insist on a number between 0 and 1, and have one of their own where it is left out.
    if (settings.damp_percent && *settings.damp_percent > 0.0) object["damp_percent"] = *settings.damp_percent;
    object["static_groups"] = settings.order == order_kind::act_static;
    object["act_group_aware"] = settings.order == order_kind::group_aware;
    object["true_sequential"] = config.true_sequential;
    if (!config.dynamic.empty()) object["dynamic"] = config.dynamic.to_json();
    if (!config.quantized_modules.empty())
        object["modules_in_block_to_quantize"] = nlohmann::ordered_json::array({config.quantized_modules});
    object["meta"] = meta_json(config);
    return object;
}

}  // namespace detail
}  // namespace gptq::io
