// The bodies of <gptq/study/allocate.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/model/reader_rules.hpp>
#include <gptq/quote.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/allocate.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/methods.hpp>

namespace gptq::study {
namespace detail {

using knapsack_item = std::vector<knapsack_choice>;

inline std::uint64_t least_bytes(const knapsack_item& item) {
    const auto smaller = [](const knapsack_choice& a, const knapsack_choice& b) { return a.bytes < b.bytes; };
    return std::min_element(item.begin(), item.end(), smaller)->bytes;
}

/// What divides every size beyond the smallest of its item; 1 where all are equal.
inline std::uint64_t common_unit(std::span<const knapsack_item> items) {
    std::uint64_t unit = 0;
    for (const knapsack_item& item : items)
        for (const knapsack_choice& choice : item) unit = std::gcd(unit, choice.bytes - least_bytes(item));
    return unit == 0 ? 1 : unit;
}

/// The table of solve_knapsack: best(c) after some items is the least loss in at most c units beyond the smallest
/// sizes.
class knapsack_table {
 public:
    knapsack_table(std::span<const knapsack_item> items, std::uint64_t unit, std::size_t capacity)
        : items_(items), unit_(unit), capacity_(capacity), best_(capacity + 1, 0.0) {
        for (const knapsack_item& item : items) add(item);
    }

    /// The least units that a loss of at most `most_loss` takes; nothing where all units are too few.
    std::optional<std::size_t> least_units(double most_loss) const {
        const auto found = std::partition_point(best_.begin(), best_.end(), [&](double b) { return b > most_loss; });
        if (found == best_.end()) return std::nullopt;
        return static_cast<std::size_t>(found - best_.begin());
    }

    /// The choices of all items in at most `left` units.
    std::vector<std::size_t> choices(std::size_t left) const {
        std::vector<std::size_t> chosen(items_.size());
        for (std::size_t i = items_.size(); i-- > 0;) {
            chosen[i] = taken_[i * (capacity_ + 1) + left];
            left -= units(items_[i], items_[i][chosen[i]]);
        }
        return chosen;
    }

 private:
    std::size_t units(const knapsack_item& item, const knapsack_choice& choice) const {
        return static_cast<std::size_t>((choice.bytes - least_bytes(item) + unit_ - 1) / unit_);
    }

    void add(const knapsack_item& item) {
        std::vector<double> next(capacity_ + 1, std::numeric_limits<double>::infinity());
        std::vector<std::uint8_t> taken(capacity_ + 1, 0);
        for (std::size_t k = 0; k < item.size(); ++k) {
            const double loss = item[k].loss;
            for (std::size_t c = units(item, item[k]), from = 0; c <= capacity_; ++c, ++from)
                if (best_[from] + loss < next[c]) next[c] = best_[from] + loss, taken[c] = static_cast<std::uint8_t>(k);
        }
        best_ = std::move(next);
        taken_.insert(taken_.end(), taken.begin(), taken.end());
    }

    std::span<const knapsack_item> items_;
    std::uint64_t unit_;
    std::size_t capacity_;
    std::vector<double> best_;         // [capacity + 1]
    std::vector<std::uint8_t> taken_;  // [items, capacity + 1]
};

/// The sums of the smallest and of the largest sizes.
inline std::pair<std::uint64_t, std::uint64_t> range_of_bytes(std::span<const knapsack_item> items) {
    std::uint64_t least = 0, most = 0;
    for (const knapsack_item& item : items) {
        if (item.empty() || item.size() > 255)
            throw shape_error("allocate: a layer has " + std::to_string(item.size()) + " choices; 1 to 255 do");
        least += least_bytes(item);
        std::uint64_t largest = 0;
        for (const knapsack_choice& choice : item) largest = std::max(largest, choice.bytes);
        most += largest;
    }
    return {least, most};
}

/// A solution without choices, in units so large that `room` bytes are no more of them than a table may have.
inline knapsack_solution with_unit(std::span<const knapsack_item> items, std::uint64_t room) {
    const std::uint64_t unit = common_unit(items);
    const std::uint64_t coarser =
        std::max<std::uint64_t>(1, (room / unit + max_knapsack_units - 1) / max_knapsack_units);
    return {.unit = unit * coarser, .exact = coarser == 1};
}

inline void choose(knapsack_solution& solution, std::span<const knapsack_item> items,
                   std::vector<std::size_t>&& chosen) {
    solution.chosen = std::move(chosen);
    for (std::size_t i = 0; i < items.size(); ++i) {
        solution.bytes += items[i][solution.chosen[i]].bytes;
        solution.loss += items[i][solution.chosen[i]].loss;
    }
}

/// What an increase of the loss does to the perplexity.
inline std::string percent(double loss) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.3g %%", 100.0 * std::expm1(loss));
    return text.data();
}

inline double least_loss(std::span<const knapsack_item> items) {
    double sum = 0.0;
    for (const knapsack_item& item : items) {
        const auto better = [](const knapsack_choice& a, const knapsack_choice& b) { return a.loss < b.loss; };
        sum += std::min_element(item.begin(), item.end(), better)->loss;
    }
    return sum;
}

/// The settings without what rules can say. Those that `best` chooses by the bits count as the same.
inline study_cell without_choice(study_cell cell) {
    const quantize_settings plain;
    cell.settings.bits = plain.bits;
    cell.settings.group_size = plain.group_size;
    cell.settings.sym = plain.sym;
    if (cell.format == io::checkpoint_format::gptq_v2) cell.format = io::checkpoint_format::gptq;
    if (cell.method != "best") return cell;
    cell.settings.candidates = plain.candidates;
    cell.settings.refine_rounds = plain.refine_rounds;
    return cell;
}

/// The rows of a method, which only rules tell apart.
inline std::vector<const study_row*> rows_of(std::span<const study_row> rows, const std::string& method) {
    if (!find_method(method).in_checkpoints)
        throw option_error("allocate: no checkpoint holds what " + method + " makes; choose rtn, gptq or best");
    std::vector<const study_row*> found;
    for (const study_row& row : rows) {
        if (row.cell.method != method) continue;
        if (!found.empty() && without_choice(row.cell) != without_choice(found.front()->cell))
            throw option_error("allocate: the study has " + label_of(found.front()->cell) + " and " +
                               label_of(row.cell) +
                               ", which differ in more than bits, groups and grid; rules cannot say the rest: make a "
                               "study with one order and one value of every other setting");
        found.push_back(&row);
    }
    if (found.size() < 2)
        throw option_error("allocate: the study has " + std::to_string(found.size()) + " finished cells of " + method +
                           " at depth layers, and there is nothing to choose; run gptq study --depth layers with "
                           "several --bits or --group-size");
    return found;
}

/// The error and the bytes of the layers of a stage in one cell, as a choice without a sensitivity.
inline knapsack_choice stage_choice(const stage_sensitivity& stage, const study_row& row) {
    knapsack_choice choice;
    std::size_t seen = 0;
    for (const layer_score& l : row.result.layers) {
        if (l.layer != stage.layer ||
            std::find(stage.modules.begin(), stage.modules.end(), l.module) == stage.modules.end())
            continue;
        choice.bytes += l.bytes;
        choice.loss += l.error;
        ++seen;
    }
    if (seen != stage.modules.size())
        throw shape_error("allocate: " + label_of(row.cell) + " lacks layers of block " + std::to_string(stage.layer));
    return choice;
}

inline std::vector<knapsack_item> choices_of(const allocation_problem& problem) {
    std::vector<knapsack_item> items;
    for (const allocation_item& item : problem.items) items.push_back(item.choices);
    return items;
}

/// The names, and those under which vLLM fuses them.
inline std::vector<std::string> with_fused_names(std::vector<std::string> modules) {
    if (modules.size() > 1)
        for (const std::string& name : std::vector<std::string>(modules))
            if (const auto fused = model::fused_name(name)) modules.push_back(*fused);
    return modules;
}

inline std::string any_of(const std::vector<std::string>& alternatives) {
    std::string text = "(?:";
    for (const std::string& one : alternatives) text += (text.size() > 3 ? "|" : "") + one;
    return text + ")";
}

}  // namespace detail

GPTQ_INLINE knapsack_solution solve_knapsack(std::span<const std::vector<knapsack_choice>> items,
                                             std::uint64_t most_bytes) {
    const auto [least, most] = detail::range_of_bytes(items);
    if (least > most_bytes)
        throw option_error("allocate: the smallest choices take " + std::to_string(least) +
                           " bytes for the quantized layers, and only " + std::to_string(most_bytes) +
                           " are left for them; allow more, or study fewer bits and larger groups");
    const std::uint64_t room = std::min(most_bytes, most) - least;
    knapsack_solution found = detail::with_unit(items, room);
    const auto units = static_cast<std::size_t>(room / found.unit);
    detail::choose(found, items, detail::knapsack_table(items, found.unit, units).choices(units));
    return found;
}

GPTQ_INLINE knapsack_solution smallest_knapsack(std::span<const std::vector<knapsack_choice>> items, double most_loss) {
    const auto [least, most] = detail::range_of_bytes(items);
    knapsack_solution found = detail::with_unit(items, most - least);
    // Rounded up, each item may take a unit more than its part.
    const auto all = static_cast<std::size_t>((most - least) / found.unit) + items.size();
    const detail::knapsack_table table(items, found.unit, all);
    const auto units = table.least_units(most_loss);
    if (!units)
        throw option_error("allocate: the best choices are predicted " + detail::percent(detail::least_loss(items)) +
                           " above float, and only " + detail::percent(most_loss) +
                           " are allowed; allow more, or study more bits and smaller groups");
    detail::choose(found, items, table.choices(*units));
    return found;
}

GPTQ_INLINE allocation_problem allocation_of(std::span<const study_row> rows,
                                             std::span<const stage_sensitivity> sensitivities,
                                             const std::string& method) {
    const auto chosen = detail::rows_of(rows, method);
    allocation_problem problem;
    for (const study_row* row : chosen) problem.settings.push_back(row->cell);
    for (const stage_sensitivity& stage : sensitivities) {
        allocation_item item{stage.layer, stage.modules, {}};
        const double loss_of_error = stage.error > 0.0 ? stage.divergence / stage.error : 0.0;
        for (const study_row* row : chosen) {
            item.choices.push_back(detail::stage_choice(stage, *row));
            item.choices.back().loss *= loss_of_error;
        }
        problem.items.push_back(std::move(item));
    }
    const cell_result& any = chosen.front()->result;
    problem.weights = any.quantized_weights();
    problem.other_bytes = any.bytes - any.quantized_bytes();
    problem.other_weights = any.weights - any.quantized_weights();
    return problem;
}

GPTQ_INLINE knapsack_solution allocate_bytes(const allocation_problem& problem, std::uint64_t most_bytes) {
    return solve_knapsack(detail::choices_of(problem), most_bytes);
}

GPTQ_INLINE knapsack_solution allocate_loss(const allocation_problem& problem, double most_loss) {
    return smallest_knapsack(detail::choices_of(problem), most_loss);
}

GPTQ_INLINE nlohmann::ordered_json allocation_rules(const allocation_problem& problem,
                                                    const knapsack_solution& solution,
                                                    const std::string& block_prefix) {
    std::map<std::pair<std::size_t, std::vector<std::string>>, std::vector<std::string>> blocks;
    for (std::size_t i = 0; i < problem.items.size(); ++i)
        blocks[{solution.chosen.at(i), problem.items[i].modules}].push_back(std::to_string(problem.items[i].layer));
    auto rules = nlohmann::ordered_json::object();
    for (const auto& [what, layers] : blocks) {
        std::vector<std::string> names;
        for (const std::string& name : detail::with_fused_names(what.second))
            names.push_back(io::detail::escaped(name));
        const quantize_settings& s = problem.settings[what.first].settings;
        rules[io::detail::escaped(block_prefix) + detail::any_of(layers) + "\\." + detail::any_of(names) + "$"] = {
            {"bits", s.bits}, {"group_size", s.group_size}, {"sym", s.sym}};
    }
    return rules;
}

}  // namespace gptq::study
