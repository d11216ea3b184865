// Writes the float GGUF file that llama.cpp's converter makes of a model of Llama's kind, as far as gptq reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>

namespace gptq_test {

namespace detail {

class gguf_bytes {
 public:
    template <class T>
    gguf_bytes& number(T value) {
        bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
        return *this;
    }
    gguf_bytes& text(const std::string& t) {
        number(std::uint64_t{t.size()}).bytes += t;
        return *this;
    }
    gguf_bytes& entry(const std::string& key, std::uint32_t value) { return text(key).number(4u).number(value); }
    gguf_bytes& entry(const std::string& key, const std::string& value) { return text(key).number(8u).text(value); }
    void pad() { bytes.resize((bytes.size() + 31) / 32 * 32); }

    std::string bytes;
};

/// Rows of q and k with the halves of each head interleaved: (x0, xh, x1, xh+1, ...).
inline std::vector<float> interleaved(const gptq::tensor2<float>& W, std::size_t heads) {
    const std::size_t head = W.shape()[0] / heads;
    std::vector<float> out;
    for (std::size_t h = 0; h < heads; ++h)
        for (std::size_t i = 0; i < head / 2; ++i)
            for (const std::size_t r : {h * head + i, h * head + head / 2 + i})
                for (std::size_t k = 0; k < W.shape()[1]; ++k) out.push_back(W(r, k));
    return out;
}

/// The tokens of a tokenizer.json, by id.
inline std::vector<std::string> tokens_of(const std::filesystem::path& folder) {
    const auto file = gptq::io::read_json(folder / "tokenizer.json");
    std::vector<std::string> tokens;
    for (const auto& entry : file["model"]["vocab"].items()) {
        const auto id = entry.value().get<std::size_t>();
        if (tokens.size() <= id) tokens.resize(id + 1, "?");
        tokens[id] = entry.key();
    }
    return tokens;
}

}  // namespace detail

/// The base of a folder with `heads` and `kv_heads`, everything in F32, and with the tokens of a folder `tokenizer`, if
/// one is given: byte-level BPE without merges.
inline void write_gguf_base(const std::filesystem::path& path, const gptq::io::model_folder& folder, std::size_t blocks,
                            std::uint32_t heads, std::uint32_t kv_heads, const std::filesystem::path& tokenizer = {}) {
    static const std::vector<std::pair<std::string, std::string>> names = {
        {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
        {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}};
    std::vector<std::pair<std::string, std::string>> tensors = {{"token_embd.weight", "model.embed_tokens.weight"},
                                                                {"output.weight", "lm_head.weight"},
                                                                {"output_norm.weight", "model.norm.weight"}};
    for (std::size_t b = 0; b < blocks; ++b)
        for (const auto& [theirs, ours] : names)
            tensors.emplace_back("blk." + std::to_string(b) + "." + theirs + ".weight",
                                 "model.layers." + std::to_string(b) + "." + ours + ".weight");
    const auto size_of = [&](const char* key) { return folder.config().at(key).get<std::uint32_t>(); };
    detail::gguf_bytes file;
    file.bytes = "GGUF";
    file.number(3u).number(std::uint64_t{tensors.size()}).number(std::uint64_t{tokenizer.empty() ? 9u : 13u});
    file.entry("general.architecture", "llama").entry("general.file_type", 0u);
    file.entry("llama.attention.head_count", heads).entry("llama.attention.head_count_kv", kv_heads);
    file.entry("llama.embedding_length", size_of("hidden_size"));
    file.entry("llama.feed_forward_length", size_of("intermediate_size"));
    file.entry("llama.block_count", static_cast<std::uint32_t>(blocks)).entry("llama.context_length", 512u);
    file.text("llama.attention.layer_norm_rms_epsilon").number(6u).number(1e-5f);
    if (!tokenizer.empty()) {
        const auto tokens = detail::tokens_of(tokenizer);
        file.entry("tokenizer.ggml.model", "gpt2");
        file.text("tokenizer.ggml.tokens").number(9u).number(8u).number(std::uint64_t{tokens.size()});
        for (const std::string& token : tokens) file.text(token);
        file.text("tokenizer.ggml.token_type").number(9u).number(5u).number(std::uint64_t{tokens.size()});
        for (std::size_t i = 0; i < tokens.size(); ++i) file.number(1u);
        file.text("tokenizer.ggml.merges").number(9u).number(8u).number(std::uint64_t{0});
    }
    std::uint64_t offset = 0;
    std::string data;
    for (const auto& [theirs, ours] : tensors) {
        const bool norm = theirs.find("norm") != std::string::npos;
        file.text(theirs);
        std::vector<float> numbers;
        if (norm) {
            const auto w = folder.read_vector(ours);
            numbers.assign(w.data(), w.data() + w.size());
            file.number(1u).number(std::uint64_t{w.size()});
        } else {
            const auto W = folder.read_matrix(ours);
            const std::size_t of = ours.find("q_proj") != std::string::npos   ? heads
                                   : ours.find("k_proj") != std::string::npos ? kv_heads
                                                                              : 0;
            numbers = of != 0 ? detail::interleaved(W, of) : std::vector<float>(W.data(), W.data() + W.size());
            file.number(2u).number(std::uint64_t{W.shape()[1]}).number(std::uint64_t{W.shape()[0]});
        }
        file.number(0u).number(offset);
        data.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float));
        data.resize((data.size() + 31) / 32 * 32);
        offset = data.size();
    }
    file.pad();
    std::ofstream(path, std::ios::binary) << file.bytes << data;
}

}  // namespace gptq_test
