// The bodies of <gptq/model/run_record.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/fingerprint.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/run_record.hpp>

namespace gptq::model {
namespace detail {

inline constexpr const char* way_out = "; --restart discards it, and another OUT leaves it alone";

}  // namespace detail

GPTQ_INLINE std::string fingerprint_of(std::span<const std::int32_t> tokens) {
    io::fingerprint all;
    all.add(std::as_bytes(tokens));
    return all.text();
}

GPTQ_INLINE std::string fingerprint_of(const io::model_folder& folder) {
    io::fingerprint all;
    all.add(folder.config().dump());
    for (const std::string& name : folder.tensor_names()) {
        const io::tensor_info& tensor = folder.tensor(name);
        all.add(name + " " + std::string(io::dtype_name(tensor.dtype)) + io::shape_text(tensor.shape));
        all.add(tensor.bytes.subspan(0, std::min<std::size_t>(tensor.bytes.size(), 64)).read());
    }
    return all.text();
}

GPTQ_INLINE std::string difference_between(const nlohmann::ordered_json& there, const nlohmann::ordered_json& here) {
    const auto theirs = there.flatten(), ours = here.flatten();
    std::vector<std::string> differences;
    const auto value = [](const nlohmann::ordered_json& all, const std::string& key) {
        return all.contains(key) ? io::detail::shown(all[key]) : std::string("not there");
    };
    const auto compare = [&](const std::string& key) {
        const std::string text =
            key.substr(1) + " is " + value(theirs, key) + " there and " + value(ours, key) + " here";
        const bool said = std::find(differences.begin(), differences.end(), text) != differences.end();
        if (value(theirs, key) != value(ours, key) && !said && differences.size() < 3) differences.push_back(text);
    };
    for (const auto& [key, ignored] : theirs.items()) compare(key);
    for (const auto& [key, ignored] : ours.items()) compare(key);
    std::string all;
    for (const std::string& text : differences) all += (all.empty() ? "" : "; ") + text;
    return all;
}

GPTQ_INLINE nlohmann::ordered_json run_description(const io::quantization_config& config, const token_windows& windows,
                                                   const io::model_folder& source, const std::string& arithmetic) {
    return {{"config", config.to_json()},
            {"tokens", fingerprint_of(windows.tokens)},
            {"source", fingerprint_of(source)},
            {"arithmetic", arithmetic}};
}

GPTQ_INLINE void take_up_run(const io::run_folder& folder, const nlohmann::ordered_json& description, bool restart,
                             const std::function<void(const nlohmann::ordered_json&)>& take_up) {
    if (restart) folder.clear();
    try {
        const auto state = folder.state();
        if (!state) return folder.clear();
        const std::string where = folder.path().string();
        if (!state->is_object() || !state->contains("run")) throw format_error(where + ": run.json tells of no run");
        const nlohmann::ordered_json& there = (*state)["run"];
        if (there != description)
            throw error(where + ": is what another run left: " + difference_between(there, description) +
                        detail::way_out);
        take_up(*state);
    } catch (const format_error& problem) {
        throw format_error(std::string(problem.what()) + ": the unfinished run is damaged" + detail::way_out);
    }
}

GPTQ_INLINE run_record::run_record(io::run_folder& folder, nlohmann::ordered_json description, bool restart)
    : folder_(folder), description_(std::move(description)) {
    take_up_run(folder_, description_, restart, [this](const nlohmann::ordered_json& state) { take_up(state); });
}

GPTQ_INLINE void run_record::take_up(const nlohmann::ordered_json& state) {
    const std::string where = folder_.path().string();
    const auto count = [&](const char* key) {
        return static_cast<std::size_t>(std::max(0, io::setting<int>(state, key, where).value_or(0)));
    };
    finished_ = count("blocks");
    notes_.experts_lacking = count("experts_lacking");
    notes_.modules = parse_quant_log(io::setting<std::string>(state, "log", where).value_or(""), where);
    if (state.contains("warnings") && state["warnings"].is_array())
        for (const auto& warning : state["warnings"])
            if (warning.is_string()) notes_.warnings.push_back(warning.get<std::string>());
    for (std::size_t i = 0; i < finished_; ++i) {
        std::error_code ignored;
        if (!std::filesystem::exists(folder_.piece(i), ignored))
            throw format_error(folder_.piece(i).string() + ": is missing");
    }
}

GPTQ_INLINE quantized_layer run_record::read(std::size_t block, const io::quantization_config& config,
                                             const std::string& module) {
    return io::read_quantized(piece(block), config, module);
}

GPTQ_INLINE const io::model_folder& run_record::piece(std::size_t block) {
    if (!open_ || open_->first != block) open_.emplace(block, io::model_folder::of_file(folder_.piece(block)));
    return open_->second;
}

GPTQ_INLINE void run_record::add(io::checkpoint_format format, const std::vector<named_layer>& layers,
                                 const run_notes& notes, const folded_tensors& folded) {
    folder_.write_piece(finished_, [&](const io::tensor_sink& sink) {
        for (const auto& [name, layer] : layers) io::write_quantized(sink, format, name, layer);
        folded.write(sink);
    });
    notes_.modules.insert(notes_.modules.end(), notes.modules.begin(), notes.modules.end());
    notes_.warnings.insert(notes_.warnings.end(), notes.warnings.begin(), notes.warnings.end());
    notes_.experts_lacking += notes.experts_lacking;
    ++finished_;
    folder_.save({{"run", description_},
                  {"blocks", finished_},
                  {"log", quant_log(notes_.modules)},
                  {"warnings", notes_.warnings},
                  {"experts_lacking", notes_.experts_lacking}});
}

GPTQ_INLINE std::unordered_set<std::string> run_record::copy_to(io::folder_writer& writer) const {
    std::unordered_set<std::string> names;
    for (std::size_t i = 0; i < finished_; ++i) {
        const io::safetensors_file piece(folder_.piece(i));
        for (const io::tensor_info& tensor : piece.tensors()) {
            writer.copy_tensor(tensor);
            names.insert(tensor.name);
        }
    }
    return names;
}

}  // namespace gptq::model
