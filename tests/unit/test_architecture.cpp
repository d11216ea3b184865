// config.json to model_config: defaults, both forms of every setting, and what is refused.
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"

using namespace gptq::model;
using gptq_test::mentions;
using gptq_test::message_of;
using json = nlohmann::json;

namespace {

/// A valid file of each architecture, as short as it may be.
json minimal(const std::string& model_type) {
    json j = {{"model_type", model_type}, {"vocab_size", 100},
              {"hidden_size", 64},        {"intermediate_size", 96},
              {"num_hidden_layers", 4},   {"num_attention_heads", 8},
              {"num_key_value_heads", 2}, {"max_position_embeddings", 128}};
    if (model_type == "opt") j["ffn_dim"] = 96;
    return j;
}

json with(json j, const json& changes) {
    j.update(changes);
    return j;
}

std::string refusal(const json& j) {
    return message_of([&] { parse_model_config(j); });
}

/// The fields of transformers' configuration classes with their defaults: tests/golden/make_config_fields.py.
json config_fields() {
    return gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "config_fields.json");
}

/// What a class writes that was told nothing; nulls as the class writes them, and what decides whether a field matters.
json defaults_of(const json& fields, const std::string& family) {
    json j = with(fields[family], {{"model_type", family}});
    if (family == "qwen2" || family == "qwen3") j["use_sliding_window"] = true;
    const json ones(std::vector<int>(48, 1));
    if (family == "phi3")
        j["rope_parameters"] = {{"rope_type", "longrope"}, {"short_factor", ones}, {"long_factor", ones}};
    return j;
}

/// What of a field's value no result depends on: training, generation, and how Python shows results.
const std::vector<std::string_view> fields_of_no_effect = {"attention_dropout",
                                                           "hidden_dropout",
                                                           "classifier_dropout",
                                                           "residual_dropout",
                                                           "embedding_dropout",
                                                           "resid_pdrop",
                                                           "embd_pdrop",
                                                           "dropout",
                                                           "layerdrop",
                                                           "initializer_range",
                                                           "init_std",
                                                           "use_cache",
                                                           "bos_token_id",
                                                           "eos_token_id",
                                                           "pad_token_id",
                                                           "eod_token_id",
                                                           "pretraining_tp",
                                                           "output_router_logits",
                                                           "router_aux_loss_coef",
                                                           "router_jitter_noise",
                                                           "is_decoder",
                                                           "transformers_version",
                                                           "output_hidden_states",
                                                           "return_dict",
                                                           "dtype",
                                                           "chunk_size_feed_forward",
                                                           "is_encoder_decoder",
                                                           "id2label",
                                                           "label2id",
                                                           "problem_type"};

/// Windows of these families are refused by use_sliding_window, so what they would be does not matter.
bool is_of_refused_windows(std::string_view family, std::string_view field) {
    const bool refused = family == "qwen2_moe" || family == "qwen3_moe" || family == "smollm3";
    return refused && (field == "sliding_window" || field == "max_window_layers" || field == "layer_types");
}

/// A value that makes no sense is refused by the field's name.
bool is_read(const json& j, const std::string& field) {
    for (const json& wrong : {json({{"x", 1}}), json(-1.5)})
        if (mentions(refusal(with(j, {{field, wrong}})), field)) return true;
    return false;
}

/// All that a configuration says, but for the table of architectures.
auto everything(const model_config& c) {
    return std::tuple(
        std::tuple(c.vocab_size, c.hidden_size, c.embedding_size, c.intermediate_size, c.blocks, c.heads, c.kv_heads,
                   c.head_dim, c.rotary_features, c.activation, c.norm_eps, c.attention_scale, c.embedding_scale),
        std::tuple(c.branch_scale, c.logit_scale, c.score_cap, c.logit_cap, c.parallel, c.tied_embeddings, c.qkv_bias,
                   c.o_bias, c.mlp_bias, c.norm_before, c.norm_parameters, c.final_norm, c.unrotated),
        std::tuple(c.experts, c.experts_per_token, c.expert_size, c.shared_expert_size, c.renormalizes_shares,
                   c.expert_blocks, c.windows, c.rope, c.window_rope));
}

}  // namespace

TEST_CASE("every architecture of the table has defaults that work", "[architecture]") {
    for (const architecture& a : architectures) {
        const auto c = parse_model_config(minimal(std::string(a.model_type)));
        INFO(a.model_type);
        CHECK(c.vocab_size == 100);
        CHECK(c.hidden_size == 64);
        CHECK(c.intermediate_size == 96);
        CHECK(c.blocks == 4);
        CHECK(c.kv_heads == 2);
        CHECK(c.head_dim == (a.default_head_dim != 0 ? a.default_head_dim : 8));
        CHECK(c.windows.size() == 4);
        const auto is_one_of = [&a](const std::vector<std::string_view>& types) {
            return std::ranges::count(types, a.model_type) != 0;
        };
        CHECK(c.tied_embeddings ==
              is_one_of({"gemma3_text", "gemma2", "gemma", "smollm3", "opt", "starcoder2", "cohere", "cohere2"}));
        CHECK(c.qkv_bias ==
              is_one_of({"qwen2", "qwen2_moe", "phi", "opt", "glm", "glm4", "gpt_neox", "starcoder2", "seed_oss"}));
        const bool coarse =
            is_one_of({"opt", "phi3", "phi", "olmo2", "mixtral", "olmoe", "gpt_neox", "starcoder2", "stablelm",
                       "cohere", "cohere2", "olmo", "olmo3", "hunyuan_v1_dense", "exaone4", "nemotron"});
        CHECK(c.norm_eps == (is_one_of({"glm", "glm4"}) ? 1.5625e-7 : coarse ? 1e-5 : 1e-6));
        CHECK(c.parallel == is_one_of({"phi", "gpt_neox", "cohere", "cohere2"}));
        CHECK(c.score_cap == (is_one_of({"gemma2"}) ? 50.0f : 0.0f));
        CHECK(c.logit_cap == (is_one_of({"gemma2"}) ? 30.0f : 0.0f));
        CHECK(c.logit_scale == (is_one_of({"cohere", "cohere2"}) ? 0.0625f : 1.0f));
        CHECK(c.block_prefix(3) == (is_one_of({"opt"})        ? "model.decoder.layers.3."
                                    : is_one_of({"gpt_neox"}) ? "gpt_neox.layers.3."
                                                              : "model.layers.3."));
    }
    // Found by the class where the type is missing.
    json j = minimal("qwen3");
    j.erase("model_type");
    j["architectures"] = {"Qwen3ForCausalLM"};
    CHECK(parse_model_config(j).arch.model_type == "qwen3");
}

TEST_CASE("windows go to the blocks that the architecture gives them", "[architecture]") {
    using sizes = std::vector<std::size_t>;
    const auto windows = [](const json& j) { return parse_model_config(j).windows; };
    CHECK(windows(with(minimal("llama"), {{"sliding_window", 16}})) == sizes{0, 0, 0, 0});
    CHECK(windows(with(minimal("mistral"), {{"sliding_window", 16}})) == sizes{16, 16, 16, 16});
    CHECK(windows(minimal("mistral")) == sizes{4096, 4096, 4096, 4096});
    CHECK(windows(with(minimal("mistral"), {{"sliding_window", nullptr}})) == sizes{0, 0, 0, 0});
    const json qwen = with(minimal("qwen2"), {{"sliding_window", 16}, {"max_window_layers", 3}});
    CHECK(windows(qwen) == sizes{0, 0, 0, 0});
    CHECK(windows(with(qwen, {{"use_sliding_window", true}})) == sizes{0, 0, 0, 16});
    CHECK(windows(with(qwen, {{"use_sliding_window", true}, {"max_window_layers", 0}})) == sizes{16, 16, 16, 16});
    const json gemma = with(minimal("gemma3_text"), {{"sliding_window", 16}});
    CHECK(windows(gemma) == sizes{16, 16, 16, 16});
    CHECK(windows(with(gemma, {{"sliding_window_pattern", 2}})) == sizes{16, 0, 16, 0});
    CHECK(windows(with(
              gemma, {{"layer_types", {"full_attention", "full_attention", "sliding_attention", "full_attention"}}})) ==
          sizes{0, 0, 16, 0});
}

TEST_CASE("rope settings of old and new files mean the same", "[architecture]") {
    const json llama3 = {
        {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
    const auto older = parse_model_config(
        with(minimal("llama"), {{"rope_theta", 5000.0}, {"rope_scaling", with(llama3, {{"rope_type", "llama3"}})}}));
    const auto newer = parse_model_config(
        with(minimal("llama"), {{"rope_parameters", with(llama3, {{"rope_type", "llama3"}, {"rope_theta", 5000.0}})}}));
    CHECK(older.rope == newer.rope);
    CHECK(older.rope == rope_settings{5000.0, rope_scaling::llama3, 8.0, 1.0, 4.0, 64.0});
    CHECK(older.window_rope == older.rope);
    // Places in pictures, which texts have none of.
    const json mrope = {{"type", "mrope"}, {"mrope_section", {1, 1, 2}}};
    CHECK(parse_model_config(with(minimal("llama"), {{"rope_scaling", mrope}})).rope ==
          parse_model_config(minimal("llama")).rope);

    const auto gemma_older =
        parse_model_config(with(minimal("gemma3_text"), {{"rope_theta", 7000.0},
                                                         {"rope_local_base_freq", 300.0},
                                                         {"rope_scaling", {{"type", "linear"}, {"factor", 4}}}}));
    const auto gemma_newer = parse_model_config(
        with(minimal("gemma3_text"),
             {{"rope_parameters",
               {{"full_attention", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 7000.0}}},
                {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 300.0}}}}}}));
    CHECK(gemma_older.rope == gemma_newer.rope);
    CHECK(gemma_older.window_rope == gemma_newer.window_rope);
    CHECK(gemma_older.rope.scaling == rope_scaling::linear);
    CHECK(gemma_older.window_rope == rope_settings{.theta = 300.0});

    CHECK(parse_model_config(minimal("gemma3_text")).rope.theta == 1000000.0);
    CHECK(parse_model_config(minimal("gemma3_text")).window_rope.theta == 10000.0);
    CHECK(parse_model_config(with(minimal("llama"), {{"rope_scaling", nullptr}})).rope == rope_settings{});
}

TEST_CASE("llama3 scaling slows down only what turns seldom", "[architecture]") {
    // Pairs that turn more than 4 times in 8192 tokens keep their speed, less than once: 8 times slower.
    const rope_settings plain{.theta = 500000.0};
    const rope_settings scaled{500000.0, rope_scaling::llama3, 8.0, 1.0, 4.0, 8192.0};
    const auto before = rope_frequencies(plain, 128);
    const auto after = rope_frequencies(scaled, 128);
    int between = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
        const double turns = 8192.0 * static_cast<double>(before[i]) / 6.283185307;
        if (turns > 4.0) {
            CHECK(after[i] == before[i]);
        } else if (turns < 1.0) {
            CHECK(after[i] == Approx(before[i] / 8.0f));
        } else {
            CHECK((after[i] < before[i] && after[i] > before[i] / 8.0f));
            ++between;
        }
    }
    CHECK(between > 0);
}

TEST_CASE("architectures and settings that are not known are refused by name", "[architecture]") {
    CHECK_THROWS_AS(parse_model_config(minimal("mamba")), gptq::unsupported_error);
    CHECK(mentions(refusal(minimal("mamba")), "mamba", "llama", "gemma3_text"));
    CHECK(mentions(refusal(with(minimal("llama"), {{"architectures", {"LlamaForSequenceClassification"}}})),
                   "LlamaForSequenceClassification", "LlamaForCausalLM"));
    const json other = with(minimal("llama"), {{"rope_scaling", {{"type", "proportional"}, {"factor", 2.0}}}});
    CHECK_THROWS_AS(parse_model_config(other), gptq::unsupported_error);
    CHECK(mentions(refusal(other), "rope_scaling", "proportional", "longrope"));
    CHECK(mentions(refusal(with(minimal("llama"), {{"hidden_act", "tanh"}})), "hidden_act", "tanh"));
    CHECK(mentions(refusal(with(minimal("llama"), {{"partial_rotary_factor", 0.5}})), "partial_rotary_factor"));
    CHECK(mentions(refusal(with(minimal("gemma"), {{"final_logit_softcapping", 30.0}})), "final_logit_softcap"));
    CHECK(mentions(refusal(with(minimal("stablelm"), {{"use_parallel_residual", true}})), "use_parallel_residual"));
    CHECK(mentions(refusal(with(minimal("cohere"), {{"use_qk_norm", true}})), "use_qk_norm"));
    CHECK(mentions(refusal(with(minimal("gemma3_text"), {{"use_bidirectional_attention", true}})), "bidirectional"));
    CHECK(mentions(refusal(with(minimal("gemma3_text"), {{"layer_types", {"x", "x", "x", "x"}}})), "layer_types"));
}

TEST_CASE("values that make no sense are refused, naming the key", "[architecture]") {
    const json llama = minimal("llama");
    CHECK_THROWS_AS(parse_model_config(json::array()), gptq::format_error);
    CHECK_THROWS_AS(parse_model_config(json::object()), gptq::unsupported_error);
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
        for (const json& value :
             {json(0), json(-4), json(1.5), json("64"), json(true), json(json::array()), json(1ull << 40),
              json(std::numeric_limits<std::uint64_t>::max()), json(std::numeric_limits<std::int64_t>::min())}) {
            INFO(key << " = " << value.dump());
            CHECK_THROWS_AS(parse_model_config(with(llama, {{key, value}})), gptq::format_error);
            CHECK(mentions(refusal(with(llama, {{key, value}})), "config.json", key));
        }
    }
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"}) {
        json j = llama;
        j.erase(key);
        CHECK(mentions(refusal(j), key, "missing"));
    }
    CHECK(mentions(refusal(with(llama, {{"num_key_value_heads", 3}})), "num_attention_heads", "multiple"));
    CHECK(mentions(refusal(with(llama, {{"num_attention_heads", 6}})), "hidden_size", "multiple"));
    CHECK(mentions(refusal(with(llama, {{"head_dim", 7}})), "head_dim", "even"));
    CHECK(mentions(refusal(with(llama, {{"rms_norm_eps", -1e-5}})), "rms_norm_eps"));
    CHECK(mentions(refusal(with(llama, {{"rope_theta", 0}})), "rope_theta"));
    CHECK(mentions(refusal(with(llama, {{"rope_scaling", {{"type", "linear"}}}})), "rope_scaling", "factor"));
    CHECK(mentions(refusal(with(llama, {{"rope_scaling", 3}})), "rope_scaling", "object"));
    CHECK(mentions(refusal(with(llama, {{"attention_bias", 1}})), "attention_bias"));
    CHECK(mentions(refusal(with(llama, {{"model_type", 7}})), "model_type"));
    CHECK(mentions(refusal(with(llama, {{"architectures", "x"}})), "architectures"));
    CHECK(mentions(refusal(with(minimal("gemma3_text"), {{"layer_types", {"full_attention"}}})), "layer_types", "4"));
    CHECK(mentions(refusal(with(llama, {{"hidden_act", std::string(5000, 'x')}})).substr(0, 40), "hidden_act"));
}

TEST_CASE("experts are counted by either key, and blocks without them listed", "[architecture]") {
    const json qwen = with(minimal("qwen2_moe"), {{"moe_intermediate_size", 24}});
    const auto usual = parse_model_config(qwen);
    CHECK(usual.experts == 60);
    CHECK(usual.experts_per_token == 4);
    CHECK(usual.expert_size == 24);
    CHECK(usual.shared_expert_size == 5632);
    CHECK(!usual.renormalizes_shares);
    CHECK(usual.expert_blocks == std::vector<bool>{true, true, true, true});
    CHECK(parse_model_config(with(qwen, {{"num_experts", 8}})).experts == 8);
    CHECK(parse_model_config(with(qwen, {{"num_local_experts", 8}})).experts == 8);
    CHECK(parse_model_config(with(qwen, {{"decoder_sparse_step", 2}, {"mlp_only_layers", {3u, 9u}}})).expert_blocks ==
          std::vector<bool>{false, true, false, false});
    CHECK(parse_model_config(minimal("mixtral")).renormalizes_shares);
    CHECK(parse_model_config(minimal("mixtral")).expert_size == 96);
    CHECK(parse_model_config(minimal("llama")).experts == 0);
    CHECK(!parse_model_config(minimal("llama")).has_experts(0));

    CHECK(mentions(refusal(with(qwen, {{"num_experts_per_tok", 61}})), "num_experts_per_tok", "60"));
    CHECK(mentions(refusal(with(qwen, {{"num_experts", 0}})), "num_experts"));
    for (const json& list : {json(3), json("1"), json({1.5}), json({-1}), json::array({json::array()})})
        CHECK(mentions(refusal(with(qwen, {{"mlp_only_layers", list}})), "mlp_only_layers"));
    CHECK(mentions(refusal(with(qwen, {{"use_sliding_window", true}})), "use_sliding_window"));
    CHECK(mentions(refusal(with(minimal("olmoe"), {{"clip_qkv", 8.0}})), "clip_qkv"));
}

TEST_CASE("heads rotate in part where the architecture knows of it, and some blocks not at all", "[architecture]") {
    CHECK(parse_model_config(minimal("llama")).rotary_features == 8);
    CHECK(parse_model_config(minimal("phi")).rotary_features == 4);
    CHECK(parse_model_config(with(minimal("phi"), {{"partial_rotary_factor", 0.25}})).rotary_features == 2);
    const json inside = {{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.75}}}};
    CHECK(parse_model_config(with(minimal("phi3"), inside)).rotary_features == 6);
    CHECK(mentions(refusal(with(minimal("llama"), inside)), "partial_rotary_factor"));
    for (const double share : {0.1, 0.4, 1.5})
        CHECK(mentions(refusal(with(minimal("phi"), {{"partial_rotary_factor", share}})), "partial_rotary_factor"));

    const auto rotated = [](const json& j) {
        const auto c = parse_model_config(j);
        std::vector<bool> found;
        for (std::size_t i = 0; i < c.blocks; ++i) found.push_back(c.rotates(i));
        return found;
    };
    CHECK(rotated(minimal("smollm3")) == std::vector<bool>{true, true, true, false});
    CHECK(rotated(with(minimal("smollm3"), {{"no_rope_layers", {0, 1, 0, 1}}})) ==
          std::vector<bool>{false, true, false, true});
    CHECK(mentions(refusal(with(minimal("smollm3"), {{"no_rope_layers", {0, 1}}})), "no_rope_layers", "4"));
    CHECK(rotated(minimal("opt")) == std::vector<bool>(4, false));
}

TEST_CASE("yarn slows down the slow pairs and leaves the fast ones", "[architecture]") {
    const auto config = [](const json& more) {
        return parse_model_config(
            with(minimal("llama"),
                 {{"rope_scaling",
                   with({{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}}, more)}}));
    };
    const rope_settings yarn = config(json::object()).rope;
    CHECK(yarn.attention_factor == Approx(0.1 * std::log(4.0) + 1.0));
    CHECK(config({{"attention_factor", 0.5}}).rope.attention_factor == 0.5);
    CHECK(config({{"mscale", 0.7}, {"mscale_all_dim", 0.7}}).rope.attention_factor == Approx(1.0));
    const auto before = rope_frequencies({.theta = yarn.theta}, 128), after = rope_frequencies(yarn, 128);
    int between = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
        // Limits are rounded to whole pairs outward, so nothing is said of what is close to them.
        const double turns = 4096.0 * double{before[i]} / 6.283185307;
        if (turns > 40.0) CHECK(after[i] == before[i]);
        if (turns < 0.8) CHECK(after[i] == Approx(before[i] / 4.0f));
        between += after[i] < before[i] && after[i] > 1.001f * before[i] / 4.0f ? 1 : 0;
    }
    CHECK(between > 5);
    CHECK_THROWS_AS(config({{"beta_fast", 1.0}, {"beta_slow", 2.0}}), gptq::format_error);
    CHECK_THROWS_AS(config({{"rope_theta", 1.0}}), gptq::format_error);
}

TEST_CASE("longrope and dynamic scaling go by the length of the text", "[architecture]") {
    const json factors = {{"type", "longrope"}, {"short_factor", {1, 1, 1, 2}}, {"long_factor", {1, 2, 3, 4}}};
    const json phi = with(minimal("phi3"), {{"rope_scaling", factors}, {"original_max_position_embeddings", 32}});
    const rope_settings rope = parse_model_config(phi).rope;
    CHECK(rope.attention_factor == Approx(std::sqrt(1.0 + std::log(4.0) / std::log(32.0))));
    CHECK(rope_frequencies(rope, 8, 32)[3] == Approx(std::pow(10000.0, -0.75) / 2.0));
    CHECK(rope_frequencies(rope, 8, 33)[3] == Approx(std::pow(10000.0, -0.75) / 4.0));
    for (const json& list : {json(3), json({1, 1, 1}), json({1, 1, 1, 0}), json({1, 1, 1, "2"})})
        for (const char* key : {"short_factor", "long_factor"})
            CHECK(mentions(refusal(with(phi, {{"rope_scaling", with(factors, {{key, list}})}})), key));

    const json scaled = with(minimal("llama"), {{"rope_scaling", {{"type", "dynamic"}, {"factor", 3.0}}}});
    const rope_settings dynamic = parse_model_config(scaled).rope;
    CHECK(rope_frequencies(dynamic, 8, 128) == rope_frequencies({}, 8));
    CHECK(rope_frequencies(dynamic, 8, 256)[3] ==
          Approx(std::pow(10000.0 * std::pow(3.0 * 2.0 - 2.0, 8.0 / 6.0), -0.75)));
    CHECK(mentions(refusal(with(scaled, {{"rope_scaling", {{"type", "dynamic"}}}})), "factor"));
    const json alpha = {{"rope_scaling", {{"type", "dynamic"}, {"factor", 1.0}, {"alpha", 1000.0}}}};
    CHECK(parse_model_config(with(minimal("hunyuan_v1_dense"), alpha)).rope.theta ==
          Approx(10000.0 * std::pow(1000.0, 8.0 / 6.0)));
}

TEST_CASE("caps hold unless they are null", "[architecture]") {
    const auto caps = [](const json& changes) {
        const auto c = parse_model_config(with(minimal("gemma2"), changes));
        return std::pair(c.score_cap, c.logit_cap);
    };
    CHECK(caps({{"attn_logit_softcapping", nullptr}}) == std::pair(0.0f, 30.0f));
    CHECK(caps({{"attn_logit_softcapping", 7}, {"final_logit_softcapping", nullptr}}) == std::pair(7.0f, 0.0f));
    for (const double cap : {-1.0, 0.0, 1e-320, 1e300})
        CHECK(mentions(refusal(with(minimal("gemma2"), {{"attn_logit_softcapping", cap}})), "attn_logit_softcapping"));
}

TEST_CASE("every field of transformers' configuration classes is read, refused, or known to have no effect",
          "[architecture]") {
    const json fields = config_fields();
    REQUIRE(fields.size() == architectures.size() + 1);
    for (const architecture& a : architectures) {
        const std::string family(a.model_type);
        const json defaults = defaults_of(fields, family);
        for (const std::string& group : {family, std::string("*")})
            for (const auto& [field, value] : fields[group].items()) {
                INFO(family << ": " << field);
                const bool matters = std::ranges::count(fields_of_no_effect, field) == 0;
                CHECK(is_read(defaults, field) == (matters && !is_of_refused_windows(family, field)));
            }
    }
}

TEST_CASE("a field that is missing counts as what transformers' class has", "[architecture]") {
    const json fields = config_fields();
    for (const architecture& a : architectures) {
        const json defaults = defaults_of(fields, std::string(a.model_type));
        const auto expected = everything(parse_model_config(defaults));
        for (const auto& [field, value] : fields[std::string(a.model_type)].items()) {
            INFO(a.model_type << ": " << field);
            json j = defaults;
            j.erase(field);
            // Sizes have to be there, and limits of positions are.
            const std::string problem = refusal(j);
            if (mentions(problem, field, "is missing") || field.ends_with("max_position_embeddings")) continue;
            if (field == "use_sliding_window" || field == "rope_parameters") continue;  // which defaults_of sets
            CHECK(everything(parse_model_config(j)) == expected);
        }
    }
}

TEST_CASE("tensors that do not fit the configuration are named", "[architecture]") {
    const gptq_test::golden_model golden("llama");
    const gptq::io::model_folder folder(golden.folder);
    const weight_reader weights(folder);
    CHECK(mentions(message_of([&] { weights.matrix("model.embed_tokens", 64, 17); }), "model.embed_tokens.weight",
                   "[64, 16]", "[64, 17]"));
    CHECK(mentions(message_of([&] { weights.read_linear("model.layers.9.mlp.up_proj", 4, 4, false); }),
                   "model.layers.9.mlp.up_proj.weight"));
    CHECK(mentions(message_of([&] { weights.read_linear("model.layers.0.mlp.up_proj", 24, 16, true); }),
                   "model.layers.0.mlp.up_proj.bias"));
}
