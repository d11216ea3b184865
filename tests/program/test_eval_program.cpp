// What `gptq eval` says of texts, windows and baselines.
#include "support/catch.hpp"

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/safetensors.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"

using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::skipped;

namespace {

struct scene {
    gptq_test::temp_dir folder;
    std::string model = (folder.path() / "model").string();
    std::string text = (folder.path() / "a.txt").string(), other = (folder.path() / "b.txt").string();
    scene() {
        gptq_test::write_tiny_model(model);
        gptq_test::write_file(text, gptq_test::some_text(700));
        gptq_test::write_file(other, gptq_test::some_text(300));
    }

    gptq_test::run_result run(const std::vector<std::string>& more) const {
        std::vector<std::string> arguments = {"eval", model};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    }
    nlohmann::json json(std::vector<std::string> more) const {
        more.push_back("--json");
        const auto result = run(more);
        INFO(result.err);
        REQUIRE(result.status == 0);
        return nlohmann::json::parse(result.out);
    }
};

}  // namespace

TEST_CASE("windows are no longer than the model was made for unless asked for, and then with a warning") {
    if (skipped()) return;
    const scene s;  // for 512 positions
    const auto customary = s.json({"--text", s.text});
    CHECK(customary["seqlen"] == 512);
    CHECK(customary["warnings"].empty());
    CHECK(customary["perplexity"] == s.json({"--text", s.text, "--seqlen", "512"})["perplexity"]);
    const auto longer = s.run({"--text", s.text, "--seqlen", "513"});
    CHECK(longer.status == 0);
    CHECK(mentions(longer.err, "warning: windows of 513 tokens", "512", "max_position_embeddings"));
    CHECK(s.json({"--text", s.text, "--seqlen", "513"})["warnings"].size() == 1);
}

TEST_CASE("the result says of what it is, and each of several texts is scored as alone") {
    if (skipped()) return;
    const scene s;
    const auto alone = s.json({"--text", s.text, "--seqlen", "64", "--max-tokens", "600"});
    CHECK(alone["model"] == s.model);
    CHECK(alone["text"] == s.text);
    CHECK(alone["windows"] == 10);
    CHECK(alone["seqlen"] == 64);
    CHECK(alone["settings"]["activation"] == "exact");
    CHECK(alone["settings"]["max_tokens"] == 600);
    const auto both = s.json({"--text", s.text, "--text", s.other, "--seqlen", "64", "--max-tokens", "600"});
    REQUIRE(both["texts"].size() == 2);
    CHECK(both["texts"][0]["nll"] == alone["nll"]);
    CHECK(both["texts"][1]["text"] == s.other);
}

TEST_CASE("the standard error is that of windows' means") {
    if (skipped()) return;
    const scene s;
    const std::string content = gptq_test::some_text(700);
    double sum = 0.0, squares = 0.0;
    for (std::size_t w = 0; w < 5; ++w) {
        gptq_test::write_file(s.other, content.substr(w * 64, 64));
        const auto window = s.json({"--text", s.other, "--seqlen", "64"});
        CHECK(window["standard_error"].is_null());
        const double nll = window["nll"];
        sum += nll;
        squares += nll * nll;
    }
    const double mean = sum / 5.0, deviation = std::sqrt((squares - 5.0 * mean * mean) / 4.0);
    const auto all = s.json({"--text", s.text, "--seqlen", "64", "--max-tokens", "320"});
    CHECK(all["nll"].get<double>() == Approx(mean).epsilon(1e-6));
    CHECK(all["standard_error"].get<double>() ==
          Approx(all["perplexity"].get<double>() * deviation / std::sqrt(5.0)).epsilon(1e-4));
}

TEST_CASE("a model agrees with itself, and less with its rounded copy") {
    if (skipped()) return;
    const scene s;
    const std::vector<std::string> windows = {"--text", s.text, "--seqlen", "64"};
    const auto with = [&](const std::string& option, const std::string& value) {
        auto arguments = windows;
        arguments.insert(arguments.end(), {option, value});
        return arguments;
    };
    const auto same = s.json(with("--baseline", s.model));
    CHECK(same["kl_divergence"].get<double>() == 0.0);
    CHECK(same["same_top"].get<double>() == 1.0);
    CHECK(same["baseline_perplexity"] == same["perplexity"]);

    const std::string out = (s.folder.path() / "out").string();
    REQUIRE(run_program({"quantize", s.model, out, "--calib", s.text, "--nsamples", "4", "--seqlen", "64", "--bits",
                         "2", "--group-size", "32"})
                .status == 0);
    const auto result = run_program({"eval", out, "--baseline", s.model, "--text", s.text, "--seqlen", "64", "--json"});
    REQUIRE(result.status == 0);
    const auto rounded = nlohmann::json::parse(result.out);
    CHECK(rounded["kl_divergence"].get<double>() > 1e-4);
    CHECK(rounded["same_top"].get<double>() < 1.0);
    CHECK(rounded["baseline_perplexity"] == same["perplexity"]);
    CHECK(rounded["baseline"] == s.model);
}

TEST_CASE("a baseline with other tokens is refused") {
    if (skipped()) return;
    const scene s;
    const std::string other = (s.folder.path() / "other").string();
    gptq_test::write_tiny_model(other);
    auto tokenizer = nlohmann::ordered_json::parse(gptq_test::read_file(other + "/tokenizer.json"));
    std::swap(tokenizer["model"]["vocab"]["a"], tokenizer["model"]["vocab"]["t"]);
    gptq_test::write_file(other + "/tokenizer.json", tokenizer.dump());
    const auto result = s.run({"--text", s.text, "--baseline", other});
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(mentions(result.err, s.model, other, "different tokens"));
}

TEST_CASE("what a model computes on the way can be written") {
    if (skipped()) return;
    const scene s;
    const std::string file = (s.folder.path() / "dump.safetensors").string();
    const auto dump = [&](const std::string& names) {
        return s.run({"--text", s.text, "--seqlen", "40", "--dump", names, "--dump-to", file});
    };
    const auto unknown = dump("logits,model.norm.weight");
    CHECK(unknown.status == 1);
    CHECK(mentions(unknown.err, "model.norm.weight", "model.layers.0.mlp.down_proj.input", "logits"));
    CHECK_FALSE(std::filesystem::exists(file));
    CHECK(dump("logits,model.layers.1.output,model.layers.0.mlp.down_proj.input").status == 0);
    const gptq::io::safetensors_file written(file);
    std::map<std::string, std::vector<std::size_t>> shapes;
    for (const auto& tensor : written.tensors()) shapes[tensor.name] = tensor.shape;
    CHECK(shapes == std::map<std::string, std::vector<std::size_t>>{{"input_ids", {40}},
                                                                    {"logits", {40, 256}},
                                                                    {"model.layers.0.mlp.down_proj.input", {40, 128}},
                                                                    {"model.layers.1.output", {40, 64}}});
    CHECK(dump("logits").status == 1);  // the file is there
    CHECK(s.run({"--text", s.text, "--dump", "logits"}).status == 2);
}
