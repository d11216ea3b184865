// The bodies of <gptq/model/block.hpp> that are no templates.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::size_t hidden_of(const model_config& c) { return c.hidden_size; }

GPTQ_INLINE std::size_t queries_of(const model_config& c) { return c.query_features(); }

GPTQ_INLINE std::size_t keys_of(const model_config& c) { return c.kv_features(); }

GPTQ_INLINE std::size_t intermediate_of(const model_config& c) { return c.intermediate_size; }

}  // namespace detail

GPTQ_INLINE stored_block read_block(const model_config& config, const weight_reader& weights, std::size_t index,
                                    std::span<const adapter> adapters) {
    const std::string prefix = config.block_prefix(index);
    stored_block read;
    for (const auto& slot : stored_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        read.*slot.where = weights.read_linear(prefix + std::string(name), slot.out_features(config),
                                               slot.in_features(config), config.*slot.needs_bias);
        add_terms(read.*slot.where, prefix + std::string(name), adapters);
    }
    for (const auto& slot : stored_norms) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        read.*slot.where =
            weights.read_norm(config, prefix + std::string(name), slot.per_head ? config.head_dim : config.hidden_size);
    }
    return read;
}

namespace detail {

using layer_shape = std::pair<std::size_t, std::size_t>;  // out_features, in_features

inline std::map<std::string, layer_shape> shapes_of_layers(const model_config& config, bool has_head) {
    std::map<std::string, layer_shape> shapes;
    for (std::size_t i = 0; i < config.blocks; ++i)
        for (const auto& slot : stored_slots)
            if (const std::string_view name = config.arch.names.*slot.name; !name.empty())
                shapes[config.block_prefix(i) + std::string(name)] = {slot.out_features(config),
                                                                      slot.in_features(config)};
    if (has_head) shapes[std::string(config.arch.names.head)] = {config.vocab_size, config.embedding_size};
    return shapes;
}

}  // namespace detail

GPTQ_INLINE void check_adapters(const model_config& config, bool has_head, std::span<const adapter> adapters) {
    if (adapters.empty()) return;
    const auto shapes = detail::shapes_of_layers(config, has_head);
    for (const adapter& a : adapters)
        for (const auto& [name, term] : a.terms()) {
            const auto found = shapes.find(name);
            if (found == shapes.end())
                throw format_error(a.where() + ": changes the layer " + in_quotes(name) +
                                   ", which the model does not have as a linear layer of its own; take the adapter's "
                                   "own base model");
            const detail::layer_shape shape{term.up.shape()[0], term.down.shape()[1]};
            if (shape != found->second)
                throw shape_error(a.where() + ": changes " + in_quotes(name) + " as a layer of " +
                                  shape_string(shape.first, shape.second) + "; the model's is " +
                                  shape_string(found->second.first, found->second.second));
        }
}

}  // namespace gptq::model
