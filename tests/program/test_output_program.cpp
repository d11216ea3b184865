// Results that cannot be written, and numbers that mean nothing.
#include "support/catch.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"

using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::skipped;

TEST_CASE("no subcommand ends well if its output cannot be written") {
    if (skipped()) return;
    if (!std::filesystem::exists("/dev/full")) {
        WARN("skipped: there is no /dev/full");
        return;
    }
    const gptq_test::temp_dir folder;
    const std::string model = (folder.path() / "model").string(), text = (folder.path() / "text.txt").string();
    gptq_test::write_tiny_model(model);
    gptq_test::write_file(text, gptq_test::some_text(20000));
    const std::vector<std::string> commands = {"--help",
                                               "--version",
                                               "eval --help",
                                               "tokenize " + model + " --text " + text,
                                               "tokenize --json " + model + " --text " + text,
                                               "inspect " + model,
                                               "inspect --json " + model,
                                               "generate -n 2 --prompt a " + model,
                                               "generate --json -n 2 --prompt a " + model,
                                               "bench -n 1 --prompt 1 " + model,
                                               "eval --seqlen 64 --max-tokens 64 --text " + text + " " + model,
                                               "eval --json --seqlen 64 --max-tokens 64 --text " + text + " " + model};
    for (const std::string& command : commands) {
        const std::string errors = (folder.path() / "errors").string();
        const std::string line = *gptq_test::program_path() + " " + command + " > /dev/full 2> " + errors;
        INFO(line);
        CHECK(std::system(line.c_str()) != 0);
        CHECK(mentions(gptq_test::read_file(errors), "standard output: cannot write"));
    }
}

TEST_CASE("numbers that mean nothing are refused with a short bound") {
    if (skipped()) return;
    const std::vector<std::vector<std::string>> wrong = {
        {"quantize", "m", "o", "--calib", "c", "--nsamples", "0"},
        {"quantize", "m", "o", "--calib", "c", "--nsamples", "-1"},
        {"eval", "m", "--text", "t", "--max-tokens", "0"},
        {"generate", "m", "--prompt", "p", "--temperature", "-1"},
        {"generate", "m", "--prompt", "p", "--temperature", "nan"},
        {"generate", "m", "--prompt", "p", "--top-p", "1.5"},
        {"generate", "m", "--prompt", "p", "--repetition-penalty", "0"},
        {"bench", "m", "--prompt", "0"},
        {"bench", "m", "-n", "9223372036854775808"}};
    for (const auto& arguments : wrong) {
        const auto result = run_program(arguments);
        INFO(result.err);
        CHECK(result.status == 2);
        CHECK(result.err.size() < 160);
        CHECK(gptq_test::lines_of(result.err).size() == 1);
    }
}

TEST_CASE("--version says which version this is") {
    if (skipped()) return;
    const auto result = run_program({"--version"});
    CHECK(result.status == 0);
    CHECK(result.out.starts_with("gptq "));
    CHECK(gptq_test::lines_of(result.out).size() == 1);
}
