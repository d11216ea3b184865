// Writes the first inputs of every fuzz target, from the files that other tests have.
//
//     make_corpus GOLDEN OUT
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/tokenizer_character_map.hpp>

#include "support/gguf_base.hpp"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class corpus {
 public:
    explicit corpus(fs::path out) : out_(std::move(out)) {}

    void add(const std::string& target, const std::string& bytes) {
        fs::create_directories(out_ / target);
        std::ofstream(out_ / target / std::to_string(count_++), std::ios::binary) << bytes;
    }

 private:
    fs::path out_;
    int count_ = 0;
};

const std::string zero(1, '\0');
const std::string text = zero + "Some words, 12 of them: it's  \n\n\xc3\xa9\xe5\xa4\xa7 <|endoftext|></s> \xff";

void add_models(corpus& out, const fs::path& golden) {
    for (const auto& model : fs::directory_iterator(golden / "models")) {
        const std::string config = read(model.path() / "config.json");
        out.add("safetensors", read(model.path() / "model.safetensors"));
        out.add("model_config", config);
        out.add("index", config + zero + R"({"metadata":{},"weight_map":{"t":"a.safetensors"}})");
    }
    out.add("index", "{}" + zero + R"({"weight_map":{"t":"../a.safetensors","u":"/etc/passwd"}})");
}

void add_gguf(corpus& out, const fs::path& golden) {
    const fs::path file = fs::temp_directory_path() / ("gptq-corpus-" + std::to_string(::getpid()) + ".gguf");
    const gptq::io::model_folder folder(golden / "models" / "llama");
    const auto number = [&](const char* key) { return folder.config()[key].get<std::uint32_t>(); };
    for (const fs::path& tokenizer : {fs::path(), golden / "tokenizers" / "gpt2"}) {
        gptq_test::write_gguf_base(file, folder, number("num_hidden_layers"), number("num_attention_heads"),
                                   number("num_key_value_heads"), tokenizer);
        out.add("gguf", read(file));
    }
    fs::remove(file);
}

void add_quantizations(corpus& out) {
    const json rules = {{"-:.*down", nullptr}, {"+:model\\.layers\\.[0-3]\\..*", {{"bits", 8}, {"group_size", 32}}}};
    out.add("dynamic_rules", "model.layers.0.mlp.down_proj" + zero + rules.dump());
    out.add("dynamic_rules", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa" + zero + R"({"(a+)+b":{},"+:^(?:a|b)*$":{"sym":false}})");
    json gptq = {{"bits", 4},
                 {"group_size", 128},
                 {"desc_act", true},
                 {"sym", false},
                 {"quant_method", "gptq"},
                 {"checkpoint_format", "gptq_v2"},
                 {"pack_dtype", "int32"},
                 {"damp_percent", 0.05},
                 {"dynamic", rules},
                 {"meta", {{"quantizer", {"gptqmodel:4.0"}}, {"act_group_aware", true}}}};
    out.add("quantization_config", gptq.dump());
    out.add("quantization_config", R"({"quant_method":"auto-round","packing_format":"auto_round:auto_gptq","bits":4,)"
                                   R"("group_size":32,"sym":true,"extra_config":{"a.*":{"bits":8},"b":{"bits":16}}})");
    const json weights = {{"num_bits", 4},    {"type", "int"},     {"strategy", "group"},
                          {"group_size", 32}, {"symmetric", true}, {"actorder", "weight"}};
    const json compressed = {
        {"quant_method", "compressed-tensors"},
        {"format", "pack-quantized"},
        {"ignore", {"lm_head", "re:.*gate"}},
        {"config_groups", {{"group_0", {{"targets", {"Linear", "re:x.*"}}, {"weights", weights}}}}}};
    out.add("quantization_config", compressed.dump());
}

void add_tokenizers(corpus& out, const fs::path& golden) {
    for (const auto& folder : fs::directory_iterator(golden / "tokenizers"))
        if (folder.is_directory()) out.add("tokenizer", read(folder.path() / "tokenizer.json") + text);
    const json kinds = json::parse(read(golden / "tokenizer_kinds" / "cases.json"));
    for (const auto& kind : kinds["tokenizers"]) out.add("tokenizer", kind["document"].dump() + text);
    for (const auto& [name, file] : kinds["sentencepiece"].items())
        out.add("sentencepiece",
                gptq::model::detail::decode_base64(file["file"].get<std::string>()).value_or(std::string()));
}

void add_texts(corpus& out) {
    for (const char* source : {"{{ '<|im_start|>system\\nYou are kind<|im_end|>' }}", "[INST] <<SYS>> {{ bos_token }}",
                               "<|start_header_id|> Cutting Knowledge Date", "<start_of_turn> first_user_prefix",
                               "<|user|><|assistant|>", "[INST] system_message [/INST]"})
        out.add("chat_template", source + zero + " A question? ");
    out.add("text", "plain\r\ntext \xc3\xa9");
    out.add("text", "\xff\xfeh\0i\0\n\0" + std::string(1, '\0'));
    out.add("text", "{\"text\": \"a\"}\n{\"messages\": [{\"content\": [{\"text\": \"b\"}]}, {\"content\": \"c\"}]}\n");
    out.add("text", std::string("\x1f\x8b\x08\0\0\0\0\0\0\3\xcbH\xcd\xc9\xc9\7\0\x86\xa6\x10\x36\5\0\0\0", 25));
}

/// Layers of 8 by 32 in groups of 32 of each layout, whose words are all there.
void add_layers(corpus& out) {
    for (const char layout : {'\0', '\1', '\3'})
        for (const char bits : {'\2', '\3', '\4', '\10'}) {
            const bool by_rows = layout == 3;
            const int words = 32 * bits / 32;
            std::string bytes{layout, bits, 0, 1, 0, 1, 0, 32};
            const auto matrix = [&](int rows, int cols, const std::string& word) {
                bytes += {static_cast<char>(rows), static_cast<char>(cols)};
                for (int i = 0; i < rows * cols; ++i) bytes += word;
            };
            matrix(by_rows ? 8 : words, by_rows ? words : 8, "\x12\x34\x56\x78");
            matrix(by_rows ? (8 * bits + 31) / 32 : 1, by_rows ? 1 : (8 * bits + 31) / 32, "\x11\x11\x11\x11");
            matrix(by_rows ? 8 : 1, by_rows ? 1 : 8, std::string("\0\0\x30\0", 4));
            out.add("layouts", bytes);
        }
    // AWQ has a row of words for each input feature, so a layer of one.
    std::string awq{2, 4, 0, 1, 0, 0, '\x80', 1};
    for (int i = 0; i < 2; ++i) awq += "\1\1\x12\x34\x56\x78";
    awq += {1, 8};
    for (int i = 0; i < 8; ++i) awq += std::string("\0\0\x30\0", 4);
    out.add("layouts", awq);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    corpus out(argv[2]);
    add_models(out, argv[1]);
    add_gguf(out, argv[1]);
    add_quantizations(out);
    add_tokenizers(out, argv[1]);
    add_texts(out);
    add_layers(out);
}
