// A cell of a study: one method with its settings, and what was measured of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/quantization_config.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/settings.hpp>

namespace gptq::study {

/// What a study measures of its cells.
enum class study_depth {
    layers,  ///< the error of every layer, each by itself at the inputs of the float model
    model    ///< the whole sequential quantization, and perplexities
};

/// The method of the cell that all others are compared with: the model as it is.
inline constexpr const char* float_method = "float";

/// A method by its name in study_methods(), and its settings.
struct study_cell {
    std::string method = "gptq";
    quantize_settings settings = {};
    io::checkpoint_format format = io::checkpoint_format::gptq;

    bool operator==(const study_cell&) const = default;
};

/// The format that holds a grid everywhere: gptq, or gptq_v2 for zero points.
io::checkpoint_format usual_format(const quantize_settings& settings);

/// Short, and different for cells that differ in an axis: "gptq 3 bits g64 sym gar".
std::string label_of(const study_cell& cell);

/// {"method": ..., "format": ..., "settings": settings_json}; of the float model only the first.
nlohmann::ordered_json cell_json(const study_cell& cell);

/// The cell of such an object. `where` begins messages. Throws format_error.
study_cell cell_from_json(const nlohmann::ordered_json& object, const std::string& where);

/// The perplexity on one text.
struct text_score {
    std::string name;
    model::perplexity_result result;  ///< with the scores of its windows
};

/// One quantized layer.
struct layer_score {
    std::size_t layer = 0;  ///< index of the decoder block
    std::string module;     ///< name within the block
    double error = 0.0;     ///< tr(D H D'), see model::module_record
    double relative_error = 0.0;
    std::uint64_t bytes = 0;    ///< as stored, with scales, zero points and g_idx
    std::uint64_t weights = 0;  ///< how many
};

/// What was measured of a cell.
struct cell_result {
    std::vector<text_score> texts;    ///< depth model
    std::vector<layer_score> layers;  ///< in the order in which they are quantized
    std::uint64_t bytes = 0;          ///< of all tensors of the model
    std::uint64_t weights = 0;        ///< of the model
    std::vector<std::string> warnings;
    /// Nothing where the cell was interrupted and gone on with: part of the work was then in another process.
    std::optional<double> quantize_seconds, evaluate_seconds;
    std::optional<std::uint64_t> peak_bytes;  ///< of memory while it was computed; nothing if the system does not say
    nlohmann::ordered_json machine;           ///< what computed it

    std::uint64_t quantized_bytes() const;    ///< of the quantized layers
    std::uint64_t quantized_weights() const;  ///< of these layers
    double bits_per_weight() const;           ///< of these layers; 0 without any
    double model_bits_per_weight() const;     ///< of the whole model
    double error() const;                     ///< sum over the layers
};

nlohmann::ordered_json result_json(const cell_result& result);

/// The result of such an object. `where` begins messages. Throws format_error.
cell_result result_from_json(const nlohmann::ordered_json& object, const std::string& where);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/cell.hpp>
#endif
