// The bodies of <gptq/model/stage_statistics.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/drift.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/stage_statistics.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE paired_inputs token_range(const paired_inputs& all, std::size_t first, std::size_t last) {
    const auto rows = [first, last](matrix_view<const float> m) {
        return m.rows == 0 ? m : m.block(first, last - first, 0, m.cols);
    };
    return {rows(all.inputs), rows(all.float_inputs), rows(all.states), rows(all.float_states)};
}

GPTQ_INLINE hessian<float> hessian_of(const paired_inputs& tokens) {
    hessian<float> h(tokens.inputs.cols);
    h.add(tokens.inputs);
    return h;
}

GPTQ_INLINE basic_drift<cpu_backend> drift_of(const paired_inputs& tokens,
                                              const std::vector<matrix_view<const float>>& weights) {
    basic_drift<cpu_backend> drift = tokens.states.rows == 0 ? basic_drift<cpu_backend>(tokens.inputs.cols)
                                                             : basic_drift<cpu_backend>(weights.front());
    drift.add(tokens.float_inputs, tokens.inputs, tokens.float_states, tokens.states);
    return drift;
}

GPTQ_INLINE std::size_t held_out_tokens(std::size_t tokens) { return tokens / 4; }

GPTQ_INLINE double sampled_saving(const std::vector<matrix_view<const float>>& weights, const stage_drift& drift) {
    double saving = 0.0;
    for (const matrix_view<const float> W : weights) {
        const std::size_t every = std::max<std::size_t>(1, W.rows / 64);
        saving += static_cast<double>(every) * drift_saving(W, drift, every);
    }
    return saving;
}

}  // namespace detail
}  // namespace gptq::model
