// The bodies of <gptq/model/finetune_model.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <numbers>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/divided_windows.hpp>
#include <gptq/model/finetune_model.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/reverse_pass.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/tuned_parts.hpp>
#include <gptq/quote.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {
namespace detail {

/// Numbers that Adam moves in steps of the rate itself.
inline tuned_numbers free_numbers(std::vector<float> start) {
    std::vector<float> units(start.size(), 1.0f);
    return {std::move(start), std::move(units)};
}

/// The term s B A of one layer: down is A [r, K], up is B [N, r], and the layer holds A and s B.
class trained_term {
 public:
    trained_term(std::string module, linear& target, std::size_t rank, double scale, std::vector<float> down,
                 std::vector<float> up)
        : module_(std::move(module)),
          target_(&target),
          rank_(rank),
          scale_(static_cast<float>(scale)),
          down_(free_numbers(std::move(down))),
          up_(free_numbers(std::move(up))) {
        target.terms.push_back(
            {make_tensor2<float>(rank, target.in_features()), make_tensor2<float>(target.out_features(), rank)});
        show();
    }

    std::size_t size() const { return down_.size() + up_.size(); }

    /// Of a loss, from what the layer has read and the gradient of its outputs.            x [T, K]  dy [T, N]
    void add_gradient(matrix_view<const float> x, matrix_view<const float> dy) {
        const low_rank_term& held = target_->terms.back();
        const matrix_view<float> inner = inner_.shaped(x.rows, rank_);  // [T, r]
        blas::gemm_nt(x, view_of(held.down), inner, 1.0f, 0.0f);
        blas::gemm_tn(dy, inner, {up_.gradient().data(), dy.cols, rank_}, scale_, 1.0f);
        blas::gemm(dy, view_of(held.up), inner, 1.0f, 0.0f);
        blas::gemm_tn(inner, x, {down_.gradient().data(), rank_, x.cols}, 1.0f, 1.0f);
    }

    void step(double rate) {
        down_.step(rate);
        up_.step(rate);
        show();
    }

    void write(const io::tensor_sink& sink) const {
        const std::string name = "base_model.model." + module_;
        write(sink, name + ".lora_A.weight", rank_, target_->in_features(), down_);
        write(sink, name + ".lora_B.weight", target_->out_features(), rank_, up_);
    }

    /// "q_proj" of "model.layers.0.self_attn.q_proj", by which PEFT finds it.
    std::string kind() const { return module_.substr(module_.rfind('.') + 1); }

 private:
    void show() {
        low_rank_term& held = target_->terms.back();
        for (std::size_t i = 0; i < down_.size(); ++i) held.down.data()[i] = down_[i];
        for (std::size_t i = 0; i < up_.size(); ++i) held.up.data()[i] = scale_ * up_[i];
    }

    static void write(const io::tensor_sink& sink, const std::string& name, std::size_t rows, std::size_t cols,
                      const tuned_numbers& numbers) {
        std::vector<float> all(numbers.size());
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = numbers[i];
        sink(name, io::dtype::f32, std::array<std::size_t, 2>{rows, cols}, std::as_bytes(std::span(all)));
    }

    std::string module_;
    linear* target_;
    std::size_t rank_;
    float scale_;
    tuned_numbers down_, up_;
    scratch_matrix inner_;
};

/// All terms of an adapter in training.
class trained_adapter {
 public:
    trained_adapter(decoder& model, const finetune_options& options)
        : options_(options), scale_(options.alpha / static_cast<double>(options.rank)), random_(options.seed) {
        std::optional<adapter> start;
        if (!options.start.empty()) start.emplace(adapter::load(options.start));
        for (block_of<cpu_model_backend>& block : model.blocks())
            for (std::size_t s = 0; s < block.layers.size(); ++s)
                for (std::size_t m = 0; m < block.layers[s].size(); ++m)
                    add(block.what.full_name(block.what.sites[s].modules[m]), block.layers[s][m],
                        start ? &*start : nullptr);
        if (start && terms_.size() != start->terms().size())
            throw shape_error(start->where() + ": has terms for layers that this model has not, or not in its blocks");
        for (const std::string& target : options.targets)
            if (!start && !found_.contains(target))
                throw option_error("targets: no linear layer of the blocks is called " + in_quotes(target));
    }

    std::size_t layers() const { return terms_.size(); }
    std::size_t parameters() const {
        std::size_t sum = 0;
        for (const trained_term& term : terms_) sum += term.size();
        return sum;
    }

    gradient_takers<cpu_model_backend> takers() {
        gradient_takers<cpu_model_backend> takers;
        takers.layer = [this](const linear& layer, matrix_view<const float> x, matrix_view<const float> dy) {
            if (const auto found = term_of_.find(&layer); found != term_of_.end()) found->second->add_gradient(x, dy);
        };
        return takers;
    }

    void step(double rate) {
        for (trained_term& term : terms_) term.step(rate);
    }

    void write(io::folder_writer& writer, const io::model_folder& base) const {
        std::set<std::string> kinds;
        for (const trained_term& term : terms_) {
            term.write(writer.sink());
            kinds.insert(term.kind());
        }
        const nlohmann::ordered_json config = {
            {"peft_type", "LORA"},    {"task_type", "CAUSAL_LM"},     {"base_model_name_or_path", base.path().string()},
            {"r", options_.rank},     {"lora_alpha", options_.alpha}, {"lora_dropout", 0.0},
            {"bias", "none"},         {"fan_in_fan_out", false},      {"init_lora_weights", true},
            {"inference_mode", true}, {"target_modules", kinds}};
        writer.write_text("adapter_config.json", io::json_text(config, "adapter_config.json"));
    }

 private:
    void add(const std::string& module, linear& layer, const adapter* start) {
        const std::size_t N = layer.out_features(), K = layer.in_features();
        std::vector<float> down(options_.rank * K), up(N * options_.rank);
        if (start != nullptr) {
            const auto found = start->terms().find(module);
            if (found == start->terms().end()) return;
            take(start->where() + ": " + module, found->second.down, down, 1.0);
            take(start->where() + ": " + module, found->second.up, up, scale_);
        } else {
            if (!is_wanted(module)) return;
            std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
            for (float& a : down) a = uniform(random_) / std::sqrt(static_cast<float>(K));
        }
        terms_.emplace_back(module, layer, options_.rank, scale_, std::move(down), std::move(up));
        term_of_[&layer] = &terms_.back();
    }

    static void take(const std::string& where, const tensor2<float>& from, std::vector<float>& to, double divisor) {
        if (from.size() != to.size())
            throw shape_error(where + ": has " + std::to_string(from.size()) + " numbers, and " +
                              std::to_string(to.size()) + " are needed; give the rank of the adapter to start from");
        std::transform(from.begin(), from.end(), to.begin(),
                       [divisor](float x) { return static_cast<float>(static_cast<double>(x) / divisor); });
    }

    bool is_wanted(const std::string& module) {
        if (options_.targets.empty()) return true;
        const auto target = std::find_if(options_.targets.begin(), options_.targets.end(), [&](const std::string& t) {
            return module == t || module.ends_with("." + t);
        });
        if (target != options_.targets.end()) found_.insert(*target);
        return target != options_.targets.end();
    }

    const finetune_options& options_;
    double scale_;
    std::mt19937_64 random_;
    std::deque<trained_term> terms_;  // which do not move
    std::map<const linear*, trained_term*> term_of_;
    std::set<std::string> found_;  // of the targets
};

inline void check_finetuning(const model_config& config, const token_windows& windows,
                             const finetune_options& options) {
    if (options.rank == 0) throw option_error("rank: at least 1 is needed");
    if (options.steps == 0) throw option_error("steps: at least one is needed");
    if (!(options.alpha > 0.0)) throw option_error("alpha: a number above 0 is needed");
    if (!(options.rate > 0.0 && options.rate < 1.0))
        throw option_error("rate: a number between 0 and 1 is needed, such as 0.0002");
    check_windows(config, windows);
    if (windows.count() < 2)
        throw shape_error("training needs at least two windows, one to learn from and one that shows what it learned");
}

/// Next tokens of windows: their loss, and its gradients.
class next_token_loss {
 public:
    next_token_loss(decoder& model, const tune_observer& observer, gradient_takers<cpu_model_backend> takers)
        : model_(model), observer_(observer), takers_(std::move(takers)), pass_(model) {}

    /// The mean of -log likelihood, in nats.
    double operator()(std::span<const std::int32_t> window, bool backwards) {
        const std::size_t scored = window.size() - 1;
        const std::size_t part = std::max<std::size_t>(1, logits_held / model_.config().vocab_size);
        pass_.forward(window, observer_.before_block);
        double sum = 0.0;
        for (std::size_t at = 0; at < window.size(); at += part) {
            const matrix_view<float> logits = pass_.logits(at, std::min(part, window.size() - at));
            const auto targets = window.subspan(at + 1, std::min(logits.rows, scored - at));
            const auto losses =
                model_.backend().negative_log_likelihoods(logits.block(0, targets.size(), 0, logits.cols), targets);
            for (const double loss : losses) sum += loss;
            if (!backwards) continue;
            model_.backend().solver().for_each_row(
                logits.rows, likelihood_adjoint_row{logits, targets, 1.0f / static_cast<float>(scored)});
            pass_.head_backward(at, logits, takers_);
        }
        const double mean = sum / static_cast<double>(scored);
        if (!std::isfinite(mean)) throw non_finite_error("the loss is not finite; give a smaller rate");
        if (backwards) pass_.backward(takers_, observer_.before_block);
        return mean;
    }

    double mean_of(const std::vector<std::span<const std::int32_t>>& windows) {
        double sum = 0.0;
        for (const auto window : windows) sum += (*this)(window, false);
        return sum / static_cast<double>(windows.size());
    }

 private:
    decoder& model_;
    const tune_observer& observer_;
    gradient_takers<cpu_model_backend> takers_;
    reverse_pass<cpu_model_backend> pass_;
};

}  // namespace detail

GPTQ_INLINE finetune_result finetune_model(const io::model_folder& folder, const std::filesystem::path& out,
                                           const token_windows& windows, const finetune_options& options,
                                           const tune_observer& observer) {
    const detail::stopwatch watch;
    io::refuse_existing(out);
    detail::check_finetuning(read_model_config(folder), windows, options);
    decoder model = decoder::load(folder, cpu_model_backend(quantized_form::dense));
    detail::trained_adapter trained(model, options);
    detail::divided_windows divided(windows);
    detail::next_token_loss loss(model, observer, trained.takers());
    const auto tell = [&](const tune_progress& progress) {
        if (observer.on_step) observer.on_step(progress);
    };
    finetune_result result{.layers = trained.layers(), .parameters = trained.parameters()};
    result.before = loss.mean_of(divided.held_out);
    tell({.step = 0, .held_out = result.before});
    const std::size_t between = std::max<std::size_t>(1, options.steps / 10);
    for (std::size_t step = 0; step < options.steps; ++step) {
        tune_progress done{.step = step + 1, .loss = loss(divided.of_step(step), true)};
        const double turn = std::numbers::pi * static_cast<double>(step) / static_cast<double>(options.steps);
        trained.step(options.rate * 0.5 * (1.0 + std::cos(turn)));
        if (done.step % between == 0 || done.step == options.steps)
            done.held_out = result.after = loss.mean_of(divided.held_out);
        tell(done);
    }
    io::folder_writer writer(out);
    writer.name_weights("adapter_model");
    trained.write(writer, folder);
    writer.finish();
    result.seconds = watch.seconds();
    return result;
}

}  // namespace gptq::model
