// Text generation: token after token, chosen as sampling.hpp says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

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

template <ModelBackend B>
std::vector<std::int32_t> generate_tokens(const basic_decoder<B>& model, std::span<const std::int32_t> prompt,
                                          const generate_options& options, std::mt19937_64& random,
                                          const std::function<bool(std::int32_t)>& on_token);

}  // namespace detail

/// Continues `prompt` by at most max_tokens tokens and returns them. on_token(id) is called for each as it comes; it
/// ends the generation by returning false or by throwing. Throws shape_error for an empty prompt, a token outside the
/// vocabulary or more tokens than memory can hold, and as choose_token.
template <ModelBackend B, class OnToken>
std::vector<std::int32_t> generate(const basic_decoder<B>& model, std::span<const std::int32_t> prompt,
                                   const generate_options& options, std::mt19937_64& random, OnToken&& on_token) {
    return detail::generate_tokens(model, prompt, options, random,
                                   [&](std::int32_t id) { return detail::goes_on(on_token, id); });
}

/// The same without anybody watching.
template <ModelBackend B>
std::vector<std::int32_t> generate(const basic_decoder<B>& model, std::span<const std::int32_t> prompt,
                                   const generate_options& options, std::mt19937_64& random) {
    return generate(model, prompt, options, random, [](std::int32_t) {});
}

}  // namespace gptq::model

#include <gptq/model/impl/generate.hpp>
