// The bodies of <gptq/model/decoder.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

template <ModelBackend B>
basic_decoder<B> basic_decoder<B>::load(const io::model_folder& folder, const B& backend, head_form head,
                                        std::span<const adapter> adapters) {
    stored_model stored = read_stored_model(folder, adapters);
    if (head == head_form::eight_bits) stored.head = round_head(std::move(stored.head), stored.embedding.tokens);
    return from(std::move(stored), backend);
}

template <ModelBackend B>
basic_decoder<B> basic_decoder<B>::from(stored_model&& stored, const B& backend) {
    basic_decoder d(backend, std::move(stored.config), embedding<B>(backend, std::move(stored.embedding)));
    for (std::size_t i = 0; i < d.config_.blocks; ++i) d.blocks_.push_back(hold_block(backend, stored.block(i)));
    d.head_inputs_ = hold_head_inputs(backend, std::move(stored.head_inputs));
    if (stored.head) d.head_.emplace(backend.hold(*std::move(stored.head)));
    return d;
}

template <ModelBackend B>
tensor2<float> basic_decoder<B>::logits_of(matrix_view<const number> states) const {
    auto computed = backend_.template room<float>(states.rows, config_.vocab_size);
    head(states, computed.view());
    auto result = make_tensor2<float>(states.rows, config_.vocab_size);
    backend_.read(std::as_const(computed).view(), view_of(result));
    return result;
}

template <ModelBackend B>
tensor2<float> basic_decoder<B>::logits(std::span<const std::int32_t> tokens) const {
    const auto states = head_states(tokens);
    return logits_of(states.view());
}

template <ModelBackend B>
tensor1<float> basic_decoder<B>::append(std::span<const std::int32_t> tokens, basic_kv_cache<B>& cache) const {
    const basic_continuation<B> text{tokens, &cache};
    const auto all = append({&text, 1});
    auto result = make_tensor1<float>(config_.vocab_size);
    std::copy_n(all.data(), config_.vocab_size, result.data());
    return result;
}

template <ModelBackend B>
tensor2<float> basic_decoder<B>::append(std::span<const basic_continuation<B>> texts) const {
    const auto states = run(texts);
    auto last = backend_.template room<number>(texts.size(), config_.embedding_size);
    std::vector<std::int32_t> rows;
    std::int32_t end = 0;
    for (const basic_continuation<B>& text : texts) {
        end += static_cast<std::int32_t>(text.tokens.size());
        rows.push_back(end - 1);
    }
    backend_.gather(states.view(), std::span<const std::int32_t>(rows), last.view());
    return logits_of(std::as_const(last).view());
}

template <ModelBackend B>
tensor2<float> basic_decoder<B>::append_each(std::span<const basic_continuation<B>> texts) const {
    const auto states = run(texts);
    return logits_of(states.view());
}

namespace detail {

/// Throws shape_error for texts that cannot be read in one step.
template <ModelBackend B>
void check_texts(std::span<const basic_continuation<B>> texts) {
    if (texts.empty()) throw shape_error("no texts to go on with; give at least one");
    for (std::size_t i = 0; i < texts.size(); ++i) {
        if (texts[i].tokens.empty()) throw shape_error("no tokens to append; give at least one");
        if (texts[i].cache == nullptr && texts.size() != 1) throw shape_error("a text of a step has no cache");
        for (std::size_t j = 0; j < i; ++j)
            if (texts[i].cache == texts[j].cache)
                throw shape_error("two texts of a step have the same cache; fork it for the second");
    }
}

}  // namespace detail

template <ModelBackend B>
void basic_decoder<B>::reread(const basic_continuation<B>& text) const {
    if (text.cache == nullptr || text.cache->length() == 0) return;
    const std::size_t length = text.cache->length() + text.tokens.size();
    const std::size_t before = text.cache->rotated_for();
    if (config_.rope.is_long(before) == config_.rope.is_long(length)) return;
    auto fresh = text.cache->emptied();
    const basic_continuation<B> again{text.cache->tokens(), &fresh};
    run({&again, 1}, nullptr, length);
    *text.cache = std::move(fresh);
}

template <ModelBackend B>
auto basic_decoder<B>::run(std::span<const basic_continuation<B>> texts, const run_observer* observer,
                           std::size_t length) const -> room_of<B, number> {
    detail::check_texts(texts);
    std::size_t tokens = 0, row = 0;
    std::vector<text_range> ranges;
    for (const basic_continuation<B>& text : texts) {
        reread(text);
        tokens += text.tokens.size();
    }
    auto hidden = backend_.template room<float>(tokens, config_.hidden_size);
    for (const basic_continuation<B>& text : texts) {
        const std::size_t count = text.tokens.size(), past = text.cache != nullptr ? text.cache->length() : 0;
        embedding_.look_up(backend_, config_, text.tokens, count, past,
                           hidden.view().block(row, count, 0, config_.hidden_size));
        ranges.push_back({past, count, length});
        row += count;
    }
    const rope_tables<B> ropes(backend_, config_, ranges);
    block_buffers<B> buffers;
    block_scratch<B> scratch;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (before_block_) before_block_();
        std::vector<kv_rows<number>> rows;
        for (const basic_continuation<B>& text : texts)
            if (text.cache != nullptr) rows.push_back(text.cache->rows(i, text.tokens.size()));
        block_run<B> block_pass(backend_, config_, blocks_[i], i, ropes, buffers, scratch);
        block_pass.begin(hidden.view(), tokens, rows);
        do {
            if (observer != nullptr) observer->at_site(i, block_pass);
        } while (block_pass.next());
        if (observer != nullptr) observer->after_block(i, std::as_const(hidden).view());
    }
    for (std::size_t i = 0; i < texts.size(); ++i)
        if (texts[i].cache != nullptr) texts[i].cache->advance(texts[i].tokens, ranges[i].seen());
    return compute_head_inputs(backend_, head_inputs_, config_, std::as_const(hidden).view());
}

namespace detail {

/// Throws option_error for a name that is none, saying which there are.
void check_observable(const model_config& config, std::span<const std::string> wanted);

/// Shows those matrices that are wanted.
template <ModelBackend B>
class wanted_values {
 public:
    wanted_values(const B& backend, std::span<const std::string> wanted, const observe_function& see)
        : backend_(backend), wanted_(wanted), see_(see) {}

    template <class T>
    void show(const std::string& name, matrix_view<const T> values) const {
        if (std::find(wanted_.begin(), wanted_.end(), name) == wanted_.end()) return;
        matrix<float> host(values.rows, values.cols);
        if (values.rows != 0) backend_.read(values, host.view());
        see_(name, std::as_const(host).view());
    }

 private:
    const B& backend_;
    std::span<const std::string> wanted_;
    const observe_function& see_;
};

}  // namespace detail

template <ModelBackend B>
void basic_decoder<B>::observe(std::span<const std::int32_t> tokens, std::span<const std::string> wanted,
                               const observe_function& see) const {
    detail::check_observable(config_, wanted);
    const detail::wanted_values<B> values(backend_, wanted, see);
    run_observer observer;
    observer.at_site = [&](std::size_t i, const block_run<B>& run) {
        const block_description& what = blocks_[i].what;
        for (const block_module& m : what.sites[run.site()].modules)
            values.show(what.full_name(m) + ".input", run.inputs());
    };
    observer.after_block = [&](std::size_t i, matrix_view<const float> states) {
        values.show(blocks_[i].what.prefix + "output", states);
    };
    const basic_continuation<B> text{tokens, nullptr};
    const auto states = run({&text, 1}, &observer);
    values.show(std::string(config_.arch.names.head) + ".input", matrix_view<const number>(states.view()));
    if (std::find(wanted.begin(), wanted.end(), "logits") == wanted.end()) return;
    const auto found = logits_of(states.view());
    see("logits", view_of(found));
}

}  // namespace gptq::model
