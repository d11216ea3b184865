// The bodies of <gptq/model/reader_rules.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/reader_rules.hpp>

namespace gptq::model {

GPTQ_INLINE std::optional<std::string> fused_name(std::string_view module) {
    static constexpr std::array<std::array<std::string_view, 2>, 2> names = {
        {{"q_proj", "qkv_proj"}, {"gate_proj", "gate_up_proj"}}};
    for (const auto& [first, fused] : names)
        if (module.ends_with("." + std::string(first)))
            return std::string(module.substr(0, module.size() - first.size())).append(fused);
    return std::nullopt;
}

namespace detail {

/// A rule of vLLM's names for each rule that decides what vLLM fuses, right after it.
inline io::dynamic_rules with_fused_layers(const io::dynamic_rules& wanted, const quantization_plan& plan,
                                           std::string_view blocks) {
    using rule = io::dynamic_rules::rule;
    std::map<std::pair<const rule*, std::string>, std::string> numbers;  // of blocks, "0|1|2"
    for (const stage_plan& stage : plan.stages) {
        const module_plan& first = stage.modules.front();
        const auto fused = stage.modules.size() < 2 ? std::nullopt : fused_name(first.name);
        const rule* decides = fused ? wanted.find(first.name) : nullptr;
        if (decides == nullptr || wanted.find(*fused) == decides) continue;
        std::string& list = numbers[{decides, *fused_name(first.name_in_layer)}];
        list.append(list.empty() ? "" : "|").append(std::to_string(stage.layer));
    }
    if (numbers.empty()) return wanted;
    auto rules = nlohmann::ordered_json::object();
    for (const rule& r : wanted.rules()) {
        const std::string prefix = r.effect.skip ? "-:" : "+:";
        rules[prefix + r.expression] = r.settings;
        for (const auto& [what, list] : numbers)
            if (what.first == &r)
                rules[prefix + io::detail::escaped(blocks) + "(?:" + list + ")\\." + io::detail::escaped(what.second) +
                      "$"] = r.settings;
    }
    return {rules, "the rules of fused layers", io::unknown_settings::kept};
}

/// The quantized modules of the blocks, by the ends of their names where that says which.
inline std::vector<std::string> quantized_modules(const quantization_plan& plan, std::string_view blocks) {
    struct use {
        std::vector<std::string> names;
        bool everywhere = true;
    };
    std::map<std::string, use> uses;  // by the name in the block
    for (const stage_plan& stage : plan.stages)
        for (const module_plan& m : stage.modules) {
            if (!m.name.starts_with(blocks)) continue;
            use& u = uses[m.name_in_layer];
            u.everywhere = u.everywhere && stage.settings;
            if (stage.settings) u.names.push_back(m.name);
        }
    std::vector<std::string> names;
    for (const auto& [end, u] : uses) {
        if (u.everywhere)
            names.push_back(end);
        else
            names.insert(names.end(), u.names.begin(), u.names.end());
    }
    return names;
}

}  // namespace detail

GPTQ_INLINE io::quantization_config for_readers(io::quantization_config wanted, const quantization_plan& plan,
                                                std::string_view blocks) {
    if (io::is_compressed_tensors(wanted.format) || wanted.format == io::checkpoint_format::awq) return wanted;
    const auto& rules = wanted.dynamic.rules();
    if (std::any_of(rules.begin(), rules.end(), [](const auto& r) { return r.effect.skip; }))
        wanted.quantized_modules = detail::quantized_modules(plan, blocks);
    wanted.dynamic = detail::with_fused_layers(wanted.dynamic, plan, blocks);
    return wanted;
}

}  // namespace gptq::model
