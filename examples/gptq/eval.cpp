// gptq eval: the perplexity of a model on a text.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/tokenizer.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "load_decoder.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "text_file.hpp"

namespace program {
namespace {

namespace model = gptq::model;

model::perplexity_result evaluate(const std::string& path, const eval_arguments& arguments) {
    const gptq::io::model_folder folder(path);
    const auto tokenizer = model::tokenizer::load(path);
    std::vector<std::int32_t> tokens = tokenizer.encode(read_text(arguments.text));
    if (tokens.size() < 2)
        throw gptq::shape_error("text " + arguments.text + ": has " + std::to_string(tokens.size()) +
                                " tokens; at least two are needed");
    if (arguments.max_tokens != 0) tokens.resize(std::min(tokens.size(), arguments.max_tokens));
    const auto decoder = load_decoder(folder, arguments);
    model::perplexity_options options{.seqlen = arguments.seqlen};
    options.bos = model::window_bos(decoder.config(), tokenizer);
    progress bar;
    return model::evaluate_perplexity(decoder, tokens, options, [&](std::size_t done, std::size_t total) {
        throw_if_interrupted();
        bar.update(static_cast<double>(done) / static_cast<double>(total), path);
        if (done == total || done * 10 / total != (done - 1) * 10 / total)
            bar.step(format("%s: window %zu of %zu", path.c_str(), done, total));
    });
}

/// The log of the quantization that made the model; empty where there is none, or not one of ours.
std::vector<model::module_record> records_of(const std::string& folder) {
    try {
        return model::read_quant_log(std::filesystem::path(folder) / model::quant_log_name);
    } catch (const gptq::error&) {
        return {};  // other programs' checkpoints are compared without naming modules
    }
}

nlohmann::ordered_json json_of(const model::comparison& c) {
    auto worst = nlohmann::ordered_json::array();
    for (const model::module_record& r : c.worst)
        worst.push_back({{"layer", r.layer}, {"module", r.module}, {"relative_error", r.relative_error}});
    return {{"baseline_perplexity", c.before},
            {"increase_percent", 100.0 * c.increase},
            {"large_increase", c.large},
            {"worst_modules", worst}};
}

}  // namespace

void eval(const eval_arguments& arguments) {
    const model::perplexity_result result = evaluate(arguments.model, arguments);
    nlohmann::ordered_json json = {
        {"perplexity", result.perplexity}, {"nll", result.nll}, {"tokens", result.tokens}, {"seconds", result.seconds}};
    std::string text = format("%s: perplexity %.4f, %zu tokens scored in %s\n", arguments.model.c_str(),
                              result.perplexity, result.tokens, duration_string(result.seconds).c_str());
    if (!arguments.baseline.empty()) {
        const model::perplexity_result before = evaluate(arguments.baseline, arguments);
        const auto comparison = model::compare(before.perplexity, result.perplexity, records_of(arguments.model));
        json.update(json_of(comparison));
        text += model::describe(comparison);
    }
    arguments.json ? print_json(json) : print(text);
}

}  // namespace program
