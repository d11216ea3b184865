// The bodies of <gptq/model/routing.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/routing.hpp>

namespace gptq::model {

GPTQ_INLINE std::vector<expert_tokens> route(matrix_view<const float> logits, std::size_t per_token,
                                             bool renormalizes) {
    std::vector<expert_tokens> routed(logits.cols);
    std::vector<float> shares(logits.cols);
    std::vector<std::size_t> order(logits.cols);
    for (std::size_t t = 0; t < logits.rows; ++t) {
        std::ranges::copy(logits.row(t), shares.begin());
        softmax(shares);
        std::iota(order.begin(), order.end(), std::size_t{0});
        const auto last = order.begin() + static_cast<std::ptrdiff_t>(per_token);
        std::partial_sort(order.begin(), last, order.end(), [&](std::size_t a, std::size_t b) {
            return shares[a] > shares[b] || (shares[a] == shares[b] && a < b);
        });
        float sum = 0.0f;
        for (auto e = order.begin(); e != last; ++e) sum += shares[*e];
        for (auto e = order.begin(); e != last; ++e) {
            routed[*e].rows.push_back(static_cast<std::int32_t>(t));
            routed[*e].shares.push_back(renormalizes ? shares[*e] / sum : shares[*e]);
        }
    }
    return routed;
}

GPTQ_INLINE expert_tokens all_tokens(std::size_t tokens, std::span<const float> gates) {
    expert_tokens all{std::vector<std::int32_t>(tokens), std::vector<float>(tokens, 1.0f)};
    std::iota(all.rows.begin(), all.rows.end(), 0);
    std::ranges::transform(gates, all.shares.begin(), [](float x) { return sigmoid(x); });
    return all;
}

}  // namespace gptq::model
