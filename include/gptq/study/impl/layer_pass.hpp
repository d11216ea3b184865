// The bodies of <gptq/study/layer_pass.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/backends/cpu/usual.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/groups.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/model/stage_statistics.hpp>
#include <gptq/model/stages.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/quantized.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/impl/json_members.hpp>
#include <gptq/study/input.hpp>
#include <gptq/study/layer_pass.hpp>
#include <gptq/study/method.hpp>
#include <gptq/study/methods.hpp>

namespace gptq::study {
namespace detail {

using study_backend = model::cpu_model_backend;
using held_block = model::block_of<study_backend>;
using stage_layers = model::stage_modules<study_backend::weights>;
using stage_inputs = model::stage_inputs<study_backend::activation>;

/// Bytes of a layer as its format stores it; of codes without a format, their bits and a half for each group.
inline std::uint64_t stored_bytes(const study_cell& cell, bool in_checkpoints, const std::string& module,
                                  const quantized_layer& layer) {
    if (!in_checkpoints)
        return (layer.codes.size() * static_cast<std::size_t>(layer.bits) + 7) / 8 + 2 * layer.scales.size();
    std::uint64_t bytes = 0;
    io::write_quantized([&bytes](std::string_view, io::dtype, std::span<const std::size_t>,
                                 std::span<const std::byte> content) { bytes += content.size(); },
                        cell.format, module, layer);
    return bytes;
}

/// The factors of one Hessian. Those of other orders than the group-aware one are the same for every group size.
class factor_cache {
 public:
    explicit factor_cache(const basic_hessian<cpu_backend>& H) : H_(H) {}

    layer_factor& get(const quantize_settings& s) {
        const std::size_t group = group_size<dynamic>::features(H_.in_features(), s.group_size);
        const key k{s.order, s.damp_percent, s.order == order_kind::group_aware ? group : 0};
        auto found = factors_.find(k);
        if (found == factors_.end())
            found = factors_.emplace(k, model::detail::factorize_for(s.order, H_, solver_options(s))).first;
        layer_factor& factor = found->second;
        if (factor.group_features != group) regroup(factor, s.order, group);
        return factor;
    }

 private:
    using key = std::tuple<order_kind, std::optional<double>, std::size_t>;

    static void regroup(layer_factor& factor, order_kind order, std::size_t group) {
        visit_order(order, [&]<class Order>() {
            factor.group_features = group;
            factor.group_at = gptq::detail::groups_at<Order>(factor.order, group);
        });
    }

    const basic_hessian<cpu_backend>& H_;
    std::map<key, layer_factor> factors_;
};

/// A float model in memory, and what a change of one stage does to its outputs on some tokens.
class probed_model {
 public:
    probed_model(const study_backend& backend, const study_input& input, const sensitivity_probe& probe)
        : model_(model::decoder::load(input.folder, backend)) {
        const model::token_windows some = windows_of(input.calibration, probe);
        ropes_.emplace(backend, config(), model::text_range{0, some.length});
        length_ = some.length;
        hidden_ = matrix<float>(some.tokens.size(), config().hidden_size);
        model_.tables().look_up(backend, config(), some.tokens, length_, 0, hidden_.view());
        reference_ = outputs_from(0);
    }

    held_block& block(std::size_t i) { return model_.blocks()[i]; }

    /// The block before is done: its outputs are where changes of the next one begin.
    void pass(std::size_t i) { run(i, hidden_.view()); }

    /// With block `i` as it is now.
    double divergence(std::size_t i) {
        const matrix<float> changed = outputs_from(i);
        const std::size_t chunk = std::max<std::size_t>(1, (std::size_t{1} << 22) / config().vocab_size);
        matrix<float> ours(chunk, config().vocab_size), theirs(chunk, config().vocab_size);
        double sum = 0.0;
        for (std::size_t first = 0; first < changed.rows(); first += chunk) {
            const std::size_t count = std::min(chunk, changed.rows() - first);
            logits(changed, first, ours.view().block(0, count, 0, config().vocab_size));
            logits(reference_, first, theirs.view().block(0, count, 0, config().vocab_size));
            for (std::size_t t = 0; t < count; ++t)
                sum += model::kl_divergence(std::as_const(theirs).view().row(t), std::as_const(ours).view().row(t));
        }
        return sum / static_cast<double>(changed.rows());
    }

 private:
    /// The first tokens of windows that lie evenly over the calibration text.
    static model::token_windows windows_of(const model::token_windows& text, const sensitivity_probe& probe) {
        model::token_windows some{{}, std::min(probe.length, text.length)};
        const std::size_t count = std::min(probe.windows, text.count());
        for (std::size_t w = 0; w < count; ++w) {
            const auto from = text.tokens.begin() + static_cast<std::ptrdiff_t>(w * text.count() / count * text.length);
            some.tokens.insert(some.tokens.end(), from, from + static_cast<std::ptrdiff_t>(some.length));
        }
        return some;
    }

    const model::model_config& config() const { return model_.config(); }

    void run(std::size_t i, matrix_view<float> hidden) {
        model::block_run<study_backend> block(model_.backend(), config(), model_.blocks()[i], i, *ropes_, buffers_,
                                              scratch_);
        block.begin(hidden, length_, {});
        while (block.next()) {
        }
    }

    /// What the head reads [tokens, embedding_size] once the blocks from `i` on have run.
    matrix<float> outputs_from(std::size_t i) {
        matrix<float> hidden = hidden_;
        for (; i < config().blocks; ++i) run(i, hidden.view());
        return model::compute_head_inputs(model_.backend(), model_.head_inputs(), config(),
                                          std::as_const(hidden).view());
    }

    void logits(const matrix<float>& states, std::size_t first, matrix_view<float> out) const {
        model_.head(states.view().block(first, out.rows, 0, states.cols()), out);
    }

    model::decoder model_;
    std::optional<model::rope_tables<study_backend>> ropes_;
    model::block_buffers<study_backend> buffers_;
    model::block_scratch<study_backend> scratch_;
    std::size_t length_ = 0;   // of a window
    matrix<float> hidden_;     // what the block at hand reads [tokens, hidden_size]
    matrix<float> reference_;  // what the head of the float model reads [tokens, embedding_size]
};

/// One run of measure_layers.
class layer_pass {
 public:
    layer_pass(const study_input& input, std::vector<layer_cell>& cells, sensitivity_probe* probe,
               const study_watch& watch)
        : input_(input), cells_(cells), probe_(probe), watch_(watch) {
        for (const model::stage_plan& stage : model::detail::model_stages(input.config, false)) {
            stages_.emplace(stage.modules.front().name, stage);
            weights_total_ += static_cast<double>(stage.weights());
        }
        for (const layer_cell& cell : cells) done_.push_back(blocks_in(cell.result.layers));
        if (probe != nullptr) probed_ = blocks_in(probe->stages);
    }

    void run(const std::function<void(std::size_t, std::size_t)>& after_block) {
        const model::model_config& config = input_.config;
        if (probe_ != nullptr) model_.emplace(backend_, input_, *probe_);
        model::calibration_states states(backend_, config, model::load_embedding(config, input_.folder, backend_),
                                         input_.calibration, false);
        for (std::size_t i = 0; i < config.blocks; ++i) {
            std::optional<held_block> own;
            if (!model_) own.emplace(model::load_block(config, input_.folder, i, backend_));
            held_block& block = model_ ? model_->block(i) : *own;
            common_.reset();
            model::run_block_by_stages(backend_, config, block, nullptr, i, states,
                                       [&](stage_layers& layers, const stage_inputs& x) { pass_stage(layers, x); });
            if (model_) model_->pass(i);
            after_block(i + 1, config.blocks);
        }
        for (layer_cell& cell : cells_) count_bytes(cell.result);
    }

 private:
    static std::size_t blocks_in(const auto& scores) { return scores.empty() ? 0 : scores.back().layer + 1; }

    void pass_stage(stage_layers& layers, const stage_inputs& x) {
        const model::stage_plan& stage = stages_.at(layers.names.front());
        watch_(weights_done_ / weights_total_, layers.names.front());
        const bool wanted =
            std::any_of(done_.begin(), done_.end(), [&](std::size_t done) { return done <= stage.layer; });
        const bool probed = probe_ != nullptr && probed_ <= stage.layer;
        if (wanted || probed) measure_stage(stage, layers, hessian_of(layers, x));
        weights_done_ += static_cast<double>(stage.weights());
    }

    basic_hessian<cpu_backend> hessian_of(const stage_layers& layers, const stage_inputs& x) {
        const auto no_factor = [](const auto&...) -> layer_factor { throw error("study: no factor was asked for"); };
        try {
            return model::gather_statistics(backend_, x, {}, false, no_factor, common_).H;
        } catch (const non_finite_error& problem) {
            throw non_finite_error(layers.names.front() + ": " + problem.what());
        }
    }

    void measure_stage(const model::stage_plan& stage, stage_layers& layers, const basic_hessian<cpu_backend>& H) {
        factor_cache factors(H);
        std::vector<double> energy;
        for (study_backend::weights* layer : layers.modules)
            energy.push_back(output_error(in_backend, backend_.floats(*layer).view(), H));
        for (std::size_t c = 0; c < cells_.size(); ++c)
            if (done_[c] <= stage.layer) measure_cell(cells_[c], stage, layers, H, factors, energy);
        if (probe_ != nullptr && probed_ <= stage.layer) probe_stage(stage, layers, H, factors);
    }

    void measure_cell(layer_cell& cell, const model::stage_plan& stage, const stage_layers& layers,
                      const basic_hessian<cpu_backend>& H, factor_cache& factors, const std::vector<double>& energy) {
        const model::detail::stopwatch time;
        const bool in_checkpoints = find_method(cell.cell.method).in_checkpoints;
        for (std::size_t m = 0; m < layers.modules.size(); ++m) {
            watch_(weights_done_ / weights_total_, label_of(cell.cell) + ": " + layers.names[m]);
            const auto held = backend_.floats(*layers.modules[m]);
            const matrix_view<const float> W = held.view();  // [N, K]
            const quantized_layer codes = solve(cell.cell, layers.names[m], W, H, factors);
            matrix<float> Q(W.rows, W.cols);
            dequantize_into(codes.view(), Q.view());
            const double error = error_of(W, Q, H);
            cell.result.layers.push_back(
                {stage.layer, stage.modules[m].name_in_layer, error, energy[m] > 0.0 ? error / energy[m] : 0.0,
                 stored_bytes(cell.cell, in_checkpoints, layers.names[m], codes), W.rows * W.cols});
        }
        if (cell.result.quantize_seconds) *cell.result.quantize_seconds += time.seconds();
    }

    static quantized_layer solve(const study_cell& cell, const std::string& module, matrix_view<const float> W,
                                 const basic_hessian<cpu_backend>& H, factor_cache& factors) {
        const study_method& method = find_method(cell.method);
        layer_factor* factor = cell.settings.method == quantize_method::gptq ? &factors.get(cell.settings) : nullptr;
        try {
            return method.solve({W, H, factor, cell.settings, cell.format});
        } catch (const non_finite_error& problem) {
            throw non_finite_error(module + ": " + problem.what());
        }
    }

    /// tr(D H D') for D = W - Q; Q becomes D.
    static double error_of(matrix_view<const float> W, matrix<float>& Q, const basic_hessian<cpu_backend>& H) {
        for (std::size_t n = 0; n < W.rows; ++n)
            for (std::size_t k = 0; k < W.cols; ++k) Q(n, k) = W(n, k) - Q(n, k);
        return output_error(in_backend, std::as_const(Q).view(), H);
    }

    /// The stage is quantized by the probe while the model runs, and then is as it was.
    void probe_stage(const model::stage_plan& stage, stage_layers& layers, const basic_hessian<cpu_backend>& H,
                     factor_cache& factors) {
        stage_sensitivity found{.layer = stage.layer};
        std::vector<matrix<float>> originals;
        for (std::size_t m = 0; m < layers.modules.size(); ++m) {
            const matrix_view<const float> W = backend_.floats(*layers.modules[m]).view();
            matrix<float> Q(W.rows, W.cols);
            const quantized_layer codes = solve(probe_->cell, layers.names[m], W, H, factors);
            dequantize_into(codes.view(), Q.view());
            originals.push_back(backend_.upload(W));
            matrix<float> D = Q;
            found.error += error_of(originals.back().view(), D, H);
            found.modules.push_back(stage.modules[m].name_in_layer);
            backend_.replace(*layers.modules[m], std::as_const(Q).view());
        }
        found.divergence = model_->divergence(stage.layer);
        for (std::size_t m = 0; m < layers.modules.size(); ++m)
            backend_.replace(*layers.modules[m], std::as_const(originals[m]).view());
        probe_->stages.push_back(std::move(found));
    }

    /// Of the model, were its layers stored as in the cell.
    void count_bytes(cell_result& result) const {
        result.weights = parameters_of(input_.folder);
        result.bytes = tensor_bytes_of(input_.folder) + result.quantized_bytes();
        for (const auto& [name, stage] : stages_)
            for (const model::module_plan& m : stage.modules)
                result.bytes -= input_.folder.tensor(m.name + std::string(model::detail::weight_suffix)).bytes.size();
    }

    const study_backend backend_{model::quantized_form::dense};
    const study_input& input_;
    std::vector<layer_cell>& cells_;
    sensitivity_probe* probe_;
    const study_watch& watch_;
    std::map<std::string, model::stage_plan> stages_;  // by the name of its first module
    std::vector<std::size_t> done_;                    // blocks of each cell that are there already
    std::size_t probed_ = 0;                           // of the probe
    std::optional<probed_model> model_;                // with a probe
    model::common_hessian<study_backend> common_;      // of the block at hand
    double weights_total_ = 0.0, weights_done_ = 0.0;
};

}  // namespace detail

GPTQ_INLINE nlohmann::ordered_json sensitivity_json(const std::vector<stage_sensitivity>& stages) {
    auto list = nlohmann::ordered_json::array();
    for (const stage_sensitivity& s : stages)
        list.push_back({{"layer", s.layer}, {"modules", s.modules}, {"error", s.error}, {"divergence", s.divergence}});
    return list;
}

GPTQ_INLINE std::vector<stage_sensitivity> sensitivity_from_json(const nlohmann::ordered_json& list,
                                                                 const std::string& where) {
    if (!list.is_array()) throw format_error(where + ": sensitivities must be a list");
    std::vector<stage_sensitivity> stages;
    for (const auto& object : list) {
        stage_sensitivity s{.layer = static_cast<std::size_t>(detail::count_member(object, "layer", where)),
                            .error = detail::member<double>(object, "error", where),
                            .divergence = detail::member<double>(object, "divergence", where)};
        for (const auto& name : detail::list_member(object, "modules", where)) {
            if (!name.is_string()) throw format_error(where + ": a module is no name");
            s.modules.push_back(name.get<std::string>());
        }
        stages.push_back(std::move(s));
    }
    return stages;
}

GPTQ_INLINE nlohmann::ordered_json probe_json(const sensitivity_probe& probe) {
    return {{"sensitivity", cell_json(probe.cell)}, {"windows", probe.windows}, {"length", probe.length}};
}

GPTQ_INLINE void measure_layers(const study_input& input, std::vector<layer_cell>& cells, sensitivity_probe* probe,
                                const study_watch& watch,
                                const std::function<void(std::size_t, std::size_t)>& after_block) {
    detail::layer_pass(input, cells, probe, watch).run(after_block);
}

}  // namespace gptq::study
