// The bodies of <gptq/model/block_description.hpp>.
#pragma once

#include <cstddef>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {
namespace detail {

/// Describes one block, step after step.
class block_writer {
 public:
    block_writer(const model_config& config, std::size_t index) : c_(config), names_(config.arch.names) {
        block_.prefix = config.block_prefix(index);
    }

    block_description finish() && { return std::move(block_); }

    void add_attention() {
        begin_step(step_kind::attention, norm_place::attention_in, norm_place::attention_out);
        const std::size_t q = c_.query_features(), kv = c_.kv_features();
        add_site(site_kind::attention_in, {}, {q, kv, kv}, c_.hidden_size, c_.qkv_bias, names_.qkv,
                 {std::string(names_.q), std::string(names_.k), std::string(names_.v)});
        add_site(site_kind::attention_out, {}, {c_.hidden_size}, q, c_.o_bias, names_.o, {});
    }

    void add_mlp() {
        begin_step(step_kind::mlp, norm_place::mlp_in, norm_place::mlp_out);
        add_mlp_sites({}, "", c_.intermediate_size, c_.mlp_bias, {names_.gate_up, names_.gate, names_.up, names_.down});
    }

    void add_experts() {
        const expert_rules& rules = c_.arch.experts;
        begin_step(step_kind::experts, norm_place::mlp_in, norm_place::mlp_out);
        block_.router = block_router{std::string(rules.router), std::string(rules.shared_gate)};
        const mlp_names parts{"", rules.gate, rules.up, rules.down};
        for (std::size_t e = 0; e < c_.experts; ++e)
            add_mlp_sites(e, std::string(rules.prefix) + std::to_string(e) + ".", c_.expert_size, false, parts);
        if (c_.shared_expert_size != 0)
            add_mlp_sites({}, std::string(rules.shared_prefix), c_.shared_expert_size, false, parts);
    }

    void add_norms() {
        add_norm(norm_place::attention_in, names_.attention_norm, c_.hidden_size);
        add_norm(norm_place::attention_out, names_.attention_out_norm, c_.hidden_size);
        add_norm(norm_place::mlp_in, names_.mlp_norm, c_.hidden_size);
        add_norm(norm_place::mlp_out, names_.mlp_out_norm, c_.hidden_size);
        const bool whole = c_.arch.norms_all_heads;
        add_norm(norm_place::q, names_.q_norm, whole ? c_.query_features() : c_.head_dim);
        add_norm(norm_place::k, names_.k_norm, whole ? c_.kv_features() : c_.head_dim);
    }

 private:
    struct mlp_names {
        std::string_view gate_up, gate, up, down;
    };

    void begin_step(step_kind kind, norm_place before, norm_place after) {
        block_.steps.push_back({kind, block_.sites.size(), 0, before, after});
    }

    void add_mlp_sites(std::optional<std::size_t> expert, const std::string& prefix, std::size_t size, bool bias,
                       const mlp_names& names) {
        const auto named = [&](std::string_view name) { return name.empty() ? "" : prefix + std::string(name); };
        if (c_.gated())
            add_site(site_kind::mlp_in, expert, {size, size}, c_.hidden_size, bias, named(names.gate_up),
                     {named(names.gate), named(names.up)});
        else
            add_site(site_kind::mlp_in, expert, {size}, c_.hidden_size, bias, named(names.up), {});
        add_site(site_kind::mlp_out, expert, {c_.hidden_size}, size, bias, named(names.down), {});
    }

    /// All parts in one layer, if it has a name; else a layer for each.
    void add_site(site_kind kind, std::optional<std::size_t> expert, std::vector<std::size_t> parts,
                  std::size_t in_features, bool bias, std::string_view fused, const std::vector<std::string>& single) {
        block_site site{kind, expert, std::move(parts)};
        std::size_t first = 0;
        if (!fused.empty()) {
            const std::size_t all = std::accumulate(site.parts.begin(), site.parts.end(), std::size_t{0});
            site.modules.push_back({std::string(fused), all, in_features, bias, 0});
            if (kind == site_kind::attention_in && c_.arch.qkv_by_heads) site.pieces = c_.kv_heads;
        } else {
            for (std::size_t i = 0; i < site.parts.size(); first += site.parts[i++])
                site.modules.push_back({single[i], site.parts[i], in_features, bias, first});
        }
        block_.sites.push_back(std::move(site));
        ++block_.steps.back().sites;
    }

    void add_norm(norm_place place, std::string_view name, std::size_t features) {
        if (!name.empty()) block_.norms.push_back({place, std::string(name), features});
    }

    const model_config& c_;
    const tensor_names& names_;
    block_description block_;
};

}  // namespace detail

GPTQ_INLINE block_description describe_block(const model_config& config, std::size_t index) {
    detail::block_writer block(config, index);
    block.add_attention();
    if (config.has_experts(index))
        block.add_experts();
    else
        block.add_mlp();
    block.add_norms();
    return std::move(block).finish();
}

}  // namespace gptq::model
