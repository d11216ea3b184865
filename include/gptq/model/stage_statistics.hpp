// What the calibration tokens say about the layers that read one input: gathered once, used for each of them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/drift.hpp>
#include <gptq/error.hpp>
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
inline paired_inputs token_range(const paired_inputs& all, std::size_t first, std::size_t last) {
    const auto rows = [first, last](matrix_view<const float> m) {
        return m.rows == 0 ? m : m.block(first, last - first, 0, m.cols);
    };
    return {rows(all.inputs), rows(all.float_inputs), rows(all.states), rows(all.float_states)};
}

inline hessian<float> hessian_of(const paired_inputs& tokens) {
    hessian<float> h(tokens.inputs.cols);
    h.add(tokens.inputs);
    return h;
}

inline basic_drift<cpu_backend> drift_of(const paired_inputs& tokens) {
    basic_drift<cpu_backend> drift(tokens.inputs.cols, tokens.states.rows == 0 ? 0 : tokens.states.cols);
    drift.add(tokens.float_inputs, tokens.inputs, tokens.float_states, tokens.states);
    return drift;
}

/// The share of the calibration tokens, from the last ones, that a correction of drift has to prove itself on.
inline std::size_t held_out_tokens(std::size_t tokens) { return tokens / 4; }

}  // namespace detail

/// Gathers what is asked for. `factorize` turns a hessian<float> into a stage_factor; an empty one is not called.
/// `tokens` has float inputs if drift is to be corrected; then their cross products with the inputs cost twice what the
/// Hessian does, and there is a second factorization, of the part of the tokens that the correction is fitted to.
/// Throws non_finite_error for inputs that are NaN or infinite.
template <class Factorize>
stage_statistics gather_statistics(const paired_inputs& tokens, bool want_factor, const Factorize& factorize) {
    if (!want_factor) return {detail::hessian_of(tokens), std::nullopt, std::nullopt};
    const std::size_t count = tokens.inputs.rows, cut = count - detail::held_out_tokens(count);
    if (tokens.float_inputs.rows == 0 || cut == count) {
        hessian<float> H = detail::hessian_of(tokens);
        stage_factor factor = factorize(H);
        return {std::move(H), std::move(factor), std::nullopt};
    }
    const paired_inputs fit = detail::token_range(tokens, 0, cut), held = detail::token_range(tokens, cut, count);
    hessian<float> H = detail::hessian_of(fit), held_H = detail::hessian_of(held);
    stage_factor fit_factor = factorize(H);
    H.merge(held_H);
    stage_factor factor = factorize(H);
    if (!fit_factor.positive_definite) return {std::move(H), std::move(factor), std::nullopt};
    return {std::move(H), std::move(factor),
            drift_statistics<cpu_backend, inverse_free_path>{detail::drift_of(fit), detail::drift_of(held),
                                                             std::move(fit_factor), std::move(held_H)}};
}

}  // namespace gptq::model
