// gptq generate: continues a prompt.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/generate.hpp>
#include <gptq/model/tokenizer.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "load_decoder.hpp"
#include "output.hpp"

namespace program {
namespace {

namespace model = gptq::model;

/// The tokens that end a text: config.json's "eos_token_id" (a number or a list) and the tokenizer's own.
std::vector<std::int32_t> stop_tokens(const gptq::io::model_folder& folder, const model::tokenizer& tokenizer) {
    std::vector<std::int32_t> stops;
    if (const auto eos = tokenizer.eos_id()) stops.push_back(*eos);
    const auto entry = folder.config().find("eos_token_id");
    if (entry == folder.config().end()) return stops;
    const auto add = [&](const nlohmann::json& id) {
        if (id.is_number_integer()) stops.push_back(id.get<std::int32_t>());
    };
    if (entry->is_array())
        for (const auto& id : *entry) add(id);
    else
        add(*entry);
    return stops;
}

std::vector<std::int32_t> prompt_tokens(const model::tokenizer& tokenizer, const std::string& prompt) {
    std::vector<std::int32_t> tokens = tokenizer.encode(prompt);
    // Without any token there is nothing to continue, so an empty prompt stands for the beginning of a text.
    if ((tokenizer.always_adds_bos() || tokens.empty()) && tokenizer.bos_id())
        tokens.insert(tokens.begin(), *tokenizer.bos_id());
    if (tokens.empty()) throw gptq::shape_error("the prompt is empty; give at least one character");
    return tokens;
}

}  // namespace

void generate(const generate_arguments& arguments) {
    const gptq::io::model_folder folder(arguments.model);
    const auto tokenizer = model::tokenizer::load(arguments.model);
    const auto prompt = prompt_tokens(tokenizer, arguments.prompt);
    const auto decoder = load_decoder(folder, arguments);
    const model::generate_options options{arguments.tokens, arguments.temperature, stop_tokens(folder, tokenizer)};
    std::mt19937_64 random(arguments.seed);
    const auto generated =
        model::generate(decoder, prompt, options, random, [](std::int32_t) { throw_if_interrupted(); });

    std::vector<std::int32_t> all = prompt;
    all.insert(all.end(), generated.begin(), generated.end());
    const std::string text = tokenizer.decode(all);
    if (arguments.json) return print_json({{"text", text}, {"tokens", generated.size()}, {"ids", generated}});
    print(text + "\n");
}

}  // namespace program
