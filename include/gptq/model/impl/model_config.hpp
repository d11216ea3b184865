// The bodies of <gptq/model/model_config.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/config_values.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/wrapped_text.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE std::string model_config::block_prefix(std::size_t index) const {
    return std::string(arch.names.blocks) + std::to_string(index) + ".";
}

namespace detail {

// Far above every published model; what keeps products of sizes from overflowing.
inline constexpr std::size_t largest_vocabulary = std::size_t{1} << 24;

inline constexpr std::size_t largest_width = std::size_t{1} << 20;

inline constexpr std::size_t largest_count = std::size_t{1} << 14;

inline constexpr std::size_t largest_position = std::size_t{1} << 30;

inline std::string known_architectures() {
    std::string names;
    for (const architecture& a : architectures) names += (names.empty() ? "" : ", ") + std::string(a.model_type);
    for (const wrapped_model& w : wrapped_models) names += ", " + std::string(w.model_type);
    return names;
}

/// The entry of "architectures", or "" where there is none. The oldest conversions of Llama spell it otherwise.
inline std::string class_name_of(const config_values& values) {
    const nlohmann::json* list = values.find("architectures");
    if (list == nullptr) return "";
    if (list->is_array() && list->empty()) return "";
    if (!list->is_array() || list->size() != 1 || !list->front().is_string())
        values.fail("architectures", "is not a list of one name");
    const auto name = list->front().get<std::string>();
    return name == "LLaMAForCausalLM" ? "LlamaForCausalLM" : name;
}

inline const architecture& find_architecture(const config_values& values) {
    const std::string type = values.text("model_type", "");
    const std::string class_name = class_name_of(values);
    const auto found = std::find_if(architectures.begin(), architectures.end(), [&](const architecture& a) {
        return type.empty() ? a.class_name == class_name : a.model_type == type;
    });
    if (found == architectures.end())
        throw unsupported_error(values.what() + ": the architecture " + in_quotes(type.empty() ? class_name : type) +
                                " is not one of those supported (" + known_architectures() + ")");
    if (!class_name.empty() && class_name != found->class_name)
        throw unsupported_error(values.what() + ": the model is a " + class_name + "; of the type " +
                                std::string(found->model_type) + " only " + std::string(found->class_name) +
                                " is supported");
    return *found;
}

inline mlp_activation parse_activation(const config_values& values, const architecture& arch) {
    const std::string name = values.text(arch.activation_key, arch.default_activation);
    if (name == "silu" || name == "swish") return mlp_activation::silu;
    if (name == "gelu" && !arch.gelu_is_tanh) return mlp_activation::gelu;
    if (name == "gelu" || name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast")
        return mlp_activation::gelu_tanh;
    if (name == "relu") return mlp_activation::relu;
    if (name == "relu2") return mlp_activation::relu_squared;
    values.unsupported(arch.activation_key,
                       "is " + in_quotes(name) + "; silu, gelu, gelu_pytorch_tanh, relu and relu2 are supported");
}

/// What settings of rotation are read with: the file's other settings.
struct rope_context {
    const config_values& file;
    const model_config& config;

    /// Of the original context, in the file (Phi-3), in the settings, or what the model has now.
    double original_positions(const config_values& settings) const {
        constexpr std::string_view key = "original_max_position_embeddings";
        const double otherwise = settings.positive(key, static_cast<double>(config.max_positions));
        return file.positive(key, otherwise);
    }
};

/// The rest of `rope`. (Peng et al. 2023)
inline rope_settings parse_yarn(const config_values& values, rope_settings rope, const rope_context& context) {
    rope.scaling = rope_scaling::yarn;
    if (rope.theta <= 1.0) values.fail("rope_theta", "is not above 1, as yarn needs it");
    rope.low_freq_factor = values.positive("beta_slow", 1.0);
    rope.high_freq_factor = values.positive("beta_fast", 32.0);
    if (rope.high_freq_factor <= rope.low_freq_factor) values.fail("beta_fast", "is not above beta_slow");
    rope.original_positions = context.original_positions(values);
    rope.whole_pairs = values.flag("truncate", true);
    const auto sharpening = [&](double scale) {
        return rope.factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(rope.factor) + 1.0;
    };
    const bool both = values.find("mscale") != nullptr && values.find("mscale_all_dim") != nullptr;
    const double usual =
        both ? sharpening(values.positive("mscale")) / sharpening(values.positive("mscale_all_dim")) : sharpening(1.0);
    rope.attention_factor = values.positive("attention_factor", usual);
    return rope;
}

inline std::vector<float> parse_factors(const config_values& values, const char* key, std::size_t pairs) {
    const nlohmann::json* list = values.find(key);
    if (list == nullptr || !list->is_array() || list->size() != pairs)
        values.fail(key, "is not a list of " + std::to_string(pairs) + " numbers, one for each pair that rotates");
    std::vector<float> factors;
    for (const nlohmann::json& factor : *list) {
        const float number = factor.is_number() ? factor.get<float>() : 0.0f;
        if (!(number > 0.0f) || !std::isfinite(number)) values.fail(key, "has an entry that is not a number above 0");
        factors.push_back(number);
    }
    return factors;
}

/// (Ding et al. 2024)
inline rope_settings parse_longrope(const config_values& values, rope_settings rope, const rope_context& context) {
    rope.scaling = rope_scaling::longrope;
    rope.original_positions = context.original_positions(values);
    rope.factor =
        values.positive("factor", static_cast<double>(context.config.max_positions) / rope.original_positions);
    const double growth = std::log(rope.factor) / std::log(rope.original_positions);
    const double usual = rope.factor <= 1.0 || rope.original_positions <= 1.0 ? 1.0 : std::sqrt(1.0 + growth);
    rope.attention_factor = values.positive("attention_factor", usual);
    rope.short_factors = parse_factors(values, "short_factor", context.config.rotary_features / 2);
    rope.long_factors = parse_factors(values, "long_factor", context.config.rotary_features / 2);
    return rope;
}

inline rope_settings parse_dynamic(const config_values& values, rope_settings rope, const rope_context& context) {
    const auto features = static_cast<double>(context.config.rotary_features);
    if (features <= 2.0) values.unsupported("rope_type", "is dynamic, which takes more than 2 features that rotate");
    if (context.config.arch.alpha_scales_theta && values.find("alpha") != nullptr) {
        rope.theta *= std::pow(values.positive("alpha"), features / (features - 2.0));
        return rope;
    }
    rope.scaling = rope_scaling::dynamic;
    rope.factor = values.positive("factor");
    rope.original_positions = static_cast<double>(context.config.max_positions);
    return rope;
}

inline rope_settings parse_rope(const config_values& values, double theta, const rope_context& context) {
    rope_settings rope{.theta = values.positive("rope_theta", theta)};
    const std::string type = values.text("rope_type", values.text("type", "default"));
    if (type == "default" || type == "mrope") return rope;  // rotation by places in pictures is plain for text
    if (type == "longrope" || type == "su") return parse_longrope(values, rope, context);
    if (type == "dynamic") return parse_dynamic(values, rope, context);
    if (type != "linear" && type != "llama3" && type != "yarn")
        values.unsupported("rope_type", "is " + in_quotes(type) +
                                            "; default, linear, dynamic, llama3, yarn and longrope are supported");
    rope.factor = values.positive("factor");
    if (type == "yarn") return parse_yarn(values, rope, context);
    rope.scaling = type == "linear" ? rope_scaling::linear : rope_scaling::llama3;
    if (rope.scaling == rope_scaling::linear) return rope;
    rope.low_freq_factor = values.positive("low_freq_factor");
    rope.high_freq_factor = values.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) values.fail("high_freq_factor", "is not above low_freq_factor");
    rope.original_positions = context.original_positions(values);
    return rope;
}

/// How many features of a head rotate. "partial_rotary_factor" is in config.json, or among the settings of rotation.
inline std::size_t parse_rotary_features(const config_values& values, const model_config& c) {
    const double usual = c.arch.default_rotary_share != 0.0 ? c.arch.default_rotary_share : 1.0;
    double share = values.positive("partial_rotary_factor", values.positive(c.arch.rotary_share_key, usual));
    for (const char* key : {"rope_scaling", "rope_parameters"})
        if (const nlohmann::json* settings = values.find(key); settings != nullptr && settings->is_object())
            share = values.object(key).positive("partial_rotary_factor", share);
    if (share != 1.0 && c.arch.default_rotary_share == 0.0)
        values.unsupported("partial_rotary_factor",
                           "is not 1; heads that rotate only in part are not supported for this architecture");
    const auto features = static_cast<std::size_t>(share * static_cast<double>(c.head_dim));
    if (share > 1.0 || features == 0 || features % 2 != 0)
        values.fail("partial_rotary_factor", "makes " + std::to_string(features) + " of " + std::to_string(c.head_dim) +
                                                 " features rotate; that takes an even number above 0");
    return features;
}

/// Fills in rope and window_rope. Older files have "rope_theta" and "rope_scaling" (and Gemma "rope_local_base_freq"),
/// newer ones "rope_parameters", which holds one object for each type of block where the two differ.
inline void parse_ropes(const config_values& values, model_config& c) {
    const double theta = values.positive("rope_theta", values.positive(c.arch.theta_key, c.arch.default_theta));
    const bool differ = c.arch.default_window_theta != 0.0;
    const double window_theta = differ ? values.positive("rope_local_base_freq", c.arch.default_window_theta) : theta;
    const rope_context context{values, c};
    c.rope = {.theta = theta};
    c.window_rope = {.theta = window_theta};

    const bool older = values.find("rope_scaling") != nullptr;
    const std::string_view key = older ? "rope_scaling" : "rope_parameters";
    if (values.find(key) == nullptr) return;
    const config_values settings = values.object(key);
    const bool by_type = settings.find("full_attention") != nullptr || settings.find("sliding_attention") != nullptr;
    if (!by_type) {
        c.rope = parse_rope(settings, theta, context);
        if (c.arch.scales_windows) c.window_rope = c.rope;
        return;
    }
    if (settings.find("full_attention") != nullptr)
        c.rope = parse_rope(settings.object("full_attention"), theta, context);
    if (settings.find("sliding_attention") != nullptr)
        c.window_rope = parse_rope(settings.object("sliding_attention"), window_theta, context);
}

/// The window that blocks with a window have, or 0 where none has one.
inline std::size_t parse_window(const config_values& values, const architecture& arch) {
    if (arch.windows == window_rule::refused && values.flag("use_sliding_window", false))
        values.unsupported("use_sliding_window", "is true; windows are not supported for this architecture");
    if (arch.windows == window_rule::none || arch.windows == window_rule::refused) return 0;
    if (arch.windows == window_rule::after_max_window_layers && !values.flag("use_sliding_window", false)) return 0;
    if (values.has_key("sliding_window") && values.find("sliding_window") == nullptr) return 0;
    if (!values.has_key("sliding_window")) return arch.default_window;
    return values.size("sliding_window", largest_position);
}

/// Which blocks have a window, where config.json lists it block by block.
inline std::vector<std::size_t> windows_from_list(const config_values& values, const nlohmann::json& list,
                                                  std::size_t blocks, std::size_t window) {
    if (!list.is_array() || list.size() != blocks)
        values.fail("layer_types", "is not a list of " + std::to_string(blocks) + " names, one for each block");
    std::vector<std::size_t> windows;
    for (const nlohmann::json& type : list) {
        if (type != "full_attention" && type != "sliding_attention")
            values.unsupported("layer_types", "has an entry other than full_attention and sliding_attention");
        if (type == "sliding_attention" && window == 0)
            values.fail("layer_types", "has sliding_attention, but no sliding_window is set");
        windows.push_back(type == "sliding_attention" ? window : 0);
    }
    return windows;
}

inline std::vector<std::size_t> parse_windows(const config_values& values, const model_config& c) {
    const std::size_t window = parse_window(values, c.arch);
    const window_rule rule = c.arch.windows;
    const bool has_list = rule == window_rule::after_max_window_layers || rule == window_rule::all_but_every_nth;
    if (const nlohmann::json* list = values.find("layer_types"); has_list && list != nullptr)
        return windows_from_list(values, *list, c.blocks, window);

    std::vector<std::size_t> windows(c.blocks, 0);
    if (window == 0) return windows;
    const std::size_t first =
        rule == window_rule::after_max_window_layers ? values.count("max_window_layers", largest_position, 28) : 0;
    const std::size_t nth = rule == window_rule::all_but_every_nth && c.arch.default_window_nth != 0
                                ? values.size("sliding_window_pattern", largest_count, c.arch.default_window_nth)
                                : 0;
    for (std::size_t i = first; i < c.blocks; ++i)
        if (nth == 0 || (i + 1) % nth != 0) windows[i] = window;
    return windows;
}

/// Things that some files of the supported architectures ask for and that would change the results silently.
inline void refuse_unsupported(const config_values& values, const architecture& arch) {
    for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping"})
        if (!arch.reads_caps && values.find(key) != nullptr)
            values.unsupported(key, "is set; caps are not supported for this architecture");
    if (arch.parallel.key.empty() && values.flag("use_parallel_residual", false))
        values.unsupported("use_parallel_residual",
                           "is true; branches side by side are not supported for this architecture");
    if (values.flag("use_qk_norm", false))
        values.unsupported("use_qk_norm", "is true; norms with weights of their own for each head are not supported");
    if (values.flag("qk_layernorm", false))
        values.unsupported("qk_layernorm", "is true; norms of this kind are not supported");
    if (values.find("clip_qkv") != nullptr)
        values.unsupported("clip_qkv", "is set; clipped queries, keys and values are not supported");
    if (values.flag("use_bidirectional_attention", false))
        values.unsupported("use_bidirectional_attention", "is true; only causal attention is supported");
}

/// Which blocks have experts (those of Qwen may alternate with plain ones), how many, and of what size.
inline void parse_experts(const config_values& values, model_config& c) {
    const expert_rules& rules = c.arch.experts;
    if (rules.router.empty()) return;
    const bool older = values.find("num_experts") != nullptr;
    c.experts = values.size(older ? "num_experts" : "num_local_experts", largest_count, rules.default_count);
    c.experts_per_token = values.size("num_experts_per_tok", largest_count, rules.default_per_token);
    if (c.experts_per_token > c.experts)
        values.fail("num_experts_per_tok", "is above the number of experts, " + std::to_string(c.experts));
    c.expert_size = values.size(rules.size_key, largest_width, rules.default_size);
    if (!rules.shared_prefix.empty())
        c.shared_expert_size = values.size("shared_expert_intermediate_size", largest_width, rules.default_shared_size);
    const std::size_t every = values.size("decoder_sparse_step", largest_count, 1);
    for (std::size_t i = 0; i < c.blocks; ++i) c.expert_blocks.push_back((i + 1) % every == 0);
    const nlohmann::json* plain = values.find("mlp_only_layers");
    if (plain == nullptr) return;
    if (!plain->is_array()) values.fail("mlp_only_layers", "is not a list");
    for (const nlohmann::json& block : *plain) {
        if (!block.is_number_unsigned()) values.fail("mlp_only_layers", "has an entry that is not a block's number");
        if (const auto i = block.get<std::size_t>(); i < c.blocks) c.expert_blocks[i] = false;
    }
}

/// A cap on scores or logits, 0 for none.
inline float parse_cap(const config_values& values, std::string_view key, double otherwise) {
    if (values.has_key(key) && values.find(key) == nullptr) return 0.0f;
    if (values.find(key) == nullptr) return static_cast<float>(otherwise);
    const double cap = values.positive(key);
    if (cap < 1e-3 || cap > 1e6) values.fail(key, "is not between 0.001 and 1000000");
    return static_cast<float>(cap);
}

inline void parse_multipliers(const config_values& values, model_config& c) {
    if (c.arch.reads_caps) {
        c.score_cap = parse_cap(values, "attn_logit_softcapping", c.arch.default_score_cap);
        c.logit_cap = parse_cap(values, "final_logit_softcapping", c.arch.default_logit_cap);
    }
    if (c.arch.default_logit_scale != 0.0)
        c.logit_scale = static_cast<float>(values.positive("logit_scale", c.arch.default_logit_scale));
    if (!c.arch.has_multipliers) return;
    c.embedding_scale = static_cast<float>(values.positive("embedding_multiplier", 1.0));
    c.attention_scale = static_cast<float>(values.positive("attention_multiplier", 1.0));
    c.branch_scale = static_cast<float>(values.positive("residual_multiplier", 1.0));
    c.logit_scale = static_cast<float>(1.0 / values.positive("logits_scaling", 1.0));
}

/// Which blocks do without rotation, once windows are known.
inline std::vector<bool> parse_unrotated(const config_values& values, const model_config& c) {
    std::vector<bool> unrotated;
    const rotation_rule rule = c.arch.rotation;
    const bool windows = std::ranges::any_of(c.windows, [](std::size_t window) { return window != 0; });
    if (rule == rotation_rule::every_block || (rule == rotation_rule::windowed_if_any && !windows)) return unrotated;
    if (rule != rotation_rule::listed) {
        for (const std::size_t window : c.windows) unrotated.push_back(window == 0);
        return unrotated;
    }
    const std::size_t every = values.size("no_rope_layer_interval", largest_count, 4);
    for (std::size_t i = 0; i < c.blocks; ++i) unrotated.push_back((i + 1) % every == 0);
    const nlohmann::json* list = values.find("no_rope_layers");
    if (list == nullptr) return unrotated;
    if (!list->is_array() || list->size() != c.blocks)
        values.fail("no_rope_layers", "is not a list of " + std::to_string(c.blocks) + " numbers, one for each block");
    for (std::size_t i = 0; i < c.blocks; ++i) unrotated[i] = list->at(i) == 0;
    return unrotated;
}

inline void parse_sizes(const config_values& values, model_config& c) {
    const architecture& a = c.arch;
    c.vocab_size = values.size("vocab_size", largest_vocabulary);
    c.hidden_size = values.size("hidden_size", largest_width);
    const bool projects = !a.names.project_in.empty();
    c.embedding_size = projects ? values.size("word_embed_proj_dim", largest_width, c.hidden_size) : c.hidden_size;
    c.intermediate_size = values.size(a.intermediate_key, largest_width);
    c.blocks = values.size("num_hidden_layers", largest_count);
    c.max_positions = values.size("max_position_embeddings", largest_position, 2048);
    c.heads = values.size("num_attention_heads", largest_count);
    const std::size_t kv_default = a.default_kv_heads != 0 ? a.default_kv_heads : c.heads;
    c.kv_heads = values.size("num_key_value_heads", largest_count, kv_default);
    if (c.heads % c.kv_heads != 0)
        values.fail("num_attention_heads", "(" + std::to_string(c.heads) +
                                               ") is not a multiple of num_key_value_heads (" +
                                               std::to_string(c.kv_heads) + ")");
    if (values.find("head_dim") == nullptr && a.default_head_dim == 0 && c.hidden_size % c.heads != 0)
        values.fail("hidden_size", "(" + std::to_string(c.hidden_size) +
                                       ") is not a multiple of num_attention_heads (" + std::to_string(c.heads) + ")");
    const std::size_t dim_default = a.default_head_dim != 0 ? a.default_head_dim : c.hidden_size / c.heads;
    c.head_dim = values.size("head_dim", largest_width, dim_default);
    if (!c.rotary()) return;
    if (c.head_dim % 2 != 0)
        values.fail("head_dim", "is " + std::to_string(c.head_dim) + "; rotation needs an even number");
    c.rotary_features = parse_rotary_features(values, c);
}

}  // namespace detail
GPTQ_INLINE model_config parse_model_config(const nlohmann::json& json, const std::string& what) {
    if (const wrapped_model* wrapped = find_wrapped(json))
        return parse_model_config(text_settings(*wrapped, json, what), what + ": text_config");
    const config_values values(json, what);
    model_config c;
    c.arch = detail::find_architecture(values);
    const auto flag = [&](const config_flag& f) {
        return f.key.empty() ? f.otherwise : values.flag(f.key, f.otherwise);
    };
    detail::refuse_unsupported(values, c.arch);
    detail::parse_sizes(values, c);

    detail::parse_experts(values, c);
    c.renormalizes_shares = flag(c.arch.experts.renormalizes);

    c.activation = detail::parse_activation(values, c.arch);
    c.norm_eps = c.arch.norm_eps_key.empty() ? c.arch.default_norm_eps
                                             : values.positive(c.arch.norm_eps_key, c.arch.default_norm_eps);
    const double query_scalar = c.arch.query_scalar_key.empty()
                                    ? static_cast<double>(c.head_dim)
                                    : values.positive(c.arch.query_scalar_key, c.arch.default_query_scalar);
    c.attention_scale = static_cast<float>(1.0 / std::sqrt(query_scalar));
    if (c.arch.scales_embedding) c.embedding_scale = std::sqrt(static_cast<float>(c.hidden_size));
    detail::parse_multipliers(values, c);
    c.tied_embeddings = values.flag("tie_word_embeddings", c.arch.tied_by_default);
    c.qkv_bias = flag(c.arch.qkv_bias);
    c.o_bias = flag(c.arch.o_bias);
    c.mlp_bias = flag(c.arch.mlp_bias);
    c.norm_before = flag(c.arch.norm_before);
    c.norm_parameters = flag(c.arch.norm_parameters);
    c.final_norm = c.norm_before && !flag(c.arch.removes_final_norm);
    c.parallel = flag(c.arch.parallel);
    c.windows = detail::parse_windows(values, c);
    c.unrotated = detail::parse_unrotated(values, c);
    if (c.rotary()) detail::parse_ropes(values, c);
    return c;
}

namespace detail {

/// Whether two tensors of float numbers hold the same ones.
inline bool same_numbers(const io::tensor_info& a, const io::tensor_info& b, const std::string& where) {
    if (a.shape != b.shape) return false;
    if (a.dtype != b.dtype && (!io::is_float(a.dtype) || !io::is_float(b.dtype))) return false;
    const std::size_t size_a = io::dtype_size(a.dtype), size_b = io::dtype_size(b.dtype);
    const std::size_t count = a.bytes.size() / size_a, most = std::size_t{1} << 16;
    std::vector<float> left(std::min(count, most)), right(left.size());
    for (std::size_t first = 0; first < count; first += most) {
        const std::size_t some = std::min(most, count - first);
        const auto part = [&](const io::tensor_info& t, std::size_t size) {
            return io::tensor_info{t.name, t.dtype, {some}, t.bytes.subspan(first * size, some * size)};
        };
        const auto read = [&](const io::tensor_info& t, std::size_t size, std::vector<float>& out) {
            out.resize(some);
            io::detail::read_floats(part(t, size), out, where);
        };
        if (a.dtype == b.dtype) {
            if (part(a, size_a).bytes.read() != part(b, size_b).bytes.read()) return false;
            continue;
        }
        read(a, size_a, left);
        read(b, size_b, right);
        if (left != right) return false;
    }
    return true;
}

/// The files hold a head of other numbers than the embedding's.
inline bool holds_own_head(const model_config& c, const io::model_folder& folder) {
    const std::string head = std::string(c.arch.names.head) + ".weight";
    const std::string embedding = std::string(c.arch.names.embedding) + ".weight";
    return folder.contains(head) && folder.contains(embedding) &&
           !same_numbers(folder.tensor(head), folder.tensor(embedding), folder.path().string());
}

}  // namespace detail
GPTQ_INLINE model_config read_model_config(const io::model_folder& folder) {
    model_config config = parse_model_config(folder.config(), (folder.path() / "config.json").string());
    if (find_wrapped(folder.config()) != nullptr) config.arch.names = wrapped_names(config.arch.names, folder);
    config.ignores_tying = config.tied_embeddings && detail::holds_own_head(config, folder);
    if (config.ignores_tying) config.tied_embeddings = false;
    return config;
}

}  // namespace gptq::model
