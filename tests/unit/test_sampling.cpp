// The filters of sampling against their definitions, taken word by word.
#include <gptq/error.hpp>
#include <gptq/model/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace gptq::model;

namespace {

std::vector<float> random_logits(std::mt19937_64& random, std::size_t count) {
    std::vector<float> logits(count);
    // Some of them equal, as half precision makes them.
    for (float& logit : logits) logit = static_cast<float>(static_cast<int>(random() % 64) - 32) / 4.0f;
    return logits;
}

std::vector<double> softmax_of(const std::vector<double>& scores) {
    std::vector<double> p(scores.size());
    double sum = 0.0;
    for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(scores[i]);
    for (double& x : p) x /= sum;
    return p;
}

/// How many tokens are strictly more likely.
std::size_t better(const std::vector<double>& scores, std::size_t i) {
    return static_cast<std::size_t>(
        std::count_if(scores.begin(), scores.end(), [&](double other) { return other > scores[i]; }));
}

bool ruled_out(double score) { return std::isinf(score) && score < 0.0; }

}  // namespace

TEST_CASE("top-k keeps tokens that fewer than k are more likely than", "[sampling]") {
    std::mt19937_64 random(1);
    for (const std::size_t k : {1u, 2u, 5u, 30u, 31u, 100u}) {
        const auto logits = random_logits(random, 31);
        const std::vector<double> all(logits.begin(), logits.end());
        const auto scores = sampling_scores(logits, {.temperature = 0.7, .top_k = k});
        for (std::size_t i = 0; i < all.size(); ++i) CHECK(ruled_out(scores[i]) == (better(all, i) >= k));
    }
}

TEST_CASE("top-p keeps the fewest most likely tokens that make up p", "[sampling]") {
    std::mt19937_64 random(2);
    for (const double p : {0.0, 0.1, 0.5, 0.9, 0.99}) {
        const double temperature = 1.5;
        const auto logits = random_logits(random, 40);
        std::vector<double> scaled(logits.begin(), logits.end());
        for (double& x : scaled) x /= temperature;
        const auto probabilities = softmax_of(scaled);
        const auto scores = sampling_scores(logits, {.temperature = temperature, .top_p = p});
        double kept = 0.0, least = 1.0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            if (ruled_out(scores[i])) continue;
            kept += probabilities[i];
            least = std::min(least, probabilities[i]);
        }
        CHECK(kept >= p - 1e-9);
        CHECK(kept - least < p + 1e-9);
        for (std::size_t i = 0; i < scores.size(); ++i)
            if (ruled_out(scores[i])) CHECK(probabilities[i] <= least);
    }
}

TEST_CASE("min-p keeps tokens of a part of the greatest probability", "[sampling]") {
    std::mt19937_64 random(3);
    for (const double p : {0.0, 0.03, 0.4, 1.0}) {
        const auto logits = random_logits(random, 25);
        const auto probabilities = softmax_of(std::vector<double>(logits.begin(), logits.end()));
        const double top = *std::max_element(probabilities.begin(), probabilities.end());
        const auto scores = sampling_scores(logits, {.temperature = 1.0, .min_p = p});
        for (std::size_t i = 0; i < scores.size(); ++i)
            CHECK(ruled_out(scores[i]) == (probabilities[i] < p * top * (1.0 - 1e-12)));
    }
}

TEST_CASE("filters follow one another: top-p counts what top-k left", "[sampling]") {
    // Probabilities 0.4, 0.3, 0.2, 0.1; of the two likeliest alone, 0.57 and 0.43.
    const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
    const auto without = sampling_scores(logits, {.temperature = 1.0, .top_p = 0.5});
    const auto with = sampling_scores(logits, {.temperature = 1.0, .top_k = 2, .top_p = 0.5});
    CHECK_FALSE(ruled_out(without[1]));
    CHECK(ruled_out(with[1]));
}

TEST_CASE("a repetition penalty changes tokens of the text once each", "[sampling]") {
    const std::vector<float> logits = {2.0f, -1.0f, 3.0f, 0.0f};
    const std::vector<std::int32_t> seen = {2, 1, 2, 2};
    const auto scores = sampling_scores(logits, {.repetition_penalty = 2.0}, seen);
    CHECK(scores == std::vector<double>{2.0, -2.0, 1.5, 0.0});
    std::mt19937_64 random;
    CHECK(choose_token(logits, {.repetition_penalty = 2.0}, seen, random) == 0);
    CHECK(choose_token(logits, {.repetition_penalty = 1.2}, seen, random) == 2);
}

TEST_CASE("tokens that are ruled out are never drawn, the others by their probabilities", "[sampling]") {
    const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f};
    std::mt19937_64 random(5);
    std::vector<double> count(4, 0.0);
    const int draws = 20000;
    for (int i = 0; i < draws; ++i)
        count[static_cast<std::size_t>(choose_token(logits, {.temperature = 1.0, .top_k = 2}, {}, random))] += 1.0;
    CHECK(count[1] + count[3] == 0.0);
    const double p = 1.0 / (1.0 + std::exp(-1.0));
    CHECK(std::abs(count[2] / draws - p) < 5.0 * std::sqrt(p * (1.0 - p) / draws));
}

TEST_CASE("settings of sampling that mean nothing are refused", "[sampling]") {
    for (const sampling_options& wrong :
         {sampling_options{.temperature = -1.0}, sampling_options{.top_p = 1.5}, sampling_options{.top_p = NAN},
          sampling_options{.min_p = -0.1}, sampling_options{.repetition_penalty = 0.0}})
        CHECK_THROWS_AS(sampling_scores(std::vector<float>{1.0f}, wrong), gptq::unsupported_error);
}
