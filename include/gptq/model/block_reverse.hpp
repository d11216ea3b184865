// block_reverse: the way back through one block of a decoder, whose inside is computed again for it.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>

#include <gptq/matrix_view.hpp>
#include <gptq/model/attention_shape.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/differentiable_backend.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>

namespace gptq::model {

/// Who wants gradients of the layers of blocks, the head and the norms, which are told apart by where they lie. Views
/// are valid during the call. Either function may be empty.
template <class B>
struct gradient_takers {
    using weights = typename B::weights;
    using norm = typename B::norm;

    /// What a linear layer has read, and the gradient of its outputs; weight_gradient makes the gradient of its weights of
    /// the two.                                                                     x [tokens, K]  dy [tokens, N]
    std::function<void(const weights&, matrix_view<const typename B::activation> x, matrix_view<const float> dy)> layer;
    /// The gradients of the weight and the bias of a norm [2, features].
    std::function<void(const norm&, matrix_view<const float> sums)> of_norm;
};

/// Memory that blocks use one after the other, on both ways.
template <class B>
struct reverse_buffers {
    using numbers = room_for_one<B, typename B::activation>;
    using floats = room_for_one<B, float>;

    /// What a step leaves for the way back.
    struct tape {
        floats entry;          ///< the states that it reads [tokens, hidden]
        numbers inputs;        ///< of its first site's layers [tokens, hidden]
        numbers parts;         ///< their outputs side by side
        numbers inner;         ///< inputs of its second site's layer
        floats branch;         ///< outputs of that layer [tokens, hidden]
        floats sum;            ///< the states before a norm of the sum [tokens, hidden]
        numbers raw_q, raw_k;  ///< queries and keys before their norms
        numbers q, k;          ///< and as attention reads them
    };
    std::array<tape, 2> steps;
    floats parts, inner, inputs, branch;  ///< gradients of what a tape has
    floats q, k;                          ///< likewise
    numbers pieces;                       ///< the outputs of a layer that lie in pieces, and their gradients
    floats piece_gradients;
    floats start;  ///< gradient of the output, where both steps read the block's input
    floats sums;   ///< of norms [2, features]
    typename B::scratch scratch;
};

/// Runs a block of attention and a plain or gated MLP as block_run does, keeps what it computes, which is the memory of
/// one block, and goes back through it.
template <DifferentiableModelBackend B>
class block_reverse {
 public:
    using number = typename B::activation;

    /// Block `index` of the model; `ropes` covers the positions of a text. All arguments must outlive it. Throws
    /// unsupported_error for a block with experts.
    block_reverse(const B& backend, const model_config& config, const block_of<B>& weights, std::size_t index,
                  const rope_tables<B>& ropes, reverse_buffers<B>& buffers);

    /// Computes the inside of the block from the states of one text that it reads. Of the output it computes no more than
    /// the way back needs, so that the states are left half changed.                             [tokens, hidden]
    void recompute(matrix_view<float> states);

    /// The gradient of the output, which becomes that of the input; after recompute().           [tokens, hidden]
    void backward(matrix_view<float> gradient, const gradient_takers<B>& takers);

 private:
    using norm = typename B::norm;
    using tape = typename reverse_buffers<B>::tape;
    using inputs_view = matrix_view<const number>;
    using gradient_view = matrix_view<const float>;

    const block_step& step(std::size_t s) const { return weights_.what.steps[s]; }
    const block_site& first_site(std::size_t s) const { return weights_.what.sites[step(s).first_site]; }
    const block_site& second_site(std::size_t s) const { return weights_.what.sites[step(s).first_site + 1]; }
    const typename B::weights& out_layer(std::size_t s) const {
        return weights_.layers[step(s).first_site + 1].front();
    }
    attention_shape shape() const { return config_.attention(span_, tokens_, tokens_); }

    // What the tape of step s holds, and the gradient of it: the same memory in each call.
    matrix_view<float> entry(std::size_t s) { return of_hidden(buffers_.steps[s].entry); }
    matrix_view<float> branch(std::size_t s) { return of_hidden(buffers_.steps[s].branch); }
    matrix_view<float> sum(std::size_t s) { return of_hidden(buffers_.steps[s].sum); }
    matrix_view<number> inputs(std::size_t s) { return of_hidden(buffers_.steps[s].inputs); }
    matrix_view<number> inner(std::size_t s) {
        return buffers_.steps[s].inner.shaped(backend_, tokens_, second_site(s).in_features());
    }
    matrix_view<number> part(std::size_t s, std::size_t i) { return part_of(buffers_.steps[s].parts, s, i); }
    matrix_view<float> part_gradient(std::size_t s, std::size_t i) { return part_of(buffers_.parts, s, i); }
    template <class Room>
    auto of_hidden(Room& room) {
        return room.shaped(backend_, tokens_, config_.hidden_size);
    }
    /// Columns of what the layers of a step's first site compute.
    template <class Room>
    auto part_of(Room& room, std::size_t s, std::size_t i);
    template <class Room>
    auto all_parts_of(Room& room, std::size_t s);
    /// f(columns of all, part, first, last) for the share [first, last) that each piece has of each part.
    template <class Matrix, class F>
    void for_pieces(std::size_t s, Matrix all, const F& f);
    matrix_view<number> queries() { return queries_of(buffers_.steps[0].q); }
    matrix_view<number> keys() { return keys_of(buffers_.steps[0].k); }
    template <class Room>
    auto queries_of(Room& room) {
        return room.shaped(backend_, tokens_, config_.query_features());
    }
    template <class Room>
    auto keys_of(Room& room) {
        return room.shaped(backend_, tokens_, config_.kv_features());
    }
    /// Each head of each token as a row, or all heads of it together.
    template <class T>
    matrix_view<T> as_heads(matrix_view<T> x) const {
        const std::size_t features = config_.arch.norms_all_heads ? x.cols : config_.head_dim;
        return {x.data, x.rows * x.cols / features, features};
    }

    void run_step(std::size_t s, matrix_view<float> states);
    void read_states(std::size_t s, gradient_view states);
    void attend();
    /// Queries or keys, from their part to where attention reads them.
    void prepare_heads(std::size_t i, norm_place place, typename reverse_buffers<B>::numbers& raw,
                       matrix_view<number> ready);
    /// The way back needs the branch itself, or a step comes after it.
    bool needs_branch(std::size_t s) const;
    void add_branch(std::size_t s, matrix_view<float> states);

    /// into += the gradient of what step s reads, `of_sum` being that of the states after it. They may be the same.
    void reverse_step(std::size_t s, gradient_view of_sum, matrix_view<float> into, const gradient_takers<B>& takers);
    void reverse_branch(std::size_t s, gradient_view of_sum, const gradient_takers<B>& takers);
    void reverse_attention(gradient_view d_inner, const gradient_takers<B>& takers);
    void reverse_heads(std::size_t i, norm_place place, typename reverse_buffers<B>::numbers& raw,
                       matrix_view<float> d_ready, const gradient_takers<B>& takers);
    void reverse_mlp(std::size_t s, gradient_view d_inner);
    /// Gradients of a norm's input in d's place, and of its parameters to who takes them.
    template <class T>
    void reverse_norm(const norm& layer, matrix_view<const T> x, matrix_view<float> d,
                      const gradient_takers<B>& takers);

    const B& backend_;
    const model_config& config_;
    const block_of<B>& weights_;
    const rotation<B>& rope_;
    bool rotates_;
    std::size_t span_;
    reverse_buffers<B>& buffers_;
    std::size_t tokens_ = 0;
};

}  // namespace gptq::model

#include <gptq/model/impl/block_reverse.hpp>
