// The bodies of <gptq/io/dynamic_rules.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/pcre2.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE std::string escaped(std::string_view name) {
    std::string expression;
    for (const char c : name) {
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') expression += '\\';
        expression += c;
    }
    return expression;
}

GPTQ_INLINE anchored_pattern::anchored_pattern(const std::string& text, const std::string& where)
    : text_(text), where_(where) {
    const std::unique_ptr<pcre2_compile_context_8, decltype(&pcre2_compile_context_free_8)> context(
        pcre2_compile_context_create_8(nullptr), &pcre2_compile_context_free_8);
    if (context) pcre2_set_max_pattern_length_8(context.get(), max_pattern_bytes);
    int code = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), PCRE2_ANCHORED, &code, &at,
                                context.get()),
                &pcre2_code_free_8);
    if (!code_) fail("does not compile: " + pcre2_message(code) + " at character " + std::to_string(at));
}

GPTQ_INLINE bool anchored_pattern::matches(std::string_view name) const {
    const std::unique_ptr<pcre2_match_context_8, decltype(&pcre2_match_context_free_8)> context(
        pcre2_match_context_create_8(nullptr), &pcre2_match_context_free_8);
    const std::unique_ptr<pcre2_match_data_8, decltype(&pcre2_match_data_free_8)> data(
        pcre2_match_data_create_8(1, nullptr), &pcre2_match_data_free_8);
    if (!context || !data) fail("no memory for matching");
    pcre2_set_match_limit_8(context.get(), max_steps);
    pcre2_set_depth_limit_8(context.get(), max_depth);
    const int result = pcre2_match_8(code_.get(), reinterpret_cast<PCRE2_SPTR8>(name.data()), name.size(), 0, 0,
                                     data.get(), context.get());
    if (result >= 0) return true;
    if (result == PCRE2_ERROR_NOMATCH) return false;
    fail("cannot be matched against " + in_quotes(name) + ": " + pcre2_message(result));
}

GPTQ_INLINE std::string anchored_pattern::pcre2_message(int code) {
    std::array<PCRE2_UCHAR8, 256> text{};
    const int length = pcre2_get_error_message_8(code, text.data(), text.size());
    if (length < 0) return "error " + std::to_string(code);
    return std::string(reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(length));
}

GPTQ_INLINE void anchored_pattern::fail(const std::string& what) const {
    throw format_error(where_ + ": the regular expression " + in_quotes(text_) + " " + what);
}

}  // namespace detail
GPTQ_INLINE dynamic_rules::dynamic_rules(const nlohmann::ordered_json& rules, const std::string& where,
                                         unknown_settings unknown) {
    if (!rules.is_object()) throw format_error(where + ": dynamic rules must be a JSON object");
    for (const bool skipping : {true, false})
        for (const auto& [key, settings] : rules.items())
            if (key.starts_with("-:") == skipping) add(key, settings, where, unknown);
}

GPTQ_INLINE const dynamic_rules::rule* dynamic_rules::find(std::string_view name) const {
    for (const rule& r : rules_)
        if (r.pattern.matches(name)) return &r;
    return nullptr;
}

GPTQ_INLINE dynamic_match dynamic_rules::match(std::string_view name) const {
    const rule* decides = find(name);
    return decides == nullptr ? dynamic_match() : decides->effect;
}

GPTQ_INLINE nlohmann::ordered_json dynamic_rules::to_json() const {
    auto object = nlohmann::ordered_json::object();
    for (const auto& r : rules_) object[(r.effect.skip ? "-:" : "+:") + r.expression] = r.settings;
    return object;
}

GPTQ_INLINE void dynamic_rules::add(const std::string& key, const nlohmann::ordered_json& settings,
                                    const std::string& where, unknown_settings unknown) {
    const std::string here = where + ": dynamic rule " + in_quotes(key);
    if (!settings.is_object() && !settings.is_null()) throw format_error(here + ": settings must be a JSON object");
    const bool has_prefix = key.starts_with("-:") || key.starts_with("+:");
    const std::string expression = has_prefix ? key.substr(2) : key;
    dynamic_match effect;
    effect.skip = key.starts_with("-:");
    if (unknown == unknown_settings::refused) refuse_unknown(settings, here);
    if (!effect.skip) read_overrides(settings, effect, here);
    rules_.push_back({expression, effect, settings.is_null() ? nlohmann::ordered_json::object() : settings,
                      detail::anchored_pattern(expression, here)});
}

GPTQ_INLINE void dynamic_rules::refuse_unknown(const nlohmann::ordered_json& settings, const std::string& where) {
    static constexpr std::string_view known[] = {"bits",          "group_size",      "sym",         "desc_act",
                                                 "static_groups", "act_group_aware", "damp_percent"};
    static constexpr std::string_view of_gptqmodel[] = {
        "adapter", "damp_auto_increment", "failsafe",     "fallback", "format",          "gptaq", "hessian", "lm_head",
        "mse",     "pack_dtype",          "quant_method", "rotation", "true_sequential", "v2",    "v2_alpha"};
    for (const auto& [name, value] : settings.items()) {
        const auto is_it = [&key = name](std::string_view other) { return other == key; };
        if (std::any_of(std::begin(known), std::end(known), is_it) ||
            std::any_of(std::begin(of_gptqmodel), std::end(of_gptqmodel), is_it))
            continue;
        std::string names;
        for (const std::string_view other : known) names += (names.empty() ? "" : ", ") + std::string(other);
        throw format_error(where + ": the setting " + in_quotes(name) + " is not known; those known are " + names);
    }
}

GPTQ_INLINE void dynamic_rules::read_overrides(const nlohmann::ordered_json& settings, dynamic_match& effect,
                                               const std::string& where) {
    if (settings.is_null()) return;
    effect.bits = setting<int>(settings, "bits", where);
    effect.group_size = setting<int>(settings, "group_size", where);
    effect.sym = setting<bool>(settings, "sym", where);
    effect.desc_act = setting<bool>(settings, "desc_act", where);
    effect.static_groups = setting<bool>(settings, "static_groups", where);
    effect.act_group_aware = setting<bool>(settings, "act_group_aware", where);
    effect.damp_percent = setting<double>(settings, "damp_percent", where);
    if (effect.bits && (*effect.bits < 2 || *effect.bits > 8))
        throw unsupported_error(where + ": " + std::to_string(*effect.bits) + " bits; 2 to 8 are possible");
    if (effect.group_size && *effect.group_size <= 0 && *effect.group_size != -1)
        throw format_error(where + ": group_size " + std::to_string(*effect.group_size) +
                           "; a positive number or -1 is needed");
}

}  // namespace gptq::io
