// What a user should know about a model's folder although it can be read: tensors that nothing uses, descriptions that
// the weights contradict.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// Which tensors of a folder the model consists of.
class tensor_use {
 public:
    explicit tensor_use(const model_config& config);

    /// The model reads a tensor of that name, quantized or not. A head that is the embedding is not read.
    bool reads(std::string_view name) const;

    /// The block that the tensor belongs to by its name; the largest number if to none.
    std::size_t block_of(std::string_view name) const;

 private:
    const model_config* config_;
    std::unordered_set<std::string> modules_;  // linear layers and tables
    std::unordered_set<std::string> norms_;
};

/// One sentence each, the folder named. Throws as io::quantization_config::parse for files that are no JSON.
std::vector<std::string> folder_warnings(const model_config& config, const io::model_folder& folder);

/// What a copy of the model does not have of its folder, io::model_folder::left_files(), in a sentence; "" if it has
/// all.
std::string left_files_warning(const io::model_folder& folder);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/folder_warnings.hpp>
#endif
