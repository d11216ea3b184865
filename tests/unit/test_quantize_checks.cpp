// What is known before a quantization begins: memory, and scales that halves cannot hold.
#include <gptq/model/quantize_checks.hpp>

#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"

namespace model = gptq::model;
using gptq_test::mentions;
using gptq_test::message_of;

namespace {

model::model_config llama_3_8b() {
    return model::parse_model_config({{"model_type", "llama"},
                                      {"vocab_size", 128256},
                                      {"hidden_size", 4096},
                                      {"intermediate_size", 14336},
                                      {"num_hidden_layers", 32},
                                      {"num_attention_heads", 32},
                                      {"num_key_value_heads", 8}});
}

model::quantization_plan plan_of(const model::model_config& config) {
    model::quantization_plan plan{model::detail::model_stages(config, false), {}};
    for (model::stage_plan& stage : plan.stages) stage.settings = gptq::quantize_settings{};
    return plan;
}

}  // namespace

TEST_CASE("the memory of a run is known before it", "[checks]") {
    const auto config = llama_3_8b();
    const auto estimate = model::estimate_memory(config, plan_of(config), false);
    // The states, the input of a branch and the MLP's inside of each token: 4 * (2 * 4096 + 14336) bytes.
    CHECK(estimate.per_token == 90112.0);
    // An embedding of 128256 * 4096, a block of 218 million weights, three matrices of 14336 * 14336, all in float.
    CHECK(estimate.fixed == Approx(4.0 * (525336576.0 + 218103808.0 + 3.0 * 205520896.0)));

    CHECK(estimate.states == 4.0 * 4096.0);
    constexpr std::size_t tokens = 128 * 2048;
    CHECK(estimate.total(tokens) > 28e9);
    CHECK(estimate.total(tokens) < 30e9);
    CHECK(model::available_memory() > 1e6);
}

TEST_CASE("a budget decides what is kept, what is computed twice and what goes to a file", "[checks]") {
    // 10 chunks of 2 tokens, of which each takes 10 bytes if it is kept and 4 as states; 100 bytes for the rest.
    const model::memory_estimate estimate{100.0, 5.0, 2.0};
    const auto use = [&](double budget, bool asked = true) {
        return model::plan_memory(estimate, 20, 2, budget, asked);
    };
    CHECK(use(200.0).places.kept == 10);
    CHECK(use(200.0).file_bytes == 0);
    // The chunk in hand takes 10 bytes, ten of states 40; 12 more keep two chunks.
    CHECK(use(162.0).places.kept == 2);
    CHECK(use(162.0).places.held == 8);
    CHECK(use(150.0).places.kept == 0);
    CHECK(use(150.0).places.held == 10);
    CHECK(use(149.0).places.held == 9);
    CHECK(use(149.0).file_bytes == 4);
    CHECK(use(110.0).places.held == 0);
    CHECK(use(110.0).file_bytes == 40);
    CHECK(mentions(message_of([&] { use(109.0); }), "--memory"));

    const auto large = [&](double budget, bool asked) {
        return model::plan_memory({2e9, 1e6, 1e5}, 10000, 1000, budget, asked).warning;
    };
    CHECK(large(12e9, false).empty());
    CHECK(large(4e9, true).empty());
    CHECK(mentions(large(4e9, false), "12 GB", "4 GB", "computed twice"));
    CHECK(mentions(large(3.5e9, false), "OUT.partial", "500 MB"));
    CHECK(mentions(large(2.5e9, false), "at least", "3 GB", "2.5 GB"));
    CHECK(mentions(message_of([&] { large(1.9e9, false); }), "at least"));
}

TEST_CASE("scales at the limits of halves", "[checks]") {
    model::module_plan module{"model.layers.0.mlp.up_proj", "mlp.up_proj", 2, 4};
    gptq::quantize_settings settings;
    settings.bits = 4;
    const auto check = [&](float first, float second) {
        auto weight = gptq::make_tensor2<float>(2, 4);
        for (std::size_t i = 0; i < 4; ++i) weight(0, i) = first, weight(1, i) = second;
        model::detail::scale_check scales(module, settings);
        scales.add(0, gptq::view_of(weight));
        scales.finish();
    };
    const auto refusal = [&](float first, float second) { return message_of([&] { check(first, second); }); };
    // A symmetric scale of 4 bits is 2 |w| / 15, and the largest half is 65504.
    CHECK_NOTHROW(check(1.0f, 491279.0f));
    CHECK(mentions(refusal(1.0f, 491400.0f), module.name, "row 1", "too large"));
    CHECK(mentions(refusal(1e-7f, 1e-7f), module.name, "too small"));
    // A row that hardly counts may vanish, and one of zeros always.
    CHECK_NOTHROW(check(1.0f, 1e-7f));
    CHECK_NOTHROW(check(0.0f, 0.0f));
}
