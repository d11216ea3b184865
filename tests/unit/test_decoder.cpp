// Logits of every architecture against those of transformers, in one go and token by token.
#include <gptq/model/attention.hpp>
#include <gptq/model/decoder.hpp>

#include <filesystem>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"

using gptq::model::decoder;
using gptq::model::kv_cache;
using gptq_test::golden_model;
using gptq_test::relative_difference;

namespace {

decoder load(const std::filesystem::path& folder) {
    const gptq::io::model_folder files(folder);
    return decoder::load(files);
}

/// Expected logits are printed with five decimals.
constexpr double tolerance = 2e-5;

}  // namespace

TEST_CASE("logits equal those of transformers", "[decoder]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const decoder model = load(golden.folder);
        const auto logits = model.logits(golden.logit_ids());
        const auto& rows = golden.expected["logits"];
        REQUIRE(logits.shape()[0] == rows.size());
        double worst = 0.0;
        for (std::size_t t = 0; t < rows.size(); ++t)
            worst =
                std::max(worst, relative_difference(gptq::view_of(logits).row(t), rows[t].get<std::vector<double>>()));
        INFO(name << ": largest relative difference " << worst);
        CHECK(worst < tolerance);
    }
}

TEST_CASE("reading a text in pieces gives the same logits as reading it at once", "[decoder]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const decoder model = load(golden.folder);
        const auto ids = golden.logit_ids();
        const auto& rows = golden.expected["logits"];
        // Pieces shorter and longer than the sliding windows, most of them a single token.
        for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{13}}) {
            kv_cache cache(model.config(), ids.size());
            for (std::size_t first = 0; first < ids.size(); first += piece) {
                const std::size_t count = std::min(piece, ids.size() - first);
                const auto logits = model.append(std::span(ids).subspan(first, count), cache);
                INFO(name << ", pieces of " << piece << ", after token " << first + count - 1);
                // Of some models, the length of the text so far decides how they rotate.
                const auto& by_itself = golden.expected.contains("pieces")
                                            ? golden.expected["pieces"][std::to_string(piece)][first / piece]
                                            : rows[first + count - 1];
                CHECK(relative_difference({logits.data(), logits.size()}, by_itself.get<std::vector<double>>()) <
                      tolerance);
            }
            CHECK(cache.length() == ids.size());
        }
    }
}

TEST_CASE("tiles of queries and keys do not change attention", "[decoder]") {
    // Longer than one tile of 64 queries, with a window shorter and longer than a tile: each token must give the same
    // as when it comes alone.
    const golden_model golden("mistral");
    const gptq::io::model_folder files(golden.folder);
    auto config = gptq::model::read_model_config(files);
    config.blocks = 1;
    config.windows.resize(1);
    config.head_dim = 40;  // vectors of 16, and what is left
    config.attention_scale = 1.0f / std::sqrt(40.0f);
    const std::size_t tokens = 150;
    auto q = gptq::make_tensor2<float>(tokens, config.query_features());
    auto k = gptq::make_tensor2<float>(tokens, config.kv_features());
    auto v = gptq::make_tensor2<float>(tokens, config.kv_features());
    unsigned state = 7;
    for (auto* t : {&q, &k, &v})
        for (float& x : *t) {
            state = state * 1664525u + 1013904223u;
            x = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
        }
    // All tokens; the last of them, more than a whole number of tiles; too few for a tile; one.
    for (const std::size_t queries : {tokens, std::size_t{104}, std::size_t{7}, std::size_t{1}})
        for (const std::size_t window : {std::size_t{0}, std::size_t{5}, std::size_t{64}, std::size_t{100}}) {
            auto out = gptq::make_tensor2<float>(tokens, config.query_features());
            const auto last = [queries](gptq::matrix_view<float> m) {
                return m.block(m.rows - queries, queries, 0, m.cols);
            };
            const gptq::model::attention_shape shape{.heads = config.heads,
                                                     .kv_heads = config.kv_heads,
                                                     .head_dim = config.head_dim,
                                                     .scale = config.attention_scale,
                                                     .span = window,
                                                     .queries = queries,
                                                     .keys = tokens};
            gptq::model::scratch_matrix memory;
            gptq::model::attend(shape, last(gptq::view_of(q)), gptq::view_of(k), gptq::view_of(v), memory,
                                last(gptq::view_of(out)));
            double worst = 0.0;
            for (std::size_t t = tokens - queries; t < tokens; ++t)
                for (std::size_t head = 0; head < config.heads; ++head) {
                    const std::size_t column = head * config.head_dim;
                    const std::size_t kv_column = head / (config.heads / config.kv_heads) * config.head_dim;
                    const std::size_t begin = window != 0 && t + 1 > window ? t + 1 - window : 0;
                    std::vector<double> weights;
                    double sum = 0.0;
                    for (std::size_t s = begin; s <= t; ++s) {
                        double score = 0.0;
                        for (std::size_t i = 0; i < config.head_dim; ++i)
                            score += double{q(t, column + i)} * double{k(s, kv_column + i)};
                        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(config.head_dim))));
                        sum += weights.back();
                    }
                    for (std::size_t i = 0; i < config.head_dim; ++i) {
                        double expected = 0.0;
                        for (std::size_t s = begin; s <= t; ++s)
                            expected += weights[s - begin] / sum * double{v(s, kv_column + i)};
                        worst = std::max(worst, std::abs(expected - double{out(t, column + i)}));
                    }
                }
            INFO(queries << " queries, window " << window << ": largest difference " << worst);
            CHECK(worst < 2e-6);
        }
}

TEST_CASE("exponentials and what is built on them are accurate", "[decoder]") {
    double worst = 0.0;
    for (int i = 0; i <= 86000; ++i) {
        const auto x = static_cast<float>(-0.001 * i);
        const double exact = std::exp(static_cast<double>(x));
        worst = std::max(worst, std::abs(static_cast<double>(gptq::model::exp_nonpositive(x)) - exact) / exact);
    }
    CHECK(worst < 2e-7);
    CHECK(gptq::model::exp_nonpositive(0.0f) == 1.0f);
    CHECK(gptq::model::exp_nonpositive(-INFINITY) < 1e-37f);
    worst = 0.0;
    for (int i = -120000; i <= 120000; ++i) {
        const auto x = static_cast<float>(0.0001 * i);
        const double exact = std::tanh(static_cast<double>(x));
        if (i == 0) continue;
        worst = std::max(worst,
                         std::abs(static_cast<double>(gptq::model::hyperbolic_tangent(x)) - exact) / std::abs(exact));
    }
    CHECK(worst < 3e-7);
    CHECK(gptq::model::hyperbolic_tangent(0.0f) == 0.0f);
    for (const float x : {-30.0f, -1.0f, -0.0f, 0.5f, 3.0f, 40.0f})
        CHECK(gptq::model::sigmoid(x) == Approx(1.0 / (1.0 + std::exp(-static_cast<double>(x)))).epsilon(3e-7));
}

TEST_CASE("tokens and positions that the model does not have are refused", "[decoder]") {
    const decoder llama = load(golden_model("llama").folder);
    CHECK_THROWS_AS(llama.logits(std::vector<std::int32_t>{1, 64}), gptq::shape_error);
    CHECK_THROWS_AS(llama.logits(std::vector<std::int32_t>{-1}), gptq::shape_error);
    CHECK(gptq_test::mentions(gptq_test::message_of([&] {
                                  llama.logits(std::vector<std::int32_t>{1, 64});
                              }),
                              "token 64", "number 1"));
    kv_cache cache(llama.config(), 2);
    CHECK_THROWS_AS(llama.append(std::vector<std::int32_t>{1, 2, 3}, cache), gptq::shape_error);
    CHECK_THROWS_AS(llama.append(std::vector<std::int32_t>{}, cache), gptq::shape_error);

    const decoder opt = load(golden_model("opt").folder);
    CHECK_NOTHROW(opt.logits(std::vector<std::int32_t>(40, 3)));
    CHECK_THROWS_AS(opt.logits(std::vector<std::int32_t>(41, 3)), gptq::shape_error);
}

TEST_CASE("a head of 8 bits changes logits a little", "[decoder]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const gptq::io::model_folder files(golden.folder);
        const auto ids = golden.logit_ids();
        const auto stored = decoder::load(files).logits(ids);
        const auto rounded =
            decoder::load(files, gptq::model::quantized_form::exact, gptq::model::head_form::eight_bits).logits(ids);
        const std::vector<double> expected(stored.begin(), stored.end());
        const double difference = relative_difference({rounded.data(), rounded.size()}, expected);
        INFO(name << ": " << difference);
        CHECK(difference > 0.0);
        CHECK(difference < 0.02);
    }
}
