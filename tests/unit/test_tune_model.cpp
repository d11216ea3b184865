// Tuned scales: what a step does, what the gradient of a scale is, and whole checkpoints that come nearer to their float
// model with their codes as they were.
#include <gptq/model/tune_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/tuned_parts.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;
using gptq::matrix;

namespace {

/// Windows of 16 tokens in which the next token mostly follows from the last.
model::token_windows some_windows(std::size_t count, unsigned seed = 1) {
    model::token_windows windows{{}, 16};
    std::mt19937 random(seed);
    for (std::size_t i = 0; i < count * windows.length; ++i) {
        const bool follows = i != 0 && random() % 4 != 0;
        windows.tokens.push_back(static_cast<std::int32_t>(
            (follows ? 5 * windows.tokens.back() + 3 : static_cast<int>(random() % 251)) % 251));
    }
    return windows;
}

/// A tiny model and a checkpoint of it, rounded to nearest.
struct scene {
    gptq_test::temp_dir dir;
    fs::path source = dir.path() / "float", quantized = dir.path() / "quantized", out = dir.path() / "out";

    explicit scene(int bits = 2, io::checkpoint_format format = io::checkpoint_format::gptq_v2) {
        gptq_test::write_tiny_model(source);
        model::quantize_model_options options;
        options.config.format = format;
        options.config.settings = gptq::settings::nearest(bits);
        options.config.settings.group_size = 32;
        options.config.settings.sym = format == io::checkpoint_format::compressed_tensors;
        model::quantize_model(io::model_folder(source), quantized, some_windows(1), options);
    }

    model::tune_result tune(const model::tune_options& options, const model::token_windows& windows,
                            const model::tune_observer& observer = {}) const {
        return model::tune_model(io::model_folder(quantized), io::model_folder(source), out, windows, options,
                                 observer);
    }
};

/// The mean divergence of `folder` from `reference` over all tokens of some windows.
double divergence(const fs::path& folder, const fs::path& reference, const model::token_windows& windows) {
    const auto ours = model::decoder::load(io::model_folder(folder), model::quantized_form::dense);
    const auto theirs = model::decoder::load(io::model_folder(reference));
    double sum = 0.0;
    for (std::size_t w = 0; w < windows.count(); ++w) {
        const auto window = std::span(windows.tokens).subspan(w * windows.length, windows.length);
        const auto a = theirs.logits(window), b = ours.logits(window);
        for (std::size_t t = 0; t < window.size(); ++t)
            sum += model::kl_divergence(gptq::view_of(a).row(t), gptq::view_of(b).row(t));
    }
    return sum / static_cast<double>(windows.tokens.size());
}

std::vector<std::byte> bytes_of(const io::model_folder& folder, const std::string& tensor) {
    return folder.tensor(tensor).bytes.read();
}

}  // namespace

TEST_CASE("steps of Adam are relative to each number's unit", "[tune]") {
    model::tuned_numbers numbers({1.0f, -2.0f, 0.0f, 5.0f}, {1.0f, -2.0f, 0.0f, 5.0f});
    const auto give = [&](float a, float b, float c, float d) {
        const std::vector<float> slopes{a, b, c, d};
        std::ranges::copy(slopes, numbers.gradient().begin());
    };
    // The first step is the rate, whatever the slopes are; without a slope, or a unit, nothing moves.
    give(3.0f, 0.25f, 7.0f, 0.0f);
    numbers.step(0.01);
    CHECK(numbers[0] == Approx(0.99));
    CHECK(numbers[1] == Approx(-2.0 - 0.02));
    CHECK(numbers[2] == 0.0f);
    CHECK(numbers[3] == 5.0f);
    CHECK(numbers.gradient()[0] == 0.0f);
    numbers.keep();
    // The second by the formulas: m = 0.1 (0.9 * 3 - 1), v = 0.001 (0.999 * 9 + 1), both unbiased.
    give(-1.0f, 0.0f, 0.0f, 0.0f);
    numbers.step(0.01);
    const double m = 0.1 * (0.9 * 3.0 - 1.0) / (1.0 - 0.81), v = 0.001 * (0.999 * 9.0 + 1.0) / (1.0 - 0.998001);
    CHECK(numbers[0] == Approx(0.99 - 0.01 * m / std::sqrt(v)).epsilon(1e-5));
    numbers.restore();
    CHECK(numbers[0] == Approx(0.99));
}

TEST_CASE("the gradient of a scale is that of its weights by their codes", "[tune]") {
    constexpr std::size_t N = 3, K = 12, G = 4;
    std::mt19937 random(3);
    gptq::quantized_layer q;
    gptq::allocate(q, 2, false, N, K, 3);
    for (std::size_t k = 0; k < K; ++k) q.g_idx(k) = static_cast<std::int32_t>((k * 7 + k / 5) % G);  // in no order
    for (auto& code : q.codes) code = static_cast<std::uint8_t>(random() % 4);
    for (auto& zero : q.zeros) zero = static_cast<std::uint8_t>(random() % 4);
    for (auto& scale : q.scales) scale = static_cast<float>(random() % 100) * 0.25f - 10.0f;
    q.scales(1, 2) = 0.0f;
    const gptq::quantized_layer before = q;
    model::linear target;
    target.weight = gptq::make_tensor2<float>(N, K);
    model::tuned_layer tuned("a layer", std::move(q), target);
    tuned.show();
    matrix<float> dW(N, K);
    for (std::size_t i = 0; i < N * K; ++i) dW.data()[i] = static_cast<float>(random() % 17) - 8.0f;
    tuned.add_gradient(dW.view());
    tuned.add_gradient(dW.view());
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t g = 0; g < G; ++g) {
            float sum = 0.0f;
            for (std::size_t k = 0; k < K; ++k) {
                if (static_cast<std::size_t>(before.g_idx(k)) != g) continue;
                const float steps = static_cast<float>(before.codes(n, k)) - static_cast<float>(before.zeros(n, g));
                CHECK(target.weight(n, k) == before.scales(n, g) * steps);
                sum += 2.0f * dW(n, k) * steps;
            }
            CHECK(tuned.scales().gradient()[n * G + g] == sum);
        }
}

TEST_CASE("a tuned checkpoint is nearer to its float model, with the same codes, and is what was measured", "[tune]") {
    const scene s;
    const auto windows = some_windows(16);
    std::vector<double> seen;
    std::size_t blocks = 0;
    const model::tune_observer observer{[&] { ++blocks; },
                                        [&](const model::tune_progress& p) {
                                            if (p.held_out) seen.push_back(*p.held_out);
                                        }};
    const auto result = s.tune({.steps = 40, .rate = 0.02}, windows, observer);
    CHECK(result.layers == 14);
    CHECK(result.norms == 0);
    CHECK(seen.size() == 11);
    CHECK(seen.front() == result.before);
    CHECK(*std::min_element(seen.begin(), seen.end()) == result.after);
    CHECK(blocks > 40 * 3 * 2);
    CHECK(result.after < 0.8 * result.before);

    // Of 16 windows numbers 8 and 16 are held out.
    model::token_windows held_out{{}, 16};
    for (const std::size_t w : {std::size_t{7}, std::size_t{15}})
        held_out.tokens.insert(held_out.tokens.end(), windows.tokens.begin() + static_cast<std::ptrdiff_t>(w * 16),
                               windows.tokens.begin() + static_cast<std::ptrdiff_t>((w + 1) * 16));
    CHECK(divergence(s.quantized, s.source, held_out) == Approx(result.before).epsilon(1e-4));
    CHECK(divergence(s.out, s.source, held_out) == Approx(result.after).epsilon(1e-4));
    const auto others = some_windows(8, 2);
    CHECK(divergence(s.out, s.source, others) < 0.85 * divergence(s.quantized, s.source, others));

    const io::model_folder before(s.quantized), after(s.out);
    CHECK(before.tensor_names() == after.tensor_names());
    for (const std::string& tensor : before.tensor_names()) {
        CAPTURE(tensor);
        CHECK((bytes_of(before, tensor) == bytes_of(after, tensor)) == !tensor.ends_with(".scales"));
        CHECK(before.tensor(tensor).dtype == after.tensor(tensor).dtype);
        CHECK(before.tensor(tensor).shape == after.tensor(tensor).shape);
    }
    const auto config = io::quantization_config::parse(after).value();
    CHECK(config.tuning == io::tuning_record{40, result.kept_step, 0.02, false, 16, 16});
    CHECK(config.settings == io::quantization_config::parse(before).value().settings);
    CHECK(config.calibration == io::quantization_config::parse(before).value().calibration);
}

TEST_CASE("norms are tuned where that is asked for, in compressed-tensors as well", "[tune]") {
    const scene s(4, io::checkpoint_format::compressed_tensors);
    const auto result = s.tune({.steps = 12, .rate = 0.02, .norms = true}, some_windows(8));
    CHECK(result.norms == 5);
    CHECK(result.after < result.before);
    const io::model_folder before(s.quantized), after(s.out);
    for (const std::string& tensor : before.tensor_names()) {
        CAPTURE(tensor);
        const bool changes = tensor.ends_with("weight_scale") || tensor.find("norm") != std::string::npos;
        CHECK((bytes_of(before, tensor) == bytes_of(after, tensor)) == !changes);
    }
    CHECK(io::quantization_config::parse(after).value().tuning->norms);
    model::token_windows held_out = some_windows(8);
    held_out.tokens.erase(held_out.tokens.begin(), held_out.tokens.end() - 16);
    CHECK(divergence(s.out, s.source, held_out) == Approx(result.after).epsilon(1e-4));
}

TEST_CASE("a rate that ruins the model leaves it as it came", "[tune]") {
    const scene s;
    const auto result = s.tune({.steps = 2, .rate = 0.9}, some_windows(4));
    CHECK(result.kept_step == 0);
    CHECK(result.after == result.before);
    const io::model_folder before(s.quantized), after(s.out);
    for (const std::string& tensor : before.tensor_names()) CHECK(bytes_of(before, tensor) == bytes_of(after, tensor));
}

TEST_CASE("what cannot be tuned is refused, and nothing is written", "[tune]") {
    const scene s;
    const auto refused = [&](const fs::path& folder, const fs::path& reference, const model::tune_options& options,
                             const model::token_windows& windows) {
        model::tune_model(io::model_folder(folder), io::model_folder(reference), s.out, windows, options);
    };
    const auto windows = some_windows(4);
    CHECK_THROWS_AS(refused(s.source, s.source, {}, windows), gptq::format_error);
    CHECK_THROWS_AS(refused(s.quantized, s.source, {.steps = 0}, windows), gptq::option_error);
    CHECK_THROWS_AS(refused(s.quantized, s.source, {.rate = 1.0}, windows), gptq::option_error);
    CHECK_THROWS_AS(refused(s.quantized, s.source, {}, some_windows(1)), gptq::shape_error);
    const model::token_windows outside{{1, 2, 300, 4}, 2};
    CHECK_THROWS_AS(refused(s.quantized, s.source, {}, outside), gptq::shape_error);
    const model::tune_observer stopping{
        {}, [](const model::tune_progress& p) { p.step == 2 ? throw gptq::cancelled("enough") : void(); }};
    CHECK_THROWS_AS(s.tune({}, windows, stopping), gptq::cancelled);
    CHECK(std::distance(fs::directory_iterator(s.dir.path()), fs::directory_iterator()) == 2);
}

TEST_CASE("a run that was stopped goes on to the same bytes", "[tune]") {
    const scene s;
    const auto windows = some_windows(8);
    const model::tune_options options{.steps = 20, .rate = 0.02, .norms = true};
    const auto undisturbed = s.tune(options, windows);
    const fs::path goal = s.dir.path() / "undisturbed";
    fs::rename(s.out, goal);

    std::size_t resumed_at = 0;
    std::vector<std::size_t> steps;
    const auto stopping_at = [&](std::size_t last) {
        return model::tune_observer{{},
                                    [&steps, last](const model::tune_progress& p) {
                                        steps.push_back(p.step);
                                        if (p.step == last) throw gptq::cancelled("enough");
                                    },
                                    [&](std::size_t step) { resumed_at = step; }};
    };
    // Windows are looked at, and steps are on the disk, after every second step.
    CHECK_THROWS_AS(s.tune(options, windows, stopping_at(7)), gptq::cancelled);
    CHECK(resumed_at == 0);
    auto other = options;
    other.rate = 0.01;
    CHECK_THROWS_WITH(s.tune(other, windows), Catch::Contains("rate is 0.02 there and 0.01 here"));
    steps.clear();
    CHECK_THROWS_AS(s.tune(options, windows, stopping_at(11)), gptq::cancelled);
    CHECK(resumed_at == 6);
    CHECK(steps.front() == 7);
    const auto result = s.tune(options, windows, stopping_at(100));
    CHECK(resumed_at == 10);
    CHECK(result.before == undisturbed.before);
    CHECK(result.after == undisturbed.after);
    CHECK(result.kept_step == undisturbed.kept_step);
    const io::model_folder there(goal), here(s.out);
    for (const std::string& tensor : there.tensor_names()) CHECK(bytes_of(there, tensor) == bytes_of(here, tensor));
    CHECK(std::distance(fs::directory_iterator(s.dir.path()), fs::directory_iterator()) == 4);
}

TEST_CASE("an unfinished run that is damaged is refused, and discarded where that is asked for", "[tune]") {
    const scene s;
    const auto windows = some_windows(4);
    const model::tune_options options{.steps = 3, .rate = 0.02};
    const model::tune_observer stopping{
        {}, [](const model::tune_progress& p) { p.step == 2 ? throw gptq::cancelled("enough") : void(); }};
    CHECK_THROWS_AS(s.tune(options, windows, stopping), gptq::cancelled);
    for (const fs::path& piece : {fs::path("0.safetensors"), fs::path("1.safetensors")})
        fs::copy_file(s.quantized / "model.safetensors", fs::path(s.out.string() + ".partial") / piece,
                      fs::copy_options::overwrite_existing);
    CHECK_THROWS_AS(s.tune(options, windows), gptq::format_error);
    auto again = options;
    again.restart = true;
    CHECK(s.tune(again, windows).layers == 14);
}
