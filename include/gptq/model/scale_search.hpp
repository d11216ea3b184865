// Scales for the folds of a block, from what its layers read: AWQ's, searched by the loss of rounding, and
// SmoothQuant's, from the largest inputs and weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/scale_fold.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/settings.hpp>

namespace gptq::model {

/// alpha is one of 0 / 20, ..., 19 / 20, as in the authors' program (llm-awq, auto_scale.py).
inline constexpr int awq_alphas = 20;

/// mean^alpha, of inputs' mean magnitudes, over the root of the product of the largest and the smallest such power;
/// powers below 1e-4 count as that.                                                                            [scales]
inline std::vector<float> awq_scales(std::span<const double> mean, double alpha) {
    std::vector<double> s;
    for (const double m : mean) s.push_back(std::max(std::pow(m, alpha), 1e-4));
    const auto [least, most] = std::minmax_element(s.begin(), s.end());
    const double middle = std::sqrt(*least * *most);
    std::vector<float> scales;
    for (const double x : s) scales.push_back(static_cast<float>(x / middle));
    return scales;
}

/// SmoothQuant, equation 4: inputs^alpha / weights^(1 - alpha), of largest magnitudes of an input and of the weights
/// that it meets; magnitudes and scales below 1e-5 count as that. The scale of an input that was always 0 is 1.
inline std::vector<float> smooth_scales(std::span<const double> inputs, std::span<const double> weights, double alpha) {
    std::vector<float> scales;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        const double s = std::pow(inputs[i], alpha) / std::pow(std::max(weights[i], 1e-5), 1.0 - alpha);
        scales.push_back(inputs[i] > 0.0 && std::isfinite(s) ? static_cast<float>(std::max(s, 1e-5)) : 1.0f);
    }
    return scales;
}

/// What the layers of a site read.
template <ModelBackend B>
struct site_inputs {
    std::optional<basic_hessian<solver_of<B>>> H;  ///< nothing where nobody asked for it
    std::vector<double> sums;                      ///< of magnitudes of each feature                               [K]
    std::vector<double> largest;                   ///< magnitude of each feature                                   [K]
    std::size_t tokens = 0;

    std::vector<double> means() const {
        std::vector<double> mean = sums;
        for (double& m : mean) m /= static_cast<double>(tokens);
        return mean;
    }
};

namespace detail {

/// Column k of row r times, or over, its scale.
struct scaled_row {
    matrix_view<const float> W;  // [N, K]
    matrix_view<const float> s;  // [1, K]
    matrix_view<float> out;      // [N, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0; k < W.cols; ++k) out(r, k) = W(r, k) * s(0, k);
    }
};

/// Q becomes Q / s - W.
struct unscale_row {
    matrix_view<const float> W, s;  // [N, K], [1, K]
    matrix_view<float> Q;           // [N, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0; k < W.cols; ++k) Q(r, k) = Q(r, k) / s(0, k) - W(r, k);
    }
};

/// The scale of each feature.                                                                                      [K]
inline std::vector<float> spread(const scale_fold& fold, std::span<const float> s) {
    std::vector<float> each;
    for (const std::size_t i : fold.columns) each.push_back(s[i]);
    return each;
}

/// The mean over the features that share a scale.                                                             [scales]
inline std::vector<double> mean_of_shared(const scale_fold& fold, std::span<const double> values) {
    std::vector<double> sums(fold.scales);
    for (std::size_t k = 0; k < values.size(); ++k) sums[fold.columns[k]] += values[k];
    const double each = static_cast<double>(fold.columns.size() / fold.scales);
    for (double& sum : sums) sum /= each;
    return sums;
}

/// The most of them.                                                                                          [scales]
inline std::vector<double> most_of_shared(const scale_fold& fold, std::span<const double> values) {
    std::vector<double> most(fold.scales);
    for (std::size_t k = 0; k < values.size(); ++k) most[fold.columns[k]] = std::max(most[fold.columns[k]], values[k]);
    return most;
}

/// Of all weights of a site that meet an input.                                                                    [K]
inline std::vector<double> largest_weights(const std::vector<stored_layer>& layers, std::size_t in_features) {
    std::vector<double> largest(in_features);
    for (const stored_layer& layer : layers)
        std::get<table>(layer.weights).visit([&](const auto& W) {
            for (std::size_t n = 0; n < W.rows; ++n)
                for (std::size_t k = 0; k < W.cols; ++k)
                    largest[k] = std::max(largest[k], std::abs(double{to_float(W(n, k))}));
        });
    return largest;
}

template <ModelBackend B>
void add_inputs(const B& backend, matrix_view<const typename B::activation> x, site_inputs<B>& to) {
    if (x.rows == 0) return;
    if (to.H) backend.add_tokens(*to.H, x);
    matrix<float> host(x.rows, x.cols);
    backend.read(x, host.view());
    for (std::size_t t = 0; t < x.rows; ++t)
        for (std::size_t k = 0; k < x.cols; ++k) {
            const double magnitude = std::abs(double{host(t, k)});
            to.sums[k] += magnitude;
            to.largest[k] = std::max(to.largest[k], magnitude);
        }
    to.tokens += x.rows;
}

/// Runs a block on copies of the states, which stay as they are; see(site, inputs) for each site of each chunk.
template <ModelBackend B, class See>
void look_at_sites(const B& backend, const model_config& config, const block_of<B>& block, std::size_t index,
                   calibration_states<B>& states, const See& see) {
    const rope_tables<B> ropes(backend, config, text_range{0, states.window_length()});
    room_for_one<B, float> room;
    block_buffers<B> buffers;
    for (std::size_t c = 0; c < states.chunks(); ++c) {
        const matrix_view<const float> from = states.states(c, 0);
        const matrix_view<float> copy = room.shaped(backend, from.rows, from.cols);
        backend.solver().for_each_row(copy.rows, gptq::detail::copy_row{from, copy});
        block_run<B> run(backend, config, block, index, ropes, buffers, states.scratch());
        run.begin(copy, states.window_length(), {});
        for (std::size_t site = 0; site < block.what.sites.size(); ++site, run.next()) see(site, run.inputs());
    }
}

}  // namespace detail

/// tr(E H E') of rounding W [N, K] with scales s [K] to nearest: E = Q(W diag(s)) diag(s)^-1 - W. All in the backend's
/// memory but s.
template <Backend B>
double loss_with_scales(const B& backend, matrix_view<const float> W, const basic_hessian<B>& H,
                        std::span<const float> s, const quantize_settings& settings, io::checkpoint_format format) {
    const std::size_t group = group_size<dynamic>::features(W.cols, settings.group_size);
    const auto scales = backend.lend(matrix_view<const float>(s.data(), 1, s.size()));
    auto values = backend.template make_matrix<float>(W.rows, W.cols);
    backend.for_each_row(W.rows, detail::scaled_row{W, scales.view(), values.view()});
    held_layer<B> codes(backend, W.rows, W.cols, group_count(W.cols, group));
    detail::visit_rounding_scheme(settings, format, [&]<class S>() {
        round_to_nearest_into<S::bits>(in_backend, backend, values.view(), group, codes, typename S::grid{});
    });
    codes.dequantize(values.view());
    backend.for_each_row(W.rows, detail::unscale_row{W, scales.view(), values.view()});
    return output_error(in_backend, values.view(), H);
}

/// The scales that AWQ finds, the power of the inputs that they are, and the loss of all layers with them.
struct found_scales {
    std::vector<float> s;  ///< [scales]
    double alpha = 0.0;
    double loss = std::numeric_limits<double>::infinity();
};

/// AWQ's search (section 3.2, equation 5) for layers `weights`, each [N, K] in the backend's memory: the power of the
/// inputs' mean magnitudes with which rounding costs the layers least. mean [K].
template <Backend B>
found_scales search_scales(const B& backend, std::span<const matrix_view<const float>> weights,
                           const basic_hessian<B>& H, std::span<const double> mean, const scale_fold& fold,
                           const quantize_settings& settings, io::checkpoint_format format) {
    const std::vector<double> shared = detail::mean_of_shared(fold, mean);
    found_scales best;
    for (int i = 0; i < awq_alphas; ++i) {
        const double alpha = static_cast<double>(i) / awq_alphas;
        std::vector<float> s = awq_scales(shared, alpha);
        const std::vector<float> each = detail::spread(fold, s);
        double loss = 0.0;
        for (const matrix_view<const float> W : weights)
            loss += loss_with_scales(backend, W, H, each, settings, format);
        if (loss < best.loss) best = {std::move(s), alpha, loss};
    }
    return best;
}

/// Folds scales into a block before it is quantized.
template <ModelBackend B>
class block_scaler {
 public:
    /// All arguments must outlive it. `stages`: the plan of each site of the block.
    block_scaler(const B& backend, const model_config& config, const io::model_folder& source,
                 io::checkpoint_format format, std::vector<const stage_plan*> stages)
        : backend_(backend), config_(config), source_(source), format_(format), stages_(std::move(stages)) {}

    /// Chooses scales for each site whose settings ask for some, where the fold is legal and what takes it is quantized
    /// or a norm, and folds them into `block`. The states are those that the block reads.
    folded_tensors scale(stored_block& block, std::size_t index, calibration_states<B>& states) const {
        folded_tensors changed;
        std::vector<std::optional<scale_fold>> folds;
        for (std::size_t site = 0; site < stages_.size(); ++site) folds.push_back(wanted_fold(block.what, site));
        block_of<B> held = hold_block(backend_, stored_block(block));
        const std::vector<site_inputs<B>> inputs = gather(held, index, folds, states);
        for (std::size_t site = 0; site < folds.size(); ++site) {
            if (!folds[site] || inputs[site].tokens == 0) continue;
            const scale_fold& fold = *folds[site];
            const std::vector<float> s = storable_scales(config_, source_, block, fold,
                                                         choose(fold, inputs[site], block.layers[site], held, site));
            fold_scales(block, site, fold, s);
            changed.add(config_, source_, block, fold);
        }
        return changed;
    }

 private:
    std::optional<scale_fold> wanted_fold(const block_description& what, std::size_t site) const {
        const auto& settings = stages_[site]->settings;
        if (!settings || !settings->scales_inputs()) return std::nullopt;
        scale_fold fold = fold_before(config_, what, site);
        const bool takes = fold.obstacle.empty() && (fold.norm || stages_[fold.layer.site]->settings);
        return takes ? std::optional(std::move(fold)) : std::nullopt;
    }

    std::vector<site_inputs<B>> gather(const block_of<B>& held, std::size_t index,
                                       const std::vector<std::optional<scale_fold>>& folds,
                                       calibration_states<B>& states) const {
        std::vector<site_inputs<B>> inputs(folds.size());
        for (std::size_t site = 0; site < folds.size(); ++site) {
            if (!folds[site]) continue;
            const std::size_t K = held.what.sites[site].in_features();
            inputs[site].sums.resize(K);
            inputs[site].largest.resize(K);
            if (stages_[site]->settings->method == quantize_method::awq) inputs[site].H.emplace(K, backend_.solver());
        }
        detail::look_at_sites(backend_, config_, held, index, states, [&](std::size_t site, const auto& x) {
            if (!folds[site]) return;
            try {
                detail::add_inputs(backend_, x, inputs[site]);
            } catch (const non_finite_error& problem) {
                throw non_finite_error(stages_[site]->modules.front().name + ": " + problem.what());
            }
        });
        return inputs;
    }

    std::vector<float> choose(const scale_fold& fold, const site_inputs<B>& inputs,
                              const std::vector<stored_layer>& layers, const block_of<B>& held,
                              std::size_t site) const {
        const quantize_settings& settings = *stages_[site]->settings;
        if (settings.smooth) {
            const std::vector<double> weights = detail::largest_weights(layers, fold.columns.size());
            return smooth_scales(detail::most_of_shared(fold, inputs.largest), detail::most_of_shared(fold, weights),
                                 *settings.smooth);
        }
        std::vector<decltype(backend_.floats(held.layers[site].front()))> floats;
        std::vector<matrix_view<const float>> weights;
        for (const auto& layer : held.layers[site]) floats.push_back(backend_.floats(layer));
        for (const auto& W : floats) weights.push_back(W.view());
        return search_scales<solver_of<B>>(backend_.solver(), weights, *inputs.H, inputs.means(), fold, settings,
                                           format_)
            .s;
    }

    const B& backend_;
    const model_config& config_;
    const io::model_folder& source_;
    io::checkpoint_format format_;
    std::vector<const stage_plan*> stages_;
};

}  // namespace gptq::model
