// The bodies of <gptq/study/model_cell.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/input.hpp>
#include <gptq/study/model_cell.hpp>

namespace gptq::study {
namespace detail {

/// The quantization is about this part of a cell's work; what comes after is as much as the texts are long.
inline constexpr double quantize_share = 0.7;

/// Watches quantize_model for a study.
struct cell_observer {
    const study_watch& watch;
    bool resumed = false;

    void on_progress(double fraction, const std::string& doing) { watch(quantize_share * fraction, doing); }
    void on_module(const model::module_record&) {}
    void on_columns(std::size_t, std::size_t) {}
    void on_resumed(std::size_t, std::size_t) { resumed = true; }
};

/// Bytes of the tensors of each module: all whose name is the module's with one more part, but no biases.
inline std::map<std::string, std::uint64_t> module_bytes(const io::model_folder& folder) {
    std::map<std::string, std::uint64_t> bytes;
    for (const std::string& name : folder.tensor_names()) {
        const std::size_t dot = name.rfind('.');
        if (dot != std::string::npos && name.substr(dot) != ".bias")
            bytes[name.substr(0, dot)] += folder.tensor(name).bytes.size();
    }
    return bytes;
}

/// The layers that a study quantizes, with the bytes that `folder` has of them.
inline std::vector<layer_score> layers_in(const io::model_folder& folder, const model::model_config& config) {
    const auto bytes = module_bytes(folder);
    std::vector<layer_score> layers;
    for (const model::stage_plan& stage : model::detail::model_stages(config, false))
        for (const model::module_plan& m : stage.modules) {
            const auto found = bytes.find(m.name);
            layers.push_back({.layer = stage.layer,
                              .module = m.name_in_layer,
                              .bytes = found == bytes.end() ? 0 : found->second,
                              .weights = m.out_features * m.in_features});
        }
    return layers;
}

inline void take_errors(std::vector<layer_score>& layers, const std::vector<model::module_record>& log) {
    std::map<std::pair<std::size_t, std::string>, const model::module_record*> records;
    for (const model::module_record& r : log) records[{r.layer, r.module}] = &r;
    for (layer_score& l : layers)
        if (const auto found = records.find({l.layer, l.module}); found != records.end()) {
            l.error = found->second->error;
            l.relative_error = found->second->relative_error;
        }
}

/// Perplexities of the model in `folder`, for the part of the progress that begins at `from`.
inline void evaluate(const study_input& input, const io::model_folder& folder, double from, const study_watch& watch,
                     cell_result& result) {
    const model::detail::stopwatch time;
    auto decoder = model::decoder::load(folder, model::cpu_model_backend(model::quantized_form::exact));
    double begin = from;
    decoder.before_each_block([&] { watch(begin, "scoring"); });
    const double share = (1.0 - from) / static_cast<double>(input.texts.size());
    for (const study_text& text : input.texts) {
        const auto on_window = [&](std::size_t done, std::size_t total) {
            watch(begin + share * static_cast<double>(done) / static_cast<double>(total), text.name);
        };
        result.texts.push_back(
            {text.name, model::evaluate_perplexity(decoder, text.tokens, input.evaluation, on_window)});
        begin += share;
    }
    result.evaluate_seconds = time.seconds();
}

/// Whether the quantization ran from its beginning to its end, which then says how long it took.
inline void quantize(const study_input& input, const study_cell& cell, const std::filesystem::path& work,
                     const study_watch& watch, cell_result& result) {
    model::quantize_model_options options;
    options.config.format = cell.format;
    options.config.settings = cell.settings;
    cell_observer observer{watch};
    const model::quantize_result made = model::quantize_model(input.folder, work, input.calibration, options, observer);
    result.warnings = made.warnings;
    if (!observer.resumed) result.quantize_seconds = made.seconds;
}

}  // namespace detail

GPTQ_INLINE cell_result measure_model(const study_input& input, const study_cell& cell,
                                      const std::filesystem::path& work, const study_watch& watch) {
    cell_result result;
    std::error_code ignored;
    if (!std::filesystem::exists(work, ignored)) detail::quantize(input, cell, work, watch, result);
    const io::model_folder made(work);
    result.layers = detail::layers_in(made, input.config);
    detail::take_errors(result.layers, model::read_quant_log(work / model::quant_log_name));
    result.bytes = tensor_bytes_of(made);
    result.weights = parameters_of(input.folder);
    detail::evaluate(input, made, detail::quantize_share, watch, result);
    return result;
}

GPTQ_INLINE cell_result measure_float(const study_input& input, const study_watch& watch) {
    cell_result result;
    result.layers = detail::layers_in(input.folder, input.config);
    result.bytes = tensor_bytes_of(input.folder);
    result.weights = parameters_of(input.folder);
    detail::evaluate(input, input.folder, 0.0, watch, result);
    return result;
}

}  // namespace gptq::study
