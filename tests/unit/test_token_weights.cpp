// Weights of tokens by the gradient of the loss: against differences of the loss, and in Hessians and whole checkpoints.
#include <gptq/model/token_weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/error.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/xtensor/surface.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

namespace io = gptq::io;
namespace model = gptq::model;
using gptq::matrix;

namespace {

model::token_windows random_windows(std::size_t count, std::size_t length) {
    model::token_windows windows{{}, length};
    std::mt19937 random(5);
    for (std::size_t i = 0; i < count * length; ++i)
        windows.tokens.push_back(static_cast<std::int32_t>(random() % 251));
    return windows;
}

/// -log of the probability that the first token of two gives the second one.
double loss_of_two(const model::decoder& decoder, std::span<const std::int32_t> two) {
    const auto logits = decoder.logits(two);
    double sum = 0.0;
    for (std::size_t v = 0; v < logits.shape(1); ++v) sum += std::exp(double{logits(0, v)});
    return std::log(sum) - double{logits(0, static_cast<std::size_t>(two[1]))};
}

model::linear& layer_named(model::decoder& decoder, const std::string& name) {
    for (auto& block : decoder.blocks())
        for (std::size_t s = 0; s < block.layers.size(); ++s)
            for (std::size_t m = 0; m < block.layers[s].size(); ++m)
                if (block.what.full_name(block.what.sites[s].modules[m]) == name) return block.layers[s][m];
    throw std::logic_error("no layer " + name);
}

}  // namespace

// In windows of two tokens only the first one's logits count, so that what a layer's bias changes is its output there.
TEST_CASE("the weight of a token is what the loss feels of its outputs", "[guided]") {
    const gptq_test::temp_dir dir;
    gptq_test::write_tiny_model(dir.path() / "model", {.hidden = 32, .intermediate = 32, .head_dim = 8});
    const io::model_folder folder(dir.path() / "model");
    constexpr std::size_t count = 4;
    const auto windows = random_windows(count, 2);
    const model::token_weights weights(folder, windows);
    auto decoder = model::decoder::load(folder, model::quantized_form::dense);
    for (const char* name : {"model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.o_proj",
                             "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"}) {
        INFO(name);
        model::linear& layer = layer_named(decoder, name);
        const std::size_t N = layer.out_features();
        layer.bias = gptq::make_tensor1<float>(N);
        std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
        std::vector<double> squares(count, 0.0);  // of the gradient, for the first token of each window
        for (std::size_t w = 0; w < count; ++w)
            for (std::size_t n = 0; n < N; ++n) {
                constexpr float step = 0.03f;
                const auto two = std::span(windows.tokens).subspan(2 * w, 2);
                layer.bias(n) = step;
                const double above = loss_of_two(decoder, two);
                layer.bias(n) = -step;
                const double slope = (above - loss_of_two(decoder, two)) / (2.0 * step);
                layer.bias(n) = 0.0f;
                squares[w] += slope * slope;
            }
        double mean = 0.0;
        for (const double s : squares) mean += s / (2.0 * count);
        const auto found = weights.of(name);
        REQUIRE(found.size() == 2 * count);
        for (std::size_t w = 0; w < count; ++w) {
            CHECK(found[2 * w] == Approx(0.5 + 0.5 * squares[w] / mean).epsilon(0.02));
            CHECK(found[2 * w + 1] == 0.5f);
        }
    }
    CHECK_THROWS_AS(weights.of("model.layers.7.mlp.up_proj"), gptq::format_error);
}

TEST_CASE("inputs that are weighted give the weighted sums of their products", "[guided]") {
    constexpr std::size_t K = 6, T = 10;
    std::mt19937 random(2);
    matrix<float> X(T, K), states(T, 3);
    std::vector<float> weights(T);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < T * K; ++i) X.data()[i] = normal(random);
    for (std::size_t i = 0; i < T * 3; ++i) states.data()[i] = normal(random);
    for (float& w : weights) w = 0.25f * static_cast<float>(random() % 16);
    model::stage_inputs<float> x;
    x.features = K;
    x.tokens = T;
    x.for_each = [&](const auto& see) {
        for (const auto& [first, last] : {std::pair<std::size_t, std::size_t>{0, 4}, {4, T}})
            see({.inputs = X.view().block(first, last - first, 0, K),
                 .states = states.view().block(first, last - first, 0, 3),
                 .first_token = first});
    };
    const model::cpu_model_backend backend;
    gptq::hessian<float> H(K);
    double sum_of_states = 0.0, expected_states = 0.0;
    model::weighted_inputs(backend, x, weights).for_each([&](const model::paired_inputs<float>& chunk) {
        CHECK(chunk.float_inputs.rows == 0);
        backend.add_tokens(H, chunk.inputs);
        for (std::size_t t = 0; t < chunk.states.rows; ++t) sum_of_states += double{chunk.states(t, 1)};
    });
    CHECK(H.samples() == T);
    for (std::size_t i = 0; i < K; ++i)
        for (std::size_t j = i; j < K; ++j) {
            double sum = 0.0;
            for (std::size_t t = 0; t < T; ++t) sum += double{weights[t]} * double{X(t, i)} * double{X(t, j)};
            CHECK(H.upper()(i, j) == Approx(2.0 / T * sum).margin(1e-5));
        }
    for (std::size_t t = 0; t < T; ++t) expected_states += std::sqrt(double{weights[t]}) * double{states(t, 1)};
    CHECK(sum_of_states == Approx(expected_states).margin(1e-5));
}

TEST_CASE("a guided checkpoint has other codes, and says what made it", "[guided]") {
    const gptq_test::temp_dir dir;
    gptq_test::write_tiny_model(dir.path() / "model");
    const io::model_folder folder(dir.path() / "model");
    model::quantize_model_options options;
    options.config.settings = gptq::settings::best(3);
    options.config.settings.group_size = 32;
    const auto windows = random_windows(8, 32);
    model::quantize_model(folder, dir.path() / "plain", windows, options);
    options.config.settings.guided = true;
    const auto result = model::quantize_model(folder, dir.path() / "guided", windows, options);
    CHECK(std::all_of(result.modules.begin(), result.modules.end(), [](const auto& m) { return m.samples == 256; }));
    const io::model_folder plain(dir.path() / "plain"), guided(dir.path() / "guided");
    for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"}) {
        const std::string codes = std::string(module) + ".qweight";
        CHECK(plain.tensor(codes).bytes.read() != guided.tensor(codes).bytes.read());
    }
    CHECK_FALSE(io::quantization_config::parse(plain)->settings.guided);
    CHECK(io::quantization_config::parse(guided)->settings.guided);

    gptq_test::write_tiny_model(dir.path() / "experts", {.experts = true});
    CHECK_THROWS_AS(
        model::quantize_model(io::model_folder(dir.path() / "experts"), dir.path() / "no", windows, options),
        gptq::unsupported_error);
}
