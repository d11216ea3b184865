// quantize_model on any backend: the bodies of the template in <gptq/model/quantize_model.hpp>, for those who run it on
// another backend than the CPU's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <future>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/half.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/run_folder.hpp>
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

/// The blocks of one run of quantize_model, after the plan was made. Blocks that `record` has already are passed
/// through with the weights that their codes stand for, and every other one is added to it.
template <ModelBackend B>
class model_quantizer {
 public:
    model_quantizer(const B& backend, const model_config& config, const io::model_folder& folder,
                    const quantization_plan& plan, const quantize_model_options& options, run_record& record,
                    model_observer_ref observer, const token_weights* guide)
        : backend_(backend),
          config_(config),
          folder_(folder),
          plan_(plan),
          options_(options),
          record_(record),
          restored_(record.finished()),
          observer_(observer),
          guide_(guide),
          solver_(backend, options.config.format, observer) {
        for (const stage_plan& stage : plan.stages) {
            stage_of_.emplace(stage.modules.front().name, &stage);
            weights_total_ += static_cast<double>(stage.weights());
        }
    }

    /// `places` says where the states of the calibration tokens are.
    void run(const token_windows& windows, const chunk_places& places, std::optional<io::output_file> file) {
        if (restored_ == plan_.pieces()) return;
        states_type states(backend_, config_, load_embedding(config_, folder_, backend_), windows,
                           options_.config.settings.correct_drift, places, std::move(file));
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
        if (index < restored_) return take_folded(config_, record_.piece(index), stored);
        std::vector<const stage_plan*> stages;
        bool scales = false;
        for (const block_site& site : stored.what.sites) {
            const stage_plan* stage = stage_of_.at(stored.what.full_name(site.modules.front()));
            stages.push_back(stage);
            scales = scales || (stage->settings && stage->settings->scales_inputs());
        }
        if (!scales) return;
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
        for (std::size_t i = 0; i < modules.size(); ++i)
            solver_.restore(plan, *modules[i], record_.read(plan.layer, options_.config, plan.modules[i].name));
    }

    void quantize_stage(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        if (!guide_) return quantize_together(modules, plan, x);
        for (std::size_t i = 0; i < modules.size(); ++i) {
            stage_plan alone = plan;
            alone.modules = {plan.modules[i]};
            quantize_together({modules[i]}, alone, weighted_inputs(backend_, x, guide_->of(plan.modules[i].name)));
        }
    }

    /// One Hessian, one factorization.
    void quantize_together(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        const stopwatch shared;
        const stage_statistics<B> statistics = solver_.gather(plan, modules, x);
        notes_.experts_lacking += statistics.lacks_tokens ? 1 : 0;
        const double shared_seconds = shared.seconds() / static_cast<double>(modules.size());
        for (std::size_t i = 0; i < modules.size(); ++i) {
            report_progress(plan.modules[i]);
            const stopwatch own;
            solved_module solved = solver_.solve(plan, *modules[i], statistics);
            solved.record.samples = statistics.tokens;
            solved.record.seconds = shared_seconds + own.seconds();
            keep(plan, plan.modules[i], std::move(solved));
        }
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
        writing_.add(
            [this, layers = std::exchange(layers_, {}), notes = std::exchange(notes_, {}),
             folded = std::exchange(folded_, {})] { record_.add(options_.config.format, layers, notes, folded); });
    }

    void report_progress(const module_plan& module) {
        observer_.on_progress(weights_done_ / weights_total_, module.name);
    }

    const B& backend_;
    const model_config& config_;
    const io::model_folder& folder_;
    const quantization_plan& plan_;
    const quantize_model_options& options_;
    run_record& record_;
    const std::size_t restored_;  // pieces of an earlier run
    model_observer_ref observer_;
    const token_weights* guide_;  // null where all tokens count the same
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
    return B::beside_host ? std::numeric_limits<double>::infinity() : available_memory();
}

}  // namespace detail

template <ModelBackend B>
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer, const B& backend) {
    const detail::stopwatch watch;
    const model_config config = read_model_config(folder);
    const quantization_plan plan = plan_quantization(config, folder, options.config);
    detail::check_windows(config, windows);
    const io::quantization_config described = spare_others(config, folder, detail::described(options.config, windows));
    io::run_folder run(out);
    run_record record(run, run_description(described, windows, folder, detail::arithmetic_of<B>()), options.restart);
    if (record.finished() != 0) observer.on_resumed(record.finished(), plan.pieces());
    const memory_use memory = plan_memory(estimate_memory(config, plan, options.config.settings.correct_drift),
                                          windows.tokens.size(), windows_of_chunk<B>(windows) * windows.length,
                                          detail::memory_budget<B>(options), options.memory.has_value());
    detail::check_space(folder, plan, run, memory.file_bytes);
    auto warnings = detail::run_warnings(folder, config, plan, windows);
    if (!memory.warning.empty()) warnings.push_back(memory.warning);
    for (const std::string& warning : warnings) observer.on_warning(warning);
    detail::check_numbers(config, folder, plan);
    std::optional<io::output_file> file;
    if (memory.file_bytes != 0) file.emplace(run.scratch());
    std::optional<token_weights> guide;
    if (options.config.settings.guided && record.finished() != plan.pieces())
        guide.emplace(folder, windows, [&] { observer.on_progress(0.0, "the loss"); });
    detail::model_quantizer<B>(backend, config, folder, plan, options, record, observer, guide ? &*guide : nullptr)
        .run(windows, memory.places, std::move(file));
    quantize_result result = detail::write_result(run, record, folder, plan, described, config.ignores_tying);
    result.warnings.insert(result.warnings.begin(), warnings.begin(), warnings.end());
    result.seconds = watch.seconds();
    return result;
}

}  // namespace gptq::model
