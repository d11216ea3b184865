// Decoders whose layers somebody makes: the pipeline around them is that of quantize_model.
#include <gptq/model/quantize_in_memory.hpp>
#include <gptq/model/quantize_model.hpp>

#include <set>
#include <string>
#include <variant>
#include <vector>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

using namespace gptq::model;

namespace {

struct scene {
    gptq_test::temp_dir temporary;
    token_windows windows{{}, 32};

    scene() {
        gptq_test::write_tiny_model(temporary.path() / "source", {.hidden = 32, .intermediate = 64, .heads = 2});
        const std::string text = gptq_test::some_text(8 * windows.length);
        windows.tokens.assign(text.begin(), text.end());
    }
    gptq::io::model_folder source() const { return gptq::io::model_folder(temporary.path() / "source"); }
};

std::vector<float> numbers(const gptq::tensor2<float>& m) { return {m.begin(), m.end()}; }
const std::vector<std::int32_t> ids{5, 77, 3, 200};

}  // namespace

TEST_CASE("layers that nobody makes stay as they are", "[memory]") {
    const scene s;
    std::set<std::string> seen;
    const auto model = quantize_in_memory(s.source(), s.windows, [&](const std::string& name, auto W, const auto& H) {
        CHECK(seen.insert(name).second);
        CHECK(W.cols == H.in_features());
        CHECK(H.samples() == s.windows.tokens.size());
        return made_layer();
    });
    CHECK(seen.size() == 2 * 7);
    CHECK(numbers(model.logits(ids)) == numbers(decoder::load(s.source()).logits(ids)));
}

TEST_CASE("GPTQ's codes made one by one are those that quantize_model writes", "[memory]") {
    const scene s;
    using w4 = gptq::scheme<4, gptq::group_size<32>, gptq::symmetric, gptq::natural_order>;
    const auto model = quantize_in_memory(
        s.source(), s.windows, [](const std::string&, gptq::matrix_view<const float> W, const gptq::hessian<float>& H) {
            return made_layer(gptq::quantized_layer(gptq::quantize<w4>(W, H, {.damp_percent = 0.01})));
        });
    quantize_model_options options;
    options.config.settings = gptq::settings::paper(4);
    options.config.settings.sym = true;
    options.config.settings.group_size = 32;
    quantize_model(s.source(), s.temporary.path() / "out", s.windows, options);
    const auto written = decoder::load(gptq::io::model_folder(s.temporary.path() / "out"));
    CHECK(numbers(model.logits(ids)) == numbers(written.logits(ids)));
}

TEST_CASE("layers that do not fit are refused by name", "[memory]") {
    const scene s;
    const auto refused = [&](std::size_t rows, float value) {
        return gptq_test::message_of([&] {
            quantize_in_memory(s.source(), s.windows, [&](const std::string&, auto W, const auto&) {
                auto made = gptq::make_tensor2<float>(rows, W.cols);
                std::fill(made.begin(), made.end(), value);
                return made_layer(table(std::move(made)));
            });
        });
    };
    CHECK(gptq_test::mentions(refused(3, 0.0f), "model.layers.0.self_attn.q_proj", "was made [3, 32]"));
    CHECK(gptq_test::mentions(refused(32, NAN), "model.layers.0.self_attn.q_proj"));
}
