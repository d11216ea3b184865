// The tokenizer against what the `tokenizers` library makes of the same files: tests/golden/tokenizers/make.py.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/model/tokenizer.hpp>

#include "support/catch.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

using gptq::model::tokenizer;
using ids = std::vector<std::int32_t>;

namespace {

std::filesystem::path golden_dir() { return gptq_test::source_dir() / "tests" / "golden" / "tokenizers"; }

std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string from_hex(const std::string& hex) {
    std::string out;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return out;
}

ids parse_ids(const std::string& text) {
    std::istringstream in(text);
    return {std::istream_iterator<std::int32_t>(in), std::istream_iterator<std::int32_t>()};
}

/// FNV-1a of the ids as little-endian 32-bit numbers.
std::uint64_t hash_of(const ids& tokens) {
    std::uint64_t hash = 0xCBF29CE484222325U;
    for (const std::int32_t id : tokens) {
        for (unsigned shift = 0; shift < 32; shift += 8) {
            hash = (hash ^ ((static_cast<std::uint32_t>(id) >> shift) & 0xFF)) * 0x100000001B3U;
        }
    }
    return hash;
}

/// A folder with this tokenizer.json, and its tokenizer.
struct temporary_tokenizer {
    gptq_test::temp_dir folder;

    explicit temporary_tokenizer(const std::string& document, const std::string& config = "") {
        std::ofstream(folder.path() / "tokenizer.json", std::ios::binary) << document;
        if (!config.empty()) std::ofstream(folder.path() / "tokenizer_config.json", std::ios::binary) << config;
    }

    tokenizer load() const { return tokenizer::load(folder.path()); }
};

/// A small valid file: characters a, b and c, the merge "ab", and a byte-level decoder.
nlohmann::json small_document() {
    return nlohmann::json::parse(R"({
        "added_tokens": [{"id": 4, "content": "<s>", "special": true, "normalized": false}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": [["a", "b"]]}})");
}

void check_says(const std::string& message, const std::string& part) {
    CAPTURE(message, part);
    CHECK(message.find(part) != std::string::npos);
}

/// What load() says of a file that it refuses with exception E; "" if it does not.
template <class E>
std::string refusal(const std::string& document) {
    const temporary_tokenizer broken(document);
    try {
        broken.load();
    } catch (const E& problem) {
        return problem.what();
    }
    return "";
}

}  // namespace

TEST_CASE("Each family of tokenizers gives the library's ids and text", "[tokenizer]") {
    const auto cases = nlohmann::json::parse(read_text(golden_dir() / "cases.json"));
    const auto& texts = cases.at("texts_in_hex");
    REQUIRE(texts.size() > 20);
    for (const auto& [family, expected] : cases.at("expected").items()) {
        const auto tokens = tokenizer::load(golden_dir() / family);
        REQUIRE(expected.size() == texts.size());
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const std::string text = from_hex(texts[i].get<std::string>());
            CAPTURE(family, i, text);
            const ids got = tokens.encode(text);
            CHECK(got == parse_ids(expected[i][0].get<std::string>()));
            CHECK(tokens.decode(got, false) == (expected[i][1].is_null() ? text : expected[i][1].get<std::string>()));
        }
    }
}

TEST_CASE("The whole of WikiText-2's test file gives the library's ids", "[tokenizer]") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: no shared folder beside the checkout");
        return;
    }
    struct model {
        std::filesystem::path folder;
        std::size_t count;
        std::uint64_t hash;
    };
    std::vector<model> models{{*shared / "data/stories260K", 809289, 0x06C3D84ADD435738U},
                              {*shared / "data/tinystories-656k", 554431, 0x2F9DEE5FF99FC704U}};
    const char* smollm2 = std::getenv("GPTQ_SMOLLM2_DIR");
    if (smollm2 != nullptr) {
        models.push_back({smollm2, 303415, 0x8672B255A2935A9BU});
    } else {
        WARN("skipped in part: GPTQ_SMOLLM2_DIR does not name a folder with SmolLM2-135M-Instruct");
    }
    const std::string text = read_text(*shared / "data/text/wikitext2-raw.test.txt");
    for (const auto& [folder, count, hash] : models) {
        CAPTURE(folder);
        const auto tokens = tokenizer::load(folder);
        const ids got = tokens.encode(text);
        CHECK(got.size() == count);
        CHECK(hash_of(got) == hash);
        // tinystories-656k has neither all characters nor bytes to fall back on.
        if (folder.filename() != "tinystories-656k") CHECK(tokens.decode(got) == text);
    }
}

TEST_CASE("Beginning and end of text", "[tokenizer]") {
    const auto check = [](const char* family, std::optional<std::int32_t> bos, std::optional<std::int32_t> eos,
                          bool always) {
        CAPTURE(family);
        const auto tokens = tokenizer::load(golden_dir() / family);
        CHECK(tokens.bos_id() == bos);
        CHECK(tokens.eos_id() == eos);
        CHECK(tokens.always_adds_bos() == always);
    };
    check("gpt2", 0, 0, false);
    check("llama3", 331, 332, true);  // a template within a sequence of processors
    check("qwen2", std::nullopt, 322, false);
    check("llama2", 1, 2, true);    // template and flag agree
    check("mistral", 1, 2, false);  // the flag switches the template off
    check("gemma", 2, 1, true);     // a template, no flag
    check("odd", std::nullopt, std::nullopt, false);
    CHECK(tokenizer::load(golden_dir() / "llama2").vocab_size() == 400);
}

TEST_CASE("decode() leaves out special tokens, and ids without a token", "[tokenizer]") {
    const auto tokens = temporary_tokenizer(small_document().dump()).load();
    const ids sequence = tokens.encode("<s>abc<s>");
    CHECK(sequence == ids{4, 3, 2, 4});
    CHECK(tokens.decode(sequence) == "abc");
    CHECK(tokens.decode(sequence, false) == "<s>abc<s>");
    CHECK(tokens.decode(ids{-1, 0, 5, 1 << 30}) == "a");
    CHECK(tokens.decode(ids{}).empty());

    // A special token that is looked for in normalized text is still special.
    auto document = small_document();
    document["normalizer"] = {{"type", "Lowercase"}};
    document["added_tokens"][0]["content"] = "<S>";
    document["added_tokens"][0]["normalized"] = true;
    const auto lower = temporary_tokenizer(document.dump()).load();
    CHECK(lower.encode("A<s><S>") == ids{0, 4, 4});
    CHECK(lower.decode(ids{0, 4}) == "a");
}

TEST_CASE("A word without any cut takes time n log n", "[tokenizer]") {
    const auto tokens = temporary_tokenizer(small_document().dump()).load();
    std::string text;
    for (std::size_t i = 0; i < 500000; ++i) text += "ab";
    CHECK(tokens.encode(text) == ids(500000, 3));  // minutes if each merge looked at every pair
}

TEST_CASE("Files that are not what they claim to be are refused by place", "[tokenizer]") {
    const auto with = [](const char* pointer, const nlohmann::json& value) {
        auto document = small_document();
        document[nlohmann::json::json_pointer(pointer)] = value;
        return refusal<gptq::format_error>(document.dump());
    };
    CHECK_THROWS_AS(tokenizer::load("/nonexistent/folder"), gptq::io_error);
    check_says(refusal<gptq::format_error>("{\"model\": "), "tokenizer.json: not valid JSON");
    check_says(refusal<gptq::format_error>("[1, 2]"), "tokenizer.json: expected an object");
    check_says(with("/model/vocab/a", -1), "model.vocab.\"a\": expected a whole number from 0 to 4194303, found -1");
    check_says(with("/model/vocab/a", 1.5), "found 1.5");
    check_says(with("/model/vocab/a", 4000000000U), "found 4000000000");
    check_says(with("/model/vocab/a", 1), "id 1 is both");
    check_says(with("/model/vocab", nlohmann::json::array()), "model.vocab: expected an object");
    check_says(with("/model/merges/0", "a z"), "model.merges[0]: \"z\" is not in the vocabulary");
    check_says(with("/model/merges/0", "ab"), "model.merges[0]: expected two tokens with one space");
    check_says(with("/model/merges/0", {"b", "c"}), "\"bc\" is not in the vocabulary");
    check_says(with("/model/merges", nullptr), "model.merges: expected an array, found nothing");
    check_says(with("/model/unk_token", "?"), "model.unk_token: expected a token of the vocabulary");
    check_says(with("/added_tokens/0/id", 3), "id 3 is both \"ab\" and \"<s>\"");
    check_says(with("/added_tokens/0/content", "b"), "\"b\" has id 4, but another one in the vocabulary");
    check_says(with("/added_tokens/0/special", "yes"), "added_tokens[0].special: expected true or false");
    check_says(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}}),
               "pre_tokenizer.pattern.Regex: the regular expression \"(a\" is wrong at character 2");
    check_says(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Sideways"}}),
               "pre_tokenizer.behavior: expected Isolated");

    auto nested = nlohmann::json::parse(R"({"type": "Lowercase"})");
    for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"normalizers", nlohmann::json::array({nested})}};
    check_says(with("/normalizer", nested), "nested deeper");
}

TEST_CASE("What is not implemented is refused by name", "[tokenizer]") {
    const auto with = [](const char* pointer, const nlohmann::json& value) {
        auto document = small_document();
        document[nlohmann::json::json_pointer(pointer)] = value;
        return refusal<gptq::unsupported_error>(document.dump());
    };
    check_says(with("/model/type", "Tries"), "tokenizer.json: model: a tokenizer of type \"Tries\"");
    check_says(with("/model/dropout", 0.1), "model.dropout");
    check_says(with("/normalizer", {{"type", "Reversed"}}), "normalizer: normalizer \"Reversed\"");
    check_says(with("/pre_tokenizer", {{"type", "UnicodeScripts"}}), "pre-tokenizer \"UnicodeScripts\"");
    check_says(with("/decoder", {{"type", "CTC"}}), "decoder \"CTC\"");
    check_says(with("/post_processor", {{"type", "Mystery"}}), "post-processor \"Mystery\"");
    const auto with_expression = [&](const char* expression) {
        return with("/pre_tokenizer",
                    {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}});
    };
    check_says(with_expression("ab\\Kc"), "uses \\K at character 2");
    check_says(with_expression("(?<x>a)\\g<x>"), "\\g");
    check_says(with_expression("\\xC3\\xA9"), "\\x for a byte that is not ASCII at character 0");
    check_says(with_expression("[[:vowel:]]"), "[:vowel:]");
    check_says(with_expression("\\pL"), "a property without braces");
}

TEST_CASE("A pattern that would take forever gives up with an error", "[tokenizer]") {
    auto document = small_document();
    document["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a|aa)+[cd]"}}}, {"behavior", "Isolated"}};
    const auto tokens = temporary_tokenizer(document.dump()).load();
    CHECK_THROWS_AS(tokens.encode(std::string(200, 'a')), gptq::unsupported_error);
    CHECK(tokens.encode("aac") == ids{0, 0, 2});
}
