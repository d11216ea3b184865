// The tiny models of tests/golden/models and what transformers computed with each (see golden/make_models.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace gptq_test {

inline const std::vector<std::string> golden_model_names = {"llama",
                                                            "llama3",
                                                            "llama-linear",
                                                            "mistral",
                                                            "qwen2",
                                                            "qwen3",
                                                            "gemma3",
                                                            "gemma3-older",
                                                            "opt",
                                                            "opt-projected",
                                                            "opt-bare",
                                                            "phi3",
                                                            "mixtral",
                                                            "qwen2-moe",
                                                            "qwen3-moe",
                                                            "olmoe",
                                                            "granite",
                                                            "smollm3",
                                                            "olmo2",
                                                            "phi",
                                                            "llama-yarn",
                                                            "gemma3-pictures",
                                                            "qwen2-5-vl-older",
                                                            "qwen3-vl-moe",
                                                            "gemma2",
                                                            "gemma",
                                                            "phi3-longrope",
                                                            "llama-dynamic",
                                                            "glm",
                                                            "glm4",
                                                            "gpt-neox",
                                                            "gpt-neox-sequential",
                                                            "starcoder2",
                                                            "stablelm",
                                                            "cohere",
                                                            "cohere2",
                                                            "olmo",
                                                            "olmo3",
                                                            "hunyuan",
                                                            "ministral",
                                                            "seed-oss",
                                                            "exaone4",
                                                            "nemotron"};

nlohmann::json read_json(const std::filesystem::path& path);

struct golden_model {
    std::filesystem::path folder;
    nlohmann::json expected;

    explicit golden_model(const std::string& name);

    std::vector<std::int32_t> input_ids() const;

    /// The first ids, those that "logits", "generated" and "stage_inputs" belong to.
    std::vector<std::int32_t> logit_ids() const;
};

/// The largest difference, relative to the largest expected magnitude.
double relative_difference(std::span<const float> values, const std::vector<double>& expected);

}  // namespace gptq_test
