// quantize_model on any backend: the bodies of the template in <gptq/model/quantize_model.hpp>, for those who run it on
// another backend than the CPU's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <gptq/drift.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layer_error.hpp>
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
#include <gptq/model/weights.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/model/work_queue.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/xtensor/surface.hpp>

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
template <class S>
factored_hessian<S, inverse_free_path> factorize_for(order_kind order, const basic_hessian<S>& h,
                                                     const quantize_options& options) {
    return visit_order(order, [&]<class Order>() {
        const std::size_t K = h.in_features();
        return factor_hessian<Order>(h.backend(), h.upper(), group_size<dynamic>::features(K, options.group_size),
                                     options);
    });
}

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

/// One run of quantize_model, after the plan was made.
template <ModelBackend B>
class model_quantizer {
 public:
    model_quantizer(const B& backend, const model_config& config, const io::model_folder& folder,
                    const quantization_plan& plan, const quantize_model_options& options, io::folder_writer& writer,
                    model_observer_ref observer)
        : backend_(backend),
          solver_(backend.solver()),
          config_(config),
          folder_(folder),
          plan_(plan),
          options_(options),
          writer_(writer),
          observer_(observer) {
        result_.warnings = plan.warnings;
        for (const stage_plan& stage : plan.stages) {
            stage_of_.emplace(stage.modules.front().name, &stage);
            weights_total_ += static_cast<double>(stage.weights());
        }
    }

    quantize_result run(const token_windows& windows) {
        if (const auto warning = window_warning(config_, windows.length)) {
            observer_.on_warning(*warning);
            result_.warnings.push_back(*warning);
        }
        warn_about_samples(windows);
        const auto embedded = [&](const embedding<B>& tables) {
            return embed(backend_, config_, tables, windows.tokens, windows.length);
        };
        activations_of<B> hidden, float_hidden;
        {
            const embedding<B> tables = load_embedding(config_, folder_, backend_);
            hidden = embedded(tables);
            if (options_.quality.correct_drift) float_hidden = embedded(tables);
        }
        block_reader blocks(config_, folder_, B::beside_host);
        for (std::size_t i = 0; i < config_.blocks; ++i) quantize_block(i, blocks.take(i), hidden, float_hidden);
        if (options_.config.lm_head) quantize_head(hidden);
        warn_about_experts();
        writing_.finish();
        copy_other_tensors();
        if (quantized_weights_ > 0.0) result_.bits_per_weight = packed_bits_ / quantized_weights_;
        return std::move(result_);
    }

 private:
    using solver = solver_of<B>;
    using weights = typename B::weights;
    using inputs = paired_inputs<typename B::activation>;
    using held_matrix = gptq::detail::backend_matrix<solver, float>;

    void warn_about_samples(const token_windows& windows) {
        std::size_t widest = 0;
        for (const stage_plan& stage : plan_.stages)
            if (stage.settings) widest = std::max(widest, stage.modules.front().in_features);
        if (windows.tokens.size() < widest && options_.method == quantize_method::gptq)
            result_.warnings.push_back("only " + std::to_string(windows.tokens.size()) +
                                       " tokens of calibration text for layers of up to " + std::to_string(widest) +
                                       " inputs; several times as many tokens as inputs are advisable");
    }

    void warn_about_experts() {
        if (experts_lacking_ != 0)
            result_.warnings.push_back(
                std::to_string(experts_lacking_) + " inputs of experts saw fewer than " +
                std::to_string(enough_tokens_per_input) +
                " tokens for each feature, and were filled up from all tokens of their blocks; " +
                std::string(quant_log_name) + " has the tokens of each, under samples");
    }

    void quantize_block(std::size_t index, stored_block&& stored, activations_of<B>& hidden,
                        activations_of<B>& float_hidden) {
        common_.reset();
        const auto on_stage = [this](stage_modules<weights>& stage, const inputs& x) {
            quantize_stage(stage.modules, *stage_of_.at(stage.names.front()), x);
        };
        if (options_.quality.correct_drift) {
            const block_of<B> float_layer = hold_block(backend_, stored_block(stored));
            block_of<B> layer = hold_block(backend_, std::move(stored));
            run_block_beside_float(backend_, config_, layer, float_layer, index, hidden, float_hidden, on_stage);
        } else {
            block_of<B> layer = hold_block(backend_, std::move(stored));
            run_block_by_stages(backend_, config_, layer, index, hidden, on_stage);
        }
    }

    /// The head's own drift is left alone: what follows it is the loss, not another layer.
    void quantize_head(const activations_of<B>& hidden) {
        const weight_reader reader(folder_);
        const auto x = compute_head_inputs(backend_, hold_head_inputs(backend_, read_head_inputs(config_, reader)),
                                           config_, hidden.states.view());
        weights head = backend_.hold(read_head(config_, reader).value());
        quantize_stage({&head}, plan_.stages.back(), inputs{x.view(), {}, {}, {}});
    }

    /// Modules with a common input: one Hessian, one factorization.
    void quantize_stage(const std::vector<weights*>& modules, const stage_plan& plan, const inputs& x) {
        report_progress(plan.modules.front());
        if (plan.settings) {
            const stopwatch shared;
            experts_lacking_ += lacks_tokens(x) ? 1 : 0;
            const stage_statistics<B> statistics = gather(plan, modules, x);
            const double shared_seconds = shared.seconds() / static_cast<double>(modules.size());
            for (std::size_t i = 0; i < modules.size(); ++i)
                quantize_module(plan, plan.modules[i], *modules[i], statistics, x.inputs.rows, shared_seconds);
        }
        weights_done_ += static_cast<double>(plan.weights());
    }

    /// Replaces the weights by what their codes stand for, so that later layers see what the quantized model gives them.
    void quantize_module(const stage_plan& plan, const module_plan& module, weights& layer,
                         const stage_statistics<B>& statistics, std::size_t samples, double shared_seconds) {
        report_progress(module);
        const stopwatch own;
        module_record record;
        {
            const auto held = backend_.floats(layer);
            const matrix_view<const float> W = held.view();  // [N, K]
            held_matrix corrected;                           // [N, K], or none
            matrix_view<const float> target = W;             // what the solver is to come close to
            if (statistics.drift) {
                corrected = copy_of(W);
                record.drift_share = correct_drift(in_backend, corrected.view(), *statistics.drift);
                target = corrected.view();
            }
            std::optional<measured_layer> result(round(plan, W, statistics));
            record.rtn_error = result->error;
            if (statistics.factor) {
                result.reset();  // first, so that both are never there at once
                result.emplace(solve(plan, target, statistics));
            }
            const double energy = output_error(in_backend, W, statistics.H);
            record.error = result->error;
            record.relative_error = energy > 0.0 ? record.error / energy : 0.0;
            record.samples = samples;
            record.damp_percent = result->report.rounded_to_nearest ? 0.0 : result->report.damp_percent;
            backend_.replace(layer, std::as_const(result->values).view());
            write(plan, module, *result);
            warn_about_solver(module.name, result->report);
        }
        record.layer = plan.layer;
        record.module = module.name_in_layer;
        record.seconds = shared_seconds + own.seconds();
        observer_.on_module(record);
        result_.modules.push_back(std::move(record));
    }

    /// A quantized layer, the weights that it stands for, and what it does to the outputs.
    struct measured_layer {
        held_layer<solver> codes;
        held_matrix values;  // [N, K]
        solve_report report;
        double error = 0.0;  // tr(D H D')
    };

    held_matrix copy_of(matrix_view<const float> W) const {
        held_matrix copy = solver_.template make_matrix<float>(W.rows, W.cols);
        solver_.for_each_row(W.rows, gptq::detail::copy_row{W, copy.view()});
        return copy;
    }

    static std::size_t group_features(const stage_plan& plan, std::size_t in_features) {
        return group_size<dynamic>::features(in_features, plan.settings->scheme.group_size);
    }

    held_layer<solver> room_for(const stage_plan& plan, matrix_view<const float> W) const {
        return {solver_, W.rows, W.cols, group_count(W.cols, group_features(plan, W.cols))};
    }

    measured_layer measured(held_layer<solver>&& codes, const solve_report& report, matrix_view<const float> W,
                            const stage_statistics<B>& statistics) const {
        held_matrix values = solver_.template make_matrix<float>(W.rows, W.cols), D = copy_of(W);
        codes.dequantize(values.view());
        solver_.for_each_row(W.rows, gptq::detail::mix_row{D.view(), values.view(), 1.0f, -1.0f});
        const double error = output_error(in_backend, D.view(), statistics.H);
        return {std::move(codes), std::move(values), report, error};
    }

    measured_layer round(const stage_plan& plan, matrix_view<const float> W,
                         const stage_statistics<B>& statistics) const {
        held_layer<solver> codes = room_for(plan, W);
        visit_storable_scheme(plan.settings->scheme, [&]<class S>() {
            round_to_nearest_into<S::bits>(in_backend, solver_, W, group_features(plan, W.cols), codes,
                                           typename S::grid{});
        });
        return measured(std::move(codes), {}, W, statistics);
    }

    /// W is what the solver is to come close to. The result is measured against it.
    measured_layer solve(const stage_plan& plan, matrix_view<const float> W, const stage_statistics<B>& statistics) {
        held_layer<solver> codes = room_for(plan, W);
        solve_report report;
        observer_ref watching(observer_);
        visit_storable_scheme(solver_scheme(*plan.settings), [&]<class S>() {
            report = solve_and_refine<S::bits>(in_backend, W, *statistics.factor, codes, options_for(*plan.settings),
                                               watching, typename S::grid{});
        });
        return measured(std::move(codes), report, W, statistics);
    }

    quantize_options options_for(const stage_settings& settings) const {
        const quality_options& quality = options_.quality;
        return {.damp_percent = quality.choose_damping ? quantize_options{}.damp_percent : settings.damp_percent,
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

    stage_statistics<B> gather(const stage_plan& plan, const std::vector<weights*>& modules, const inputs& x) {
        std::vector<decltype(backend_.floats(*modules.front()))> held;
        stage_weights shown;
        // Only the correction of drift asks for them.
        if (x.float_inputs.rows != 0)
            for (const weights* module : modules) held.push_back(backend_.floats(*module));
        for (const auto& W : held) shown.push_back(W.view());
        const auto factorize = [&](const basic_hessian<solver>& h, std::optional<double> damp_percent = std::nullopt) {
            quantize_options options = options_for(*plan.settings);
            if (damp_percent) options.damp_percent = *damp_percent;
            options.choose_damping = options.choose_damping && !damp_percent;
            return factorize_for(plan.settings->scheme.order, h, options);
        };
        try {
            return gather_statistics(backend_, x, shown, options_.method == quantize_method::gptq, factorize, common_);
        } catch (const non_finite_error& problem) {
            throw non_finite_error(plan.modules.front().name + ": " + problem.what());
        }
    }

    void warn_about_solver(const std::string& name, const solve_report& report) {
        if (report.rounded_to_nearest && report.dead_inputs > 0)
            result_.warnings.push_back(name + ": rounded to nearest, no calibration token reached it");
        else if (report.rounded_to_nearest)
            result_.warnings.push_back(name + ": rounded to nearest, no damping made its Hessian positive definite");
        else if (report.failed_factorizations > 0)
            result_.warnings.push_back(name + ": its Hessian needed a damping of " +
                                       number_string(report.damp_percent) + "; " +
                                       std::to_string(report.failed_factorizations) + " smaller ones did not do");
    }

    void write(const stage_plan& plan, const module_plan& module, measured_layer& layer) {
        const scheme_config& scheme = plan.settings->scheme;
        quantized_layer q;
        bool sym = true;
        visit_grid(scheme.grid, [&]<class Grid>() { sym = Grid::sym; });
        allocate(q, scheme.bits, sym, module.out_features, module.in_features,
                 group_features(plan, module.in_features));
        layer.codes.download(q.view());
        q.report = layer.report;
        check_scales(module.name, q);
        quantized_weights_ += static_cast<double>(module.out_features * module.in_features);
        written_.insert(module.name + std::string(weight_suffix));
        writing_.add([this, name = module.name, layer = std::move(q)] {
            const std::uint64_t before = writer_.tensor_bytes();
            io::write_quantized(writer_, options_.config.format, name, layer);
            packed_bits_ += 8.0 * static_cast<double>(writer_.tensor_bytes() - before);
        });
    }

    /// Everything that was not quantized, byte for byte.
    void copy_other_tensors() {
        for (const std::string& name : folder_.tensor_names()) {
            if (written_.contains(name)) continue;
            const io::tensor_info& tensor = folder_.tensor(name);
            writer_.add_tensor(name, tensor.dtype, tensor.shape, tensor.bytes.read());
        }
    }

    void report_progress(const module_plan& module) {
        observer_.on_progress(weights_done_ / weights_total_, module.name);
    }

    const B& backend_;
    const solver& solver_;
    const model_config& config_;
    const io::model_folder& folder_;
    const quantization_plan& plan_;
    const quantize_model_options& options_;
    io::folder_writer& writer_;
    model_observer_ref observer_;
    std::unordered_map<std::string, const stage_plan*> stage_of_;  // by the name of its first module
    std::unordered_set<std::string> written_;                      // tensors of the source that were replaced
    common_hessian<B> common_;                                     // of the block in hand
    std::size_t experts_lacking_ = 0;
    quantize_result result_;
    double weights_total_ = 0.0;
    double weights_done_ = 0.0;
    double quantized_weights_ = 0.0;
    double packed_bits_ = 0.0;
    work_queue writing_{B::beside_host ? std::size_t{4} : std::size_t{0}};  // last: it uses the others
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

template <ModelBackend B>
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer, const B& backend) {
    const detail::stopwatch watch;
    const model_config config = read_model_config(folder);
    const quantization_plan plan = plan_quantization(config, folder, options.config);
    detail::check_windows(config, windows);
    detail::check_space(folder, plan, out);
    std::string memory_warning;
    if constexpr (!B::beside_host)  // else it is not the host's memory that the model takes
        memory_warning = detail::memory_warning(estimate_memory(config, plan, options.quality.correct_drift), windows,
                                                available_memory());
    if (!memory_warning.empty()) observer.on_warning(memory_warning);
    detail::check_numbers(config, folder, plan);
    io::folder_writer writer(out);
    detail::model_quantizer<B> run(backend, config, folder, plan, options, writer, observer);
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
