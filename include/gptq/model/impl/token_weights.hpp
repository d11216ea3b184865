// The bodies of <gptq/model/token_weights.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/reverse_pass.hpp>
#include <gptq/model/token_weights.hpp>

namespace gptq::model {
namespace detail {

/// Half by the squares, half the same for all: of thousands of tokens the squares alone leave some hundreds that count,
/// and for a few layers ten.
inline void weigh(std::vector<float>& squares) {
    const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
    const double mean = sum / static_cast<double>(squares.size());
    for (float& w : squares) w = mean > 0.0 ? static_cast<float>(0.5 + 0.5 * w / mean) : 1.0f;
}

}  // namespace detail

GPTQ_INLINE token_weights::token_weights(const io::model_folder& folder, const token_windows& windows,
                                         const std::function<void()>& before_block) {
    const cpu_model_backend backend(quantized_form::dense);
    decoder model = decoder::load(folder, backend);
    std::map<const linear*, std::vector<float>*> felt;
    const auto add = [&](const std::string& name, const linear& layer) {
        felt[&layer] = &weights_.emplace(name, std::vector<float>(windows.tokens.size())).first->second;
    };
    for (block_of<cpu_model_backend>& block : model.blocks())
        for (std::size_t s = 0; s < block.layers.size(); ++s)
            for (std::size_t m = 0; m < block.layers[s].size(); ++m)
                add(block.what.full_name(block.what.sites[s].modules[m]), block.layers[s][m]);
    if (const auto& head = model.head_layer()) add(std::string(model.config().arch.names.head), *head);

    std::size_t first = 0;  // the token of the calibration that a gradient's first row is of
    gradient_takers<cpu_model_backend> takers;
    takers.layer = [&](const linear& layer, matrix_view<const float>, matrix_view<const float> dy) {
        const auto found = felt.find(&layer);
        if (found == felt.end()) return;
        for (std::size_t t = 0; t < dy.rows; ++t) {
            const auto row = dy.row(t);
            const double squares = std::inner_product(row.begin(), row.end(), row.begin(), 0.0);
            (*found->second)[first + t] = static_cast<float>(squares / static_cast<double>(dy.cols));
        }
    };
    reverse_pass<cpu_model_backend> pass(model);
    const std::size_t part = std::max<std::size_t>(1, detail::logits_held / model.config().vocab_size);
    for (std::size_t begin = 0; begin < windows.tokens.size(); begin += windows.length) {
        const auto window = std::span(windows.tokens).subspan(begin, windows.length);
        pass.forward(window, before_block);
        for (std::size_t at = 0; at < window.size(); at += part) {
            const matrix_view<float> logits = pass.logits(at, std::min(part, window.size() - at));
            const auto targets = window.subspan(at + 1, std::min(logits.rows, window.size() - at - 1));
            backend.solver().for_each_row(logits.rows, likelihood_adjoint_row{logits, targets});
            first = begin + at;
            pass.head_backward(at, logits, takers);
        }
        first = begin;
        pass.backward(takers, before_block);
    }
    for (auto& [name, weights] : weights_) {
        for (const float w : weights)
            if (!gptq::detail::is_finite(w))
                throw non_finite_error(name + ": the gradient of the loss at its outputs is not finite");
        detail::weigh(weights);
    }
}

GPTQ_INLINE std::span<const float> token_weights::of(const std::string& module) const {
    const auto found = weights_.find(module);
    if (found == weights_.end()) throw format_error(module + ": the loss has no gradient there; leave out --guided");
    return found->second;
}

}  // namespace gptq::model
