// Greedy generation against transformers, and the distribution of sampled tokens.
#include <gptq/model/generate.hpp>

#include <cmath>
#include <map>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"

using namespace gptq::model;
using gptq_test::golden_model;

namespace {

decoder load(const std::filesystem::path& folder) {
    const gptq::io::model_folder files(folder);
    return decoder::load(files);
}

}  // namespace

TEST_CASE("greedy generation takes the tokens that transformers takes", "[generate]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const decoder model = load(golden.folder);
        const auto expected = golden.expected["generated"].get<std::vector<std::int32_t>>();
        std::mt19937_64 random(1);
        std::vector<std::int32_t> told;
        const auto generated = generate(model, golden.logit_ids(), {.max_tokens = expected.size()}, random,
                                        [&](std::int32_t id) { told.push_back(id); });
        INFO(name);
        CHECK(generated == expected);
        CHECK(told == expected);
        CHECK(random == std::mt19937_64(1));
    }
}

TEST_CASE("generation ends at a stop token", "[generate]") {
    const golden_model golden("llama");
    const decoder model = load(golden.folder);
    const auto expected = golden.expected["generated"].get<std::vector<std::int32_t>>();
    const auto stop = expected[4];
    const auto first = std::find(expected.begin(), expected.end(), stop);
    std::mt19937_64 random;
    const auto generated = generate(model, golden.logit_ids(), {.max_tokens = 12, .stop_tokens = {63, stop}}, random);
    CHECK(generated == std::vector<std::int32_t>(expected.begin(), first));
    CHECK(generate(model, golden.logit_ids(), {.max_tokens = 0}, random).empty());
}

TEST_CASE("sampled tokens follow the softmax of logits over temperature", "[generate]") {
    const std::vector<float> logits = {1.0f, -1.0f, 2.0f, 0.0f};
    const double temperature = 1.5;
    double sum = 0.0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l) / temperature);
    std::mt19937_64 random(42);
    std::vector<double> count(logits.size(), 0.0);
    const int draws = 40000;
    for (int i = 0; i < draws; ++i) count[static_cast<std::size_t>(choose_token(logits, temperature, random))] += 1.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const double p = std::exp(static_cast<double>(logits[i]) / temperature) / sum;
        // Five standard deviations.
        CHECK(std::abs(count[i] / draws - p) < 5.0 * std::sqrt(p * (1.0 - p) / draws));
    }
    std::mt19937_64 again(7), same(7);
    for (int i = 0; i < 20; ++i)
        CHECK(choose_token(logits, temperature, again) == choose_token(logits, temperature, same));
}

TEST_CASE("temperature 0 takes the first of equal logits; nonsense is refused", "[generate]") {
    std::mt19937_64 random;
    CHECK(choose_token(std::vector<float>{0.0f, 3.0f, 3.0f}, 0.0, random) == 1);
    CHECK(choose_token(std::vector<float>{0.0f, 3.0f, 3.1f}, 1e-6, random) == 2);
    CHECK_THROWS_AS(choose_token(std::vector<float>{0.0f, NAN}, 0.0, random), gptq::non_finite_error);
    CHECK_THROWS_AS(choose_token(std::vector<float>{0.0f, INFINITY}, 1.0, random), gptq::non_finite_error);
    CHECK_THROWS_AS(choose_token(std::vector<float>{0.0f}, -1.0, random), gptq::unsupported_error);
    CHECK_THROWS_AS(choose_token(std::vector<float>{0.0f}, std::nan(""), random), gptq::unsupported_error);
}
