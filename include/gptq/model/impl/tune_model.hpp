// The bodies of <gptq/model/tune_model.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/divided_windows.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/reverse_pass.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/tune_model.hpp>
#include <gptq/model/tuned_parts.hpp>

namespace gptq::model {

GPTQ_INLINE double usual_rate(int bits) { return bits <= 2 ? 5e-3 : bits == 3 ? 2e-3 : 1e-3; }

namespace detail {

/// Everything of a checkpoint that tuning changes.
class tuned_model {
 public:
    tuned_model(const io::model_folder& folder, const io::quantization_config& config, decoder& model, bool norms)
        : folder_(folder), config_(config), model_(model) {
        for (block_of<cpu_model_backend>& block : model.blocks()) {
            for (std::size_t s = 0; s < block.layers.size(); ++s)
                for (std::size_t m = 0; m < block.layers[s].size(); ++m)
                    add_layer(block.what.full_name(block.what.sites[s].modules[m]), block.layers[s][m]);
            if (!norms) continue;
            for (const block_norm& n : block.what.norms)
                add_norm(block.what.prefix + n.name, *block.norm(n.place), 1.0f);
        }
        if (auto& head = model.head_layer()) add_layer(std::string(model.config().arch.names.head), *head);
        if (auto& last = model.head_inputs().norm; last && norms)
            add_norm(std::string(model.config().arch.names.final_norm), *last, model.config().logit_scale);
        show();
    }

    std::size_t layers() const { return layers_.size(); }
    std::size_t norms() const { return norms_.size(); }

    gradient_takers<cpu_model_backend> takers() {
        gradient_takers<cpu_model_backend> takers;
        takers.layer = [this](const linear& layer, matrix_view<const float> x, matrix_view<const float> dy) {
            const auto tuned = layer_of_.find(&layer);
            if (tuned == layer_of_.end()) return;
            const matrix_view<float> dW = memory_.shaped(dy.cols, x.cols);
            model_.backend().weight_gradient(dy, x, dW);
            tuned->second->add_gradient(dW);
        };
        if (!norms_.empty())
            takers.of_norm = [this](const norm_layer& norm, matrix_view<const float> sums) {
                const auto [weight, bias] = norm_of_.at(&norm);
                if (weight != nullptr) weight->add_gradient(sums.row(0));
                if (bias != nullptr) bias->add_gradient(sums.row(1));
            };
        return takers;
    }

    /// A step of all numbers; `share` is what the rate has come down to.
    void step(const std::optional<double>& rate, double share) {
        int fewest_bits = 8;
        for (tuned_layer& layer : layers_) {
            layer.scales().step(share * rate.value_or(usual_rate(layer.bits())));
            fewest_bits = std::min(fewest_bits, layer.bits());
        }
        for (tuned_norm& norm : norms_) norm.numbers().step(share * rate.value_or(usual_rate(fewest_bits)));
        show();
    }

    void keep() {
        for_each([](const std::string&, tuned_numbers& numbers) { numbers.keep(); });
    }

    void restore() {
        for_each([](const std::string&, tuned_numbers& numbers) { numbers.restore(); });
        show();
    }

    void save(const io::tensor_sink& sink) {
        for_each([&](const std::string& name, const tuned_numbers& numbers) { numbers.save(sink, name); });
    }

    void load(const std::filesystem::path& piece, std::size_t steps) {
        const io::safetensors_file file(piece);
        for_each([&](const std::string& name, tuned_numbers& numbers) { numbers.load(file, name, steps); });
        show();
    }

    /// All tensors of the checkpoint.
    void write(io::folder_writer& writer) const {
        std::map<std::string, const tuned_layer*> scales;
        std::map<std::string, const tuned_norm*> norms;
        for (const tuned_layer& layer : layers_) scales[io::scales_name(config_.format, layer.module())] = &layer;
        for (const tuned_norm& norm : norms_) norms[norm.tensor()] = &norm;
        for (const std::string& name : folder_.tensor_names())
            if (const auto layer = scales.find(name); layer != scales.end())
                io::write_scales(writer.sink(), config_.format, layer->second->module(), layer->second->layer());
            else if (const auto norm = norms.find(name); norm != norms.end())
                norm->second->write(writer);
            else
                writer.copy_tensor(folder_.tensor(name));
    }

 private:
    template <class F>
    void for_each(const F& f) {
        for (tuned_layer& layer : layers_) f(layer.module(), layer.scales());
        for (tuned_norm& norm : norms_) f(norm.tensor(), norm.numbers());
    }

    void add_layer(const std::string& module, linear& held) {
        if (!io::is_quantized(folder_, module)) return;
        layers_.emplace_back(module, io::read_quantized(folder_, config_, module), held);
        layer_of_[&held] = &layers_.back();
    }

    void add_norm(const std::string& name, norm_layer& held, float factor) {
        const float offset = model_.config().arch.norm_adds_one ? 1.0f : 0.0f;
        auto& [weight, bias] = norm_of_[&held];
        if (held.weight.size() != 0) weight = &norm_tensor(name + ".weight", held.weight, factor, offset);
        if (held.bias.size() != 0) bias = &norm_tensor(name + ".bias", held.bias, 1.0f, 0.0f);
    }

    /// One norm may serve several branches.
    tuned_norm& norm_tensor(const std::string& tensor, tensor1<float>& held, float factor, float offset) {
        auto& known = norm_named_[tensor];
        if (known == nullptr) known = &norms_.emplace_back(folder_, tensor, factor, offset);
        known->add_target(held);
        return *known;
    }

    void show() {
        for (tuned_layer& layer : layers_) layer.show();
        for (tuned_norm& norm : norms_) norm.show();
    }

    const io::model_folder& folder_;
    const io::quantization_config& config_;
    decoder& model_;
    std::deque<tuned_layer> layers_;  // which do not move
    std::deque<tuned_norm> norms_;
    std::map<const linear*, tuned_layer*> layer_of_;
    std::map<const norm_layer*, std::pair<tuned_norm*, tuned_norm*>> norm_of_;
    std::map<std::string, tuned_norm*> norm_named_;
    scratch_matrix memory_;  // of one gradient
};

/// What decides the bytes of a result: equal for two runs that may go on with each other's steps.
inline nlohmann::ordered_json tuning_description(const io::model_folder& folder, const io::model_folder& reference,
                                                 const token_windows& windows, const tune_options& options) {
    return {{"steps", options.steps},
            {"rate", options.rate.value_or(0.0)},
            {"norms", options.norms},
            {"seqlen", windows.length},
            {"tokens", fingerprint_of(windows.tokens)},
            {"model", fingerprint_of(folder)},
            {"float", fingerprint_of(reference)}};
}

/// One run of tune_model.
class model_tuner {
 public:
    model_tuner(decoder& model, const decoder& reference, tuned_model& tuned, const tune_options& options,
                const tune_observer& observer, const io::run_folder& folder, const nlohmann::ordered_json& description)
        : model_(model),
          tuned_(tuned),
          options_(options),
          observer_(observer),
          folder_(folder),
          description_(description),
          pass_(model),
          reference_(reference),
          takers_(tuned.takers()) {}

    /// Leaves the model with the scales that did best.
    tune_result run(divided_windows windows) {
        tune_result result{.layers = tuned_.layers(), .norms = tuned_.norms()};
        const std::size_t first = take_up(result);
        for (std::size_t step = 0; step < first; ++step) windows.of_step(step);
        if (first == 0) {
            result.before = result.after = held_out_divergence(windows);
            tell({.step = 0, .held_out = result.before});
        }
        const std::size_t between = std::max<std::size_t>(1, options_.steps / 10);
        for (std::size_t step = first; step < options_.steps; ++step) {
            tune_progress done{.step = step + 1, .loss = divergence(windows.of_step(step), true)};
            const double turn = std::numbers::pi * static_cast<double>(step) / static_cast<double>(options_.steps);
            tuned_.step(options_.rate, 0.5 * (1.0 + std::cos(turn)));
            if (done.step % between == 0 || done.step == options_.steps) {
                done.held_out = held_out_divergence(windows);
                if (*done.held_out < result.after) {
                    result.after = *done.held_out;
                    result.kept_step = done.step;
                    tuned_.keep();
                }
                save(done.step, result);
            }
            tell(done);
        }
        tuned_.restore();
        const auto steps = static_cast<double>(std::max<std::size_t>(1, options_.steps - first));
        result.forward_seconds = forward_seconds_ / steps;
        result.reverse_seconds = reverse_seconds_ / steps;
        return result;
    }

 private:
    /// How many steps an unfinished run has done. `result` and the numbers become its.
    std::size_t take_up(tune_result& result) {
        std::size_t done = 0;
        take_up_run(folder_, description_, options_.restart, [&](const nlohmann::ordered_json& state) {
            const std::string where = folder_.path().string();
            const auto number = [&](const char* key) {
                const auto found = io::setting<double>(state, key, where);
                if (!found || !(*found >= 0.0)) throw format_error(where + ": run.json has no number " + key);
                return *found;
            };
            const auto step = [&](const char* key) {
                return static_cast<std::size_t>(std::min(number(key), static_cast<double>(options_.steps)));
            };
            done = step("step");
            result.kept_step = step("kept_step");
            result.before = number("before");
            result.after = number("after");
            piece_ = step("piece") % 2;
            tuned_.load(folder_.piece(piece_), done);
        });
        if (done != 0 && observer_.on_resumed) observer_.on_resumed(done);
        return done;
    }

    /// Two pieces take turns, so that run.json always tells of a whole one.
    void save(std::size_t step, const tune_result& result) {
        piece_ = 1 - piece_;
        folder_.write_piece(piece_, [this](const io::tensor_sink& sink) { tuned_.save(sink); });
        folder_.save({{"run", description_},
                      {"step", step},
                      {"piece", piece_},
                      {"kept_step", result.kept_step},
                      {"before", result.before},
                      {"after", result.after}});
    }

    void tell(const tune_progress& progress) const {
        if (observer_.on_step) observer_.on_step(progress);
    }

    double held_out_divergence(const divided_windows& windows) {
        double sum = 0.0;
        for (const auto window : windows.held_out) sum += divergence(window, false);
        return sum / static_cast<double>(windows.held_out.size());
    }

    /// Of one window, a token; and the gradients of all that is tuned.
    double divergence(std::span<const std::int32_t> window, bool backwards) {
        const auto tokens = static_cast<double>(window.size());
        reference_.read(window);
        double forward = timed([&] { pass_.forward(window, observer_.before_block); }), reverse = 0.0, sum = 0.0;
        const std::size_t part = std::max<std::size_t>(1, logits_held / model_.config().vocab_size);
        for (std::size_t first = 0; first < window.size(); first += part) {
            const std::size_t count = std::min(part, window.size() - first);
            matrix_view<float> logits;
            forward += timed([&] { logits = pass_.logits(first, count); });
            const matrix_view<const float> goal = reference_(first, count);
            sum += model_.backend().distill(goal, static_cast<float>(1.0 / tokens), logits);
            if (backwards) reverse += timed([&] { pass_.head_backward(first, logits, takers_); });
        }
        if (!std::isfinite(sum))
            throw non_finite_error(
                "the divergence from the float model is not finite; give a smaller rate, or look "
                "at both models with eval");
        if (!backwards) return sum / tokens;
        reverse += timed([&] { pass_.backward(takers_, observer_.before_block); });
        forward_seconds_ += forward;
        reverse_seconds_ += reverse;
        return sum / tokens;
    }

    template <class Work>
    static double timed(const Work& work) {
        const stopwatch watch;
        work();
        return watch.seconds();
    }

    decoder& model_;
    tuned_model& tuned_;
    const tune_options& options_;
    const tune_observer& observer_;
    const io::run_folder& folder_;
    const nlohmann::ordered_json& description_;
    reverse_pass<cpu_model_backend> pass_;
    token_logits<cpu_model_backend> reference_;
    gradient_takers<cpu_model_backend> takers_;
    std::size_t piece_ = 0;  // that run.json tells of
    double forward_seconds_ = 0.0, reverse_seconds_ = 0.0;
};

inline void check_tuning(const model_config& config, const model_config& reference, const token_windows& windows,
                         const tune_options& options) {
    if (options.steps == 0) throw option_error("steps: at least one is needed");
    if (options.rate && !(*options.rate > 0.0 && *options.rate < 1.0))
        throw option_error("rate: " + std::to_string(*options.rate) +
                           " is no relative change of a scale; give a number between 0 and 1, such as 0.002");
    if (config.vocab_size != reference.vocab_size)
        throw shape_error("the model has a vocabulary of " + std::to_string(config.vocab_size) +
                          " tokens, the float model one of " + std::to_string(reference.vocab_size) +
                          "; give the model that it was made from");
    check_windows(config, windows);
    if (windows.count() < 2)
        throw shape_error("tuning needs at least two windows, one to learn from and one that decides what is kept");
}

}  // namespace detail

GPTQ_INLINE tune_result tune_model(const io::model_folder& folder, const io::model_folder& reference,
                                   const std::filesystem::path& out, const token_windows& windows,
                                   const tune_options& options, const tune_observer& observer) {
    const detail::stopwatch watch;
    auto quantization = io::quantization_config::parse(folder);
    if (!quantization)
        throw format_error(folder.path().string() + ": is not quantized; give the folder that quantize wrote");
    if (io::visit_layout(quantization->format, [&]<class L>() { return layout::has_grid<L>; }))
        throw unsupported_error(folder.path().string() + ": scales of the format " +
                                io::format_name(quantization->format) + " are not tuned; affine formats' are");
    detail::check_tuning(read_model_config(folder), read_model_config(reference), windows, options);
    const io::run_folder run(out);
    const cpu_model_backend backend(quantized_form::dense);
    decoder model = decoder::load(folder, backend), goal = decoder::load(reference, backend);
    goal.before_each_block(observer.before_block);
    detail::tuned_model tuned(folder, *quantization, model, options.norms);
    const nlohmann::ordered_json description = detail::tuning_description(folder, reference, windows, options);
    tune_result result = detail::model_tuner(model, goal, tuned, options, observer, run, description)
                             .run(detail::divided_windows(windows));

    io::folder_writer writer(run.out(), run.result());
    tuned.write(writer);
    result.bytes = writer.tensor_bytes();
    io::quantization_config described = *quantization;
    described.tuning = io::tuning_record{.steps = options.steps,
                                         .kept_step = result.kept_step,
                                         .rate = options.rate.value_or(0.0),
                                         .norms = options.norms,
                                         .windows = windows.count(),
                                         .seqlen = windows.length};
    io::write_configs(writer, folder, described);
    if (const std::string left = left_files_warning(folder); !left.empty()) result.warnings.push_back(left);
    for (const std::filesystem::path& file : folder.companion_files()) writer.copy_file(file);
    writer.finish();
    run.clear();
    result.seconds = watch.seconds();
    return result;
}

}  // namespace gptq::model
