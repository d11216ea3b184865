// The runner that calibration uses: what it shows at each stage, and that it computes nothing else than the decoder.
#include <gptq/model/decoder.hpp>
#include <gptq/model/stages.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"

using namespace gptq::model;
using gptq_test::golden_model;
using gptq_test::relative_difference;

namespace {

using activations = activations_of<cpu_model_backend>;
using block = block_of<cpu_model_backend>;
using modules_here = stage_modules<linear>;
const cpu_model_backend cpu(quantized_form::dense);

activations embedded(const gptq::io::model_folder& files, std::span<const std::int32_t> ids, std::size_t window) {
    const model_config config = read_model_config(files);
    return embed(cpu, config, load_embedding(config, files, cpu), ids, window);
}

/// All blocks of a model over all windows.
template <class OnStage>
activations run_all(const gptq::io::model_folder& files, std::span<const std::int32_t> ids, std::size_t window,
                    OnStage&& on_stage) {
    const model_config config = read_model_config(files);
    activations hidden = embedded(files, ids, window);
    for (std::size_t i = 0; i < config.blocks; ++i) {
        block weights = load_block(config, files, i, cpu);
        run_block_by_stages(cpu, config, weights, i, hidden,
                            [&](modules_here& modules, const auto& x) { on_stage(i, modules, x.inputs); });
    }
    return hidden;
}

std::vector<float> values_of(const activations& hidden) {
    const float* first = hidden.states.data();
    return {first, first + hidden.states.rows() * hidden.states.cols()};
}

/// A golden model, ready to run its blocks on the tokens of its logits.
struct scene {
    golden_model golden;
    gptq::io::model_folder files;
    model_config config;
    std::vector<std::int32_t> ids;
    activations start;

    explicit scene(const std::string& name)
        : golden(name),
          files(golden.folder),
          config(read_model_config(files)),
          ids(golden.logit_ids()),
          start(embedded(files, ids, ids.size())) {}
    block load() const { return load_block(config, files, 0, cpu); }
};

void ignore(std::size_t, modules_here&, gptq::matrix_view<const float>) {}

}  // namespace

TEST_CASE("the inputs of each stage are those that transformers' linear layers see", "[stages]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const gptq::io::model_folder files(golden.folder);
        const auto ids = golden.logit_ids();
        const auto& expected = golden.expected["stage_inputs"];
        std::size_t seen = 0;
        run_all(files, ids, ids.size(), [&](std::size_t index, modules_here& modules, auto inputs) {
            if (index != golden.expected["stage_block"]) return;
            INFO(name << ": " << modules.names[0]);
            if (seen == expected.size()) return;  // what comes to experts is not among the expected
            REQUIRE(inputs.rows == ids.size());
            CHECK(relative_difference(inputs.row(inputs.rows - 1), expected[seen].template get<std::vector<double>>()) <
                  2e-5);
            ++seen;
        });
        CHECK(seen == expected.size());
    }
}

TEST_CASE("stages come in order, each module once, under the names of the files", "[stages]") {
    using names = std::vector<std::string>;
    std::vector<names> seen;
    const golden_model llama("llama");
    run_all(gptq::io::model_folder(llama.folder), llama.logit_ids(), 10,
            [&](std::size_t index, modules_here& modules, auto inputs) {
                CHECK(modules.modules.size() == modules.names.size());
                CHECK(modules.modules[0]->in_features() == inputs.cols);
                if (index == 2) seen.push_back(modules.names);
            });
    const std::string prefix = "model.layers.2.";
    CHECK(seen ==
          std::vector<names>{{prefix + "self_attn.q_proj", prefix + "self_attn.k_proj", prefix + "self_attn.v_proj"},
                             {prefix + "self_attn.o_proj"},
                             {prefix + "mlp.gate_proj", prefix + "mlp.up_proj"},
                             {prefix + "mlp.down_proj"}});

    seen.clear();
    const golden_model opt("opt");
    run_all(gptq::io::model_folder(opt.folder), opt.logit_ids(), 10,
            [&](std::size_t index, modules_here& modules, auto) {
                if (index == 0) seen.push_back(modules.names);
            });
    const std::string opt_prefix = "model.decoder.layers.0.";
    CHECK(seen == std::vector<names>{{opt_prefix + "self_attn.q_proj", opt_prefix + "self_attn.k_proj",
                                      opt_prefix + "self_attn.v_proj"},
                                     {opt_prefix + "self_attn.out_proj"},
                                     {opt_prefix + "fc1"},
                                     {opt_prefix + "fc2"}});
}

TEST_CASE("windows do not see each other", "[stages]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const gptq::io::model_folder files(golden.folder);
        auto ids = golden.logit_ids();
        const std::size_t window = ids.size() / 2;
        const auto both = run_all(files, ids, window, ignore);
        CHECK(both.states.rows() == 2 * window);
        const auto second = run_all(files, std::span(ids).subspan(window), window, ignore);
        // The last block's states, through the norm and the head, are the decoder's logits for the second window.
        const auto model = decoder::load(files);
        const auto config = model.config();
        const auto head = hold_head_inputs(cpu, read_head_inputs(config, weight_reader(files)));
        const auto head_states = compute_head_inputs(cpu, head, config, second.states.view());
        auto logits = gptq::make_tensor2<float>(window, config.vocab_size);
        model.head(head_states.view(), gptq::view_of(logits));
        const auto expected = model.logits(std::span(ids).subspan(window));
        INFO(name);
        for (std::size_t t = 0; t < window; ++t) {
            const auto row = second.states.view().row(t);
            CHECK(relative_difference(both.states.view().row(window + t), std::vector<double>(row.begin(), row.end())) <
                  1e-5);
            const auto logit_row = gptq::view_of(expected).row(t);
            CHECK(relative_difference(gptq::view_of(logits).row(t),
                                      std::vector<double>(logit_row.begin(), logit_row.end())) < 1e-5);
        }
    }
}

TEST_CASE("a stage's outputs are computed with the weights that the stage left", "[stages]") {
    for (const auto& name : {"llama3", "gemma3", "opt-projected"}) {
        const scene s(name);
        const auto change = [](linear& layer) {
            for (std::size_t n = 0; n < layer.out_features(); ++n)
                for (std::size_t k = 0; k < layer.in_features(); ++k)
                    layer.weight(n, k) *= 0.5f + 0.1f * static_cast<float>((n + k) % 7);
        };
        for (std::size_t which = 0; which < 4; ++which) {
            // Changed when the stage comes up ...
            block first = s.load();
            activations changed_on_the_way = s.start;
            std::size_t stage_number = 0;
            run_block_by_stages(cpu, s.config, first, 0, changed_on_the_way, [&](modules_here& modules, const auto&) {
                if (stage_number++ == which)
                    for (linear* layer : modules.modules) change(*layer);
            });
            // ... and before the block runs at all.
            block second = s.load();
            for (linear* layer : modules_of(second, which).modules) change(*layer);
            activations changed_before = s.start;
            run_block_by_stages(cpu, s.config, second, 0, changed_before, [](modules_here&, const auto&) {});
            block third = s.load();
            activations unchanged = s.start;
            run_block_by_stages(cpu, s.config, third, 0, unchanged, [](modules_here&, const auto&) {});
            INFO(name << ", stage " << which);
            CHECK(values_of(changed_on_the_way) == values_of(changed_before));
            CHECK(values_of(changed_on_the_way) != values_of(unchanged));
        }
    }
}

TEST_CASE("tokens that do not fill the windows are refused", "[stages]") {
    const golden_model golden("llama");
    const gptq::io::model_folder files(golden.folder);
    CHECK_THROWS_AS(embedded(files, golden.logit_ids(), 7), gptq::shape_error);
    CHECK_THROWS_AS(embedded(files, golden.logit_ids(), 0), gptq::shape_error);
}

TEST_CASE("a block beside its float twin sees both inputs, and the states that outputs are added to", "[stages]") {
    for (const auto& name : {"llama3", "gemma3", "opt-projected"}) {
        const scene s(name);
        activations alone = s.start, hidden = alone, twin = alone;
        block weights = s.load();
        const block float_weights = weights;
        std::vector<std::vector<float>> float_inputs;
        block unchanged = weights;
        run_block_by_stages(cpu, s.config, unchanged, 0, alone, [&](modules_here&, const paired_inputs<float>& paired) {
            const auto x = paired.inputs;
            float_inputs.emplace_back(x.row(x.rows - 1).begin(), x.row(x.rows - 1).end());
        });
        std::size_t stage_number = 0;
        run_block_beside_float(cpu, s.config, weights, float_weights, 0, hidden, twin,
                               [&](modules_here& modules, const paired_inputs<float>& paired) {
                                   INFO(name << ", stage " << stage_number);
                                   const auto x = paired.inputs, y = paired.float_inputs;
                                   const auto last = y.row(y.rows - 1);
                                   CHECK(std::vector<float>(last.begin(), last.end()) == float_inputs.at(stage_number));
                                   const bool first = stage_number == 0;
                                   const auto own = x.row(x.rows - 1);
                                   CHECK(std::equal(own.begin(), own.end(), last.begin()) == first);
                                   const bool branch_end = stage_number % 2 == 1;
                                   const bool plain_sum = std::string(name) == "llama3";
                                   CHECK((paired.states.rows != 0) == (branch_end && plain_sum));
                                   // From here on the block differs from its twin.
                                   for (linear* layer : modules.modules)
                                       for (float& w : layer->weight) w *= 0.9f;
                                   ++stage_number;
                               });
        CHECK(stage_number == 4);
        CHECK(values_of(twin) == values_of(alone));
        CHECK(values_of(hidden) != values_of(alone));
    }
}
