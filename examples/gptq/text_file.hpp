// Reading a text file whole.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/text.hpp>
#include <gptq/model/chat_template.hpp>
#include <gptq/model/tokenizer.hpp>

#include "output.hpp"

namespace program {

/// Puts conversations as the chat template of a model does; without one that is known, it joins what they say.
class conversation_renderer {
 public:
    /// Both must outlive it. The template is read when the first conversation comes.
    conversation_renderer(const gptq::model::tokenizer& tokenizer, const std::filesystem::path& folder)
        : tokenizer_(tokenizer), folder_(folder) {}

    std::string operator()(const nlohmann::json& messages) {
        const bool first = !std::exchange(begun_, true);
        if (first) load();
        std::vector<gptq::model::chat_message> turns;
        for (const auto& message : messages) {
            if (!message.is_object() || !message.contains("content")) continue;
            const auto role = message.find("role");
            turns.push_back({role != message.end() && role->is_string() ? role->get<std::string>() : "user",
                             gptq::io::detail::content_of(message["content"])});
        }
        if (template_) {
            const std::string bos = text_of(tokenizer_.bos_id(), "<s>");
            // What the tokenizer puts at the head of the whole text is not written twice.
            return (template_->begins_with_bos() && !first ? bos : "") +
                   template_->conversation(turns, text_of(tokenizer_.eos_id(), "</s>"), bos);
        }
        std::string text;
        for (const auto& turn : turns) text += (text.empty() ? "" : "\n") + turn.content;
        return text;
    }

 private:
    void load() {
        try {
            template_.emplace(gptq::model::chat_template::load(folder_));
        } catch (const gptq::error& problem) {
            warn(std::string("messages are joined without a chat template: ").append(problem.what()));
        }
    }

    std::string text_of(std::optional<std::int32_t> token, const char* otherwise) const {
        return token ? tokenizer_.decode(std::vector{*token}, false) : otherwise;
    }

    const gptq::model::tokenizer& tokenizer_;
    const std::filesystem::path& folder_;
    std::optional<gptq::model::chat_template> template_;
    bool begun_ = false;
};

/// What gptq::io::read_text reads for the model in `folder`, with a warning on standard error if bytes of it are
/// ill-formed.
inline std::string read_text(const std::string& path, const gptq::model::tokenizer& tokenizer,
                             const std::filesystem::path& folder) {
    conversation_renderer renderer(tokenizer, folder);
    gptq::io::text_content content =
        gptq::io::read_text(path, [&](const nlohmann::json& messages) { return renderer(messages); });
    if (content.ill_formed != 0)
        std::fprintf(stderr, "warning: %s: %zu bytes are no UTF-8 text; U+FFFD takes their place\n", path.c_str(),
                     content.ill_formed);
    return std::move(content.text);
}

}  // namespace program
