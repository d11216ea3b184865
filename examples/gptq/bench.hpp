// gptq bench: how fast a model reads a prompt and generates.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/checked_size.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "load_decoder.hpp"
#include "output.hpp"

namespace program {

namespace model = gptq::model;

namespace timing {

/// Which tokens they are makes no difference to the speed; the same ones every time all the same.
inline std::vector<std::int32_t> random_tokens(std::size_t count, std::size_t vocab_size) {
    std::mt19937_64 random(1);
    std::vector<std::int32_t> tokens(count);
    for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % vocab_size);
    return tokens;
}

template <class F>
double seconds_of(F&& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace timing

template <gptq::model::ModelBackend B>
void bench_on(const B& backend, const bench_arguments& arguments) {
    using timing::random_tokens;
    using timing::seconds_of;
    const gptq::io::model_folder folder(arguments.model);
    const auto decoder = load_decoder(folder, arguments, backend, arguments.adapters);
    const auto prompt = random_tokens(arguments.prompt, decoder.config().vocab_size);
    const auto continuation = random_tokens(arguments.tokens, decoder.config().vocab_size);

    // The first pass touches memory and starts threads; it does not count.
    model::basic_kv_cache<B> warm_up(decoder.config(), prompt.size(), backend);
    decoder.append(prompt, warm_up);

    model::basic_kv_cache<B> cache(decoder.config(), gptq::checked_add(prompt.size(), continuation.size(), "tokens"),
                                   backend);
    const double prefill = seconds_of([&] { decoder.append(prompt, cache); });
    const double decode = seconds_of([&] {
        for (const std::int32_t token : continuation) {
            throw_if_interrupted();
            decoder.append({&token, 1}, cache);
        }
    });
    const double prefill_speed = static_cast<double>(prompt.size()) / prefill;
    const double decode_speed = static_cast<double>(continuation.size()) / decode;
    if (arguments.json)
        return print_json({{"prefill_tokens_per_second", prefill_speed},
                           {"decode_tokens_per_second", decode_speed},
                           {"prefill_tokens", prompt.size()},
                           {"decode_tokens", continuation.size()}});
    print(format("prefill %.1f tokens/s (%zu tokens), decode %.1f tokens/s (%zu tokens)\n", prefill_speed,
                 prompt.size(), decode_speed, continuation.size()));
}

}  // namespace program
