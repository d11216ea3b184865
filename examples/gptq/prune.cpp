// gptq prune: writes a copy of a float model in which many weights are 0.
#include <charconv>
#include <cstddef>
#include <string>

#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/prune_model.hpp>
#include <gptq/prune.hpp>

#include "commands.hpp"
#include "output.hpp"
#include "quantize.hpp"

namespace program {
namespace {

/// All of `text` as a number; false where it is none.
template <class T>
bool read_number(const std::string& text, T& number) {
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    return problem == std::errc() && end == text.data() + text.size();
}

/// "2:4" or "0.5".
gptq::sparsity_pattern pattern_of(const std::string& text) {
    const std::size_t colon = text.find(':');
    gptq::sparsity_pattern pattern;
    const bool read = colon == std::string::npos
                          ? read_number(text, pattern.share)
                          : read_number(text.substr(0, colon), pattern.kept) &&
                                read_number(text.substr(colon + 1), pattern.of) && pattern.of > 0;
    if (!read)
        throw gptq::option_error("--sparsity " + text +
                                 ": give a share of the weights, such as 0.5, or how many of how "
                                 "many neighbours stay, such as 2:4");
    return pattern;
}

void print_pruned(const prune_arguments& arguments, const model::prune_result& result) {
    double error = 0.0, by_magnitude = 0.0;
    for (const model::module_record& r : result.modules) {
        error += r.error;
        by_magnitude += r.rtn_error;
    }
    if (arguments.json)
        return print_json({{"out", arguments.out},
                           {"sparsity", arguments.sparsity},
                           {"modules", result.modules.size()},
                           {"zeros", result.zeros},
                           {"bytes", result.bytes},
                           {"error", error},
                           {"magnitude_error", by_magnitude},
                           {"warnings", result.warnings}});
    print(format("%s: %zu modules, %.2f %% of their weights are 0, %s of tensors\n", arguments.out.c_str(),
                 result.modules.size(), 100.0 * result.zeros, bytes_string(result.bytes).c_str()));
    print(format("error %.6g, pruned by magnitude %.6g (sums over the modules)\n", error, by_magnitude));
}

}  // namespace

void prune(const prune_arguments& arguments) {
    io::refuse_existing(arguments.out);
    model::prune_model_options options{.pattern = pattern_of(arguments.sparsity),
                                       .by_magnitude = arguments.method == "magnitude"};
    const io::model_folder folder(arguments.model);
    const model::token_windows windows = quantizing::read_windows(folder, arguments);
    quantizing::watcher observer;
    const model::prune_result result = model::prune_model(folder, arguments.out, windows, options, observer);
    observer.finish();
    for (const std::string& warning : result.warnings) observer.on_warning(warning);
    print_pruned(arguments, result);
}

}  // namespace program
