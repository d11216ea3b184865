// The bodies of <gptq/model/quantize_from_hessians.hpp>.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_from_hessians.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/quantized_folder.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/model/spared_layers.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/model/stopwatch.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/quote.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {
namespace detail {

inline constexpr std::string_view hessian_suffix = ".hessian", input_suffix = ".input";

/// A module's name with every number in it put as `number`.
inline std::string with_numbers_as(const std::string& name, const std::string& number) {
    std::string kind;
    bool inside = false;
    for (const char c : name) {
        const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
        if (!digit || !inside) kind += digit ? number : io::detail::escaped({&c, 1});
        inside = digit;
    }
    return kind;
}

/// A name whose numbers begin with zeros, so that an order by characters is one by numbers.
inline std::string with_long_numbers(const std::string& name) {
    std::string long_name, number;
    for (const char c : name + '\0') {
        if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
            number += c;
            continue;
        }
        if (!number.empty()) long_name += std::string(20 - std::min<std::size_t>(number.size(), 20), '0') + number;
        number.clear();
        long_name += c;
    }
    return long_name;
}

/// A folder's safetensors files with Hessians or inputs, by the names of modules.
class hessian_source {
 public:
    /// Throws what opening the files throws, and format_error where there is nothing, or two of one name.
    explicit hessian_source(const std::filesystem::path& folder) {
        std::error_code code;
        std::vector<std::filesystem::path> paths;
        for (const auto& entry : std::filesystem::directory_iterator(folder, code))
            if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
        if (code) throw io_error(folder.string() + ": cannot read: " + code.message());
        std::sort(paths.begin(), paths.end());
        for (const auto& path : paths) files_.push_back(io::model_folder::of_file(path));
        for (const io::model_folder& file : files_)
            for (const std::string& name : file.tensor_names())
                for (const std::string_view suffix : {hessian_suffix, input_suffix})
                    if (name.ends_with(suffix)) add(name.substr(0, name.size() - suffix.size()), file, name);
        if (of_module_.empty())
            throw format_error(folder.string() + ": no *.safetensors there holds a tensor NAME.hessian or NAME.input");
    }

    /// The modules, "model.layers.2.x" before "model.layers.10.x".
    std::vector<std::string> modules() const {
        std::map<std::string, std::string> by_key;
        for (const auto& [name, place] : of_module_) by_key.emplace(with_long_numbers(name), name);
        std::vector<std::string> names;
        for (const auto& [key, name] : by_key) names.push_back(name);
        return names;
    }

    bool contains(const std::string& module) const { return of_module_.contains(module); }

    /// Inputs of the layer that what is stored is for.
    std::size_t in_features(const std::string& module) const { return info(module).shape.back(); }

    /// "FILE: tensor "NAME"".
    std::string describe(const std::string& module) const {
        const auto& [file, name] = of_module_.at(module);
        return file->describe(name);
    }

    /// Throws format_error for a Hessian that is not symmetric, or has a negative number on its diagonal.
    basic_hessian<solver_of<cpu_model_backend>> read(const std::string& module) const {
        const auto& [file, name] = of_module_.at(module);
        const tensor2<float> numbers = file->read_matrix(name);  // [K, K] or [T, K]
        basic_hessian<solver_of<cpu_model_backend>> h(numbers.shape()[1]);
        if (name.ends_with(input_suffix)) {
            h.add(numbers);
            return h;
        }
        check_symmetric(module, view_of(numbers));
        return basic_hessian<solver_of<cpu_model_backend>>::of(view_of(numbers), tokens(*file, module));
    }

    /// What tells other contents from these.
    std::string fingerprint() const {
        std::string all;
        for (const io::model_folder& file : files_) all += fingerprint_of(file) + " ";
        return all;
    }

 private:
    struct tensor_place {
        const io::model_folder* file;
        std::string tensor;
    };

    void add(const std::string& module, const io::model_folder& file, const std::string& tensor) {
        const io::tensor_info& stored = file.tensor(tensor);
        const bool square = stored.shape.size() == 2 && stored.shape[0] == stored.shape[1];
        if (stored.shape.size() != 2 || stored.shape[1] == 0 || (tensor.ends_with(hessian_suffix) && !square))
            throw shape_error(file.describe(tensor) + ": is " + io::shape_text(stored.shape) +
                              "; NAME.hessian is [inputs, inputs], NAME.input [tokens, inputs]");
        if (!of_module_.emplace(module, tensor_place{&file, tensor}).second)
            throw format_error(file.describe(tensor) + ": the module has another Hessian or input, too");
    }

    const io::tensor_info& info(const std::string& module) const {
        const auto& [file, name] = of_module_.at(module);
        return file->tensor(name);
    }

    void check_symmetric(const std::string& module, matrix_view<const float> H) const {
        constexpr double tolerance = 1e-3;
        for (std::size_t r = 0; r < H.rows; ++r) {
            if (H(r, r) < 0.0f)
                throw format_error(describe(module) + ": element " + std::to_string(r) +
                                   " of the diagonal is negative");
            for (std::size_t c = 0; c < r; ++c)
                if (std::abs(double{H(r, c)} - double{H(c, r)}) >
                    tolerance * std::sqrt(double{H(r, r)}) * std::sqrt(double{H(c, c)}))
                    throw format_error(describe(module) + ": is not symmetric at row " + std::to_string(r) +
                                       ", column " + std::to_string(c));
        }
    }

    /// NAME.tokens.
    std::size_t tokens(const io::model_folder& file, const std::string& module) const {
        const tensor1<float> count = file.read_vector(module + ".tokens");
        if (count.size() != 1 || count(0) < 0.0f || count(0) > 1e15f)
            throw format_error(file.describe(module + ".tokens") + ": is not one number of tokens");
        return static_cast<std::size_t>(count(0));
    }

    std::vector<io::model_folder> files_;
    std::map<std::string, tensor_place> of_module_;  // into files_
};

/// What comes before the module in a block: up to its first number. Modules without one are pieces of their own.
inline std::string piece_of(const std::string& module) {
    const auto digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
    const auto first = std::find_if(module.begin(), module.end(), digit);
    return {module.begin(), std::find_if_not(first, module.end(), digit)};
}

/// A stage for each module that has a Hessian, in pieces of a block each.
inline quantization_plan plan_modules(const io::model_folder& folder, const hessian_source& source,
                                      const io::quantization_config& wanted) {
    if (io::holds_quantized_tensors(folder))
        throw unsupported_error(folder.path().string() + ": is quantized already; start from the float model");
    if (wanted.settings.correct_drift)
        throw option_error("the drift of inputs cannot be corrected from Hessians: it takes a float model that runs");
    if (wanted.settings.guided)
        throw option_error("Hessians that are there already cannot be guided; leave out --guided");
    if (wanted.settings.scales_inputs())
        throw option_error(
            "Hessians do not say what stands before a layer and takes scales; leave out --smooth, and "
            "choose another method than awq");
    quantization_plan plan;
    std::string piece;
    for (const std::string& module : source.modules()) {
        const std::string weight = module + std::string(weight_suffix);
        if (!folder.contains(weight))
            throw format_error(source.describe(module) + ": the model has no tensor " + in_quotes(weight));
        const std::vector<std::size_t>& shape = folder.tensor(weight).shape;
        if (shape.size() != 2 || shape[1] != source.in_features(module))
            throw shape_error(source.describe(module) + ": is for " + std::to_string(source.in_features(module)) +
                              " inputs, but " + weight + " is " + io::shape_text(shape));
        const std::size_t layer = plan.stages.empty()         ? 0
                                  : piece == piece_of(module) ? plan.stages.back().layer
                                                              : plan.stages.back().layer + 1;
        piece = piece_of(module);
        const bool whole = piece == module;
        const std::string short_name = whole ? module : module.substr(std::min(piece.size() + 1, module.size() - 1));
        plan.stages.push_back({layer, {{module, short_name, shape[0], shape[1]}}, wanted.settings_of(module)});
    }
    check_stages(wanted.format, plan.stages);
    return plan;
}

/// `wanted` with rules that leave alone the matrices without a Hessian, a rule for all that differ in numbers only.
/// Throws format_error where others of the kind have one.
inline io::quantization_config spare_without_hessian(const io::model_folder& folder, const hessian_source& source,
                                                     io::quantization_config wanted) {
    std::map<std::string, std::string> captured;
    for (const std::string& module : source.modules()) captured.emplace(with_numbers_as(module, "#"), module);
    auto rules = wanted.dynamic.to_json();
    for (const std::string& name : folder.tensor_names()) {
        if (!name.ends_with(weight_suffix) || folder.tensor(name).shape.size() != 2) continue;
        const std::string module = name.substr(0, name.size() - weight_suffix.size());
        if (source.contains(module) || wanted.dynamic.match(module).skip) continue;
        const auto like = captured.find(with_numbers_as(module, "#"));
        if (like != captured.end())
            throw format_error(folder.describe(name) + ": has no Hessian, but " + in_quotes(like->second) +
                               " has one; store one of it (an expert may need more text), or leave it alone by a " +
                               "dynamic rule \"-:...\"");
        spare(rules, "(?:model\\.)?" + with_numbers_as(module, "\\d+") + "$");
    }
    wanted.dynamic = io::dynamic_rules(rules, "the rules of weights without a Hessian");
    return wanted;
}

/// Finds the codes of one module. Throws as quantize_from_hessians.
inline solved_module solve_module(const io::model_folder& folder, const hessian_source& source, const stage_plan& stage,
                                  const cpu_model_backend& cpu, stage_solver<cpu_model_backend>& solver) {
    const stopwatch watch;
    const module_plan& module = stage.modules.front();
    tensor2<float> W = folder.read_matrix(module.name + std::string(weight_suffix));  // [N, K]
    scale_check scales(module, *stage.settings);
    scales.add(0, view_of(std::as_const(W)));
    scales.finish();
    stored_layer stored;
    stored.weights = table(std::move(W));
    linear layer = cpu.hold(std::move(stored));
    const auto statistics = solver.take(stage, source.read(module.name));
    solved_module solved = solver.solve(stage, layer, statistics);
    check_scales(module.name, solved.codes);
    solved.record.samples = statistics.tokens;
    solved.record.layer = stage.layer;
    solved.record.module = module.name_in_layer;
    solved.record.seconds = watch.seconds();
    return solved;
}

}  // namespace detail

GPTQ_INLINE quantize_result quantize_from_hessians(const io::model_folder& folder, const std::filesystem::path& out,
                                                   const std::filesystem::path& hessians,
                                                   const quantize_model_options& options, model_observer_ref observer) {
    const detail::stopwatch watch;
    const detail::hessian_source source(hessians);
    const quantization_plan plan = detail::plan_modules(folder, source, options.config);
    io::quantization_config described = detail::spare_without_hessian(folder, source, options.config);
    described.lm_head = source.contains("lm_head");
    io::run_folder run(out);
    const nlohmann::ordered_json description = {
        {"config", described.to_json()}, {"hessians", source.fingerprint()}, {"source", fingerprint_of(folder)}};
    run_record record(run, description, options.restart);
    const std::size_t restored = record.finished();
    if (restored != 0) observer.on_resumed(restored, plan.pieces());
    detail::check_space(folder, plan, run, 0);
    const cpu_model_backend cpu(quantized_form::dense);
    stage_solver<cpu_model_backend> solver(cpu, described.format, observer);
    std::vector<named_layer> layers;
    run_notes notes;
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const stage_plan& stage = plan.stages[i];
        if (stage.layer < restored) continue;
        observer.on_progress(static_cast<double>(i) / static_cast<double>(plan.stages.size()),
                             stage.modules.front().name);
        if (stage.settings) {
            solved_module solved = detail::solve_module(folder, source, stage, cpu, solver);
            const std::string& name = stage.modules.front().name;
            if (const auto warning = detail::solver_warning(name, solved.codes.report))
                notes.warnings.push_back(*warning);
            observer.on_module(solved.record);
            notes.modules.push_back(std::move(solved.record));
            layers.emplace_back(name, std::move(solved.codes));
        }
        if (i + 1 < plan.stages.size() && plan.stages[i + 1].layer == stage.layer) continue;
        record.add(described.format, std::exchange(layers, {}), std::exchange(notes, {}));
    }
    quantize_result result = detail::write_result(run, record, folder, plan, described, false);
    result.seconds = watch.seconds();
    return result;
}

}  // namespace gptq::model
