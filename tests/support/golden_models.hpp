// The tiny models of tests/golden/models and what transformers computed with each (see golden/make_models.py).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/shared.hpp"

namespace gptq_test {

inline const std::vector<std::string> golden_model_names = {
    "llama",        "llama3", "llama-linear",  "mistral",  "qwen2", "qwen3",   "gemma3",
    "gemma3-older", "opt",    "opt-projected", "opt-bare", "phi3",  "mixtral", "qwen2-moe",
    "qwen3-moe",    "olmoe",  "granite",       "smollm3",  "olmo2", "phi",     "llama-yarn"};

inline nlohmann::json read_json(const std::filesystem::path& path) {
    std::ifstream file(path);
    return nlohmann::json::parse(file);
}

struct golden_model {
    std::filesystem::path folder;
    nlohmann::json expected;

    explicit golden_model(const std::string& name)
        : folder(source_dir() / "tests" / "golden" / "models" / name), expected(read_json(folder / "expected.json")) {}

    std::vector<std::int32_t> input_ids() const { return expected["input_ids"].get<std::vector<std::int32_t>>(); }

    /// The first ids, those that "logits", "generated" and "stage_inputs" belong to.
    std::vector<std::int32_t> logit_ids() const {
        auto ids = input_ids();
        ids.resize(expected["logits_of"].get<std::size_t>());
        return ids;
    }
};

/// The largest difference, relative to the largest expected magnitude.
inline double relative_difference(std::span<const float> values, const std::vector<double>& expected) {
    double largest = 0.0;
    double difference = values.size() == expected.size() ? 0.0 : INFINITY;
    for (std::size_t i = 0; i < values.size() && i < expected.size(); ++i) {
        const double d = std::abs(static_cast<double>(values[i]) - expected[i]);
        if (!(d <= difference)) difference = d;
        largest = std::max(largest, std::abs(expected[i]));
    }
    return difference / largest;
}

}  // namespace gptq_test
