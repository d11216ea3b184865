// The runner that calibration uses: what it shows at each stage, and that it computes nothing else than the decoder.
#include <gptq/model/decoder.hpp>
#include <gptq/model/stages.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/temp_dir.hpp"

using namespace gptq::model;
using gptq_test::golden_model;
using gptq_test::relative_difference;

namespace {

using block = block_of<cpu_model_backend>;
using states_here = calibration_states<cpu_model_backend>;
using modules_here = stage_modules<linear>;
using inputs_here = stage_inputs<float>;
const cpu_model_backend cpu(quantized_form::dense);

/// The states of all windows, in both models.
std::vector<std::vector<float>> values_of(states_here& states) {
    std::vector<std::vector<float>> values(states.beside_float() ? 2 : 1);
    for (std::size_t m = 0; m < values.size(); ++m)
        for (std::size_t c = 0; c < states.chunks(); ++c) {
            const auto some = states.states(c, m);
            values[m].insert(values[m].end(), some.data, some.data + some.rows * some.cols);
        }
    return values;
}

/// A golden model, ready to run its blocks on the tokens of its logits.
struct scene {
    golden_model golden;
    gptq::io::model_folder files;
    model_config config;
    std::vector<std::int32_t> ids;

    explicit scene(const std::string& name)
        : golden(name), files(golden.folder), config(read_model_config(files)), ids(golden.logit_ids()) {}
    block load(std::size_t index = 0) const { return load_block(config, files, index, cpu); }
    states_here start(bool beside_float = false) const { return start({ids, ids.size()}, beside_float); }
    states_here start(const token_windows& windows, bool beside_float = false, chunk_places places = {},
                      std::optional<gptq::io::output_file> file = std::nullopt) const {
        return states_here(cpu, config, load_embedding(config, files, cpu), windows, beside_float, places,
                           std::move(file));
    }

    /// on_stage(index, modules, inputs) for all blocks.
    template <class OnStage>
    void run_all(states_here& states, OnStage&& on_stage) const {
        for (std::size_t i = 0; i < config.blocks; ++i) {
            block weights = load(i);
            run_block_by_stages(cpu, config, weights, nullptr, i, states,
                                [&](modules_here& modules, const inputs_here& x) { on_stage(i, modules, x); });
        }
    }
};

void ignore(std::size_t, modules_here&, const inputs_here&) {}

/// Weights that differ from what the files have.
void change(linear& layer) {
    for (std::size_t n = 0; n < layer.out_features(); ++n)
        for (std::size_t k = 0; k < layer.in_features(); ++k)
            layer.weight(n, k) *= 0.5f + 0.1f * static_cast<float>((n + k) % 7);
}

}  // namespace

TEST_CASE("the inputs of each stage are those that transformers' linear layers see", "[stages]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const scene s(name);
        const auto& expected = s.golden.expected["stage_inputs"];
        std::size_t seen = 0;
        states_here states = s.start();
        s.run_all(states, [&](std::size_t index, modules_here& modules, const inputs_here& x) {
            if (index != s.golden.expected["stage_block"]) return;
            INFO(name << ": " << modules.names[0]);
            if (seen == expected.size()) return;  // what comes to experts is not among the expected
            x.for_each([&](const paired_inputs<float>& all) {
                REQUIRE(all.inputs.rows == s.ids.size());
                CHECK(relative_difference(all.inputs.row(all.inputs.rows - 1),
                                          expected[seen].template get<std::vector<double>>()) < 2e-5);
            });
            ++seen;
        });
        CHECK(seen == expected.size());
    }
}

TEST_CASE("stages come in order, each module once, under the names of the files", "[stages]") {
    using names = std::vector<std::string>;
    std::vector<names> seen;
    const auto note = [&seen](const scene& s, std::size_t wanted) {
        states_here states = s.start();
        s.run_all(states, [&](std::size_t index, modules_here& modules, const inputs_here& x) {
            CHECK(modules.modules.size() == modules.names.size());
            CHECK(modules.modules[0]->in_features() == x.features);
            if (index == wanted) seen.push_back(modules.names);
        });
    };
    note(scene("llama"), 2);
    const std::string prefix = "model.layers.2.";
    CHECK(seen ==
          std::vector<names>{{prefix + "self_attn.q_proj", prefix + "self_attn.k_proj", prefix + "self_attn.v_proj"},
                             {prefix + "self_attn.o_proj"},
                             {prefix + "mlp.gate_proj", prefix + "mlp.up_proj"},
                             {prefix + "mlp.down_proj"}});

    seen.clear();
    note(scene("opt"), 0);
    const std::string opt_prefix = "model.decoder.layers.0.";
    CHECK(seen == std::vector<names>{{opt_prefix + "self_attn.q_proj", opt_prefix + "self_attn.k_proj",
                                      opt_prefix + "self_attn.v_proj"},
                                     {opt_prefix + "self_attn.out_proj"},
                                     {opt_prefix + "fc1"},
                                     {opt_prefix + "fc2"}});
}

TEST_CASE("windows do not see each other", "[stages]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const scene s(name);
        const std::size_t window = s.ids.size() / 2;
        const token_windows two{s.ids, window};
        const token_windows one{{s.ids.begin() + static_cast<std::ptrdiff_t>(window), s.ids.end()}, window};
        states_here both = s.start(two), second = s.start(one);
        s.run_all(both, ignore);
        s.run_all(second, ignore);
        // The last block's states, through the norm and the head, are the decoder's logits for the second window.
        const auto model = decoder::load(s.files);
        const auto head = hold_head_inputs(cpu, read_head_inputs(s.config, weight_reader(s.files)));
        const auto head_states = compute_head_inputs(cpu, head, s.config, second.states(0, 0));
        auto logits = gptq::make_tensor2<float>(window, s.config.vocab_size);
        model.head(head_states.view(), gptq::view_of(logits));
        const auto expected = model.logits(one.tokens);
        INFO(name);
        REQUIRE(both.states(0, 0).rows == 2 * window);
        for (std::size_t t = 0; t < window; ++t) {
            const auto row = second.states(0, 0).row(t);
            CHECK(relative_difference(both.states(0, 0).row(window + t), std::vector<double>(row.begin(), row.end())) <
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
        for (std::size_t which = 0; which < 4; ++which) {
            // Changed when the stage comes up ...
            block first = s.load();
            states_here changed_on_the_way = s.start();
            std::size_t stage_number = 0;
            run_block_by_stages(cpu, s.config, first, nullptr, 0, changed_on_the_way,
                                [&](modules_here& modules, const auto&) {
                                    if (stage_number++ == which)
                                        for (linear* layer : modules.modules) change(*layer);
                                });
            // ... and before the block runs at all.
            block second = s.load();
            for (linear* layer : modules_of(second, which).modules) change(*layer);
            states_here changed_before = s.start();
            run_block_by_stages(cpu, s.config, second, nullptr, 0, changed_before, [](modules_here&, const auto&) {});
            block third = s.load();
            states_here unchanged = s.start();
            run_block_by_stages(cpu, s.config, third, nullptr, 0, unchanged, [](modules_here&, const auto&) {});
            INFO(name << ", stage " << which);
            CHECK(values_of(changed_on_the_way) == values_of(changed_before));
            CHECK(values_of(changed_on_the_way) != values_of(unchanged));
        }
    }
}

TEST_CASE("tokens that do not fill the windows are refused", "[stages]") {
    const scene s("llama");
    CHECK_THROWS_AS(s.start({s.ids, 7}), gptq::shape_error);
    CHECK_THROWS_AS(s.start({s.ids, 0}), gptq::shape_error);
}

TEST_CASE("a block beside its float twin sees both inputs, and the states that outputs are added to", "[stages]") {
    for (const auto& name : {"llama3", "gemma3", "opt-projected"}) {
        const scene s(name);
        states_here alone = s.start(), both = s.start(true);
        block weights = s.load();
        const block float_weights = weights;
        std::vector<std::vector<float>> float_inputs;
        block unchanged = weights;
        run_block_by_stages(cpu, s.config, unchanged, nullptr, 0, alone, [&](modules_here&, const inputs_here& site) {
            site.for_each([&](const paired_inputs<float>& all) {
                const auto x = all.inputs;
                float_inputs.emplace_back(x.row(x.rows - 1).begin(), x.row(x.rows - 1).end());
            });
        });
        std::size_t stage_number = 0;
        const auto look = [&](const paired_inputs<float>& paired) {
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
        };
        run_block_by_stages(cpu, s.config, weights, &float_weights, 0, both,
                            [&](modules_here& modules, const inputs_here& site) {
                                site.for_each(look);
                                // From here on the block differs from its twin.
                                for (linear* layer : modules.modules)
                                    for (float& w : layer->weight) w *= 0.9f;
                                ++stage_number;
                            });
        CHECK(stage_number == 4);
        CHECK(values_of(both)[1] == values_of(alone)[0]);
        CHECK(values_of(both)[0] != values_of(alone)[0]);
    }
}

TEST_CASE("where states are kept changes no number", "[stages]") {
    // A chunk and a part of one, of models that read their inputs in other ways: experts, both branches at once, a
    // norm after each branch.
    for (const auto& name : {"llama3", "phi", "qwen2-moe", "opt-bare"}) {
        const scene s(name);
        token_windows windows{{}, 16};
        for (std::size_t i = 0; i < chunk_tokens<cpu_model_backend> + 3 * windows.length; ++i)
            windows.tokens.push_back(s.ids[(i * i + i / 5) % s.ids.size()]);
        const gptq_test::temp_dir folder;
        int files = 0;
        const auto run = [&](chunk_places places) {
            std::vector<float> seen;
            auto states =
                s.start(windows, true, places, gptq::io::output_file(folder.path() / std::to_string(++files)));
            CHECK(states.chunks() == 2);
            block weights = s.load();
            const block float_weights = weights;
            std::size_t stage = 0;
            run_block_by_stages(
                cpu, s.config, weights, &float_weights, 0, states, [&](modules_here& modules, const inputs_here& x) {
                    std::size_t tokens = 0;
                    const auto look = [&](const paired_inputs<float>& some) {
                        tokens += some.inputs.rows;
                        for (const auto m : {some.inputs, some.float_inputs, some.states, some.float_states})
                            if (m.rows != 0)
                                seen.insert(seen.end(), m.row(m.rows - 1).begin(), m.row(m.rows - 1).end());
                    };
                    // Some stages are passed by, others looked at twice.
                    if (stage % 3 != 1) x.for_each(look);
                    if (stage % 3 == 2) x.for_each(look);
                    CHECK((x.of_expert || tokens % x.tokens == 0));
                    ++stage;
                    for (linear* layer : modules.modules) change(*layer);
                });
            auto values = values_of(states);
            values.push_back(std::move(seen));
            return values;
        };
        INFO(name);
        const auto kept = run({2, 0});
        CHECK((run({0, 2}) == kept));
        CHECK((run({1, 0}) == kept));
        CHECK((run({0, 0}) == kept));
    }
}
