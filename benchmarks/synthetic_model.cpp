// synthetic_model FOLDER [NAME=VALUE...]: a model of random weights in bfloat16 for measuring speed and memory, of the
// shape of Llama 3 8B where nothing else is said. Its tokens are bytes, so that any text does.
//     synthetic_model /tmp/model blocks=8 hidden=4096 intermediate=14336 heads=32 kv_heads=8 vocabulary=128256
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <gptq/half.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>

#include "program/tiny_model.hpp"

namespace {

using sizes = std::map<std::string, std::size_t>;

/// Numbers near a normal distribution, the sum of four uniform ones, from a generator that costs less than writing them.
class random_numbers {
 public:
    float operator()() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        const auto bits = static_cast<std::uint32_t>(state_ >> 32);
        const std::uint32_t sum = (bits & 255u) + (bits >> 8 & 255u) + (bits >> 16 & 255u) + (bits >> 24);
        return (static_cast<float>(sum) - 510.0f) / 147.8f;
    }

 private:
    std::uint64_t state_ = 1;
};

class writer {
 public:
    writer(const std::string& folder, const sizes& s) : s_(s), out_(folder) {}

    void run() {
        const std::size_t hidden = s_.at("hidden"), inner = s_.at("intermediate"), dim = hidden / s_.at("heads");
        matrix("model.embed_tokens", s_.at("vocabulary"), hidden);
        for (std::size_t i = 0; i < s_.at("blocks"); ++i) {
            const std::string prefix = "model.layers." + std::to_string(i) + ".";
            ones(prefix + "input_layernorm", hidden);
            ones(prefix + "post_attention_layernorm", hidden);
            matrix(prefix + "self_attn.q_proj", hidden, hidden);
            matrix(prefix + "self_attn.k_proj", s_.at("kv_heads") * dim, hidden);
            matrix(prefix + "self_attn.v_proj", s_.at("kv_heads") * dim, hidden);
            matrix(prefix + "self_attn.o_proj", hidden, hidden);
            matrix(prefix + "mlp.gate_proj", inner, hidden);
            matrix(prefix + "mlp.up_proj", inner, hidden);
            matrix(prefix + "mlp.down_proj", hidden, inner);
        }
        ones("model.norm", hidden);
        const nlohmann::ordered_json config = {{"architectures", {"LlamaForCausalLM"}},
                                               {"model_type", "llama"},
                                               {"hidden_size", hidden},
                                               {"intermediate_size", inner},
                                               {"num_hidden_layers", s_.at("blocks")},
                                               {"num_attention_heads", s_.at("heads")},
                                               {"num_key_value_heads", s_.at("kv_heads")},
                                               {"vocab_size", s_.at("vocabulary")},
                                               {"max_position_embeddings", 8192},
                                               {"rms_norm_eps", 1e-5},
                                               {"rope_theta", 500000.0},
                                               {"hidden_act", "silu"},
                                               {"tie_word_embeddings", true},
                                               {"torch_dtype", "bfloat16"}};
        out_.write_text("config.json", gptq::io::json_text(config, "config.json"));
        out_.write_text("tokenizer.json", gptq_test::byte_tokenizer());
        out_.finish();
    }

 private:
    void matrix(const std::string& name, std::size_t rows, std::size_t cols) {
        std::vector<gptq::bfloat16> values(rows * cols);
        for (gptq::bfloat16& x : values) x = gptq::to_bfloat16(0.02f * random_());
        add(name, {rows, cols}, values);
    }
    void ones(const std::string& name, std::size_t size) {
        add(name, {size}, std::vector<gptq::bfloat16>(size, gptq::to_bfloat16(1.0f)));
    }
    void add(const std::string& name, const std::vector<std::size_t>& shape,
             const std::vector<gptq::bfloat16>& values) {
        out_.add_tensor(name + ".weight", gptq::io::dtype::bf16, shape, std::as_bytes(std::span(values)));
    }

    const sizes& s_;
    gptq::io::folder_writer out_;
    random_numbers random_;
};

}  // namespace

int main(int argc, char** argv) try {
    sizes s{{"blocks", 32}, {"hidden", 4096}, {"intermediate", 14336},
            {"heads", 32},  {"kv_heads", 8},  {"vocabulary", 128256}};
    if (argc < 2) {
        std::fprintf(stderr, "usage: synthetic_model FOLDER [NAME=VALUE...]\n");
        return 2;
    }
    for (int i = 2; i < argc; ++i) {
        const std::string argument = argv[i];
        const std::size_t equals = argument.find('=');
        const auto found = s.find(argument.substr(0, equals));
        if (found == s.end() || equals == std::string::npos) {
            std::fprintf(stderr, "synthetic_model: no size %s\n", argv[i]);
            return 2;
        }
        found->second = std::strtoul(argument.c_str() + equals + 1, nullptr, 10);
    }
    writer(argv[1], s).run();
    return 0;
} catch (const std::exception& problem) {
    std::fprintf(stderr, "synthetic_model: %s\n", problem.what());
    return 1;
}
