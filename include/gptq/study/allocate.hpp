// Bits where they are worth most: of each stage's choices the ones that lose least together and fit into a size, and
// the `dynamic` rules that say so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/study/layer_pass.hpp>
#include <gptq/study/run_study.hpp>

namespace gptq::study {

/// One of the ways to store something.
struct knapsack_choice {
    std::uint64_t bytes = 0;
    double loss = 0.0;
};

/// What solve_knapsack found.
struct knapsack_solution {
    std::vector<std::size_t> chosen = {};  ///< one choice of each item
    std::uint64_t bytes = 0;
    double loss = 0.0;  ///< the sum
    /// Sizes were counted in units of so many bytes, each rounded up. 1 unit = what divides all differences of sizes,
    /// so that nothing is rounded, unless the table would have more than max_units columns.
    std::uint64_t unit = 1;
    bool exact = true;  ///< nothing was rounded: no other choice within the size loses less
};

/// Units that a size is divided into at most.
inline constexpr std::uint64_t max_knapsack_units = std::uint64_t{1} << 20;

/// The choice of each item whose sizes sum up to at most `most_bytes`, with the least sum of losses: a multiple-choice
/// knapsack, by dynamic programming over sizes. Time: items times choices times units; memory: a byte for each item and
/// unit. Throws shape_error for an item without choices, or more than 255; option_error saying what is possible where
/// even the smallest choices do not fit.
knapsack_solution solve_knapsack(std::span<const std::vector<knapsack_choice>> items, std::uint64_t most_bytes);

/// The choice of each item whose losses sum up to at most `most_loss`, with the least sum of sizes; `exact` then says
/// that no other choice within that loss is smaller. Time and memory as solve_knapsack, for all sizes that there are.
/// Throws shape_error likewise; option_error where even the choices of least loss lose more.
knapsack_solution smallest_knapsack(std::span<const std::vector<knapsack_choice>> items, double most_loss);

/// The layers of one stage, which runtimes store alike, and the settings that it may have.
struct allocation_item {
    std::size_t layer = 0;
    std::vector<std::string> modules;  ///< names within the block
    std::vector<knapsack_choice> choices;
};

/// What an allocation chooses from.
struct allocation_problem {
    std::vector<study_cell> settings;  ///< one for each choice, the same for all items
    std::vector<allocation_item> items;
    std::uint64_t weights = 0;        ///< of all items
    std::uint64_t other_bytes = 0;    ///< of what is not quantized
    std::uint64_t other_weights = 0;  ///< likewise
};

/// From the rows of a study at depth layers and the sensitivities: the loss of a choice is the stage's error with it,
/// times what the probe's divergence is for each of its own error. Takes the cells of `method`. Throws option_error,
/// saying what to do, where there are none, or where they differ in what rules cannot say.
allocation_problem allocation_of(std::span<const study_row> rows, std::span<const stage_sensitivity> sensitivities,
                                 const std::string& method);

/// The least loss in at most `most_bytes` of quantized layers; as solve_knapsack.
knapsack_solution allocate_bytes(const allocation_problem& problem, std::uint64_t most_bytes);

/// The least bytes with a predicted loss of at most `most_loss`, in nats a token; as smallest_knapsack.
knapsack_solution allocate_loss(const allocation_problem& problem, double most_loss);

/// The rules that give each stage its choice, for `gptq quantize --dynamic`, GPTQModel and vLLM. Stages of equal
/// choices and modules share a rule. `block_prefix` is what names of blocks begin with, such as "model.layers.".
nlohmann::ordered_json allocation_rules(const allocation_problem& problem, const knapsack_solution& solution,
                                        const std::string& block_prefix);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/allocate.hpp>
#endif
