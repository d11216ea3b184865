// The layers of a stage on any backend: what the calibration tokens say about their common input, the codes of each,
// and what the codes do to its outputs.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gptq/clip_groups.hpp>
#include <gptq/drift.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/solved_module.hpp>
#include <gptq/model/stage_statistics.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/scheme.hpp>
#include <gptq/settings.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {
namespace detail {

/// Bits that a checkpoint can ask for; others would only cost compile time.
inline constexpr bool storable_bits(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

/// visit_rounding_scheme for formats of affine layers.
template <class F>
void visit_affine_scheme(const quantize_settings& settings, zero_points zeros, F&& f) {
    visit_bits(settings.bits, [&]<int Bits>() {
        visit_grid(settings, zeros, [&]<class Grid>() {
            if constexpr (storable_bits(Bits))
                f.template operator()<scheme<Bits, group_size<dynamic>, Grid>>();
            else
                throw unsupported_error("no checkpoint format holds " + std::to_string(Bits) + " bits");
        });
    });
}

/// Calls f.template operator()<S>() with the grid of a format, if it has one, and otherwise with the bits and the grid
/// of `settings`, without a search.
template <class F>
void visit_rounding_scheme(const quantize_settings& settings, io::checkpoint_format format, F&& f) {
    io::visit_layout(format, [&]<class L>() {
        if constexpr (layout::has_grid<L>)
            f.template operator()<scheme<L::bits, group_size<dynamic>, typename L::grid>>();
        else
            visit_affine_scheme(settings, zeros_of(format), f);
    });
}

/// The same for the solver, with a search where `settings` say so. S says nothing of the order, which the solver takes
/// from the factored Hessian: an instance for each order would be the same code four times.
template <class F>
void visit_storable_scheme(const quantize_settings& settings, io::checkpoint_format format, F&& f) {
    visit_rounding_scheme(settings, format, [&]<class S>() {
        visit_search<typename S::grid>(settings.search, [&]<class Grid>() {
            f.template operator()<scheme<S::bits, group_size<dynamic>, Grid>>();
        });
    });
}

/// What the codes of a format stand for; none where they are affine. CUDA's compiler wants a lambda that captures.
inline std::vector<float> levels_in(io::checkpoint_format format) {
    return io::visit_layout(format, [&]<class L>() { return layout::levels_in_files<L>(); });
}

/// Factors a Hessian for an order known at run time.
template <class S>
factored_hessian<S, inverse_free_path> factorize_for(order_kind order, const basic_hessian<S>& h,
                                                     const quantize_options& options) {
    return visit_order(order, [&]<class Order>() {
        const std::size_t K = h.in_features();
        return factor_hessian<Order>(h.backend(), h.upper(), group_size<dynamic>::features(K, options.group_size),
                                     options, {}, {}, h.samples());
    });
}

}  // namespace detail

/// Quantizes layers where they lie: their weights become what their codes stand for.
template <ModelBackend B>
class stage_solver {
 public:
    using weights = typename B::weights;
    using inputs = stage_inputs<typename B::activation>;

    /// The backend and the observer must outlive it. All ranks of `division` gather at the same time.
    stage_solver(const B& backend, io::checkpoint_format format, model_observer_ref observer,
                 const token_division& division = {})
        : backend_(backend), solver_(backend.solver()), format_(format), observer_(observer), division_(division) {}

    /// What comes now is of another block.
    void begin_block() { common_.reset(); }

    /// What `x` says about the layers of a stage. Throws non_finite_error, naming the first of them, for inputs that
    /// are NaN or infinite.
    stage_statistics<B> gather(const stage_plan& plan, const std::vector<weights*>& modules, const inputs& x) {
        std::vector<decltype(backend_.floats(*modules.front()))> held;
        stage_weights shown;
        // Only the correction of drift asks for them.
        if (x.beside_float)
            for (const weights* module : modules) held.push_back(backend_.floats(*module));
        for (const auto& W : held) shown.push_back(W.view());
        const auto factorize = [&](const basic_hessian<solver>& h, std::optional<double> damp_percent = std::nullopt) {
            return factor(plan, h, damp_percent);
        };
        try {
            return gather_statistics(backend_, x, shown, plan.settings->method == quantize_method::gptq, factorize,
                                     common_, division_);
        } catch (const non_finite_error& problem) {
            throw non_finite_error(plan.modules.front().name + ": " + problem.what());
        }
    }

    /// The same of a Hessian that is there already.
    stage_statistics<B> take(const stage_plan& plan, basic_hessian<solver_of<B>>&& H) const {
        const std::size_t tokens = H.samples();
        stage_statistics<B> found{std::move(H), std::nullopt, std::nullopt, tokens, false};
        if (plan.settings->method == quantize_method::gptq) found.factor.emplace(factor(plan, found.H, std::nullopt));
        return found;
    }

    /// Finds the codes of one of them, and puts what they stand for in the place of its weights.
    solved_module solve(const stage_plan& plan, weights& layer, const stage_statistics<B>& statistics) {
        solved_module solved;
        const auto held = backend_.floats(layer);
        const matrix_view<const float> W = held.view();  // [N, K]
        held_matrix corrected;                           // [N, K], or none
        matrix_view<const float> target = W;             // what the solver is to come close to
        module_record& record = solved.record;
        if (statistics.drift) {
            corrected = copy_of(W);
            record.drift_share = correct_drift(in_backend, corrected.view(), *statistics.drift);
            target = corrected.view();
        }
        std::optional<measured_layer> result(round(plan, W, W, statistics));
        record.rtn_error = result->error;
        if (plan.settings->method == quantize_method::awq) {
            const held_matrix clipped = clip(plan, W, statistics);
            result.emplace(round(plan, clipped.view(), W, statistics));
        }
        if (statistics.factor) {
            result.reset();  // first, so that both are never there at once
            result.emplace(solve_for(plan, target, statistics));
            // Where the damped Hessian says little about the measured one. A corrected layer has another target.
            if (!statistics.drift && !(result->error <= record.rtn_error)) {
                const solve_report report = result->report;
                result.emplace(round(plan, W, W, statistics));
                result->report = report;
                result->report.rounded_to_nearest = true;
            }
        }
        const double energy = output_error(in_backend, W, statistics.H);
        record.error = result->error;
        record.relative_error = energy > 0.0 ? record.error / energy : 0.0;
        record.damp_percent = result->report.rounded_to_nearest ? 0.0 : result->report.damp_percent;
        allocate(solved.codes, plan.settings->bits, plan.settings->sym, W.rows, W.cols, group_features(plan, W.cols));
        solved.codes.levels = detail::levels_in(format_);
        result->codes.download(solved.codes.view());
        solved.codes.report = result->report;
        backend_.replace(layer, std::as_const(result->values).view());
        return solved;
    }

    /// Puts what codes stand for, which solve() found before, in the place of a layer's weights.
    void restore(const stage_plan& plan, weights& layer, const quantized_layer& codes) const {
        held_matrix values = solver_.template make_matrix<float>(codes.out_features(), codes.in_features());  // [N, K]
        held_layer<solver> held = room_for(plan, std::as_const(values).view());
        held.upload(codes.view());
        held.dequantize(values.view());
        backend_.replace(layer, std::as_const(values).view());
    }

 private:
    using solver = solver_of<B>;
    using held_matrix = gptq::detail::backend_matrix<solver, float>;

    /// A quantized layer, the weights that it stands for, and what it does to the outputs.
    struct measured_layer {
        held_layer<solver> codes;
        held_matrix values;  // [N, K]
        solve_report report;
        double error = 0.0;  // tr(D H D')
    };

    /// With that damping, or the one of the settings.
    static stage_factor<B> factor(const stage_plan& plan, const basic_hessian<solver>& h,
                                  std::optional<double> damp_percent) {
        quantize_options options = solver_options(*plan.settings);
        if (damp_percent) options.damp_percent = *damp_percent;
        options.choose_damping = options.choose_damping && !damp_percent;
        return detail::factorize_for(plan.settings->order, h, options);
    }

    held_matrix copy_of(matrix_view<const float> W) const {
        held_matrix copy = solver_.template make_matrix<float>(W.rows, W.cols);
        solver_.for_each_row(W.rows, gptq::detail::copy_row{W, copy.view()});
        return copy;
    }

    static std::size_t group_features(const stage_plan& plan, std::size_t in_features) {
        return group_size<dynamic>::features(in_features, plan.settings->group_size);
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

    /// `target` is what is rounded. The result is measured against W.
    measured_layer round(const stage_plan& plan, matrix_view<const float> target, matrix_view<const float> W,
                         const stage_statistics<B>& statistics) const {
        held_layer<solver> codes = room_for(plan, W);
        detail::visit_rounding_scheme(*plan.settings, format_, [&]<class S>() {
            round_to_nearest_into<S::bits>(in_backend, solver_, target, group_features(plan, W.cols), codes,
                                           typename S::grid{});
        });
        return measured(std::move(codes), {}, W, statistics);
    }

    held_matrix clip(const stage_plan& plan, matrix_view<const float> W, const stage_statistics<B>& statistics) const {
        std::optional<held_matrix> clipped;
        detail::visit_rounding_scheme(*plan.settings, format_, [&]<class S>() {
            clipped.emplace(
                clip_groups<S::bits, typename S::grid>(solver_, W, statistics.H.upper(), group_features(plan, W.cols)));
        });
        return *std::move(clipped);
    }

    /// W is what the solver is to come close to. The result is measured against it.
    measured_layer solve_for(const stage_plan& plan, matrix_view<const float> W,
                             const stage_statistics<B>& statistics) {
        held_layer<solver> codes = room_for(plan, W);
        solve_report report;
        observer_ref watching(observer_);
        detail::visit_storable_scheme(*plan.settings, format_, [&]<class S>() {
            report = solve_and_refine<S::bits>(in_backend, W, *statistics.factor, codes, solver_options(*plan.settings),
                                               watching, typename S::grid{});
        });
        return measured(std::move(codes), report, W, statistics);
    }

    const B& backend_;
    const solver& solver_;
    io::checkpoint_format format_;
    model_observer_ref observer_;
    token_division division_;
    common_hessian<B> common_;  // of the block in hand
};

}  // namespace gptq::model
