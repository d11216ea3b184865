// Tokenizers of every kind against what the `tokenizers` and `sentencepiece` libraries make of the same files:
// tests/golden/tokenizer_kinds/make.py.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/model/tokenizer.hpp>
#include <gptq/model/tokenizer_character_map.hpp>

#include "support/catch.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

using gptq::model::tokenizer;
using nlohmann::json;
using ids = std::vector<std::int32_t>;

namespace {

const json& golden() {
    static const json content = [] {
        std::ifstream file(gptq_test::source_dir() / "tests" / "golden" / "tokenizer_kinds" / "cases.json");
        return json::parse(file);
    }();
    return content;
}

ids parse_ids(const json& text) {
    std::istringstream in(text.get<std::string>());
    return {std::istream_iterator<std::int32_t>(in), std::istream_iterator<std::int32_t>()};
}

/// A folder with one file of a tokenizer, and perhaps others.
struct tokenizer_folder {
    gptq_test::temp_dir folder;

    const tokenizer_folder& with(const char* name, const std::string& bytes) const {
        std::ofstream(folder.path() / name, std::ios::binary) << bytes;
        return *this;
    }

    tokenizer load() const { return tokenizer::load(folder.path()); }
};

tokenizer load_document(const json& document) {
    const tokenizer_folder folder;
    return folder.with("tokenizer.json", document.dump()).load();
}

/// A tokenizer whose tokens are bytes, so that decode() shows what a normalizer and a pre-tokenizer make of a text.
json byte_document(const json& normalizer, const json& pre_tokenizer) {
    auto document = json::parse(R"({"model": {"type": "BPE", "byte_fallback": true, "vocab": {}, "merges": []},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}})");
    for (unsigned byte = 0; byte < 256; ++byte) {
        constexpr const char* digits = "0123456789ABCDEF";
        document["model"]["vocab"][std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">"] = byte;
    }
    document["normalizer"] = normalizer;
    document["pre_tokenizer"] = pre_tokenizer;
    return document;
}

std::string result_of(const tokenizer& tokens, const std::string& text) {
    return tokens.decode(tokens.encode(text), false);
}

/// The bytes of one of the files of SentencePiece.
std::string sentencepiece_bytes(const char* name) {
    const auto bytes = gptq::model::detail::decode_base64(golden()["sentencepiece"][name]["file"].get<std::string>());
    REQUIRE(bytes);
    return *bytes;
}

/// What E says that doing something throws; "" if it does not.
template <class E, class Do>
std::string refusal(const Do& act) {
    try {
        act();
    } catch (const E& problem) {
        return problem.what();
    }
    return "";
}

void check_says(const std::string& message, const std::string& part) {
    CAPTURE(message, part);
    CHECK(message.find(part) != std::string::npos);
}

/// A Unigram tokenizer with these pieces.
json unigram_document(const json& vocabulary, const json& unknown) {
    return {{"model", {{"type", "Unigram"}, {"vocab", vocabulary}, {"unk_id", unknown}}}};
}

json precompiled(const std::string& base64) { return {{"type", "Precompiled"}, {"precompiled_charsmap", base64}}; }

}  // namespace

TEST_CASE("Each kind of model gives the library's ids and text", "[tokenizer]") {
    const auto& texts = golden().at("texts");
    for (const auto& kind : golden().at("tokenizers")) {
        const auto tokens = load_document(kind.at("document"));
        REQUIRE(kind.at("cases").size() == texts.size());
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto text = texts[i].get<std::string>();
            const auto& expected = kind["cases"][i];
            CAPTURE(kind["name"].get<std::string>(), text);
            const ids got = tokens.encode(text);
            CHECK(got == parse_ids(expected[0]));
            CHECK(tokens.decode(got, false) == (expected[1].is_null() ? text : expected[1].get<std::string>()));
        }
    }
}

TEST_CASE("Each normalizer and pre-tokenizer does what the library's does", "[tokenizer]") {
    const auto& texts = golden().at("few_texts");
    for (const auto& step : golden().at("steps")) {
        const auto tokens = load_document(byte_document(step.at("normalizer"), step.at("pre_tokenizer")));
        for (std::size_t i = 0; i < texts.size(); ++i) {
            CAPTURE(step["normalizer"].dump(), step["pre_tokenizer"].dump(), texts[i].get<std::string>());
            CHECK(result_of(tokens, texts[i].get<std::string>()) == step.at("results")[i].get<std::string>());
        }
    }
}

TEST_CASE("Patterns match what they match in Oniguruma", "[tokenizer]") {
    const auto text = golden().at("pattern_text").get<std::string>();
    for (const auto& expected : golden().at("patterns")) {
        CAPTURE(expected[0].get<std::string>());
        const json step{{"type", "Replace"}, {"pattern", {{"Regex", expected[0]}}}, {"content", "◆"}};
        CHECK(result_of(load_document(byte_document(step, nullptr)), text) == expected[1].get<std::string>());
    }
}

TEST_CASE("A file of SentencePiece is read where there is no tokenizer.json", "[tokenizer]") {
    for (const auto& [name, expected] : golden().at("sentencepiece").items()) {
        const tokenizer_folder folder;
        folder.with("tokenizer.model", sentencepiece_bytes(name.c_str()));
        const auto tokens = folder.with("tokenizer_config.json", expected.at("config").dump()).load();
        for (const auto& one : expected.at("cases")) {
            CAPTURE(name, one[0].get<std::string>());
            const ids got = tokens.encode(one[0].get<std::string>());
            CHECK(got == parse_ids(one[1]));
            CHECK(tokens.decode(got, false) == one[2].get<std::string>());
        }
        CAPTURE(name);
        CHECK(tokens.bos_id().value_or(-1) == expected["bos"].get<std::int32_t>());
        CHECK(tokens.eos_id().value_or(-1) == expected["eos"].get<std::int32_t>());
    }
}

TEST_CASE("What stands beside a file of SentencePiece adds to it", "[tokenizer]") {
    const auto load = [](const char* name, const json& config, const json& more = nullptr) {
        const tokenizer_folder folder;
        folder.with("tokenizer.model", sentencepiece_bytes(name)).with("tokenizer_config.json", config.dump());
        if (!more.is_null()) folder.with("added_tokens.json", more.dump());
        return folder.load();
    };
    const auto plain = load("bpe", json::object());
    CHECK(plain.always_adds_bos());
    CHECK(load("bpe", {{"tokenizer_class", "LlamaTokenizer"}}).always_adds_bos());
    CHECK_FALSE(load("bpe", {{"tokenizer_class", "LlamaTokenizer"}, {"add_bos_token", false}}).always_adds_bos());
    CHECK_FALSE(load("bpe", {{"tokenizer_class", "T5Tokenizer"}}).always_adds_bos());
    CHECK_FALSE(load("characters", json::object()).always_adds_bos());
    CHECK(load("bpe", {{"eos_token", "<pad>"}}).eos_id() == 3);

    // Control pieces are found in texts, and special; what users define is found, and is not.
    CHECK(plain.encode("<s>") == ids{1});
    CHECK(plain.decode(plain.encode("a<s>a")) == "a a");  // each stretch has a space in front
    const auto first = load("bpe", {{"legacy", false}});
    CHECK(first.decode(first.encode("a<s>a")) == "aa");
    const auto tool = load("unigram with bytes", json::object());
    CHECK(tool.decode(tool.encode("<tool>")) == "<tool>");
    CHECK(tool.encode("<tool>").size() == 1);

    CHECK(load("bpe", json::object(), {{"<new>", 400}, {"<s>", 1}}).encode("<new>") == ids{400});
    const json decoder{{"400", {{"content", "<new>"}, {"special", true}, {"normalized", false}}}};
    const auto added = load("bpe", {{"added_tokens_decoder", decoder}});
    CHECK(added.encode("<new>") == ids{400});
    CHECK(added.decode(ids{400}).empty());
    check_says(refusal<gptq::format_error>([&] {
                   load("bpe", {{"added_tokens_decoder", {{"x", json::object()}}}});
               }),
               "tokenizer_config.json: added_tokens_decoder: expected ids");
}

TEST_CASE("A damaged file of SentencePiece is refused, or read", "[tokenizer]") {
    const auto load = [](const std::string& bytes) {
        const tokenizer_folder folder;
        return folder.with("tokenizer.model", bytes).load();
    };
    check_says(refusal<gptq::format_error>([&] { load(""); }), "tokenizer.model: not a tokenizer of SentencePiece");
    check_says(refusal<gptq::format_error>([&] { load("x"); }), "tokenizer.model: damaged");
    check_says(refusal<gptq::format_error>([&] { load("\x0A\x7F"); }), "reaches beyond the end");
    check_says(refusal<gptq::format_error>([&] { load("\x0A\x03\x0A\x01\xFF"); }), "a piece is no text");
    check_says(refusal<gptq::format_error>([&] { load(std::string("\x0A\x08\x0A\x01x\x15\0\0\xC0\x7F", 10)); }),
               "the score of \"x\" is no number");
    check_says(refusal<gptq::format_error>([&] { load("\x0A\x05\x0A\x01x\x18\x07"); }), "a kind has the number 7");
    check_says(refusal<gptq::unsupported_error>([&] { load("\x0A\x03\x0A\x01x\x12\x02\x18\x03"); }), "whole words");
    check_says(refusal<gptq::unsupported_error>([&] { load("\x0A\x03\x0A\x01x\x12\x03\xC0\x01\x01"); }), "as_suffix");
    check_says(refusal<gptq::unsupported_error>([&] { load("\x0A\x05\x0A\x01x\x18\x05\x12\x02\x18\x02"); }),
               "unused pieces");

    const std::string whole = sentencepiece_bytes("unigram");
    std::mt19937 random(1);
    std::size_t refused = 0;
    for (int turn = 0; turn < 150; ++turn) {
        std::string bytes = whole.substr(0, turn % 2 == 0 ? whole.size() : random() % whole.size());
        for (int i = 0; i < 3 && !bytes.empty(); ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
        refused += !refusal<gptq::error>([&] { load(bytes).encode("a \xC3\xA9\xEF\xAC\x81 text <s>"); }).empty();
    }
    CHECK(refused > 50);
}

TEST_CASE("Models that are not what they claim to be are refused by place", "[tokenizer]") {
    const auto refuse = [](const json& document) {
        return refusal<gptq::format_error>([&] { load_document(document); });
    };
    const auto unigram = [](const char* vocabulary, const json& unknown) {
        return unigram_document(json::parse(vocabulary), unknown);
    };
    check_says(refuse(unigram(R"([["a", 1]])", 1)), "model.unk_id: expected a whole number from 0 to 0, found 1");
    check_says(refuse(unigram("[]", 0)), "model.unk_id: expected no unknown token where the vocabulary is empty");
    check_says(refuse(unigram(R"([["a", 1, 2]])", 0)), "model.vocab[0]: expected a piece and its score");
    check_says(refuse(unigram(R"([["a", "b"]])", 0)), "model.vocab[0][1]: expected a number");
    check_says(refuse(unigram(R"({"a": 1})", 0)), "model.vocab: expected an array");
    check_says(refuse({{"model", {{"type", "WordPiece"}, {"vocab", json::array()}}}}),
               "model.vocab: expected an object");

    const auto tokens = load_document(unigram(R"([["a", -1], ["ab", -1.5]])", nullptr));
    CHECK(tokens.encode("aab") == ids{0, 1});
    check_says(refusal<gptq::unsupported_error>([&] { tokens.encode("a\xE2\x98\x83"); }),
               "no piece for \"\xE2\x98\x83\"");
    const auto words = load_document({{"model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "?"}}}});
    CHECK(words.encode("a") == ids{0});
    check_says(refusal<gptq::unsupported_error>([&] { words.encode("b"); }), "\"?\" is not in the vocabulary");
}

TEST_CASE("A table of characters never reaches beyond its bytes", "[tokenizer]") {
    const auto refuse = [](const std::string& base64) {
        return refusal<gptq::format_error>([&] { load_document(byte_document(precompiled(base64), nullptr)); });
    };
    check_says(refuse("AAA"), "precompiled_charsmap: expected Base64");
    check_says(refuse("AA*A"), "expected Base64");
    check_says(refuse(""), "the table of characters has 0 bytes");
    check_says(refuse("/////w=="), "the table of characters has 4 bytes");
    check_says(refuse("CAAAAAAAAAA="), "the table of characters has 8 bytes");

    // A root whose children would be far beyond the array.
    const auto tokens = load_document(byte_document(precompiled("BAAAAP////8="), nullptr));
    CHECK(result_of(tokens, "any text") == "any text");

    std::string table = golden()["steps"][2]["normalizer"]["precompiled_charsmap"];
    std::mt19937 random(2);
    for (int turn = 0; turn < 100; ++turn) {
        std::string broken = table;
        constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for (int i = 0; i < 200; ++i) broken[8 + random() % (broken.size() - 12)] = digits[random() % digits.size()];
        const auto damaged = load_document(byte_document(precompiled(broken), nullptr));
        refusal<gptq::error>([&] { damaged.encode("e\xCC\x81 \xEF\xAC\x81 \xEF\xBD\xB6 ab \xC2\xA0 any text"); });
    }
}

TEST_CASE("A Unigram word without any cut takes time in proportion", "[tokenizer]") {
    const auto pieces = json::parse(R"([["a", -1], ["ab", -1.5], ["b", -1]])");
    const auto tokens = load_document(unigram_document(pieces, nullptr));
    std::string text;
    for (std::size_t i = 0; i < 200000; ++i) text += "ab";
    CHECK(tokens.encode(text) == ids(200000, 1));
}
