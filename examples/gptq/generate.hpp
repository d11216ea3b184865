// gptq generate: continues prompts.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/chat_template.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/generate.hpp>
#include <gptq/model/stop_tokens.hpp>
#include <gptq/model/text_stream.hpp>
#include <gptq/model/tokenizer.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "load_decoder.hpp"
#include "output.hpp"

namespace program {

namespace model = gptq::model;

namespace generating {

inline std::vector<std::int32_t> plain_tokens(const model::tokenizer& tokenizer, const std::string& prompt) {
    std::vector<std::int32_t> tokens = tokenizer.encode_whole(prompt);
    // Without any token there is nothing to continue, so an empty prompt stands for the beginning of a text.
    if (tokens.empty() && tokenizer.bos_id()) tokens.push_back(*tokenizer.bos_id());
    if (tokens.empty()) throw gptq::shape_error("the prompt is empty; give at least one character");
    return tokens;
}

inline std::vector<std::int32_t> chat_tokens(const model::tokenizer& tokenizer, const model::chat_template& chat,
                                             const std::string& prompt, const std::string& system) {
    const auto eos = tokenizer.eos_id();
    const std::string end = eos ? tokenizer.decode(std::vector{*eos}, false) : "</s>";
    std::vector<std::int32_t> tokens = tokenizer.encode(chat.render(prompt, system, end));
    if (chat.begins_with_bos() && tokenizer.bos_id()) tokens.insert(tokens.begin(), *tokenizer.bos_id());
    return tokens;
}

/// The stop tokens of the folder, and of a chat template the token that ends an answer.
inline std::vector<std::int32_t> stops_of(const gptq::io::model_folder& folder, const model::tokenizer& tokenizer,
                                          const std::optional<model::chat_template>& chat) {
    std::vector<std::int32_t> stops = model::stop_tokens(folder, tokenizer);
    const std::vector<std::int32_t> end = chat ? tokenizer.encode(chat->end_of_turn()) : std::vector<std::int32_t>();
    if (end.size() == 1) stops.push_back(end.front());
    return stops;
}

/// Continues prompts one after the other, each as if it were the only one.
template <gptq::model::ModelBackend B>
class continuation {
 public:
    continuation(const generate_arguments& arguments, const B& backend)
        : arguments_(arguments),
          folder_(arguments.model),
          tokenizer_(model::tokenizer::load(arguments.model)),
          chat_(arguments.chat ? std::optional(model::chat_template::load(arguments.model)) : std::nullopt),
          options_{arguments.tokens, arguments.sampling, stops_of(folder_, tokenizer_, chat_)} {
        model::check_sampling(options_.sampling);
        for (const std::string& prompt : arguments.prompts) prompts_.push_back(tokens_of(prompt));
        decoder_.emplace(load_decoder(folder_, arguments, backend, arguments.adapters));
    }

    /// Prints the text as it comes, or returns all of it as JSON.
    nlohmann::ordered_json run(std::size_t index) const {
        const auto& prompt = prompts_[index];
        model::text_stream stream(tokenizer_, prompt, arguments_.stops);
        // A chat shows the answer only.
        std::string text = chat_ ? "" : tokenizer_.decode(prompt);
        show(text);
        const auto take = [&](const std::string& piece) {
            show(piece);
            text += piece;
        };
        std::mt19937_64 random(arguments_.seed);
        const auto ids = model::generate(*decoder_, prompt, options_, random, [&](std::int32_t id) {
            throw_if_interrupted();
            take(stream.add(id));
            return !stream.stopped();
        });
        take(stream.finish());
        show("\n");
        return {{"text", text}, {"tokens", ids.size()}, {"ids", ids}};
    }

 private:
    std::vector<std::int32_t> tokens_of(const std::string& prompt) const {
        return chat_ ? chat_tokens(tokenizer_, *chat_, prompt, arguments_.system) : plain_tokens(tokenizer_, prompt);
    }

    void show(const std::string& text) const {
        if (arguments_.json || text.empty()) return;
        print(text);
        flush_output();
    }

    const generate_arguments& arguments_;
    gptq::io::model_folder folder_;
    model::tokenizer tokenizer_;
    std::optional<model::chat_template> chat_;
    model::generate_options options_;
    std::vector<std::vector<std::int32_t>> prompts_;
    std::optional<model::basic_decoder<B>> decoder_;
};

}  // namespace generating

template <gptq::model::ModelBackend B>
void generate_on(const B& backend, const generate_arguments& arguments) {
    const generating::continuation<B> texts(arguments, backend);
    auto results = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < arguments.prompts.size(); ++i) results.push_back(texts.run(i));
    if (!arguments.json) return;
    print_json(results.size() == 1 ? results.front() : nlohmann::ordered_json{{"texts", results}});
}

}  // namespace program
