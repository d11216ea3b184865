// The bodies of <gptq/model/quantize_checks.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {
namespace detail {

inline constexpr float largest_scale = 65504.0f;

/// Halves below have so few digits that a scale may be wrong by more than 3 %.
inline constexpr float smallest_exact_scale = 0x1p-20f;

/// The share of a layer's squared weights that scales too small for halves may have.
inline constexpr double vanishing_share = 0.001;

[[noreturn]] inline void fail_about_scales(const std::string& module, const std::string& problem) {
    throw unsupported_error(module + ": " + problem +
                            ", and checkpoints hold scales in half precision; leave this layer as it is by the dynamic "
                            "rule \"-:" +
                            module + "$\", or rescale it against its neighbour in the float model");
}

/// The least scale that a row whose largest weight is `largest` needs, whatever its groups are.
inline float least_scale(float largest, const quantize_settings& settings) {
    const float steps = static_cast<float>((1 << settings.bits) - 1);
    return (settings.sym ? 2.0f : 1.0f) * largest / steps;
}

GPTQ_INLINE void scale_check::add(std::size_t first, matrix_view<const float> rows) {
    for (std::size_t r = 0; r < rows.rows; ++r) {
        float largest = 0.0f;
        double squares = 0.0;
        for (const float w : rows.row(r)) {
            largest = std::max(largest, std::abs(w));
            squares += static_cast<double>(w) * static_cast<double>(w);
        }
        const float scale = least_scale(largest, settings_);
        if (scale > largest_scale)
            fail_about_scales(module_.name, "row " + std::to_string(first + r) + " has weights of up to " +
                                                number_string(largest) + ", too large for its scales");
        all_ += squares;
        if (scale < smallest_exact_scale) vanishing_ += squares;
    }
}

GPTQ_INLINE void scale_check::finish() const {
    if (vanishing_ > vanishing_share * all_)
        fail_about_scales(module_.name, "its weights are too small for its scales (below " +
                                            number_string(smallest_exact_scale) + ")");
}

GPTQ_INLINE void check_scales(const std::string& module, const quantized_layer& layer) {
    const std::span<const float> scales(layer.scales.data(), layer.scales.size());
    if (std::any_of(scales.begin(), scales.end(), [](float s) { return std::abs(s) >= largest_scale; }))
        fail_about_scales(module, "a scale reached " + number_string(largest_scale));
}

/// scale_check of a module's weights in a folder, without memory for all of them.
inline void check_stored_scales(const io::model_folder& folder, const std::string& name, const module_plan& module,
                                const quantize_settings& settings) {
    scale_check check(module, settings);
    const std::size_t together = std::max<std::size_t>(1, (std::size_t{1} << 16) / module.in_features);
    matrix<float> rows(std::min(together, module.out_features), module.in_features);
    for (std::size_t first = 0; first < module.out_features; first += together) {
        const auto part = rows.view().block(0, std::min(together, module.out_features - first), 0, rows.cols());
        folder.read_rows(name, first, part);
        check.add(first, part);
    }
    check.finish();
}

GPTQ_INLINE void check_numbers(const model_config& config, const io::model_folder& folder,
                               const quantization_plan& plan) {
    const tensor_use use(config);
    std::unordered_map<std::string, std::pair<const module_plan*, const quantize_settings*>> quantized;
    for (const stage_plan& stage : plan.stages)
        for (const module_plan& m : stage.modules)
            if (stage.settings) quantized[m.name + std::string(weight_suffix)] = {&m, &*stage.settings};
    const auto check = [&](const std::string& name) {
        const auto found = quantized.find(name);
        if (found == quantized.end())
            folder.require_finite(name);
        else
            check_stored_scales(folder, name, *found->second.first, *found->second.second);
    };
    std::vector<std::string> names = folder.tensor_names();
    std::erase_if(names, [&](const std::string& name) { return !use.reads(name); });
    std::vector<std::exception_ptr> failures(names.size());
    kernels::in_pieces(names.size(), kernels::default_threads(), [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) {
            try {
                check(names[i]);
            } catch (...) {
                failures[i] = std::current_exception();
            }
        }
    });
    // The first one in the order of names, whatever the threads found first.
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

GPTQ_INLINE void check_windows(const model_config& config, const token_windows& windows) {
    if (windows.count() == 0 || windows.tokens.size() % windows.length != 0)
        throw shape_error("calibration: " + std::to_string(windows.tokens.size()) +
                          " tokens are not one or more windows of " + std::to_string(windows.length));
    for (const std::int32_t id : windows.tokens)
        if (id < 0 || static_cast<std::size_t>(id) >= config.vocab_size)
            throw shape_error("calibration: token " + std::to_string(id) + " is not in the model's vocabulary of " +
                              std::to_string(config.vocab_size) + "; is the tokenizer that of another model?");
}

/// Bytes that the quantized tensors of a stage take, within a few bytes a module.
inline std::uintmax_t packed_bytes(const stage_plan& stage) {
    std::uintmax_t bytes = 0;
    for (const module_plan& m : stage.modules) {
        const std::size_t groups =
            group_count(m.in_features, group_size<dynamic>::features(m.in_features, stage.settings->group_size));
        const auto bits = static_cast<std::size_t>(stage.settings->bits);
        bytes +=
            (m.out_features * (m.in_features + groups) * bits) / 8 + 2 * m.out_features * groups + 4 * m.in_features;
    }
    return bytes;
}

GPTQ_INLINE void check_space(const io::model_folder& folder, const quantization_plan& plan, const io::run_folder& run,
                             std::uintmax_t states_bytes) {
    std::uintmax_t needed = states_bytes;
    for (const std::string& name : folder.tensor_names()) needed += folder.tensor(name).bytes.size();
    for (const std::filesystem::path& file : folder.companion_files()) needed += io::input_file(file).size();
    for (const stage_plan& stage : plan.stages) {
        if (!stage.settings) continue;
        for (const module_plan& m : stage.modules)
            needed -= folder.tensor(m.name + std::string(weight_suffix)).bytes.size();
        needed += 2 * packed_bytes(stage);
    }
    needed -= std::min<std::uintmax_t>(needed, run.bytes());
    std::error_code problem;
    const auto space = std::filesystem::space(run.path(), problem);
    if (!problem && space.available < needed)
        throw io_error(run.out().string() + ": needs about " + std::to_string(needed) + " bytes, but only " +
                       std::to_string(space.available) + " are left on that disk");
}

GPTQ_INLINE io::quantization_config described(io::quantization_config config, const token_windows& windows) {
    io::calibration_record record{windows.count(), windows.length};
    if (windows.sampling) record.sampling = *windows.sampling == window_sampling::first ? "first" : "spread";
    if (windows.special) record.special_tokens = *windows.special == special_tokens::as_tokenizer;
    config.calibration = std::move(record);
    return config;
}

/// Bytes after `key` in a file such as /proc/meminfo, whose numbers are of 1024 bytes; nothing if it has none.
inline std::optional<double> kibibytes_of(const char* file, const std::string& key) {
    std::ifstream lines(file);
    std::string word;
    while (lines >> word) {
        double number = 0.0;
        if (word == key && lines >> number) return 1024.0 * number;
    }
    return std::nullopt;
}

inline std::optional<double> number_in(const char* file) {
    std::ifstream stream(file);
    double number = 0.0;
    if (stream >> number) return number;
    return std::nullopt;
}

}  // namespace detail
GPTQ_INLINE double available_memory() {
    double bytes = std::numeric_limits<double>::infinity();
    if (const auto free = detail::kibibytes_of("/proc/meminfo", "MemAvailable:"))
        bytes = *free + detail::kibibytes_of("/proc/meminfo", "SwapFree:").value_or(0.0);
    const auto limit = detail::number_in("/sys/fs/cgroup/memory.max");
    if (limit) bytes = std::min(bytes, *limit);
    return bytes;
}

GPTQ_INLINE memory_estimate estimate_memory(const model_config& c, const quantization_plan& plan,
                                            bool beside_float_model) {
    const auto number = [](std::size_t n) { return static_cast<double>(n); };
    double widest = 0.0, block = 0.0, largest_block = 0.0, head = 0.0;
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const stage_plan& stage = plan.stages[i];
        if (i != 0 && stage.layer != plan.stages[i - 1].layer) block = 0.0;
        (stage.layer == c.blocks ? head : block) += number(stage.weights());
        largest_block = std::max(largest_block, block);
        if (stage.settings) widest = std::max(widest, number(stage.modules.front().in_features));
    }
    const double copies = beside_float_model ? 2.0 : 1.0;
    // Where scales are folded, a block runs as it was, beside the one that is folded and a copy on the way to either,
    // and all Hessians of a block are there at once.
    const bool scales = std::any_of(plan.stages.begin(), plan.stages.end(), [](const stage_plan& stage) {
        return stage.settings && stage.settings->scales_inputs();
    });
    const bool reads_old_states = c.experts != 0 || c.parallel;
    memory_estimate estimate;
    // An expert may be the one that most tokens go to: then it reads a copy of their inputs.
    const std::size_t inside = std::max({c.intermediate_size, c.expert_size, c.shared_expert_size});
    const std::size_t read = std::max(c.hidden_size, c.query_features()) + (reads_old_states ? c.hidden_size : 0);
    estimate.states = sizeof(float) * copies * number(c.hidden_size) * (reads_old_states ? 2.0 : 1.0);
    estimate.per_token = sizeof(float) * copies * (number(c.hidden_size) + number(read) + number(inside));
    estimate.fixed = sizeof(float) * ((copies + (scales ? 2.0 : 0.0)) * std::max(largest_block, head) +
                                      number(c.vocab_size) * number(c.embedding_size) +
                                      (beside_float_model || scales ? 6.0 : 3.0) * widest * widest);
    return estimate;
}

namespace detail {

/// "2.5 GB"; less than one in whole megabytes.
inline std::string gigabytes(double bytes) {
    if (bytes < 1e9) return number_string(std::ceil(bytes / 1e6)) + " MB";
    const double tenths = std::ceil(bytes / 1e8);
    return number_string(tenths / 10.0) + " GB";
}

/// Throws, or returns what to say, where one chunk takes `least` bytes and that is more than there are.
inline std::string least_memory_warning(double least, double budget, bool asked) {
    if (least <= budget) return "";
    const std::string text = "quantizing needs at least about " + gigabytes(least) + " of memory, and " +
                             gigabytes(budget) + (asked ? " were asked for (--memory)" : " are available") +
                             "; shorter windows (--seqlen) take less, and a part of it is the model's";
    if (asked || least > 1.5 * budget) throw error(text);
    return text;
}

/// Fills the memory that is left with states first, and with what would be computed twice then.
inline chunk_places places_within(double left, std::size_t chunks, double kept_bytes, double states_bytes) {
    const auto count = static_cast<double>(chunks);
    if (count * kept_bytes <= left) return {chunks, 0};
    left -= kept_bytes;  // of the chunk in hand
    const auto fitting = [](double bytes, double each) {
        return static_cast<std::size_t>(std::max(0.0, std::floor(bytes / each)));
    };
    if (left < count * states_bytes) return {0, fitting(left, states_bytes)};
    const std::size_t kept = fitting(left - count * states_bytes, kept_bytes - states_bytes);
    return {kept, chunks - kept};
}

inline std::string samples_warning(const quantization_plan& plan, const token_windows& windows) {
    std::size_t widest = 0;
    for (const stage_plan& stage : plan.stages)
        if (stage.settings && stage.settings->method == quantize_method::gptq)
            widest = std::max(widest, stage.modules.front().in_features);
    if (windows.tokens.size() >= widest) return "";
    return "only " + std::to_string(windows.tokens.size()) + " tokens of calibration text for layers of up to " +
           std::to_string(widest) + " inputs; several times as many tokens as inputs are advisable";
}

GPTQ_INLINE std::vector<std::string> run_warnings(const io::model_folder& folder, const model_config& config,
                                                  const quantization_plan& plan, const token_windows& windows) {
    std::vector<std::string> warnings = plan.warnings;
    warnings.push_back(window_warning(config, windows.length).value_or(""));
    warnings.push_back(samples_warning(plan, windows));
    warnings.push_back(left_files_warning(folder));
    std::erase(warnings, "");
    return warnings;
}

}  // namespace detail
GPTQ_INLINE memory_use plan_memory(const memory_estimate& estimate, std::size_t tokens, std::size_t chunk,
                                   double budget, bool asked) {
    const std::size_t chunks = tokens / chunk + (tokens % chunk != 0 ? 1 : 0);
    const double kept = estimate.per_token * static_cast<double>(chunk);
    memory_use use;
    use.warning = detail::least_memory_warning(estimate.fixed + kept, budget, asked);
    use.places =
        detail::places_within(budget - estimate.fixed, chunks, kept, estimate.states * static_cast<double>(chunk));
    const std::size_t in_file = chunks - std::min(chunks, use.places.kept + use.places.held);
    use.file_bytes = static_cast<std::uintmax_t>(estimate.states) * std::min(tokens, in_file * chunk);
    if (use.places.kept == chunks || asked || !use.warning.empty()) return use;
    use.warning = "to keep all that is computed, quantizing needs about " + detail::gigabytes(estimate.total(tokens)) +
                  " of memory, and " + detail::gigabytes(budget) + " are available; a part of it is computed twice";
    if (use.file_bytes != 0)
        use.warning +=
            ", and " + detail::gigabytes(static_cast<double>(use.file_bytes)) + " go to a file in OUT.partial";
    use.warning += "; fewer windows (--nsamples) take less";
    return use;
}

}  // namespace gptq::model
