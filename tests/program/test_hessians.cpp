// Quantizing from Hessians that somebody else stored: the same codes as quantize_model's where the Hessians are the
// same.
#include "support/catch.hpp"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/gptq.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/quantize_from_hessians.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/stages.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/files.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;

namespace {

using floats = std::vector<float>;

/// What a file of Hessians holds: shape and numbers by name.
using captured = std::map<std::string, std::pair<std::vector<std::size_t>, floats>>;

void write(const fs::path& folder, const captured& all) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    io::write_tensors(folder / "some.safetensors", [&](const io::tensor_sink& sink) {
        for (const auto& [name, tensor] : all)
            sink(name, io::dtype::f32, tensor.first, std::as_bytes(std::span(tensor.second)));
    });
}

/// What every layer of the model in `folder` reads, as Hessians, or as inputs.
captured capture(const fs::path& folder, const model::token_windows& windows, bool as_inputs) {
    const io::model_folder files(folder);
    const model::cpu_model_backend cpu(model::quantized_form::dense);
    const auto config = model::read_model_config(files);
    model::calibration_states states(cpu, config, model::load_embedding(config, files, cpu), windows, false);
    captured all;
    for (std::size_t i = 0; i < config.blocks; ++i) {
        auto block = model::load_block(config, files, i, cpu);
        model::run_block_by_stages(cpu, config, block, nullptr, i, states, [&](auto& modules, const auto& x) {
            x.for_each([&](const auto& some) {
                const gptq::matrix_view<const float> X = some.inputs;
                gptq::hessian<float> h(X.cols);
                h.add(X);
                floats H(X.cols * X.cols), inputs;
                for (std::size_t r = 0; r < X.cols; ++r)
                    for (std::size_t c = 0; c < X.cols; ++c)
                        H[r * X.cols + c] = h.upper()(std::min(r, c), std::max(r, c));
                for (std::size_t t = 0; t < X.rows; ++t) inputs.insert(inputs.end(), X.row(t).begin(), X.row(t).end());
                for (const std::string& name : modules.names) {
                    if (as_inputs) {
                        all[name + ".input"] = {{X.rows, X.cols}, inputs};
                        continue;
                    }
                    all[name + ".hessian"] = {{X.cols, X.cols}, H};
                    all[name + ".tokens"] = {{1}, {static_cast<float>(X.rows)}};
                }
            });
        });
    }
    return all;
}

struct folders {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source", usual = temporary.path() / "usual", out = temporary.path() / "out",
             hessians = temporary.path() / "hessians";
    model::token_windows windows;
    model::quantize_model_options options;

    folders() {
        gptq_test::write_tiny_model(source);
        const std::string text = gptq_test::some_text(512);
        windows = {std::vector<std::int32_t>(text.begin(), text.end()), 64};
        options.config.settings.group_size = 32;
        model::quantize_model(io::model_folder(source), usual, windows, options);
    }

    model::quantize_result run() {
        return model::quantize_from_hessians(io::model_folder(source), out, hessians, options);
    }

    std::string refusal(const captured& all) {
        write(hessians, all);
        options.restart = true;  // an error in the second block leaves the first one
        return gptq_test::message_of([&] { run(); });
    }
};

std::map<std::string, std::vector<std::byte>> tensors_of(const fs::path& folder) {
    const io::model_folder files(folder);
    std::map<std::string, std::vector<std::byte>> all;
    for (const std::string& name : files.tensor_names()) all[name] = files.tensor(name).bytes.read();
    return all;
}

}  // namespace

TEST_CASE("from the Hessians that quantize_model has, the codes are those of quantize_model") {
    folders f;
    for (const bool as_inputs : {false, true}) {
        write(f.hessians,
              capture(f.usual, f.windows, as_inputs));  // each layer reads what the quantized model gives it
        const auto result = f.run();
        CHECK(result.modules.size() == 14);
        CHECK(result.modules.back().layer == 1);
        CHECK(result.modules.back().samples == 512);
        CHECK(tensors_of(f.out) == tensors_of(f.usual));
        fs::remove_all(f.out);
    }
}

TEST_CASE("weights without a Hessian stay, and the description says so") {
    folders f;
    captured some = capture(f.source, f.windows, false);
    std::erase_if(some, [](const auto& entry) { return entry.first.find("mlp") == std::string::npos; });
    write(f.hessians, some);
    f.run();
    const auto made = tensors_of(f.out), source = tensors_of(f.source);
    CHECK(made.at("model.layers.1.self_attn.q_proj.weight") == source.at("model.layers.1.self_attn.q_proj.weight"));
    CHECK(made.contains("model.layers.1.mlp.up_proj.qweight"));
    const auto config = io::quantization_config::parse(io::model_folder(f.out)).value();
    for (const char* left :
         {"model.layers.1.self_attn.q_proj", "model.layers.17.self_attn.o_proj", "model.embed_tokens"})
        CHECK(config.dynamic.match(left).skip);
    CHECK_FALSE(config.dynamic.match("model.layers.0.mlp.up_proj").skip);
}

TEST_CASE("Hessians that do not fit are refused by name") {
    folders f;
    const captured good = capture(f.source, f.windows, false);
    const std::string up = "model.layers.1.mlp.up_proj";
    const auto changed = [&](const std::function<void(captured&)>& change) {
        captured all = good;
        change(all);
        return f.refusal(all);
    };
    using gptq_test::mentions;
    CHECK(mentions(changed([&](captured& all) { all.erase(up + ".hessian"); }), up, "has no Hessian"));
    CHECK(mentions(changed([&](captured& all) { all.erase(up + ".tokens"); }), up + ".tokens", "no such tensor"));
    CHECK(mentions(changed([&](captured& all) { all["x.y.hessian"] = {{1, 1}, {1.0f}}; }), "x.y", "no tensor"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".hessian"] = {{2, 2}, {1, 0, 0, 1}}; }), up, "2 inputs"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".hessian"] = {{1, 2}, {1, 0}}; }), up, "[1, 2]"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".hessian"].second[1] += 9.0f; }), up, "not symmetric"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".hessian"].second[0] = -1.0f; }), up, "negative"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".hessian"].second[7] = NAN; }), up, "NaN at row 0"));
    CHECK(mentions(changed([&](captured& all) { all[up + ".input"] = {{1, 64}, floats(64)}; }), up, "another"));
    CHECK(mentions(f.refusal({{"nothing", {{1}, {0.0f}}}}), "NAME.hessian", ""));
    f.options.config.settings.correct_drift = true;
    CHECK(mentions(f.refusal(good), "drift", ""));
    CHECK_FALSE(fs::exists(f.out));
}

TEST_CASE("the program takes Hessians in place of a text, for any model") {
    if (gptq_test::skipped()) return;
    folders f;
    write(f.hessians, capture(f.source, f.windows, false));
    nlohmann::json config = nlohmann::json::parse(gptq_test::read_file(f.source / "config.json"));
    config["model_type"] = "nobody_knows";
    config.erase("architectures");
    gptq_test::write_file(f.source / "config.json", config.dump());
    const std::vector<std::string> command{"quantize", f.source, f.out, "--hessians", f.hessians, "--group-size", "32"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), command.begin(), command.end());
        return gptq_test::run_program(more);
    };
    CHECK(with({"--calib", "x"}).status == 2);
    CHECK(with({"--correct-drift"}).status == 2);
    CHECK(with({"--lm-head"}).status == 2);
    const auto done = with({"--json", "--best"});
    INFO(done.err);
    REQUIRE(done.status == 0);
    CHECK(nlohmann::json::parse(done.out).at("modules") == 14);
    CHECK(fs::exists(f.out / "tokenizer.json"));
}
