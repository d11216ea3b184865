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
                       "tokenizer_config.json); give the prompt as it is, without --chat");
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
    switch (family_) {
        case chat_family::chatml: return chatml(user, system);
        case chat_family::llama2: return "[INST] " + trimmed(llama2_head(system) + user) + " [/INST]";
        case chat_family::llama3: return llama3(trimmed(user), trimmed(system));
        case chat_family::gemma: return gemma(trimmed(user), system);
        case chat_family::zephyr: return zephyr(user, system, eos);
        case chat_family::mistral: break;
    }
    return mistral(user, system);
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
                            "Gemma, Zephyr, Mistral); write the prompt out and give it with --prompt, without "
                            "--chat");
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

GPTQ_INLINE std::string chat_template::chatml(const std::string& user, const std::string& given) const {
    const std::string system = given.empty() ? own_system() : given;
    const std::string head = system.empty() ? "" : "<|im_start|>system\n" + system + "<|im_end|>\n";
    return head + "<|im_start|>user\n" + user + "<|im_end|>\n<|im_start|>assistant\n";
}

GPTQ_INLINE std::string chat_template::llama2_head(const std::string& system) {
    return system.empty() ? "" : "<<SYS>>\n" + system + "\n<</SYS>>\n\n";
}

GPTQ_INLINE std::string chat_template::llama3(const std::string& user, const std::string& system) const {
    const auto turn = [](const std::string& role, const std::string& text) {
        return "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + text + "<|eot_id|>";
    };
    const std::string dates =
        has("Cutting Knowledge Date") ? "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" : "";
    const std::string head = dates.empty() && system.empty() ? "" : turn("system", dates + system);
    return head + turn("user", user) + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

GPTQ_INLINE std::string chat_template::gemma(const std::string& user, const std::string& system) const {
    if (!has("first_user_prefix")) refuse_system(system);
    return "<start_of_turn>user\n" + (system.empty() ? "" : system + "\n\n") + user +
           "<end_of_turn>\n<start_of_turn>model\n";
}

GPTQ_INLINE std::string chat_template::zephyr(const std::string& user, const std::string& system,
                                              const std::string& eos) {
    const std::string head = system.empty() ? "" : "<|system|>\n" + system + eos + "\n";
    return head + "<|user|>\n" + user + eos + "\n<|assistant|>\n";
}

GPTQ_INLINE std::string chat_template::mistral(const std::string& user, const std::string& system) const {
    if (!has("system_message") && !has("'system'") && !has("\"system\"")) refuse_system(system);
    return (has("[INST] ") ? "[INST] " : "[INST]") + (system.empty() ? "" : system + "\n\n") + user +
           (has(" [/INST]") ? " [/INST]" : "[/INST]");
}

}  // namespace gptq::model
