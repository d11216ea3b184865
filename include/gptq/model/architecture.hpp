// The architectures that can be run, as a table. A new one of the Llama family is a new row here and nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace gptq::model {

/// How rows are normalized: x / rms(x) * w, or (x - mean(x)) / std(x) * w + b.
enum class norm_kind { rms, layer };

/// The function inside the MLP. `gelu` is the one with erf, `gelu_tanh` its approximation.
enum class mlp_activation { silu, gelu, gelu_tanh, relu, relu_squared };

/// Where the order of the tokens comes from: rotated queries and keys, or a learned vector added to each embedding.
enum class position_kind { rotary, learned };

/// Which blocks look back only over a limited window (a list `layer_types` in config.json has precedence where the
/// rule is not `every_block`):
/// none; all, if sliding_window is set; those from max_window_layers on, if use_sliding_window is set; all but each
/// sliding_window_pattern-th; none, and a model that sets use_sliding_window is refused.
enum class window_rule { none, every_block, after_max_window_layers, all_but_every_nth, refused };

/// Which blocks rotate queries and keys: all; those with 1 in no_rope_layers, else all but every fourth; those with a
/// window; these too, but all in a model without windows.
enum class rotation_rule { every_block, listed, windowed, windowed_if_any };

/// A yes or no: the value of `key` in config.json, and `otherwise` where the key is absent or empty.
struct config_flag {
    std::string_view key;
    bool otherwise = false;
};

/// Names of the tensors, without ".weight" and ".bias". An empty name means that the architecture has no such thing.
/// Those of a block are relative to `blocks` + "<index>.".
struct tensor_names {
    std::string_view embedding = "model.embed_tokens";
    std::string_view positions = "";
    std::string_view project_in = "";
    std::string_view blocks = "model.layers.";
    std::string_view final_norm = "model.norm";
    std::string_view project_out = "";
    std::string_view head = "lm_head";

    std::string_view q = "self_attn.q_proj";
    std::string_view k = "self_attn.k_proj";
    std::string_view v = "self_attn.v_proj";
    std::string_view o = "self_attn.o_proj";
    std::string_view qkv = "";  ///< q, k and v one below the other in one tensor, in place of the three
    std::string_view gate = "mlp.gate_proj";
    std::string_view up = "mlp.up_proj";
    std::string_view down = "mlp.down_proj";
    std::string_view gate_up = "";  ///< gate and up likewise

    std::string_view attention_norm = "input_layernorm";
    std::string_view attention_out_norm = "";
    std::string_view mlp_norm = "post_attention_layernorm";
    std::string_view mlp_out_norm = "";
    std::string_view q_norm = "";
    std::string_view k_norm = "";
};

/// How an MLP is split into experts, of which a router chooses some for each token. Names are relative to the block.
struct expert_rules {
    std::string_view router = "";  ///< empty: the architecture has no experts
    std::string_view prefix = "mlp.experts.";
    std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";  ///< after the prefix and "<expert>."
    std::string_view shared_prefix = "";                                      ///< of an expert that every token goes to
    std::string_view shared_gate = "";  ///< its outputs are multiplied by the sigmoid of this layer's only output
    std::string_view size_key = "moe_intermediate_size";
    std::size_t default_count = 0, default_per_token = 0, default_size = 0, default_shared_size = 0;
    config_flag renormalizes = {"norm_topk_prob"};  ///< the shares of a token's experts add up to 1
};

/// What tells one architecture from another. The defaults describe Llama; `default_` values hold where config.json
/// leaves a key out.
struct architecture {
    std::string_view model_type;  ///< "model_type" in config.json
    std::string_view class_name;  ///< the entry of "architectures" in config.json
    tensor_names names = {};

    std::string_view intermediate_key = "intermediate_size";
    std::string_view activation_key = "hidden_act";
    std::string_view norm_eps_key = "rms_norm_eps";
    double default_norm_eps = 1e-6;
    std::string_view default_activation = "silu";
    std::size_t default_kv_heads = 0;  ///< 0: as many as heads
    std::size_t default_head_dim = 0;  ///< 0: hidden_size / heads
    bool tied_by_default = false;

    norm_kind norm = norm_kind::rms;
    bool norm_adds_one = false;  ///< the files have w - 1 in place of w
    bool norm_has_bias = true;   ///< of the kind `layer`
    position_kind positions = position_kind::rotary;
    window_rule windows = window_rule::none;
    std::size_t default_window = 4096;   ///< 0: none
    std::size_t default_window_nth = 6;  ///< for sliding_window_pattern; 0: blocks without a window are listed

    double default_theta = 10000.0;
    std::string_view theta_key = "rope_theta";
    double default_window_theta = 0.0;  ///< theta of blocks with a window; 0: the same as that of the others
    bool scales_windows = true;         ///< blocks with a window have the scaling of rope_scaling, too

    config_flag qkv_bias = {"attention_bias"};
    config_flag o_bias = {"attention_bias"};
    config_flag mlp_bias = {"mlp_bias"};

    std::string_view query_scalar_key = "";    ///< scores are divided by the root of this number, not of head_dim
    double default_query_scalar = 0.0;         ///< for query_scalar_key
    bool scales_embedding = false;             ///< embeddings are multiplied by the root of hidden_size
    bool needs_bos = false;                    ///< text without a beginning-of-text token makes no sense to the model
    config_flag norm_before = {"", true};      ///< norms read a branch's input (true) or the sum after it (false)
    config_flag norm_parameters = {"", true};  ///< norms have weights
    config_flag removes_final_norm = {"", false};
    config_flag parallel = {};         ///< attention and MLP both read the states at the block's start
    bool qkv_by_heads = false;         ///< outputs of names.qkv: for each head of keys, its queries, it and its values
    bool rotates_neighbours = false;   ///< the features 2 i and 2 i + 1 of a head turn together
    bool norms_rotated_heads = false;  ///< q_norm and k_norm come after rotation
    bool alpha_scales_theta = false;   ///< `alpha` of dynamic scaling is a larger theta, whatever the length (Hunyuan)
    bool reads_caps = false;           ///< attn_logit_softcapping and final_logit_softcapping cap scores and logits
    double default_score_cap = 0.0, default_logit_cap = 0.0;  ///< 0: none
    bool gelu_is_tanh = false;                                ///< "gelu" means its approximation (Gemma)
    std::string_view rotary_share_key = "partial_rotary_factor";
    double default_rotary_share = 0;   ///< for partial_rotary_factor: of a head's features; 0: heads rotate as a whole
    bool has_multipliers = false;      ///< of embeddings, scores, branches and logits, in config.json (Granite)
    double default_logit_scale = 0.0;  ///< for logit_scale, which logits are multiplied by; 0: there is none
    rotation_rule rotation = rotation_rule::every_block;
    bool norms_all_heads = false;     ///< q_norm and k_norm take all heads of a token together, not each by itself
    expert_rules experts = {};        ///< of MLPs that consist of experts
    std::size_t position_offset = 0;  ///< first row of the table of learned positions that is used
};

namespace detail {

inline constexpr tensor_names sandwich_names = {.attention_out_norm = "post_attention_layernorm",
                                                .mlp_norm = "pre_feedforward_layernorm",
                                                .mlp_out_norm = "post_feedforward_layernorm",
                                                .q_norm = "self_attn.q_norm",
                                                .k_norm = "self_attn.k_norm"};

/// Branches read the states as they are, and are normalized before they are added.
inline constexpr tensor_names norms_after_names = {.attention_norm = "",
                                                   .attention_out_norm = "post_attention_layernorm",
                                                   .mlp_norm = "",
                                                   .mlp_out_norm = "post_feedforward_layernorm",
                                                   .q_norm = "self_attn.q_norm",
                                                   .k_norm = "self_attn.k_norm"};

/// One norm serves both branches.
inline constexpr tensor_names phi_names = {.final_norm = "model.final_layernorm",
                                           .o = "self_attn.dense",
                                           .gate = "",
                                           .up = "mlp.fc1",
                                           .down = "mlp.fc2",
                                           .mlp_norm = "input_layernorm"};

inline constexpr tensor_names gpt_neox_names = {.embedding = "gpt_neox.embed_in",
                                                .blocks = "gpt_neox.layers.",
                                                .final_norm = "gpt_neox.final_layer_norm",
                                                .head = "embed_out",
                                                .o = "attention.dense",
                                                .qkv = "attention.query_key_value",
                                                .gate = "",
                                                .up = "mlp.dense_h_to_4h",
                                                .down = "mlp.dense_4h_to_h"};

inline constexpr tensor_names opt_names = {.embedding = "model.decoder.embed_tokens",
                                           .positions = "model.decoder.embed_positions",
                                           .project_in = "model.decoder.project_in",
                                           .blocks = "model.decoder.layers.",
                                           .final_norm = "model.decoder.final_layer_norm",
                                           .project_out = "model.decoder.project_out",
                                           .o = "self_attn.out_proj",
                                           .gate = "",
                                           .up = "fc1",
                                           .down = "fc2",
                                           .attention_norm = "self_attn_layer_norm",
                                           .mlp_norm = "final_layer_norm"};

}  // namespace detail

/// Every architecture the library runs. SmolLM2 and all versions of Llama are "llama".
inline constexpr std::array<architecture, 31> architectures = {{
    {.model_type = "llama", .class_name = "LlamaForCausalLM"},

    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .default_kv_heads = 8,
     .windows = window_rule::every_block,
     .qkv_bias = {},
     .o_bias = {},
     .mlp_bias = {}},

    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .default_kv_heads = 32,
     .windows = window_rule::after_max_window_layers,
     .qkv_bias = {"", true},
     .o_bias = {},
     .mlp_bias = {}},

    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .names = {.q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"},
     .default_kv_heads = 32,
     .default_head_dim = 128,
     .windows = window_rule::after_max_window_layers,
     .mlp_bias = {}},

    {.model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .names = detail::sandwich_names,
     .activation_key = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .default_kv_heads = 4,
     .default_head_dim = 256,
     .tied_by_default = true,
     .norm_adds_one = true,
     .windows = window_rule::all_but_every_nth,
     .default_theta = 1000000.0,
     .default_window_theta = 10000.0,
     .scales_windows = false,
     .mlp_bias = {},
     .query_scalar_key = "query_pre_attn_scalar",
     .default_query_scalar = 256.0,
     .scales_embedding = true,
     .needs_bos = true,
     .reads_caps = true},

    {.model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .names = {.attention_out_norm = "post_attention_layernorm",
               .mlp_norm = "pre_feedforward_layernorm",
               .mlp_out_norm = "post_feedforward_layernorm"},
     .activation_key = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .default_kv_heads = 4,
     .default_head_dim = 256,
     .tied_by_default = true,
     .norm_adds_one = true,
     .windows = window_rule::all_but_every_nth,
     .default_window_nth = 2,
     .mlp_bias = {},
     .query_scalar_key = "query_pre_attn_scalar",
     .default_query_scalar = 256.0,
     .scales_embedding = true,
     .needs_bos = true,
     .reads_caps = true,
     .default_score_cap = 50.0,
     .default_logit_cap = 30.0},

    {.model_type = "gemma",
     .class_name = "GemmaForCausalLM",
     .default_activation = "gelu_pytorch_tanh",
     .default_kv_heads = 16,
     .default_head_dim = 256,
     .tied_by_default = true,
     .norm_adds_one = true,
     .mlp_bias = {},
     .scales_embedding = true,
     .needs_bos = true,
     .gelu_is_tanh = true},

    {.model_type = "glm",
     .class_name = "GlmForCausalLM",
     .names = {.gate_up = "mlp.gate_up_proj"},
     .default_norm_eps = 1.5625e-7,
     .default_kv_heads = 2,
     .default_head_dim = 128,
     .qkv_bias = {"attention_bias", true},
     .o_bias = {},
     .mlp_bias = {},
     .rotates_neighbours = true,
     .default_rotary_share = 0.5},

    {.model_type = "glm4",
     .class_name = "Glm4ForCausalLM",
     .names = {.gate_up = "mlp.gate_up_proj",
               .attention_out_norm = "post_self_attn_layernorm",
               .mlp_out_norm = "post_mlp_layernorm"},
     .default_norm_eps = 1.5625e-7,
     .default_kv_heads = 2,
     .default_head_dim = 128,
     .qkv_bias = {"attention_bias", true},
     .o_bias = {},
     .mlp_bias = {},
     .rotates_neighbours = true,
     .default_rotary_share = 0.5},

    {.model_type = "gpt_neox",
     .class_name = "GPTNeoXForCausalLM",
     .names = detail::gpt_neox_names,
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .default_activation = "gelu",
     .norm = norm_kind::layer,
     .theta_key = "rotary_emb_base",
     .qkv_bias = {"attention_bias", true},
     .o_bias = {"attention_bias", true},
     .mlp_bias = {"", true},
     .parallel = {"use_parallel_residual", true},
     .qkv_by_heads = true,
     .rotary_share_key = "rotary_pct",
     .default_rotary_share = 0.25},

    {.model_type = "starcoder2",
     .class_name = "Starcoder2ForCausalLM",
     .names = {.gate = "", .up = "mlp.c_fc", .down = "mlp.c_proj"},
     .norm_eps_key = "norm_epsilon",
     .default_norm_eps = 1e-5,
     .default_activation = "gelu_pytorch_tanh",
     .default_kv_heads = 2,
     .tied_by_default = true,
     .norm = norm_kind::layer,
     .windows = window_rule::every_block,
     .default_window = 0,
     .qkv_bias = {"use_bias", true},
     .o_bias = {"use_bias", true},
     .mlp_bias = {"use_bias", true}},

    {.model_type = "stablelm",
     .class_name = "StableLmForCausalLM",
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .default_kv_heads = 32,
     .norm = norm_kind::layer,
     .qkv_bias = {"use_qkv_bias"},
     .o_bias = {},
     .mlp_bias = {},
     .default_rotary_share = 0.25},

    {.model_type = "cohere",
     .class_name = "CohereForCausalLM",
     .names = {.mlp_norm = "input_layernorm"},
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .tied_by_default = true,
     .norm = norm_kind::layer,
     .norm_has_bias = false,
     .default_theta = 500000.0,
     .mlp_bias = {},
     .parallel = {"", true},
     .rotates_neighbours = true,
     .default_logit_scale = 0.0625},

    {.model_type = "cohere2",
     .class_name = "Cohere2ForCausalLM",
     .names = {.mlp_norm = "input_layernorm"},
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .tied_by_default = true,
     .norm = norm_kind::layer,
     .norm_has_bias = false,
     .windows = window_rule::all_but_every_nth,
     .default_window_nth = 4,
     .mlp_bias = {},
     .parallel = {"", true},
     .rotates_neighbours = true,
     .default_logit_scale = 0.0625,
     .rotation = rotation_rule::windowed},

    {.model_type = "olmo",
     .class_name = "OlmoForCausalLM",
     .norm_eps_key = "",
     .default_norm_eps = 1e-5,
     .norm = norm_kind::layer,
     .mlp_bias = {},
     .norm_parameters = {}},

    {.model_type = "olmo3",
     .class_name = "Olmo3ForCausalLM",
     .names = detail::norms_after_names,
     .default_norm_eps = 1e-5,
     .windows = window_rule::all_but_every_nth,
     .default_window_nth = 4,
     .default_theta = 500000.0,
     .scales_windows = false,
     .mlp_bias = {},
     .norms_all_heads = true},

    {.model_type = "hunyuan_v1_dense",
     .class_name = "HunYuanDenseV1ForCausalLM",
     .names = {.q_norm = "self_attn.query_layernorm", .k_norm = "self_attn.key_layernorm"},
     .default_norm_eps = 1e-5,
     .mlp_bias = {},
     .norms_rotated_heads = true,
     .alpha_scales_theta = true},

    {.model_type = "ministral",
     .class_name = "MinistralForCausalLM",
     .default_kv_heads = 8,
     .windows = window_rule::all_but_every_nth,
     .default_window_nth = 0,
     .qkv_bias = {},
     .o_bias = {},
     .mlp_bias = {}},

    {.model_type = "seed_oss",
     .class_name = "SeedOssForCausalLM",
     .default_kv_heads = 8,
     .default_head_dim = 128,
     .qkv_bias = {"attention_bias", true},
     .o_bias = {"attention_out_bias"}},

    {.model_type = "exaone4",
     .class_name = "Exaone4ForCausalLM",
     .names = detail::norms_after_names,
     .default_norm_eps = 1e-5,
     .default_kv_heads = 32,
     .windows = window_rule::all_but_every_nth,
     .default_window_nth = 4,
     .qkv_bias = {},
     .o_bias = {},
     .mlp_bias = {},
     .rotation = rotation_rule::windowed_if_any},

    {.model_type = "nemotron",
     .class_name = "NemotronForCausalLM",
     .names = {.gate = ""},
     .norm_eps_key = "norm_eps",
     .default_norm_eps = 1e-5,
     .default_activation = "relu2",
     .norm = norm_kind::layer,
     .norm_adds_one = true,
     .default_rotary_share = 0.5},

    {.model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .names = {.qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"},
     .default_norm_eps = 1e-5,
     .windows = window_rule::every_block,
     .default_window = 0,
     .qkv_bias = {},
     .o_bias = {},
     .mlp_bias = {},
     .default_rotary_share = 1.0},

    {.model_type = "phi",
     .class_name = "PhiForCausalLM",
     .names = detail::phi_names,
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .default_activation = "gelu_new",
     .norm = norm_kind::layer,
     .qkv_bias = {"", true},
     .o_bias = {"", true},
     .mlp_bias = {"", true},
     .parallel = {"", true},
     .default_rotary_share = 0.5},

    {.model_type = "granite", .class_name = "GraniteForCausalLM", .has_multipliers = true},

    {.model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .default_kv_heads = 4,
     .tied_by_default = true,
     .windows = window_rule::refused,
     .default_theta = 2000000.0,
     .rotation = rotation_rule::listed},

    {.model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .names = detail::norms_after_names,
     .default_norm_eps = 1e-5,
     .mlp_bias = {},
     .norms_all_heads = true},

    {.model_type = "mixtral",
     .class_name = "MixtralForCausalLM",
     .default_norm_eps = 1e-5,
     .default_kv_heads = 8,
     .windows = window_rule::every_block,
     .default_window = 0,
     .default_theta = 1000000.0,
     .qkv_bias = {},
     .o_bias = {},
     .experts = {.router = "block_sparse_moe.gate",
                 .prefix = "block_sparse_moe.experts.",
                 .gate = "w1",
                 .up = "w3",
                 .down = "w2",
                 .size_key = "intermediate_size",
                 .default_count = 8,
                 .default_per_token = 2,
                 .renormalizes = {"", true}}},

    {.model_type = "qwen2_moe",
     .class_name = "Qwen2MoeForCausalLM",
     .default_kv_heads = 16,
     .windows = window_rule::refused,
     .qkv_bias = {"qkv_bias", true},
     .o_bias = {},
     .mlp_bias = {},
     .experts = {.router = "mlp.gate",
                 .shared_prefix = "mlp.shared_expert.",
                 .shared_gate = "mlp.shared_expert_gate",
                 .default_count = 60,
                 .default_per_token = 4,
                 .default_size = 1408,
                 .default_shared_size = 5632}},

    {.model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .names = {.q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"},
     .default_kv_heads = 4,
     .windows = window_rule::refused,
     .mlp_bias = {},
     .experts = {.router = "mlp.gate", .default_count = 128, .default_per_token = 8, .default_size = 768}},

    {.model_type = "olmoe",
     .class_name = "OlmoeForCausalLM",
     .names = {.q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"},
     .default_norm_eps = 1e-5,
     .mlp_bias = {},
     .norms_all_heads = true,
     .experts = {.router = "mlp.gate", .size_key = "intermediate_size", .default_count = 64, .default_per_token = 8}},

    {.model_type = "opt",
     .class_name = "OPTForCausalLM",
     .names = detail::opt_names,
     .intermediate_key = "ffn_dim",
     .activation_key = "activation_function",
     .norm_eps_key = "",
     .default_norm_eps = 1e-5,
     .default_activation = "relu",
     .tied_by_default = true,
     .norm = norm_kind::layer,
     .positions = position_kind::learned,
     .qkv_bias = {"enable_bias", true},
     .o_bias = {"enable_bias", true},
     .mlp_bias = {"enable_bias", true},
     .norm_before = {"do_layer_norm_before", true},
     .norm_parameters = {"layer_norm_elementwise_affine", true},
     .removes_final_norm = {"_remove_final_layer_norm", false},
     .position_offset = 2},
}};

}  // namespace gptq::model
