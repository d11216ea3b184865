// `dynamic` rules of quantization configs: regular expressions on module names that leave modules alone or change their
// settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/pcre2.hpp>

namespace gptq::io {

/// What the rules say about a module: leave it alone, or replace the settings that have a value here.
struct dynamic_match {
    bool skip = false;              ///< leave the module unquantized
    std::optional<int> bits;        ///< 2 to 8
    std::optional<int> group_size;  ///< positive, or -1 for one group per row
    std::optional<bool> sym;
    std::optional<bool> desc_act;
    std::optional<bool> static_groups;
    std::optional<bool> act_group_aware;
    std::optional<double> damp_percent;
};

namespace detail {

/// A regular expression for a name.
std::string escaped(std::string_view name);

/// A compiled regular expression that matches from the start of a name. Copies share the compiled code.
class anchored_pattern {
 public:
    /// Throws format_error, naming the expression, if it does not compile.
    anchored_pattern(const std::string& text, const std::string& where);

    /// Throws format_error if the expression needs too many steps to decide.
    bool matches(std::string_view name) const;

 private:
    static constexpr std::size_t max_pattern_bytes = 64 << 10;
    static constexpr std::uint32_t max_steps = 1'000'000;
    static constexpr std::uint32_t max_depth = 10'000;

    static std::string pcre2_message(int code);

    [[noreturn]] void fail(const std::string& what) const;

    std::string text_;
    std::string where_;
    std::shared_ptr<pcre2_code_8> code_;
};

}  // namespace detail

/// What becomes of settings in rules that neither this library nor GPTQModel knows. A user's rules with such a setting
/// are refused, because it is probably misspelled. A checkpoint's rules are kept, because a newer program may have
/// written them.
enum class unknown_settings { refused, kept };

/// An ordered list of rules. A name is matched from its start (not to its end); rules that skip are looked at first,
/// then the others, each in their order; the first that matches decides.
class dynamic_rules {
 public:
    dynamic_rules() = default;

    /// From an object {"regular expression": {settings}}: "-:" before an expression leaves matching modules
    /// unquantized, "+:" or nothing replaces the settings. GPTQModel's settings that do not concern the result of
    /// quantizing are kept for to_json() and not looked at. `where` begins every message. Throws format_error, naming
    /// the rule.
    dynamic_rules(const nlohmann::ordered_json& rules, const std::string& where,
                  unknown_settings unknown = unknown_settings::refused);

    bool empty() const { return rules_.empty(); }

    /// One rule, as it was read.
    struct rule {
        std::string expression;  ///< without its prefix
        dynamic_match effect;
        nlohmann::ordered_json settings;  ///< all of them, as they were given
        detail::anchored_pattern pattern;
    };

    /// What the rules say about the module `name`, such as "model.layers.0.mlp.up_proj". Throws format_error if an
    /// expression is too costly to match.
    dynamic_match match(std::string_view name) const;

    /// The rule that decides about the module `name`; null if none does. Throws as match().
    const rule* find(std::string_view name) const;

    /// In the order in which they are tried.
    const std::vector<rule>& rules() const { return rules_; }

    /// The object that these rules are read from.
    nlohmann::ordered_json to_json() const;

 private:
    void add(const std::string& key, const nlohmann::ordered_json& settings, const std::string& where,
             unknown_settings unknown);

    static void refuse_unknown(const nlohmann::ordered_json& settings, const std::string& where);

    static void read_overrides(const nlohmann::ordered_json& settings, dynamic_match& effect, const std::string& where);

    std::vector<rule> rules_;
};

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/dynamic_rules.hpp>
#endif
