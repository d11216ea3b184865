// Text generation: the most likely token, or one drawn by its probability.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/elementwise.hpp>

namespace gptq::model {

struct generate_options {
    std::size_t max_tokens = 64;
    /// 0 takes the most likely token; otherwise logits are divided by it before one is drawn.
    double temperature = 0.0;
    /// Generation ends when one of these comes up; it is not part of the result.
    std::vector<std::int32_t> stop_tokens = {};
};

/// The next token after these logits. Draws once from `random` if temperature is above 0, else not at all: equal
/// logits, then, and the lowest id wins. Throws non_finite_error where the logits are not finite, unsupported_error
/// for a negative temperature or one that is not finite.
inline std::int32_t choose_token(std::span<const float> logits, double temperature, std::mt19937_64& random) {
    if (!(temperature >= 0.0) || !std::isfinite(temperature))
        throw unsupported_error("a temperature of " + std::to_string(temperature) + "; give a number of at least 0");
    for (std::size_t i = 0; i < logits.size(); ++i)
        if (!std::isfinite(logits[i]))
            throw non_finite_error("the model's output for token " + std::to_string(i) + " is not finite");
    const auto top = std::max_element(logits.begin(), logits.end());
    if (temperature == 0.0) return static_cast<std::int32_t>(top - logits.begin());

    const auto weight = [&](float logit) {
        return std::exp((static_cast<double>(logit) - static_cast<double>(*top)) / temperature);
    };
    double sum = 0.0;
    for (const float logit : logits) sum += weight(logit);
    // Not std::uniform_real_distribution: its results differ from library to library.
    double left = static_cast<double>(random() >> 11) * 0x1p-53 * sum;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        left -= weight(logits[i]);
        if (left < 0.0) return static_cast<std::int32_t>(i);
    }
    return static_cast<std::int32_t>(top - logits.begin());  // rounding ate the last bit
}

/// Continues `prompt` by at most max_tokens tokens and returns them. on_token(id) is called for each as it comes; what
/// it throws ends the generation. Throws shape_error for an empty prompt or a token outside the vocabulary, and as
/// choose_token.
template <class OnToken>
std::vector<std::int32_t> generate(const decoder& model, std::span<const std::int32_t> prompt,
                                   const generate_options& options, std::mt19937_64& random, OnToken&& on_token) {
    std::vector<std::int32_t> generated;
    if (options.max_tokens == 0) return generated;
    kv_cache cache(model.config(), prompt.size() + options.max_tokens - 1);
    auto logits = model.append(prompt, cache);
    while (true) {
        const std::int32_t next = choose_token({logits.data(), logits.size()}, options.temperature, random);
        if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), next) != options.stop_tokens.end()) break;
        generated.push_back(next);
        on_token(next);
        if (generated.size() == options.max_tokens) break;
        logits = model.append({&next, 1}, cache);
    }
    return generated;
}

/// The same without anybody watching.
inline std::vector<std::int32_t> generate(const decoder& model, std::span<const std::int32_t> prompt,
                                          const generate_options& options, std::mt19937_64& random) {
    return generate(model, prompt, options, random, [](std::int32_t) {});
}

}  // namespace gptq::model
