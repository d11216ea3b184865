// The bodies of <gptq/study/run_study.hpp>.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/folder.hpp>
#include <gptq/study/impl/json_members.hpp>
#include <gptq/study/input.hpp>
#include <gptq/study/layer_pass.hpp>
#include <gptq/study/model_cell.hpp>
#include <gptq/study/run_study.hpp>

namespace gptq::study {
namespace detail {

/// One run of run_study.
class study_run {
 public:
    study_run(const study_input& input, const study_folder& folder, const std::vector<study_cell>& cells,
              const study_options& options, const study_observer& observer)
        : input_(input), folder_(folder), options_(options), observer_(observer) {
        if (options.depth == study_depth::model) add({.method = float_method});
        for (const study_cell& cell : cells) add(cell);
        for (entry& e : entries_) take(e, false);
        left_ = pending();
    }

    std::vector<study_row> run() {
        while (pending() != 0) {
            const bool worked = options_.depth == study_depth::model ? compute_models() : compute_layers();
            if (!worked) wait();
        }
        std::vector<study_row> rows;
        for (entry& e : entries_) rows.push_back({e.cell, *std::move(e.result)});
        return rows;
    }

 private:
    struct entry {
        study_cell cell;
        json identity;
        std::optional<cell_result> result = std::nullopt;
    };

    void add(const study_cell& cell) {
        entries_.push_back({cell, identity_of(folder_.study(), cell_json(cell), options_.depth)});
    }

    std::size_t pending() const {
        return static_cast<std::size_t>(
            std::count_if(entries_.begin(), entries_.end(), [](const entry& e) { return !e.result; }));
    }

    /// Takes a result that is in the folder by now. False where there is none.
    bool take(entry& e, bool here) {
        const auto found = folder_.result(e.identity);
        if (!found) return false;
        e.result = result_from_json(*found, folder_.path().string() + ": " + label_of(e.cell));
        // Names are no part of a cell: they are those of this run.
        for (std::size_t i = 0; i < e.result->texts.size() && i < input_.texts.size(); ++i)
            e.result->texts[i].name = input_.texts[i].name;
        if (observer_.on_cell) observer_.on_cell(e.cell, *e.result, here);
        return true;
    }

    void finish(entry& e, cell_result&& result) {
        result.machine = options_.machine;
        folder_.save(e.identity, result_json(result));
        take(e, true);
    }

    /// `part` of the work on `cells` cells is done.
    void report(double part, std::size_t cells, const std::string& doing) const {
        if (!observer_.on_progress) return;
        const double before = static_cast<double>(left_ - pending());
        observer_.on_progress((before + part * static_cast<double>(cells)) / static_cast<double>(left_), doing);
    }

    void wait() const {
        if (observer_.on_waiting) observer_.on_waiting(pending());
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }

    /// Each cell that nobody else computes. False if there is none.
    bool compute_models() {
        bool worked = false;
        for (entry& e : entries_) {
            if (e.result) continue;
            const auto claim = folder_.claim(e.identity);
            // Looked for with the claim in hand: whoever had it before may have finished.
            if (!claim || take(e, false)) continue;
            finish(e, measure(e));
            // Not before the result is on the disk: a run that is killed then scores the checkpoint again.
            if (!options_.keep) folder_.remove_work(e.identity);
            worked = true;
        }
        return worked;
    }

    cell_result measure(const entry& e) const {
        const auto watch = [&](double part, const std::string& doing) {
            report(part, 1, label_of(e.cell) + ": " + doing);
        };
        if (observer_.begin_memory) observer_.begin_memory();
        const std::filesystem::path work = folder_.work(e.identity);
        cell_result result =
            e.cell.method == float_method ? measure_float(input_, watch) : measure_model(input_, e.cell, work, watch);
        if (observer_.peak_memory) result.peak_bytes = observer_.peak_memory();
        return result;
    }

    /// All cells that nobody else computes, in one pass. False if there is none.
    bool compute_layers() {
        std::vector<cell_claim> claims;
        std::vector<entry*> taken;
        std::vector<layer_cell> cells;
        for (entry& e : entries_) {
            if (e.result) continue;
            auto claim = folder_.claim(e.identity);
            if (!claim || take(e, false)) continue;
            claims.push_back(*std::move(claim));
            taken.push_back(&e);
            cells.push_back({e.cell, begun(e)});
        }
        if (cells.empty()) return false;
        std::optional<sensitivity_probe> probe = begun_probe();
        const std::optional<cell_claim> probe_claim = probe ? claim_probe(*probe) : std::nullopt;
        if (!probe_claim) probe.reset();
        pass(taken, cells, probe);
        return true;
    }

    /// What an earlier run left of a cell.
    cell_result begun(const entry& e) const {
        cell_result result;
        result.quantize_seconds = 0.0;
        if (const auto part = folder_.partial(e.identity)) {
            result = result_from_json(*part, folder_.path().string() + ": " + label_of(e.cell));
            result.quantize_seconds.reset();
        }
        return result;
    }

    json identity(const sensitivity_probe& probe) const {
        return identity_of(folder_.study(), probe_json(probe), study_depth::layers);
    }

    /// The cell of least bits that the solver quantizes; nothing where there is none.
    std::optional<sensitivity_probe> begun_probe() const {
        if (options_.sensitivity_tokens == 0) return std::nullopt;
        const entry* least = nullptr;
        for (const entry& e : entries_)
            if (e.cell.settings.method == quantize_method::gptq &&
                (least == nullptr || e.cell.settings.bits < least->cell.settings.bits))
                least = &e;
        if (least == nullptr) return std::nullopt;
        constexpr std::size_t window = 256;
        sensitivity_probe probe{.cell = least->cell,
                                .windows = std::max<std::size_t>(1, options_.sensitivity_tokens / window),
                                .length = std::min(window, options_.sensitivity_tokens)};
        if (const auto part = folder_.partial(identity(probe)))
            probe.stages = sensitivity_from_json(*part, folder_.path().string() + ": sensitivities");
        return probe;
    }

    /// Nothing where the probe is finished, or another process's.
    std::optional<cell_claim> claim_probe(const sensitivity_probe& probe) const {
        auto claim = folder_.claim(identity(probe));
        if (claim && folder_.result(identity(probe))) claim.reset();
        return claim;
    }

    void pass(const std::vector<entry*>& taken, std::vector<layer_cell>& cells,
              std::optional<sensitivity_probe>& probe) {
        const auto watch = [&](double part, const std::string& doing) { report(part, taken.size(), doing); };
        const auto after_block = [&, time = model::detail::stopwatch()](std::size_t done, std::size_t all) mutable {
            // A block of a small model takes less than its files.
            if (done == all || time.seconds() < 2.0) return;
            for (std::size_t i = 0; i < taken.size(); ++i)
                folder_.save_partial(taken[i]->identity, result_json(cells[i].result));
            if (probe) folder_.save_partial(identity(*probe), sensitivity_json(probe->stages));
            time = {};
        };
        if (observer_.begin_memory) observer_.begin_memory();
        measure_layers(input_, cells, probe ? &*probe : nullptr, watch, after_block);
        if (probe) folder_.save(identity(*probe), sensitivity_json(probe->stages));
        for (std::size_t i = 0; i < taken.size(); ++i) finish(*taken[i], std::move(cells[i].result));
    }

    const study_input& input_;
    const study_folder& folder_;
    const study_options& options_;
    const study_observer& observer_;
    std::vector<entry> entries_;
    std::size_t left_ = 0;  // cells that were not finished at the start
};

/// The cells of the folder's files at a depth, without their results.
inline bool is_of_depth(const json& file, study_depth depth) {
    const json& identity = file["cell"];
    return identity.is_object() && identity.contains("cell") && identity.contains("depth") &&
           identity["depth"] == (depth == study_depth::layers ? "layers" : "model");
}

}  // namespace detail

GPTQ_INLINE std::vector<study_row> run_study(const study_input& input, const study_folder& folder,
                                             const std::vector<study_cell>& cells, const study_options& options,
                                             const study_observer& observer) {
    return detail::study_run(input, folder, cells, options, observer).run();
}

GPTQ_INLINE std::optional<std::vector<stage_sensitivity>> read_sensitivities(const study_folder& folder) {
    std::optional<std::vector<stage_sensitivity>> found;
    int bits = 0;
    const std::string where = folder.path().string() + ": sensitivities";
    for (const auto& file : folder.finished()) {
        if (!detail::is_of_depth(file, study_depth::layers) || !file["cell"]["cell"].contains("sensitivity")) continue;
        const study_cell probe = cell_from_json(file["cell"]["cell"]["sensitivity"], where);
        if (found && probe.settings.bits >= bits) continue;
        bits = probe.settings.bits;
        found = sensitivity_from_json(file["result"], where);
    }
    return found;
}

GPTQ_INLINE std::vector<study_row> read_rows(const study_folder& folder, study_depth depth) {
    std::vector<study_row> rows;
    const std::string where = folder.path().string() + ": cells";
    for (const auto& file : folder.finished())
        if (detail::is_of_depth(file, depth) && !file["cell"]["cell"].contains("sensitivity"))
            rows.push_back({cell_from_json(file["cell"]["cell"], where), result_from_json(file["result"], where)});
    return rows;
}

}  // namespace gptq::study
