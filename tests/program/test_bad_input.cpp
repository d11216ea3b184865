// What the program says to input that is wrong: one clear line, exit status 1, and no output folder.
#include <signal.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

namespace fs = std::filesystem;
using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::skipped;

namespace {

/// A folder with a model and a calibration text, and how the program fares with them.
struct scene {
    gptq_test::temp_dir folder;
    fs::path model = folder.path() / "model";
    fs::path text = folder.path() / "calib.txt";
    fs::path out = folder.path() / "out";

    explicit scene(const gptq_test::tiny_model& sizes = {}) {
        gptq_test::write_tiny_model(model, sizes);
        gptq_test::write_file(text, gptq_test::some_text(4000));
    }

    gptq_test::run_result quantize(const std::vector<std::string>& more = {},
                                   const gptq_test::run_limits& limits = {}) const {
        std::vector<std::string> arguments = {"quantize", model.string(), out.string(), "--calib", text.string()};
        arguments.insert(arguments.end(), more.begin(), more.end());
        arguments = gptq_test::with_defaults(arguments, {"--nsamples", "4", "--seqlen", "64", "--group-size", "32"});
        return run_program(arguments, limits);
    }

    /// Nothing but what the test made: no output, finished or not.
    bool left_nothing() const {
        return gptq_test::names_in(folder.path()) == std::vector<std::string>{"calib.txt", "model"};
    }
};

/// The last line on standard error, "gptq: ...".
std::string complaint(const gptq_test::run_result& result) {
    const auto lines = gptq_test::lines_of(result.err);
    return lines.empty() ? "" : lines.back();
}

std::size_t count_complaints(const gptq_test::run_result& result) {
    std::size_t count = 0;
    for (const std::string& line : gptq_test::lines_of(result.err)) count += line.starts_with("gptq: ") ? 1 : 0;
    return count;
}

template <class... Parts>
void check_refused(const scene& s, const gptq_test::run_result& result, const Parts&... parts) {
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(count_complaints(result) == 1);
    CHECK(complaint(result).starts_with("gptq: "));
    CHECK(mentions(complaint(result), parts...));
    CHECK(s.left_nothing());
}

/// Overwrites the elements of a tensor of model.safetensors from `index` on.
void poke(const fs::path& model, const std::string& tensor, std::size_t index, float value) {
    const fs::path path = model / "model.safetensors";
    std::string bytes = gptq_test::read_file(path);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const auto entries = nlohmann::json::parse(bytes.substr(8, header));
    const auto begin = entries[tensor]["data_offsets"][0].get<std::size_t>();
    std::memcpy(bytes.data() + 8 + header + begin + 4 * index, &value, 4);
    gptq_test::write_file(path, bytes);
}

void replace_in(const fs::path& file, const std::string& from, const std::string& to) {
    std::string content = gptq_test::read_file(file);
    const auto at = content.find(from);
    REQUIRE(at != std::string::npos);
    content.replace(at, from.size(), to);
    gptq_test::write_file(file, content);
}

}  // namespace

TEST_CASE("quantize refuses weights that are not what they claim") {
    if (skipped()) return;
    const scene s;
    const fs::path weights = s.model / "model.safetensors";

    SECTION("truncated in the data") {
        fs::resize_file(weights, fs::file_size(weights) - 1000);
        check_refused(s, s.quantize(), "model.safetensors");
    }
    SECTION("truncated in the header") {
        fs::resize_file(weights, 100);
        check_refused(s, s.quantize(), "model.safetensors");
    }
    SECTION("a header that lies about its length") {
        std::string bytes = gptq_test::read_file(weights);
        bytes.replace(0, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));
        gptq_test::write_file(weights, bytes);
        check_refused(s, s.quantize(), "model.safetensors");
    }
    SECTION("a tensor that lies about its shape") {
        replace_in(weights, "[256,64]", "[256,96]");
        check_refused(s, s.quantize(), "model.safetensors");
    }
    SECTION("a tensor of another shape than config.json says") {
        replace_in(s.model / "config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 160");
        check_refused(s, s.quantize(), "model.layers.0.mlp.gate_proj.weight", "[128, 64]", "[160, 64]");
    }
    SECTION("NaN in a block") {
        poke(s.model, "model.layers.1.mlp.up_proj.weight", 5 * 64 + 3, std::numeric_limits<float>::quiet_NaN());
        check_refused(s, s.quantize(), "model.layers.1.mlp.up_proj.weight", "row 5, column 3");
    }
    SECTION("infinity in the embedding") {
        poke(s.model, "model.embed_tokens.weight", 0, std::numeric_limits<float>::infinity());
        check_refused(s, s.quantize(), "model.embed_tokens.weight", "row 0, column 0");
    }
    SECTION("finite weights that make activations overflow") {
        for (std::size_t i = 0; i < 64; ++i) poke(s.model, "model.layers.0.input_layernorm.weight", i, 3e38f);
        check_refused(s, s.quantize(), "model.layers.0.self_attn.q_proj");
    }
    SECTION("no weights") {
        fs::remove(weights);
        check_refused(s, s.quantize(), s.model.string(), "model.safetensors");
    }
}

TEST_CASE("quantize refuses a model with a missing shard") {
    if (skipped()) return;
    const scene s({.shard_bytes = 100'000});
    REQUIRE(fs::exists(s.model / "model.safetensors.index.json"));
    const auto files = gptq_test::names_in(s.model);
    const auto shard = std::find_if(files.begin(), files.end(),
                                    [](const std::string& name) { return name.starts_with("model-00002-of-"); });
    REQUIRE(shard != files.end());
    fs::remove(s.model / *shard);
    check_refused(s, s.quantize(), *shard, "missing");
}

TEST_CASE("quantize refuses models it does not know") {
    if (skipped()) return;
    const scene s;
    const fs::path config = s.model / "config.json";

    SECTION("unknown architecture") {
        replace_in(config, "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"");
        check_refused(s, s.quantize(), "mamba", "llama");
    }
    SECTION("config.json is not JSON") {
        gptq_test::write_file(config, "{");
        check_refused(s, s.quantize(), "config.json");
    }
    SECTION("no folder") {
        fs::remove_all(s.model);
        const auto result = s.quantize();
        CHECK(result.status == 1);
        CHECK(mentions(complaint(result), s.model.string()));
        CHECK_FALSE(fs::exists(s.out));
    }
    SECTION("quantized already") {
        REQUIRE(s.quantize().status == 0);
        const auto result = run_program({"quantize", s.out.string(), (s.folder.path() / "again").string(), "--calib",
                                         s.text.string(), "--nsamples", "4", "--seqlen", "64"});
        CHECK(result.status == 1);
        CHECK(mentions(complaint(result), s.out.string(), "quantized already"));
        CHECK_FALSE(fs::exists(s.folder.path() / "again"));
    }
}

TEST_CASE("quantize refuses settings that no file can hold") {
    if (skipped()) return;
    const scene s;
    const fs::path rules = s.model / "rules.json";

    SECTION("bits") {
        for (const char* bits : {"1", "5", "9", "-4"})
            check_refused(s, s.quantize({"--bits", bits}), bits, "2, 3, 4, 8");
        check_refused(s, s.quantize({"--bits", "3", "--format", "compressed-tensors"}), "3 bits", "4, 8");
    }
    SECTION("group sizes that do not divide the inputs, or that readers do not know") {
        const auto result = s.quantize({"--group-size", "128"});
        check_refused(s, result, "self_attn.q_proj (groups of 128, 64 inputs)", "-1", "16, 32, 64");
        CHECK_FALSE(mentions(complaint(result), "mlp.down_proj"));
        check_refused(s, s.quantize({"--group-size", "8"}), "groups of 8");
        check_refused(s, s.quantize({"--group-size", "0"}), "groups of 0");
    }
    SECTION("fused layers with different settings") {
        gptq_test::write_file(rules, R"({"+:.*v_proj": {"bits": 8}})");
        check_refused(s, s.quantize({"--dynamic", rules.string()}), "q_proj", "v_proj", "8 bits");
    }
    SECTION("rules that are not rules") {
        gptq_test::write_file(rules, R"({"+:.*(": {"bits": 8}})");
        check_refused(s, s.quantize({"--dynamic", rules.string()}), "rules.json", "regular expression");
    }
}

TEST_CASE("quantize refuses layers whose shapes the format cannot hold") {
    if (skipped()) return;
    const scene s({.intermediate = 80});
    check_refused(s, s.quantize(), "mlp.gate_proj [80, 64]", "mlp.down_proj [64, 80]", "multiples of 32");
}

TEST_CASE("quantize refuses an output layer that is the embedding") {
    if (skipped()) return;
    const scene s({.tied = true});
    check_refused(s, s.quantize({"--lm-head"}), "embedding");
}

TEST_CASE("quantize refuses calibration text that does not do") {
    if (skipped()) return;
    const scene s;

    SECTION("too short") {
        gptq_test::write_file(s.text, gptq_test::some_text(255));
        check_refused(s, s.quantize(), "calib.txt", "has 255 tokens", "need 256");
    }
    SECTION("just long enough") {
        gptq_test::write_file(s.text, gptq_test::some_text(256));
        CHECK(s.quantize().status == 0);
    }
    SECTION("empty") {
        gptq_test::write_file(s.text, "");
        check_refused(s, s.quantize(), "calib.txt", "no text but blanks");
    }
    SECTION("missing") {
        check_refused(s,
                      run_program({"quantize", s.model.string(), s.out.string(), "--calib", "/nowhere/calib.txt",
                                   "--group-size", "32"}),
                      "/nowhere/calib.txt", "No such file");
    }
}

TEST_CASE("quantize leaves alone an OUT that exists") {
    if (skipped()) return;
    const scene s;
    fs::create_directory(s.out);
    gptq_test::write_file(s.out / "precious.txt", "mine");
    const auto result = s.quantize();
    CHECK(result.status == 1);
    CHECK(mentions(complaint(result), s.out.string(), "exists"));
    CHECK(gptq_test::names_in(s.out) == std::vector<std::string>{"precious.txt"});
    CHECK(gptq_test::names_in(s.folder.path()) == std::vector<std::string>{"calib.txt", "model", "out"});
}

TEST_CASE("quantize reports a write that fails, and cleans up") {
    if (skipped()) return;
    const scene s;
    const auto result = s.quantize({}, {.file_bytes = 60'000});
    check_refused(s, result, s.out.string(), "cannot write", "File too large");
}

TEST_CASE("quantize refuses a disk that is too full before it works for hours") {
    if (skipped()) return;
    const scene s;
    const fs::path disk = s.folder.path() / "disk";
    fs::create_directory(disk);
    const std::vector<std::string> arguments = {"quantize",
                                                s.model.string(),
                                                (disk / "out").string(),
                                                "--calib",
                                                s.text.string(),
                                                "--nsamples",
                                                "4",
                                                "--seqlen",
                                                "64",
                                                "--group-size",
                                                "32"};
    const auto result = run_program(arguments, {.small_disk = {{disk, 100'000}}});
    if (result.status == gptq_test::no_small_disk) {
        WARN("skipped: a small disk cannot be mounted here");
        return;
    }
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(gptq_test::lines_of(result.err).size() == 1);
    CHECK(mentions(complaint(result), (disk / "out").string(), "bytes", "disk"));
}

TEST_CASE("Ctrl-C and SIGTERM stop quantize and leave nothing that looks finished") {
    if (skipped()) return;
    const scene s({.hidden = 256, .intermediate = 512, .blocks = 12, .heads = 8, .kv_heads = 8, .head_dim = 32});
    for (const int signal : {SIGINT, SIGTERM}) {
        const auto result = s.quantize({"--nsamples", "40", "--seqlen", "96"}, {.signal_after = {{"layer 0", signal}}});
        CHECK(result.status == 1);
        CHECK(count_complaints(result) == 1);
        CHECK(mentions(complaint(result), "interrupted"));
        CHECK_FALSE(fs::exists(s.out));
        fs::remove_all(s.out.string() + ".partial");
    }
}

TEST_CASE("a killed quantize leaves no folder that looks finished") {
    if (skipped()) return;
    const scene s({.hidden = 256, .intermediate = 512, .blocks = 12, .heads = 8, .kv_heads = 8, .head_dim = 32});
    const auto result = s.quantize({"--nsamples", "40", "--seqlen", "96"}, {.signal_after = {{"layer 0", SIGKILL}}});
    CHECK(result.status == 128 + SIGKILL);
    CHECK_FALSE(fs::exists(s.out));
    for (const auto& entry : fs::directory_iterator(s.folder.path()))
        if (entry.path() != s.model && entry.is_directory()) CHECK_FALSE(fs::exists(entry.path() / "config.json"));
}

TEST_CASE("usage errors end with status 2 and one line") {
    if (skipped()) return;
    const std::vector<std::vector<std::string>> wrong = {{},
                                                         {"quantise"},
                                                         {"quantize", "model"},
                                                         {"eval", "model"},
                                                         {"eval", "model", "--text", "t", "--seqlen", "1"},
                                                         {"eval", "model", "--text", "t", "--activation", "int4"},
                                                         {"generate", "model", "--prompt", "p", "--temperature", "-1"},
                                                         {"inspect", "model", "--threads", "0"},
                                                         {"quantize", "m", "o", "--calib", "c", "--order", "up"},
                                                         {"quantize", "m", "o", "--calib", "c", "--bits", "four"}};
    for (const auto& arguments : wrong) {
        const auto result = run_program(arguments);
        INFO(result.err);
        CHECK(result.status == 2);
        CHECK(result.out.empty());
        CHECK(gptq_test::lines_of(result.err).size() == 1);
    }
}
