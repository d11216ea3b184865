// reverse_pass: a whole model forwards over one text, and from the gradient of its logits back to every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block_reverse.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/differentiable_backend.hpp>
#include <gptq/model/rope.hpp>

namespace gptq::model {

/// What each block has read is kept; the inside of a block is computed again on the way back, so that the memory is
/// that of the states and of one block. The order of the calls: forward(); logits() and head_backward() for parts that
/// make up the text; backward().
template <DifferentiableModelBackend B>
class reverse_pass {
 public:
    /// The model, whose layers are dense, must outlive it. Throws unsupported_error for a model with experts.
    explicit reverse_pass(basic_decoder<B>& model);

    /// Runs one text. `before_block` is called before each block, and may throw. Throws as embedding::look_up.
    void forward(std::span<const std::int32_t> text, const std::function<void()>& before_block = {});

    /// The logits after tokens [first, first + count) in the backend's memory, valid until the next call.
    matrix_view<float> logits(std::size_t first, std::size_t count);  // [count, vocab_size]

    /// Takes the gradient of these logits.                                              dlogits [count, vocab_size]
    void head_backward(std::size_t first, matrix_view<const float> dlogits, const gradient_takers<B>& takers);

    /// From the head to the first block, `before_block` as in forward().
    void backward(const gradient_takers<B>& takers, const std::function<void()>& before_block = {});

    /// After backward(): the gradient of what the first block has read [tokens, hidden_size].
    matrix_view<const float> input_gradient() { return gradient(); }

 private:
    using number = typename B::activation;

    const model_config& config() const { return model_.config(); }
    /// What block `index` reads, or the final norm.                                            [tokens, hidden_size]
    matrix_view<float> states(std::size_t index) {
        const auto all = states_.shaped(backend_, (config().blocks + 1) * tokens_, config().hidden_size);
        return all.block(index * tokens_, tokens_, 0, all.cols);
    }
    matrix_view<float> gradient() { return gradient_.shaped(backend_, tokens_, config().hidden_size); }
    matrix_view<float> head_gradient() { return head_gradient_.shaped(backend_, tokens_, config().embedding_size); }
    /// From what the head reads to what the last block computes.
    void reverse_head_inputs(const gradient_takers<B>& takers);

    basic_decoder<B>& model_;
    const B& backend_;
    room_for_one<B, float> states_, gradient_, head_gradient_, logits_, sums_;
    room_for_one<B, float> capped_, uncapped_;  // logits, and the gradient before their cap, of some tokens
    room_of<B, number> head_states_;            // [tokens, embedding_size]
    std::optional<rope_tables<B>> ropes_;
    block_buffers<B> forward_buffers_;
    block_scratch<B> forward_scratch_;
    reverse_buffers<B> buffers_;
    std::size_t tokens_ = 0;
};

}  // namespace gptq::model

#include <gptq/model/impl/reverse_pass.hpp>

#ifdef GPTQ_COMPILED
namespace gptq::model {

extern template class block_reverse<cpu_model_backend>;
extern template class reverse_pass<cpu_model_backend>;

}  // namespace gptq::model
#endif
