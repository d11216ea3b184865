// Text generation: token after token, chosen as sampling.hpp says.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/error.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/sampling.hpp>

namespace gptq::model {

struct generate_options {
    std::size_t max_tokens = 64;
    sampling_options sampling = {};
    /// Generation ends when one of these comes up; it is not part of the result.
    std::vector<std::int32_t> stop_tokens = {};
};

namespace detail {

/// Tells of a token; whether to go on. A function that returns nothing always goes on.
template <class OnToken>
bool goes_on(OnToken& on_token, std::int32_t id) {
    if constexpr (std::is_void_v<std::invoke_result_t<OnToken&, std::int32_t>>) {
        on_token(id);
        return true;
    } else {
        return on_token(id);
    }
}

inline std::vector<std::int32_t> generate_tokens(const decoder& model, std::span<const std::int32_t> prompt,
                                                 const generate_options& options, std::mt19937_64& random,
                                                 const std::function<bool(std::int32_t)>& on_token) {
    if (options.max_tokens == 0) return {};
    kv_cache cache(model.config(),
                   checked_add(prompt.size(), options.max_tokens - 1, "tokens of the prompt and those to generate"));
    std::vector<std::int32_t> text(prompt.begin(), prompt.end());
    auto logits = model.append(prompt, cache);
    while (true) {
        const std::int32_t next = choose_token({logits.data(), logits.size()}, options.sampling, text, random);
        if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), next) != options.stop_tokens.end()) break;
        text.push_back(next);
        if (!on_token(next) || text.size() - prompt.size() == options.max_tokens) break;
        logits = model.append({&next, 1}, cache);
    }
    text.erase(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(prompt.size()));
    return text;
}

}  // namespace detail

/// Continues `prompt` by at most max_tokens tokens and returns them. on_token(id) is called for each as it comes; it
/// ends the generation by returning false or by throwing. Throws shape_error for an empty prompt, a token outside the
/// vocabulary or more tokens than memory can hold, and as choose_token.
template <class OnToken>
std::vector<std::int32_t> generate(const decoder& model, std::span<const std::int32_t> prompt,
                                   const generate_options& options, std::mt19937_64& random, OnToken&& on_token) {
    return detail::generate_tokens(model, prompt, options, random,
                                   [&](std::int32_t id) { return detail::goes_on(on_token, id); });
}

/// The same without anybody watching.
inline std::vector<std::int32_t> generate(const decoder& model, std::span<const std::int32_t> prompt,
                                          const generate_options& options, std::mt19937_64& random) {
    return generate(model, prompt, options, random, [](std::int32_t) {});
}

}  // namespace gptq::model
