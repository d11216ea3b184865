// LoRA training: its losses against PEFT's, and what is written.
#include <gptq/model/finetune_model.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/quantize_model.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;

namespace {

fs::path golden() { return gptq_test::source_dir() / "tests" / "golden"; }

struct scene {
    gptq_test::temp_dir dir;
    fs::path source = golden() / "models" / "llama", out = dir.path() / "adapter";
    nlohmann::json expected = gptq_test::read_json(golden() / "finetune.json");
    model::token_windows windows{{}, 12};  // one that is read, and one that is held out

    scene() {
        for (const char* which : {"read", "held_out"})
            for (const std::int32_t id : expected[which]) windows.tokens.push_back(id);
    }
};

}  // namespace

TEST_CASE("losses of LoRA training are those of PEFT from the same adapter", "[finetune]") {
    const scene s;
    std::vector<double> losses;
    const auto result = model::finetune_model(
        io::model_folder(s.source), s.out, s.windows,
        {.rank = 4, .alpha = 8.0, .steps = 12, .rate = s.expected["rate"], .start = golden() / "adapters" / "plain"},
        {.before_block = {}, .on_step = [&](const model::tune_progress& p) {
             if (p.step != 0) losses.push_back(p.loss);
         }});
    REQUIRE(losses.size() == 12);
    for (std::size_t i = 0; i < losses.size(); ++i)
        CHECK(losses[i] == Approx(s.expected["losses"][i].get<double>()).epsilon(2e-3));
    CHECK(result.before == Approx(s.expected["held_out_before"].get<double>()).epsilon(1e-5));
    CHECK(result.after == Approx(s.expected["held_out_after"].get<double>()).epsilon(2e-3));
    // What is written is read as it was trained.
    const auto start = model::adapter::load(golden() / "adapters" / "plain"), made = model::adapter::load(s.out);
    CHECK(made.terms().size() == start.terms().size());
    CHECK(result.layers == start.terms().size());
    double after = 0.0;
    model::finetune_model(io::model_folder(s.source), s.dir.path() / "again", s.windows,
                          {.rank = 4, .alpha = 8.0, .steps = 1, .start = s.out},
                          {.before_block = {}, .on_step = [&](const model::tune_progress& p) {
                               if (p.step == 0) after = p.held_out.value();
                           }});
    CHECK(after == Approx(result.after).epsilon(1e-5));
}

TEST_CASE("an adapter over a quantized model begins as nothing and learns", "[finetune]") {
    const scene s;
    model::quantize_model_options options;
    options.config.format = io::checkpoint_format::gptq_v2;
    options.config.settings = gptq::settings::nearest(4);
    options.config.settings.group_size = 32;
    const fs::path quantized = s.dir.path() / "quantized";
    gptq_test::write_tiny_model(s.dir.path() / "float");
    model::quantize_model(io::model_folder(s.dir.path() / "float"), quantized, s.windows, options);
    const io::model_folder folder(quantized);
    model::token_windows same{{}, 12};
    for (int i = 0; i < 2; ++i)
        same.tokens.insert(same.tokens.end(), s.windows.tokens.begin(), s.windows.tokens.begin() + 12);
    double first = 0.0;
    const auto result = model::finetune_model(folder, s.out, same, {.rank = 2, .steps = 20, .rate = 0.02},
                                              {.before_block = {}, .on_step = [&](const model::tune_progress& p) {
                                                   if (p.step == 1) first = p.loss;
                                               }});
    CHECK(first == Approx(result.before).epsilon(1e-6));  // B is 0
    CHECK(result.after < 0.5 * result.before);
    CHECK(result.layers == 14);
    const io::safetensors_file file(s.out / "adapter_model.safetensors");
    CHECK(file.tensors().size() == 28);
    const auto config = io::read_json<nlohmann::json>(s.out / "adapter_config.json");
    CHECK(config["r"] == 2);
    CHECK(config["target_modules"].size() == 7);
    // Targets by the ends of names.
    const auto few = model::finetune_model(folder, s.dir.path() / "few", same,
                                           {.rank = 2, .steps = 1, .targets = {"q_proj", "layers.1.mlp.up_proj"}});
    CHECK(few.layers == 3);
}

TEST_CASE("training that cannot be done is refused before it begins", "[finetune]") {
    const scene s;
    const io::model_folder folder(s.source);
    const auto run = [&](const model::finetune_options& options) {
        return model::finetune_model(folder, s.out, s.windows, options);
    };
    CHECK_THROWS_AS(run({.rank = 0}), gptq::option_error);
    CHECK_THROWS_AS(run({.steps = 0}), gptq::option_error);
    CHECK_THROWS_AS(run({.rate = 1.5}), gptq::option_error);
    CHECK_THROWS_AS(run({.alpha = 0.0}), gptq::option_error);
    CHECK_THROWS_AS(run({.targets = {"q_prj"}}), gptq::option_error);
    CHECK_THROWS_AS(run({.rank = 3, .start = golden() / "adapters" / "plain"}), gptq::shape_error);
    CHECK_THROWS_AS(run({.start = golden() / "nothing"}), gptq::io_error);
    CHECK_THROWS_AS(model::finetune_model(folder, s.dir.path(), s.windows, {}), gptq::io_error);
    model::token_windows one = s.windows;
    one.tokens.resize(12);
    CHECK_THROWS_AS(model::finetune_model(folder, s.out, one, {}), gptq::shape_error);
    CHECK_THROWS_AS(model::finetune_model(io::model_folder(golden() / "models" / "mixtral"), s.out, s.windows, {}),
                    gptq::unsupported_error);
    CHECK_FALSE(fs::exists(s.out));
}
