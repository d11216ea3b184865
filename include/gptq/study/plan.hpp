// The plan of a study: the cells that its axes span.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/cell.hpp>

namespace gptq::study {

/// Every choice of one value from each list is a cell.
struct study_axes {
    std::vector<std::string> methods{"gptq"};
    std::vector<int> bits{4};
    std::vector<int> group_sizes{128};                           ///< per_channel: all of a row
    std::vector<std::string> grids{"sym"};                       ///< sym or asym
    std::vector<std::string> orders{"gar"};                      ///< order_names
    quantize_settings fixed = {};                                ///< all that no list has
    std::optional<io::checkpoint_format> format = std::nullopt;  ///< nothing: usual_format of each cell
};

/// A cell that cannot be, and why.
struct skipped_cell {
    std::string label;
    std::string reason;
};

/// The reasons in their order, each with the labels of its cells, joined by commas.
std::vector<std::pair<std::string, std::string>> by_reason(std::span<const skipped_cell> skipped);

struct study_plan {
    std::vector<study_cell> cells;  ///< each once, in the order of the axes; methods change slowest, orders fastest
    std::vector<skipped_cell> skipped;
};

/// Refuses axes before any work: throws option_error for an empty list, for a method, grid or order of unknown name,
/// and for bits and group sizes that no checkpoint format holds, naming those that do.
void check_axes(const study_axes& axes);

/// Adds the cells of `axes`, which check_axes let through. What a method or `fits` refuses by an exception of this
/// library is skipped. At depth model, so are methods that no checkpoint holds; at depth layers nothing corrects drift.
void add_cells(study_plan& plan, const study_axes& axes, study_depth depth,
               const std::function<void(const study_cell&)>& fits);

/// Throws what plan_quantization throws for a model that the cell does not fit.
void check_fit(const study_cell& cell, const model::model_config& config, const io::model_folder& folder);

/// Axes from a list of objects, or one of them. Keys of an object: "method", "bits", "group_size", "grid", "order",
/// each a value or a list; "format"; and other settings of settings_json. What it leaves out is as in `usual`. `where`
/// begins messages. Throws format_error.
std::vector<study_axes> axes_from_json(const nlohmann::ordered_json& plan, const study_axes& usual,
                                       const std::string& where);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/plan.hpp>
#endif
