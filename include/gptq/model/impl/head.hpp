// The bodies of <gptq/model/head.hpp> that are no templates.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <gptq/compiled.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

GPTQ_INLINE stored_head_inputs read_head_inputs(const model_config& c, const weight_reader& weights) {
    const tensor_names& names = c.arch.names;
    stored_head_inputs read;
    if (c.final_norm) read.norm = weights.read_norm(c, std::string(names.final_norm), c.hidden_size);
    if (read.norm && c.logit_scale != 1.0f)
        for (float& weight : read.norm->weight) weight *= c.logit_scale;
    if (c.embedding_size != c.hidden_size)
        read.project_out = weights.read_linear(std::string(names.project_out), c.embedding_size, c.hidden_size, false);
    return read;
}

GPTQ_INLINE std::optional<stored_layer> read_head(const model_config& c, const weight_reader& weights) {
    const std::string name(c.arch.names.head);
    // A quantized head is a tensor of its own, whatever config.json says about tying.
    if (c.tied_embeddings && !weights.is_quantized(name)) return std::nullopt;
    return weights.read_linear(name, c.vocab_size, c.embedding_size, false);
}

GPTQ_INLINE stored_layer round_head(std::optional<stored_layer> head, const table& tokens) {
    using rounded = scheme<8, group_size<64>, asymmetric>;
    if (head && std::holds_alternative<quantized_layer>(head->weights)) return *std::move(head);
    stored_layer result = head ? *std::move(head) : stored_layer{};
    const table* stored = std::get_if<table>(&result.weights);
    const tensor2<float> floats = (stored != nullptr ? *stored : tokens).floats();
    result.weights = quantized_layer(round_to_nearest<rounded>(floats));
    return result;
}

}  // namespace gptq::model
