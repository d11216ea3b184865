// The bodies of <gptq/model/generate.hpp>.
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
#include <gptq/model/generate.hpp>
#include <gptq/model/sampling.hpp>

namespace gptq::model {
namespace detail {

template <ModelBackend B>
std::vector<std::int32_t> generate_tokens(const basic_decoder<B>& model, std::span<const std::int32_t> prompt,
                                          const generate_options& options, std::mt19937_64& random,
                                          const std::function<bool(std::int32_t)>& on_token) {
    if (options.max_tokens == 0) return {};
    const std::size_t most =
        checked_add(prompt.size(), options.max_tokens - 1, "tokens of the prompt and those to generate");
    basic_kv_cache<B> cache(model.config(), most, model.backend());
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

#ifdef GPTQ_COMPILED
#define GPTQ_GENERATION(what)                                                                     \
    what std::vector<std::int32_t> generate_tokens(const decoder&, std::span<const std::int32_t>, \
                                                   const generate_options&, std::mt19937_64&,     \
                                                   const std::function<bool(std::int32_t)>&);
GPTQ_GENERATION(extern template)
#endif

}  // namespace detail
}  // namespace gptq::model
