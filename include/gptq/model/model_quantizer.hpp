// quantize_model on any backend: the bodies of the template in <gptq/model/quantize_model.hpp>, for those who run it on
// another backend than the CPU's.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <future>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

#include <gptq/communicator.hpp>
#include <gptq/half.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/messages.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/quantized_folder.hpp>
#include <gptq/model/reader_rules.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/model/scale_fold.hpp>
#include <gptq/model/scale_search.hpp>
#include <gptq/model/spared_layers.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/token_weights.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/model/work_queue.hpp>

namespace gptq::model {
namespace detail {

/// The blocks of a folder one after the other, where `ahead` the next one read while somebody works on the last.
class block_reader {
 public:
    block_reader(const model_config& config, const io::model_folder& folder, bool ahead)
        : config_(config), reader_(folder), policy_(ahead ? std::launch::async : std::launch::deferred) {
        begin(0);
    }

    /// Block `index`, which is the one after the last, or the first.
    stored_block take(std::size_t index) {
        stored_block read = next_.get();
        begin(index + 1);
        return read;
    }

 private:
    void begin(std::size_t index) {
        if (index == config_.blocks) return;
        next_ = std::async(policy_, [this, index] { return read_block(config_, reader_, index); });
    }

    const model_config& config_;
    weight_reader reader_;
    std::launch policy_;
    std::future<stored_block> next_;
};

/// The blocks of one run of quantize_model, after the plan was made. The first `restored` blocks, which `record` has
/// already, are passed through with the weights that their codes stand for, and every other one is added to it. Of
/// several ranks, the first has the record, and the others null.
template <ModelBackend B>
class model_quantizer {
 public:
    model_quantizer(const B& backend, const model_config& config, const io::model_folder& folder,
                    const quantization_plan& plan, const quantize_model_options& options, run_record* record,
                    std::size_t restored, model_observer_ref observer, const token_weights* guide)
        : backend_(backend),
          config_(config),
          folder_(folder),
          plan_(plan),
          options_(options),
          record_(record),
          restored_(restored),
          observer_(observer),
          guide_(guide),
          ranks_(options.ranks),
          solver_(backend, options.config.format, observer, {options.ranks, options.sums_in_order}) {
        for (const stage_plan& stage : plan.stages) {
            stage_of_.emplace(stage.modules.front().name, &stage);
            weights_total_ += static_cast<double>(stage.weights());
        }
    }

    /// `share` of the calibration tokens is this rank's, and `places` says where their states are.
    void run(const token_windows& windows, chunk_range share, const chunk_places& places,
             std::optional<io::output_file> file) {
        if (restored_ == plan_.pieces()) return;
        states_type states(backend_, config_, load_embedding(config_, folder_, backend_), windows,
                           options_.config.settings.correct_drift, places, std::move(file), share);
        block_reader blocks(config_, folder_, B::beside_host);
        for (std::size_t i = 0; i < config_.blocks; ++i) {
            quantize_block(i, blocks.take(i), states);
            end_piece(i);
        }
        if (options_.config.lm_head) {
            quantize_head(states);
            end_piece(config_.blocks);
        }
        writing_.finish();
    }

 private:
    using weights = typename B::weights;
    using inputs = stage_inputs<typename B::activation>;
    using states_type = calibration_states<B>;

    void quantize_block(std::size_t index, stored_block&& stored, states_type& states) {
        solver_.begin_block();
        fold_scales_into(index, stored, states);
        std::optional<block_of<B>> float_layer;
        if (states.beside_float()) float_layer.emplace(hold_block(backend_, stored_block(stored)));
        block_of<B> layer = hold_block(backend_, std::move(stored));
        run_block_by_stages(backend_, config_, layer, float_layer ? &*float_layer : nullptr, index, states,
                            [this](stage_modules<weights>& stage, const inputs& x) {
                                pass_stage(stage.modules, *stage_of_.at(stage.names.front()), x);
                            });
    }

    /// A block of an earlier run has the norms and biases that were written then; its weights are what codes stand for.
    void fold_scales_into(std::size_t index, stored_block& stored, states_type& states) {
        std::vector<const stage_plan*> stages;
        bool scales = false;
        for (const block_site& site : stored.what.sites) {
            const stage_plan* stage = stage_of_.at(stored.what.full_name(site.modules.front()));
            stages.push_back(stage);
            scales = scales || (stage->settings && stage->settings->scales_inputs());
        }
        if (!scales) return;
        if (index < restored_) return take_folded(config_, record_->piece(index), stored);
        report_progress(stages.front()->modules.front());
        const block_scaler<B> scaler(backend_, config_, folder_, options_.config.format, std::move(stages));
        folded_ = scaler.scale(stored, index, states);
    }

    /// The head's own drift is left alone: what follows it is the loss, not another layer.
    void quantize_head(states_type& states) {
        const weight_reader reader(folder_);
        const auto layers = hold_head_inputs(backend_, read_head_inputs(config_, reader));
        inputs x;
        x.features = config_.embedding_size;
        x.tokens = states.tokens();
        x.for_each = [&](const auto& look) {
            for (std::size_t c = 0; c < states.chunks(); ++c) {
                const auto read = compute_head_inputs(backend_, layers, config_, states.states(c, 0));
                look({read.view()});
            }
        };
        weights head = backend_.hold(read_head(config_, reader).value());
        pass_stage({&head}, plan_.stages.back(), x);
    }

    /// Modules with a common input get the weights of the quantized model, so that later layers see what it gives them.
    void pass_stage(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        report_progress(plan.modules.front());
        if (plan.settings && plan.layer < restored_)
            restore_stage(modules, plan);
        else if (plan.settings)
            quantize_stage(modules, plan, x);
        weights_done_ += static_cast<double>(plan.weights());
    }

    void restore_stage(const std::vector<weights*>& modules, const stage_plan& plan) {
        std::vector<solved_module> found(modules.size());
        if (ranks_.leads())
            for (std::size_t i = 0; i < modules.size(); ++i)
                found[i].codes = record_->read(plan.layer, options_.config, plan.modules[i].name);
        exchange(found, [](std::size_t) { return std::size_t{0}; });
        for (std::size_t i = 0; i < modules.size(); ++i) solver_.restore(plan, *modules[i], found[i].codes);
    }

    /// Every rank gets module i of rank owner(i).
    template <class Owner>
    void exchange(std::vector<solved_module>& modules, const Owner& owner) const {
        if (ranks_.alone()) return;
        message_writer mine;
        for (std::size_t i = 0; i < modules.size(); ++i)
            if (owner(i) == ranks_.rank()) put(mine, modules[i]);
        const rank_messages given = ranks_.exchange(mine.bytes());
        std::vector<message_reader> theirs(given.begin(), given.end());
        for (std::size_t i = 0; i < modules.size(); ++i)
            if (owner(i) != ranks_.rank()) modules[i] = get_solved(theirs.at(owner(i)));
    }

    void quantize_stage(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        if (!guide_) return quantize_together(modules, plan, x);
        for (std::size_t i = 0; i < modules.size(); ++i) {
            stage_plan alone = plan;
            alone.modules = {plan.modules[i]};
            quantize_together({modules[i]}, alone, weighted_inputs(backend_, x, guide_->of(plan.modules[i].name)));
        }
    }

    /// One Hessian, one factorization. Ranks take turns with the modules.
    void quantize_together(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        const stopwatch shared;
        const stage_statistics<B> statistics = solver_.gather(plan, modules, x);
        notes_.experts_lacking += statistics.lacks_tokens ? 1 : 0;
        const double shared_seconds = shared.seconds() / static_cast<double>(modules.size());
        const auto owner = [this](std::size_t i) { return (turn_ + i) % ranks_.size(); };
        std::vector<solved_module> solved(modules.size());
        for (std::size_t i = 0; i < modules.size(); ++i) {
            if (owner(i) != ranks_.rank()) continue;
            report_progress(plan.modules[i]);
            const stopwatch own;
            solved[i] = solver_.solve(plan, *modules[i], statistics);
            solved[i].record.samples = statistics.tokens;
            solved[i].record.seconds = shared_seconds + own.seconds();
            if (ranks_.alone()) keep(plan, plan.modules[i], std::move(solved[i]));
        }
        if (ranks_.alone()) return;
        exchange(solved, owner);
        for (std::size_t i = 0; i < modules.size(); ++i) {
            if (owner(i) != ranks_.rank()) solver_.restore(plan, *modules[i], solved[i].codes);
            keep(plan, plan.modules[i], std::move(solved[i]));
        }
        turn_ += modules.size();
    }

    void keep(const stage_plan& plan, const module_plan& module, solved_module&& solved) {
        check_scales(module.name, solved.codes);
        if (const auto warning = solver_warning(module.name, solved.codes.report)) notes_.warnings.push_back(*warning);
        solved.record.layer = plan.layer;
        solved.record.module = module.name_in_layer;
        observer_.on_module(solved.record);
        notes_.modules.push_back(std::move(solved.record));
        layers_.emplace_back(module.name, std::move(solved.codes));
    }

    /// What was found since the last piece ended is written, where B is elsewhere beside the work on the next one.
    void end_piece(std::size_t index) {
        if (index < restored_) return;
        auto layers = std::exchange(layers_, {});
        auto notes = std::exchange(notes_, {});
        auto folded = std::exchange(folded_, {});
        if (record_ == nullptr) return;
        writing_.add([this, layers = std::move(layers), notes = std::move(notes), folded = std::move(folded)] {
            record_->add(options_.config.format, layers, notes, folded);
        });
    }

    void report_progress(const module_plan& module) {
        observer_.on_progress(weights_done_ / weights_total_, module.name);
    }

    const B& backend_;
    const model_config& config_;
    const io::model_folder& folder_;
    const quantization_plan& plan_;
    const quantize_model_options& options_;
    run_record* const record_;    // null on all ranks but the first
    const std::size_t restored_;  // pieces of an earlier run
    model_observer_ref observer_;
    const token_weights* guide_;  // null where all tokens count the same
    communicator_ref ranks_;
    std::size_t turn_ = 0;  // modules so far that ranks took turns with
    stage_solver<B> solver_;
    std::unordered_map<std::string, const stage_plan*> stage_of_;  // by the name of its first module
    std::vector<named_layer> layers_;                              // of the piece in hand
    run_notes notes_;                                              // on it
    folded_tensors folded_;                                        // of it
    double weights_total_ = 0.0;
    double weights_done_ = 0.0;
    work_queue writing_{B::beside_host ? std::size_t{1} : std::size_t{0}};  // last: it uses the others
};

/// What computes, as far as it decides the result.
template <ModelBackend B>
std::string arithmetic_of() {
    using number = typename B::activation;
    const char* name = std::is_same_v<number, float> ? "float" : std::is_same_v<number, half> ? "half" : "bfloat16";
    return std::string(name).append(B::beside_host ? " on a device" : " on the host");
}

/// Bytes that a run may take of the memory that B computes in.
template <ModelBackend B>
double memory_budget(const quantize_model_options& options) {
    if (options.memory) return static_cast<double>(*options.memory);
    const double neighbours = static_cast<double>(options.ranks.neighbours());
    return B::beside_host ? std::numeric_limits<double>::infinity() : available_memory() / neighbours;
}

/// Throws communication_error where a rank computes something else than the first, and unsupported_error for what is
/// not divided among ranks.
inline void check_ranks(const quantize_model_options& options, const quantization_plan& plan,
                        const nlohmann::ordered_json& description) {
    if (options.ranks.alone()) return;
    for (const stage_plan& stage : plan.stages)
        if (stage.settings && stage.settings->scales_inputs())
            throw unsupported_error("scales of inputs (awq, smooth) are found by one process; run it alone");
    const std::string mine = description.dump();
    const rank_messages all = options.ranks.exchange(std::as_bytes(std::span(mine)));
    for (std::size_t r = 1; r < all.size(); ++r)
        if (all[r] != all.front())
            throw communication_error("rank " + std::to_string(r) +
                                      " quantizes another model, on another text or with other settings than rank 0");
}

/// A file without a name for what memory does not hold, on the disk of this rank.
inline io::output_file scratch_file(const std::optional<io::run_folder>& run) {
    if (run) return run->scratch();
    return io::unnamed_file(std::filesystem::temp_directory_path(), "gptq-" + std::to_string(::getpid()));
}

/// What quantize_model does, for each rank.
template <ModelBackend B>
quantize_result quantize_as_rank(const io::model_folder& folder, const std::filesystem::path& out,
                                 const token_windows& windows, const quantize_model_options& options,
                                 model_observer_ref observer, const B& backend) {
    const stopwatch watch;
    const communicator_ref& ranks = options.ranks;
    const model_config config = read_model_config(folder);
    const quantization_plan plan = plan_quantization(config, folder, options.config);
    check_windows(config, windows);
    const io::quantization_config described = for_readers(
        spare_others(config, folder, detail::described(options.config, windows)), plan, config.arch.names.blocks);
    const nlohmann::ordered_json description = run_description(described, windows, folder, arithmetic_of<B>());
    check_ranks(options, plan, description);
    std::optional<io::run_folder> run;
    std::optional<run_record> record;
    if (ranks.leads()) {
        run.emplace(out);
        record.emplace(*run, description, options.restart);
    }
    const std::array<std::uint64_t, 1> mine{record ? record->finished() : 0};
    const std::size_t restored = numbers_in<std::uint64_t>(ranks.exchange(std::as_bytes(std::span(mine))).front())[0];
    if (restored != 0) observer.on_resumed(restored, plan.pieces());
    const std::size_t chunk = windows_of_chunk<B>(windows) * windows.length;
    const chunk_range share = chunks_of_rank((windows.tokens.size() + chunk - 1) / chunk, ranks.rank(), ranks.size());
    const std::size_t tokens = std::min(share.last * chunk, windows.tokens.size()) - share.first * chunk;
    const memory_use memory = plan_memory(estimate_memory(config, plan, options.config.settings.correct_drift), tokens,
                                          chunk, memory_budget<B>(options), options.memory.has_value());
    auto warnings = run_warnings(folder, config, plan, windows);
    if (!memory.warning.empty()) warnings.push_back(memory.warning);
    for (const std::string& warning : warnings) observer.on_warning(warning);
    if (ranks.leads()) {
        check_space(folder, plan, *run, memory.file_bytes);
        check_numbers(config, folder, plan);
    }
    std::optional<io::output_file> file;
    if (memory.file_bytes != 0) file.emplace(scratch_file(run));
    std::optional<token_weights> guide;
    if (options.config.settings.guided && restored != plan.pieces())
        guide.emplace(folder, windows, [&] { observer.on_progress(0.0, "the loss"); });
    model_quantizer<B>(backend, config, folder, plan, options, record ? &*record : nullptr, restored, observer,
                       guide ? &*guide : nullptr)
        .run(windows, share, memory.places, std::move(file));
    quantize_result result;
    if (ranks.leads()) result = write_result(*run, *record, folder, plan, described, config.ignores_tying);
    ranks.exchange({});  // all is written when any rank returns
    result.warnings.insert(result.warnings.begin(), warnings.begin(), warnings.end());
    result.seconds = watch.seconds();
    return result;
}

}  // namespace detail

template <ModelBackend B>
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer, const B& backend) {
    try {
        return detail::quantize_as_rank(folder, out, windows, options, observer, backend);
    } catch (const std::exception& problem) {
        options.ranks.fail(problem.what());
        throw;
    }
}

}  // namespace gptq::model
