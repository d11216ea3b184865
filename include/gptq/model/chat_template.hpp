// What a chat model's prompt looks like: the common templates, recognized by what they contain.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace gptq::model {

/// Larger templates are refused.
inline constexpr std::size_t max_template_bytes = std::size_t{1} << 20;

/// The families of templates that are known.
enum class chat_family { chatml, llama2, llama3, gemma, zephyr, mistral };

/// One turn of a conversation; `role` is "system", "user" or "assistant".
struct chat_message {
    std::string role, content;
};

/// One question to a model, or a whole conversation, as its chat template puts it. The template itself, a program in
/// Jinja, is not run: it is recognized by the marks it writes, and what families of templates differ in is read out of
/// it.
class chat_template {
 public:
    /// The template of a model's folder: chat_template.jinja or else "chat_template" of tokenizer_config.json (of a
    /// list of templates, the one named "default"). Throws format_error where there is none or it is not a text, and as
    /// the other constructor.
    static chat_template load(const std::filesystem::path& folder);

    /// `source` is the template, `where` its place in messages. Throws unsupported_error for a template of no family.
    chat_template(std::string source, std::string where)
        : source_(std::move(source)), where_(std::move(where)), family_(family_of()) {}

    chat_family family() const { return family_; }

    /// Whether the prompt begins with the beginning-of-text token.
    bool begins_with_bos() const { return has("bos_token"); }

    /// The mark that ends the model's answer; empty where the end-of-text token does.
    std::string end_of_turn() const;

    /// The prompt for one message of the user, without the beginning-of-text token, up to where the model's answer
    /// begins. An empty `system` is none: then the template's own, if it has one. `eos` is the text of the token that
    /// ends a text. Throws unsupported_error for a system message where the template knows none.
    std::string render(const std::string& user, const std::string& system = "", const std::string& eos = "</s>") const;

    /// A conversation, without the beginning-of-text token: a system message first, if there is one, and then the user
    /// and the assistant in turns. `bos` is the text of the token that begins a text, which Llama 2 writes between
    /// turns. Throws unsupported_error for other roles, another order, and as render().
    std::string conversation(const std::vector<chat_message>& messages, const std::string& eos = "</s>",
                             const std::string& bos = "<s>") const;

 private:
    static std::optional<std::string> source_in(const nlohmann::json& config, const std::string& where);

    bool has(std::string_view mark) const { return source_.find(mark) != std::string::npos; }

    chat_family family_of() const;

    static std::string trimmed(const std::string& text);

    void refuse_system(const std::string& system) const;

    /// The system message that the template writes where none is given: what stands between its marks in the source.
    std::string own_system() const;

    /// What stands before the first turn of the user, where the system message is a turn of its own.
    std::string chatml_head(const std::string& given) const;
    std::string llama3_head(const std::string& system) const;

    /// A turn of the user up to where the answer begins; a system message is a part of it, or a turn before it.
    std::string user_turn(const std::string& user, const std::string& system, const std::string& eos) const;

    /// What begins an answer, where the turn of the user does not end with it.
    std::string answer_begin() const;
    std::string answer(const std::string& text, const std::string& eos) const;

    static std::string llama2_head(const std::string& system);

    std::string gemma(const std::string& user, const std::string& system) const;

    std::string mistral(const std::string& user, const std::string& system) const;

    std::string source_, where_;
    chat_family family_;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/chat_template.hpp>
#endif
