// Perplexity against transformers.
#include <gptq/io/text.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/model/tokenizer.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
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

namespace {

/// Logits with every weight of a block's linear layers rounded to half first.
gptq::tensor2<float> logits_from_half_weights(const gptq::io::model_folder& files, std::span<const std::int32_t> ids) {
    const decoder model = decoder::load(files);
    const model_config& config = model.config();
    const cpu_model_backend cpu(quantized_form::dense);
    const token_windows window{{ids.begin(), ids.end()}, ids.size()};
    calibration_states states(cpu, config, load_embedding(config, files, cpu), window, false);
    for (std::size_t i = 0; i < config.blocks; ++i) {
        auto weights = load_block(config, files, i, cpu);
        run_block_by_stages(cpu, config, weights, nullptr, i, states, [](stage_modules<linear>& modules, const auto&) {
            for (linear* layer : modules.modules)
                for (float& w : layer->weight) w = gptq::round_to_half(w);
        });
    }
    const auto head = hold_head_inputs(cpu, read_head_inputs(config, weight_reader(files)));
    const auto inputs = compute_head_inputs(cpu, head, config, states.states(0, 0));
    auto logits = gptq::make_tensor2<float>(ids.size(), config.vocab_size);
    model.head(inputs.view(), gptq::view_of(logits));
    return logits;
}

std::string text_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const char* const peers[] = {"gptqmodel-w4g128", "gptqmodel-w4g32act", "gptqmodel-w3g32", "gptqmodel-w8pc"};

}  // namespace

TEST_CASE("checkpoints of GPTQModel give the logits that transformers computes from them", "[perplexity][shared]") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: the folder shared with GPTQModel's checkpoints is not there");
        return;
    }
    for (const auto* name : peers) {
        const auto folder = *shared / "data" / "peers" / name;
        const auto reference = gptq_test::read_json(folder / "reference.json");
        const auto ids = reference["input_ids"].get<std::vector<std::int32_t>>();
        const auto expected = reference["last_logits_first_64"].get<std::vector<double>>();
        const gptq::io::model_folder files(folder);
        INFO(name);

        // GPTQModel rounds what it dequantizes to half, and the reference was computed from that.
        const auto rounded = logits_from_half_weights(files, ids);
        CHECK(gptq_test::relative_difference(gptq::view_of(rounded).row(ids.size() - 1).first(64), expected) < 1e-5);

        // Weights that are not rounded so differ by 2^-12 at most, each by itself.
        const auto dense = decoder::load(files, quantized_form::dense).logits(ids);
        const auto packed = decoder::load(files, quantized_form::exact).logits(ids);
        CHECK(gptq_test::relative_difference(gptq::view_of(packed).row(ids.size() - 1).first(64), expected) < 3e-4);
        for (std::size_t t = 0; t < ids.size(); ++t) {
            const auto row = gptq::view_of(packed).row(t);
            CHECK(std::max_element(row.begin(), row.end()) - row.begin() == reference["argmax"][t]);
            const auto dense_row = gptq::view_of(dense).row(t);
            CHECK(gptq_test::relative_difference(row, {dense_row.begin(), dense_row.end()}) < 1e-5);
        }
    }
}

TEST_CASE("perplexities of small trained models are those of transformers", "[perplexity][shared]") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: the folder shared with trained models and texts is not there");
        return;
    }
    const auto data = *shared / "data";
    const std::string text = text_of(data / "text" / "tinystories-valid-30k.txt");
    struct {
        const char* name;
        double perplexity;
        std::size_t tokens;
    } const measured[] = {{"stories260K", 6.548076290, 15523}, {"tinystories-656k", 39.931977333, 7940}};
    for (const auto& expected : measured) {
        const auto folder = data / expected.name;
        const auto result = evaluate_perplexity(load(folder), tokenizer::load(folder).encode(text), {.seqlen = 512});
        INFO(expected.name);
        CHECK(result.tokens == expected.tokens);
        CHECK(result.perplexity == Approx(expected.perplexity).epsilon(2e-6));
    }
    for (const auto* name : peers) {
        const auto folder = data / "peers" / name;
        const auto reference = gptq_test::read_json(folder / "reference.json");
        auto ids = tokenizer::load(folder).encode(text);
        ids.insert(ids.begin(), 1);  // the reference was measured with one at the beginning of the text
        const auto result = evaluate_perplexity(load(folder), ids, {.seqlen = reference["ctx"]});
        INFO(name);
        CHECK(result.tokens == reference["tokens"]);
        // The reference's weights are rounded to half.
        CHECK(result.perplexity == Approx(reference["perplexity"].get<double>()).epsilon(1e-4));
    }
}

TEST_CASE("inputs rounded to 16 bits change little, to 8 bits more", "[perplexity][shared]") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: the folder shared with GPTQModel's checkpoints is not there");
        return;
    }
    const auto folder = *shared / "data" / "peers" / "gptqmodel-w4g32act";
    const auto ids = gptq_test::read_json(folder / "reference.json")["input_ids"].get<std::vector<std::int32_t>>();
    const gptq::io::model_folder files(folder);
    const auto exact = decoder::load(files, quantized_form::exact).logits(ids);
    const std::vector<double> expected(exact.begin(), exact.end());
    const auto difference = [&](quantized_form form) {
        const auto logits = decoder::load(files, form).logits(ids);
        return gptq_test::relative_difference({logits.data(), logits.size()}, expected);
    };
    const double with_int16 = difference(quantized_form::int16);
    const double with_int8 = difference(quantized_form::int8);
    CHECK(with_int16 > 0.0);
    CHECK(with_int16 < 1e-3);
    CHECK(with_int8 > 4 * with_int16);
    CHECK(with_int8 < 0.1);
}

TEST_CASE("a text begins as the model's tokenizer has it: the perplexities that transformers says",
          "[perplexity][shared]") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: the folder shared with small models is not there");
        return;
    }
    const std::string text = gptq::io::read_text(*shared / "data" / "text" / "tinystories-valid-30k.txt").text;
    const auto folder = *shared / "data" / "tinystories-656k";
    const auto tokens = tokenizer::load(folder);
    const decoder model = decoder::load(gptq::io::model_folder(folder));
    const auto ids = tokens.encode_whole(text);
    CHECK(ids.size() == tokens.encode(text).size() + 1);
    CHECK(ids.front() == tokens.bos_id());
    CHECK(evaluate_perplexity(model, ids, {.seqlen = 512}).perplexity == Approx(36.8972).margin(6e-5));
    CHECK(evaluate_perplexity(model, tokens.encode(text), {.seqlen = 512}).perplexity == Approx(37.2806).margin(6e-5));
    // A text that begins with the token's own text has it already.
    CHECK(tokens.encode_whole(tokens.decode(std::vector{ids.front()}, false) + "x").size() ==
          tokens.encode(tokens.decode(std::vector{ids.front()}, false) + "x").size());
    // Calibration windows, the first of which begins the text.
    using enum special_tokens;
    for (const auto sampling : {window_sampling::first, window_sampling::spread}) {
        const auto whole = calibration_windows(tokens, text, 4, 64, std::nullopt, "text", sampling, as_tokenizer);
        const auto plain = calibration_windows(tokens, text, 4, 64, std::nullopt, "text", sampling, none);
        CHECK(whole.tokens[0] == tokens.bos_id());
        CHECK(std::equal(plain.tokens.begin(), plain.tokens.begin() + 63, whole.tokens.begin() + 1));
        CHECK(std::count(whole.tokens.begin(), whole.tokens.end(), *tokens.bos_id()) ==
              1 + std::count(plain.tokens.begin(), plain.tokens.end(), *tokens.bos_id()));
    }
}
