// Checkpoints that hold text models in another form than a folder of their own: inside a model of pictures and text,
// and with experts stacked in one tensor.
#include <gptq/io/stacked_experts.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/spared_layers.hpp>

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/golden_models.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq::model;
using gptq_test::contains;
using gptq_test::golden_model;
using gptq_test::message_of;
using json = nlohmann::json;
namespace io = gptq::io;
namespace fs = std::filesystem;

struct stored {
    io::dtype type;
    std::vector<std::size_t> shape;
    std::string bytes;

    bool operator==(const stored&) const = default;
};

using tensors = std::map<std::string, stored>;

tensors all_of(const io::model_folder& folder) {
    tensors all;
    for (const std::string& name : folder.tensor_names()) {
        const io::tensor_info& t = folder.tensor(name);
        const auto bytes = t.bytes.read();
        all[name] = {t.dtype, t.shape, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
    }
    return all;
}

/// With its last two dimensions exchanged.
stored exchanged(const stored& t) {
    stored other{t.type, {t.shape[0], t.shape[2], t.shape[1]}, {}};
    const std::size_t size = io::dtype_size(t.type), rows = t.shape[1], cols = t.shape[2];
    for (std::size_t e = 0; e < t.shape[0]; ++e)
        for (std::size_t c = 0; c < cols; ++c)
            for (std::size_t r = 0; r < rows; ++r)
                other.bytes += t.bytes.substr(((e * rows + r) * cols + c) * size, size);
    return other;
}

/// The tensors of the golden mixtral, its experts in stacks as transformers 5 has them in memory.
tensors stacked_mixtral(const tensors& single, bool exchange) {
    tensors stacks;
    for (const auto& [name, t] : single) {
        const std::size_t at = name.find("block_sparse_moe.");
        if (at == std::string::npos) stacks[name] = t;
        if (name.ends_with("block_sparse_moe.gate.weight")) stacks[name.substr(0, at) + "mlp.gate.weight"] = t;
    }
    for (std::size_t block = 0; block < 3; ++block) {
        const std::string layer = "model.layers." + std::to_string(block) + ".";
        stored gate_up{io::dtype::bf16, {4, 48, 16}, {}}, down{io::dtype::bf16, {4, 16, 24}, {}};
        for (std::size_t e = 0; e < 4; ++e) {
            const std::string expert = layer + "block_sparse_moe.experts." + std::to_string(e) + ".";
            gate_up.bytes += single.at(expert + "w1.weight").bytes + single.at(expert + "w3.weight").bytes;
            down.bytes += single.at(expert + "w2.weight").bytes;
        }
        stacks[layer + "mlp.experts.gate_up_proj"] = exchange ? exchanged(gate_up) : gate_up;
        stacks[layer + "mlp.experts.down_proj"] = exchange ? exchanged(down) : down;
    }
    return stacks;
}

void write_folder(const fs::path& folder, const fs::path& config, const tensors& all) {
    fs::create_directories(folder);
    fs::copy_file(config, folder / "config.json");
    io::write_tensors(folder / "model.safetensors", [&](const io::tensor_sink& sink) {
        for (const auto& [name, t] : all) sink(name, t.type, t.shape, io::bytes_of(t.bytes));
    });
}

json picture_config(const json& text) {
    return {{"model_type", "gemma3"}, {"architectures", {"Gemma3ForConditionalGeneration"}}, {"text_config", text}};
}

}  // namespace

TEST_CASE("stacked experts are read as those that are stored one by one, in either orientation", "[stacked]") {
    const golden_model golden("mixtral");
    const tensors single = all_of(io::model_folder(golden.folder));
    for (const bool exchange : {false, true}) {
        const gptq_test::temp_dir dir;
        write_folder(dir.path() / "m", golden.folder / "config.json", stacked_mixtral(single, exchange));
        const io::model_folder folder(dir.path() / "m");
        CHECK(all_of(folder) == single);
        // Parts of a matrix, as checks of numbers read them.
        const std::string name = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
        const auto whole = io::model_folder(golden.folder).read_matrix(name);
        gptq::matrix<float> rows(7, 16);
        folder.read_rows(name, 5, rows.view());
        for (std::size_t r = 0; r < 7; ++r)
            for (std::size_t c = 0; c < 16; ++c) CHECK(rows.view()(r, c) == whole(r + 5, c));
    }
}

TEST_CASE("stacks that do not belong together are refused, naming both", "[stacked]") {
    const golden_model golden("mixtral");
    const tensors single = all_of(io::model_folder(golden.folder));
    const gptq_test::temp_dir dir;
    const auto open = [&](const char* name, const tensors& all) {
        write_folder(dir.path() / name, golden.folder / "config.json", all);
        io::model_folder(dir.path() / name);
    };
    tensors mixed = stacked_mixtral(single, false);
    stored& down = mixed["model.layers.1.mlp.experts.down_proj"];
    down = exchanged(down);
    const std::string message = message_of<gptq::shape_error>([&] { open("mixed", mixed); });
    CHECK(contains(message, "model.layers.1.mlp.experts.gate_up_proj [4, 48, 16]"));
    CHECK(contains(message, "down_proj [4, 24, 16]"));
    tensors twice = stacked_mixtral(single, false);
    const std::string name = "model.layers.2.block_sparse_moe.experts.3.w1.weight";
    twice[name] = single.at(name);
    CHECK(contains(message_of<gptq::format_error>([&] { open("twice", twice); }), name));
}

TEST_CASE("a text model inside another one has the names that the files have", "[wrapped]") {
    const auto gemma = read_model_config(io::model_folder(golden_model("gemma3-pictures").folder));
    CHECK(gemma.arch.model_type == "gemma3_text");
    CHECK(gemma.block_prefix(2) == "language_model.model.layers.2.");
    CHECK(gemma.tied_embeddings);
    const auto qwen = read_model_config(io::model_folder(golden_model("qwen3-vl-moe").folder));
    CHECK(qwen.arch.model_type == "qwen3_moe");
    CHECK(qwen.arch.names.final_norm == "model.language_model.norm");
    CHECK(qwen.arch.names.head == "lm_head");
    CHECK(qwen.renormalizes_shares);
    const auto older = read_model_config(io::model_folder(golden_model("qwen2-5-vl-older").folder));
    CHECK(older.arch.names.blocks == "model.layers.");
    CHECK(older.rope.theta == 500.0);
}

TEST_CASE("settings of wrapped text models: defaults of the whole, other text models, what is refused", "[wrapped]") {
    const json published = {{"hidden_size", 2560},
                            {"intermediate_size", 10240},
                            {"num_hidden_layers", 34},
                            {"model_type", "gemma3_text"},
                            {"sliding_window", 1024}};  // as Gemma 3 4B has it
    const auto c = parse_model_config(picture_config(published));
    CHECK(c.vocab_size == 262208);
    CHECK(c.heads == 8);
    CHECK(c.tied_embeddings);
    json untied = picture_config(published);
    untied["tie_word_embeddings"] = false;
    CHECK_FALSE(parse_model_config(untied).tied_embeddings);

    json llava = {{"model_type", "llava"}, {"text_config", published}};
    llava["text_config"]["model_type"] = "mamba";
    CHECK(contains(message_of<gptq::unsupported_error>([&] { parse_model_config(llava); }), "\"mamba\""));
    llava["text_config"] = 3;
    CHECK(contains(message_of<gptq::format_error>([&] { parse_model_config(llava); }), "text_config"));
    json other = picture_config(published);
    other["architectures"] = {"Gemma3ForSequenceClassification"};
    CHECK(contains(message_of<gptq::unsupported_error>([&] { parse_model_config(other); }),
                   "Gemma3ForConditionalGeneration"));
}

TEST_CASE("the description leaves out what is not of the text model", "[wrapped]") {
    const auto rules_of = [](const char* name) {
        const io::model_folder folder(golden_model(name).folder);
        return spare_others(read_model_config(folder), folder, {}).dynamic;
    };
    const auto gemma = rules_of("gemma3-pictures");
    // Under the names of the files and of the modules in memory.
    for (const std::string prefix : {"", "model."}) {
        CHECK(gemma.match(prefix + "vision_tower.encoder.layers.0.self_attn.q_proj").skip);
        CHECK(gemma.match(prefix + "multi_modal_projector.linear").skip);
    }
    CHECK_FALSE(gemma.match("language_model.model.layers.0.self_attn.q_proj").skip);
    CHECK_FALSE(gemma.match("model.language_model.layers.0.self_attn.q_proj").skip);
    const auto qwen = rules_of("qwen3-vl-moe");
    CHECK(qwen.match("model.visual.blocks.0.mlp.linear_fc1").skip);
    CHECK(qwen.match("model.language_model.layers.2.mlp.gate").skip);
    CHECK_FALSE(qwen.match("model.language_model.layers.2.mlp.experts.0.gate_proj").skip);
    CHECK(rules_of("qwen2-5-vl-older").match("visual.merger.mlp.0").skip);
    CHECK(rules_of("llama").empty());
}
