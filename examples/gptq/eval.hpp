// gptq eval: the perplexity of a model on texts, and how it compares with the model that it was made from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/tokenizer.hpp>
#include <gptq/model/window_length.hpp>

#include "commands.hpp"
#include "dump.hpp"
#include "interrupt.hpp"
#include "load_decoder.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "text_file.hpp"

namespace program {

namespace model = gptq::model;

namespace evaluating {

/// A text of the command line.
struct text {
    std::string path;
    std::vector<std::int32_t> tokens;
};

/// `whole`: with what the tokenizer adds to a text.
inline std::vector<text> read_texts(const model::tokenizer& tokenizer, const std::string& folder,
                                    const eval_arguments& arguments, bool whole) {
    std::vector<text> texts;
    for (const std::string& path : arguments.texts) {
        const std::string content = read_text(path, tokenizer, folder);
        texts.push_back({path, whole ? tokenizer.encode_whole(content) : tokenizer.encode(content)});
        auto& tokens = texts.back().tokens;
        if (tokens.size() < 2)
            throw gptq::shape_error("text " + path + ": has " + std::to_string(tokens.size()) +
                                    " tokens; at least two are needed");
        if (arguments.max_tokens != 0) tokens.resize(std::min(tokens.size(), arguments.max_tokens));
    }
    return texts;
}

/// Perplexities of the same text in other tokens say nothing about each other.
inline void require_same_tokens(const std::vector<text>& texts, const eval_arguments& arguments, bool whole) {
    const std::vector<text> others =
        read_texts(model::tokenizer::load(arguments.baseline), arguments.baseline, arguments, whole);
    for (std::size_t i = 0; i < texts.size(); ++i)
        if (texts[i].tokens != others[i].tokens)
            throw gptq::unsupported_error(
                arguments.model + " and " + arguments.baseline + " make different tokens of " + texts[i].path + " (" +
                std::to_string(texts[i].tokens.size()) + " and " + std::to_string(others[i].tokens.size()) +
                "), so that their perplexities cannot be compared; give the model that it "
                "was made from as --baseline");
}

/// The log of the quantization that made the model; empty where there is none, or not one of ours.
inline std::vector<model::module_record> records_of(const std::string& folder) {
    try {
        return model::read_quant_log(std::filesystem::path(folder) / model::quant_log_name);
    } catch (const gptq::error&) {
        return {};  // other programs' checkpoints are compared without naming modules
    }
}

inline nlohmann::ordered_json json_of(const model::comparison& c) {
    auto worst = nlohmann::ordered_json::array();
    for (const model::module_record& r : c.worst)
        worst.push_back({{"layer", r.layer}, {"module", r.module}, {"relative_error", r.relative_error}});
    return {{"baseline_perplexity", c.before},
            {"increase_percent", 100.0 * c.increase},
            {"large_increase", c.large},
            {"worst_modules", worst}};
}

inline nlohmann::ordered_json json_of(const model::perplexity_result& r) {
    nlohmann::ordered_json json = {{"perplexity", r.perplexity}, {"nll", r.nll},         {"standard_error", nullptr},
                                   {"tokens", r.tokens},         {"windows", r.windows}, {"seconds", r.seconds}};
    if (r.standard_error) json["standard_error"] = *r.standard_error;
    return json;
}

inline std::string line_of(const std::string& name, const model::perplexity_result& r) {
    const std::string error = r.standard_error ? format(" (standard error %.4f)", *r.standard_error) : "";
    return format("%s: perplexity %.4f%s, %zu tokens scored in %s\n", name.c_str(), r.perplexity, error.c_str(),
                  r.tokens, duration_string(r.seconds).c_str());
}

/// What a run of the subcommand holds.
template <gptq::model::ModelBackend B>
class evaluation {
 public:
    evaluation(const eval_arguments& arguments, const B& backend)
        : arguments_(arguments),
          folder_(arguments.model),
          tokenizer_(model::tokenizer::load(arguments.model)),
          bos_(model::window_bos(model::parse_model_config(folder_.config(), (folder_.path() / "config.json").string()),
                                 tokenizer_)),
          texts_(read_texts(tokenizer_, arguments.model, arguments, whole_texts())),
          decoder_(load_decoder(folder_, arguments, backend, arguments.adapters)) {
        if (!arguments.baseline.empty()) {
            require_same_tokens(texts_, arguments, whole_texts());
            baseline_.emplace(load_decoder(gptq::io::model_folder(arguments.baseline), arguments, backend, {}));
        }
        options_.bos = bos_;
        options_.seqlen = arguments.seqlen;
        if (options_.seqlen == 0) options_.seqlen = model::customary_window(decoder_.config());
        if (const auto warning = model::window_warning(decoder_.config(), options_.seqlen)) {
            warn(*warning);
            warnings_.push_back(*warning);
        }
    }

    /// Members of the JSON object that do not depend on the text.
    nlohmann::ordered_json settings() const {
        nlohmann::ordered_json json = {{"model", arguments_.model}, {"seqlen", options_.seqlen}};
        json["settings"] = {{"activation", arguments_.activation}, {"head_8bit", arguments_.head_in_8_bits},
                            {"device", arguments_.device},         {"max_tokens", nullptr},
                            {"bos", options_.bos.has_value()},     {"special_tokens", arguments_.special_tokens}};
        if (arguments_.max_tokens != 0) json["settings"]["max_tokens"] = arguments_.max_tokens;
        if (!arguments_.adapters.empty()) json["settings"]["adapters"] = arguments_.adapters;
        if (baseline_) json["baseline"] = arguments_.baseline;
        json["warnings"] = warnings_;
        return json;
    }

    /// Scores one text: what to print, and as JSON.
    std::pair<std::string, nlohmann::ordered_json> run(const text& scored) const {
        nlohmann::ordered_json json = {{"text", scored.path}};
        progress bar;
        const auto watch = [&](std::size_t done, std::size_t total) { show(bar, scored.path, done, total); };
        const std::string name = texts_.size() == 1 ? arguments_.model : arguments_.model + " on " + scored.path;
        if (!baseline_) {
            const auto result = model::evaluate_perplexity(decoder_, scored.tokens, options_, watch);
            json.update(json_of(result));
            return {line_of(name, result), json};
        }
        const auto pair = model::evaluate_pair(decoder_, *baseline_, scored.tokens, options_, watch);
        const auto comparison =
            model::compare(pair.baseline.perplexity, pair.model.perplexity, records_of(arguments_.model));
        json.update(json_of(pair.model));
        json.update(json_of(comparison));
        json["kl_divergence"] = pair.agreement.kl_divergence;
        json["same_top"] = pair.agreement.same_top;
        return {
            line_of(name, pair.model) + model::describe(comparison) +
                format("KL divergence from the baseline %.6f nats a token; the same most likely token for %.2f %%\n",
                       pair.agreement.kl_divergence, 100.0 * pair.agreement.same_top),
            json};
    }

    /// Writes what --dump asks for, of the first window of the first text.
    void dump() const {
        const auto& all = texts_.front().tokens;
        std::vector<std::int32_t> window(
            all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(options_.seqlen, all.size())));
        if (bos_) window.insert(window.begin(), *bos_);
        write_dump(decoder_, window, arguments_.dump, arguments_.dump_to);
    }

    const std::vector<text>& texts() const { return texts_; }

 private:
    /// A token at the head of each window takes the place of one at the head of the text.
    bool whole_texts() const { return arguments_.special_tokens && !bos_; }

    void show(progress& bar, const std::string& path, std::size_t done, std::size_t total) const {
        throw_if_interrupted();
        bar.update(static_cast<double>(done) / static_cast<double>(total), path);
        if (done == total || done * 10 / total != (done - 1) * 10 / total)
            bar.step(format("%s: window %zu of %zu", path.c_str(), done, total));
    }

    const eval_arguments& arguments_;
    gptq::io::model_folder folder_;
    model::tokenizer tokenizer_;
    std::optional<std::int32_t> bos_;  // at the head of each window
    std::vector<text> texts_;
    model::basic_decoder<B> decoder_;
    std::optional<model::basic_decoder<B>> baseline_;
    model::perplexity_options options_;
    std::vector<std::string> warnings_;
};

}  // namespace evaluating

/// With one text, its results stand beside the settings; with several, in a list "texts".
template <gptq::model::ModelBackend B>
void eval_on(const B& backend, const eval_arguments& arguments) {
    const evaluating::evaluation<B> run(arguments, backend);
    if (!arguments.dump.empty()) run.dump();
    nlohmann::ordered_json json = run.settings();
    for (const evaluating::text& scored : run.texts()) {
        const auto [line, result] = run.run(scored);
        if (!arguments.json) print(line);
        if (run.texts().size() == 1)
            json.update(result);
        else
            json["texts"].push_back(result);
    }
    if (arguments.json) print_json(json);
}

}  // namespace program
