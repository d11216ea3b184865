// The bodies of <gptq/model/quantize_in_memory.hpp>.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_in_memory.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {
namespace detail {

/// The numbers that a layer stands for.
inline tensor2<float> values_of(const made_layer& made) {
    if (const auto* codes = std::get_if<quantized_layer>(&made)) return dequantize(*codes);
    return std::get<table>(made).floats();
}

/// The layers of a site, some of them made anew: both in the block that runs and in the one that is kept.
inline void make_site(stage_modules<linear>& stage, const stage_inputs<float>& x, const make_layer& make,
                      const cpu_model_backend& backend, std::vector<stored_layer>& kept) {
    hessian<float> H(x.features);
    x.for_each([&](const paired_inputs<float>& some) { backend.add_tokens(H, some.inputs); });
    for (std::size_t i = 0; i < stage.modules.size(); ++i) {
        linear& layer = *stage.modules[i];
        made_layer made = make(stage.names[i], view_of(std::as_const(layer.weight)), H);
        if (made.index() == 0) continue;
        const tensor2<float> values = values_of(made);  // [N, K]
        const matrix_view<const float> W = view_of(values);
        if (W.rows != layer.out_features() || W.cols != layer.in_features())
            throw shape_error(stage.names[i] + ": was made " + shape_string(W.rows, W.cols) + ", and is " +
                              shape_string(layer.out_features(), layer.in_features()));
        require_finite(W, (stage.names[i] + ": what was made of it").c_str(), "row", "column");
        backend.replace(layer, W);
        kept[i].weights = std::move(made);
    }
}

}  // namespace detail

GPTQ_INLINE decoder quantize_in_memory(const io::model_folder& folder, const token_windows& windows,
                                       const make_layer& make, const cpu_model_backend& backend) {
    const cpu_model_backend dense(quantized_form::dense);
    stored_model stored = read_stored_model(folder);
    detail::check_windows(stored.config, windows);
    calibration_states states(dense, stored.config, load_embedding(stored.config, folder, dense), windows, false);
    std::vector<stored_block> made;
    for (std::size_t i = 0; i < stored.config.blocks; ++i) {
        stored_block& kept = made.emplace_back(stored.block(i));
        block_of<cpu_model_backend> running = hold_block(dense, stored_block(kept));
        std::size_t site = 0;
        run_block_by_stages(dense, stored.config, running, nullptr, i, states,
                            [&](stage_modules<linear>& stage, const stage_inputs<float>& x) {
                                detail::make_site(stage, x, make, dense, kept.layers[site++]);
                            });
    }
    stored.block = [&made](std::size_t i) { return std::move(made[i]); };
    return decoder::from(std::move(stored), backend);
}

}  // namespace gptq::model
