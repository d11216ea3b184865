// The bodies of <gptq/model/chat_template.hpp>.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/json.hpp>
#include <gptq/model/chat_template.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

GPTQ_INLINE chat_template chat_template::load(const std::filesystem::path& folder) {
    const auto file = folder / "chat_template.jinja", config = folder / "tokenizer_config.json";
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored)) return {io::read_text_file(file, max_template_bytes), file.string()};
    if (std::filesystem::exists(config, ignored))
        if (const auto source = source_in(io::read_json(config), config.string()))
            return {*source, config.string() + ": chat_template"};
    throw format_error(folder.string() + ": has no chat template (chat_template.jinja, or chat_template in " +
                       "tokenizer_config.json); write out the text that the template makes");
}

GPTQ_INLINE std::string chat_template::end_of_turn() const {
    switch (family_) {
        case chat_family::chatml: return "<|im_end|>";
        case chat_family::llama3: return "<|eot_id|>";
        case chat_family::gemma: return "<end_of_turn>";
        default: return "";
    }
}

GPTQ_INLINE std::string chat_template::render(const std::string& user, const std::string& system,
                                              const std::string& eos) const {
    if (family_ == chat_family::chatml) return chatml_head(system) + user_turn(user, "", eos);
    if (family_ == chat_family::llama3) return llama3_head(trimmed(system)) + user_turn(user, "", eos);
    return user_turn(user, system, eos);
}

GPTQ_INLINE std::string chat_template::user_turn(const std::string& user, const std::string& system,
                                                 const std::string& eos) const {
    switch (family_) {
        case chat_family::chatml: return "<|im_start|>user\n" + user + "<|im_end|>\n" + answer_begin();
        case chat_family::llama2: return "[INST] " + trimmed(llama2_head(system) + user) + " [/INST]";
        case chat_family::llama3:
            return "<|start_header_id|>user<|end_header_id|>\n\n" + trimmed(user) + "<|eot_id|>" + answer_begin();
        case chat_family::gemma: return gemma(trimmed(user), system);
        case chat_family::zephyr:
            return (system.empty() ? "" : "<|system|>\n" + system + eos + "\n") + "<|user|>\n" + user + eos + "\n" +
                   answer_begin();
        case chat_family::mistral: break;
    }
    return mistral(user, system);
}

GPTQ_INLINE std::string chat_template::answer_begin() const {
    switch (family_) {
        case chat_family::chatml: return "<|im_start|>assistant\n";
        case chat_family::llama3: return "<|start_header_id|>assistant<|end_header_id|>\n\n";
        case chat_family::gemma: return "<start_of_turn>model\n";
        case chat_family::zephyr: return "<|assistant|>\n";
        default: return "";
    }
}

GPTQ_INLINE std::string chat_template::answer(const std::string& text, const std::string& eos) const {
    switch (family_) {
        case chat_family::chatml: return text + "<|im_end|>\n";
        case chat_family::llama2: return " " + trimmed(text) + " " + eos;
        case chat_family::llama3: return trimmed(text) + "<|eot_id|>";
        case chat_family::gemma: return trimmed(text) + "<end_of_turn>\n";
        case chat_family::zephyr: return text + eos + "\n";
        case chat_family::mistral: break;
    }
    return (has("' ' + message['content']") || has("\" \" + message[\"content\"]") ? " " : "") + text + eos;
}

GPTQ_INLINE std::string chat_template::conversation(const std::vector<chat_message>& messages, const std::string& eos,
                                                    const std::string& bos) const {
    const bool has_system = !messages.empty() && messages.front().role == "system";
    std::string text;
    for (std::size_t i = has_system ? 1 : 0; i < messages.size(); i += 2) {
        const bool first = i < 2, answered = i + 1 < messages.size();
        if (messages[i].role != "user" || (answered && messages[i + 1].role != "assistant"))
            throw unsupported_error(where_ +
                                    ": a conversation is a system message, if any, and then messages of \"user\" "
                                    "and \"assistant\" in turns");
        const std::string& user = messages[i].content;
        if (!first && family_ == chat_family::llama2) text += bos;
        text += first ? render(user, has_system ? messages.front().content : "", eos) : user_turn(user, "", eos);
        if (answered)
            text += answer(messages[i + 1].content, eos);
        else
            text.resize(text.size() - answer_begin().size());
    }
    return text;
}

GPTQ_INLINE std::optional<std::string> chat_template::source_in(const nlohmann::json& config,
                                                                const std::string& where) {
    const auto entry = config.is_object() ? config.find("chat_template") : config.end();
    if (!config.is_object() || entry == config.end() || entry->is_null()) return std::nullopt;
    if (entry->is_string()) return entry->get<std::string>();
    if (entry->is_array())
        for (const auto& named : *entry)
            if (named.is_object() && named.value("name", nlohmann::json()) == "default" && named.contains("template") &&
                named["template"].is_string())
                return named["template"].get<std::string>();
    throw format_error(where + ": chat_template is neither a text nor a list with one named \"default\"");
}

GPTQ_INLINE chat_family chat_template::family_of() const {
    if (has("<|im_start|>")) return chat_family::chatml;
    if (has("<|start_header_id|>")) return chat_family::llama3;
    if (has("<start_of_turn>")) return chat_family::gemma;
    if (has("[INST]") && has("<<SYS>>")) return chat_family::llama2;
    if (has("[INST]") && !has("[SYSTEM_PROMPT]")) return chat_family::mistral;
    if (has("<|user|>") && has("eos_token") && !has("<|end|>")) return chat_family::zephyr;
    throw unsupported_error(where_ +
                            ": a chat template of none of the families that are known (ChatML, Llama 2, Llama 3, "
                            "Gemma, Zephyr, Mistral); write out the text that the template makes");
}

GPTQ_INLINE std::string chat_template::trimmed(const std::string& text) {
    constexpr const char* blanks = " \t\n\r\f\v";
    const std::size_t first = text.find_first_not_of(blanks);
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

GPTQ_INLINE void chat_template::refuse_system(const std::string& system) const {
    if (!system.empty()) throw unsupported_error(where_ + ": the template knows no system message; leave it out");
}

GPTQ_INLINE std::string chat_template::own_system() const {
    constexpr std::string_view begin = "<|im_start|>system", end = "<|im_end|>";
    for (std::size_t at = source_.find(begin); at != std::string::npos; at = source_.find(begin, at + 1)) {
        std::size_t first = at + begin.size();
        if (source_.compare(first, 2, "\\n") == 0)
            first += 2;
        else if (source_.compare(first, 1, "\n") == 0)
            first += 1;
        const std::size_t last = source_.find(end, first);
        if (last == std::string::npos) break;
        const std::string text = source_.substr(first, last - first);
        if (!text.empty() && text.find_first_of("'\"{}\\") == std::string::npos) return text;
    }
    return "";
}

GPTQ_INLINE std::string chat_template::chatml_head(const std::string& given) const {
    const std::string system = given.empty() ? own_system() : given;
    return system.empty() ? "" : "<|im_start|>system\n" + system + "<|im_end|>\n";
}

GPTQ_INLINE std::string chat_template::llama2_head(const std::string& system) {
    return system.empty() ? "" : "<<SYS>>\n" + system + "\n<</SYS>>\n\n";
}

/// Templates that write dates get the one that they fall back on, so that equal questions have equal prompts.
GPTQ_INLINE std::string chat_template::llama3_head(const std::string& system) const {
    const std::string dates =
        has("Cutting Knowledge Date") ? "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" : "";
    if (dates.empty() && system.empty()) return "";
    return "<|start_header_id|>system<|end_header_id|>\n\n" + dates + system + "<|eot_id|>";
}

GPTQ_INLINE std::string chat_template::gemma(const std::string& user, const std::string& system) const {
    if (!has("first_user_prefix")) refuse_system(system);
    return "<start_of_turn>user\n" + (system.empty() ? "" : system + "\n\n") + user + "<end_of_turn>\n" +
           answer_begin();
}

GPTQ_INLINE std::string chat_template::mistral(const std::string& user, const std::string& system) const {
    if (!has("system_message") && !has("'system'") && !has("\"system\"")) refuse_system(system);
    return (has("[INST] ") ? "[INST] " : "[INST]") + (system.empty() ? "" : system + "\n\n") + user +
           (has(" [/INST]") ? " [/INST]" : "[/INST]");
}

}  // namespace gptq::model
