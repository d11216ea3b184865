// The bodies of <gptq/model/reverse_pass.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/reverse_pass.hpp>
#include <gptq/model/rope.hpp>

namespace gptq::model {

template <DifferentiableModelBackend B>
reverse_pass<B>::reverse_pass(basic_decoder<B>& model) : model_(model), backend_(model.backend()) {
    for (std::size_t i = 0; i < config().blocks; ++i)
        if (config().has_experts(i))
            throw unsupported_error(config().block_prefix(i) +
                                    ": its MLP consists of experts, and gradients of those are not computed");
}

template <DifferentiableModelBackend B>
void reverse_pass<B>::forward(std::span<const std::int32_t> text, const std::function<void()>& before_block) {
    tokens_ = text.size();
    model_.tables().look_up(backend_, config(), text, tokens_, 0, states(0));
    ropes_.emplace(backend_, config(), text_range{0, tokens_});
    for (std::size_t i = 0; i < config().blocks; ++i) {
        if (before_block) before_block();
        backend_.copy(states(i), states(i + 1));
        block_run<B> run(backend_, config(), model_.blocks()[i], i, *ropes_, forward_buffers_, forward_scratch_);
        run.begin(states(i + 1), tokens_, {});
        while (run.next()) {
        }
    }
    head_states_ = compute_head_inputs(backend_, model_.head_inputs(), config(),
                                       matrix_view<const float>(states(config().blocks)));
}

template <DifferentiableModelBackend B>
matrix_view<float> reverse_pass<B>::logits(std::size_t first, std::size_t count) {
    const auto all = std::as_const(head_states_).view();
    const auto computed = logits_.shaped(backend_, count, config().vocab_size);
    model_.head(all.block(first, count, 0, all.cols), computed);
    return computed;
}

template <DifferentiableModelBackend B>
void reverse_pass<B>::head_backward(std::size_t first, matrix_view<const float> dlogits,
                                    const gradient_takers<B>& takers) {
    const auto dx = head_gradient().block(first, dlogits.rows, 0, config().embedding_size);
    const auto& head = model_.head_layer();
    const auto x = std::as_const(head_states_).view().block(first, dlogits.rows, 0, dx.cols);
    if (const float cap = config().logit_cap; cap != 0.0f) {
        const auto capped = capped_.shaped(backend_, dlogits.rows, dlogits.cols);
        const auto before = uncapped_.shaped(backend_, dlogits.rows, dlogits.cols);
        model_.head(x, capped);
        backend_.copy(dlogits, before);
        backend_.cap_adjoint(cap, matrix_view<const float>(capped), before);
        dlogits = before;
    }
    if (!head) return backend_.multiply_adjoint(dlogits, model_.tables().tokens(), dx);
    if (takers.layer) takers.layer(*head, x, dlogits);
    const gradient_of<B> only{*head, dlogits};
    backend_.multiply_adjoint(std::span<const gradient_of<B>>(&only, 1), dx);
}

template <DifferentiableModelBackend B>
void reverse_pass<B>::reverse_head_inputs(const gradient_takers<B>& takers) {
    const auto& layers = model_.head_inputs();
    if (layers.project_out) {
        const gradient_of<B> only{layers.project_out, head_gradient()};
        backend_.multiply_adjoint(std::span<const gradient_of<B>>(&only, 1), gradient());
    } else {
        backend_.copy(head_gradient(), gradient());
    }
    if (!layers.norm) return;
    matrix_view<float> sums;
    if (takers.of_norm) sums = sums_.shaped(backend_, 2, config().hidden_size);
    backend_.normalize_adjoint(*layers.norm, matrix_view<const float>(states(config().blocks)), gradient(), gradient(),
                               sums);
    if (takers.of_norm) takers.of_norm(*layers.norm, sums);
}

template <DifferentiableModelBackend B>
void reverse_pass<B>::backward(const gradient_takers<B>& takers, const std::function<void()>& before_block) {
    reverse_head_inputs(takers);
    for (std::size_t i = config().blocks; i-- > 0;) {
        if (before_block) before_block();
        block_reverse<B> block(backend_, config(), model_.blocks()[i], i, *ropes_, buffers_);
        block.recompute(states(i));
        block.backward(gradient(), takers);
    }
}

}  // namespace gptq::model
