// --adapter and merge: both give the same perplexity, on a model that one of them leaves as it is.
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::skipped;

namespace {

const std::string layer = "model.layers.1.mlp.up_proj";

struct scene {
    gptq_test::temp_dir folder;
    fs::path model = folder.path() / "model", adapter = folder.path() / "adapter", out = folder.path() / "out";
    fs::path text = folder.path() / "text.txt";

    scene() {
        gptq_test::write_tiny_model(model);
        gptq_test::write_file(text, gptq_test::some_text(600));
        fs::create_directory(adapter);
        gptq_test::write_file(adapter / "adapter_config.json", R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})");
        gptq::io::detail::shard_writer file(adapter / "adapter_model.safetensors");
        add(file, ".lora_A.weight", 2, 64);
        add(file, ".lora_B.weight", 128, 2);
        file.close();
    }

    gptq_test::run_result eval(const fs::path& scored, const std::vector<std::string>& more = {}) const {
        std::vector<std::string> arguments = {"eval", scored, "--text", text, "--seqlen", "64", "--json"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    }

 private:
    void add(gptq::io::detail::shard_writer& file, const std::string& part, std::size_t rows, std::size_t cols) {
        std::normal_distribution<float> normal(0.0f, 0.3f);
        std::vector<float> numbers(rows * cols);
        for (float& x : numbers) x = normal(random_);
        const std::vector<std::size_t> shape = {rows, cols};
        file.add("base_model.model." + layer + part, gptq::io::dtype::f32, shape, std::as_bytes(std::span(numbers)));
    }

    std::mt19937 random_{5};
};

double perplexity(const gptq_test::run_result& result) {
    INFO(result.err);
    REQUIRE(result.status == 0);
    return nlohmann::json::parse(result.out)["perplexity"];
}

bool same_bytes(const gptq::io::tensor_info& a, const gptq::io::tensor_info& b) {
    return a.dtype == b.dtype && a.shape == b.shape && a.bytes.read() == b.bytes.read();
}

}  // namespace

TEST_CASE("a merged model gives what the adapter gives, and differs in the adapter's layers alone") {
    if (skipped()) return;
    const scene s;
    const double plain = perplexity(s.eval(s.model));
    const double adapted = perplexity(s.eval(s.model, {"--adapter", s.adapter.string() + ":0.5"}));
    CHECK(adapted != Approx(plain).epsilon(1e-4));
    CHECK(perplexity(s.eval(s.model, {"--adapter", s.adapter.string() + ":0"})) == Approx(plain).epsilon(1e-9));
    REQUIRE(run_program({"merge", s.model, s.adapter.string() + ":0.5", s.out}).status == 0);
    CHECK(perplexity(s.eval(s.out)) == Approx(adapted).epsilon(1e-6));

    const gptq::io::model_folder before(s.model), after(s.out);
    REQUIRE(before.tensor_names() == after.tensor_names());
    for (const std::string& name : before.tensor_names()) {
        INFO(name);
        CHECK(same_bytes(before.tensor(name), after.tensor(name)) == (name != layer + ".weight"));
    }
    CHECK(gptq_test::read_file(s.model / "config.json") == gptq_test::read_file(s.out / "config.json"));
    CHECK(gptq_test::names_in(s.model) == gptq_test::names_in(s.out));
}

TEST_CASE("merge refuses a quantized model") {
    if (skipped()) return;
    const scene s;
    const fs::path quantized = s.folder.path() / "quantized";
    REQUIRE(run_program({"quantize", s.model, quantized, "--method", "rtn", "--group-size", "32"}).status == 0);
    const auto result = run_program({"merge", quantized, s.adapter, s.out});
    CHECK(result.status == 1);
    CHECK(mentions(result.err, quantized.string(), "quantized"));
    CHECK_FALSE(fs::exists(s.out));
    perplexity(s.eval(quantized, {"--adapter", s.adapter}));
}
