// token_weights: how much the loss of the float model feels an error in a layer's outputs, token by token. A Hessian of
// inputs weighted so is the mean of the usual one and of GuidedQuant's (Kim et al., ICML 2025, arXiv:2505.07004,
// section 3) with one group of outputs.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/half.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/stages.hpp>

namespace gptq::model {

/// The weight of each calibration token for each linear layer of a model: half of it is the mean square of the loss's
/// gradient at the layer's outputs there, divided by its mean over all tokens, and the other half is 1.
class token_weights {
 public:
    /// Runs the float model in `folder` forwards and back over each window, the loss being that of the next tokens.
    /// Memory: the model in float, the states of a window before each block, and a float for each token and module.
    /// `before_block` is called before each block of each pass, and may throw. Throws unsupported_error for a model
    /// with experts, and as decoder::load.
    token_weights(const io::model_folder& folder, const token_windows& windows,
                  const std::function<void()>& before_block = {});

    /// Of all tokens of the calibration, for the module of that name. Throws format_error for one that has no gradient.
    std::span<const float> of(const std::string& module) const;

 private:
    std::map<std::string, std::vector<float>> weights_;
};

namespace detail {

/// Row r of `to` is that of `from`, multiplied by factors(r, 0).
template <class T>
struct scale_row {
    matrix_view<const T> from;
    matrix_view<T> to;
    matrix_view<const float> factors;  // [rows, 1]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < to.cols; ++c) to(r, c) = narrow<T>(factors(r, 0) * to_float(from(r, c)));
    }
};

}  // namespace detail

/// The inputs `x` of a stage where token t counts weights[t] times: every row is multiplied by the root of its token's
/// weight, so that sums over tokens of the products of two rows are weighted ones. `x` and the weights must outlive it.
template <ModelBackend B>
stage_inputs<typename B::activation> weighted_inputs(const B& backend, const stage_inputs<typename B::activation>& x,
                                                     std::span<const float> weights) {
    using number = typename B::activation;
    stage_inputs<number> weighted = x;
    weighted.for_each = [&backend, &x, weights](const typename stage_inputs<number>::look& see) {
        x.for_each([&](const paired_inputs<number>& chunk) {
            const auto& memory = backend.solver();
            matrix<float> roots(chunk.inputs.rows, 1);
            for (std::size_t t = 0; t < roots.rows(); ++t) roots(t, 0) = std::sqrt(weights[chunk.first_token + t]);
            const auto factors = memory.lend(std::as_const(roots).view());
            const auto scaled = [&]<class T>(matrix_view<const T> from) {
                auto to = memory.template make_matrix<T>(from.rows, from.cols);
                if (from.rows != 0)
                    memory.for_each_row(from.rows, detail::scale_row<T>{from, to.view(), factors.view()});
                return to;
            };
            const auto inputs = scaled(chunk.inputs), float_inputs = scaled(chunk.float_inputs);
            const auto states = scaled(chunk.states), float_states = scaled(chunk.float_states);
            paired_inputs<number> shown = chunk;
            shown.inputs = inputs.view(), shown.float_inputs = float_inputs.view();
            shown.states = states.view(), shown.float_states = float_states.view();
            see(shown);
        });
    };
    return weighted;
}

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/token_weights.hpp>
#endif
