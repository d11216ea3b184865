// Prompts of chat templates against what Jinja2 makes of the same templates.
#include <gptq/model/chat_template.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using gptq::model::chat_family;
using gptq::model::chat_template;

namespace {

/// A template, and Jinja2's output for the question " Hi there. " without and with the system message "Be brief."
/// (trim_blocks and lstrip_blocks, as in transformers; no bos_token). Without the latter, there is no system message.
struct sample {
    std::string name, source, plain, with_system;
};

// clang-format off
const std::vector<sample> samples = {
    {"SmolLM2", R"T({% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})T", "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n Hi there. <|im_end|>\n<|im_start|>assistant\n", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi there. <|im_end|>\n<|im_start|>assistant\n"},
    {"ChatML", R"T({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})T", "<|im_start|>user\n Hi there. <|im_end|>\n<|im_start|>assistant\n", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi there. <|im_end|>\n<|im_start|>assistant\n"},
    {"Llama 3", R"T({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})T", "<|start_header_id|>user<|end_header_id|>\n\nHi there.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi there.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"Gemma", R"T({{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %})T", "<start_of_turn>user\nHi there.<end_of_turn>\n<start_of_turn>model\n", ""},
    {"Zephyr", R"T({% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %})T", "<|user|>\n Hi there. </s>\n<|assistant|>\n", "<|system|>\nBe brief.</s>\n<|user|>\n Hi there. </s>\n<|assistant|>\n"},
    {"Mistral", R"T({{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %})T", "[INST]  Hi there.  [/INST]", ""},
    {"Llama 2", R"T({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% endif %}{% endfor %})T", "[INST] Hi there. [/INST]", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi there. [/INST]"},
};
// clang-format on

}  // namespace

TEST_CASE("the common chat templates give the prompts that Jinja gives", "[chat]") {
    for (const sample& s : samples) {
        INFO(s.name);
        const chat_template chat(s.source, s.name);
        CHECK(chat.render(" Hi there. ") == s.plain);
        if (s.with_system.empty())
            CHECK_THROWS_AS(chat.render("Hi", "Be brief."), gptq::unsupported_error);
        else
            CHECK(chat.render(" Hi there. ", "Be brief.") == s.with_system);
    }
}

// As Jinja2 makes them of the samples' templates and, for Llama 2, of one with answers; without the first bos_token.
TEST_CASE("conversations are those of Jinja", "[chat]") {
    const std::vector<gptq::model::chat_message> talk = {
        {"user", " Hi there. "}, {"assistant", " Hello. "}, {"user", "Bye"}, {"assistant", "Bye!"}};
    auto briefly = talk;
    briefly.insert(briefly.begin(), {"system", "Be brief."});
    const std::string chatml =
        "<|im_start|>user\n Hi there. <|im_end|>\n<|im_start|>assistant\n Hello. <|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nBye!<|im_end|>\n";
    const std::string llama3 =
        "<|start_header_id|>user<|end_header_id|>\n\nHi there.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nBye!<|eot_id|>";
    const std::string zephyr =
        "<|user|>\n Hi there. </s>\n<|assistant|>\n Hello. </s>\n<|user|>\nBye</s>\n<|assistant|>\nBye!</s>\n";
    const std::vector<std::string> plain = {
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" + chatml,
        chatml,
        llama3,
        "<start_of_turn>user\nHi there.<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\nBye!<end_of_turn>\n",
        zephyr,
        "[INST]  Hi there.  [/INST] Hello. </s>[INST] Bye [/INST]Bye!</s>",
        "[INST] Hi there. [/INST] Hello. </s><s>[INST] Bye [/INST] Bye! </s>"};
    const std::vector<std::string> with_system = {
        "<|im_start|>system\nBe brief.<|im_end|>\n" + chatml,
        "<|im_start|>system\nBe brief.<|im_end|>\n" + chatml,
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" + llama3,
        "",
        "<|system|>\nBe brief.</s>\n" + zephyr,
        "",
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi there. [/INST] Hello. </s><s>[INST] Bye [/INST] Bye! </s>"};
    REQUIRE(samples.size() == plain.size());
    for (std::size_t i = 0; i < samples.size(); ++i) {
        INFO(samples[i].name);
        const chat_template chat(samples[i].source, samples[i].name);
        CHECK(chat.conversation(talk) == plain[i]);
        if (with_system[i].empty())
            CHECK_THROWS_AS(chat.conversation(briefly), gptq::unsupported_error);
        else
            CHECK(chat.conversation(briefly) == with_system[i]);
        // A question without an answer ends where the answer's turn would begin.
        const std::string question = chat.conversation({{"user", "Bye"}});
        CHECK(chat.render("Bye").starts_with(question));
        CHECK_FALSE(question.ends_with("assistant\n"));
    }
    const chat_template chat(samples[1].source, "ChatML");
    CHECK_THROWS_AS(chat.conversation({{"user", "a"}, {"user", "b"}}), gptq::unsupported_error);
    CHECK_THROWS_AS(chat.conversation({{"tool", "a"}}), gptq::unsupported_error);
    CHECK(chat.conversation({}) == "");
}

TEST_CASE("a template says whether the text's first token is its own", "[chat]") {
    CHECK_FALSE(chat_template(samples[0].source, "SmolLM2").begins_with_bos());
    CHECK(chat_template(samples[2].source, "Llama 3").begins_with_bos());
}

TEST_CASE("templates of other families are refused", "[chat]") {
    CHECK_THROWS_AS(chat_template("{% for m in messages %}{{ m.content }}{% endfor %}", "x"), gptq::unsupported_error);
    CHECK_THROWS_AS(chat_template("<|user|>\n{{ content }}<|end|>\n", "x"), gptq::unsupported_error);
    CHECK_THROWS_AS(chat_template("", "x"), gptq::unsupported_error);
}

TEST_CASE("a folder's template is a file of its own, or stands in tokenizer_config.json", "[chat]") {
    const gptq_test::temp_dir folder;
    const auto config = folder.path() / "tokenizer_config.json";
    CHECK_THROWS_AS(chat_template::load(folder.path()), gptq::format_error);
    gptq_test::write_file(config, "{}");
    CHECK_THROWS_AS(chat_template::load(folder.path()), gptq::format_error);
    gptq_test::write_file(config, R"({"chat_template": 3})");
    CHECK_THROWS_AS(chat_template::load(folder.path()), gptq::format_error);
    const auto list = nlohmann::json::array(
        {{{"name", "tools"}, {"template", "[INST] "}}, {{"name", "default"}, {"template", samples[3].source}}});
    gptq_test::write_file(config, nlohmann::json({{"chat_template", list}}).dump());
    CHECK(chat_template::load(folder.path()).family() == chat_family::gemma);
    gptq_test::write_file(folder.path() / "chat_template.jinja", samples[1].source);
    CHECK(chat_template::load(folder.path()).family() == chat_family::chatml);
}
