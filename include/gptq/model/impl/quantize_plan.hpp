// The bodies of <gptq/model/quantize_plan.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/quote.hpp>
#include <gptq/scheme.hpp>
#include <gptq/settings.hpp>

namespace gptq::model {

GPTQ_INLINE std::size_t stage_plan::weights() const {
    std::size_t total = 0;
    for (const module_plan& m : modules) total += m.out_features * m.in_features;
    return total;
}

GPTQ_INLINE std::size_t quantization_plan::pieces() const { return stages.empty() ? 0 : stages.back().layer + 1; }

namespace detail {

/// The sites of one block, in the order of run_block_by_stages.
inline std::vector<stage_plan> block_stages(const model_config& c, std::size_t index) {
    std::vector<stage_plan> stages;
    const block_description block = describe_block(c, index);
    for (const block_site& site : block.sites) {
        stages.push_back({index, {}, {}});
        for (const block_module& m : site.modules)
            stages.back().modules.push_back({block.full_name(m), m.name, m.out_features, m.in_features});
    }
    return stages;
}

GPTQ_INLINE std::vector<stage_plan> model_stages(const model_config& c, bool lm_head) {
    std::vector<stage_plan> stages;
    for (std::size_t i = 0; i < c.blocks; ++i)
        for (stage_plan& stage : block_stages(c, i)) stages.push_back(std::move(stage));
    const std::string head(c.arch.names.head);
    if (lm_head) stages.push_back({c.blocks, {{head, head, c.vocab_size, c.embedding_size}}, {}});
    return stages;
}

GPTQ_INLINE zero_points zeros_of(io::checkpoint_format format) {
    return format == io::checkpoint_format::gptq ? zero_points::from_one : zero_points::from_zero;
}

/// The settings of one module after the rules; nothing if they leave it alone. Throws unsupported_error for static
/// groups without an order to quantize them in.
inline std::optional<quantize_settings> settings_of(const io::quantization_config& config, const std::string& name) {
    const auto settings = config.settings_of(name);
    if (!settings) return std::nullopt;
    const bool ordered = settings->order == order_kind::act || settings->order == order_kind::act_static;
    if (config.dynamic.match(name).static_groups == true && !ordered)
        throw unsupported_error("dynamic: " + name + ": static_groups needs desc_act, in the same rule or for all");
    return settings;
}

/// What no format decides; where one does, its checks come before and name what would do.
inline void check_settings(const stage_plan& stage) {
    try {
        stage.settings->check();
    } catch (const option_error& problem) {
        throw option_error(stage.modules.front().name + ": " + problem.what());
    }
}

inline std::string settings_string(const std::optional<quantize_settings>& s) {
    return s ? describe(*s) : "not quantized";
}

/// Runtimes fuse q/k/v and gate/up, so the rules may not tell them apart.
inline void settle_stage(const io::quantization_config& config, stage_plan& stage) {
    stage.settings = settings_of(config, stage.modules.front().name);
    for (const module_plan& m : stage.modules) {
        const auto settings = settings_of(config, m.name);
        if (settings == stage.settings) continue;
        throw unsupported_error("dynamic: " + stage.modules.front().name + " (" + settings_string(stage.settings) +
                                ") and " + m.name + " (" + settings_string(settings) +
                                ") differ, but runtimes such as vLLM fuse them; let one rule match both");
    }
}

inline void check_tensor(const io::model_folder& folder, const module_plan& m) {
    const io::tensor_info& info = folder.tensor(m.name + std::string(weight_suffix));
    const std::vector<std::size_t> expected{m.out_features, m.in_features};
    if (info.shape != expected)
        throw shape_error(folder.path().string() + ": tensor " + info.name + " is " + io::shape_text(info.shape) +
                          ", config.json says " + io::shape_text(expected));
}

inline void check_bits(io::checkpoint_format format, const stage_plan& stage) {
    io::visit_layout(format, [&]<class L>() {
        if (L::supports(stage.settings->bits)) return;
        std::string choices;
        for (int bits = 2; bits <= 8; ++bits)
            if (L::supports(bits)) choices += (choices.empty() ? "" : ", ") + std::to_string(bits);
        throw unsupported_error(stage.modules.front().name + ": " + std::to_string(stage.settings->bits) +
                                " bits are not supported by the format " + io::format_name(format) + "; choose from " +
                                choices);
    });
}

/// A list of modules for a message, each name once although every block has it, e.g. "self_attn.q_proj (576 inputs)".
class module_list {
 public:
    void add(const std::string& entry) {
        if (std::find(entries_.begin(), entries_.end(), entry) == entries_.end()) entries_.push_back(entry);
    }
    bool empty() const { return entries_.empty(); }
    std::string text() const {
        std::string all;
        for (const std::string& entry : entries_) all += (all.empty() ? "" : ", ") + entry;
        return all;
    }

 private:
    std::vector<std::string> entries_;
};

/// What a layout cannot pack, such as features that are no multiple of what a word holds.
inline void check_packable(io::checkpoint_format format, const std::vector<stage_plan>& stages) {
    module_list unfit;
    const auto packs = [format](const module_plan& m) {
        try {
            io::visit_layout(format, [&]<class L>() { L::check_shape(m.out_features, m.in_features); });
            return true;
        } catch (const shape_error&) {
            return false;
        }
    };
    for (const stage_plan& stage : stages)
        for (const module_plan& m : stage.modules)
            if (stage.settings && !packs(m))
                unfit.add(m.name_in_layer + " " + shape_string(m.out_features, m.in_features));
    if (unfit.empty()) return;
    const bool gptq = format == io::checkpoint_format::gptq || format == io::checkpoint_format::gptq_v2;
    const char* which = format == io::checkpoint_format::awq ? "awq holds layers whose out_features are multiples of 8"
                        : gptq ? "gptq holds layers whose [out_features, in_features] are multiples of 32"
                               : "of FP4 holds layers whose in_features are even";
    throw shape_error("format " + std::string(which) + " only, not " + unfit.text() +
                      "; choose compressed-tensors, or leave these alone by a dynamic rule \"-:...\"");
}

GPTQ_INLINE bool group_size_fits(io::checkpoint_format format, int size, std::size_t in_features) {
    if (size != per_channel && (size <= 0 || in_features % static_cast<std::size_t>(size) != 0)) return false;
    return io::visit_layout(format, [size]<class L>() { return L::reads_groups_of(size); });
}

/// Of the sizes that are usual, those that fit every quantized module.
inline std::string fitting_group_sizes(io::checkpoint_format format, const std::vector<stage_plan>& stages) {
    std::string sizes;
    for (const int size : {per_channel, 16, 32, 64, 128, 256, 512, 1024}) {
        const bool fits = std::all_of(stages.begin(), stages.end(), [&](const stage_plan& stage) {
            return !stage.settings || group_size_fits(format, size, stage.modules.front().in_features);
        });
        const std::string name = size == per_channel ? "-1 (one group per row)" : std::to_string(size);
        if (fits) sizes += (sizes.empty() ? "" : ", ") + name;
    }
    return sizes.empty() ? "none" : sizes;
}

/// Formats of numbers that have a sign hold no zero points.
inline void check_zeros(io::checkpoint_format format, const stage_plan& stage) {
    if (stage.settings->sym || io::visit_layout(format, [&]<class L>() { return !layout::holds_elements<L>; })) return;
    throw unsupported_error(stage.modules.front().name + ": the format " + io::format_name(format) +
                            " holds no zero points; leave out --asym");
}

/// Groups that follow the order of activations need a tensor that says where each input feature is.
inline void check_order(io::checkpoint_format format, const stage_plan& stage) {
    const bool scattered = stage.settings->order == order_kind::act && stage.settings->group_size != per_channel;
    if (!scattered || io::visit_layout(format, [&]<class L>() { return !L::parts.g_idx.empty(); })) return;
    throw unsupported_error(
        stage.modules.front().name + ": the format " + io::format_name(format) +
        " holds groups of neighbouring input features only; choose --order gar in the place of act");
}

inline void check_groups(io::checkpoint_format format, const std::vector<stage_plan>& stages) {
    module_list unfit;
    for (const stage_plan& stage : stages)
        for (const module_plan& m : stage.modules)
            if (stage.settings && !group_size_fits(format, stage.settings->group_size, m.in_features))
                unfit.add(m.name_in_layer + " (groups of " + std::to_string(stage.settings->group_size) + ", " +
                          std::to_string(m.in_features) + " inputs)");
    if (unfit.empty()) return;
    throw shape_error("the group size must divide the input features, and be one that readers of the format accept: " +
                      unfit.text() + "; sizes that fit all modules: " + fitting_group_sizes(format, stages));
}

GPTQ_INLINE void check_stages(io::checkpoint_format format, const std::vector<stage_plan>& stages) {
    for (const stage_plan& stage : stages) {
        if (!stage.settings) continue;
        check_bits(format, stage);
        check_order(format, stage);
        check_zeros(format, stage);
    }
    check_packable(format, stages);
    check_groups(format, stages);
    for (const stage_plan& stage : stages)
        if (stage.settings) check_settings(stage);
}

inline void check_lm_head(const model_config& config, const io::model_folder& folder) {
    const std::string head = std::string(config.arch.names.head) + std::string(weight_suffix);
    if (!config.tied_embeddings && folder.contains(head)) return;
    throw unsupported_error(folder.path().string() + ": the output layer shares its weights with the embedding, so " +
                            "it cannot be quantized; leave it out");
}

/// Rules that match nothing are usually misspelt.
inline void warn_about_rules(const io::dynamic_rules& rules, const std::vector<stage_plan>& stages,
                             std::vector<std::string>& warnings) {
    for (const auto& rule : rules.rules()) {
        const bool used = std::any_of(stages.begin(), stages.end(), [&](const stage_plan& stage) {
            return std::any_of(stage.modules.begin(), stage.modules.end(),
                               [&](const module_plan& m) { return rule.pattern.matches(m.name); });
        });
        if (!used) warnings.push_back("the dynamic rule " + in_quotes(rule.expression) + " matches no module");
    }
}

/// What current readers refuse or get wrong (docs/readers.md), and what to take in its place.
inline void warn_about_readers(const io::quantization_config& config, const std::vector<stage_plan>& stages,
                               std::vector<std::string>& warnings) {
    const auto some = [&](const auto& holds) {
        return std::any_of(stages.begin(), stages.end(),
                           [&](const stage_plan& stage) { return stage.settings && holds(*stage.settings); });
    };
    const bool asymmetric = some([](const quantize_settings& s) { return !s.sym; });
    const bool scattered =
        some([](const quantize_settings& s) { return s.order == order_kind::act && s.group_size != per_channel; });
    if (config.format == io::checkpoint_format::compressed_tensors) {
        if (scattered)
            warnings.push_back(
                "no current program reads groups in the order of activations from compressed-tensors; take --order "
                "gar");
        if (asymmetric)
            warnings.push_back(
                "transformers 5.24 with compressed-tensors 0.20 fails on asymmetric layers; gptq_v2 and awq are read");
    }
    if (io::is_compressed_tensors(config.format) || config.format == io::checkpoint_format::awq) return;
    if (config.format == io::checkpoint_format::gptq && asymmetric)
        warnings.push_back(
            "GPTQModel refuses asymmetric checkpoints in format gptq that it has not written itself; "
            "it reads gptq_v2, and so does transformers");
    if (config.lm_head)
        warnings.push_back(
            "transformers takes the output layer of a checkpoint in format gptq for a new one, and computes nonsense; "
            "compressed-tensors is read");
    const auto& rules = config.dynamic.rules();
    if (std::any_of(rules.begin(), rules.end(), [](const auto& rule) { return !rule.effect.skip; }))
        warnings.push_back(
            "transformers fails on rules that change settings in format gptq, which GPTQModel reads; "
            "compressed-tensors is read by both transformers and vLLM");
    if (scattered)
        warnings.push_back(
            "vLLM does not look at the order of inputs (g_idx) in groups in the order of activations; "
            "--order gar is as good and needs none");
}

inline std::vector<std::string> plan_warnings(const io::quantization_config& config,
                                              const std::vector<stage_plan>& stages) {
    std::vector<std::string> warnings;
    warn_about_rules(config.dynamic, stages, warnings);
    const auto quantized = [](const stage_plan& stage) { return stage.settings.has_value(); };
    if (std::none_of(stages.begin(), stages.end(), quantized))
        warnings.push_back("the dynamic rules leave every module alone: nothing is quantized");
    warn_about_readers(config, stages, warnings);
    return warnings;
}

}  // namespace detail
GPTQ_INLINE quantization_plan plan_quantization(const model_config& config, const io::model_folder& folder,
                                                const io::quantization_config& wanted) {
    if (io::holds_quantized_tensors(folder))
        throw unsupported_error(folder.path().string() + ": is quantized already; start from the float model");
    if (wanted.lm_head) detail::check_lm_head(config, folder);
    wanted.to_json();  // what the description cannot say is refused before the work
    quantization_plan plan{detail::model_stages(config, wanted.lm_head), {}};
    for (stage_plan& stage : plan.stages) {
        detail::settle_stage(wanted, stage);
        for (const module_plan& m : stage.modules) detail::check_tensor(folder, m);
    }
    detail::check_stages(wanted.format, plan.stages);
    plan.warnings = folder_warnings(config, folder);
    for (std::string& warning : detail::plan_warnings(wanted, plan.stages)) plan.warnings.push_back(std::move(warning));
    return plan;
}

}  // namespace gptq::model
