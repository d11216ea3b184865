// The bodies of <gptq/io/model_folder.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/stacked_experts.hpp>
#include <gptq/quote.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::io {
namespace detail {

/// The files directly in `folder`, sorted by name. Symbolic links count as what they point to. Throws io_error.
inline std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
    std::error_code code;
    std::vector<std::filesystem::path> files;
    std::filesystem::directory_iterator entry(folder, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
        std::error_code broken_link;
        if (entry->is_regular_file(broken_link)) files.push_back(entry->path());
    }
    if (code) throw_io_error(folder, "read", code.value());
    std::sort(files.begin(), files.end());
    return files;
}

/// Stored numbers of one type as floats, by pieces that a processor's cache holds.
template <class Stored, class Widen>
void widen_to(const file_bytes& bytes, std::span<float> out, Widen&& widen) {
    std::vector<Stored> part(std::min(out.size(), (std::size_t{128} << 10) / sizeof(Stored)));
    for (std::size_t first = 0; first < out.size(); first += part.size()) {
        const auto stored = std::span(part).first(std::min(part.size(), out.size() - first));
        bytes.subspan(first * sizeof(Stored), stored.size_bytes()).read(std::as_writable_bytes(stored));
        for (std::size_t i = 0; i < stored.size(); ++i) out[first + i] = widen(stored[i]);
    }
}

/// Files that belong to a model, whatever its weights are.
inline bool is_companion(const std::string& name) {
    static constexpr std::string_view names[] = {"tokenizer.json",
                                                 "tokenizer_config.json",
                                                 "tokenizer.model",
                                                 "tokenizer.model.v3",
                                                 "tekken.json",
                                                 "special_tokens_map.json",
                                                 "added_tokens.json",
                                                 "vocab.json",
                                                 "vocab.txt",
                                                 "merges.txt",
                                                 "spiece.model",
                                                 "spm.model",
                                                 "sentencepiece.bpe.model",
                                                 "chat_template.jinja",
                                                 "chat_template.json",
                                                 "generation_config.json",
                                                 "preprocessor_config.json",
                                                 "processor_config.json",
                                                 "video_preprocessor_config.json"};
    static constexpr std::string_view texts[] = {
        "license", "licence", "notice", "copying", "readme", "use_policy", "acceptable_use_policy"};
    if (std::find(std::begin(names), std::end(names), name) != std::end(names)) return true;
    const std::string lower = lower_case(name), stem = lower.substr(0, lower.find('.'));
    const std::string_view suffix = std::string_view(lower).substr(stem.size());
    return std::find(std::begin(texts), std::end(texts), stem) != std::end(texts) &&
           (suffix.empty() || suffix == ".txt" || suffix == ".md");
}

/// Weights of any format and what belongs to them: a model with other weights has its own, or none.
inline bool is_made_anew(const std::string& name) {
    static constexpr std::string_view suffixes[] = {".safetensors", ".safetensors.index.json",
                                                    ".bin",         ".bin.index.json",
                                                    ".pt",          ".pth",
                                                    ".gguf",        ".h5",
                                                    ".msgpack",     ".onnx",
                                                    ".onnx_data",   ".ckpt",
                                                    ".ggml",        ".npz",
                                                    ".tflite",      ".ot",
                                                    ".part",        ".incomplete"};
    static constexpr std::string_view names[] = {
        "config.json",          "quantize_config.json", "quant_config.json", "quantization_config.json",
        "hf_quant_config.json", "quanto_qmap.json",     "quant_log.csv"};
    // An adapter's config without the adapter makes loaders fetch the model that it names.
    return name.starts_with('.') || name.starts_with("adapter_") ||
           std::any_of(std::begin(suffixes), std::end(suffixes),
                       [&](std::string_view suffix) { return name.ends_with(suffix); }) ||
           std::find(std::begin(names), std::end(names), name) != std::end(names);
}

GPTQ_INLINE void read_floats(const tensor_info& tensor, std::span<float> out, const std::string& where) {
    switch (tensor.dtype) {
        case dtype::f64: return widen_to<double>(tensor.bytes, out, [](double x) { return static_cast<float>(x); });
        case dtype::f32: return tensor.bytes.read(std::as_writable_bytes(out));
        case dtype::f16: return widen_to<half>(tensor.bytes, out, [](half x) { return to_float(x); });
        case dtype::bf16: return widen_to<bfloat16>(tensor.bytes, out, [](bfloat16 x) { return to_float(x); });
        default:
            throw unsupported_error(where + ": has the dtype " + std::string(dtype_name(tensor.dtype)) +
                                    "; F32, F16, BF16 or F64 is needed here");
    }
}

}  // namespace detail
GPTQ_INLINE model_folder model_folder::of_file(const std::filesystem::path& file) {
    model_folder folder;
    folder.path_ = file;
    folder.config_ = nlohmann::json::object();
    folder.open_single(file);
    return folder;
}

GPTQ_INLINE model_folder::model_folder(const std::filesystem::path& path) : path_(path) {
    if (is_gguf(path_)) {
        open_gguf();
        return;
    }
    std::error_code code;
    if (!std::filesystem::is_directory(path_, code))
        throw io_error(path_.string() + ": not a folder" +
                       (code                                   ? ": " + code.message()
                        : std::filesystem::exists(path_, code) ? "; give the folder that the file is in"
                                                               : std::string()));
    refuse_foreign_files();
    config_ = read_model_json(path_ / "config.json");
    if (!config_.is_object()) throw format_error((path_ / "config.json").string() + ": not a JSON object");
    open_weights();
    split_stacked_experts();
}

GPTQ_INLINE const tensor_info& model_folder::tensor(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw format_error(describe(name) + ": the model has no such tensor" + like(name));
    return *found->second;
}

GPTQ_INLINE std::vector<std::string> model_folder::tensor_names() const {
    std::vector<std::string> names;
    names.reserve(tensors_.size());
    for (const auto& [name, tensor] : tensors_) names.emplace_back(name);
    std::sort(names.begin(), names.end());
    return names;
}

GPTQ_INLINE tensor2<float> model_folder::read_matrix(std::string_view name) const {
    const auto& info = tensor_of_rank(name, 2, "a matrix");
    auto values = make_tensor2<float>(info.shape[0], info.shape[1]);
    read_finite(info, {values.data(), values.size()}, info.shape[1]);
    return values;
}

GPTQ_INLINE tensor1<float> model_folder::read_vector(std::string_view name) const {
    const auto& info = tensor_of_rank(name, 1, "a vector");
    auto values = make_tensor1<float>(info.shape[0]);
    read_finite(info, {values.data(), values.size()}, info.shape[0]);
    return values;
}

GPTQ_INLINE void model_folder::read_rows(std::string_view name, std::size_t first, matrix_view<float> out) const {
    const auto& info = tensor_of_rank(name, 2, "a matrix");
    if (out.cols != info.shape[1] || out.ld != out.cols || first + out.rows > info.shape[0])
        throw shape_error(describe(name) + ": has the shape " + shape_text(info.shape) + "; rows " +
                          std::to_string(first) + " to " + std::to_string(first + out.rows) + " of " +
                          std::to_string(out.cols) + " were asked for");
    const std::size_t row_bytes = out.cols * dtype_size(info.dtype);
    const std::span<float> values(out.data, out.rows * out.cols);
    const tensor_info piece{info.name, info.dtype, info.shape,
                            info.bytes.subspan(first * row_bytes, out.rows * row_bytes)};
    detail::read_floats(piece, values, describe(name));
    refuse_non_finite(info, values, first * out.cols, out.cols);
}

GPTQ_INLINE void model_folder::require_finite(std::string_view name) const {
    const auto& info = tensor(name);
    if (!is_float(info.dtype)) return;
    const std::size_t size = dtype_size(info.dtype), count = info.bytes.size() / size;
    const std::size_t cols = info.shape.empty() ? 1 : std::max<std::size_t>(info.shape.back(), 1);
    std::vector<float> part(std::min<std::size_t>(count, std::size_t{1} << 16));
    for (std::size_t first = 0; first < count; first += part.size()) {
        const std::span<float> out(part.data(), std::min(part.size(), count - first));
        tensor_info piece{info.name, info.dtype, info.shape, info.bytes.subspan(first * size, out.size() * size)};
        detail::read_floats(piece, out, describe(name));
        refuse_non_finite(info, out, first, cols);
    }
}

GPTQ_INLINE std::vector<std::filesystem::path> model_folder::companion_files() const {
    if (is_gguf(path_)) return {};
    auto files = detail::files_in(path_);
    std::erase_if(files, [](const std::filesystem::path& file) {
        return !detail::is_companion(file.filename().string()) || !detail::target_outside(file).empty();
    });
    return files;
}

GPTQ_INLINE std::vector<std::string> model_folder::left_files() const {
    if (is_gguf(path_)) return {};
    std::vector<std::string> names;
    for (const auto& file : detail::files_in(path_)) {
        const std::string name = file.filename().string();
        const bool companion = detail::is_companion(name) && detail::target_outside(file).empty();
        if (!companion && !detail::is_made_anew(name)) names.push_back(name);
    }
    return names;
}

GPTQ_INLINE std::string model_folder::describe(std::string_view name) const {
    return path_.string() + ": tensor " + in_quotes(name);
}

GPTQ_INLINE void model_folder::refuse_foreign_files() const {
    const auto files = detail::files_in(path_);
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"})
        if (detail::exists_in(path_, name)) refuse_foreign_content(path_ / name);
    if (detail::exists_in(path_, "config.json")) return;
    const std::string what = foreign_folder(path_, files);
    throw io_error(path_.string() + ": holds no config.json, so it is no model" +
                   (what.empty() ? std::string("; give a model's folder") : "; " + what));
}

GPTQ_INLINE std::string model_folder::like(std::string_view name) const {
    if (tensors_.empty()) return " (it has none at all)";
    std::string_view first = tensors_.begin()->first;
    for (const auto& [other, tensor] : tensors_) {
        first = std::min(first, other);
        if (other.size() > name.size() + 1 && other.ends_with(name) && other[other.size() - name.size() - 1] == '.')
            return "; it has " + in_quotes(other) + ": save the model again without " +
                   in_quotes(other.substr(0, other.size() - name.size())) + " before its tensors' names" +
                   (other.starts_with("base_model.") ? ", after merging the adapter into it" : "");
        if (name.size() > other.size() + 1 && name.ends_with(other) && name[name.size() - other.size() - 1] == '.')
            return "; it has " + in_quotes(other) + ": save the whole model (with its head), whose names " +
                   "begin with " + in_quotes(name.substr(0, name.size() - other.size()));
    }
    return "; of those it has, the first is " + in_quotes(first);
}

GPTQ_INLINE void model_folder::open_weights() {
    static constexpr std::string_view index_suffix = ".safetensors.index.json";
    auto files = detail::files_in(path_);
    std::erase_if(files, [&](const std::filesystem::path& file) {
        const std::string name = file.filename().string();
        const bool adapter = name.starts_with("adapter") && name.ends_with(".safetensors");
        if (adapter)
            warnings_.push_back(path_.string() + ": the adapter " + printable(name) +
                                " beside the model is ignored; merge it into the model first if it is wanted");
        return adapter;
    });
    const auto single = path_ / "model.safetensors";
    if (std::find(files.begin(), files.end(), single) != files.end()) return open_single(single);
    const auto standard_index = path_ / "model.safetensors.index.json";
    if (std::find(files.begin(), files.end(), standard_index) != files.end()) return open_shards(standard_index);
    if (const auto index = only_file(files, index_suffix); !index.empty()) return open_shards(index);
    if (const auto shards = complete_shards(files); !shards.empty()) return open_all(shards);
    if (const auto file = only_file(files, ".safetensors"); !file.empty()) return open_single(file);
    const std::string what = foreign_folder(path_, files);
    throw format_error(path_.string() +
                       ": holds neither model.safetensors nor model.safetensors.index.json (weights in other "
                       "formats must be converted to safetensors first)" +
                       (what.empty() ? "" : "; " + what));
}

GPTQ_INLINE void model_folder::split_stacked_experts() {
    static constexpr std::string_view stacked = ".experts.gate_up_proj";
    const expert_names* names = find_expert_names(config_);
    if (names == nullptr) return;
    bool any = false;
    for (const std::string& name : tensor_names()) {
        const std::string down = name.substr(0, name.rfind('.') + 1) + "down_proj";
        if (!name.ends_with(stacked) || !contains(down)) continue;
        for (tensor_info& expert : split_experts(*names, tensor(name), tensor(down))) show(std::move(expert));
        tensors_.erase(name);
        tensors_.erase(down);
        any = true;
    }
    if (!any) return;
    for (const std::string& name : tensor_names()) {
        tensor_info other = tensor(name);
        other.name = published_name(*names, name);
        if (other.name == name) continue;
        tensors_.erase(name);
        show(std::move(other));
    }
}

GPTQ_INLINE void model_folder::show(tensor_info tensor) {
    shown_.push_back(std::move(tensor));
    if (!tensors_.emplace(shown_.back().name, &shown_.back()).second)
        throw format_error(describe(shown_.back().name) + ": is there by itself and in a stack of experts");
}

GPTQ_INLINE std::vector<std::filesystem::path> model_folder::complete_shards(
    const std::vector<std::filesystem::path>& files) const {
    static constexpr std::string_view middle = "-00001-of-", end = ".safetensors";
    std::string first;
    for (const auto& file : files) {
        const std::string name = file.filename().string();
        const auto at = name.find("-of-");
        if (name.ends_with(end) && at != std::string::npos && at >= 6 && name.size() == at + 9 + end.size() &&
            name.find_first_not_of("0123456789", at + 4) == at + 9)
            first = name.substr(0, at - 6) + std::string(middle) + name.substr(at + 4);
        if (!first.empty()) break;
    }
    std::vector<std::filesystem::path> shards;
    if (first.empty()) return shards;
    const auto at = first.find(middle);
    const int count = std::stoi(first.substr(at + middle.size(), 5));
    for (int i = 1; i <= count; ++i) {
        const std::string digits = std::to_string(i);
        shards.push_back(
            path_ / (first.substr(0, at + 1) + std::string(5 - digits.size(), '0') + digits + first.substr(at + 6)));
        if (std::find(files.begin(), files.end(), shards.back()) == files.end())
            throw format_error(path_.string() + ": the shard " + shards.back().filename().string() +
                               " and model.safetensors.index.json are missing; download the whole model");
    }
    return shards;
}

GPTQ_INLINE void model_folder::open_all(const std::vector<std::filesystem::path>& shards) {
    files_.reserve(shards.size());
    for (const auto& shard : shards) {
        files_.emplace_back(shard);
        for (const auto& tensor : files_.back().tensors())
            if (!tensors_.emplace(tensor.name, &tensor).second)
                throw format_error(shard.string() + ": tensor " + in_quotes(tensor.name) + " is in another shard, too");
    }
    warnings_.push_back(path_.string() + ": model.safetensors.index.json is missing; all " +
                        std::to_string(shards.size()) + " shards are read");
}

GPTQ_INLINE std::filesystem::path model_folder::only_file(const std::vector<std::filesystem::path>& files,
                                                          std::string_view suffix) const {
    std::filesystem::path found;
    for (const auto& file : files) {
        if (!file.filename().string().ends_with(suffix)) continue;
        if (!found.empty())
            throw format_error(path_.string() + ": holds both " + found.filename().string() + " and " +
                               file.filename().string() + " and no index that tells which of them is the model");
        found = file;
    }
    return found;
}

GPTQ_INLINE void model_folder::open_single(const std::filesystem::path& file) {
    files_.emplace_back(file);
    for (const auto& tensor : files_.back().tensors()) tensors_.emplace(tensor.name, &tensor);
}

GPTQ_INLINE void model_folder::open_gguf() {
    const gguf_file file(path_);
    config_ = gguf_config(file);
    for (tensor_info& tensor : gguf_tensors(file)) show(std::move(tensor));
    if (shown_.empty()) throw format_error(path_.string() + ": has no tensors");
}

GPTQ_INLINE void model_folder::open_shards(const std::filesystem::path& index_path) {
    const auto index = read_json(index_path);
    const std::string where = index_path.string();
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
        throw format_error(where + ": has no object \"weight_map\"");
    const auto shard_of = open_files_of(index["weight_map"], where);
    for (const auto& [tensor, shard] : index["weight_map"].items()) {
        const auto& file = files_[shard_of.at(shard.get_ref<const std::string&>())];
        const tensor_info* info = file.find(tensor);
        if (info == nullptr)
            throw format_error(where + ": tensor " + in_quotes(tensor) + " is not in " +
                               file.path().filename().string() + ", where the index says it is");
        tensors_.emplace(info->name, info);
    }
}

GPTQ_INLINE std::map<std::string, std::size_t> model_folder::open_files_of(const nlohmann::json& weight_map,
                                                                           const std::string& where) {
    std::map<std::string, std::size_t> shard_of;
    for (const auto& [tensor, shard] : weight_map.items()) {
        if (!shard.is_string())
            throw format_error(where + ": the shard of tensor " + in_quotes(tensor) + " is no string");
        const auto& name = shard.get_ref<const std::string&>();
        if (!detail::is_plain_file_name(name))
            throw format_error(where + ": tensor " + in_quotes(tensor) + " is said to be in " + in_quotes(name) +
                               ", which is not the name of a file in this folder");
        shard_of.emplace(name, 0);
    }
    for (auto& [name, place] : shard_of) {
        std::error_code code;
        if (!std::filesystem::exists(path_ / name, code))
            throw format_error(where + ": shard " + printable(name) + " is missing");
        place = files_.size();
        files_.emplace_back(path_ / name);
    }
    return shard_of;
}

GPTQ_INLINE const tensor_info& model_folder::tensor_of_rank(std::string_view name, std::size_t rank,
                                                            const char* what) const {
    const auto& info = tensor(name);
    if (info.shape.size() != rank)
        throw shape_error(describe(name) + ": has the shape " + shape_text(info.shape) + "; " + what + " is needed");
    return info;
}

GPTQ_INLINE void model_folder::read_finite(const tensor_info& info, std::span<float> out, std::size_t cols) const {
    detail::read_floats(info, out, describe(info.name));
    refuse_non_finite(info, out, 0, cols);
}

GPTQ_INLINE void model_folder::refuse_non_finite(const tensor_info& info, std::span<const float> part,
                                                 std::size_t first, std::size_t cols) const {
    const auto bad = std::find_if(part.begin(), part.end(), [](float x) { return !std::isfinite(x); });
    if (bad == part.end()) return;
    const auto at = first + static_cast<std::size_t>(bad - part.begin());
    throw non_finite_error(describe(info.name) + ": " + (std::isnan(*bad) ? "NaN" : "infinity") + " at " +
                           (info.shape.size() == 2
                                ? "row " + std::to_string(at / cols) + ", column " + std::to_string(at % cols)
                                : "element " + std::to_string(at)));
}

}  // namespace gptq::io
