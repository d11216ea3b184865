// gptq tune: a quantized model nearer to its float model.
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::run_result;
using gptq_test::skipped;

namespace {

struct scene {
    gptq_test::temp_dir dir;
    fs::path model = dir.path() / "model", quantized = dir.path() / "quantized", text = dir.path() / "text.txt",
             out = dir.path() / "out";

    scene() {
        gptq_test::write_tiny_model(model);
        gptq_test::write_file(text, gptq_test::some_text(1500));
        const run_result made =
            run_program({"quantize", model, quantized, "--bits", "2", "--group-size", "32", "--method", "rtn"});
        INFO(made.err);
        REQUIRE(made.status == 0);
    }

    run_result tune(const std::vector<std::string>& options, const gptq_test::run_limits& limits = {}) const {
        std::vector<std::string> arguments = {"tune", quantized, model, out};
        arguments.insert(arguments.end(), options.begin(), options.end());
        return run_program(gptq_test::with_defaults(arguments, {"--calib", text, "--nsamples", "8", "--seqlen", "32"}),
                           limits);
    }

    double divergence(const fs::path& folder) const {
        const run_result r =
            run_program({"eval", folder, "--text", text, "--seqlen", "32", "--baseline", model, "--json"});
        INFO(r.err);
        REQUIRE(r.status == 0);
        return nlohmann::json::parse(r.out)["kl_divergence"].get<double>();
    }
};

}  // namespace

TEST_CASE("tune writes a model that is nearer to the float model, and says how it was made") {
    if (skipped()) return;
    const scene s;
    const run_result r = s.tune({"--steps", "20", "--rate", "0.02", "--norms", "--json"});
    INFO(r.err);
    REQUIRE(r.status == 0);
    const auto json = nlohmann::json::parse(r.out);
    CHECK(json["layers"] == 14);
    CHECK(json["norms"] == 5);
    CHECK(json["steps"] == 20);
    CHECK(json["divergence"] < json["divergence_before"]);
    CHECK(json["warnings"].empty());
    CHECK(s.divergence(s.out) < 0.9 * s.divergence(s.quantized));
    const run_result inspected = run_program({"inspect", s.out});
    CHECK(mentions(inspected.out, "tuned: step", "of 20 on 8 windows of 32 tokens, with norms"));
    CHECK(mentions(s.tune({"--steps", "1"}).err, "exists"));
}

TEST_CASE("tune without JSON tells what it did, and a line for each look at the held-out windows") {
    if (skipped()) return;
    const scene s;
    const run_result r = s.tune({"--steps", "2"});
    CHECK(r.status == 0);
    CHECK(mentions(r.out, "scales of 14 layers tuned", "before", "of 2 is kept"));
    CHECK(mentions(r.err, "step 0: held-out divergence", "step 2: held-out divergence"));
}

TEST_CASE("tune refuses what it cannot do") {
    if (skipped()) return;
    const scene s;
    CHECK(s.tune({"--rate", "2"}).status == 2);
    CHECK(s.tune({"--nsamples", "1"}).status == 2);
    const run_result with_float = run_program({"tune", s.model, s.model, s.out, "--calib", s.text, "--nsamples", "2"});
    CHECK(with_float.status == 1);
    CHECK(mentions(with_float.err, "is not quantized"));
    gptq_test::write_tiny_model(s.dir.path() / "experts", {.experts = true});
    const fs::path experts = s.dir.path() / "experts_in_4_bits";
    REQUIRE(
        run_program({"quantize", s.dir.path() / "experts", experts, "--group-size", "32", "--method", "rtn"}).status ==
        0);
    const run_result refused = run_program(
        {"tune", experts, s.dir.path() / "experts", s.out, "--calib", s.text, "--nsamples", "2", "--seqlen", "32"});
    CHECK(refused.status == 1);
    CHECK(mentions(refused.err, "experts"));
    CHECK(!fs::exists(s.out));
}

TEST_CASE("quantize --tuned is quantize --best, and tune after it") {
    if (skipped()) return;
    const scene s;
    const auto quantize = [&](const fs::path& out, const std::string& how, const gptq_test::run_limits& limits = {}) {
        return run_program({"quantize", s.model, out, "--bits", "2", "--group-size", "32", how, "--calib", s.text,
                            "--nsamples", "8", "--seqlen", "32", "--json"},
                           limits);
    };
    const fs::path best = s.dir.path() / "best", apart = s.dir.path() / "apart";
    REQUIRE(quantize(best, "--best").status == 0);
    REQUIRE(run_program(
                {"tune", best, s.model, apart, "--calib", s.text, "--nsamples", "8", "--seqlen", "32", "--steps", "10"})
                .status == 0);
    const auto before = gptq_test::names_in(s.dir.path());
    // The first run ends before it has tuned anything, and the second one takes up what it has quantized.
    CHECK(quantize(s.out, "--tuned=1000000", {.signal_after = {{"step 0", SIGINT}}}).status == 1);
    CHECK(fs::exists(s.out.string() + ".untuned"));
    const run_result r = quantize(s.out, "--tuned=10");
    INFO(r.err);
    REQUIRE(r.status == 0);
    CHECK(nlohmann::json::parse(r.out)["steps"] == 10);
    CHECK(gptq_test::read_file(s.out / "model.safetensors") == gptq_test::read_file(apart / "model.safetensors"));
    fs::remove_all(s.out);
    CHECK(gptq_test::names_in(s.dir.path()) == before);
}

TEST_CASE("an interrupted tune leaves nothing") {
    if (skipped()) return;
    const scene s;
    const auto before = gptq_test::names_in(s.dir.path());
    const run_result r = s.tune({"--steps", "1000000"}, {.signal_after = {{"step 0", SIGINT}}});
    CHECK(r.status == 1);
    CHECK(mentions(r.err, "interrupted"));
    CHECK(gptq_test::names_in(s.dir.path()) == before);
}
