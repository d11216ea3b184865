// adapter: what a LoRA fine-tuning adds to the linear layers of a model, as PEFT stores it.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include <gptq/model/stored_layer.hpp>

namespace gptq::model {

/// The terms of one adapter, by the names of the layers that they change. The base model may be quantized or not.
class adapter {
 public:
    /// Reads adapter_config.json and adapter_model.safetensors; `weight` scales the whole adapter. Throws io_error for
    /// files that cannot be read; unsupported_error naming the setting or the tensor that asks for other arithmetic
    /// than Y += s (X A') B'; format_error, shape_error and non_finite_error naming the tensor that is wrong.
    static adapter load(const std::filesystem::path& folder, double weight = 1.0);

    /// The folder, the beginning of messages.
    const std::string& where() const { return where_; }

    const std::map<std::string, low_rank_term>& terms() const { return terms_; }

 private:
    std::string where_;
    std::map<std::string, low_rank_term> terms_;  // by the name of the layer
};

/// Gives a layer the terms that adapters have for its name.
void add_terms(stored_layer& layer, const std::string& name, std::span<const adapter> adapters);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/adapter.hpp>
#endif
