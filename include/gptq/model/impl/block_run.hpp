// The bodies of block_run in <gptq/model/block.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>

namespace gptq::model {

template <ModelBackend B>
void block_run<B>::resume(std::size_t site, matrix_view<float> hidden, matrix_view<float> entered,
                          std::size_t window_length, const block_run* leader) {
    hidden_ = entered;
    window_length_ = window_length;
    texts_ = {};
    leader_ = leader;
    site_ = site;
    step_ = 0;
    if (config_.parallel) enter_step();
    while (site >= step().first_site + step().sites) ++step_;
    if (!config_.parallel || step_ != 0) enter_step();
    hidden_ = hidden;
    enter_site();
}

template <ModelBackend B>
bool block_run<B>::next() {
    const bool of_expert = step().kind == step_kind::experts;
    switch (here().kind) {
        case site_kind::attention_in: attend(); break;
        case site_kind::mlp_in: {
            const auto y = buffers_.intermediate.shaped(backend_, inputs_.rows, here().parts.front());
            compute_intermediate(site_, inputs_, y);
            inputs_ = y;
            break;
        }
        case site_kind::attention_out:
        case site_kind::mlp_out: of_expert ? add_shares(tokens_here()) : add_branch(); break;
    }
    ++site_;
    if (site_ == step().first_site + step().sites) {
        leave_step();
        ++step_;
        if (step_ == weights_.what.steps.size()) return false;
        enter_step();
    }
    enter_site();
    return true;
}

template <ModelBackend B>
bool block_run<B>::adds_to_states() const {
    const bool is_out = here().kind == site_kind::attention_out || here().kind == site_kind::mlp_out;
    return is_out && config_.norm_before && config_.branch_scale == 1.0f && step().kind != step_kind::experts &&
           !weights_.norm(step().after);
}

template <ModelBackend B>
void block_run<B>::for_all_tokens(const std::function<void(inputs_view)>& look) {
    for_chunks(branch_.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        const inputs_view x = branch_.block(first, count, 0, branch_.cols);
        if (here().kind == site_kind::mlp_in) return look(x);
        const auto y = scratch_.everyone.shaped(backend_, count, here().in_features());
        compute_intermediate(site_ - 1, x, y);
        look(y);
    });
}

template <ModelBackend B>
void block_run<B>::enter_step() {
    if (config_.parallel && step_ == 1) {
        inputs_ = branch_ = beside_;
        return;
    }
    const bool attends = step().kind == step_kind::attention;
    const std::size_t widest = attends ? std::max(config_.hidden_size, config_.query_features()) : config_.hidden_size;
    buffer_ = buffers_.branch_input.shaped(backend_, hidden_.rows, widest);
    const auto x = buffer_.columns(0, config_.hidden_size);
    branch_ = x;
    if (config_.norm_before && weights_.norm(step().before)) {
        backend_.normalize(*weights_.norm(step().before), hidden_, x);
    } else if constexpr (std::is_same_v<number, float>) {
        branch_ = hidden_;  // experts are added to the states one by one, but no architecture has them and no norm here
    } else {
        backend_.convert(hidden_, x);
    }
    inputs_ = branch_;
    if (config_.parallel) {
        const auto beside = buffers_.beside.shaped(backend_, hidden_.rows, config_.hidden_size);
        backend_.normalize(*weights_.norm(weights_.what.steps[1].before), hidden_, beside);
        beside_ = beside;
    }
    if (step().kind == step_kind::experts) route_tokens();
}

template <ModelBackend B>
void block_run<B>::enter_site() {
    if (step().kind == step_kind::experts && here().kind == site_kind::mlp_in) gather_tokens();
}

template <ModelBackend B>
void block_run<B>::leave_step() {
    if (!config_.norm_before) backend_.normalize(*weights_.norm(step().before), hidden_, hidden_);
}

template <ModelBackend B>
void block_run<B>::attend() {
    // The inputs of some tokens are not needed once their q, k and v are there, so the result takes their place.
    const auto attended = buffer_.columns(0, config_.query_features());
    if (!texts_.empty()) {
        attend_texts(inputs_, attended);
    } else {
        const std::size_t windows = std::max<std::size_t>(1, B::attention_tokens / window_length_);
        for_chunks(hidden_.rows, windows * window_length_, [&](std::size_t first, std::size_t count) {
            attend_windows(inputs_.block(first, count, 0, inputs_.cols),
                           attended.block(first, count, 0, attended.cols));
        });
    }
    inputs_ = attended;
}

template <ModelBackend B>
void block_run<B>::attend_windows(inputs_view x, matrix_view<number> out) {
    const auto q = scratch_.q.shaped(backend_, x.rows, config_.query_features());
    const auto k = scratch_.k.shaped(backend_, x.rows, config_.kv_features());
    const auto v = scratch_.v.shaped(backend_, x.rows, config_.kv_features());
    project(x, q, k, v);
    attend_over(q, k, v, window_length_, window_length_, out);
}

template <ModelBackend B>
void block_run<B>::attend_texts(inputs_view x, matrix_view<number> out) {
    const auto last = [](matrix_view<number> m, std::size_t rows) { return m.block(m.rows - rows, rows, 0, m.cols); };
    const auto some = [](matrix_view<number> m, std::size_t first, std::size_t rows) {
        return m.block(first, rows, 0, m.cols);
    };
    const bool alone = texts_.size() == 1;  // then nothing need be moved
    const auto q = scratch_.q.shaped(backend_, x.rows, config_.query_features());
    const auto k = alone ? last(texts_.front().k, x.rows) : scratch_.k.shaped(backend_, x.rows, config_.kv_features());
    const auto v = alone ? last(texts_.front().v, x.rows) : scratch_.v.shaped(backend_, x.rows, config_.kv_features());
    project(x, q, k, v);
    std::size_t first = 0;
    for (const kv_rows<number>& text : texts_) {
        if (!alone) {
            backend_.convert(inputs_view(some(k, first, text.tokens)), last(text.k, text.tokens));
            backend_.convert(inputs_view(some(v, first, text.tokens)), last(text.v, text.tokens));
        }
        attend_over(some(q, first, text.tokens), text.k, text.v, text.tokens, text.k.rows,
                    some(out, first, text.tokens));
        first += text.tokens;
    }
}

template <ModelBackend B>
void block_run<B>::project(inputs_view x, matrix_view<number> q, matrix_view<number> k, matrix_view<number> v) {
    multiply(site_, x, {q, k, v});
    for (const auto& [place, heads] : {std::pair(norm_place::q, q), std::pair(norm_place::k, k)}) {
        if (!config_.arch.norms_rotated_heads) normalize_heads(place, heads);
        if (rotates_) backend_.rotate(rope_.cosines.view(), rope_.sines.view(), config_.rotary_shape(), heads);
        if (config_.arch.norms_rotated_heads) normalize_heads(place, heads);
    }
}

template <ModelBackend B>
void block_run<B>::attend_over(matrix_view<number> q, matrix_view<number> k, matrix_view<number> v, std::size_t queries,
                               std::size_t keys, matrix_view<number> out) {
    backend_.attend(config_.attention(span_, queries, keys), q, k, v, scratch_.backend, out);
}

template <ModelBackend B>
void block_run<B>::normalize_heads(norm_place place, matrix_view<number> x) const {
    const std::optional<norm>& layer = weights_.norm(place);
    if (!layer) return;
    const std::size_t features = config_.arch.norms_all_heads ? x.cols : config_.head_dim;
    const matrix_view<number> heads(x.data, x.rows * x.cols / features, features);
    backend_.normalize(*layer, matrix_view<const number>(heads), heads);
}

template <ModelBackend B>
void block_run<B>::compute_intermediate(std::size_t from, inputs_view x, matrix_view<number> y) {
    if (x.rows == 0) return;
    if (!config_.gated()) {
        multiply(from, x, {y});
        backend_.activate(config_.activation, y);
        return;
    }
    for_chunks(x.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        const auto gate = y.block(first, count, 0, y.cols);
        const auto up = scratch_.chunk.shaped(backend_, count, y.cols);
        multiply(from, x.block(first, count, 0, x.cols), {gate, up});
        backend_.gate(config_.activation, gate, matrix_view<const number>(up));
    });
}

template <ModelBackend B>
void block_run<B>::add_branch() {
    if (config_.branch_scale != 1.0f) {
        expert_tokens all = all_tokens(inputs_.rows, {});
        std::ranges::fill(all.shares, config_.branch_scale);
        return add_shares(all);
    }
    const typename B::weights& layer = weights_.layers[site_].front();
    const std::optional<norm>& after = weights_.norm(step().after);
    for_chunks(inputs_.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        backend_.add_product(inputs_.block(first, count, 0, inputs_.cols), layer, after ? &*after : nullptr,
                             scratch_.backend, hidden_.block(first, count, 0, hidden_.cols));
    });
}

template <ModelBackend B>
void block_run<B>::route_tokens() {
    if (leader_ != nullptr) return;
    const auto outputs_of = [&](const typename B::weights& layer, std::size_t features) {
        auto outputs = backend_.template room<float>(branch_.rows, features);
        backend_.multiply(branch_, layer, outputs.view());
        matrix<float> host(branch_.rows, features);
        backend_.read(std::as_const(outputs).view(), host.view());
        return host;
    };
    const matrix<float> logits = outputs_of(weights_.router, config_.experts);
    routed_ = route(logits.view(), config_.experts_per_token, config_.renormalizes_shares);
    if (config_.shared_expert_size == 0) return;
    matrix<float> gates;
    if (weights_.shared_gate) gates = outputs_of(weights_.shared_gate, 1);
    routed_.push_back(all_tokens(branch_.rows, {gates.data(), gates.rows()}));
}

template <ModelBackend B>
const expert_tokens& block_run<B>::tokens_here() const {
    const auto& routed = leader_ != nullptr ? leader_->routed_ : routed_;
    return here().expert ? routed[*here().expert] : routed.back();
}

template <ModelBackend B>
void block_run<B>::gather_tokens() {
    inputs_ = branch_;
    if (!here().expert) return;
    const std::vector<std::int32_t>& rows = tokens_here().rows;
    const auto x = buffers_.gathered.shaped(backend_, rows.size(), branch_.cols);
    if (!rows.empty()) backend_.gather(branch_, std::span<const std::int32_t>(rows), x);
    inputs_ = x;
}

template <ModelBackend B>
void block_run<B>::add_shares(const expert_tokens& tokens) {
    const std::span<const std::int32_t> rows = tokens.rows;
    const std::span<const float> shares = tokens.shares;
    for_chunks(inputs_.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        const auto y = scratch_.chunk.shaped(backend_, count, hidden_.cols);
        multiply(site_, inputs_.block(first, count, 0, inputs_.cols), {y});
        backend_.scatter_add(matrix_view<const number>(y), rows.subspan(first, count), shares.subspan(first, count),
                             hidden_);
    });
}

template <ModelBackend B>
void block_run<B>::multiply(std::size_t site, inputs_view x, std::initializer_list<matrix_view<number>> parts) {
    const std::vector<block_module>& modules = weights_.what.sites[site].modules;
    const auto& layers = weights_.layers[site];
    const bool fused = modules.size() != parts.size();
    std::vector<output_of<B>> outputs;
    for (std::size_t i = 0; i < modules.size(); ++i)
        outputs.push_back(
            {layers[i], fused ? scratch_.fused.shaped(backend_, x.rows, modules[i].out_features) : parts.begin()[i]});
    backend_.multiply(x, std::span<const output_of<B>>(outputs));
    if (!fused) return;
    const auto pieces_of = [n = weights_.what.sites[site].pieces](matrix_view<number> m) {
        return matrix_view<number>(m.data, m.rows * n, m.cols / n);
    };
    std::size_t first = 0;
    for (const matrix_view<number> part : parts) {
        const matrix_view<number> to = pieces_of(part);
        backend_.convert(inputs_view(pieces_of(outputs.front().y).columns(first, first + to.cols)), to);
        first += to.cols;
    }
}

}  // namespace gptq::model
