// What a decoder shows of its way, beside what transformers' layers read.
#include <gptq/model/decoder.hpp>

#include <map>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"

using namespace gptq::model;
using gptq_test::relative_difference;

namespace {

std::map<std::string, gptq::matrix<float>> observed(const decoder& model, const std::vector<std::int32_t>& ids,
                                                    const std::vector<std::string>& names) {
    std::map<std::string, gptq::matrix<float>> found;
    model.observe(ids, names, [&](const std::string& name, gptq::matrix_view<const float> values) {
        gptq::matrix<float> copy(values.rows, values.cols);
        for (std::size_t r = 0; r < values.rows; ++r)
            for (std::size_t c = 0; c < values.cols; ++c) copy(r, c) = values(r, c);
        CHECK(found.emplace(name, std::move(copy)).second);
    });
    return found;
}

}  // namespace

TEST_CASE("all that can be observed comes once, and is what transformers computes", "[observe]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const gptq_test::golden_model golden(name);
        const decoder model = decoder::load(gptq::io::model_folder(golden.folder));
        const model_config& config = model.config();
        const auto ids = golden.logit_ids();
        const auto names = observable_names(config);
        const auto found = observed(model, ids, names);
        INFO(name);
        CHECK(found.size() == names.size());
        const auto index = golden.expected["stage_block"].get<std::size_t>();
        const block_description block = describe_block(config, index);
        const auto& expected = golden.expected["stage_inputs"];
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const auto& inputs = found.at(block.full_name(block.sites[i].modules.back()) + ".input");
            CHECK(relative_difference(inputs.view().row(ids.size() - 1), expected[i].get<std::vector<double>>()) <
                  2e-5);
        }
        const auto& last = golden.expected["logits"].back();
        CHECK(relative_difference(found.at("logits").view().row(ids.size() - 1), last.get<std::vector<double>>()) <
              2e-5);
    }
}

TEST_CASE("the states after a block are what its layers added up to", "[observe]") {
    // The norm of the last block's states is what the head reads.
    const gptq_test::golden_model golden("llama");
    const gptq::io::model_folder files(golden.folder);
    const decoder model = decoder::load(files);
    const std::string last = model.config().block_prefix(model.config().blocks - 1) + "output";
    const auto found = observed(model, golden.logit_ids(), {last, "lm_head.input"});
    REQUIRE(found.size() == 2);
    const auto head = read_head_inputs(model.config(), weight_reader(files));
    gptq::matrix<float> normed(found.at(last).rows(), found.at(last).cols());
    normalize(*head.norm, found.at(last).view(), normed.view());
    for (std::size_t i = 0; i < normed.rows() * normed.cols(); ++i)
        CHECK(normed.data()[i] == found.at("lm_head.input").data()[i]);
}

TEST_CASE("a name that is none tells which there are", "[observe]") {
    const gptq_test::golden_model golden("llama");
    const decoder model = decoder::load(gptq::io::model_folder(golden.folder));
    CHECK(gptq_test::mentions(gptq_test::message_of([&] {
                                  observed(model, {1, 2}, {"logits", "model.norm"});
                              }),
                              "\"model.norm\"", "model.layers.0.self_attn.q_proj.input", "model.layers.0.output",
                              "lm_head.input", "logits"));
}
