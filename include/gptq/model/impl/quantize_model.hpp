// The bodies of <gptq/model/quantize_model.hpp>.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/stage_statistics.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

GPTQ_INLINE void model_observer_ref::on_progress(double fraction, const std::string& doing) const {
    if (observer_ != nullptr) on_progress_(observer_, fraction, doing);
}

GPTQ_INLINE void model_observer_ref::on_module(const module_record& record) const {
    if (observer_ != nullptr) on_module_(observer_, record);
}

GPTQ_INLINE void model_observer_ref::on_columns(std::size_t done, std::size_t total) const {
    if (observer_ != nullptr) on_columns_(observer_, done, total);
}

GPTQ_INLINE void model_observer_ref::on_warning(const std::string& warning) const {
    if (observer_ != nullptr) on_warning_(observer_, warning);
}

}  // namespace gptq::model

namespace gptq::model {
namespace detail {

class stopwatch {
 public:
    double seconds() const { return std::chrono::duration<double>(clock::now() - start_).count(); }

 private:
    using clock = std::chrono::steady_clock;
    clock::time_point start_ = clock::now();
};

/// Schemes that a checkpoint can ask for; others would only cost compile time.
template <int Bits, class Grid>
inline constexpr bool storable_scheme = (Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8) &&
                                        !std::is_same_v<Grid, searched<symmetric>> &&
                                        !std::is_same_v<Grid, searched<asymmetric>>;

/// Calls f.template operator()<S>() with the bits and the grid of `config`. S says nothing of the order, which the
/// solver takes from the factored Hessian: an instance for each order would be the same code four times.
template <class F>
void visit_storable_scheme(const scheme_config& config, F&& f) {
    visit_bits(config.bits, [&]<int Bits>() {
        visit_grid(config.grid, [&]<class Grid>() {
            if constexpr (storable_scheme<Bits, Grid>)
                f.template operator()<scheme<Bits, group_size<dynamic>, Grid>>();
            else
                throw unsupported_error("no checkpoint format holds this scheme");
        });
    });
}

/// Factors a Hessian for an order known at run time.
inline stage_factor factorize_for(order_kind order, const hessian<float>& h, const quantize_options& options) {
    return visit_order(
        order, [&]<class Order>() { return factorize<scheme<4, group_size<dynamic>, symmetric, Order>>(h, options); });
}

/// One run of quantize_model, after the plan was made.
class model_quantizer {
 public:
    model_quantizer(const model_config& config, const io::model_folder& folder, const quantization_plan& plan,
                    const quantize_model_options& options, io::folder_writer& writer, model_observer_ref observer)
        : config_(config), folder_(folder), plan_(plan), options_(options), writer_(writer), observer_(observer) {
        result_.warnings = plan.warnings;
        for (const stage_plan& stage : plan.stages) {
            stage_of_.emplace(stage.modules.front().name, &stage);
            weights_total_ += static_cast<double>(stage.weights());
        }
    }

    quantize_result run(const token_windows& windows) {
        if (const auto warning = window_warning(config_, windows.length)) result_.warnings.push_back(*warning);
        warn_about_samples(windows);
        activations hidden = embed(config_, load_embedding(config_, folder_), windows.tokens, windows.length);
        activations float_hidden;
        if (options_.quality.correct_drift) float_hidden = hidden;
        for (std::size_t i = 0; i < config_.blocks; ++i) quantize_block(i, hidden, float_hidden);
        if (options_.config.lm_head) quantize_head(hidden);
        copy_other_tensors();
        if (quantized_weights_ > 0.0) result_.bits_per_weight = packed_bits_ / quantized_weights_;
        return std::move(result_);
    }

 private:
    void warn_about_samples(const token_windows& windows) {
        std::size_t widest = 0;
        for (const stage_plan& stage : plan_.stages)
            if (stage.settings) widest = std::max(widest, stage.modules.front().in_features);
        if (windows.tokens.size() < widest && options_.method == quantize_method::gptq)
            result_.warnings.push_back("only " + std::to_string(windows.tokens.size()) +
                                       " tokens of calibration text for layers of up to " + std::to_string(widest) +
                                       " inputs; several times as many tokens as inputs are advisable");
    }

    void quantize_block(std::size_t index, activations& hidden, activations& float_hidden) {
        block layer = load_block(config_, folder_, index);
        const auto on_stage = [this](stage_modules& stage, const paired_inputs& inputs) {
            quantize_stage(stage.modules, *stage_of_.at(stage.names.front()), inputs);
        };
        if (options_.quality.correct_drift) {
            const block float_layer = layer;
            run_block_beside_float(config_, layer, float_layer, index, hidden, float_hidden, on_stage);
        } else {
            run_block_by_stages(config_, layer, index, hidden,
                                [&](stage_modules& stage, matrix_view<const float> inputs) {
                                    on_stage(stage, {inputs, {}, {}, {}});
                                });
        }
    }

    /// The head's own drift is left alone: what follows it is the loss, not another layer.
    void quantize_head(const activations& hidden) {
        const tensor2<float> inputs = load_head_inputs(config_, folder_)(config_, view_of(hidden.states));
        linear head = load_head(config_, folder_).value();
        quantize_stage({&head}, plan_.stages.back(), {view_of(inputs), {}, {}, {}});
    }

    /// Modules with a common input: one Hessian, one factorization.
    void quantize_stage(const std::vector<linear*>& modules, const stage_plan& plan, const paired_inputs& inputs) {
        report_progress(plan.modules.front());
        if (plan.settings) {
            const stopwatch shared;
            const stage_statistics statistics = gather(plan, modules, inputs);
            const double shared_seconds = shared.seconds() / static_cast<double>(modules.size());
            for (std::size_t i = 0; i < modules.size(); ++i)
                quantize_module(plan, plan.modules[i], modules[i]->weight, statistics, shared_seconds);
        }
        weights_done_ += static_cast<double>(plan.weights());
    }

    /// Replaces `weight` by what its codes stand for, so that later layers see what the quantized model gives them.
    void quantize_module(const stage_plan& plan, const module_plan& module, tensor2<float>& weight,
                         const stage_statistics& statistics, double shared_seconds) {
        report_progress(module);
        const stopwatch own;
        const quantize_options options = options_for(*plan.settings);
        quantized_layer rounded, q;
        visit_storable_scheme(plan.settings->scheme,
                              [&]<class S>() { rounded = round_to_nearest<S>(weight, options); });
        module_record record;
        const tensor2<float> original = weight;
        if (statistics.factor) {
            if (statistics.drift) record.drift_share = correct_drift(view_of(weight), *statistics.drift);
            visit_storable_scheme(solver_scheme(*plan.settings),
                                  [&]<class S>() { q = quantize<S>(weight, *statistics.factor, options, observer_); });
        } else {
            q = rounded;
        }
        measure(record, original, weight, q, rounded, statistics.H);
        weight = dequantize(q);
        write(module, q);
        record.layer = plan.layer;
        record.module = module.name_in_layer;
        record.seconds = shared_seconds + own.seconds();
        warn_about_solver(module.name, q.report);
        observer_.on_module(record);
        result_.modules.push_back(std::move(record));
    }

    quantize_options options_for(const stage_settings& settings) const {
        const quality_options& quality = options_.quality;
        return {.damp_percent = settings.damp_percent,
                .choose_damping = quality.choose_damping,
                .group_size = settings.scheme.group_size,
                .refine = {quality.refine_rounds, quality.refine_scales, quality.refine_codes},
                .candidates = quality.candidates};
    }

    /// The scheme of a module as the solver is to fit it: the same file, another way to choose the grids.
    scheme_config solver_scheme(const stage_settings& settings) const {
        scheme_config scheme = settings.scheme;
        if (options_.quality.search_by_loss) scheme.grid = searching_by_loss(scheme.grid);
        return scheme;
    }

    stage_statistics gather(const stage_plan& plan, const std::vector<linear*>& modules,
                            const paired_inputs& inputs) const {
        std::vector<matrix_view<const float>> weights;
        for (const linear* module : modules) weights.push_back(view_of(module->weight));
        const auto factorize = [&](const hessian<float>& h, std::optional<double> damp_percent = std::nullopt) {
            quantize_options options = options_for(*plan.settings);
            if (damp_percent) options.damp_percent = *damp_percent;
            options.choose_damping = options.choose_damping && !damp_percent;
            return factorize_for(plan.settings->scheme.order, h, options);
        };
        try {
            return gather_statistics(inputs, weights, options_.method == quantize_method::gptq, factorize);
        } catch (const non_finite_error& problem) {
            throw non_finite_error(plan.modules.front().name + ": " + problem.what());
        }
    }

    /// `weight` are the module's own weights, `target` what the solver was given in their place. The rounded layer is
    /// measured against the weights, the solver's against its target.
    void measure(module_record& record, const tensor2<float>& weight, const tensor2<float>& target,
                 const quantized_layer& q, const quantized_layer& rounded, const hessian<float>& h) const {
        record.samples = h.samples();
        record.damp_percent = q.report.rounded_to_nearest ? 0.0 : q.report.damp_percent;
        record.rtn_error = layer_error(weight, rounded, h);
        record.error = options_.method == quantize_method::gptq ? layer_error(target, q, h) : record.rtn_error;
        const double energy = output_error(view_of(weight), h);
        record.relative_error = energy > 0.0 ? record.error / energy : 0.0;
    }

    void warn_about_solver(const std::string& name, const solve_report& report) {
        if (report.rounded_to_nearest)
            result_.warnings.push_back(name + ": rounded to nearest, no damping made its Hessian positive definite");
        else if (report.failed_factorizations > 0)
            result_.warnings.push_back(name + ": its Hessian needed a damping of " +
                                       number_string(report.damp_percent) + "; " +
                                       std::to_string(report.failed_factorizations) + " smaller ones did not do");
    }

    void write(const module_plan& module, const quantized_layer& q) {
        check_scales(module.name, q);
        const std::uint64_t before = writer_.tensor_bytes();
        io::write_quantized(writer_, options_.config.format, module.name, q);
        packed_bits_ += 8.0 * static_cast<double>(writer_.tensor_bytes() - before);
        quantized_weights_ += static_cast<double>(module.out_features * module.in_features);
        written_.insert(module.name + std::string(weight_suffix));
    }

    /// Everything that was not quantized, byte for byte.
    void copy_other_tensors() {
        for (const std::string& name : folder_.tensor_names()) {
            if (written_.contains(name)) continue;
            const io::tensor_info& tensor = folder_.tensor(name);
            writer_.add_tensor(name, tensor.dtype, tensor.shape, tensor.bytes);
        }
    }

    void report_progress(const module_plan& module) {
        observer_.on_progress(weights_done_ / weights_total_, module.name);
    }

    const model_config& config_;
    const io::model_folder& folder_;
    const quantization_plan& plan_;
    const quantize_model_options& options_;
    io::folder_writer& writer_;
    model_observer_ref observer_;
    std::unordered_map<std::string, const stage_plan*> stage_of_;  // by the name of its first module
    std::unordered_set<std::string> written_;                      // tensors of the source that were replaced
    quantize_result result_;
    double weights_total_ = 0.0;
    double weights_done_ = 0.0;
    double quantized_weights_ = 0.0;
    double packed_bits_ = 0.0;
};

inline void check_windows(const model_config& config, const token_windows& windows) {
    if (windows.count() == 0 || windows.tokens.size() % windows.length != 0)
        throw shape_error("calibration: " + std::to_string(windows.tokens.size()) +
                          " tokens are not one or more windows of " + std::to_string(windows.length));
    for (const std::int32_t id : windows.tokens)
        if (id < 0 || static_cast<std::size_t>(id) >= config.vocab_size)
            throw shape_error("calibration: token " + std::to_string(id) + " is not in the model's vocabulary of " +
                              std::to_string(config.vocab_size) + "; is the tokenizer that of another model?");
}

/// Bytes that the quantized tensors of a stage take, within a few bytes a module.
inline std::uintmax_t packed_bytes(const stage_plan& stage) {
    std::uintmax_t bytes = 0;
    for (const module_plan& m : stage.modules) {
        const std::size_t groups =
            group_count(m.in_features, group_size<dynamic>::features(m.in_features, stage.settings->scheme.group_size));
        const auto bits = static_cast<std::size_t>(stage.settings->scheme.bits);
        bytes +=
            (m.out_features * (m.in_features + groups) * bits) / 8 + 2 * m.out_features * groups + 4 * m.in_features;
    }
    return bytes;
}

/// Refuses a disk that cannot hold the result, before the work rather than after it.
inline void check_space(const io::model_folder& folder, const quantization_plan& plan,
                        const std::filesystem::path& out) {
    std::uintmax_t needed = 0;
    for (const std::string& name : folder.tensor_names()) needed += folder.tensor(name).bytes.size();
    for (const stage_plan& stage : plan.stages) {
        if (!stage.settings) continue;
        for (const module_plan& m : stage.modules)
            needed -= folder.tensor(m.name + std::string(weight_suffix)).bytes.size();
        needed += packed_bytes(stage);
    }
    std::error_code problem;
    const auto parent = std::filesystem::absolute(out).parent_path();
    const auto space = std::filesystem::space(parent, problem);
    if (!problem && space.available < needed)
        throw io_error(out.string() + ": needs about " + std::to_string(needed) + " bytes, but only " +
                       std::to_string(space.available) + " are left on that disk");
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                                           const token_windows& windows, const quantize_model_options& options,
                                           model_observer_ref observer) {
    const detail::stopwatch watch;
    const model_config config = read_model_config(folder);
    const quantization_plan plan = plan_quantization(config, folder, options.config);
    detail::check_windows(config, windows);
    detail::check_space(folder, plan, out);
    const memory_estimate memory = estimate_memory(config, plan, options.quality.correct_drift);
    const std::string memory_warning = detail::memory_warning(memory, windows, available_memory());
    if (!memory_warning.empty()) observer.on_warning(memory_warning);
    detail::check_numbers(config, folder, plan);
    io::folder_writer writer(out);
    detail::model_quantizer run(config, folder, plan, options, writer, observer);
    quantize_result result = run.run(windows);
    result.seconds = watch.seconds();
    result.bytes = writer.tensor_bytes();
    if (!memory_warning.empty()) result.warnings.push_back(memory_warning);
    for (const std::filesystem::path& leftover : writer.leftovers())
        result.warnings.push_back(leftover.string() +
                                  ": is what a run for the same folder left that did not end; delete "
                                  "it unless that run goes on");
    io::write_configs(writer, folder, options.config, config.ignores_tying);
    writer.write_text(std::string(quant_log_name), quant_log(result.modules));
    for (const std::filesystem::path& file : folder.companion_files()) writer.copy_file(file);
    writer.finish();
    return result;
}

}  // namespace gptq::model
