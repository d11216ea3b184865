// The bodies of <gptq/model/block.hpp> that are no templates.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE stored_block read_block(const model_config& config, const weight_reader& weights, std::size_t index,
                                    std::span<const adapter> adapters) {
    stored_block read;
    read.what = describe_block(config, index);
    for (const block_site& site : read.what.sites) {
        auto& layers = read.layers.emplace_back();
        for (const block_module& m : site.modules) {
            const std::string name = read.what.full_name(m);
            layers.push_back(weights.read_linear(name, m.out_features, m.in_features, m.needs_bias));
            add_terms(layers.back(), name, adapters);
        }
    }
    for (const block_norm& n : read.what.norms)
        read.norm(n.place) = weights.read_norm(config, read.what.prefix + n.name, n.features);
    if (!read.what.router) return read;
    const auto& [router, shared_gate] = *read.what.router;
    read.router = weights.read_linear(read.what.prefix + router, config.experts, config.hidden_size, false);
    if (!shared_gate.empty())
        read.shared_gate = weights.read_linear(read.what.prefix + shared_gate, 1, config.hidden_size, false);
    return read;
}

namespace detail {

using layer_shape = std::pair<std::size_t, std::size_t>;  // out_features, in_features

inline std::map<std::string, layer_shape> shapes_of_layers(const model_config& config, bool has_head) {
    std::map<std::string, layer_shape> shapes;
    for (std::size_t i = 0; i < config.blocks; ++i) {
        const block_description block = describe_block(config, i);
        for (const block_site& site : block.sites)
            for (const block_module& m : site.modules) shapes[block.full_name(m)] = {m.out_features, m.in_features};
    }
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
