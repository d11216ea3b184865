// gptq convert: the same values in every format.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/gguf.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/xtensor/surface.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/gguf_base.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
using gptq_test::mentions;
using gptq_test::run_program;
using gptq_test::run_result;
using gptq_test::skipped;

namespace {

struct scene {
    gptq_test::temp_dir dir;
    fs::path model = dir.path() / "model", text = dir.path() / "text.txt", base = dir.path() / "base.gguf";

    scene() {
        gptq_test::write_tiny_model(model);
        gptq_test::write_file(text, gptq_test::some_text(600));
        gptq_test::write_gguf_base(base, io::model_folder(model), 2, 4, 2, model);
    }

    /// A quantized copy.
    fs::path quantized(const std::string& name, const std::vector<std::string>& options) const {
        const fs::path out = dir.path() / name;
        std::vector<std::string> arguments = {"quantize", model,        out, "--calib",      text, "--seqlen",
                                              "32",       "--nsamples", "4", "--group-size", "32"};
        arguments.insert(arguments.end(), options.begin(), options.end());
        const run_result made = run_program(arguments);
        INFO(made.err);
        REQUIRE(made.status == 0);
        return out;
    }

    run_result convert(const fs::path& from, const fs::path& to, const std::string& format,
                       const std::vector<std::string>& options = {}) const {
        std::vector<std::string> arguments = {"convert", from, to, "--format", format};
        arguments.insert(arguments.end(), options.begin(), options.end());
        return run_program(arguments);
    }

    double perplexity(const fs::path& of) const {
        const run_result r = run_program({"eval", of, "--text", text, "--seqlen", "64", "--json"});
        INFO(r.err);
        REQUIRE(r.status == 0);
        return nlohmann::json::parse(r.out)["perplexity"].get<double>();
    }
};

/// Weights that are others in `file` than those of the codes in `folder`, in a layer with rows in another order and in
/// one without.
std::size_t differing(const fs::path& file, const fs::path& folder) {
    const io::model_folder gguf(file), codes(folder);
    const auto config = io::quantization_config::parse(codes).value();
    std::size_t different = 0;
    for (const std::string module : {"model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"}) {
        const auto expected = gptq::dequantize(io::read_quantized(codes, config, module));
        const auto values = gguf.read_matrix(module + ".weight");
        REQUIRE(values.shape() == expected.shape());
        for (std::size_t i = 0; i < values.size(); ++i) different += values.data()[i] != expected.data()[i];
    }
    return different;
}

}  // namespace

TEST_CASE("formats hold the same values") {
    if (skipped()) return;
    const scene s;
    const fs::path first = s.quantized("first", {"--bits", "4"});
    const double expected = s.perplexity(first);
    for (const std::string format : {"gptq_v2", "compressed-tensors", "awq", "gptq"}) {
        CAPTURE(format);
        const fs::path out = s.dir.path() / format;
        const run_result r = s.convert(first, out, format);
        INFO(r.err);
        REQUIRE(r.status == 0);
        CHECK(mentions(r.out, "14 layers", format));
        CHECK(s.perplexity(out) == expected);
    }
    CHECK(mentions(s.convert(s.model, s.dir.path() / "no", "gptq").err, "not quantized"));
}

TEST_CASE("GGUF files hold the codes' values") {
    if (skipped()) return;
    const scene s;
    const auto to_gguf = [&](const std::string& name, const std::vector<std::string>& options) {
        const fs::path folder = s.quantized(name, options), out = s.dir.path() / (name + ".gguf");
        const run_result r = s.convert(folder, out, "gguf", {"--base", s.base});
        INFO(r.err);
        REQUIRE(r.status == 0);
        return std::pair(folder, out);
    };
    const auto [sym, q4_0] = to_gguf("sym", {"--bits", "4", "--order", "gar"});
    CHECK(differing(q4_0, sym) == 0);
    const auto [three, also_q4_0] = to_gguf("three", {"--bits", "3"});
    CHECK(differing(also_q4_0, three) == 0);
    const auto [asym, q5_0] = to_gguf("asym", {"--bits", "4", "--asym"});
    CHECK(differing(q5_0, asym) == 0);
    const auto [wide, q8_0] = to_gguf("wide", {"--bits", "8"});
    CHECK(differing(q8_0, wide) == 0);

    const auto embedding = io::gguf_file(q4_0).tensors()[0].bytes, stored = io::gguf_file(s.base).tensors()[0].bytes;
    CHECK(embedding.size() == stored.size());
    CHECK(io::gguf_file(q4_0).number("general.file_type") == 2);
    const run_result smaller =
        s.convert(sym, s.dir.path() / "smaller.gguf", "gguf", {"--base", s.base, "--rest", "q8_0"});
    CHECK(smaller.status == 0);
    CHECK(io::gguf_file(s.dir.path() / "smaller.gguf").tensors()[0].type == io::gguf_type::q8_0);
}

TEST_CASE("a GGUF file is read as the model that it was made of") {
    if (skipped()) return;
    const scene s;
    CHECK(s.perplexity(s.base) == s.perplexity(s.model));
    const run_result r = run_program({"inspect", s.base});
    INFO(r.err);
    CHECK(mentions(r.out, "2 blocks, hidden size 64, 4 heads of 16 (2 for keys and values)", "F32"));
    CHECK(run_program({"generate", s.base, "--prompt", "some", "--tokens", "5"}).out ==
          run_program({"generate", s.model, "--prompt", "some", "--tokens", "5"}).out);
    const run_result folder = run_program({"quantize", s.base, s.dir.path() / "out", "--calib", s.text});
    CHECK(folder.status == 1);
    CHECK(mentions(folder.err, "--type"));
}

TEST_CASE("a model is quantized into a GGUF file") {
    if (skipped()) return;
    const scene s;
    const auto quantized = [&](const fs::path& model, const std::string& name, const std::vector<std::string>& more) {
        std::vector<std::string> arguments = {"quantize", model, s.dir.path() / name, "--calib", s.text,
                                              "--seqlen", "32",  "--nsamples",        "4",       "--type",
                                              "q4_0"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    };
    const run_result r = quantized(s.base, "q4_0.gguf", {});
    INFO(r.err);
    REQUIRE(r.status == 0);
    CHECK(mentions(r.out, "14 layers", "q4_0"));
    REQUIRE(quantized(s.model, "again.gguf", {"--base", s.base}).status == 0);
    CHECK(gptq_test::read_file(s.dir.path() / "again.gguf") == gptq_test::read_file(s.dir.path() / "q4_0.gguf"));
    CHECK(std::abs(s.perplexity(s.dir.path() / "q4_0.gguf") / s.perplexity(s.base) - 1.0) < 0.05);
    CHECK(mentions(quantized(s.model, "no.gguf", {}).err, "--base"));
    CHECK(mentions(quantized(s.dir.path() / "q4_0.gguf", "no.gguf", {}).err, "is quantized"));
}

TEST_CASE("what GGUF cannot hold is refused, and nothing is left") {
    if (skipped()) return;
    const scene s;
    const fs::path out = s.dir.path() / "out.gguf";
    const auto refused = [&](const fs::path& folder, const fs::path& base) {
        const run_result r = s.convert(folder, out, "gguf", {"--base", base});
        CHECK(r.status == 1);
        CHECK_FALSE(fs::exists(out));
        CHECK_FALSE(fs::exists(out.string() + ".partial"));
        return r.err;
    };
    CHECK(mentions(refused(s.quantized("act", {"--order", "act"}), s.base), "self_attn.q_proj", "--order gar"));
    CHECK(mentions(refused(s.quantized("wide", {"--bits", "8", "--asym"}), s.base), "Q8_0", "symmetric"));

    const fs::path sym = s.quantized("sym", {});
    CHECK(mentions(s.convert(sym, out, "gguf").err, "--base"));
    // The file speaks of another number of heads, so its rows are not where they seem to be.
    const fs::path other = s.dir.path() / "other.gguf";
    std::string bytes = gptq_test::read_file(s.base);
    bytes[bytes.find("head_count") + 14] = 8;
    gptq_test::write_file(other, bytes);
    CHECK(mentions(refused(sym, other), "q_proj", "do not stand for"));
    gptq_test::write_gguf_base(other, io::model_folder(s.model), 1, 4, 2);
    CHECK(mentions(refused(sym, other), "no tensor for the layer"));
    gptq_test::write_file(out, "something");
    CHECK(mentions(s.convert(sym, out, "gguf", {"--base", s.base}).err, "already exists"));
}
