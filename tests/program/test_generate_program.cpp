// What `gptq generate` makes of prompts, and of settings that nobody can fulfil.
#include "support/catch.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"

using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::skipped;

namespace {

struct scene {
    gptq_test::temp_dir folder;
    std::string model = (folder.path() / "model").string();
    scene() { gptq_test::write_tiny_model(model); }

    gptq_test::run_result run(const std::vector<std::string>& more) const {
        std::vector<std::string> arguments = {"generate", model, "--exact"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    }
    nlohmann::json json(std::vector<std::string> more) const {
        more.push_back("--json");
        const auto result = run(more);
        INFO(result.err);
        REQUIRE(result.status == 0);
        return nlohmann::json::parse(result.out);
    }
};

using ids_t = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("more tokens than memory can hold are refused in one line") {
    if (skipped()) return;
    const scene s;
    for (const char* count :
         {"9223372036854775808", "18446744073709551615", "9223372036854775807", "4611686018427387904",
          "2305843009213693952", "1152921504606846976", "576460752303423488", "288230376151711744"}) {
        const auto result = s.run({"--prompt", "the cat", "-n", count});
        INFO(count << ": " << result.err);
        CHECK(result.status == 1);
        CHECK(result.err.starts_with("gptq: "));
        CHECK(gptq_test::lines_of(result.err).size() == 1);
    }
}

TEST_CASE("generation ends at the end tokens of generation_config.json") {
    if (skipped()) return;
    const scene s;
    const auto all = s.json({"--prompt", "the cat", "-n", "12"})["ids"].get<ids_t>();
    REQUIRE(all.size() == 12);
    const auto first = std::find(all.begin(), all.end(), all[7]);
    const std::string file = s.model + "/generation_config.json";
    for (const nlohmann::json& eos : {nlohmann::json(all[7]), nlohmann::json({255, all[7]})}) {
        gptq_test::write_file(file, nlohmann::json({{"eos_token_id", eos}, {"temperature", 0.6}}).dump());
        CHECK(s.json({"--prompt", "the cat", "-n", "12"})["ids"] == ids_t(all.begin(), first));
    }
    gptq_test::write_file(file, R"({"eos_token_id": "end"})");
    const auto result = s.run({"--prompt", "the cat", "-n", "12"});
    CHECK(result.status == 1);
    CHECK(mentions(result.err, "generation_config.json", "eos_token_id"));
}

TEST_CASE("a prompt that begins with the beginning-of-text token gets no second one") {
    if (skipped()) return;
    const auto shared = gptq_test::shared_dir();
    if (!shared || !std::filesystem::exists(*shared / "data/stories260K")) {
        WARN("skipped: no stories260K");
        return;
    }
    const auto result = run_program({"generate", (*shared / "data/stories260K").string(), "--prompt", "<s>Q", "-n", "4",
                                     "--json", "--activation", "exact"});
    REQUIRE(result.status == 0);
    // transformers' tokens after one <s>; after two the last is 286.
    CHECK(nlohmann::json::parse(result.out)["ids"] == ids_t{425, 412, 340, 422});
}

TEST_CASE("several prompts are continued as each alone, and text streams as it is decoded at once") {
    if (skipped()) return;
    const scene s;
    const std::vector<std::string> sampling = {"--temperature", "1",  "--top-p", "0.9", "--min-p", "0.01",
                                               "--top-k",       "50", "--seed",  "4",   "-n",      "20"};
    const auto with = [&](std::vector<std::string> prompts) {
        prompts.insert(prompts.end(), sampling.begin(), sampling.end());
        return prompts;
    };
    const auto both = s.json(with({"--prompt", "the cat", "--prompt", "[a]"}))["texts"];
    REQUIRE(both.size() == 2);
    CHECK(both[0] == s.json(with({"--prompt", "the cat"})));
    CHECK(both[1] == s.json(with({"--prompt", "[a]"})));
    CHECK(both[1]["text"].get<std::string>().starts_with("[a]"));
    const auto shown = s.run(with({"--prompt", "the cat", "--prompt", "[a]"}));
    CHECK(shown.out == both[0]["text"].get<std::string>() + "\n" + both[1]["text"].get<std::string>() + "\n");
}

TEST_CASE("a stop string ends the text before it") {
    if (skipped()) return;
    const scene s;
    const std::string prompt = "the cat";
    const std::string text = s.json({"--prompt", prompt, "-n", "40"})["text"];
    // Two characters of ASCII in the middle of what is generated.
    std::size_t at = prompt.size() + 3;
    const auto plain = [&](std::size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
    while (at + 2 < text.size() && !(plain(at) && plain(at + 1))) ++at;
    REQUIRE(at + 2 < text.size());
    const std::string stop = text.substr(at, 2);
    const auto expected = text.substr(0, text.find(stop, prompt.size()));
    CHECK(s.json({"--prompt", prompt, "-n", "40", "--stop", stop, "--stop", "\x01\x02\x03"})["text"] == expected);
    CHECK(s.run({"--prompt", prompt, "-n", "40", "--stop", stop}).out == expected + "\n");
    CHECK(s.run({"--prompt", prompt, "--stop", ""}).status == 1);
}

TEST_CASE("--chat puts the prompt into the model's template, and shows the answer only") {
    if (skipped()) return;
    const scene s;
    CHECK(mentions(s.run({"--prompt", "Hi", "--chat"}).err, "no chat template",
                   "write out the text that the template makes"));
    gptq_test::write_file(s.model + "/chat_template.jinja",
                          "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}");
    const auto chat = s.json({"--prompt", "Hi", "--chat", "--system", "Be brief.", "-n", "8"});
    const std::string written =
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    const auto plain = s.json({"--prompt", written, "-n", "8"});
    CHECK(chat["ids"] == plain["ids"]);
    CHECK(written + chat["text"].get<std::string>() == plain["text"].get<std::string>());
    gptq_test::write_file(s.model + "/chat_template.jinja", "{{ messages }}");
    const auto result = s.run({"--prompt", "Hi", "--chat"});
    CHECK(result.status == 1);
    CHECK(mentions(result.err, "chat_template.jinja", "write out the text that the template makes"));
}
