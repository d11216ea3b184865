// Text of strangers in messages: nothing that a terminal acts on, and a bounded length.
#include <random>
#include <string>

#include <gptq/error.hpp>
#include <gptq/quote.hpp>

#include "support/catch.hpp"
#include "support/printable.hpp"

using gptq::in_quotes;
using gptq::printable;

TEST_CASE("readable text stays as it is") {
    CHECK(printable("model.layers.0.mlp.up_proj") == "model.layers.0.mlp.up_proj");
    CHECK(printable("Ein Größenmaß, 大きさ, 🙂") == "Ein Größenmaß, 大きさ, 🙂");
    CHECK(in_quotes("a\\d+\"b") == "\"a\\d+\"b\"");
}

TEST_CASE("what a terminal acts on becomes an escape") {
    CHECK(printable("\x1b[2J\a\r\n") == "\\x1b[2J\\x07\\x0d\\x0a");
    CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
    CHECK(printable("\xc2\x9b"
                    "31m") == "\\x9b31m");                  // the 8-bit form of ESC [
    CHECK(printable("a\xe2\x80\xae!") == "a\\u202e!");      // writes from the right to the left
    CHECK(printable("\xff\xc0\xaf") == "\\xff\\xc0\\xaf");  // no UTF-8
    CHECK(printable("\xe5\xa4") == "\\xe5\\xa4");           // half a character
}

TEST_CASE("of a long text the beginning and the end are left") {
    const std::string text = "begin" + std::string(1'000'000, 'x') + "end";
    const std::string shown = printable(text);
    CHECK(shown.size() <= gptq::max_quoted_bytes);
    CHECK(shown.starts_with("begin"));
    CHECK(shown.ends_with("end"));
    CHECK(printable(std::string(gptq::max_quoted_bytes, 'x')) == std::string(gptq::max_quoted_bytes, 'x'));
}

TEST_CASE("the bound holds for whatever bytes, and the result is printable UTF-8") {
    std::mt19937 random(5);
    for (int i = 0; i < 2000; ++i) {
        std::string text(random() % 600, '\0');
        for (char& c : text) c = static_cast<char>(random() % (i % 2 == 0 ? 256 : 48) + (i % 2 == 0 ? 0 : 128));
        const std::string shown = printable(text, 100);
        REQUIRE(shown.size() <= 100);
        REQUIRE(gptq_test::is_printable(shown));
    }
}

TEST_CASE("every message of the library is bounded and printable") {
    const gptq::format_error problem("x.json: \x1b]0;title\a" + std::string(10'000'000, '\n'));
    CHECK(std::string(problem.what()).size() <= gptq::max_message_bytes);
    CHECK(gptq_test::is_printable(problem.what()));
    CHECK(std::string(problem.what()).starts_with("x.json: \\x1b]0;title\\x07"));
}
