// What describe_block says of each kind of block, and that quantizing a layer of several parts leaves a model that runs.
#include <gptq/model/block_description.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/quantize_model.hpp>

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/temp_dir.hpp"

using namespace gptq::model;
using gptq_test::golden_model;

namespace {

using names = std::vector<std::string>;

block_description block_of_model(const std::string& name, std::size_t index) {
    return describe_block(read_model_config(gptq::io::model_folder(golden_model(name).folder)), index);
}

/// The modules of each site, without the prefix of the block.
std::vector<names> sites_of(const block_description& block) {
    std::vector<names> sites;
    for (const block_site& site : block.sites) {
        sites.emplace_back();
        for (const block_module& m : site.modules) sites.back().push_back(m.name);
    }
    return sites;
}

}  // namespace

TEST_CASE("blocks of one build have four sites, by the names of their files", "[block]") {
    CHECK(sites_of(block_of_model("llama", 1)) ==
          std::vector<names>{{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
                             {"self_attn.o_proj"},
                             {"mlp.gate_proj", "mlp.up_proj"},
                             {"mlp.down_proj"}});
    CHECK(sites_of(block_of_model("phi3", 1)) ==
          std::vector<names>{{"self_attn.qkv_proj"}, {"self_attn.o_proj"}, {"mlp.gate_up_proj"}, {"mlp.down_proj"}});
    CHECK(sites_of(block_of_model("opt", 0)).at(2) == names{"fc1"});
    CHECK(block_of_model("opt", 2).prefix == "model.decoder.layers.2.");
}

TEST_CASE("every expert has sites of its own, the shared one the last, and a block may have none", "[block]") {
    const block_description plain = block_of_model("qwen2-moe", 1), experts = block_of_model("qwen2-moe", 2);
    CHECK(plain.sites.size() == 4);
    CHECK(!plain.router);
    REQUIRE(experts.sites.size() == 2 + 2 * 5 + 2);
    REQUIRE(experts.router);
    CHECK(experts.router->shared_gate == "mlp.shared_expert_gate");
    CHECK(sites_of(experts).at(4) == names{"mlp.experts.1.gate_proj", "mlp.experts.1.up_proj"});
    CHECK(experts.sites[4].expert == 1);
    CHECK(sites_of(experts).back() == names{"mlp.shared_expert.down_proj"});
    CHECK(!experts.sites.back().expert);
    CHECK(sites_of(block_of_model("mixtral", 0)).at(3) == names{"block_sparse_moe.experts.0.w2"});
}

TEST_CASE("the layers of a site write all of its parts, one after the other, and steps run all sites", "[block]") {
    for (const std::string& name : gptq_test::golden_model_names) {
        const auto config = read_model_config(gptq::io::model_folder(golden_model(name).folder));
        for (std::size_t i = 0; i < config.blocks; ++i) {
            const block_description block = describe_block(config, i);
            INFO(name << ", block " << i);
            std::size_t next_site = 0;
            for (const block_step& step : block.steps) {
                CHECK(step.first_site == next_site);
                next_site += step.sites;
            }
            CHECK(next_site == block.sites.size());
            for (const block_site& site : block.sites) {
                std::size_t written = 0, features = 0;
                for (const block_module& m : site.modules) {
                    CHECK(m.first_output == written);
                    CHECK(m.in_features == site.in_features());
                    written += m.out_features;
                }
                for (const std::size_t part : site.parts) features += part;
                CHECK(written == features);
            }
        }
    }
}

TEST_CASE("layers of several parts, and experts, are quantized and run from their codes", "[block]") {
    for (const std::string name : {"phi3", "mixtral", "granite", "phi", "smollm3", "olmo2"}) {
        const golden_model golden(name);
        const gptq::io::model_folder source(golden.folder);
        const gptq_test::temp_dir temporary;
        quantize_model_options options;
        options.config.settings = gptq::settings::paper(8);
        options.config.settings.sym = true;
        options.config.format = gptq::io::checkpoint_format::compressed_tensors;  // for layers of any size
        token_windows windows{golden.input_ids(), 11};
        quantize_model(source, temporary.path() / "out", windows, options);
        const gptq::io::model_folder out(temporary.path() / "out");
        if (name == "phi3") CHECK(out.contains("model.layers.0.self_attn.qkv_proj.weight_packed"));
        const auto expected = decoder::load(source).logits(windows.tokens);
        const auto found = decoder::load(out).logits(windows.tokens);
        double difference = 0.0, energy = 0.0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            difference += std::pow(double{found.data()[i]} - double{expected.data()[i]}, 2);
            energy += std::pow(double{expected.data()[i]}, 2);
        }
        INFO(name << ": " << difference / energy);
        CHECK(difference < 0.01 * energy);
        CHECK(difference > 0.0);
    }
}
