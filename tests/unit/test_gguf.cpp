// GGUF's blocks against llama.cpp's own reader of them, and files that lie.
#include <gptq/io/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <gptq/layouts/ggml_blocks.hpp>

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

template <class T>
void check_blocks() {
    CAPTURE(T::name);
    const auto golden = gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "ggml_blocks.json");
    for (const auto& block : golden[std::string(T::name)]) {
        std::vector<std::byte> bytes;
        for (const auto& byte : block["bytes"]) bytes.push_back(static_cast<std::byte>(byte.get<unsigned>()));
        REQUIRE(bytes.size() == T::bytes);
        const layout::ggml_values values = T::decode(bytes);
        for (std::size_t i = 0; i < layout::ggml_block; ++i)
            CHECK(gptq::to_float(values.d) * static_cast<float>(values.levels[i]) + gptq::to_float(values.m) ==
                  block["values"][i].get<float>());
        std::vector<std::byte> again(T::bytes);
        T::encode(values, again);
        CHECK(again == bytes);
    }
}

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
    check_blocks<layout::q4_0>();
    check_blocks<layout::q4_1>();
    check_blocks<layout::q5_0>();
    check_blocks<layout::q8_0>();
}

TEST_CASE("a file is read", "[gguf]") {
    const scene s;
    const io::gguf_file file(s.path);
    CHECK(file.text("general.architecture") == "llama");
    CHECK(file.number("llama.attention.head_count") == 2);
    CHECK_FALSE(file.number("none"));
    CHECK(mentions(message_of([&] { file.text("llama.attention.head_count"); }), "head_count"));
    REQUIRE(file.tensors().size() == 9);
    CHECK(file.tensors()[0].name == "token_embd.weight");
    CHECK(file.tensors()[0].shape == std::vector<std::size_t>{256, 32});
}

TEST_CASE("files that end early or lie are refused", "[gguf]") {
    const scene s;
    const std::size_t header = s.content.find("blk.0.ffn_down") + 60;
    for (std::size_t length = 0; length < header; ++length)
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
}
