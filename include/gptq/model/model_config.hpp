// model_config: everything that config.json says about how a model computes, checked and with defaults filled in.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>

namespace gptq::model {

/// How the frequencies of the rotation are changed for long contexts.
enum class rope_scaling { none, linear, dynamic, llama3, yarn, longrope };

/// One rotary position embedding; all but theta belong to rope_scaling. Pairs that turn more than high_freq_factor
/// times in the original context keep their speed, those that turn less than low_freq_factor times are slowed down by
/// factor.
struct rope_settings {
    double theta = 10000.0;
    rope_scaling scaling = rope_scaling::none;
    double factor = 1.0;
    double low_freq_factor = 1.0;
    double high_freq_factor = 4.0;
    double original_positions = 0.0;
    double attention_factor = 1.0;  ///< cosines and sines are multiplied by it
    bool whole_pairs = true;        ///< yarn's limits are rounded to whole pairs of features
    /// longrope: each pair is slowed down by a factor of its own, one for texts that fit in the original context and
    /// one for longer ones.                                                                           [features / 2]
    std::vector<float> short_factors = {}, long_factors = {};

    /// A text of so many tokens rotates by long_factors.
    bool is_long(std::size_t length) const {
        return scaling == rope_scaling::longrope && static_cast<double>(length) > original_positions;
    }

    friend bool operator==(const rope_settings&, const rope_settings&) = default;
};

/// A model's sizes and choices. Every size is at least 1, heads is a multiple of kv_heads.
struct model_config {
    architecture arch;

    std::size_t vocab_size = 0;
    std::size_t hidden_size = 0;
    std::size_t embedding_size = 0;  ///< differs from hidden_size where the architecture projects embeddings (OPT-350M)
    std::size_t intermediate_size = 0;
    std::size_t blocks = 0;
    std::size_t heads = 0;
    std::size_t kv_heads = 0;
    std::size_t head_dim = 0;
    std::size_t rotary_features = 0;  ///< of each head, the first ones; even
    std::size_t max_positions = 0;

    mlp_activation activation = mlp_activation::silu;
    double norm_eps = 1e-6;
    float attention_scale = 1.0f;
    float embedding_scale = 1.0f;
    float branch_scale = 1.0f;  ///< what a branch is multiplied by before it is added to the states
    float logit_scale = 1.0f;   ///< is in the weights of the last norm
    float score_cap = 0.0f;     ///< attention's scores s become cap tanh(s / cap); 0: they stay
    float logit_cap = 0.0f;     ///< logits likewise
    bool parallel = false;      ///< attention and MLP both read the states at the block's start
    bool tied_embeddings = false;
    bool ignores_tying = false;  ///< config.json calls the embeddings tied, but the files hold another head
    bool qkv_bias = false;
    bool o_bias = false;
    bool mlp_bias = false;
    bool norm_before = true;
    bool norm_parameters = true;
    bool final_norm = true;
    std::vector<bool> unrotated;  ///< for each block whether it does without rotation; empty: none does

    std::size_t experts = 0;             ///< of an MLP that consists of experts; 0: none does
    std::size_t experts_per_token = 0;   ///< from 1 to experts
    std::size_t expert_size = 0;         ///< features inside an expert
    std::size_t shared_expert_size = 0;  ///< features inside the expert of all tokens; 0: there is none
    bool renormalizes_shares = false;
    std::vector<bool> expert_blocks;  ///< for each block whether its MLP consists of experts; empty: none does

    std::vector<std::size_t> windows;  ///< for each block how many tokens it sees, itself included; 0: all before it
    rope_settings rope;                ///< of blocks that see everything
    rope_settings window_rope;         ///< of blocks with a window

    std::size_t query_features() const { return heads * head_dim; }
    std::size_t kv_features() const { return kv_heads * head_dim; }
    bool rotary() const { return arch.positions == position_kind::rotary; }
    bool rotates(std::size_t index) const { return rotary() && (unrotated.empty() || !unrotated[index]); }
    bool norm_bias() const { return arch.norm == norm_kind::layer && arch.norm_has_bias; }
    rotary_heads rotary_shape() const { return {head_dim, arch.rotates_neighbours}; }
    bool gated() const { return !arch.names.gate.empty() || !arch.names.gate_up.empty(); }
    bool has_experts(std::size_t index) const { return !expert_blocks.empty() && expert_blocks[index]; }

    /// Attention of so many queries of a window over its keys, of which a token sees `span`.
    attention_shape attention(std::size_t span, std::size_t queries, std::size_t keys) const {
        return {heads, kv_heads, head_dim, attention_scale, span, queries, keys, score_cap};
    }

    /// "model.layers.<index>.", what the names of a block's tensors begin with.
    std::string block_prefix(std::size_t index) const;
};

/// Checks config.json and fills in what it leaves out. Throws format_error for a value that makes no sense,
/// unsupported_error for an architecture or a setting that is not known.
/// `what` names the file in messages.
model_config parse_model_config(const nlohmann::json& json, const std::string& what = "config.json");

/// What the config.json of a folder says. Throws as parse_model_config. Embeddings that it calls tied are not where the
/// files hold a head of other numbers: what is stored was trained so, and the config is out of date.
model_config read_model_config(const io::model_folder& folder);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/model_config.hpp>
#endif
