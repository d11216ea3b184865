// What the calibration tokens say about the layers that read one input: gathered once, used for each of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <gptq/drift.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/stages.hpp>

namespace gptq::model {

/// The factored Hessian of a stage's input.
template <class B>
using stage_factor = factored_hessian<solver_of<B>, inverse_free_path>;

/// What a stage's float inputs say.
template <class B>
using stage_drift = drift_statistics<solver_of<B>, inverse_free_path>;

/// The Hessian of a stage's inputs, its factorization, and what the float model's inputs beside them say.
template <class B>
struct stage_statistics {
    basic_hessian<solver_of<B>> H;
    std::optional<stage_factor<B>> factor;  ///< nothing if nobody asked for it
    std::optional<stage_drift<B>> drift;    ///< nothing without a float model
};

/// The Hessian of what every expert of a block would read if all tokens came to it: the same for all of them, and made
/// when the first one asks for it.
template <class B>
using common_hessian = std::optional<basic_hessian<solver_of<B>>>;

/// An expert that fewer tokens than this come to, for each of its inputs, is quantized with the help of the others.
inline constexpr std::size_t enough_tokens_per_input = 4;

/// The weights of a stage's layers, [N, K] each, in the backend's memory.
using stage_weights = std::vector<matrix_view<const float>>;

/// Whether these are the inputs of such an expert.
template <class T>
bool lacks_tokens(const paired_inputs<T>& tokens) {
    return tokens.for_all_tokens && tokens.inputs.rows < enough_tokens_per_input * tokens.inputs.cols;
}

namespace detail {

/// Tokens of a stage, one after the other.
template <class T>
paired_inputs<T> token_range(const paired_inputs<T>& all, std::size_t first, std::size_t last) {
    const auto rows = [first, last](auto m) { return m.rows == 0 ? m : m.block(first, last - first, 0, m.cols); };
    return {rows(all.inputs), rows(all.float_inputs), rows(all.states), rows(all.float_states), {}, false};
}

template <ModelBackend B, class T>
basic_hessian<solver_of<B>> hessian_of(const B& backend, const paired_inputs<T>& tokens) {
    basic_hessian<solver_of<B>> h(tokens.inputs.cols, backend.solver());
    if (tokens.inputs.rows != 0) backend.add_tokens(h, tokens.inputs);
    return h;
}

template <ModelBackend B, class T>
basic_hessian<solver_of<B>> hessian_of_all_tokens(const B& backend, const paired_inputs<T>& tokens) {
    basic_hessian<solver_of<B>> h(tokens.inputs.cols, backend.solver());
    tokens.for_all_tokens([&](matrix_view<const T> some) { backend.add_tokens(h, some); });
    return h;
}

/// The Hessian of an expert's own tokens, and of as many others as it lacks: all tokens of the calibration, counted as
/// that many. The more evidence of its own an expert has, the less the others weigh.
template <ModelBackend B, class T>
basic_hessian<solver_of<B>> blended_hessian(const B& backend, const paired_inputs<T>& tokens,
                                            common_hessian<B>& common) {
    auto own = hessian_of(backend, tokens);
    const std::size_t lacking = enough_tokens_per_input * tokens.inputs.cols - tokens.inputs.rows;
    if (!tokens.same_for_experts) {
        own.merge(hessian_of_all_tokens(backend, tokens), lacking);
    } else {
        if (!common) common.emplace(hessian_of_all_tokens(backend, tokens));
        own.merge(*common, lacking);
    }
    return own;
}

/// Only a stage of one layer adds to states.
template <ModelBackend B, class T>
basic_drift<solver_of<B>> drift_of(const B& backend, const paired_inputs<T>& tokens, const stage_weights& weights) {
    using drift_type = basic_drift<solver_of<B>>;
    drift_type drift = tokens.states.rows == 0 ? drift_type(tokens.inputs.cols, backend.solver())
                                               : drift_type(in_backend, weights.front(), backend.solver());
    backend.add_tokens(drift, tokens.float_inputs, tokens.inputs, tokens.float_states, tokens.states);
    return drift;
}

/// The share of the calibration tokens, from the last ones, that a correction of drift has to prove itself on.
inline std::size_t held_out_tokens(std::size_t tokens) { return tokens / 4; }

/// The dampings that a correction of drift may be fitted with. A correction is a regression on as many inputs as the
/// layer has, and the best damping for that is often far more than the solver wants, and another for every stage.
inline constexpr std::array<double, 7> drift_dampings{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0};

/// Judged by about 64 rows of each layer, which is enough to tell dampings apart.
template <class Drift>
double sampled_saving(const stage_weights& weights, const Drift& drift) {
    double saving = 0.0;
    for (const matrix_view<const float> W : weights) {
        const std::size_t every = std::max<std::size_t>(1, W.rows / 64);
        saving += static_cast<double>(every) * drift_saving(in_backend, W, drift, every);
    }
    return saving;
}

/// The drift with the factor, of those with drift_dampings, whose correction does most for the tokens held out, found by
/// steps from the middle one for as long as each helps; nothing if no factorization succeeds. A damping too small does
/// worse than the next, and so does one too large: few stages have a better one beyond a worse one. Takes held_H if it
/// finds one.
template <ModelBackend B, class T, class Hessian, class Factorize>
std::optional<stage_drift<B>> fit_drift(const B& backend, const paired_inputs<T>& fit, const paired_inputs<T>& held,
                                        const Hessian& fit_H, Hessian& held_H, const stage_weights& weights,
                                        const Factorize& factorize) {
    std::optional<stage_drift<B>> drift;
    double most = 0.0;
    const auto improves = [&](double damping) {
        stage_factor<B> factor = factorize(fit_H, damping);
        if (!factor.positive_definite || factor.failed_factorizations > 0) return false;
        if (!drift) {
            drift.emplace(stage_drift<B>{drift_of(backend, fit, weights), drift_of(backend, held, weights),
                                         std::move(factor), std::move(held_H)});
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

/// Gathers what is asked for. `factorize(H)` turns a Hessian into a stage_factor for the solver,
/// `factorize(H, damp_percent)` one with that damping; an empty one is not called. `tokens` has float inputs if drift is
/// to be corrected; then their cross products with the inputs cost twice what the Hessian does, or less, and there are 3
/// to 5 more factorizations, of the part of the tokens that the correction is fitted to: the one whose correction does
/// most for the others is kept. An expert with few tokens has its Hessian blended with that of all tokens, and no drift
/// corrected; `common` is kept from expert to expert of a block. Throws non_finite_error for inputs that are NaN or
/// infinite.
template <ModelBackend B, class Factorize>
stage_statistics<B> gather_statistics(const B& backend, const paired_inputs<typename B::activation>& tokens,
                                      const stage_weights& weights, bool want_factor, const Factorize& factorize,
                                      common_hessian<B>& common) {
    if (lacks_tokens(tokens)) {
        stage_statistics<B> blended{detail::blended_hessian(backend, tokens, common), std::nullopt, std::nullopt};
        if (want_factor) blended.factor.emplace(factorize(blended.H));
        return blended;
    }
    if (!want_factor) return {detail::hessian_of(backend, tokens), std::nullopt, std::nullopt};
    const std::size_t count = tokens.inputs.rows, cut = count - detail::held_out_tokens(count);
    if (tokens.float_inputs.rows == 0 || cut == count) {
        auto H = detail::hessian_of(backend, tokens);
        stage_factor<B> factor = factorize(H);
        return {std::move(H), std::move(factor), std::nullopt};
    }
    const auto fit = detail::token_range(tokens, 0, cut), held = detail::token_range(tokens, cut, count);
    auto H = detail::hessian_of(backend, fit);
    auto held_H = detail::hessian_of(backend, held);
    auto drift = detail::fit_drift(backend, fit, held, H, held_H, weights, factorize);
    H.merge(drift ? drift->held_hessian : held_H);
    stage_factor<B> factor = factorize(H);
    return {std::move(H), std::move(factor), std::move(drift)};
}

}  // namespace gptq::model
