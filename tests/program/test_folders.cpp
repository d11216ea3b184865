// Folders as people have them: what is read all the same, what is said about it, and what is refused with a way out.
#include "support/catch.hpp"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"

namespace fs = std::filesystem;
using gptq_test::mentions;
using gptq_test::read_file;
using gptq_test::run_program;
using gptq_test::skipped;
using gptq_test::write_file;

namespace {

struct scene {
    gptq_test::temp_dir folder;
    fs::path model = folder.path() / "model";
    fs::path text = folder.path() / "calib.txt";
    fs::path out = folder.path() / "out";

    explicit scene(const gptq_test::tiny_model& sizes = {}) {
        gptq_test::write_tiny_model(model, sizes);
        write_file(text, gptq_test::some_text(2000));
    }

    gptq_test::run_result quantize(const std::vector<std::string>& more = {}) const {
        std::vector<std::string> arguments = {"quantize", model.string(), out.string(), "--calib", text.string()};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(
            gptq_test::with_defaults(arguments, {"--nsamples", "4", "--seqlen", "64", "--group-size", "32"}));
    }

    gptq_test::run_result eval(const fs::path& of) const {
        return run_program({"eval", of.string(), "--text", text.string(), "--seqlen", "64", "--json"});
    }
    gptq_test::run_result eval() const { return eval(model); }

    nlohmann::ordered_json config(const fs::path& of) const {
        return nlohmann::ordered_json::parse(read_file(of / "config.json"));
    }

    void change_config(const std::function<void(nlohmann::ordered_json&)>& change) const {
        auto json = config(model);
        change(json);
        write_file(model / "config.json", json.dump());
    }
};

double perplexity(const gptq_test::run_result& result) {
    INFO(result.err);
    REQUIRE(result.status == 0);
    return nlohmann::json::parse(result.out)["perplexity"].get<double>();
}

template <class... Parts>
void check_refused(const gptq_test::run_result& result, const Parts&... parts) {
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(mentions(result.err, parts...));
}

/// Changes every number of a tensor of F32 in model.safetensors.
void change_tensor(const fs::path& model, const std::string& tensor, const std::function<float(float)>& change) {
    const fs::path path = model / "model.safetensors";
    std::string bytes = read_file(path);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const auto entry = nlohmann::json::parse(bytes.substr(8, header))[tensor];
    const auto begin = entry["data_offsets"][0].get<std::size_t>(), end = entry["data_offsets"][1].get<std::size_t>();
    for (std::size_t at = begin; at < end; at += 4) {
        float value = 0.0f;
        std::memcpy(&value, bytes.data() + 8 + header + at, 4);
        value = change(value);
        std::memcpy(bytes.data() + 8 + header + at, &value, 4);
    }
    write_file(path, bytes);
}

/// Renames tensors in the header, whose length may change.
void rename_tensors(const fs::path& model, const std::function<std::string(const std::string&)>& new_name) {
    const fs::path path = model / "model.safetensors";
    const std::string bytes = read_file(path);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    nlohmann::ordered_json renamed;
    const auto entries = nlohmann::ordered_json::parse(bytes.substr(8, header));
    for (const auto& [name, entry] : entries.items()) renamed[name == "__metadata__" ? name : new_name(name)] = entry;
    const std::string text = renamed.dump();
    const std::uint64_t length = text.size();
    write_file(path, std::string(reinterpret_cast<const char*>(&length), 8) + text + bytes.substr(8 + header));
}

const std::string lfs_pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abab\nsize 2626168\n";

}  // namespace

TEST_CASE("a head that differs from the embedding is used, whatever the config says about tying") {
    if (skipped()) return;
    const scene s;  // holds a head of its own
    const double right = perplexity(s.eval());
    s.change_config([](auto& c) { c["tie_word_embeddings"] = true; });
    const auto result = s.eval();
    CHECK(perplexity(result) == right);
    CHECK(mentions(result.err, "warning", "lm_head.weight", "tie_word_embeddings"));

    REQUIRE(s.quantize().status == 0);
    CHECK(s.config(s.out)["tie_word_embeddings"] == false);
    CHECK_FALSE(mentions(s.eval(s.out).err, "warning"));
}

TEST_CASE("a description of a quantization that the weights do not have is stale") {
    if (skipped()) return;
    const scene s;
    const double right = perplexity(s.eval());
    for (const char* method : {"gptq", "fp8", "bitsandbytes"}) {
        s.change_config([&](auto& c) {
            c["quantization_config"] = {{"quant_method", method}, {"bits", 4}, {"group_size", 128}};
            c["compression_config"] = nlohmann::ordered_json(c["quantization_config"]);
        });
        const auto result = s.eval();
        CHECK(perplexity(result) == right);
        CHECK(mentions(result.err, "quantization_config", "float", "stale"));
        fs::remove_all(s.out);
        REQUIRE(s.quantize({"--format", "compressed-tensors"}).status == 0);
        CHECK(s.config(s.out)["quantization_config"]["quant_method"] == "compressed-tensors");
        CHECK_FALSE(s.config(s.out).contains("compression_config"));
    }
}

TEST_CASE("two descriptions of a checkpoint that contradict each other are refused") {
    if (skipped()) return;
    const scene s;
    REQUIRE(s.quantize().status == 0);
    auto description = nlohmann::ordered_json::parse(read_file(s.out / "quantize_config.json"));
    description["group_size"] = 64;
    write_file(s.out / "quantize_config.json", description.dump());
    check_refused(s.eval(s.out), "quantize_config.json", "group_size is 64", "config.json", "32");
}

TEST_CASE("AutoRound's description, and the older key, are read") {
    if (skipped()) return;
    const scene s;
    REQUIRE(s.quantize().status == 0);
    const double right = perplexity(s.eval(s.out));
    fs::remove(s.out / "quantize_config.json");
    auto config = s.config(s.out);
    config["quantization_config"] = {{"quant_method", "auto-round"},
                                     {"packing_format", "auto_round:auto_gptq"},
                                     {"bits", 4},
                                     {"group_size", 32},
                                     {"sym", true},
                                     {"data_type", "int"}};
    write_file(s.out / "config.json", config.dump());
    CHECK(perplexity(s.eval(s.out)) == right);
    config["compression_config"] = nlohmann::ordered_json(config["quantization_config"]);
    config.erase("quantization_config");
    write_file(s.out / "config.json", config.dump());
    CHECK(perplexity(s.eval(s.out)) == right);
    config["compression_config"]["packing_format"] = "auto_round:auto_awq";
    write_file(s.out / "config.json", config.dump());
    check_refused(s.eval(s.out), "packing_format", "auto_awq");
}

TEST_CASE("an adapter beside the model is said to be ignored, and not copied") {
    if (skipped()) return;
    const scene s;
    write_file(s.model / "adapter_config.json", R"({"peft_type": "LORA", "base_model_name_or_path": "someone/base"})");
    fs::copy_file(s.model / "model.safetensors", s.model / "adapter_model.safetensors");
    write_file(s.model / "model.ckpt", "x");
    const auto result = s.quantize();
    CHECK(result.status == 0);
    CHECK(mentions(result.err, "warning", "adapter_model.safetensors"));
    for (const std::string& name : gptq_test::names_in(s.out)) {
        CHECK_FALSE(name.starts_with("adapter"));
        CHECK_FALSE(name == "model.ckpt");
    }
    fs::remove(s.model / "config.json");
    fs::remove(s.model / "model.safetensors");
    check_refused(s.eval(), "adapter", "someone/base", "merge");
}

TEST_CASE("a setting in a rule that is not known is refused") {
    if (skipped()) return;
    const scene s;
    write_file(s.folder.path() / "rules.json", R"({"+:.*down_proj.*": {"bit": 8}})");
    check_refused(s.quantize({"--dynamic", (s.folder.path() / "rules.json").string()}), "\"bit\"", "bits, group_size");
    CHECK_FALSE(fs::exists(s.out));
}

TEST_CASE("weights whose scales no half can hold are refused before the work") {
    if (skipped()) return;
    const scene s;
    for (const double factor : {0x1p-24, 0x1p24}) {
        const auto scaled = [factor](float w) { return static_cast<float>(w * factor); };
        change_tensor(s.model, "model.layers.1.mlp.down_proj.weight", scaled);
        check_refused(s.quantize(), "model.layers.1.mlp.down_proj", factor < 1.0 ? "too small" : "too large", "-:");
        CHECK_FALSE(fs::exists(s.out));
        change_tensor(s.model, "model.layers.1.mlp.down_proj.weight",
                      [factor](float w) { return static_cast<float>(w / factor); });
    }
    CHECK(s.quantize().status == 0);
}

TEST_CASE("NaN in the last tensor is found before the first layer is quantized") {
    if (skipped()) return;
    const scene s;
    change_tensor(s.model, "lm_head.weight", [](float) { return std::numeric_limits<float>::quiet_NaN(); });
    const auto result = s.quantize();
    check_refused(result, "lm_head.weight", "NaN at row 0, column 0");
    CHECK_FALSE(mentions(result.err, "layer 0"));
}

TEST_CASE("files that are something else are called what they are") {
    if (skipped()) return;
    const scene s;
    for (const char* name : {"model.safetensors", "tokenizer.json", "config.json"}) {
        const std::string content = read_file(s.model / name);
        write_file(s.model / name, lfs_pointer);
        check_refused(s.eval(), name, "git lfs pull");
        write_file(s.model / name, "<!DOCTYPE html>\n<html>");
        check_refused(s.eval(), name, "web page");
        write_file(s.model / name, "Entry not found");
        check_refused(s.eval(), name, "error message");
        write_file(s.model / name, content);
    }
    write_file(s.model / "m.Q4_0.gguf", "GGUF");
    fs::rename(s.model / "model.safetensors", s.model / "pytorch_model.bin");
    check_refused(s.eval(), "m.Q4_0.gguf", "safetensors");
    fs::remove(s.model / "m.Q4_0.gguf");
    check_refused(s.eval(), "pytorch_model.bin", "save_pretrained");
    check_refused(s.eval(s.folder.path()), "config.json", s.model.string());
    check_refused(s.eval(s.model / "config.json"), "not a folder", "give the folder");
}

TEST_CASE("links to files that are gone, and weights of MLX, are called what they are") {
    if (skipped()) return;
    const scene s;
    s.change_config([](auto& c) { c["quantization"] = {{"group_size", 64}, {"bits", 4}}; });
    CHECK(s.eval().status == 0);
    std::string bytes = read_file(s.model / "model.safetensors");
    for (auto at = bytes.find("F32"); at != std::string::npos && at < 8192; at = bytes.find("F32", at + 3))
        bytes.replace(at, 3, "U32");
    write_file(s.model / "model.safetensors", bytes);
    check_refused(s.eval(), "MLX");
    check_refused(s.quantize(), "quantized already");

    fs::remove(s.model / "model.safetensors");
    fs::create_symlink("../../blobs/abab", s.model / "model.safetensors");
    check_refused(s.eval(), "model.safetensors is a link to a file that is not there");
}

TEST_CASE("a missing tokenizer.json is told from its older forms") {
    if (skipped()) return;
    const scene s;
    fs::remove(s.model / "tokenizer.json");
    write_file(s.model / "vocab.json", "{}");
    check_refused(s.eval(), "tokenizer.json", "vocab.json", "save_pretrained");
    write_file(s.model / "tokenizer.model", "x");
    check_refused(s.eval(), "tokenizer.model", "damaged", "download");
}

TEST_CASE("shards without an index are read where all are there") {
    if (skipped()) return;
    const scene s({.shard_bytes = 100'000});
    const double right = perplexity(s.eval());
    fs::remove(s.model / "model.safetensors.index.json");
    const auto result = s.eval();
    CHECK(perplexity(result) == right);
    CHECK(mentions(result.err, "warning", "index.json", "missing"));
    for (const std::string& name : gptq_test::names_in(s.model))
        if (name.starts_with("model-00001-of-")) fs::remove(s.model / name);
    check_refused(s.eval(), "model-00001-of-", "index.json");
}

TEST_CASE("blocks and tensors that nothing uses are said") {
    if (skipped()) return;
    const scene s;
    CHECK_FALSE(mentions(s.eval().err, "warning"));
    s.change_config([](auto& c) { c["num_hidden_layers"] = 1; });
    CHECK(mentions(s.eval().err, "warning", "2 blocks", "num_hidden_layers 1"));
    rename_tensors(s.model, [](std::string name) {
        const auto at = name.find("layers.1.input_layernorm");
        return at == std::string::npos ? name : name.replace(at, 9, "layers.0.extra_");
    });
    CHECK(mentions(s.eval().err, "warning", "1 tensor is not used", "extra_"));
}

TEST_CASE("names with a prefix, or without one, are shown") {
    if (skipped()) return;
    const scene s;
    rename_tensors(s.model, [](const std::string& name) { return "_orig_mod." + name; });
    check_refused(s.eval(), "\"_orig_mod.model.embed_tokens.weight\"", "without \"_orig_mod.\"");
    rename_tensors(s.model,
                   [](const std::string& name) { return name.substr(std::string("_orig_mod.model.").size()); });
    check_refused(s.eval(), "\"embed_tokens.weight\"", "begin with \"model.\"");
}

TEST_CASE("configs that Python or an early conversion wrote are read") {
    if (skipped()) return;
    const scene s;
    const double right = perplexity(s.eval());
    s.change_config([](auto& c) { c["architectures"] = {"LLaMAForCausalLM"}; });
    CHECK(perplexity(s.eval()) == right);
    s.change_config([](auto& c) { c["architectures"] = nlohmann::ordered_json::array(); });
    CHECK(perplexity(s.eval()) == right);
    std::string text = read_file(s.model / "config.json");
    text.insert(1, R"("time_step_limit": [0.0, Infinity, -Infinity], "note": "NaN \" Infinity", "x": NaN,)");
    write_file(s.model / "config.json", text);
    CHECK(perplexity(s.eval()) == right);
    REQUIRE(s.quantize().status == 0);
    const std::string written = read_file(s.out / "config.json");
    CHECK(mentions(written, "  Infinity", "  -Infinity", R"("note": "NaN \" Infinity")", R"("x": NaN)"));
    CHECK(s.eval(s.out).status == 0);
    write_file(s.model / "config.json", text.replace(text.find("10000.0"), 7, "Infinity"));
    check_refused(s.eval(), "config.json", "rope_theta");
}

TEST_CASE("a file to carry along that cannot be read is found before the work") {
    if (skipped()) return;
    const scene s;
    fs::create_symlink("nowhere", s.model / "README.md");
    const auto result = s.quantize();
    if (result.status == 0) return;  // such links are no files
    check_refused(result, "README.md");
    CHECK_FALSE(mentions(result.err, "layer 0"));
}
