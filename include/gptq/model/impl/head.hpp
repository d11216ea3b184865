// The bodies of <gptq/model/head.hpp>.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include <gptq/compiled.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

GPTQ_INLINE tensor2<float> head_inputs::operator()(const model_config& c, matrix_view<const float> hidden) const {
    auto normed = make_tensor2<float>(hidden.rows, c.hidden_size);
    if (norm)
        norm->apply(hidden, view_of(normed));
    else
        for (std::size_t r = 0; r < hidden.rows; ++r) std::ranges::copy(hidden.row(r), view_of(normed).row(r).begin());
    if (!project_out) return normed;
    auto projected = make_tensor2<float>(hidden.rows, c.embedding_size);
    project_out.apply(view_of(normed), view_of(projected));
    return projected;
}

GPTQ_INLINE head_inputs load_head_inputs(const model_config& c, const weight_reader& weights) {
    const tensor_names& names = c.arch.names;
    head_inputs loaded;
    if (c.final_norm) loaded.norm = weights.read_norm(c, std::string(names.final_norm), c.hidden_size);
    if (c.embedding_size != c.hidden_size)
        loaded.project_out =
            weights.read_linear(std::string(names.project_out), c.embedding_size, c.hidden_size, false);
    return loaded;
}

GPTQ_INLINE head_inputs load_head_inputs(const model_config& c, const io::model_folder& folder) {
    return load_head_inputs(c, weight_reader(folder));
}

GPTQ_INLINE std::optional<linear> load_head(const model_config& c, const weight_reader& weights) {
    const std::string name(c.arch.names.head);
    // A quantized head is a tensor of its own, whatever config.json says about tying.
    if (c.tied_embeddings && !weights.is_quantized(name)) return std::nullopt;
    return weights.read_linear(name, c.vocab_size, c.embedding_size, false);
}

GPTQ_INLINE std::optional<linear> load_head(const model_config& c, const io::model_folder& folder) {
    return load_head(c, weight_reader(folder));
}

GPTQ_INLINE linear round_head(std::optional<linear> head, const embedding& table, quantized_form form) {
    using rounded = scheme<8, group_size<64>, asymmetric>;
    if (head && head->weight.size() == 0) return *std::move(head);
    linear result = head ? *std::move(head) : linear{};
    result.hold(round_to_nearest<rounded>(head ? result.weight : table.tokens.floats()), form);
    return result;
}

}  // namespace gptq::model
