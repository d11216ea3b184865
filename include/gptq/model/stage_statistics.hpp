// What the calibration tokens say about the layers that read one input: gathered once, used for each of them.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/drift.hpp>
#include <gptq/factor.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

/// The factored Hessian of a stage's input on the CPU.
using stage_factor = factored_hessian<cpu_backend, inverse_free_path>;

/// The Hessian of a stage's inputs, its factorization, and what the float model's inputs beside them say.
struct stage_statistics {
    hessian<float> H;
    std::optional<stage_factor> factor;                                     ///< nothing if nobody asked for it
    std::optional<drift_statistics<cpu_backend, inverse_free_path>> drift;  ///< nothing without a float model
};

namespace detail {

/// Tokens of a stage, one after the other.
paired_inputs token_range(const paired_inputs& all, std::size_t first, std::size_t last);

hessian<float> hessian_of(const paired_inputs& tokens);

/// Only a stage of one layer adds to states.
basic_drift<cpu_backend> drift_of(const paired_inputs& tokens, const std::vector<matrix_view<const float>>& weights);

/// The share of the calibration tokens, from the last ones, that a correction of drift has to prove itself on.
std::size_t held_out_tokens(std::size_t tokens);

/// What a stage's float inputs say.
using stage_drift = drift_statistics<cpu_backend, inverse_free_path>;

/// The dampings that a correction of drift may be fitted with. A correction is a regression on as many inputs as the
/// layer has, and the best damping for that is often far more than the solver wants, and another for every stage.
inline constexpr std::array<double, 7> drift_dampings{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0};

/// Judged by about 64 rows of each layer, which is enough to tell dampings apart.
double sampled_saving(const std::vector<matrix_view<const float>>& weights, const stage_drift& drift);

/// The drift with the factor, of those with drift_dampings, whose correction does most for the tokens held out, found by
/// steps from the middle one for as long as each helps; nothing if no factorization succeeds. A damping too small does
/// worse than the next, and so does one too large: few stages have a better one beyond a worse one.
template <class Factorize>
std::optional<stage_drift> fit_drift(const paired_inputs& fit, const paired_inputs& held, const hessian<float>& fit_H,
                                     const hessian<float>& held_H, const std::vector<matrix_view<const float>>& weights,
                                     const Factorize& factorize) {
    std::optional<stage_drift> drift;
    double most = 0.0;
    const auto improves = [&](double damping) {
        stage_factor factor = factorize(fit_H, damping);
        if (!factor.positive_definite || factor.failed_factorizations > 0) return false;
        if (!drift) {
            drift.emplace(stage_drift{drift_of(fit, weights), drift_of(held, weights), std::move(factor), held_H});
            most = sampled_saving(weights, *drift);
            return true;
        }
        std::swap(drift->fit_factor, factor);
        const double saving = sampled_saving(weights, *drift);
        const bool better = saving > most;
        if (better)
            most = saving;
        else
            std::swap(drift->fit_factor, factor);
        return better;
    };
    constexpr std::size_t middle = drift_dampings.size() / 2;
    std::size_t up = middle;
    while (up < drift_dampings.size() && (improves(drift_dampings[up]) || !drift)) ++up;
    if (up > middle + 1) return drift;
    for (std::size_t down = middle; down > 0 && improves(drift_dampings[down - 1]);) --down;
    return drift;
}

}  // namespace detail

/// Gathers what is asked for. `factorize(H)` turns a hessian<float> into a stage_factor for the solver,
/// `factorize(H, damp_percent)` one with that damping; an empty one is not called. `weights` are those of the stage's
/// layers, [N, K] each. `tokens` has float inputs if drift is to be corrected; then their cross products with the
/// inputs cost twice what the Hessian does, or less, and there are 3 to 5 more factorizations, of the part of the
/// tokens that the correction is fitted to: the one whose correction does most for the others is kept.
/// Throws non_finite_error for inputs that are NaN or infinite.
template <class Factorize>
stage_statistics gather_statistics(const paired_inputs& tokens, const std::vector<matrix_view<const float>>& weights,
                                   bool want_factor, const Factorize& factorize) {
    if (!want_factor) return {detail::hessian_of(tokens), std::nullopt, std::nullopt};
    const std::size_t count = tokens.inputs.rows, cut = count - detail::held_out_tokens(count);
    if (tokens.float_inputs.rows == 0 || cut == count) {
        hessian<float> H = detail::hessian_of(tokens);
        stage_factor factor = factorize(H);
        return {std::move(H), std::move(factor), std::nullopt};
    }
    const paired_inputs fit = detail::token_range(tokens, 0, cut), held = detail::token_range(tokens, cut, count);
    hessian<float> H = detail::hessian_of(fit);
    const hessian<float> held_H = detail::hessian_of(held);
    auto drift = detail::fit_drift(fit, held, H, held_H, weights, factorize);
    H.merge(held_H);
    stage_factor factor = factorize(H);
    return {std::move(H), std::move(factor), std::move(drift)};
}

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/stage_statistics.hpp>
#endif
