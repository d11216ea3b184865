// The bodies of <gptq/model/spared_layers.hpp>.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/spared_layers.hpp>
#include <gptq/model/wrapped_text.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE void spare(nlohmann::ordered_json& rules, const std::string& expression) {
    rules["-:" + expression] = nullptr;
}

/// A rule for each part of a wrapped model that is not of text, such as "visual", whatever readers put before its name.
inline void spare_parts_without_text(const model_config& config, const io::model_folder& folder,
                                     nlohmann::ordered_json& rules) {
    const tensor_names& names = config.arch.names;
    for (const std::string& tensor : folder.tensor_names()) {
        const auto is_of = [&](std::string_view part) { return tensor.starts_with(part); };
        if (is_of(names.blocks) || is_of(names.embedding) || is_of(names.final_norm) || is_of(names.head)) continue;
        const std::string inner = tensor.starts_with("model.") ? tensor.substr(6) : tensor;
        const std::string part = inner.substr(0, inner.find('.'));
        if (part != "language_model") spare(rules, "(?:.*\\.)?" + io::detail::escaped(part) + "\\.");
    }
}

}  // namespace detail

GPTQ_INLINE io::quantization_config spare_others(const model_config& config, const io::model_folder& folder,
                                                 io::quantization_config wanted) {
    auto rules = wanted.dynamic.to_json();
    const std::size_t before = rules.size();
    const expert_rules& experts = config.arch.experts;
    for (const std::string_view layer : {experts.router, experts.shared_gate})
        if (config.experts != 0 && !layer.empty())
            detail::spare(rules,
                          io::detail::escaped(config.arch.names.blocks) + "\\d+\\." + io::detail::escaped(layer) + "$");
    if (find_wrapped(folder.config()) != nullptr) detail::spare_parts_without_text(config, folder, rules);
    if (rules.size() != before) wanted.dynamic = io::dynamic_rules(rules, "the rules of layers that stay as they are");
    return wanted;
}

}  // namespace gptq::model
