#include "program/tiny_model.hpp"

#include <random>
#include <span>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/json.hpp>

namespace gptq_test {
namespace {

nlohmann::ordered_json config_of(const tiny_model& m) {
    nlohmann::ordered_json config = {{"architectures", {"LlamaForCausalLM"}},
                                     {"model_type", "llama"},
                                     {"hidden_size", m.hidden},
                                     {"intermediate_size", m.intermediate},
                                     {"num_hidden_layers", m.blocks},
                                     {"num_attention_heads", m.heads},
                                     {"num_key_value_heads", m.kv_heads},
                                     {"head_dim", m.head_dim},
                                     {"vocab_size", tiny_model::vocabulary},
                                     {"max_position_embeddings", 512},
                                     {"rms_norm_eps", 1e-5},
                                     {"rope_theta", 10000.0},
                                     {"hidden_act", "silu"},
                                     {"tie_word_embeddings", m.tied},
                                     {"torch_dtype", "float32"}};
    if (m.experts)
        config.update({{"architectures", {"Qwen2MoeForCausalLM"}},
                       {"model_type", "qwen2_moe"},
                       {"qkv_bias", false},
                       {"num_experts", tiny_model::expert_count},
                       {"num_experts_per_tok", 2},
                       {"moe_intermediate_size", tiny_model::expert_size},
                       {"shared_expert_intermediate_size", tiny_model::expert_size}});
    return config;
}

/// UTF-8 of a character below 0x800.
std::string utf8(unsigned code) {
    if (code < 0x80) return {static_cast<char>(code)};
    return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

/// Byte-level BPE without merges: a token for each byte, under the character that stands for it in such files.
nlohmann::ordered_json byte_tokenizer_json() {
    nlohmann::ordered_json vocabulary = nlohmann::ordered_json::object();
    unsigned next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool stands_for_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        vocabulary[utf8(stands_for_itself ? byte : next++)] = byte;
    }
    const nlohmann::ordered_json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    return {{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens", nlohmann::ordered_json::array()},
            {"normalizer", nullptr},
            {"pre_tokenizer", byte_level},
            {"post_processor", nullptr},
            {"decoder", byte_level},
            {"model",
             {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", nullptr},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"fuse_unk", false},
              {"byte_fallback", false},
              {"vocab", vocabulary},
              {"merges", nlohmann::ordered_json::array()}}}};
}

class tiny_model_writer {
 public:
    tiny_model_writer(const std::filesystem::path& folder, const tiny_model& sizes)
        : sizes_(sizes), writer_(folder, sizes.shard_bytes) {}

    void write() {
        const std::size_t hidden = sizes_.hidden, query = sizes_.heads * sizes_.head_dim;
        const std::size_t kv = sizes_.kv_heads * sizes_.head_dim;
        matrix("model.embed_tokens.weight", tiny_model::vocabulary, hidden);
        for (std::size_t i = 0; i < sizes_.blocks; ++i) {
            const std::string prefix = "model.layers." + std::to_string(i) + ".";
            ones(prefix + "input_layernorm.weight", hidden);
            ones(prefix + "post_attention_layernorm.weight", hidden);
            matrix(prefix + "self_attn.q_proj.weight", query, hidden);
            matrix(prefix + "self_attn.k_proj.weight", kv, hidden);
            matrix(prefix + "self_attn.v_proj.weight", kv, hidden);
            matrix(prefix + "self_attn.o_proj.weight", hidden, query);
            if (sizes_.experts)
                experts(prefix + "mlp.");
            else
                mlp(prefix + "mlp.", sizes_.intermediate);
        }
        ones("model.norm.weight", hidden);
        if (!sizes_.tied) matrix("lm_head.weight", tiny_model::vocabulary, hidden);
        writer_.write_text("config.json", gptq::io::json_text(config_of(sizes_), "config.json"));
        writer_.write_text("tokenizer.json", byte_tokenizer());
        writer_.write_text("generation_config.json", "{\"temperature\": 0.6}\n");
        writer_.finish();
    }

 private:
    void mlp(const std::string& prefix, std::size_t size) {
        matrix(prefix + "gate_proj.weight", size, sizes_.hidden);
        matrix(prefix + "up_proj.weight", size, sizes_.hidden);
        matrix(prefix + "down_proj.weight", sizes_.hidden, size);
    }
    void experts(const std::string& prefix) {
        for (std::size_t e = 0; e < tiny_model::expert_count; ++e)
            mlp(prefix + "experts." + std::to_string(e) + ".", tiny_model::expert_size);
        mlp(prefix + "shared_expert.", tiny_model::expert_size);
        matrix(prefix + "shared_expert_gate.weight", 1, sizes_.hidden);
        std::normal_distribution<float> normal(0.0f, 0.5f);
        std::vector<float> router(tiny_model::expert_count * sizes_.hidden, 0.0f);
        for (const std::size_t row : {0u, 2u})
            for (std::size_t k = 0; k < sizes_.hidden; ++k) {
                router[row * sizes_.hidden + k] = normal(random_);
                router[(row + 1) * sizes_.hidden + k] = -router[row * sizes_.hidden + k];
            }
        add(prefix + "gate.weight", {tiny_model::expert_count, sizes_.hidden}, router);
    }
    void matrix(const std::string& name, std::size_t rows, std::size_t cols) {
        // A few inputs matter much more than the others, as in trained models.
        std::normal_distribution<float> normal(0.0f, 0.1f);
        std::vector<float> values(rows * cols);
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = normal(random_) * (i % cols % 7 == 0 ? 3.0f : 1.0f);
        add(name, {rows, cols}, values);
    }
    void ones(const std::string& name, std::size_t size) { add(name, {size}, std::vector<float>(size, 1.0f)); }
    void add(const std::string& name, const std::vector<std::size_t>& shape, const std::vector<float>& values) {
        writer_.add_tensor(name, gptq::io::dtype::f32, shape, std::as_bytes(std::span(values)));
    }

    tiny_model sizes_;
    gptq::io::folder_writer writer_;
    std::mt19937 random_{7};
};

}  // namespace

std::string byte_tokenizer() { return gptq::io::json_text(byte_tokenizer_json(), "tokenizer.json"); }

void write_tiny_model(const std::filesystem::path& folder, const tiny_model& sizes) {
    tiny_model_writer(folder, sizes).write();
}

std::string some_text(std::size_t bytes) {
    static const std::vector<std::string> words = {"the ",  "cat ", "sat ",  "on ", "a ",
                                                   "mat, ", "and ", "then ", "it ", "slept.\n"};
    std::mt19937 random(3);
    std::string text;
    while (text.size() < bytes) text += words[random() % words.size()];
    text.resize(bytes);
    return text;
}

}  // namespace gptq_test
