// A model's folder in the Hugging Face layout: config.json and the weights, in one safetensors file or in shards.
#pragma once

#include <cstddef>
#include <deque>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/safetensors.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::io {

namespace detail {

/// All elements of a tensor of F64, F32, F16 or BF16, in their order. Throws unsupported_error for other types.
void read_floats(const tensor_info& tensor, std::span<float> out, const std::string& where);

}  // namespace detail

/// A folder with config.json and weights. No weight is read before it is asked for. The files are
/// model.safetensors, or the shards of model.safetensors.index.json, or the only index or the only *.safetensors file
/// of the folder under another name (AutoGPTQ writes gptq_model-4bit-128g.safetensors). Experts that are stored
/// together are shown one by one (<gptq/io/stacked_experts.hpp>). A GGUF file counts as a folder of its own, whose
/// config is made of its metadata (<gptq/io/gguf_model.hpp>) and which has no other files.
class model_folder {
 public:
    /// Throws io_error if a file cannot be read, format_error if one is not what it should be: a missing shard, a
    /// tensor that is not in the shard the index names, a shard outside the folder; what gguf_file, gguf_tensors and
    /// gguf_config throw.
    explicit model_folder(const std::filesystem::path& path);

    /// The tensors of one safetensors file, as if it were a folder without a config. Throws as safetensors_file.
    static model_folder of_file(const std::filesystem::path& file);
    model_folder(model_folder&&) = default;
    model_folder& operator=(model_folder&&) = default;

    const std::filesystem::path& path() const { return path_; }

    /// What is odd about the folder although it can be read, one sentence each: shards without an index, an adapter
    /// beside the model.
    const std::vector<std::string>& warnings() const { return warnings_; }

    /// config.json, an object. NaN and infinities in it are strings: see read_model_json.
    const nlohmann::json& config() const { return config_; }

    bool contains(std::string_view name) const { return tensors_.contains(name); }

    /// The tensor of that name. Throws format_error, naming tensor and folder, if there is none.
    const tensor_info& tensor(std::string_view name) const;

    /// All names, sorted.
    std::vector<std::string> tensor_names() const;

    /// The weight files.
    const std::vector<safetensors_file>& weight_files() const { return files_; }

    /// A matrix [rows, cols] of F32, F16, BF16 or F64 as floats. Throws format_error if there is none of that name,
    /// shape_error for another number of dimensions, unsupported_error for another type, and non_finite_error with the
    /// place of the first NaN or infinity.
    tensor2<float> read_matrix(std::string_view name) const;

    /// Rows first, first + 1, ... of such a matrix to out [rows, cols], which lies row by row. Throws likewise.
    void read_rows(std::string_view name, std::size_t first, matrix_view<float> out) const;

    /// A vector likewise.
    tensor1<float> read_vector(std::string_view name) const;

    /// Throws non_finite_error with the place of the first NaN or infinity in a tensor of float numbers; others pass.
    /// Takes no memory for the tensor as a whole.
    void require_finite(std::string_view name) const;

    /// The files that a copy of the model with other weights carries along: tokenizer, chat template, generation
    /// config, licence, readme, without links out of the folder. Sorted.
    std::vector<std::filesystem::path> companion_files() const;

    /// The names of all other files that a copy does not have, such as programs and notes; callers that copy a model
    /// tell the user. Weights, adapters, hidden files, and files that a copy writes itself (config.json, descriptions
    /// and logs of a quantization) do not count. Sorted.
    std::vector<std::string> left_files() const;

    /// "FOLDER: tensor "NAME"", the beginning of messages.
    std::string describe(std::string_view name) const;

 private:
    model_folder() = default;

    /// Throws for a folder without config.json, and for files that are something else under a model's names.
    void refuse_foreign_files() const;

    /// " (it has ...)", a tensor that is there in place of `name`, and what to do; the end of a message.
    std::string like(std::string_view name) const;

    void open_weights();

    /// Puts single experts in the place of stacked ones: see <gptq/io/stacked_experts.hpp>.
    void split_stacked_experts();

    /// A tensor that no file has under that name.
    void show(tensor_info tensor);

    /// NAME-00001-of-0000N.safetensors and all that follow, in their order; nothing if no file is called so. Throws
    /// format_error where some of them are missing.
    std::vector<std::filesystem::path> complete_shards(const std::vector<std::filesystem::path>& files) const;

    /// Shards whose index is missing: all tensors of all of them.
    void open_all(const std::vector<std::filesystem::path>& shards);

    /// The only file whose name ends so; an empty path if there is none. Throws format_error if there are several.
    std::filesystem::path only_file(const std::vector<std::filesystem::path>& files, std::string_view suffix) const;

    void open_single(const std::filesystem::path& file);

    void open_gguf();

    void open_shards(const std::filesystem::path& index_path);

    /// Opens every shard once; returns the place in files_ by the shard's name.
    std::map<std::string, std::size_t> open_files_of(const nlohmann::json& weight_map, const std::string& where);

    const tensor_info& tensor_of_rank(std::string_view name, std::size_t rank, const char* what) const;

    void read_finite(const tensor_info& info, std::span<float> out, std::size_t cols) const;

    /// `part` are the elements of the tensor from `first` on.
    void refuse_non_finite(const tensor_info& info, std::span<const float> part, std::size_t first,
                           std::size_t cols) const;

    std::filesystem::path path_;
    nlohmann::json config_;
    std::vector<std::string> warnings_;
    std::vector<safetensors_file> files_;
    std::deque<tensor_info> shown_;                                     // in the place of what the files have
    std::unordered_map<std::string_view, const tensor_info*> tensors_;  // into files_ and shown_
};

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/model_folder.hpp>
#endif
