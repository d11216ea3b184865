// Mixtures of experts through quantize_model and the program: each expert is quantized on its own tokens, one with few of
// them also on those of the others, and one with none on all.
#include "support/catch.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/gptq.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/spared_layers.hpp>
#include <gptq/model/stages.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;

namespace {

using floats = gptq::tensor2<float>;

struct folders {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source";
    fs::path out = temporary.path() / "out";
    model::token_windows windows;
    model::quantize_model_options options;

    folders() {
        gptq_test::write_tiny_model(source, {.experts = true});
        const std::string text = gptq_test::some_text(512);
        windows = {std::vector<std::int32_t>(text.begin(), text.end()), 64};
        options.config.settings = gptq::settings::paper();
        options.config.settings.sym = true;
        options.config.settings.group_size = 32;
    }
};

floats copy_of(gptq::matrix_view<const float> x) {
    auto copy = gptq::make_tensor2<float>(x.rows, x.cols);
    for (std::size_t r = 0; r < x.rows; ++r)
        for (std::size_t c = 0; c < x.cols; ++c) copy(r, c) = x(r, c);
    return copy;
}

/// What the layers of each site of the first block read, by the name of the site's first layer.
std::map<std::string, floats> inputs_of_first_block(const io::model_folder& folder,
                                                    const model::token_windows& windows) {
    const model::cpu_model_backend cpu(model::quantized_form::dense);
    const auto config = model::read_model_config(folder);
    model::calibration_states states(cpu, config, model::load_embedding(config, folder, cpu), windows, false);
    auto block = model::load_block(config, folder, 0, cpu);
    std::map<std::string, floats> found;
    REQUIRE(states.chunks() == 1);
    model::run_block_by_stages(cpu, config, block, nullptr, 0, states, [&](auto& modules, const auto& x) {
        x.for_each([&](const auto& all) { found.emplace(modules.names.front(), copy_of(all.inputs)); });
    });
    return found;
}

/// silu(x gate') (x up') in plain loops.                               x [tokens, K]  gate, up [N, K]
floats gated(const floats& x, const floats& gate, const floats& up) {
    auto y = gptq::make_tensor2<float>(x.shape()[0], gate.shape()[0]);
    for (std::size_t t = 0; t < x.shape()[0]; ++t)
        for (std::size_t n = 0; n < gate.shape()[0]; ++n) {
            double a = 0.0, b = 0.0;
            for (std::size_t k = 0; k < x.shape()[1]; ++k) {
                a += double{x(t, k)} * double{gate(n, k)};
                b += double{x(t, k)} * double{up(n, k)};
            }
            y(t, n) = static_cast<float>(a / (1.0 + std::exp(-a)) * b);
        }
    return y;
}

/// The Hessian of an expert, but for a factor that GPTQ does not see: its own tokens, and all others so much smaller that
/// they count as those that are lacking.
gptq::hessian<float> blended(const floats& own, const floats& all) {
    const std::size_t inputs = all.shape()[1], enough = 4 * inputs, tokens = own.shape()[0];
    gptq::hessian<float> h(inputs);
    if (tokens != 0) h.add(own);
    if (tokens >= enough) return h;
    floats smaller = all;
    const double share = static_cast<double>(enough - tokens) / static_cast<double>(all.shape()[0]);
    for (float& x : smaller) x *= static_cast<float>(std::sqrt(share));
    h.add(smaller);
    return h;
}

std::size_t different(const gptq::tensor2<std::uint8_t>& a, const gptq::tensor2<std::uint8_t>& b) {
    std::size_t found = 0;
    for (std::size_t i = 0; i < a.size(); ++i) found += a.data()[i] != b.data()[i];
    return found;
}

}  // namespace

TEST_CASE("an expert's codes are those of GPTQ on its tokens, and on all where it has few or none") {
    using scheme = gptq::scheme<4, gptq::group_size<32>, gptq::symmetric>;
    const folders f;
    const io::model_folder source(f.source);
    const auto result = model::quantize_model(source, f.out, f.windows, f.options);
    const io::model_folder out(f.out);
    const auto inputs = inputs_of_first_block(out, f.windows);
    const std::string mlp = "model.layers.0.mlp.";
    const floats& everyone = inputs.at(mlp + "shared_expert.gate_proj");
    REQUIRE(everyone.shape()[0] == f.windows.tokens.size());

    std::map<std::string, std::size_t> samples;
    for (const auto& record : result.modules)
        if (record.layer == 0) samples[record.module] = record.samples;
    std::size_t all_codes = 0, all_different = 0, few = 0, enough = 0;
    for (std::size_t e = 0; e < gptq_test::tiny_model::expert_count; ++e) {
        const std::string expert = mlp + "experts." + std::to_string(e) + ".";
        const auto float_of = [&](const std::string& layer) {
            return floats(gptq::dequantize(io::read_quantized(out, f.options.config, expert + layer)));
        };
        const floats inside = gated(everyone, float_of("gate_proj"), float_of("up_proj"));
        const floats &into = inputs.at(expert + "gate_proj"), &within = inputs.at(expert + "down_proj");
        const auto check = [&](const std::string& layer, const floats& own, const floats& all) {
            const auto h = blended(own, all);
            const auto expected = gptq::quantize<scheme>(source.read_matrix(expert + layer + ".weight"), h);
            const auto stored = io::read_quantized(out, f.options.config, expert + layer);
            const std::size_t wrong = different(stored.codes, expected.codes);
            INFO(expert << layer << ": " << own.shape()[0] << " tokens, " << wrong << " codes differ");
            CHECK(wrong <= stored.codes.size() / 100);  // sums in another order
            all_codes += stored.codes.size();
            all_different += wrong;
            CHECK(samples.at("mlp.experts." + std::to_string(e) + "." + layer) == own.shape()[0]);
            (own.shape()[0] < 4 * all.shape()[1] ? few : enough) += 1;
        };
        for (const char* layer : {"gate_proj", "up_proj"}) check(layer, into, everyone);
        check("down_proj", within, inside);
        CHECK((into.shape()[0] == 0) == (e + 1 == gptq_test::tiny_model::expert_count));
    }
    INFO(all_different << " of " << all_codes << " codes differ");
    CHECK(all_different <= all_codes / 500);
    CHECK(few > 3);  // more than those of the expert without tokens
    CHECK(enough > 3);
    REQUIRE(result.warnings.size() == 1);
    CHECK(gptq_test::mentions(result.warnings.front(), "inputs of experts", "samples"));
}

TEST_CASE("a few tokens blended with all lie between their Hessians") {
    gptq::hessian<float> own(2), all(2);
    own.add(gptq::matrix<float>(3, 2).view());  // zeros
    const std::vector<float> x{1.0f, 2.0f, 3.0f, -1.0f};
    all.add(gptq::matrix_view<const float>(x.data(), 2, 2));
    auto blended = own;
    blended.merge(all, 9);
    CHECK(blended.samples() == 12);
    for (std::size_t c = 0; c < 2; ++c) CHECK(blended.upper()(0, c) == Approx(0.75f * all.upper()(0, c)));
    gptq::hessian<float> none(2);
    none.merge(all, 5);
    CHECK(none.upper()(0, 1) == all.upper()(0, 1));
}

TEST_CASE("the configuration says that routers are not quantized, beside what the user said") {
    const folders f;
    const io::model_folder source(f.source);
    const model::model_config config = model::read_model_config(source);
    io::quantization_config wanted = f.options.config;
    wanted.dynamic = io::dynamic_rules({{".*down_proj", {{"bits", 8}}}}, "a test");
    const auto rules = model::spare_others(config, source, wanted).dynamic;
    CHECK(rules.rules().size() == 3);
    CHECK(rules.match("model.layers.11.mlp.gate").skip);
    CHECK(rules.match("model.layers.0.mlp.shared_expert_gate").skip);
    for (const char* layer : {"gate_proj", "experts.0.gate_proj", "shared_expert.gate_proj"})
        CHECK(!rules.match("model.layers.0.mlp." + std::string(layer)).skip);
    CHECK(rules.match("model.layers.0.mlp.experts.1.down_proj").bits == 8);
    CHECK(model::spare_others(model::model_config(), source, wanted).dynamic.rules().size() == 1);
    model::quantize_model(io::model_folder(f.source), f.out, f.windows, f.options);
    CHECK(io::quantization_config::parse(io::model_folder(f.out))->dynamic.match("model.layers.1.mlp.gate").skip);
}

TEST_CASE("experts go through the program: quantize, eval, generate, inspect") {
    if (gptq_test::skipped()) return;
    const folders f;
    const std::string text = (f.temporary.path() / "text.txt").string();
    gptq_test::write_file(text, gptq_test::some_text(3000));
    const auto json_of = [](std::vector<std::string> arguments) {
        arguments.push_back("--json");
        const auto run = gptq_test::run_program(arguments);
        INFO(run.err);
        REQUIRE(run.status == 0);
        return nlohmann::json::parse(run.out);
    };
    const auto perplexity = [&](const fs::path& folder) {
        return json_of({"eval", folder.string(), "--text", text, "--seqlen", "64"})["perplexity"].get<double>();
    };
    const double float_perplexity = perplexity(f.source);
    for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--best"}}) {
        const fs::path out = f.temporary.path() / ("out" + std::to_string(more.size()));
        std::vector<std::string> arguments = {"quantize", f.source.string(), out.string(), "--calib",
                                              text,       "--nsamples",      "8",          "--seqlen",
                                              "64",       "--group-size",    "32"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        json_of(arguments);
        CHECK(perplexity(out) == Approx(float_perplexity).epsilon(0.1));
        CHECK(json_of({"generate", out.string(), "--prompt", "the cat", "-n", "5"})["tokens"] == 5);

        const io::model_folder folder(out);
        CHECK(folder.contains("model.layers.1.mlp.experts.4.up_proj.qweight"));
        CHECK(folder.contains("model.layers.1.mlp.shared_expert.down_proj.qweight"));
        for (const char* kept : {"model.layers.1.mlp.gate.weight", "model.layers.1.mlp.shared_expert_gate.weight"})
            CHECK(folder.contains(kept));
        const auto log = model::read_quant_log(out / "quant_log.csv");
        std::size_t without = 0;
        for (const auto& record : log) {
            CHECK(std::isfinite(record.error));
            without += record.samples == 0;
            CHECK((record.samples == 0) == (record.module.find("experts.4.") != std::string::npos));
        }
        CHECK(without == 6);
        std::size_t experts = 0;
        const auto inspected = json_of({"inspect", out.string()});
        for (const auto& layer : inspected["layers"])
            if (layer["module"] == "mlp.experts.*.up_proj") experts += layer["count"].get<std::size_t>();
        CHECK(experts == 10);
    }
}
