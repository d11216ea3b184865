// What a block consists of, as data: sites, where layers read one input, with the layers of each; norms; and the steps
// that run them. Whoever loads, plans, holds, runs or lists the layers of a block walks this description.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// One linear layer, as the files name it. It writes the columns first_output, ..., first_output + out_features - 1 of
/// what the layers of its site compute side by side.
struct block_module {
    std::string name;  ///< within the block, e.g. "self_attn.q_proj"
    std::size_t out_features = 0;
    std::size_t in_features = 0;
    bool needs_bias = false;
    std::size_t first_output = 0;
};

/// What the layers of a site do: q, k and v; o; gate and up, or up alone; down.
enum class site_kind { attention_in, attention_out, mlp_in, mlp_out };

/// Layers that read one input. Their outputs side by side are the parts, whichever layer computes them: a layer may
/// compute one part, or several (Phi-3 has q, k and v in one tensor).
struct block_site {
    site_kind kind = site_kind::attention_in;
    std::optional<std::size_t> expert;  ///< only the tokens of this expert come here; nothing: all tokens
    std::vector<std::size_t> parts;     ///< features of q, k and v; of gate and up; of the only output
    /// The outputs of a layer of several parts are so many pieces, one after the other, each with its share of every
    /// part.
    std::size_t pieces = 1;
    std::vector<block_module> modules = {};  ///< in the order of their outputs

    std::size_t in_features() const { return modules.front().in_features; }
};

/// Where a norm stands: before and after each branch, and over queries and keys.
enum class norm_place { attention_in, attention_out, mlp_in, mlp_out, q, k };

inline constexpr std::size_t norm_places = 6;

struct block_norm {
    norm_place place = norm_place::attention_in;
    std::string name;          ///< within the block
    std::size_t features = 0;  ///< of q and k: those of a head, or of all heads where the norm takes them together
};

/// What runs some neighbouring sites: attention and mlp two each, experts two for each expert and the shared one.
enum class step_kind { attention, mlp, experts };

/// A branch beside the states: it reads them through the norm `before`, and is added to them through `after` if the
/// block has that norm.
struct block_step {
    step_kind kind = step_kind::attention;
    std::size_t first_site = 0;
    std::size_t sites = 0;
    norm_place before = norm_place::attention_in, after = norm_place::attention_out;
};

/// What sends tokens to experts. Its layers are never quantized.
struct block_router {
    std::string name;         ///< within the block                                          [experts, hidden_size]
    std::string shared_gate;  ///< scales the shared expert, or empty                              [1, hidden_size]
};

struct block_description {
    std::string prefix;  ///< "model.layers.0.": what the names begin with in the files
    std::vector<block_site> sites;
    std::vector<block_norm> norms;
    std::vector<block_step> steps;
    std::optional<block_router> router;

    /// What the module is called in the files, without ".weight".
    std::string full_name(const block_module& module) const { return prefix + module.name; }
};

/// Block `index` of a model. This function alone knows which layers an architecture has.
block_description describe_block(const model_config& config, std::size_t index);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/block_description.hpp>
#endif
