// GGUF's blocks against llama.cpp's own reader of them, and files that lie.
#include <gptq/io/gguf.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/factor.hpp>
#include <gptq/ggml_rule.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/orders.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/gguf_base.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace io = gptq::io;
namespace layout = gptq::layout;
using gptq_test::mentions;
using gptq_test::message_of;

namespace {

void check_blocks(const layout::ggml_type& type) {
    CAPTURE(type.name);
    static const auto golden = gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "ggml_blocks.json");
    REQUIRE(golden.contains(std::string(type.name)));
    for (const auto& block : golden[std::string(type.name)]) {
        std::vector<std::byte> bytes;
        for (const auto& byte : block["bytes"]) bytes.push_back(static_cast<std::byte>(byte.get<unsigned>()));
        REQUIRE(bytes.size() == type.bytes);
        const layout::ggml_block read = layout::decode(type, bytes);
        std::vector<float> values, expected;
        for (std::size_t i = 0; i < type.weights; ++i) {
            values.push_back(layout::value_of(type, read, i));
            expected.push_back(block["values"][i].get<float>());
        }
        CHECK(values == expected);
        std::vector<std::byte> again(type.bytes);
        layout::encode(type, read, again);
        CHECK(again == bytes);
    }
}

/// N x K weights of which some inputs matter more, and the Hessian of inputs that go with each other.
struct layer_problem {
    static constexpr std::size_t N = 2, K = 256, T = 512;
    gptq::matrix<float> W{N, K}, X{T, K};
    gptq::basic_hessian<gptq::cpu_backend> H{K};

    layer_problem() {
        std::mt19937 random(7);
        std::normal_distribution<float> normal;
        for (std::size_t i = 0; i < N * K; ++i) W(i / K, i % K) = normal(random) + (i % 5 == 0 ? 0.7f : 0.0f);
        for (std::size_t t = 0; t < T; ++t) {
            const float common = normal(random);
            for (std::size_t k = 0; k < K; ++k) X(t, k) = (normal(random) + common) * (k % 9 == 0 ? 4.0f : 1.0f);
        }
        H.add(std::as_const(X).view());
    }

    auto factor(const layout::ggml_type& type) const {
        return gptq::factor_hessian<gptq::group_aware_order>(H.backend(), H.upper(), type.weights);
    }

    /// The squared error of the outputs with the layer's weights in place of W.
    double loss(const gptq::ggml_layer& layer) const {
        gptq::matrix<float> Q(N, K);
        gptq::dequantize_into(layer, Q.view());
        double total = 0.0;
        for (std::size_t t = 0; t < T; ++t)
            for (std::size_t n = 0; n < N; ++n) {
                double error = 0.0;
                for (std::size_t k = 0; k < K; ++k) error += double{X(t, k)} * (W(n, k) - Q(n, k));
                total += error * error;
            }
        return total;
    }
};

struct scene {
    gptq_test::temp_dir dir;
    std::filesystem::path path = dir.path() / "base.gguf";
    std::string content;

    scene() {
        gptq_test::tiny_model sizes;
        sizes.hidden = 32;
        sizes.intermediate = 32;
        sizes.blocks = 1;
        sizes.heads = 2;
        gptq_test::write_tiny_model(dir.path() / "model", sizes);
        gptq_test::write_gguf_base(path, io::model_folder(dir.path() / "model"), 1, 2, 2);
        std::ifstream file(path, std::ios::binary);
        content.assign(std::istreambuf_iterator<char>(file), {});
    }

    /// What opening the file says once `change` was made to its bytes.
    template <class Change>
    std::string refusal(Change&& change) const {
        std::string changed = content;
        change(changed);
        const auto where = dir.path() / "changed.gguf";
        std::ofstream(where, std::ios::binary) << changed;
        return message_of([&] { io::gguf_file opened(where); });
    }
};

}  // namespace

TEST_CASE("blocks hold what gguf reads in them", "[gguf]") {
    for (const layout::ggml_type& type : layout::ggml_types) check_blocks(type);
}

TEST_CASE("weights become the nearest values of blocks, or better ones", "[gguf]") {
    const layer_problem p;
    auto unknown = p.factor(layout::ggml_types[0]);
    unknown.positive_definite = false;
    for (const layout::ggml_type& type : layout::ggml_types) {
        CAPTURE(type.name);
        const gptq::ggml_layer rounded = gptq::solve_ggml(type, p.W.view(), unknown);
        // A grid over the range of 256 weights in the same bits is what any fit has to beat.
        double error = 0.0, plain = 0.0;
        std::size_t better = 0;
        for (std::size_t n = 0; n < p.N; ++n)
            for (std::size_t b = 0; b < rounded.blocks; ++b) {
                auto block = layout::decode(type, rounded.row(n).subspan(b * type.bytes, type.bytes));
                for (std::size_t i = 0; i < type.weights; ++i) {
                    const float w = p.W(n, b * type.weights + i), q = layout::value_of(type, block, i);
                    for (int code = 0; i % 8 == 0 && code <= type.max_code(); ++code) {
                        block.codes[i] = static_cast<std::uint8_t>(code);
                        better += std::abs(layout::value_of(type, block, i) - w) < std::abs(q - w) * (1.0f - 1e-5f);
                    }
                    const float step = 7.0f / static_cast<float>(1 << type.bits());
                    error += (q - w) * (q - w);
                    plain += std::pow(std::nearbyint(w / step) * step - w, 2.0f);
                }
            }
        CHECK(better == 0);
        CHECK(error < plain);
        CHECK(p.loss(gptq::solve_ggml(type, p.W.view(), p.factor(type))) < 0.7 * p.loss(rounded));
    }
    CHECK(mentions(
        message_of([&] { gptq::solve_ggml(*layout::find_ggml_type("q4_k"), p.W.view().columns(0, 224), unknown); }),
        "q4_k", "224"));
}

TEST_CASE("blocks of zeros and of large weights have finite values", "[gguf]") {
    for (const layout::ggml_type& type : layout::ggml_types)
        for (const float w : {0.0f, 1e-9f, 3e9f}) {
            CAPTURE(type.name, w);
            const std::vector<float> weights(type.weights, w), costs(type.weights, 1.0f);
            layout::ggml_block block = gptq::fit_ggml_block(type, weights, costs);
            for (std::size_t i = 0; i < type.weights; ++i) {
                block.codes[i] = gptq::ggml_code(type, block, i, w);
                CHECK(std::isfinite(layout::value_of(type, block, i)));
                if (w == 0.0f) CHECK(layout::value_of(type, block, i) == 0.0f);
            }
        }
}

TEST_CASE("a file is a model's folder", "[gguf]") {
    const scene s;
    const io::model_folder folder(s.dir.path() / "model"), file(s.path);
    CHECK(file.tensor_names() == folder.tensor_names());
    for (const std::string& name : folder.tensor_names()) {
        CAPTURE(name);
        CHECK(file.tensor(name).bytes.read() == folder.tensor(name).bytes.read());
    }
    for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                            "num_key_value_heads", "head_dim", "vocab_size", "rope_theta", "tie_word_embeddings"})
        CHECK(file.config()[key] == folder.config()[key]);
    CHECK(file.companion_files().empty());
}

TEST_CASE("what a file says of a model is checked", "[gguf]") {
    const scene s;
    const auto refused = [&](const std::string& from, const std::string& to) {
        std::string changed = s.content;
        changed.replace(changed.find(from), to.size(), to);
        const auto where = s.dir.path() / "changed.gguf";
        std::ofstream(where, std::ios::binary) << changed;
        return message_of([&] { io::model_folder opened(where); });
    };
    CHECK(mentions(refused("llama", "whale"), "whale", "not read from GGUF"));
    CHECK(mentions(refused("llama.block_count", "llama.black_count"), "llama.block_count"));
    CHECK(mentions(refused("blk.0.ffn_gate", "blk.0.ffn_gone"), "ffn_gone", "no such tensor"));
    CHECK(mentions(refused(std::string("head_count\x04\0\0\0\x02", 15), std::string("head_count\x04\0\0\0\x07", 15)),
                   "heads does not divide"));
}

TEST_CASE("a file is read", "[gguf]") {
    const scene s;
    const io::gguf_file file(s.path);
    CHECK(file.text("general.architecture") == "llama");
    CHECK(file.number("llama.attention.head_count") == 2);
    CHECK_FALSE(file.number("none"));
    CHECK(mentions(message_of([&] { file.text("llama.attention.head_count"); }), "head_count"));
    REQUIRE(file.tensors().size() == 12);
    CHECK(file.tensors()[0].name == "token_embd.weight");
    CHECK(file.tensors()[0].shape == std::vector<std::size_t>{256, 32});
}

TEST_CASE("files that end early or lie are refused", "[gguf]") {
    const scene s;
    const std::size_t header = s.content.find("blk.0.ffn_down") + 60;
    for (std::size_t length = 0; length < header; length += 3)
        CHECK_FALSE(s.refusal([&](std::string& bytes) { bytes.resize(length); }).empty());
    CHECK(mentions(s.refusal([](std::string& bytes) { bytes.pop_back(); }), "ffn_down", "end of the file"));
    CHECK(mentions(s.refusal([](std::string& bytes) { bytes[0] = 'X'; }), "no GGUF file"));
    CHECK(mentions(s.refusal([](std::string& bytes) { bytes[4] = 9; }), "version 9"));
    for (const std::size_t place : {std::size_t{15}, std::size_t{23}})  // numbers of tensors and of entries
        CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[place] = '\x7f'; }), "claims"));
    const std::size_t key = s.content.find("general.architecture") + 20;  // its type, then its length
    CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[key] = 77; }), "type 77"));
    CHECK_FALSE(s.refusal([&](std::string& bytes) { bytes[key + 11] = '\xff'; }).empty());
    const std::size_t rank = s.content.find("output.weight") + 13;
    CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[rank] = 100; }), "100 dimensions"));
    CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[rank + 11] = '\x7f'; }), "output.weight"));  // an extent
    CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[rank + 20] = 99; }), "type 99"));
    CHECK(mentions(s.refusal([&](std::string& bytes) { bytes[rank + 31] = '\x7f'; }), "end of the file"));  // offset
    CHECK(mentions(s.refusal([&](std::string& bytes) {
        bytes.resize(bytes.size() - 4096);
        const std::size_t last = bytes.find("blk.0.ffn_down.weight") + 21 + 24;
        bytes.replace(last, 8, std::string(8, '\0'));
    }),
                   "overlaps"));
}
