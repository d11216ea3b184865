// gptq convert: the same values in every format.
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gptq/io/gguf.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layouts/ggml_blocks.hpp>

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
        gptq_test::write_gguf_base(base, io::model_folder(model), 2, 4, 2);
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

    std::string perplexity(const fs::path& folder) const {
        const run_result r = run_program({"eval", folder, "--text", text, "--seqlen", "64"});
        INFO(r.err);
        REQUIRE(r.status == 0);
        return r.out.substr(r.out.find(' '));
    }
};

/// Tensors of `file` whose values differ from those of the codes in `folder`, by a look at each.
template <class T>
std::size_t differing(const fs::path& file, const fs::path& folder) {
    const io::gguf_file gguf(file);
    const io::model_folder codes(folder);
    const auto config = io::quantization_config::parse(codes).value();
    std::size_t different = 0;
    for (const io::gguf_tensor& tensor : gguf.tensors()) {
        if (tensor.name != "blk.1.attn_q.weight" && tensor.name != "blk.0.ffn_down.weight") continue;
        const bool query = tensor.name.find("attn_q") != std::string::npos;
        const auto q = io::read_quantized(codes, config,
                                          query ? "model.layers.1.self_attn.q_proj" : "model.layers.0.mlp.down_proj");
        for (std::size_t r = 0; r < tensor.shape[0]; ++r)
            for (std::size_t b = 0; b < tensor.shape[1] / 32; ++b) {
                const auto block =
                    T::decode(tensor.bytes.subspan((r * tensor.shape[1] / 32 + b) * T::bytes, T::bytes).read());
                // Heads of 16 rows: row 2 i + j of the file is row i + 8 j of the layer.
                const std::size_t n = query ? r / 16 * 16 + r % 16 / 2 + 8 * (r % 2) : r;
                for (std::size_t i = 0; i < 32; ++i) {
                    const auto g = static_cast<std::size_t>(q.g_idx(32 * b + i));
                    const float value = q.scales(n, g) * static_cast<float>(q.codes(n, 32 * b + i) - q.zeros(n, g));
                    different += gptq::to_float(block.d) * static_cast<float>(block.levels[i]) != value;
                }
            }
    }
    return different;
}

}  // namespace

TEST_CASE("formats hold the same values") {
    if (skipped()) return;
    const scene s;
    const fs::path first = s.quantized("first", {"--bits", "4"});
    const std::string expected = s.perplexity(first);
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
    CHECK(differing<gptq::layout::q4_0>(q4_0, sym) == 0);
    const auto [three, also_q4_0] = to_gguf("three", {"--bits", "3"});
    CHECK(differing<gptq::layout::q4_0>(also_q4_0, three) == 0);
    const auto [asym, q5_0] = to_gguf("asym", {"--bits", "4", "--asym"});
    CHECK(differing<gptq::layout::q5_0>(q5_0, asym) == 0);
    const auto [wide, q8_0] = to_gguf("wide", {"--bits", "8"});
    CHECK(differing<gptq::layout::q8_0>(q8_0, wide) == 0);

    const auto embedding = io::gguf_file(q4_0).tensors()[0].bytes, stored = io::gguf_file(s.base).tensors()[0].bytes;
    CHECK(embedding.size() == stored.size());
    CHECK(io::gguf_file(q4_0).number("general.file_type") == 2);
    const run_result smaller =
        s.convert(sym, s.dir.path() / "smaller.gguf", "gguf", {"--base", s.base, "--rest", "q8_0"});
    CHECK(smaller.status == 0);
    CHECK(io::gguf_file(s.dir.path() / "smaller.gguf").tensors()[0].type == io::gguf_type::q8_0);
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
