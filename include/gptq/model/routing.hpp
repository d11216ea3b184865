// Which tokens go to which experts of an MLP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <gptq/matrix_view.hpp>

namespace gptq::model {

/// The tokens that go to one expert, in rising order, and what its outputs for each are multiplied by.
struct expert_tokens {
    std::vector<std::int32_t> rows;
    std::vector<float> shares;  ///< as many
};

/// Sends each token to the `per_token` experts of the largest softmax(logits), which are their shares; where the shares
/// are renormalized, those of a token add up to 1. Of equal ones the first counts.      logits [tokens, experts], host
std::vector<expert_tokens> route(matrix_view<const float> logits, std::size_t per_token, bool renormalizes);

/// All tokens, those of the shared expert; the shares are 1, or the sigmoid of `gates` if there are any.
expert_tokens all_tokens(std::size_t tokens, std::span<const float> gates);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/routing.hpp>
#endif
