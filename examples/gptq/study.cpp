// gptq study: many ways to quantize a model, and what each costs and loses.
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/quote.hpp>
#include <gptq/study/plan.hpp>
#include <gptq/study/report.hpp>
#include <gptq/study/results.hpp>
#include <gptq/study/run_study.hpp>

#include "commands.hpp"
#include "eval.hpp"
#include "gnuplot.hpp"
#include "helpers.hpp"
#include "interrupt.hpp"
#include "machine.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantize.hpp"
#include "threads.hpp"

namespace program {
namespace {

namespace studies = gptq::study;

/// The parts of a list with commas. Throws option_error for an empty one.
std::vector<std::string> split(const std::string& option, const std::string& list) {
    std::vector<std::string> parts(1);
    for (const char c : list) {
        if (c == ',')
            parts.emplace_back();
        else
            parts.back() += c;
    }
    for (const std::string& part : parts)
        if (part.empty()) throw gptq::option_error(option + " " + list + ": a value is empty");
    return parts;
}

std::vector<int> split_numbers(const std::string& option, const std::string& list) {
    std::vector<int> numbers;
    for (const std::string& part : split(option, list)) {
        const char* end = part.data() + part.size();
        const auto [last, problem] = std::from_chars(part.data(), end, numbers.emplace_back());
        if (problem != std::errc() || last != end)
            throw gptq::option_error(option + ": " + gptq::in_quotes(part) + " is not a whole number");
    }
    return numbers;
}

std::vector<studies::study_axes> axes_of(const study_arguments& a) {
    studies::study_axes axes{.methods = split("--method", a.methods),
                             .bits = split_numbers("--bits", a.bits),
                             .group_sizes = split_numbers("--group-size", a.group_sizes),
                             .grids = split("--grid", a.grids),
                             .orders = split("--order", a.orders),
                             .fixed = a.settings};
    if (!a.format.empty()) axes.format = io::format_of_name(a.format);
    std::vector<studies::study_axes> all = {axes};
    if (!a.plan.empty()) all = studies::axes_from_json(io::read_json<nlohmann::ordered_json>(a.plan), axes, a.plan);
    for (const studies::study_axes& one : all) studies::check_axes(one);
    return all;
}

studies::study_depth depth_of(const study_arguments& a) {
    return a.depth == "layers" ? studies::study_depth::layers : studies::study_depth::model;
}

studies::study_plan plan_of(const study_arguments& a, const studies::study_input& input) {
    studies::study_plan plan;
    for (const studies::study_axes& axes : axes_of(a))
        studies::add_cells(plan, axes, depth_of(a), [&](const studies::study_cell& cell) {
            studies::check_fit(cell, input.config, input.folder);
        });
    if (!plan.cells.empty()) return plan;
    const std::string reason = plan.skipped.empty() ? "it has no cells" : plan.skipped.front().reason;
    throw gptq::option_error("study: nothing of the plan can be done: " + reason);
}

/// The texts are read and tokenized here, once.
studies::study_input input_of(const study_arguments& a, const io::model_folder& folder) {
    studies::study_input input{folder, model::read_model_config(folder), quantizing::read_windows(folder, a), {}, {}};
    const auto tokenizer = model::tokenizer::load(a.model);
    input.evaluation.bos = model::window_bos(input.config, tokenizer);
    input.evaluation.seqlen = a.seqlen != 0 ? a.seqlen : model::customary_window(input.config);
    eval_arguments evaluation;
    evaluation.texts = a.texts;
    evaluation.max_tokens = a.max_tokens;
    for (evaluating::text& text : evaluating::read_texts(tokenizer, a.model, evaluation, !input.evaluation.bos))
        input.texts.push_back({std::filesystem::path(text.path).filename().string(), std::move(text.tokens)});
    for (std::size_t i = 0; i < input.texts.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
            if (input.texts[i].name == input.texts[j].name)
                throw gptq::option_error("--text: two files are called " + input.texts[i].name +
                                         ", and results could not tell them apart; rename one");
    return input;
}

/// Shows how far a study is, and stops it when the user asks.
class study_watcher {
 public:
    explicit study_watcher(std::size_t cells) : cells_(cells) {}

    studies::study_observer observer() {
        return {.on_progress =
                    [this](double fraction, const std::string& doing) {
                        throw_if_interrupted();
                        bar_->update(fraction, doing);
                    },
                .on_cell = [this](const auto& cell, const auto& result, bool here) { tell(cell, result, here); },
                .on_waiting = [](std::size_t) { throw_if_interrupted(); },
                .begin_memory = begin_peak_memory,
                .peak_memory = peak_memory};
    }

    std::size_t computed() const { return computed_; }
    void finish() { bar_.reset(); }

 private:
    void tell(const studies::study_cell& cell, const studies::cell_result& result, bool here) {
        ++done_;
        if (!here) return;
        ++computed_;
        std::string line = format("%zu of %zu: %s, %.3f bits a weight", done_, cells_, studies::label_of(cell).c_str(),
                                  result.bits_per_weight());
        for (const studies::text_score& text : result.texts)
            line += format(", perplexity %.4f on %s", text.result.perplexity, text.name.c_str());
        bar_->step(line);
    }

    std::optional<progress> bar_{std::in_place};
    std::size_t cells_, done_ = 0, computed_ = 0;
};

void write_results(const studies::study_folder& folder, const std::vector<studies::study_row>& rows,
                   const studies::study_plan& plan) {
    folder.write("results.csv", studies::results_csv(rows));
    folder.write("results.json", io::json_text(studies::results_json(rows, plan.skipped, folder.study()),
                                               (folder.path() / "results.json").string()));
    folder.write("report.html", studies::report_html(rows, plan.skipped, folder.study(), run_gnuplot));
}

void print_result(const study_arguments& a, const std::vector<studies::study_row>& rows,
                  const studies::study_plan& plan, std::size_t computed, double seconds) {
    if (a.json) {
        nlohmann::ordered_json all = studies::results_json(rows, plan.skipped, {});
        for (auto& cell : all["cells"]) cell.erase("layers");
        return print_json({{"out", a.out},
                           {"depth", a.depth},
                           {"computed", computed},
                           {"seconds", seconds},
                           {"cells", all["cells"]},
                           {"skipped", all["skipped"]}});
    }
    for (const studies::study_row& row : rows) {
        std::string line =
            format("%-32s %7.3f bits a weight", studies::label_of(row.cell).c_str(), row.result.bits_per_weight());
        for (const studies::text_score& text : row.result.texts)
            line += format("  %10.4f %s", text.result.perplexity, text.name.c_str());
        if (row.result.texts.empty()) line += format("  layer error %.6g", row.result.error());
        print(line + "\n");
    }
    for (const auto& [reason, labels] : studies::by_reason(plan.skipped))
        print("left out: " + labels + ": " + reason + "\n");
    print(format("%s: results.csv, results.json and report.html; %zu of %zu cells computed in %s\n", a.out.c_str(),
                 computed, rows.size(), duration_string(seconds).c_str()));
}

/// Each process has its part of the processors, unless the user says otherwise.
void share_processors(const study_arguments& a) {
    if (a.jobs > 1 && a.threads == 0)
        use_threads(std::max<std::size_t>(1, std::thread::hardware_concurrency() / a.jobs), true);
}

}  // namespace

void check_study(const study_arguments& a) {
    axes_of(a);
    if (a.depth == "model" && a.texts.empty())
        throw gptq::option_error("--depth model measures perplexities: give a --text, or --depth layers");
    if (a.depth == "layers" && a.jobs > 1)
        throw gptq::option_error("--depth layers computes all cells in one pass; leave --jobs out, and give --threads");
}

void study(const study_arguments& a) {
    const model::detail::stopwatch time;
    share_processors(a);
    const io::model_folder folder(a.model);
    const studies::study_input input = input_of(a, folder);
    const studies::study_plan plan = plan_of(a, input);
    const studies::study_folder out(a.out, studies::study_json(input));
    helpers others(a.worker ? 0 : a.jobs - 1);
    studies::study_options options{.depth = depth_of(a), .keep = a.keep, .sensitivity_tokens = a.sensitivity};
    options.machine = machine_json();
    study_watcher watcher(plan.cells.size() + (options.depth == studies::study_depth::model ? 1 : 0));
    const auto rows = studies::run_study(input, out, plan.cells, options, watcher.observer());
    watcher.finish();
    others.wait();
    if (a.worker) return;
    write_results(out, rows, plan);
    print_result(a, rows, plan, watcher.computed(), time.seconds());
}

}  // namespace program
