// What kinds of text files the program reads, and what it says to others.
#include "support/catch.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"

namespace fs = std::filesystem;
using gptq_test::mentions;

namespace {

/// A model and a file of the given bytes, of which the program prints the tokens.
struct text_scene {
    gptq_test::temp_dir folder;
    fs::path model = folder.path() / "model";
    fs::path text = folder.path() / "text";

    text_scene() { gptq_test::write_tiny_model(model); }

    gptq_test::run_result tokenize(const std::string& bytes) const {
        gptq_test::write_file(text, bytes);
        return gptq_test::run_program({"tokenize", model.string(), "--text", text.string()});
    }
};

}  // namespace

TEST_CASE("a text in UTF-16, JSON Lines, gzip or zstd has the tokens of the text in UTF-8", "[program][texts]") {
    const text_scene s;
    const auto plain = s.tokenize("h\xc3\xa9\nyo");
    REQUIRE(plain.status == 0);
    using namespace std::string_literals;
    const std::string gzip =  // gzip.compress("hé\nyo", mtime=0)
        "\037\213\010\000\000\000\000\000\002\003\313\070\274\222\253\062\037\000\260\323\324\345\006\000\000\000"s;
    const std::string zstd =  // what zstd -c makes of the same
        "\050\265\057\375\004\130\061\000\000\150\303\251\012\171\157\263\310\140\013"s;
    for (const std::string& same :
         {"\xff\xfeh\0\xe9\0\n\0y\0o\0"s, "\xfe\xff\0h\0\xe9\0\n\0y\0o"s, "\xef\xbb\xbfh\xc3\xa9\r\nyo"s, gzip, zstd}) {
        const auto result = s.tokenize(same);
        CHECK(result.status == 0);
        CHECK(result.out == plain.out);
    }
    const std::string lines =
        "{\"text\": \"h\xc3\xa9\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"yo\"}]}\n";
    CHECK(s.tokenize(lines).out == s.tokenize("h\xc3\xa9\nyo\n").out);
    CHECK(mentions(s.tokenize(lines).err, "warning", "joined without a chat template"));
}

TEST_CASE("messages of JSON Lines go through the model's chat template", "[program][texts]") {
    const text_scene s;
    gptq_test::write_file(
        s.model / "chat_template.jinja",
        "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}"
        "{% endfor %}");
    const std::string one =
        R"({"messages": [{"role": "user", "content": "yo"}, {"role": "assistant", "content": "h"}]})";
    const std::string talk = "<|im_start|>user\nyo<|im_end|>\n<|im_start|>assistant\nh<|im_end|>\n\n";
    const auto result = s.tokenize(one + "\n" + one + "\n");
    CHECK(result.err == "");
    CHECK(result.out == s.tokenize(talk + talk).out);
    const auto refused = s.tokenize(one + "\n" + R"({"messages": [{"role": "tool", "content": "x"}]})" + "\n");
    CHECK(refused.status == 1);
    CHECK(mentions(refused.err, "line 2", "in turns"));
}

TEST_CASE("a file that is no text is refused by its kind", "[program][texts]") {
    const text_scene s;
    const auto refused = [&](const std::string& bytes, const std::string& part) {
        const auto result = s.tokenize(bytes);
        INFO(result.err);
        CHECK(result.status == 1);
        CHECK(mentions(result.err, part));
    };
    refused("PAR1 and more", "Parquet");
    refused("PK\x03\x04 and more", "zip");
    refused("\x28\xb5\x2f\xfd and more", "zstd file");
    refused(std::string("\050\265\057\375\004\130\061\000\000\150\303\251\012\171", 14), "zstd file that is cut off");
#ifdef GPTQ_HAS_ZSTD
    // 600 blocks of four bytes, each 128 KB of "a".
    std::string bomb("\x28\xb5\x2f\xfd\0\x38", 6);
    for (int i = 0; i < 600; ++i)
        bomb += std::string(i == 599 ? "\3\0\x10"
                                       "a"
                                     : "\2\0\x10"
                                       "a",
                            4);
    refused(bomb, "no text does");
#endif
    refused("%PDF-1.4", "PDF");
    refused("\x1f\x8b cut off", "gzip");
    refused(" \n\t\n", "blanks");
    refused("{\"body\": \"x\"}\n", "line 1");
    refused("caf\xe9", "1 of 4 bytes are no UTF-8");
}

TEST_CASE("few ill-formed bytes are counted in a warning", "[program][texts]") {
    const text_scene s;
    const auto result = s.tokenize(std::string(200, 'a') + "\xe9");
    CHECK(result.status == 0);
    CHECK(mentions(result.err, "warning", "1 bytes are no UTF-8"));
}

TEST_CASE("rounding to nearest needs no text, and its codes do not depend on one; GPTQ asks for it",
          "[program][texts]") {
    const text_scene s;
    gptq_test::write_file(s.text, gptq_test::some_text(4 * 32));
    const auto quantize = [&](const std::string& out, std::vector<std::string> more) {
        std::vector<std::string> arguments{
            "quantize", s.model.string(), (s.folder.path() / out).string(), "--bits", "4", "--group-size", "32"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return gptq_test::run_program(arguments);
    };
    CHECK(quantize("without", {"--method", "rtn"}).status == 0);
    CHECK(
        quantize("with", {"--method", "rtn", "--calib", s.text.string(), "--nsamples", "2", "--seqlen", "32"}).status ==
        0);
    CHECK(gptq_test::read_file(s.folder.path() / "without" / "model.safetensors") ==
          gptq_test::read_file(s.folder.path() / "with" / "model.safetensors"));
    const auto refused = quantize("refused", {});
    CHECK(refused.status == 2);
    CHECK(mentions(refused.err, "--calib"));
}
