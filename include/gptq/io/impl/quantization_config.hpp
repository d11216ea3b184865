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
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/scheme.hpp>
#include <gptq/version.hpp>

namespace gptq::io {

GPTQ_INLINE std::string format_name(checkpoint_format format) {
    switch (format) {
        case checkpoint_format::gptq: return "gptq";
        case checkpoint_format::gptq_v2: return "gptq_v2";
        case checkpoint_format::compressed_tensors: return "compressed-tensors";
    }
    return "unknown";
}

GPTQ_INLINE order_kind quantization_config::order() const {
    if (desc_act) return static_groups ? order_kind::act_static : order_kind::act;
    return act_group_aware ? order_kind::group_aware : order_kind::natural;
}

GPTQ_INLINE void quantization_config::set_order(order_kind order) {
    desc_act = order == order_kind::act || order == order_kind::act_static;
    static_groups = order == order_kind::act_static;
    act_group_aware = order == order_kind::group_aware;
}

GPTQ_INLINE std::optional<module_settings> quantization_config::settings_of(std::string_view module) const {
    const auto match = dynamic.match(module);
    if (match.skip) return std::nullopt;
    return module_settings{match.bits.value_or(bits), match.group_size.value_or(group_size), match.sym.value_or(sym),
                           match.desc_act.value_or(desc_act), match.static_groups.value_or(static_groups)};
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

}  // namespace gptq::io

namespace gptq::io {
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
    check_bits(config.format, config.bits, where);
    check_group_size(config.group_size, where);
    for (const auto& rule : config.dynamic.rules())
        if (rule.effect.bits)
            check_bits(config.format, *rule.effect.bits, where + ": rule \"" + rule.expression + "\"");
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

GPTQ_INLINE quantization_config read_gptq_config(const nlohmann::ordered_json& object, const std::string& where) {
    quantization_config config;
    const auto required = [&](std::initializer_list<const char*> synonyms) {
        const auto value = setting_of<int>(object, synonyms, where);
        if (!value) throw format_error(where + ": \"" + *synonyms.begin() + "\" is missing");
        return *value;
    };
    config.format = read_gptq_format(object, where);
    config.bits = required({"bits", "w_bit", "wbits"});
    config.group_size = required({"group_size", "q_group_size"});
    config.sym = read_sym(object, where);
    config.desc_act = setting<bool>(object, "desc_act", where).value_or(false);
    config.lm_head = setting<bool>(object, "lm_head", where).value_or(false);
    const auto pack_dtype = setting<std::string>(object, "pack_dtype", where).value_or("int32");
    if (lower_case(pack_dtype) != "int32")
        throw unsupported_error(where + ": pack_dtype \"" + pack_dtype + "\" is not supported; only int32 is");

    // GPTQModel keeps how the codes came about in `meta`, AutoGPTQ beside the rest.
    const auto empty = nlohmann::ordered_json::object();
    const auto& meta = object.contains("meta") && object["meta"].is_object() ? object["meta"] : empty;
    const auto either = [&]<class T>(const char* key, T& value) {
        if (const auto inner = setting<T>(meta, key, where + ": meta")) value = *inner;
        if (const auto outer = setting<T>(object, key, where)) value = *outer;
    };
    either("damp_percent", config.damp_percent);
    either("static_groups", config.static_groups);
    either("true_sequential", config.true_sequential);
    either("act_group_aware", config.act_group_aware);
    if (config.desc_act) config.act_group_aware = false;
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
inline std::string exact_expression(std::string_view text) {
    std::string expression = "^";
    for (const char c : text) {
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') expression += '\\';
        expression += c;
    }
    return expression + "$";
}

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
                            std::initializer_list<std::string_view> accepted, const std::string& where) {
    const auto value = setting<std::string>(object, key, where);
    if (!value || std::find(accepted.begin(), accepted.end(), *value) != accepted.end()) return;
    throw unsupported_error(where + ": " + key + " \"" + *value + "\" is not supported; only \"" +
                            std::string(*accepted.begin()) + "\" is");
}

/// The `weights` of a group of modules as the settings of a dynamic rule.
inline nlohmann::ordered_json compressed_group_settings(const nlohmann::ordered_json& group, const std::string& where) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object())
        throw unsupported_error(where + ": has no quantized weights");
    for (const char* activations : {"input_activations", "output_activations"})
        if (group.contains(activations) && !group[activations].is_null())
            throw unsupported_error(where + ": quantized activations are not supported");
    require_setting(group, "format", {"pack-quantized"}, where);
    const auto& weights = group["weights"];
    require_setting(weights, "type", {"int"}, where);
    require_setting(weights, "strategy", {"group", "channel"}, where);
    require_setting(weights, "actorder", {"group", "weight", "dynamic", "static"}, where);
    const auto bits = setting<int>(weights, "num_bits", where);
    const auto group_size = setting<int>(weights, "group_size", where);
    const auto strategy = setting<std::string>(weights, "strategy", where).value_or(group_size ? "group" : "channel");
    if (!bits) throw format_error(where + ": \"num_bits\" is missing");
    if (strategy == "group" && !group_size) throw format_error(where + ": \"group_size\" is missing");
    // "group" and "dynamic", "weight" and "static" are the older and the newer names of the same two.
    const auto order = setting<std::string>(weights, "actorder", where).value_or("");
    const bool groups_follow_order = order == "group" || order == "dynamic";
    return {{"bits", *bits},
            {"group_size", strategy == "group" ? *group_size : -1},
            {"sym", setting<bool>(weights, "symmetric", where).value_or(true)},
            {"desc_act", !order.empty()},
            {"static_groups", !order.empty() && !groups_follow_order}};
}

GPTQ_INLINE quantization_config read_compressed_config(const nlohmann::ordered_json& object, const std::string& where) {
    require_setting(object, "format", {"pack-quantized"}, where);
    if (!object.contains("config_groups") || !object["config_groups"].is_object() || object["config_groups"].empty())
        throw format_error(where + ": has no \"config_groups\"");
    nlohmann::ordered_json rules = nlohmann::ordered_json::object();
    std::optional<nlohmann::ordered_json> base;
    for (const auto& name : string_list(object, "ignore", where)) rules["-:" + target_expression(name)] = nullptr;
    for (const auto& [name, group] : object["config_groups"].items()) {
        const std::string here = where + ": config_groups." + name;
        const auto settings = compressed_group_settings(group, here);
        for (const auto& target : string_list(group, "targets", here)) {
            if (target == "Linear")
                base = settings;
            else
                rules["+:" + target_expression(target)] = settings;
        }
        if (!base && object["config_groups"].size() == 1) base = settings;
    }
    if (!base) throw unsupported_error(where + ": no group has the target \"Linear\"");
    quantization_config config;
    config.format = checkpoint_format::compressed_tensors;
    config.bits = (*base)["bits"].get<int>();
    config.group_size = (*base)["group_size"].get<int>();
    config.sym = (*base)["sym"].get<bool>();
    config.desc_act = (*base)["desc_act"].get<bool>();
    config.static_groups = (*base)["static_groups"].get<bool>();
    config.dynamic = dynamic_rules(rules, where, unknown_settings::kept);
    config.lm_head = !config.dynamic.match("lm_head").skip;
    check_supported(config, where);
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

inline nlohmann::ordered_json compressed_group(const module_settings& settings, bool act_group_aware,
                                               const std::string& target) {
    using json = nlohmann::ordered_json;
    const bool by_group = settings.group_size != -1;
    json order = nullptr;
    if (settings.desc_act || act_group_aware) order = settings.desc_act && !settings.static_groups ? "group" : "weight";
    const json weights = {{"num_bits", settings.bits},
                          {"type", "int"},
                          {"symmetric", settings.sym},
                          {"strategy", by_group ? "group" : "channel"},
                          {"group_size", by_group ? json(settings.group_size) : json(nullptr)},
                          {"actorder", order},
                          {"dynamic", false}};
    return {{"targets", json::array({target})},
            {"weights", weights},
            {"input_activations", nullptr},
            {"output_activations", nullptr}};
}

GPTQ_INLINE nlohmann::ordered_json compressed_config_json(const quantization_config& config) {
    using json = nlohmann::ordered_json;
    json groups = json::object();
    json ignore = json::array();
    const auto add_group = [&](const module_settings& settings, bool act_group_aware, const std::string& target) {
        groups["group_" + std::to_string(groups.size())] = compressed_group(settings, act_group_aware, target);
    };
    const module_settings base{config.bits, config.group_size, config.sym, config.desc_act, config.static_groups};
    add_group(base, config.act_group_aware, "Linear");
    if (!config.lm_head && !config.dynamic.match("lm_head").skip) ignore.push_back("lm_head");
    for (const auto& rule : config.dynamic.rules()) {
        const auto& effect = rule.effect;
        if (effect.skip) {
            ignore.push_back("re:" + rule.expression);
            continue;
        }
        add_group({effect.bits.value_or(base.bits), effect.group_size.value_or(base.group_size),
                   effect.sym.value_or(base.sym), effect.desc_act.value_or(base.desc_act),
                   effect.static_groups.value_or(base.static_groups)},
                  effect.act_group_aware.value_or(config.act_group_aware), "re:" + rule.expression);
    }
    return {{"quant_method", "compressed-tensors"},
            {"format", "pack-quantized"},
            {"quantization_status", "compressed"},
            {"config_groups", groups},
            {"ignore", ignore},
            {"kv_cache_scheme", nullptr}};
}

GPTQ_INLINE nlohmann::ordered_json gptq_config_json(const quantization_config& config) {
    nlohmann::ordered_json object = {{"bits", config.bits},
                                     {"group_size", config.group_size},
                                     {"desc_act", config.desc_act},
                                     {"sym", config.sym},
                                     {"lm_head", config.lm_head},
                                     {"quant_method", "gptq"},
                                     {"checkpoint_format", format_name(config.format)},
                                     {"pack_dtype", "int32"},
                                     {"damp_percent", config.damp_percent},
                                     {"static_groups", config.static_groups},
                                     {"act_group_aware", config.act_group_aware},
                                     {"true_sequential", config.true_sequential}};
    if (!config.dynamic.empty()) object["dynamic"] = config.dynamic.to_json();
    object["meta"] = {{"quantizer", nlohmann::ordered_json::array({"gptq:" + std::string(version_string)})}};
    return object;
}

}  // namespace detail
}  // namespace gptq::io
