// The bodies of <gptq/model/block.hpp> that are no templates.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::size_t hidden_of(const model_config& c) { return c.hidden_size; }

GPTQ_INLINE std::size_t queries_of(const model_config& c) { return c.query_features(); }

GPTQ_INLINE std::size_t keys_of(const model_config& c) { return c.kv_features(); }

GPTQ_INLINE std::size_t intermediate_of(const model_config& c) { return c.intermediate_size; }

}  // namespace detail

GPTQ_INLINE stored_block read_block(const model_config& config, const weight_reader& weights, std::size_t index) {
    const std::string prefix = config.block_prefix(index);
    stored_block read;
    for (const auto& slot : stored_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        read.*slot.where = weights.read_linear(prefix + std::string(name), slot.out_features(config),
                                               slot.in_features(config), config.*slot.needs_bias);
    }
    for (const auto& slot : stored_norms) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        read.*slot.where =
            weights.read_norm(config, prefix + std::string(name), slot.per_head ? config.head_dim : config.hidden_size);
    }
    return read;
}

}  // namespace gptq::model
