// gptq study and gptq allocate as users run them, on the model that ships with the repository.
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/model/quantize_log.hpp>

#include "program/run_program.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
using gptq_test::run_program;
using gptq_test::run_result;
using gptq_test::skipped;
using json = nlohmann::json;

namespace {

struct scene {
    gptq_test::temp_dir dir;
    fs::path model = fs::path(GPTQ_SOURCE_DIR) / "examples/demo/model";
    fs::path texts = fs::path(GPTQ_SOURCE_DIR) / "examples/demo/text";

    std::vector<std::string> arguments(const fs::path& out, const std::vector<std::string>& options) const {
        std::vector<std::string> all = {"study", model, "--out", out};
        all.insert(all.end(), options.begin(), options.end());
        return gptq_test::with_defaults(
            all, {"--calib", texts / "calib.txt", "--text", texts / "heldout.txt", "--group-size", "32", "--nsamples",
                  "4", "--seqlen", "32", "--max-tokens", "96", "--threads", "1"});
    }

    run_result study(const fs::path& out, const std::vector<std::string>& options,
                     const gptq_test::run_limits& limits = {}) const {
        return run_program(arguments(out, options), limits);
    }
};

/// Everything of a results.csv but the seconds and the memory.
std::vector<std::string> lasting(const fs::path& folder) {
    std::vector<std::string> lines = gptq_test::lines_of(gptq_test::read_file(folder / "results.csv"));
    for (std::string& line : lines)
        for (int field = 0; field < 3; ++field) line.erase(line.rfind(','));
    return lines;
}

/// The file of each finished cell, and when it was written.
std::map<fs::path, fs::file_time_type> finished(const fs::path& folder) {
    std::map<fs::path, fs::file_time_type> files;
    if (!fs::exists(folder / "cells")) return files;
    for (const auto& entry : fs::directory_iterator(folder / "cells"))
        if (entry.path().extension() == ".json") files[entry.path()] = entry.last_write_time();
    return files;
}

int exit_status(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Kills a study `times` times at moments that lie anywhere in what is left of it, and lets it end. What each run
/// found finished is never written again, and the results are those of a study that nobody disturbed.
void kill_at_random(const std::vector<std::string>& options, int times, unsigned seed) {
    const scene s;
    const fs::path whole = s.dir.path() / "whole", out = s.dir.path() / "killed";
    const auto begin = std::chrono::steady_clock::now();
    REQUIRE(s.study(whole, options).status == 0);
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
    std::mt19937 random(seed);
    std::map<fs::path, fs::file_time_type> before;
    const auto nothing_again = [&] {
        const auto now = finished(out);
        for (const auto& [file, time] : before) CHECK((now.count(file) == 1 && now.at(file) == time));
        before = now;
    };
    for (int i = 0; i < times; ++i) {
        CAPTURE(i, seed);
        const pid_t child = gptq_test::start_program(s.arguments(out, options), s.dir.path());
        std::this_thread::sleep_for(took * std::uniform_real_distribution<>(0.0, 1.0)(random));
        ::kill(child, SIGKILL);
        const int status = exit_status(child);
        INFO(gptq_test::read_file(s.dir.path() / "err"));
        CHECK((status == 128 + SIGKILL || status == 0));  // it may be faster than the signal
        nothing_again();
        if (status == 0 || i % 7 == 6) {  // once more from the beginning
            CHECK(s.study(out, options).status == 0);
            nothing_again();
            CHECK(lasting(out) == lasting(whole));
            fs::remove_all(out), before.clear();
        }
    }
    const run_result last = s.study(out, options);
    INFO(last.err);
    CHECK(last.status == 0);
    nothing_again();
    CHECK(lasting(out) == lasting(whole));
    for (const std::string& name : gptq_test::names_in(out / "cells")) CHECK(name.ends_with(".json"));
    for (const std::string& name : gptq_test::names_in(out / "work")) CHECK(name.find('.') == std::string::npos);
}

const std::vector<std::string> model_cells = {"--method", "rtn,gptq", "--bits", "2,4"};
const std::vector<std::string> layer_cells = {"--depth", "layers", "--method", "rtn,gptq", "--bits", "2,4"};

}  // namespace

TEST_CASE("a study that is killed at random moments ends with the same results", "[runs]") {
    if (skipped()) return;
    kill_at_random(model_cells, 3, 1);
    kill_at_random(layer_cells, 2, 2);
}

TEST_CASE("a study that is killed at twenty random moments ends with the same results", "[many]") {
    if (skipped()) return;
    kill_at_random(model_cells, 20, 3);
    kill_at_random(layer_cells, 20, 4);
}

TEST_CASE("two processes that begin one study together compute no cell twice", "[runs]") {
    if (skipped()) return;
    const scene s;
    for (const auto& options : {model_cells, layer_cells}) {
        const fs::path out = s.dir.path() / options[1];
        auto arguments = s.arguments(out, options);
        arguments.push_back("--json");
        const fs::path here = s.dir.path() / "here", there = s.dir.path() / "there";
        fs::create_directories(here), fs::create_directories(there);
        const pid_t first = gptq_test::start_program(arguments, here);
        const pid_t second = gptq_test::start_program(arguments, there);
        const int statuses[] = {exit_status(first), exit_status(second)};
        INFO(gptq_test::read_file(here / "err") << gptq_test::read_file(there / "err"));
        REQUIRE(statuses[0] == 0);
        REQUIRE(statuses[1] == 0);
        const json a = json::parse(gptq_test::read_file(here / "out")),
                   b = json::parse(gptq_test::read_file(there / "out"));
        CHECK(a["computed"].get<int>() + b["computed"].get<int>() == static_cast<int>(a["cells"].size()));
        CHECK(a["cells"] == b["cells"]);
    }
}

TEST_CASE("a study that was killed goes on, and processes share one") {
    if (skipped()) return;
    const scene s;
    const std::vector<std::string> axes = {"--method", "rtn,gptq", "--bits", "2,4"};
    const fs::path whole = s.dir.path() / "whole", killed = s.dir.path() / "killed", shared = s.dir.path() / "shared";
    const run_result first = s.study(whole, axes);
    INFO(first.err);
    REQUIRE(first.status == 0);
    const auto expected = lasting(whole);
    REQUIRE(expected.size() == 6);  // names, float, and 2 x 2 cells
    CHECK(gptq_test::names_in(whole / "work").empty());
    CHECK(gptq_test::names_in(whole / "claims").empty());

    auto again_axes = axes;
    again_axes.push_back("--json");
    const run_result again = s.study(whole, again_axes);
    CHECK(json::parse(again.out)["computed"] == 0);
    CHECK(lasting(whole) == expected);

    const run_result broken = s.study(killed, axes, {.signal_after = {{"2 of 5", SIGKILL}}});
    CHECK(broken.status != 0);
    const run_result rest = s.study(killed, again_axes);
    INFO(rest.err);
    REQUIRE(rest.status == 0);
    CHECK(json::parse(rest.out)["computed"] <= 3);
    CHECK(lasting(killed) == expected);

    auto two = axes;
    two.insert(two.end(), {"--jobs", "2"});
    const run_result both = s.study(shared, two);
    INFO(both.err);
    REQUIRE(both.status == 0);
    CHECK(lasting(shared) == expected);

    // The numbers are those of the subcommands that a study takes the place of.
    const fs::path q = s.dir.path() / "q";
    REQUIRE(run_program({"quantize", s.model, q, "--bits", "2", "--group-size", "32", "--calib", s.texts / "calib.txt",
                         "--nsamples", "4", "--seqlen", "32", "--threads", "1"})
                .status == 0);
    const run_result scored = run_program({"eval", q, "--text", s.texts / "heldout.txt", "--seqlen", "32",
                                           "--max-tokens", "96", "--json", "--threads", "1"});
    const json cell = json::parse(again.out)["cells"][3];
    CHECK(cell["label"] == "gptq 2 bits g32 sym gar");
    CHECK(cell["perplexity[heldout.txt]"] == json::parse(scored.out)["perplexity"]);
}

TEST_CASE("layer errors of a study become the bits of every layer") {
    if (skipped()) return;
    const scene s;
    const fs::path out = s.dir.path() / "layers", rules = s.dir.path() / "rules.json", q = s.dir.path() / "q",
                   first = s.dir.path() / "first";
    const run_result made =
        s.study(out, {"--depth", "layers", "--bits", "2,3,4", "--method", "gptq,nf4", "--order", "natural"});
    INFO(made.err);
    REQUIRE(made.status == 0);
    const json results = json::parse(gptq_test::read_file(out / "results.json"));
    REQUIRE(results["cells"].size() == 4);
    CHECK(results["skipped"].size() == 2);  // nf4 of 2 and 3 bits

    // The first layers read the same in a whole quantization, and have the same errors there.
    std::vector<std::string> quantize = {"quantize",
                                         s.model,
                                         first,
                                         "--bits",
                                         "3",
                                         "--group-size",
                                         "32",
                                         "--order",
                                         "natural",
                                         "--calib",
                                         s.texts / "calib.txt",
                                         "--nsamples",
                                         "4",
                                         "--seqlen",
                                         "32",
                                         "--threads",
                                         "1"};
    REQUIRE(run_program(quantize).status == 0);
    const auto log = gptq::model::read_quant_log(first / gptq::model::quant_log_name);
    const json layer = results["cells"][1]["layers"][0];
    CHECK(layer["module"] == log[0].module);
    CHECK(std::abs(layer["error"].get<double>() - log[0].error) < 1e-5 * log[0].error);

    const run_result chosen = run_program({"allocate", out, "--bits-per-weight", "4", "--out", rules, "--json"});
    INFO(chosen.err);
    REQUIRE(chosen.status == 0);
    const json allocation = json::parse(chosen.out);
    CHECK(allocation["exact"] == true);
    CHECK(allocation["bits_per_weight"] <= 4.0);
    CHECK(allocation["bits_per_weight"] > 3.8);
    CHECK(allocation["layers"].size() > 1);
    const double predicted = allocation["predicted_increase_percent"];
    // The same the other way round: a loss and then the least size, a size and then the least loss.
    const auto allocated = [&](const std::vector<std::string>& limit) {
        std::vector<std::string> arguments = {"allocate", out, "--json", "--out", s.dir.path() / limit[0].substr(2)};
        arguments.insert(arguments.end(), limit.begin(), limit.end());
        const run_result r = run_program(arguments);
        INFO(r.err);
        REQUIRE(r.status == 0);
        return json::parse(r.out);
    };
    const json by_loss = allocated({"--perplexity", "+" + std::to_string(predicted + 1e-3) + "%"});
    CHECK(by_loss["predicted_increase_percent"].get<double>() <= predicted + 1e-3);
    CHECK(by_loss["bytes"] <= allocation["bytes"]);
    const json by_size = allocated({"--size", std::to_string(by_loss["bytes"].get<std::size_t>())});
    CHECK(by_size["bytes"] == by_loss["bytes"]);
    CHECK(by_size["predicted_increase_percent"] <= by_loss["predicted_increase_percent"]);
    for (const char* limit : {"3", "-3%", "+x%", "1e-9%"}) {
        const run_result r =
            run_program({"allocate", out, std::string("--perplexity=") + limit, "--out", s.dir.path() / "r"});
        INFO(r.err);
        CHECK(r.status == 1);
        CHECK(r.err.find(limit == std::string("1e-9%") ? "above float, and only" : "such as +3%") != std::string::npos);
    }
    quantize[2] = q;
    quantize.insert(quantize.end(), {"--dynamic", rules, "--json"});
    const run_result quantized = run_program(quantize);
    INFO(quantized.err);
    REQUIRE(quantized.status == 0);
    // What was promised is what the files have.
    CHECK(std::abs(json::parse(quantized.out)["bits_per_weight"].get<double>() -
                   allocation["bits_per_weight"].get<double>()) < 1e-9);
    CHECK(json::parse(quantized.out)["bytes"] == allocation["bytes"]);
    CHECK(run_program({"allocate", out, "--size", "1kB", "--out", s.dir.path() / "r"}).status == 1);
    CHECK(run_program({"allocate", out, "--bits-per-weight", "4", "--out", rules}).status == 1);  // is there
}

TEST_CASE("what no study can be is said before any work") {
    if (skipped()) return;
    const scene s;
    const auto refused = [&](const std::vector<std::string>& options, int status, const std::string& what,
                             const fs::path& out) {
        const run_result r = s.study(out, options);
        INFO(r.err);
        CHECK(r.status == status);
        CHECK(r.err.find(what) != std::string::npos);
        CHECK(gptq_test::lines_of(r.err).size() == 1);
    };
    const fs::path none = s.dir.path() / "none", empty = s.dir.path() / "empty.txt", plan = s.dir.path() / "plan.json";
    gptq_test::write_file(empty, "");
    gptq_test::write_file(plan, R"([{"bits": [3, 6]}])");
    refused({"--method", "rtn,exl2"}, 2, "\"exl2\"", none);
    refused({"--bits", "4,5"}, 2, "5 bits", none);
    refused({"--bits", "4,,3"}, 2, "a value is empty", none);
    refused({"--group-size", "x"}, 2, "not a whole number", none);
    refused({"--plan", plan}, 2, "6 bits", none);
    refused({"--depth", "layers", "--jobs", "2"}, 2, "--jobs", none);
    refused({"--text", empty}, 1, "has no text", none);
    refused({"--calib", empty}, 1, "empty.txt", none);
    refused({"--plan", empty}, 2, "not valid JSON", none);
    refused({"--plan", none / "plan.json"}, 2, "plan.json", none);
    refused({"--grid", "symmetric"}, 2, "sym, asym", none);
    refused({"--order", "random"}, 2, "natural, act, static, gar", none);
    refused({"--group-size", "48"}, 2, "groups of 48", none);
    refused({"--format", "awq", "--bits", "3"}, 2, "3 bits", none);
    refused({"--group-size", "1024"}, 1, "nothing of the plan can be done", none);
    CHECK(!fs::exists(none));
    const fs::path file = s.dir.path() / "file", full = s.dir.path() / "full";
    gptq_test::write_file(file, "x");
    fs::create_directories(full / "of");
    refused({}, 1, "file", file);
    refused({}, 1, "holds something else", full);
    refused({}, 1, "/proc/study", "/proc/study");  // where nobody can write
    const fs::path other = s.dir.path() / "other";
    REQUIRE(s.study(other, {"--method", "rtn", "--depth", "layers"}).status == 0);
    refused({"--method", "rtn", "--depth", "layers", "--nsamples", "2"}, 1, "another study: calibration", other);
    if (::geteuid() != 0) {  // root may write anywhere
        fs::permissions(other, fs::perms::owner_write, fs::perm_options::remove);
        refused({"--method", "rtn", "--depth", "layers"}, 1, "other/study.json", other);
        fs::permissions(other, fs::perms::owner_write, fs::perm_options::add);
    }
    CHECK(run_program({"allocate", s.dir.path() / "none", "--size", "1GB", "--out", s.dir.path() / "r"}).status == 1);
    CHECK(run_program({"allocate", other, "--out", s.dir.path() / "r"}).status == 2);
}
