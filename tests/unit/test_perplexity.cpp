// Perplexity against transformers.
#include <gptq/model/perplexity.hpp>

#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/shared.hpp"

using namespace gptq::model;
using gptq_test::golden_model;

namespace {

decoder load(const std::filesystem::path& folder) {
    const gptq::io::model_folder files(folder);
    return decoder::load(files);
}

}  // namespace

TEST_CASE("perplexity equals that of transformers, with every kind of last window", "[perplexity]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const decoder model = load(golden.folder);
        const auto ids = golden.input_ids();
        for (const auto& expected : golden.expected["perplexity"]) {
            perplexity_options options{.seqlen = expected["seqlen"]};
            if (!expected["bos"].is_null()) options.bos = expected["bos"].get<std::int32_t>();
            const auto result = evaluate_perplexity(model, std::span(ids).first(expected["given"]), options);
            INFO(name << ", windows of " << options.seqlen);
            CHECK(result.tokens == expected["tokens"]);
            CHECK(result.nll == Approx(expected["nll"].get<double>()).epsilon(1e-5));
            CHECK(result.perplexity == Approx(expected["perplexity"].get<double>()).epsilon(1e-4));
            CHECK(result.seconds > 0.0);
        }
    }
}

TEST_CASE("evaluation reports its progress and can be stopped", "[perplexity]") {
    const golden_model golden("llama");
    const decoder model = load(golden.folder);
    std::vector<std::size_t> done;
    const auto watch = [&](std::size_t windows, std::size_t total) {
        CHECK(total == 4);
        done.push_back(windows);
        if (windows == 2) throw gptq::cancelled("stopped");
    };
    CHECK_THROWS_AS(evaluate_perplexity(model, golden.input_ids(), {.seqlen = 10}, watch), gptq::cancelled);
    CHECK(done == std::vector<std::size_t>{1, 2});
}

TEST_CASE("texts with nothing to score are refused", "[perplexity]") {
    const decoder model = load(golden_model("llama").folder);
    CHECK_THROWS_AS(evaluate_perplexity(model, std::vector<std::int32_t>{}), gptq::shape_error);
    CHECK_THROWS_AS(evaluate_perplexity(model, std::vector<std::int32_t>{5}), gptq::shape_error);
    CHECK_THROWS_AS(evaluate_perplexity(model, std::vector<std::int32_t>{5, 6}, {.seqlen = 1}), gptq::shape_error);
    CHECK(evaluate_perplexity(model, std::vector<std::int32_t>{5, 6}).tokens == 1);
}
