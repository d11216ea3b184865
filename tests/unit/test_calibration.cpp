// Windows of calibration text, found again in the text that they come from.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/tokenizer.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"

namespace model = gptq::model;
using model::calibration_windows;
using model::window_sampling;

namespace {

const model::tokenizer& demo_tokenizer() {
    static const auto loaded =
        model::tokenizer::load(std::filesystem::path(GPTQ_SOURCE_DIR) / "examples" / "demo" / "model");
    return loaded;
}

/// Lines that are all different.
std::string numbered_lines(std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += "line " + std::to_string(100000 + i) + " of the text\n";
    return text;
}

/// Where each window begins in the text; its content has to be there, once.
std::vector<std::size_t> positions(const model::token_windows& windows, const std::string& text) {
    std::vector<std::size_t> found;
    for (std::size_t w = 0; w < windows.count(); ++w) {
        const auto first = windows.tokens.begin() + static_cast<std::ptrdiff_t>(w * windows.length);
        const std::vector<std::int32_t> ids(first, first + static_cast<std::ptrdiff_t>(windows.length));
        const std::string content = demo_tokenizer().decode(ids);
        const std::size_t at = text.find(content);
        REQUIRE(at != std::string::npos);
        REQUIRE(text.find(content, at + 1) == std::string::npos);
        found.push_back(at);
    }
    return found;
}

}  // namespace

TEST_CASE("spread windows begin in each of as many equal parts of a long text") {
    const std::string text = numbered_lines(4000);
    const auto windows = calibration_windows(demo_tokenizer(), text, 10, 64, std::nullopt);
    REQUIRE(windows.count() == 10);
    const auto at = positions(windows, text);
    for (std::size_t w = 0; w < at.size(); ++w) {
        CHECK(at[w] >= w * text.size() / 10);
        CHECK(at[w] < w * text.size() / 10 + 100);
    }
}

TEST_CASE("spread windows of a short text reach from its beginning to its end") {
    const std::string text = numbered_lines(60);
    const std::size_t tokens = demo_tokenizer().encode(text).size();
    const std::size_t count = tokens / 50;
    const auto at = positions(calibration_windows(demo_tokenizer(), text, count, 48, std::nullopt), text);
    CHECK(at.front() == 0);
    for (std::size_t w = 1; w < at.size(); ++w) CHECK(at[w] > at[w - 1]);
    const auto last = calibration_windows(demo_tokenizer(), text, count, 48, std::nullopt).tokens;
    const auto all = demo_tokenizer().encode(text);
    CHECK(std::equal(all.end() - 48, all.end(), last.end() - 48));
}

TEST_CASE("the first windows are those of the whole text's tokens") {
    const std::string text = numbered_lines(4000);
    const auto all = demo_tokenizer().encode(text);
    const auto windows =
        calibration_windows(demo_tokenizer(), text, 7, 33, std::nullopt, "text", window_sampling::first);
    REQUIRE(windows.tokens.size() == 7 * 33);
    CHECK(std::equal(windows.tokens.begin(), windows.tokens.end(), all.begin()));
}

TEST_CASE("a beginning token takes a place in each window") {
    const std::string text = numbered_lines(4000);
    for (const auto sampling : {window_sampling::spread, window_sampling::first}) {
        const auto windows = calibration_windows(demo_tokenizer(), text, 3, 16, 1, "text", sampling);
        const auto plain = calibration_windows(demo_tokenizer(), text, 3, 15, std::nullopt, "text", sampling);
        for (std::size_t w = 0; w < 3; ++w) {
            CHECK(windows.tokens[w * 16] == 1);
            for (std::size_t t = 0; t < 15; ++t) CHECK(windows.tokens[w * 16 + 1 + t] == plain.tokens[w * 15 + t]);
        }
    }
}

TEST_CASE("a text that is too short says how much there is and is needed, and huge counts are refused") {
    const std::string text = numbered_lines(3);
    const std::size_t tokens = demo_tokenizer().encode(text).size();
    for (const auto sampling : {window_sampling::spread, window_sampling::first}) {
        const auto ask = [&](std::size_t count, std::size_t length) {
            return gptq_test::message_of([&] {
                calibration_windows(demo_tokenizer(), text, count, length, std::nullopt, "the text", sampling);
            });
        };
        CHECK(gptq_test::mentions(ask(100, 64), "the text", std::to_string(tokens), "6400"));
        CHECK(gptq_test::mentions(ask(std::size_t{1} << 60, 1 << 20), "more than memory can hold"));
        CHECK_FALSE(ask(std::size_t{1} << 40, 1 << 20).empty());
    }
}
