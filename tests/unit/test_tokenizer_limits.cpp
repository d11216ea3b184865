// Tokenizers that strangers made to take for ever, and texts of a megabyte: time and memory grow with the text alone.
#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/model/tokenizer.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
using gptq::model::tokenizer;
using gptq::model::detail::longest_finder;
using nlohmann::json;

constexpr std::size_t megabyte = 1'000'000;

/// Seconds of the processor that a text of a megabyte may take; the library without optimization takes longer.
#if defined(NDEBUG) && !defined(GPTQ_TEST_SANITIZED)
constexpr double allowed = 1.0;
#else
constexpr double allowed = 30.0;
#endif

/// Seconds of the processor, which do not depend on what else the machine does.
template <class Action>
double seconds_of(const Action& act) {
    const std::clock_t begin = std::clock();
    act();
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

tokenizer load(const json& document) {
    const temp_dir folder;
    write_file(folder.path() / "tokenizer.json", document.dump());
    return tokenizer::load(folder.path());
}

/// A tokenizer of single letters.
json letters() {
    auto document = json::parse(R"({"model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0}, "merges": []}})");
    for (std::uint32_t c = 'a'; c <= 'z'; ++c) document["model"]["vocab"][std::string(1, static_cast<char>(c))] = c;
    return document;
}

json with_normalizers(const json& steps) {
    auto document = letters();
    document["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    return document;
}

json with_pattern(const std::string& expression) {
    auto document = letters();
    document["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}};
    return document;
}

json replacement(const std::string& from, const std::string& to) {
    return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

json added(std::uint32_t id, const std::string& content) {
    return {{"id", id}, {"content", content}, {"special", false}, {"normalized", false}};
}

/// "aaa...b" with so many a.
std::string letters_and_end(std::size_t count) { return std::string(count, 'a') + "b"; }

/// Every tokenizer of the repository.
std::vector<std::pair<std::string, json>> known_tokenizers() {
    const auto golden = source_dir() / "tests" / "golden";
    std::vector<std::pair<std::string, json>> all;
    for (const auto& folder : std::filesystem::directory_iterator(golden / "tokenizers"))
        if (folder.is_directory())
            all.emplace_back(folder.path().filename(), json::parse(read_file(folder.path() / "tokenizer.json")));
    const json kinds = json::parse(read_file(golden / "tokenizer_kinds" / "cases.json"));
    for (const auto& kind : kinds["tokenizers"]) all.emplace_back(kind["name"], kind["document"]);
    return all;
}

std::string repeated(std::size_t size, std::string_view part) {
    std::string text;
    while (text.size() < size) text += part;
    return text;
}

std::string random_text(std::size_t size, unsigned first, unsigned last) {
    std::mt19937 random(3);
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(std::uniform_int_distribution<unsigned>(first, last)(random));
    return text;
}

/// What the definition says: the longest string at the first place where any begins, and on from its end.
std::vector<std::pair<std::size_t, std::size_t>> search(const std::vector<std::string>& set, std::string_view text) {
    std::vector<std::pair<std::size_t, std::size_t>> all;
    for (std::size_t begin = 0; begin < text.size();) {
        std::size_t longest = 0;
        for (const std::string& entry : set)
            if (entry.size() > longest && text.substr(begin).starts_with(entry)) longest = entry.size();
        if (longest != 0) all.emplace_back(begin, begin + longest);
        begin += longest != 0 ? longest : 1;
    }
    return all;
}

/// Encodes and decodes texts of one word of `size` bytes by every tokenizer.
void check_long_words(std::size_t size, double seconds) {
    const std::vector<std::pair<const char*, std::string>> texts{
        {"one letter", std::string(size, 'a')},
        {"letters", random_text(size, 'a', 'z')},
        {"digits", random_text(size, '0', '9')},
        {"spaces", std::string(size, ' ')},
        {"lines", std::string(size, '\n')},
        {"spaces and a letter", std::string(size, ' ') + "a"},
        {"marks", "e" + repeated(size, "\xcc\x81")},
        {"joined", repeated(size, "\xf0\x9f\x91\xa9\xe2\x80\x8d")},
        {"ideographs", repeated(size, "\xe5\xa4\xa7\xe3\x81\x8d")},
        {"bytes", random_text(size, 0, 255)},
        {"punctuation", std::string(size, '.')},
        {"marks of spaces", repeated(size, "\xe2\x96\x81")},
    };
    for (const auto& [name, document] : known_tokenizers()) {
        const auto tokens = load(document);
        for (const auto& [kind, of_kind] : texts) {
            CAPTURE(name, kind);
            const std::string& text = of_kind;
            std::vector<std::int32_t> ids;
            CHECK(seconds_of([&] { ids = tokens.encode(text); }) < seconds);
            CHECK(seconds_of([&] { tokens.decode(ids); }) < seconds);
        }
    }
}

}  // namespace

TEST_CASE("strings of a set are found as the definition says") {
    std::mt19937 random(11);
    const auto word = [&](std::size_t most) {
        std::string text(random() % most + 1, 'a');
        for (char& c : text) c = static_cast<char>('a' + random() % 2);
        return text;
    };
    for (int i = 0; i < 3000; ++i) {
        std::vector<std::string> set;
        for (std::size_t k = random() % 8; k-- > 0;) set.push_back(word(6));
        std::sort(set.begin(), set.end());
        set.erase(std::unique(set.begin(), set.end()), set.end());
        std::vector<gptq::model::detail::prefix_tree::entry> entries;
        for (std::size_t k = 0; k < set.size(); ++k) entries.push_back({set[k], static_cast<std::int32_t>(k)});
        const longest_finder finder(entries);
        const std::string text = word(40);
        std::vector<std::pair<std::size_t, std::size_t>> got;
        for (const auto& match : finder.find_all(text)) {
            got.emplace_back(match.begin, match.end);
            REQUIRE(set[static_cast<std::size_t>(match.value)] == text.substr(match.begin, match.end - match.begin));
        }
        CAPTURE(text, set);
        REQUIRE(got == search(set, text));
    }
}

TEST_CASE("added tokens that are prefixes of each other cost no more than others") {
    auto document = letters();
    for (std::uint32_t i = 0; i < 2000; ++i)
        document["added_tokens"].push_back(added(1000 + i, letters_and_end(i + 1)));
    document["added_tokens"].push_back(added(5000, "aa"));  // and a short one that is always there
    const auto tokens = load(document);
    const std::string text(megabyte, 'a');
    CHECK(seconds_of([&] { CHECK(tokens.encode(text) == std::vector<std::int32_t>(megabyte / 2, 5000)); }) < allowed);
    CHECK(tokens.encode(std::string(3000, 'a') + "b").back() == 1000 + 1999);
}

TEST_CASE("added tokens of white space that take more of it cost no more than others") {
    auto document = letters();
    document["added_tokens"].push_back(added(1000, " "));
    for (const char* side : {"lstrip", "rstrip"}) document["added_tokens"][0][side] = true;
    const auto tokens = load(document);
    const std::string text = std::string(megabyte, ' ') + "x";
    CHECK(seconds_of([&] { CHECK(tokens.encode(text) == std::vector<std::int32_t>{1000, 'x'}); }) < allowed);
}

TEST_CASE("a normalizer that multiplies the text is refused before it fills the memory") {
    json steps = json::array();
    for (int i = 0; i < 6; ++i) steps.push_back(replacement("a", std::string(16, 'a')));
    const auto tokens = load(with_normalizers(steps));
    CHECK(contains(message_of<gptq::unsupported_error>([&] { tokens.encode("a"); }), "bytes of a text of 1"));
    const auto once = load(with_normalizers(json::array({replacement("a", std::string(megabyte, 'b'))})));
    CHECK(seconds_of([&] { CHECK_THROWS_AS(once.encode(std::string(megabyte, 'a')), gptq::unsupported_error); }) <
          allowed);
    const auto usual = load(with_normalizers(json::array({replacement("a", std::string(16, 'b'))})));
    CHECK(usual.encode(std::string(5000, 'a')).size() == 80'000);
}

TEST_CASE("a mark for spaces is one character") {
    auto document = letters();
    document["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", std::string(megabyte, '_')}};
    CHECK(contains(message_of<gptq::format_error>([&] { load(document); }), "expected one character"));
}

TEST_CASE("an id of four million makes no table of four million") {
    auto document = letters();
    document["model"]["vocab"]["z"] = 4'194'303U;
    const std::size_t before = ::mallinfo2().uordblks;
    const auto tokens = load(document);
    CHECK(::mallinfo2().uordblks - before < megabyte);
    CHECK(tokens.vocab_size() == 4'194'304);
    CHECK(tokens.encode("az") == std::vector<std::int32_t>{'a', 4'194'303});
    CHECK(tokens.decode(std::vector<std::int32_t>{4'194'303, 'a', 4'000'000}) == "z a");
}

TEST_CASE("a word of a hundred kilobytes takes less than a tenth of a second, whatever the kind of tokenizer") {
    check_long_words(megabyte / 10, allowed / 10);
}

TEST_CASE("a megabyte without a space takes less than a second, whatever the kind of tokenizer", "[many]") {
    check_long_words(megabyte, allowed);
}

TEST_CASE("regular expressions take time in proportion to the text, or are refused") {
    const std::string text(megabyte / 10, 'a');
    for (const char* expression : {"(a+)+b", "(?:a|aa)+b", "(a*)*b", "a*a*a*a*b", "a*b|a", "(?=(a+))\\1b", "(?<=a)a*?b",
                                   "(.*?,){50}b", "a{1,60000}b|a", "((a)|(aa))*?c"}) {
        CAPTURE(expression);
        const auto tokens = load(with_pattern(expression));
        CHECK(seconds_of([&] {
                  try {
                      tokens.encode(text);
                  } catch (const gptq::unsupported_error& problem) {
                      CHECK(contains(problem.what(), "fails on this text"));
                  }
              }) < 5 * allowed);
    }
}

TEST_CASE("patterns, pieces and marks of absurd lengths are refused") {
    CHECK_THROWS_AS(load(with_pattern(std::string(100'000, 'a'))), gptq::format_error);
    const std::string piece(2000, 'a');
    CHECK_THROWS_AS(load({{"model", {{"type", "Unigram"}, {"vocab", {{piece, -1.0}}}}}}), gptq::format_error);
    CHECK_THROWS_AS(load({{"model", {{"type", "WordPiece"}, {"vocab", {{piece, 0U}, {"[UNK]", 1U}}}}}}),
                    gptq::format_error);
    for (const char* mark : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        auto document = letters();
        document["model"][mark] = piece;
        CHECK_THROWS_AS(load(document), gptq::format_error);
    }
}
