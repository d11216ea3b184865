// The safetensors reader against files made by hand: valid ones, every kind of lie, truncations and random damage.
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/safetensors.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
namespace io = gptq::io;

std::filesystem::path make(const temp_dir& dir, const std::string& header, const std::string& data) {
    const auto path = dir.path() / "x.safetensors";
    write_file(path, safetensors_bytes(header, data));
    return path;
}

/// What the reader says about a file; "" if it takes it.
template <class E = gptq::format_error>
std::string complaint(const std::string& header, const std::string& data) {
    const temp_dir dir;
    const auto path = make(dir, header, data);
    const auto message = message_of<E>([&] { io::safetensors_file{path}; });
    if (!message.empty()) CHECK(contains(message, path.string()));
    return message;
}

std::string text(const io::file_bytes& stored) {
    std::string bytes(stored.size(), '\0');
    stored.read(std::as_writable_bytes(std::span(bytes)));
    return bytes;
}

const std::string small_header =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[3],"data_offsets":[4,10]},)"
    R"("a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0,7],"data_offsets":[10,10]}} )";
const std::string small_data = "abcdefghij";

}  // namespace

TEST_CASE("a valid file is read", "[safetensors]") {
    const temp_dir dir;
    const io::safetensors_file file(make(dir, small_header, small_data));
    REQUIRE(file.tensors().size() == 3);
    CHECK(file.tensors()[0].name == "a");  // in the order of the data
    CHECK(file.tensors()[1].name == "b");
    CHECK(file.metadata().at("format") == "pt");
    CHECK(file.find("c") == nullptr);
    const auto* b = file.find("b");
    REQUIRE(b != nullptr);
    CHECK(b->dtype == io::dtype::f16);
    CHECK(b->shape == std::vector<std::size_t>{3});
    CHECK(text(b->bytes) == "efghij");
    CHECK(text(file.find("a")->bytes) == "abcd");
    CHECK(file.find("a")->shape.empty());
    CHECK(file.find("e")->bytes.empty());
}

TEST_CASE("a file stays readable when it is moved", "[safetensors]") {
    const temp_dir dir;
    io::safetensors_file first(make(dir, small_header, small_data));
    std::vector<io::safetensors_file> files;
    files.push_back(std::move(first));
    files.reserve(files.capacity() + 10);
    CHECK(text(files[0].find("b")->bytes) == "efghij");
    CHECK(files[0].find("b") == &files[0].tensors()[1]);
}

TEST_CASE("a file without tensors is valid", "[safetensors]") { CHECK(complaint("{}", "").empty()); }

TEST_CASE("every dtype has its size", "[safetensors]") {
    const std::vector<std::pair<std::string, std::size_t>> sizes = {
        {"F64", 8}, {"F32", 4},  {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},     {"I16", 2},    {"I8", 1},
        {"U8", 1},  {"BOOL", 1}, {"U64", 8}, {"U32", 4},  {"U16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (const auto& type : sizes) {
        const auto& name = type.first;
        const auto size = type.second;
        INFO(name);
        const auto header = [&](std::size_t end) {
            return R"({"t":{"dtype":")" + name + R"(","shape":[2,3],"data_offsets":[0,)" + std::to_string(end) + "]}}";
        };
        CHECK(complaint(header(6 * size), std::string(6 * size, 'x')).empty());
        CHECK(contains(complaint(header(6 * size + 1), std::string(6 * size + 1, 'x')), "needs"));
    }
    CHECK(contains(complaint<gptq::unsupported_error>(R"({"t":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x"),
                   "unknown dtype \"F4\""));
}

TEST_CASE("lying headers are refused, naming file and tensor", "[safetensors]") {
    // header, data, what the message must contain
    const std::vector<std::vector<std::string>> cases = {
        {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abc", "\"t\""},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}})", "abcd", "needs 3 bytes"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[3,0]}})", "abc", "do not lie in"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abcd", "cover 3 bytes"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})", "abcd", "hole"},
        {R"({"t":{"dtype":"U8","shape":[-3],"data_offsets":[0,3]}})", "abc", "\"t\": -3"},
        {R"({"t":{"dtype":"U8","shape":[3.0],"data_offsets":[0,3]}})", "abc", "3.0"},
        {R"({"t":{"dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,3]}})", "abc", "64 bits"},
        {R"({"t":{"dtype":"U8","shape":["3"],"data_offsets":[0,3]}})", "abc", "a string where none belongs"},
        {R"({"t":{"dtype":"U8","shape":[[3]],"data_offsets":[0,3]}})", "abc", "an array where none belongs"},
        {R"({"t":{"dtype":"U8","shape":3,"data_offsets":[0,3]}})", "abc", "a number where none belongs"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0]}})", "abc", "two numbers"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3,3]}})", "abc", "two numbers"},
        {R"({"t":{"dtype":"U8","shape":[3]}})", "", "missing"},
        {R"({"t":{"dtype":8,"shape":[3],"data_offsets":[0,3]}})", "abc", "a number where none belongs"},
        {R"({"t":{"dtype":"U8","shape":null,"data_offsets":[0,3]}})", "abc", "null"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3],"more":1}})", "abc", "unknown field \"more\""},
        {R"({"t":{"dtype":"U8","dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc", "appears twice"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"t":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}})",
         "abc", "\"t\" appears twice"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"u":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
         "abcd", "overlap"},
        {R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
         "ab", "overlap"},
        {R"({"__metadata__":{"a":1}})", "", "a number where none belongs"},
        {R"({"__metadata__":{"a":"1","a":"1"}})", "", "twice"},
        {R"({"__metadata__":{},"__metadata__":{}})", "", "twice"},
        {R"({"__metadata__":[]})", "", "an array where none belongs"},
        {R"({"t":[]})", "", "an array where none belongs"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]})", "abc", "header"},
        {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}{})", "abc", "header"},
        {"[]", "", "begin"},
        {" {}", "", "begin"},
        {"", "", "begin"},
        {"{\"\xff\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "", "header"},
    };
    for (const auto& c : cases) {
        INFO(c[0]);
        const auto message = complaint(c[0], c[1]);
        INFO(message);
        CHECK(contains(message, c[2]));
    }
}

TEST_CASE("sizes that overflow are refused", "[safetensors]") {
    const std::string max = std::to_string(std::numeric_limits<std::size_t>::max());
    const auto with_shape = [](const std::string& shape, const std::string& end) {
        return R"({"t":{"dtype":"F64","shape":)" + shape + R"(,"data_offsets":[0,)" + end + "]}}";
    };
    CHECK(contains(complaint(with_shape("[4294967296,4294967296]", "0"), ""), "overflows"));
    CHECK(contains(complaint(with_shape("[" + max + "]", "0"), ""), "overflows"));
    CHECK(contains(complaint(with_shape("[2305843009213693952]", "0"), ""), "overflows"));  // times 8 is 2^64
    CHECK(contains(complaint(with_shape("[1]", max), "12345678"), "do not lie in"));
    CHECK(complaint(with_shape("[0," + max + "," + max + "]", "0"), "").empty());  // empty, and so no overflow
}

TEST_CASE("the length of the header is checked against file and format", "[safetensors]") {
    const temp_dir dir;
    const auto path = dir.path() / "x.safetensors";
    const auto complaint_about = [&](const std::string& bytes) {
        write_file(path, bytes);
        return message_of<gptq::format_error>([&] { io::safetensors_file{path}; });
    };
    CHECK(contains(complaint_about(""), "0 bytes"));
    CHECK(contains(complaint_about("1234567"), "7 bytes"));
    CHECK(contains(complaint_about(std::string(8, '\xff') + "{}"), "the format allows 100000000"));
    CHECK(contains(complaint_about(std::string("\x03\0\0\0\0\0\0\0{}", 10)), "only 2 follow"));
    std::filesystem::resize_file(path, 0);
    write_file(path, std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10));  // 100'000'001
    std::filesystem::resize_file(path, 100'000'100);                  // sparse
    CHECK(contains(message_of<gptq::format_error>([&] { io::safetensors_file{path}; }), "the format allows"));
}

TEST_CASE("absurd nesting is refused at once", "[safetensors]") {
    CHECK(contains(complaint(std::string("{\"a\":") + std::string(1'000'000, '['), ""), "an array where none belongs"));
    std::string objects;
    for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
    CHECK(contains(complaint(objects, ""), "header"));
}

TEST_CASE("what is no file is an io_error with the system's reason", "[safetensors]") {
    const temp_dir dir;
    const auto absent = message_of<gptq::io_error>([&] { io::safetensors_file{dir.path() / "absent"}; });
    CHECK(contains(absent, (dir.path() / "absent").string()));
    CHECK(contains(absent, "No such file"));
    CHECK(contains(message_of<gptq::io_error>([&] { io::safetensors_file{dir.path()}; }), "directory"));
}

TEST_CASE("truncated and damaged files are read as they are or refused, never worse", "[safetensors]") {
    const temp_dir dir;
    const auto path = dir.path() / "x.safetensors";
    const auto good = safetensors_bytes(small_header, small_data);
    // The tensors of whatever the reader accepts lie one after another in the data, whatever was damaged.
    const auto survives = [&](const std::string& bytes) {
        write_file(path, bytes);
        try {
            const io::safetensors_file file(path);
            std::string all;
            for (const auto& tensor : file.tensors()) all += text(tensor.bytes);
            return all == bytes.substr(bytes.size() - all.size());
        } catch (const gptq::error& e) {
            return contains(e.what(), path.string());
        }
    };
    SECTION("every truncation is refused") {
        for (std::size_t size = 0; size < good.size(); ++size) {
            write_file(path, good.substr(0, size));
            CHECK_THROWS_AS(io::safetensors_file{path}, gptq::format_error);
        }
        write_file(path, good + "k");
        CHECK_THROWS_AS(io::safetensors_file{path}, gptq::format_error);
    }
    SECTION("every bit flip") {
        for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
            auto bytes = good;
            bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
            CHECK(survives(bytes));
        }
    }
    SECTION("random damage in several places") {
        std::mt19937 random(7);
        const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
        for (int i = 0; i < 3000; ++i) {
            auto bytes = good;
            for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
                const std::size_t at = below(bytes.size());
                if (below(3) == 0)
                    bytes.erase(at, 1 + below(3));
                else if (below(2) == 0)
                    bytes.insert(at, 1, static_cast<char>(below(256)));
                else  // a character that occurs in headers is likelier to get past the parser
                    bytes[at] = good[8 + below(small_header.size())];
                if (bytes.empty()) break;
            }
            CHECK(survives(bytes));
        }
    }
}

TEST_CASE("models that others wrote are read", "[safetensors]") {
    const auto shared = shared_dir();
    if (!shared) {
        WARN("skipped: no shared models");
        return;
    }
    const io::safetensors_file file(*shared / "data" / "stories260K" / "model.safetensors");
    const auto* embedding = file.find("model.embed_tokens.weight");
    REQUIRE(embedding != nullptr);
    CHECK(embedding->dtype == io::dtype::f32);
    CHECK(embedding->shape == std::vector<std::size_t>{512, 64});
    CHECK(file.metadata().at("format") == "pt");
}
