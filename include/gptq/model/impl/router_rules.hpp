// The bodies of <gptq/model/router_rules.hpp>.
#pragma once

#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/router_rules.hpp>

namespace gptq::model {
namespace detail {

/// A regular expression for a name.
inline std::string escaped(std::string_view name) {
    std::string text;
    for (const char c : name) text += c == '.' ? std::string("\\.") : std::string(1, c);
    return text;
}

}  // namespace detail

GPTQ_INLINE io::quantization_config spare_routers(const model_config& config, io::quantization_config wanted) {
    if (config.experts == 0) return wanted;
    auto rules = wanted.dynamic.to_json();
    const expert_rules& experts = config.arch.experts;
    for (const std::string_view layer : {experts.router, experts.shared_gate})
        if (!layer.empty())
            rules["-:" + detail::escaped(config.arch.names.blocks) + "\\d+\\." + detail::escaped(layer) + "$"] =
                nullptr;
    wanted.dynamic = io::dynamic_rules(rules, "the rules of the routers");
    return wanted;
}

}  // namespace gptq::model
