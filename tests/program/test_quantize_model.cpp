// quantize_model against its own definition, put together here from the parts: a layer's codes are those of GPTQ on the
// inputs that the finished, quantized model gives that layer.
#include "support/catch.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/damping.hpp>
#include <gptq/gptq.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/stages.hpp>

#include "program/tiny_model.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;

namespace {

model::token_windows some_windows(std::size_t count, std::size_t length) {
    const std::string text = gptq_test::some_text(count * length);
    return {std::vector<std::int32_t>(text.begin(), text.end()), length};
}

model::quantize_model_options options_for(int bits, gptq::order_kind order) {
    model::quantize_model_options options;
    options.config.settings = gptq::settings::paper(bits);
    options.config.settings.sym = true;
    options.config.settings.group_size = 32;
    options.config.settings.order = order;
    return options;
}

template <class T>
std::vector<T> elements(const gptq::tensor2<T>& m) {
    return {m.data(), m.data() + m.size()};
}

/// Runs the quantized model of `folder` over `windows` and hands each stage's modules and inputs to `look`.
template <class Look>
void walk(const io::model_folder& folder, const model::token_windows& windows, Look&& look) {
    const model::cpu_model_backend cpu(model::quantized_form::dense);
    const auto config = model::read_model_config(folder);
    model::calibration_states states(cpu, config, model::load_embedding(config, folder, cpu), windows, false);
    REQUIRE(states.chunks() == 1);
    for (std::size_t i = 0; i < config.blocks; ++i) {
        auto block = model::load_block(config, folder, i, cpu);
        model::run_block_by_stages(cpu, config, block, nullptr, i, states, [&](auto& modules, const auto& x) {
            x.for_each([&](const auto& all) { look(modules, all.inputs); });
        });
    }
}

struct folders {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source";
    fs::path out = temporary.path() / "out";
    explicit folders(const gptq_test::tiny_model& sizes = {}) { gptq_test::write_tiny_model(source, sizes); }
};

}  // namespace

TEST_CASE("every layer is quantized on the inputs that the quantized model gives it") {
    const folders f;
    const io::model_folder source(f.source);
    const auto windows = some_windows(8, 64);
    const auto options = options_for(4, gptq::order_kind::act);
    model::quantize_model(source, f.out, windows, options);

    const io::model_folder out(f.out);
    std::size_t checked = 0;
    walk(out, windows, [&](model::stage_modules<model::linear>& stage, gptq::matrix_view<const float> inputs) {
        using scheme = gptq::scheme<4, gptq::group_size<32>, gptq::symmetric, gptq::act_order>;
        gptq::hessian<float> h(inputs.cols);
        h.add(inputs);
        for (const std::string& name : stage.names) {
            const auto expected = gptq::quantize<scheme>(source.read_matrix(name + ".weight"), h);
            const auto stored = io::read_quantized(out, options.config, name);
            INFO(name);
            CHECK(elements(stored.codes) == elements(expected.codes));
            CHECK(elements(stored.scales) == elements(expected.scales));
            CHECK(std::equal(stored.g_idx.begin(), stored.g_idx.end(), expected.g_idx.begin()));
            ++checked;
        }
    });
    CHECK(checked == 14);
}

TEST_CASE("the records hold the errors of the stored layers", "[runs]") {
    const folders f;
    const io::model_folder source(f.source);
    const auto windows = some_windows(8, 64);
    const auto options = options_for(3, gptq::order_kind::group_aware);
    const auto result = model::quantize_model(source, f.out, windows, options);
    CHECK(result.warnings.empty());

    const io::model_folder out(f.out);
    auto record = result.modules.begin();
    walk(out, windows, [&](model::stage_modules<model::linear>& stage, gptq::matrix_view<const float> inputs) {
        for (const std::string& name : stage.names) {
            const auto weight = source.read_matrix(name + ".weight");
            const auto quantized = gptq::dequantize(io::read_quantized(out, options.config, name));
            // tr(D H D') = 2/T sum over tokens of |D x|^2, in plain loops
            double error = 0.0, energy = 0.0;
            for (std::size_t t = 0; t < inputs.rows; ++t)
                for (std::size_t n = 0; n < weight.shape()[0]; ++n) {
                    double difference = 0.0, output = 0.0;
                    for (std::size_t k = 0; k < inputs.cols; ++k) {
                        difference += (double{weight(n, k)} - double{quantized(n, k)}) * double{inputs(t, k)};
                        output += double{weight(n, k)} * double{inputs(t, k)};
                    }
                    error += 2.0 * difference * difference / static_cast<double>(inputs.rows);
                    energy += 2.0 * output * output / static_cast<double>(inputs.rows);
                }
            INFO(name);
            REQUIRE(record != result.modules.end());
            CHECK(name.ends_with(record->module));
            CHECK(record->error == Approx(error).epsilon(1e-3));
            CHECK(record->relative_error == Approx(error / energy).epsilon(1e-3));
            CHECK(record->samples == 512);
            ++record;
        }
    });
    CHECK(record == result.modules.end());
    CHECK(model::quant_log(model::read_quant_log(f.out / "quant_log.csv")) == model::quant_log(result.modules));
}

TEST_CASE("a damping chosen by the layers is recorded, and the description names no number that was not used") {
    const folders f;
    const io::model_folder source(f.source);
    const auto windows = some_windows(8, 64);
    auto options = options_for(4, gptq::order_kind::act);
    options.config.settings.damp_percent = std::nullopt;
    const auto result = model::quantize_model(source, f.out, windows, options);
    REQUIRE(result.warnings.size() == 1);
    CHECK(result.warnings.front().starts_with("vLLM does not look at the order of inputs"));
    const auto description = nlohmann::json::parse(gptq_test::read_file(f.out / "quantize_config.json"));
    CHECK_FALSE(description.contains("damp_percent"));
    CHECK(description["meta"]["made_with"]["settings"]["damping"] == "auto");
    CHECK(io::quantization_config::parse(io::model_folder(f.out))->settings == options.config.settings);
    auto record = result.modules.begin();
    walk(io::model_folder(f.out), windows,
         [&](model::stage_modules<model::linear>& stage, gptq::matrix_view<const float> inputs) {
             gptq::hessian<float> h(inputs.cols);
             h.add(inputs);
             std::vector<float> diagonal(inputs.cols);
             for (std::size_t k = 0; k < inputs.cols; ++k) diagonal[k] = h.upper()(k, k);
             for (std::size_t i = 0; i < stage.names.size(); ++i, ++record)
                 CHECK(record->damp_percent == Approx(gptq::automatic_damping(diagonal)));
         });
    CHECK(record == result.modules.end());
}

TEST_CASE("a small memory gives the same bytes as a large one") {
    const folders f({.hidden = 32, .intermediate = 64, .heads = 2});
    const io::model_folder source(f.source);
    const auto windows = some_windows(17, 128);  // more than one chunk
    auto options = options_for(4, gptq::order_kind::group_aware);
    options.config.settings.correct_drift = true;
    const auto config = model::read_model_config(source);
    const auto estimate =
        model::estimate_memory(config, model::plan_quantization(config, source, options.config), true);
    const double least = estimate.fixed + 2048.0 * estimate.per_token;
    const auto bytes_with = [&](const char* name, double memory) {
        options.memory = static_cast<std::uint64_t>(memory);
        const auto out = f.temporary.path() / name;
        CHECK(model::quantize_model(source, out, windows, options).warnings.empty());
        CHECK_FALSE(fs::exists(out.string() + ".partial"));
        return gptq_test::read_file(out / "model.safetensors");
    };
    const auto all = bytes_with("all", 1e12);
    CHECK(bytes_with("twice", least + 2176.0 * estimate.states + 1.0) == all);
    CHECK(bytes_with("file", least + 1.0) == all);
    options.memory = static_cast<std::uint64_t>(least) - 1;
    CHECK(gptq_test::mentions(gptq_test::message_of([&] { model::quantize_model(source, f.out, windows, options); }),
                              "at least about", "--memory"));
}

TEST_CASE("corrected for drift, the model's outputs come closer to the float model's") {
    const folders f;
    const io::model_folder source(f.source);
    const auto windows = some_windows(32, 64);
    const auto final_states = [&](const io::model_folder& folder) {
        const model::cpu_model_backend cpu(model::quantized_form::dense);
        const model::model_config config = model::read_model_config(folder);
        model::calibration_states states(cpu, config, model::load_embedding(config, folder, cpu), windows, false);
        REQUIRE(states.chunks() == 1);
        for (std::size_t i = 0; i < config.blocks; ++i) {
            auto block = model::load_block(config, folder, i, cpu);
            model::run_block_by_stages(cpu, config, block, nullptr, i, states, [](auto&, const auto&) {});
        }
        const auto last = states.states(0, 0);
        return std::vector<float>(last.data, last.data + last.rows * last.cols);
    };
    const auto wanted = final_states(source);
    const auto squared_distance = [&](const std::filesystem::path& out, const gptq::quantize_settings& settings) {
        model::quantize_model_options options;
        options.config.settings = settings;
        const auto result = model::quantize_model(source, out, windows, options);
        CHECK(result.warnings.empty());
        for (const auto& record : result.modules) {
            const bool first_input =
                record.layer == 0 && record.module.starts_with("self_attn") && !record.module.ends_with("o_proj");
            CHECK(record.drift_share >= 0.0);
            CHECK(record.drift_share <= 1.0);
            if (!settings.correct_drift || first_input) CHECK(record.drift_share == 0.0);
        }
        const auto got = final_states(io::model_folder(out));
        double sum = 0.0;
        for (std::size_t i = 0; i < got.size(); ++i) {
            const double difference = double{got[i]} - double{wanted[i]};
            sum += difference * difference;
        }
        return sum;
    };
    auto settings = options_for(2, gptq::order_kind::group_aware).config.settings;
    const double plain = squared_distance(f.out, settings);
    settings.correct_drift = true;
    CHECK(squared_distance(f.out.string() + "-drift", settings) < 0.95 * plain);
    settings = gptq::settings::best(2);
    settings.group_size = 32;
    CHECK(squared_distance(f.out.string() + "-best", settings) < 0.95 * plain);
}

TEST_CASE("round-to-nearest does not depend on the calibration text") {
    const folders f;
    const io::model_folder source(f.source);
    auto options = options_for(4, gptq::order_kind::natural);
    options.config.settings = gptq::settings::nearest();
    options.config.settings.group_size = 32;
    model::quantize_model(source, f.out, some_windows(2, 64), options);
    const io::model_folder out(f.out);
    const auto stored = io::read_quantized(out, options.config, "model.layers.1.mlp.down_proj");
    using scheme = gptq::scheme<4, gptq::group_size<32>>;
    const auto expected = gptq::round_to_nearest<scheme>(source.read_matrix("model.layers.1.mlp.down_proj.weight"));
    CHECK(elements(stored.codes) == elements(expected.codes));
    CHECK(elements(stored.scales) == elements(expected.scales));
}

TEST_CASE("what is not quantized is carried along byte for byte") {
    const folders f;
    const io::model_folder source(f.source);
    const auto options = options_for(4, gptq::order_kind::natural);
    const auto result = model::quantize_model(source, f.out, some_windows(2, 64), options);
    const io::model_folder out(f.out);
    std::uint64_t bytes = 0, packed = 0;
    for (const std::string& name : out.tensor_names()) {
        const io::tensor_info& tensor = out.tensor(name);
        bytes += tensor.bytes.size();
        if (!source.contains(name)) {
            packed += tensor.bytes.size();
            continue;
        }
        CHECK(tensor.dtype == source.tensor(name).dtype);
        CHECK(tensor.shape == source.tensor(name).shape);
        CHECK(tensor.bytes.read() == source.tensor(name).bytes.read());
    }
    for (const std::string& name : source.tensor_names()) CHECK(out.contains(name) == !name.ends_with("_proj.weight"));
    CHECK(result.bytes == bytes);
    const double weights = 2.0 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 128 * 64);
    CHECK(result.bits_per_weight == Approx(8.0 * static_cast<double>(packed) / weights));
}

TEST_CASE("whatever did not go as asked is recorded") {
    const folders f;
    const io::model_folder source(f.source);
    auto options = options_for(4, gptq::order_kind::natural);
    const auto few = model::quantize_model(source, f.out, some_windows(1, 16), options);
    REQUIRE_FALSE(few.warnings.empty());
    CHECK(gptq_test::mentions(few.warnings[0], "16 tokens", "128 inputs"));
    // Many tokens that are all the same make a Hessian of rank 1, and there is next to no damping.
    options.config.settings.damp_percent = 0.0;
    const model::token_windows alike{std::vector<std::int32_t>(512, 65), 64};
    const auto singular = model::quantize_model(source, f.temporary.path() / "singular", alike, options);
    REQUIRE_FALSE(singular.warnings.empty());
    CHECK(gptq_test::mentions(singular.warnings[0], "model.layers.0.self_attn.q_proj", "damping"));
    for (const auto& result : {few, singular})
        for (const auto& record : result.modules) CHECK(std::isfinite(record.error));
}

TEST_CASE("an observer sees every module and can stop the work") {
    struct watcher {
        std::vector<std::string> modules = {};
        double last_fraction = 0.0;
        std::size_t stop_after = 100;
        void on_progress(double fraction, const std::string&) {
            CHECK(fraction >= last_fraction);
            last_fraction = fraction;
            if (modules.size() >= stop_after) throw gptq::cancelled("enough");
        }
        void on_module(const model::module_record& r) { modules.push_back(std::to_string(r.layer) + r.module); }
        void on_columns(std::size_t, std::size_t) const {}
    };
    const folders f;
    const io::model_folder source(f.source);
    const auto options = options_for(4, gptq::order_kind::natural);
    watcher stopped{.stop_after = 5};
    CHECK_THROWS_AS(model::quantize_model(source, f.out, some_windows(2, 32), options, stopped), gptq::cancelled);
    CHECK(stopped.modules.size() == 5);
    CHECK_FALSE(fs::exists(f.out));
    watcher whole;
    model::quantize_model(source, f.out, some_windows(2, 32), options, whole);
    CHECK(whole.modules.size() == 14);
    CHECK(whole.modules.back() == "1mlp.down_proj");
    CHECK(whole.last_fraction < 1.0);
}

TEST_CASE("a large increase of perplexity is reported with the modules that lose most") {
    std::vector<model::module_record> records(7);
    for (std::size_t i = 0; i < records.size(); ++i) {
        records[i].layer = i;
        records[i].module = "mlp.down_proj";
        records[i].relative_error = i == 4 ? 0.5 : 0.01 * static_cast<double>(i);
    }
    const auto bad = model::compare(10.0, 12.5, records);
    CHECK(bad.large);
    CHECK(bad.increase == Approx(0.25));
    REQUIRE(bad.worst.size() == 5);
    CHECK(bad.worst.front().layer == 4);
    CHECK(gptq_test::mentions(model::describe(bad), "+25.0 %", "more than 20 %", "layer 4 mlp.down_proj: 50.00 %"));
    const auto good = model::compare(10.0, 11.9, records);
    CHECK_FALSE(good.large);
    CHECK_FALSE(gptq_test::mentions(model::describe(good), "layer"));
    CHECK(model::compare(10.0, std::nan(""), {}).large);
}
