// gptq quantize: writes a quantized copy of a model.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/tokenizer.hpp>
#include <gptq/model/window_length.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "ranks.hpp"
#include "text_file.hpp"

namespace program {

namespace io = gptq::io;
namespace model = gptq::model;

namespace quantizing {

/// Shows how far the work is, and stops it when the user asks.
class watcher {
 public:
    void on_progress(double fraction, const std::string& doing) {
        throw_if_interrupted();
        bar_->update(fraction, doing);
        fraction_ = fraction;
    }
    void on_module(const model::module_record& r) {
        bar_->step(format("%5.1f %%  layer %zu %s: error %.5g, rounded to nearest %.5g, %.2f s", 100.0 * fraction_,
                          r.layer, r.module.c_str(), r.error, r.rtn_error, r.seconds));
    }
    void on_columns(std::size_t /*done*/, std::size_t /*total*/) const { throw_if_interrupted(); }
    void on_resumed(std::size_t done, std::size_t all) {
        bar_->note(format("%zu of %zu blocks are finished by an earlier run; this one goes on with them", done, all));
    }
    /// The progress bar goes.
    void finish() { bar_.reset(); }
    /// Each once, whether it comes before the work or with the result.
    void on_warning(const std::string& warning) {
        if (std::find(said_.begin(), said_.end(), warning) != said_.end()) return;
        std::fprintf(stderr, "warning: %s\n", warning.c_str());
        said_.push_back(warning);
    }

 private:
    std::optional<progress> bar_{std::in_place};
    double fraction_ = 0.0;
    std::vector<std::string> said_;
};

/// `arguments` holds only names that main.cpp let through.
inline model::quantize_model_options options_of(const quantize_arguments& arguments) {
    const std::string usual = arguments.settings.sym ? "gptq" : "gptq_v2";
    model::quantize_model_options options;
    options.restart = arguments.restart;
    if (arguments.memory != 0) options.memory = arguments.memory;
    options.ranks = ranks();
    options.sums_in_order = arguments.reproducible;
    io::quantization_config& config = options.config;
    config.format = io::format_of_name(arguments.format.empty() ? usual : arguments.format).value();
    config.settings = arguments.settings;
    config.lm_head = arguments.lm_head;
    const std::string& rules = arguments.dynamic_rules;
    if (!rules.empty()) config.dynamic = io::dynamic_rules(io::read_json<nlohmann::ordered_json>(rules), rules);
    return options;
}

/// Tokens evenly spaced over the vocabulary, which stand in for a text where only reported errors depend on it.
inline model::token_windows stand_in_windows(const model::model_config& config) {
    model::token_windows windows{{}, 64};
    for (std::size_t i = 0; i < windows.length; ++i)
        windows.tokens.push_back(static_cast<std::int32_t>(i * config.vocab_size / windows.length));
    return windows;
}

inline model::token_windows read_windows(const io::model_folder& folder, const calibration_arguments& arguments) {
    const auto tokens = model::tokenizer::load(folder.path());
    const std::string text = read_text(arguments.calib, tokens, folder.path());
    const model::model_config config = model::read_model_config(folder);
    return model::calibration_windows(
        tokens, text, arguments.nsamples, arguments.seqlen != 0 ? arguments.seqlen : model::customary_window(config),
        model::window_bos(config, tokens), "calibration text " + arguments.calib,
        arguments.sampling == "first" ? model::window_sampling::first : model::window_sampling::spread,
        arguments.special_tokens ? model::special_tokens::as_tokenizer : model::special_tokens::none);
}

inline void print_result(const quantize_arguments& arguments, const model::quantize_result& result) {
    double error = 0.0, rtn_error = 0.0;
    for (const model::module_record& r : result.modules) {
        error += r.error;
        rtn_error += r.rtn_error;
    }
    if (arguments.json)
        return print_json({{"out", arguments.out},
                           {"sampling", arguments.calib.empty() ? "none" : arguments.sampling},
                           {"modules", result.modules.size()},
                           {"seconds", result.seconds},
                           {"bits_per_weight", result.bits_per_weight},
                           {"bytes", result.bytes},
                           {"error", error},
                           {"rtn_error", rtn_error},
                           {"warnings", result.warnings}});
    print(format("%s: %zu modules in %s, %.3f bits a weight, %s of tensors\n", arguments.out.c_str(),
                 result.modules.size(), duration_string(result.seconds).c_str(), result.bits_per_weight,
                 bytes_string(result.bytes).c_str()));
    print(format("error %.6g, rounded to nearest %.6g (sums over the modules; %s has each)\n", error, rtn_error,
                 std::string(model::quant_log_name).c_str()));
}

}  // namespace quantizing

/// Calls work(). An interrupt says where the finished blocks are, if there are any.
template <class Work>
auto telling_of_blocks(const std::string& out, const Work& work) {
    try {
        return work();
    } catch (const gptq::cancelled& problem) {
        const std::string partial = std::filesystem::path(out).lexically_normal().string() + ".partial";
        std::error_code ignored;
        if (!std::filesystem::exists(partial, ignored)) throw;
        throw gptq::cancelled(std::string(problem.what()) + "; the same command goes on with what is finished in " +
                              partial);
    }
}

/// run(folder, options, observer) quantizes and says what happened; `note` is one more warning, or empty.
template <class Run>
void run_and_report(const Run& run, const quantize_arguments& arguments, const std::string& note) {
    using namespace quantizing;
    io::refuse_existing(arguments.out);
    const model::quantize_model_options options = options_of(arguments);
    const io::model_folder folder(arguments.model);
    if (!options.ranks.leads()) return static_cast<void>(run(folder, options, model::model_observer_ref()));
    watcher observer;
    model::quantize_result result =
        telling_of_blocks(arguments.out, [&] { return run(folder, options, model::model_observer_ref(observer)); });
    if (!note.empty()) result.warnings.push_back(note);
    for (std::string& warning : model::outstanding_errors(result.modules))
        result.warnings.push_back(std::move(warning));
    observer.finish();
    for (const std::string& warning : result.warnings) observer.on_warning(warning);
    if (arguments.tuned == 0) print_result(arguments, result);
}

/// run(folder, windows, options, observer) is quantize_model on some backend.
template <class Run>
void quantize_with(const Run& run, const quantize_arguments& arguments) {
    // main.cpp lets only rounding to nearest through without a text.
    const bool no_text = arguments.calib.empty();
    const auto with_windows = [&](const io::model_folder& folder, const model::quantize_model_options& options,
                                  model::model_observer_ref observer) {
        const model::token_windows windows = no_text ? quantizing::stand_in_windows(model::read_model_config(folder))
                                                     : quantizing::read_windows(folder, arguments);
        return run(folder, windows, options, observer);
    };
    run_and_report(with_windows, arguments,
                   no_text ? "without --calib, errors are those on 64 tokens from all over the vocabulary" : "");
}

}  // namespace program
