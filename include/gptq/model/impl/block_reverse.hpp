// The bodies of block_reverse in <gptq/model/block_reverse.hpp>.
#pragma once

#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block_reverse.hpp>

namespace gptq::model {

template <DifferentiableModelBackend B>
block_reverse<B>::block_reverse(const B& backend, const model_config& config, const block_of<B>& weights,
                                std::size_t index, const rope_tables<B>& ropes, reverse_buffers<B>& buffers)
    : backend_(backend),
      config_(config),
      weights_(weights),
      rope_(ropes.of_block(config, index)),
      rotates_(config.rotates(index)),
      span_(config.windows[index]),
      buffers_(buffers) {
    if (config.has_experts(index))
        throw unsupported_error(weights.what.prefix + ": gradients of a block with experts are not computed");
}

template <DifferentiableModelBackend B>
template <class Room>
auto block_reverse<B>::all_parts_of(Room& room, std::size_t s) {
    const std::vector<std::size_t>& parts = first_site(s).parts;
    return room.shaped(backend_, tokens_, std::accumulate(parts.begin(), parts.end(), std::size_t{0}));
}

template <DifferentiableModelBackend B>
template <class Room>
auto block_reverse<B>::part_of(Room& room, std::size_t s, std::size_t i) {
    const auto parts = first_site(s).parts.begin();
    const std::size_t first = std::accumulate(parts, parts + static_cast<std::ptrdiff_t>(i), std::size_t{0});
    return all_parts_of(room, s).columns(first, first + first_site(s).parts[i]);
}

template <DifferentiableModelBackend B>
template <class Matrix, class F>
void block_reverse<B>::for_pieces(std::size_t s, Matrix all, const F& f) {
    const block_site& site = first_site(s);
    for (std::size_t p = 0, at = 0; p < site.pieces; ++p)
        for (std::size_t i = 0; i < site.parts.size(); ++i) {
            const std::size_t width = site.parts[i] / site.pieces;
            f(all.columns(at, at + width), i, p * width, (p + 1) * width);
            at += width;
        }
}

// ---- forwards -------------------------------------------------------------------------------------------------------

template <DifferentiableModelBackend B>
void block_reverse<B>::recompute(matrix_view<float> states) {
    tokens_ = states.rows;
    if (config_.parallel) read_states(1, states);
    for (std::size_t s = 0; s < weights_.what.steps.size(); ++s) {
        if (s == 0 || !config_.parallel) read_states(s, states);
        run_step(s, states);
    }
}

template <DifferentiableModelBackend B>
void block_reverse<B>::read_states(std::size_t s, gradient_view states) {
    const auto entry = this->entry(s);
    backend_.copy(states, entry);
    const std::optional<norm>& before = weights_.norm(step(s).before);
    if (config_.norm_before && before)
        backend_.normalize(*before, states, inputs(s));
    else
        backend_.convert(states, inputs(s));
}

template <DifferentiableModelBackend B>
void block_reverse<B>::run_step(std::size_t s, matrix_view<float> states) {
    std::vector<output_of<B>> outputs;
    const std::size_t site = step(s).first_site;
    const bool in_pieces = first_site(s).pieces != 1;
    const auto parts = all_parts_of(in_pieces ? buffers_.pieces : buffers_.steps[s].parts, s);
    for (std::size_t i = 0; i < weights_.layers[site].size(); ++i) {
        const block_module& m = first_site(s).modules[i];
        outputs.push_back({weights_.layers[site][i], parts.columns(m.first_output, m.first_output + m.out_features)});
    }
    backend_.multiply(inputs_view(inputs(s)), std::span<const output_of<B>>(outputs));
    if (in_pieces)
        for_pieces(s, parts, [&](auto piece, std::size_t i, std::size_t first, std::size_t last) {
            backend_.convert(inputs_view(piece), part(s, i).columns(first, last));
        });
    if (step(s).kind == step_kind::attention) {
        attend();
    } else {
        backend_.convert(inputs_view(part(s, 0)), inner(s));
        if (config_.gated())
            backend_.gate(config_.activation, inner(s), inputs_view(part(s, 1)));
        else
            backend_.activate(config_.activation, inner(s));
    }
    if (needs_branch(s)) add_branch(s, states);
}

template <DifferentiableModelBackend B>
bool block_reverse<B>::needs_branch(std::size_t s) const {
    const bool last = s + 1 == weights_.what.steps.size() || config_.parallel;
    return !last || !config_.norm_before || weights_.norm(step(s).after);
}

template <DifferentiableModelBackend B>
void block_reverse<B>::attend() {
    tape& kept = buffers_.steps[0];
    prepare_heads(0, norm_place::q, kept.raw_q, queries());
    prepare_heads(1, norm_place::k, kept.raw_k, keys());
    backend_.attend(shape(), inputs_view(queries()), inputs_view(keys()), inputs_view(part(0, 2)), buffers_.scratch,
                    inner(0));
}

template <DifferentiableModelBackend B>
void block_reverse<B>::prepare_heads(std::size_t i, norm_place place, typename reverse_buffers<B>::numbers& raw,
                                     matrix_view<number> ready) {
    const std::optional<norm>& layer = weights_.norm(place);
    const auto rotate = [&](matrix_view<number> heads) {
        if (rotates_) backend_.rotate(rope_.cosines.view(), rope_.sines.view(), config_.rotary_shape(), heads);
    };
    if (!layer) {
        backend_.convert(inputs_view(part(0, i)), ready);
        return rotate(ready);
    }
    const auto before = raw.shaped(backend_, ready.rows, ready.cols);
    backend_.convert(inputs_view(part(0, i)), before);
    if (config_.arch.norms_rotated_heads) rotate(before);
    backend_.normalize(*layer, inputs_view(as_heads(before)), as_heads(ready));
    if (!config_.arch.norms_rotated_heads) rotate(ready);
}

template <DifferentiableModelBackend B>
void block_reverse<B>::add_branch(std::size_t s, matrix_view<float> states) {
    const auto branch = this->branch(s);
    backend_.multiply(inputs_view(inner(s)), out_layer(s), branch);
    if (config_.branch_scale != 1.0f) {
        backend_.scale(config_.branch_scale, branch);
        backend_.add(states, gradient_view(branch));
    } else if (const std::optional<norm>& after = weights_.norm(step(s).after)) {
        const auto normed = of_hidden(buffers_.branch);
        backend_.normalize(*after, gradient_view(branch), normed);
        backend_.add(states, gradient_view(normed));
    } else {
        backend_.add(states, gradient_view(branch));
    }
    if (config_.norm_before) return;
    backend_.copy(gradient_view(states), sum(s));
    backend_.normalize(*weights_.norm(step(s).before), gradient_view(sum(s)), states);
}

// ---- backwards ------------------------------------------------------------------------------------------------------

template <DifferentiableModelBackend B>
void block_reverse<B>::backward(matrix_view<float> gradient, const gradient_takers<B>& takers) {
    if (!config_.parallel) {
        for (std::size_t s = weights_.what.steps.size(); s-- > 0;) reverse_step(s, gradient, gradient, takers);
        return;
    }
    const auto start = of_hidden(buffers_.start);
    backend_.copy(gradient_view(gradient), start);
    for (std::size_t s = weights_.what.steps.size(); s-- > 0;) reverse_step(s, start, gradient, takers);
}

template <DifferentiableModelBackend B>
void block_reverse<B>::reverse_step(std::size_t s, gradient_view of_sum, matrix_view<float> into,
                                    const gradient_takers<B>& takers) {
    if (!config_.norm_before) reverse_norm(*weights_.norm(step(s).before), gradient_view(sum(s)), into, takers);
    reverse_branch(s, of_sum, takers);
    const gradient_view d_inner = buffers_.inner.shaped(backend_, tokens_, second_site(s).in_features());
    if (step(s).kind == step_kind::attention)
        reverse_attention(d_inner, takers);
    else
        reverse_mlp(s, d_inner);

    const std::size_t site = step(s).first_site;
    auto parts = all_parts_of(buffers_.parts, s);
    if (first_site(s).pieces != 1) {
        parts = all_parts_of(buffers_.piece_gradients, s);
        for_pieces(s, parts, [&](auto piece, std::size_t i, std::size_t first, std::size_t last) {
            backend_.copy(gradient_view(part_gradient(s, i).columns(first, last)), piece);
        });
    }
    std::vector<gradient_of<B>> outputs;
    for (std::size_t i = 0; i < weights_.layers[site].size(); ++i) {
        const block_module& m = first_site(s).modules[i];
        outputs.push_back({weights_.layers[site][i], parts.columns(m.first_output, m.first_output + m.out_features)});
        if (takers.layer) takers.layer(outputs.back().layer, inputs(s), outputs.back().dy);
    }
    const auto d_inputs = of_hidden(buffers_.inputs);
    backend_.multiply_adjoint(std::span<const gradient_of<B>>(outputs), d_inputs);
    const std::optional<norm>& before = weights_.norm(step(s).before);
    if (config_.norm_before && before) reverse_norm(*before, gradient_view(entry(s)), d_inputs, takers);
    backend_.add(into, gradient_view(d_inputs));
}

template <DifferentiableModelBackend B>
void block_reverse<B>::reverse_branch(std::size_t s, gradient_view of_sum, const gradient_takers<B>& takers) {
    const std::optional<norm>& after = weights_.norm(step(s).after);
    gradient_view d_branch = of_sum;
    if (config_.branch_scale != 1.0f || after) {
        const auto changed = of_hidden(buffers_.branch);
        backend_.copy(of_sum, changed);
        if (config_.branch_scale != 1.0f)
            backend_.scale(config_.branch_scale, changed);
        else
            reverse_norm(*after, gradient_view(branch(s)), changed, takers);
        d_branch = changed;
    }
    if (takers.layer) takers.layer(out_layer(s), inner(s), d_branch);
    const gradient_of<B> only{out_layer(s), d_branch};
    backend_.multiply_adjoint(std::span<const gradient_of<B>>(&only, 1),
                              buffers_.inner.shaped(backend_, tokens_, second_site(s).in_features()));
}

template <DifferentiableModelBackend B>
void block_reverse<B>::reverse_attention(gradient_view d_inner, const gradient_takers<B>& takers) {
    tape& kept = buffers_.steps[0];
    const auto dq = queries_of(buffers_.q);
    const auto dk = keys_of(buffers_.k);
    backend_.attend_adjoint(shape(), inputs_view(queries()), inputs_view(keys()), inputs_view(part(0, 2)), d_inner,
                            buffers_.scratch, dq, dk, part_gradient(0, 2));
    reverse_heads(0, norm_place::q, kept.raw_q, dq, takers);
    reverse_heads(1, norm_place::k, kept.raw_k, dk, takers);
}

template <DifferentiableModelBackend B>
void block_reverse<B>::reverse_heads(std::size_t i, norm_place place, typename reverse_buffers<B>::numbers& raw,
                                     matrix_view<float> d_ready, const gradient_takers<B>& takers) {
    const auto turn_back = [&] {
        if (rotates_)
            backend_.rotate_adjoint(rope_.cosines.view(), rope_.sines.view(), config_.rotary_shape(), d_ready);
    };
    if (!config_.arch.norms_rotated_heads) turn_back();
    if (const std::optional<norm>& layer = weights_.norm(place)) {
        const auto before = raw.shaped(backend_, d_ready.rows, d_ready.cols);
        reverse_norm(*layer, inputs_view(as_heads(before)), as_heads(d_ready), takers);
    }
    if (config_.arch.norms_rotated_heads) turn_back();
    backend_.copy(gradient_view(d_ready), part_gradient(0, i));
}

template <DifferentiableModelBackend B>
void block_reverse<B>::reverse_mlp(std::size_t s, gradient_view d_inner) {
    if (config_.gated())
        return backend_.gate_adjoint(config_.activation, inputs_view(part(s, 0)), inputs_view(part(s, 1)), d_inner,
                                     part_gradient(s, 0), part_gradient(s, 1));
    backend_.copy(d_inner, part_gradient(s, 0));
    backend_.activate_adjoint(config_.activation, inputs_view(part(s, 0)), part_gradient(s, 0));
}

template <DifferentiableModelBackend B>
template <class T>
void block_reverse<B>::reverse_norm(const norm& layer, matrix_view<const T> x, matrix_view<float> d,
                                    const gradient_takers<B>& takers) {
    matrix_view<float> sums;
    if (takers.of_norm) sums = buffers_.sums.shaped(backend_, 2, x.cols);
    backend_.normalize_adjoint(layer, x, gradient_view(d), d, sums);
    if (takers.of_norm) takers.of_norm(layer, sums);
}

}  // namespace gptq::model
