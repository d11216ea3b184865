// The subcommands on a tiny model, from end to end.
#include <gptq/model/quantize_log.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"

namespace fs = std::filesystem;
using gptq_test::run_program;
using gptq_test::skipped;

namespace {

/// Runs a subcommand that must succeed with --json, and parses all of its standard output.
nlohmann::json json_of(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const auto result = run_program(arguments);
    INFO(result.err);
    REQUIRE(result.status == 0);
    CHECK(gptq_test::lines_of(result.out).size() == 1);
    return nlohmann::json::parse(result.out);
}

struct scene {
    gptq_test::temp_dir folder;
    std::string model = (folder.path() / "model").string();
    std::string text = (folder.path() / "text.txt").string();

    scene() {
        gptq_test::write_tiny_model(model);
        gptq_test::write_file(text, gptq_test::some_text(5000));
    }
    std::string out(const std::string& name) const { return (folder.path() / name).string(); }

    nlohmann::json quantize(const std::string& name, const std::vector<std::string>& more) const {
        std::vector<std::string> arguments = {"quantize", model, out(name), "--calib", text};
        arguments.insert(arguments.end(), more.begin(), more.end());
        arguments = gptq_test::with_defaults(arguments, {"--nsamples", "16", "--seqlen", "128", "--group-size", "32"});
        return json_of(arguments);
    }
    double perplexity(const std::string& folder_of_model) const {
        return json_of(
            {"eval", folder_of_model, "--text", text, "--seqlen", "128", "--max-tokens", "1024"})["perplexity"];
    }
};

}  // namespace

TEST_CASE("quantize and eval, in every format and order") {
    if (skipped()) return;
    const scene s;
    const double before = s.perplexity(s.model);
    const std::vector<std::vector<std::string>> runs = {
        {"--bits", "8"},
        {"--bits", "4", "--format", "gptq_v2", "--order", "gar"},
        {"--bits", "4", "--desc-act"},
        {"--bits", "4", "--asym", "--order", "static"},
        {"--bits", "4", "--asym", "--format", "gptq"},
        {"--bits", "3", "--group-size", "-1"},
        {"--bits", "2", "--lm-head"},
        {"--bits", "8", "--format", "compressed-tensors"},
        {"--bits", "4", "--format", "compressed-tensors", "--asym", "--desc-act"},
        {"--bits", "4", "--best", "--order", "gar"},
        {"--bits", "4", "--best", "--asym", "--lm-head"}};
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const std::string name = "out" + std::to_string(i);
        const bool lm_head = runs[i].back() == "--lm-head";
        std::string described;
        for (const std::string& argument : runs[i]) described += argument + " ";
        INFO(described);
        const auto result = s.quantize(name, runs[i]);
        const double bits = std::stod(runs[i][1]);
        CHECK(result["modules"] == 14 + (lm_head ? 1 : 0));
        CHECK(result["bits_per_weight"] > bits);
        CHECK(result["bits_per_weight"] < bits + 3.0);
        CHECK(result["error"] <= result["rtn_error"]);
        CHECK(result["seconds"] > 0.0);
        std::uintmax_t tensors = result["bytes"];
        CHECK(fs::file_size(fs::path(s.out(name)) / "model.safetensors") > tensors);

        const double after = s.perplexity(s.out(name));
        CHECK(std::isfinite(after));
        if (bits == 8) CHECK(after == Approx(before).epsilon(0.01));
    }
}

TEST_CASE("gptq leaves a smaller error than round-to-nearest", "[runs]") {
    if (skipped()) return;
    const scene s;
    for (const char* bits : {"2", "3", "4"}) {
        const auto gptq = s.quantize("gptq" + std::string(bits), {"--bits", bits});
        const auto rtn = s.quantize("rtn" + std::string(bits), {"--bits", bits, "--method", "rtn"});
        CHECK(gptq["error"].get<double>() < 0.9 * gptq["rtn_error"].get<double>());
        CHECK(rtn["error"] == rtn["rtn_error"]);
        CHECK(gptq["error"].get<double>() < rtn["error"].get<double>());
    }
}

TEST_CASE("each way to better codes does something, and refinement lowers the error", "[runs]") {
    if (skipped()) return;
    const scene s;
    const auto error_of_first_module = [&](const std::string& name, const std::vector<std::string>& more) {
        std::vector<std::string> arguments = {"--bits", "2"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        s.quantize(name, arguments);
        // Later modules have other inputs from run to run.
        return gptq::model::read_quant_log(s.out(name) + "/quant_log.csv").front().error;
    };
    const double plain = error_of_first_module("plain", {"--no-search"});
    const double searched = error_of_first_module("search", {});
    CHECK(searched != plain);
    CHECK(error_of_first_module("refined", {"--no-search", "--refine", "2"}) < plain);
    CHECK(error_of_first_module("both", {"--refine", "2"}) < searched);
}

TEST_CASE("rules leave modules alone or change their bits") {
    if (skipped()) return;
    const scene s;
    const std::string rules = s.out("rules.json");
    gptq_test::write_file(
        rules, R"({"-:model\\.layers\\.0\\.": {}, "+:.*mlp\\.(gate|up)_proj": {"bits": 8}, "+:nothing": {"bits": 2}})");
    const auto result = s.quantize("out", {"--dynamic", rules});
    CHECK(result["modules"] == 7);
    REQUIRE(result["warnings"].size() == 2);
    CHECK(result["warnings"][0].get<std::string>().find("nothing") != std::string::npos);
    CHECK(result["warnings"][1].get<std::string>().find("transformers fails on rules") != std::string::npos);
    const auto layers = json_of({"inspect", s.out("out")})["layers"];
    const auto form_counts = [&](const std::string& module) {
        std::vector<std::string> forms;
        for (const auto& layer : layers)
            if (layer["module"] == module)
                forms.push_back(layer["form"].get<std::string>() + " x " + std::to_string(layer["count"].get<int>()));
        return forms;
    };
    CHECK(form_counts("self_attn.q_proj") == std::vector<std::string>{"F32 x 1", "4 bits, groups of 32 x 1"});
    CHECK(form_counts("mlp.up_proj") == std::vector<std::string>{"F32 x 1", "8 bits, groups of 32 x 1"});
    CHECK(std::isfinite(s.perplexity(s.out("out"))));
}

TEST_CASE("the output folder has everything that came along, and the log") {
    if (skipped()) return;
    const scene s;
    gptq_test::write_file(fs::path(s.model) / "tokenizer.model", std::string("\x00\x01\xff", 3));
    gptq_test::write_file(fs::path(s.model) / "pytorch_model.bin", "old weights");
    s.quantize("out", {});
    const fs::path out = s.out("out");
    CHECK(gptq_test::names_in(out) ==
          std::vector<std::string>{"config.json", "generation_config.json", "model.safetensors", "quant_log.csv",
                                   "quantize_config.json", "tokenizer.json", "tokenizer.model"});
    for (const char* name : {"tokenizer.json", "tokenizer.model", "generation_config.json"})
        CHECK(gptq_test::read_file(out / name) == gptq_test::read_file(fs::path(s.model) / name));
    const auto config = nlohmann::json::parse(gptq_test::read_file(out / "config.json"));
    CHECK(config["quantization_config"]["quant_method"] == "gptq");
    CHECK(config["hidden_size"] == 64);
    CHECK(config["quantization_config"] == nlohmann::json::parse(gptq_test::read_file(out / "quantize_config.json")));

    const auto lines = gptq_test::lines_of(gptq_test::read_file(out / "quant_log.csv"));
    REQUIRE(lines.size() == 15);
    CHECK(lines[0].starts_with("layer,module,error,rtn_error,samples,damp_percent,seconds"));
    CHECK(lines[1].starts_with("0,self_attn.q_proj,"));
    CHECK(lines[14].starts_with("1,mlp.down_proj,"));
    CHECK(lines[14].find(",2048,0.") != std::string::npos);
    CHECK(lines[14].find(",2048,0.01,") == std::string::npos);  // damped by the layer's own diagonal

    s.quantize("told", {"--damp-percent", "0.02"});
    CHECK(gptq_test::read_file(fs::path(s.out("told")) / "quant_log.csv").find(",2048,0.02,") != std::string::npos);
    const auto told = nlohmann::json::parse(gptq_test::read_file(fs::path(s.out("told")) / "quantize_config.json"));
    CHECK(told.dump().find("\"damp_percent\":0.02") != std::string::npos);
}

TEST_CASE("eval compares with a baseline and names the modules that lose most") {
    if (skipped()) return;
    const scene s;
    s.quantize("bad", {"--bits", "2", "--method", "rtn"});
    const auto result = json_of(
        {"eval", s.out("bad"), "--text", s.text, "--seqlen", "128", "--max-tokens", "512", "--baseline", s.model});
    CHECK(result["baseline_perplexity"] ==
          Approx(json_of({"eval", s.model, "--text", s.text, "--seqlen", "128", "--max-tokens", "512"})["perplexity"]
                     .get<double>()));
    CHECK(result["worst_modules"].size() == 5);
    CHECK(result["worst_modules"][0]["relative_error"] >= result["worst_modules"][4]["relative_error"]);
    const double increase = result["perplexity"].get<double>() / result["baseline_perplexity"].get<double>() - 1.0;
    CHECK(result["increase_percent"] == Approx(100.0 * increase));
    CHECK(result["large_increase"] == (increase > 0.2));
}

TEST_CASE("eval scores every token of a window but its first") {
    if (skipped()) return;
    const scene s;
    const auto tokens = [&](const std::string& seqlen, const std::string& max) {
        return json_of({"eval", s.model, "--text", s.text, "--seqlen", seqlen, "--max-tokens", max})["tokens"]
            .get<int>();
    };
    CHECK(tokens("100", "400") == 4 * 99);
    CHECK(tokens("100", "450") == 4 * 99 + 49);
    CHECK(tokens("100", "401") == 4 * 99);
}

TEST_CASE("tokenize, generate, inspect and bench") {
    if (skipped()) return;
    const scene s;
    const std::string little = s.out("little.txt");
    gptq_test::write_file(little, "Ab c\n");
    CHECK(run_program({"tokenize", s.model, "--text", little}).out == "65\n98\n32\n99\n10\n");
    CHECK(json_of({"tokenize", s.model, "--text", little})["ids"] == nlohmann::json({65, 98, 32, 99, 10}));
    const std::string lines = s.out("lines.txt");
    gptq_test::write_file(lines, "A\r\nb\rc\n\r");
    CHECK(json_of({"tokenize", s.model, "--text", lines})["ids"] == nlohmann::json({65, 10, 98, 10, 99, 10, 10}));

    const auto generated = json_of({"generate", s.model, "--prompt", "the cat", "-n", "9"});
    CHECK(generated["tokens"] == 9);
    CHECK(generated == json_of({"generate", s.model, "--prompt", "the cat", "-n", "9"}));
    const auto sampled = [&](const std::string& seed) {
        return json_of({"generate", s.model, "--prompt", "the cat", "-n", "9", "--temperature", "5", "--seed", seed});
    };
    CHECK(sampled("1") == sampled("1"));
    CHECK(sampled("1") != sampled("2"));

    const auto inspected = json_of({"inspect", s.model});
    CHECK(inspected["architecture"] == "llama");
    CHECK(inspected["quantization"].is_null());
    const int per_block = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 128 * 64 + 2 * 64;
    CHECK(inspected["parameters"] == 2 * 256 * 64 + 2 * per_block + 64);
    s.quantize("out", {});
    CHECK(json_of({"inspect", s.out("out")})["parameters"] == inspected["parameters"]);

    const auto speed = json_of({"bench", s.model, "--prompt", "16", "-n", "8", "--threads", "1"});
    CHECK(speed["prefill_tokens_per_second"] > 0.0);
    CHECK(speed["decode_tokens_per_second"] > 0.0);
}
