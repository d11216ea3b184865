// The bodies of <gptq/model/diagnose.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/diagnose.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

GPTQ_INLINE fault_description describe(fault what) {
    switch (what) {
        case fault::unreadable: return {"unreadable", "cannot be read", "fetch the files again, or quantize again"};
        case fault::config:
            return {"config", "in config.json differ from the float model's", "copy these keys from its config.json"};
        case fault::zero_points_too_large:
            return {"zero_points_too_large", "have zero points that are too large by one: gptq_v2 that is read as gptq",
                    "set \"checkpoint_format\" to \"gptq_v2\" in quantize_config.json and config.json"};
        case fault::zero_points_too_small:
            return {"zero_points_too_small", "have zero points that are too small by one: gptq that is read as gptq_v2",
                    "set \"checkpoint_format\" to \"gptq\" in quantize_config.json and config.json"};
        case fault::act_order_lost:
            return {"act_order_lost", "lost their act-order: g_idx does not name the groups that the codes are of",
                    "put the g_idx of the original files back, or quantize again with --order gar, which needs none"};
        case fault::scales:
            return {"scales", "have scales that do not fit their codes", "fetch the files again, or quantize again"};
        case fault::codes:
            return {"codes", "are far from the float model's, and no change that is known mends them",
                    "look whether --against is the model that the checkpoint was made from; then quantize again"};
        case fault::other_weights:
            return {"other_weights", "are not quantized, and differ from the float model's",
                    "look whether --against is the model that the checkpoint was made from; else copy them from it"};
        case fault::head:
            return {"head", "is not the float model's output layer",
                    "take lm_head.weight and tie_word_embeddings from the float model"};
        case fault::not_finite:
            return {"not_finite", "leave states that are NaN or infinite",
                    "mend the first fault above, or compute in float"};
        case fault::hard_layer:
            return {"hard_layer", "lose far more than other layers of their kind, as they do when rounded to nearest",
                    "give them 8 bits by a rule of --dynamic, or smaller groups"};
    }
    return {};
}

namespace detail {

/// Above so many times the error of rounding to nearest, a layer is not only hard.
inline constexpr double most_over_nearest = 2.0;
/// A change that brings the error down to this part, and near that of rounding to nearest, names the cause.
inline constexpr double mended_part = 1.0 / 3.0, mended_over_nearest = 4.0;
/// Float numbers that were stored in fewer digits differ by less, squared and relative.
inline constexpr double most_difference = 1e-2;

inline double squares_of(matrix_view<const float> m) { return gptq::detail::inner_product(cpu_backend(), m, m); }

/// The squared difference as a part of the squares of `from`.
inline double relative_difference(matrix_view<const float> from, matrix_view<const float> to) {
    double difference = 0.0;
    for (std::size_t r = 0; r < from.rows; ++r)
        for (std::size_t c = 0; c < from.cols; ++c) {
            const double d = double{from(r, c)} - double{to(r, c)};
            difference += d * d;
        }
    const double all = squares_of(from);
    return difference == 0.0 ? 0.0 : difference / all;
}

/// Every zero point changed by `by`, as the codes of a file wrap around.
inline quantized_layer with_zeros_moved(quantized_layer q, int by) {
    for (std::uint8_t& z : q.zeros) z = static_cast<std::uint8_t>((z + by) & ((1 << q.bits) - 1));
    return q;
}

/// Each column in the group whose scales and zero points bring it closest to W [N, K], judged by some rows.
inline quantized_layer with_groups_found(quantized_layer q, matrix_view<const float> W) {
    const std::size_t step = std::max<std::size_t>(1, W.rows / 64);
    for (std::size_t k = 0; k < W.cols; ++k) {
        double least = std::numeric_limits<double>::infinity();
        for (std::size_t g = 0; g < q.groups(); ++g) {
            double sum = 0.0;
            for (std::size_t n = 0; n < W.rows; n += step) {
                const double d = W(n, k) - q.scales(n, g) * static_cast<float>(q.codes(n, k) - q.zeros(n, g));
                sum += d * d;
            }
            if (sum < least) least = sum, q.g_idx(k) = static_cast<std::int32_t>(g);
        }
    }
    return q;
}

/// The scales that fit codes to W [N, K] best, in the place of those that are off by more than a factor of two. `first`
/// gets the place of the first of them.
inline quantized_layer with_scales_fitted(quantized_layer q, matrix_view<const float> W, std::string& first) {
    for (std::size_t n = 0; n < W.rows; ++n) {
        std::vector<double> along(q.groups(), 0.0), squares(q.groups(), 0.0);
        for (std::size_t k = 0; k < W.cols; ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx(k));
            const double steps = static_cast<double>(q.codes(n, k)) - static_cast<double>(q.zeros(n, g));
            along[g] += steps * W(n, k);
            squares[g] += steps * steps;
        }
        for (std::size_t g = 0; g < q.groups(); ++g) {
            const double fitting = squares[g] > 0.0 ? along[g] / squares[g] : 0.0, stored = q.scales(n, g);
            if (fitting == 0.0 || (stored / fitting > 0.5 && stored / fitting < 2.0)) continue;
            if (first.empty())
                first = "the scale of row " + std::to_string(n) + ", group " + std::to_string(g) + " is " +
                        number_string(stored) + "; " + number_string(fitting) + " fits the codes";
            q.scales(n, g) = static_cast<float>(fitting);
        }
    }
    return q;
}

/// What rounding to nearest makes of W with the bits and groups of `like`.                                       [N, K]
inline matrix<float> rounded_like(const quantized_layer& like, matrix_view<const float> W) {
    const cpu_backend backend;
    quantize_settings settings = settings::nearest(like.bits);
    settings.sym = like.sym;
    held_layer<cpu_backend> codes(backend, W.rows, W.cols, like.groups());
    visit_affine_scheme(settings, zero_points::from_zero, [&]<class S>() {
        round_to_nearest_into<S::bits>(in_backend, backend, W, like.group_features, codes, typename S::grid{});
    });
    matrix<float> values(W.rows, W.cols);
    codes.dequantize(values.view());
    return values;
}

/// One run of diagnose.
class diagnosis_run {
 public:
    using backend_type = cpu_model_backend;

    diagnosis_run(const io::model_folder& folder, const io::model_folder& reference, const token_windows& windows)
        : folder_(folder),
          reference_(reference),
          config_(read_model_config(folder)),
          float_config_(read_model_config(reference)),
          weights_(folder),
          float_weights_(reference),
          window_length_(windows.length),
          states_(windows.tokens.size(), float_config_.hidden_size),
          float_states_(windows.tokens.size(), float_config_.hidden_size) {
        compare_configs();
        check_windows(float_config_, windows);
        const auto tables = load_embedding(float_config_, reference, backend_);
        tables.look_up(backend_, float_config_, windows.tokens, window_length_, 0, float_states_.view());
        states_ = float_states_;
        compare_rows(std::string(config_.arch.names.embedding) + ".weight");
    }

    diagnosis run(const std::function<void(std::size_t)>& before_block) {
        const text_range positions{0, window_length_};
        const rope_tables<backend_type> ropes(backend_, config_, positions);
        const rope_tables<backend_type> float_ropes(backend_, float_config_, positions);
        for (std::size_t i = 0; i < config_.blocks; ++i) {
            if (before_block) before_block(i);
            pass_block(i, ropes, float_ropes);
        }
        look_at_head();
        find_hard_layers();
        return std::move(found_);
    }

 private:
    void add(fault what, const std::string& where, const std::string& example = "") {
        const auto same = [what](const finding& f) { return f.what == what; };
        auto at = std::find_if(found_.findings.begin(), found_.findings.end(), same);
        if (at == found_.findings.end()) at = found_.findings.insert(at, {what, {}, example});
        at->where.push_back(where);
    }

    /// read(); what it throws is a finding, and then there is nothing.
    template <class Read>
    auto read_or_say(const std::string& name, const Read& read) -> std::optional<decltype(read())> {
        try {
            return read();
        } catch (const error& problem) {
            add(fault::unreadable, name, problem.what());
            return std::nullopt;
        }
    }

    void compare_configs() {
        const model_config &a = config_, &b = float_config_;
        if (a.blocks != b.blocks || a.hidden_size != b.hidden_size || a.vocab_size != b.vocab_size ||
            a.heads != b.heads || a.kv_heads != b.kv_heads || a.intermediate_size != b.intermediate_size)
            throw shape_error(folder_.path().string() + " and " + reference_.path().string() +
                              " are models of different shapes; give the model that the first was made from");
        const auto compare = [this](bool same, const char* what) {
            if (!same) add(fault::config, what);
        };
        compare(a.rope == b.rope && a.window_rope == b.window_rope && a.unrotated == b.unrotated, "rotary embeddings");
        compare(a.windows == b.windows, "attention windows");
        compare(a.norm_eps == b.norm_eps, "epsilons of norms");
        compare(a.activation == b.activation, "activations");
        compare(a.attention_scale == b.attention_scale, "scales of attention scores");
    }

    /// Some rows of a tensor that neither model has quantized; nothing if one does not have it.
    void compare_rows(const std::string& name) {
        if (!folder_.contains(name) || !reference_.contains(name)) return;
        const std::size_t count = config_.vocab_size, step = std::max<std::size_t>(1, count / 64);
        double difference = 0.0;
        for (std::size_t r = 0; r < count && difference <= most_difference; r += step) {
            matrix<float> row(1, config_.embedding_size), wanted(1, config_.embedding_size);
            reference_.read_rows(name, r, wanted.view());
            if (!read_or_say(name, [&] { return folder_.read_rows(name, r, row.view()), true; })) return;
            difference = relative_difference(wanted.view(), row.view());
        }
        if (!(difference <= most_difference)) add(fault::other_weights, name);
    }

    void compare_norm(const std::string& name, const norm_layer& wanted, const norm_layer& there) {
        const auto differ = [](const tensor1<float>& a, const tensor1<float>& b) {
            const auto row = [](const tensor1<float>& v) { return matrix_view<const float>(v.data(), 1, v.size()); };
            return !(relative_difference(row(a), row(b)) <= most_difference);
        };
        if (differ(wanted.weight, there.weight) || differ(wanted.bias, there.bias)) add(fault::other_weights, name);
    }

    /// The checkpoint's block; what cannot be read is the float model's.
    stored_block read_own_block(std::size_t i, const stored_block& wanted) {
        stored_block own = wanted;
        for (std::size_t s = 0; s < wanted.layers.size(); ++s)
            for (std::size_t m = 0; m < wanted.layers[s].size(); ++m) {
                const block_module& module = wanted.what.sites[s].modules[m];
                const std::string name = wanted.what.full_name(module);
                if (auto read = read_or_say(name, [&] {
                        return weights_.read_linear(name, module.out_features, module.in_features, module.needs_bias);
                    }))
                    own.layers[s][m] = *std::move(read);
            }
        for (const block_norm& n : wanted.what.norms) {
            const std::string name = config_.block_prefix(i) + n.name;
            auto read = read_or_say(name, [&] { return weights_.read_norm(config_, name, n.features); });
            if (!read) continue;
            compare_norm(name, *wanted.norm(n.place), *read);
            own.norm(n.place) = *std::move(read);
        }
        return own;
    }

    void pass_block(std::size_t i, const rope_tables<backend_type>& ropes,
                    const rope_tables<backend_type>& float_ropes) {
        stored_block wanted = read_block(float_config_, float_weights_, i);
        const stored_block own = read_own_block(i, wanted);
        const auto float_block = hold_block(backend_, std::move(wanted));
        block_run<backend_type> run(backend_, float_config_, float_block, i, float_ropes, buffers_, scratch_);
        run.begin(float_states_.view(), window_length_, {});
        do {
            const auto& site = float_block.what.sites[run.site()];
            for (std::size_t m = 0; m < site.modules.size() && run.inputs().rows != 0; ++m)
                look_at_layer(float_block.what.full_name(site.modules[m]), own.layers[run.site()][m],
                              float_block.layers[run.site()][m], run.inputs());
        } while (run.next());
        pass_own(i, hold_block(backend_, stored_block(own)), ropes);
    }

    void pass_own(std::size_t i, const block_of<backend_type>& block, const rope_tables<backend_type>& ropes) {
        if (broken_) return found_.stream_errors.push_back(std::numeric_limits<double>::quiet_NaN());
        block_run<backend_type> run(backend_, config_, block, i, ropes, buffers_, scratch_);
        run.begin(states_.view(), window_length_, {});
        while (run.next()) {
        }
        found_.stream_errors.push_back(relative_difference(float_states_.view(), states_.view()));
        broken_ = !std::isfinite(squares_of(states_.view()));
        if (broken_) add(fault::not_finite, config_.block_prefix(i) + "output");
    }

    /// The squared error of the outputs for inputs X, as a part of their energy.               X [T, K]  W, Q [N, K]
    double output_part(matrix_view<const float> X, matrix_view<const float> W, const quantized_layer& q) const {
        matrix<float> Q(W.rows, W.cols);
        dequantize_into(q.view(), Q.view());
        return output_part(X, W, Q.view());
    }
    double output_part(matrix_view<const float> X, matrix_view<const float> W, matrix_view<const float> Q) const {
        matrix<float> wanted(X.rows, W.rows), there(X.rows, W.rows);
        blas::gemm_nt(X, W, wanted.view(), 1.0f, 0.0f);
        blas::gemm_nt(X, Q, there.view(), 1.0f, 0.0f);
        return relative_difference(wanted.view(), there.view());
    }

    void look_at_layer(const std::string& name, const stored_layer& own, const linear& wanted,
                       matrix_view<const float> X) {
        const matrix_view<const float> W = view_of(wanted.weight);
        if (const table* numbers = std::get_if<table>(&own.weights)) {
            const tensor2<float> there = numbers->floats();
            if (!(relative_difference(W, view_of(there)) <= most_difference)) add(fault::other_weights, name);
            return;
        }
        const auto& q = std::get<quantized_layer>(own.weights);
        const layer_diagnosis layer{name, output_part(X, W, q), output_part(X, W, rounded_like(q, W).view())};
        found_.layers.push_back(layer);
        if (!(layer.error <= most_over_nearest * layer.rtn_error)) look_for_cause(layer, q, W, X);
    }

    void look_for_cause(const layer_diagnosis& layer, const quantized_layer& q, matrix_view<const float> W,
                        matrix_view<const float> X) {
        fault cause = fault::codes;
        double least = mended_over_nearest * layer.rtn_error;
        if (std::isfinite(layer.error)) least = std::min(least, mended_part * layer.error);
        const auto try_change = [&](fault what, const quantized_layer& changed) {
            const double error = output_part(X, W, changed);
            if (error < least) least = error, cause = what;
        };
        std::string scale;
        try_change(fault::zero_points_too_large, with_zeros_moved(q, -1));
        try_change(fault::zero_points_too_small, with_zeros_moved(q, 1));
        try_change(fault::act_order_lost, with_groups_found(q, W));
        try_change(fault::scales, with_scales_fitted(q, W, scale));
        add(cause, layer.name, cause == fault::scales ? scale : "");
    }

    /// The last norm and the output layer.
    void look_at_head() {
        auto wanted = read_head_inputs(float_config_, float_weights_);
        const auto inputs = read_or_say(std::string(config_.arch.names.final_norm),
                                        [&] { return read_head_inputs(config_, weights_); });
        if (inputs && inputs->norm && wanted.norm)
            compare_norm(std::string(config_.arch.names.final_norm), *wanted.norm, *inputs->norm);
        const std::string name(config_.arch.names.head);
        const bool quantized = weights_.is_quantized(name), stored = folder_.contains(name + ".weight") || quantized;
        if (!stored && !config_.tied_embeddings)
            return add(fault::head, name, "it is missing, and config.json does not say that the embedding is the head");
        if (!quantized && config_.tied_embeddings && !float_config_.tied_embeddings)
            return add(fault::head, name, "config.json says tie_word_embeddings, and the float model does not");
        if (!quantized) return compare_rows(name + ".weight");
        const auto own = read_or_say(
            name, [&] { return weights_.read_linear(name, config_.vocab_size, config_.embedding_size, false); });
        if (!own) return;
        auto head = read_head(float_config_, float_weights_);
        if (!head) head.emplace().weights = read_embedding(float_config_, float_weights_).tokens;
        const auto held = hold_head_inputs(backend_, std::move(wanted));
        const auto X = compute_head_inputs(backend_, held, float_config_, std::as_const(float_states_).view());
        look_at_layer(name, *own, backend_.hold(*std::move(head)), X.view());
    }

    void find_hard_layers() {
        std::vector<std::string> kinds;
        std::vector<double> errors;
        for (const layer_diagnosis& layer : found_.layers) {
            const std::size_t block = layer.name.find_first_of("0123456789");
            kinds.push_back(block == std::string::npos ? layer.name : layer.name.substr(layer.name.find('.', block)));
            errors.push_back(layer.error);
        }
        for (const std::size_t i : far_above_their_kind(kinds, errors))
            if (found_.layers[i].error <= most_over_nearest * found_.layers[i].rtn_error)
                add(fault::hard_layer, found_.layers[i].name);
    }

    const io::model_folder &folder_, &reference_;
    model_config config_, float_config_;
    weight_reader weights_, float_weights_;
    const backend_type backend_{quantized_form::dense};
    std::size_t window_length_;
    matrix<float> states_, float_states_;  // [tokens, hidden_size]
    block_buffers<backend_type> buffers_;
    block_scratch<backend_type> scratch_;
    bool broken_ = false;  // states_ are not finite any more
    diagnosis found_;
};

}  // namespace detail

GPTQ_INLINE diagnosis diagnose(const io::model_folder& folder, const io::model_folder& reference,
                               const token_windows& windows, const std::function<void(std::size_t)>& before_block) {
    return detail::diagnosis_run(folder, reference, windows).run(before_block);
}

}  // namespace gptq::model
