// Checkpoint folders: finding and checking weights, writing them atomically, and quantized layers there and back,
// against readers of a few lines that know nothing of the library.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/xtensor/quantized.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
namespace io = gptq::io;
namespace fs = std::filesystem;

/// The bytes of numbers, as files hold them.
template <class T>
std::string bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// A file with one tensor.
std::string one_tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                       const std::string& data) {
    return safetensors_bytes("{\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                                 ",\"data_offsets\":[0," + std::to_string(data.size()) + "]}}",
                             data);
}

/// A folder with an empty config.json and the files given.
void make_folder(const fs::path& folder, const std::map<std::string, std::string>& files) {
    fs::create_directories(folder);
    write_file(folder / "config.json", "{}");
    for (const auto& [name, content] : files) write_file(folder / name, content);
}

template <class E>
std::string refusal(const std::map<std::string, std::string>& files) {
    const temp_dir dir;
    make_folder(dir.path(), files);
    const auto message = message_of<E>([&] { io::model_folder{dir.path()}; });
    CHECK(contains(message, dir.path().string()));
    return message;
}

std::string index_of(const std::map<std::string, std::string>& shard_of) {
    return nlohmann::json{{"metadata", {{"total_size", 0}}}, {"weight_map", shard_of}}.dump();
}

void add(io::folder_writer& writer, const std::string& name, const std::vector<float>& values) {
    const std::vector<std::size_t> shape{values.size()};
    writer.add_tensor(name, io::dtype::f32, shape, std::as_bytes(std::span(values)));
}

std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

using strings = std::vector<std::string>;

}  // namespace

// ---- finding and reading weights ------------------------------------------------------------------------------------

TEST_CASE("weights are found under every name", "[model_folder]") {
    const auto content = one_tensor("t", "U8", "[3]", "abc");
    const temp_dir dir;
    const auto found = [&](const fs::path& folder) {
        const io::model_folder model(folder);
        return model.contains("t") && model.tensor("t").bytes.size() == 3 && model.tensor_names() == strings{"t"};
    };
    make_folder(dir.path() / "a", {{"model.safetensors", content}});
    make_folder(dir.path() / "b", {{"gptq_model-4bit-128g.safetensors", content}});
    make_folder(dir.path() / "c",
                {{"s.safetensors", content}, {"model.safetensors.index.json", index_of({{"t", "s.safetensors"}})}});
    make_folder(dir.path() / "d",
                {{"gptq_model-4bit--1g.safetensors", content},
                 {"gptq_model-4bit--1g.safetensors.index.json", index_of({{"t", "gptq_model-4bit--1g.safetensors"}})}});
    // Other files beside the model, as some folders have them.
    make_folder(dir.path() / "e", {{"model.safetensors", content}, {"consolidated.safetensors", "garbage"}});
    for (const char* name : {"a", "b", "c", "d", "e"}) CHECK(found(dir.path() / name));
}

TEST_CASE("links are followed within a folder and into the blobs of the Hub's cache, and nowhere else",
          "[model_folder]") {
    const auto content = one_tensor("t", "U8", "[3]", "abc");
    const temp_dir dir;
    const auto refusal_of = [&](const fs::path& folder) {
        return message_of<gptq::io_error>([&] { io::model_folder{folder}; });
    };
    SECTION("within the folder") {
        make_folder(dir.path() / "a", {{"weights", content}});
        fs::create_symlink("weights", dir.path() / "a" / "model.safetensors");
        CHECK(io::model_folder(dir.path() / "a").contains("t"));
        fs::create_symlink(dir.path() / "a", dir.path() / "name");
        CHECK(io::model_folder(dir.path() / "name").contains("t"));
    }
    SECTION("into the blobs of the repository") {
        const fs::path cache = dir.path() / "models--x--y";
        fs::create_directories(cache / "blobs");
        make_folder(cache / "snapshots" / "0123", {});
        for (const char* name : {"config.json", "model.safetensors"}) {
            write_file(cache / "blobs" / name, name == std::string("config.json") ? "{}" : content);
            fs::remove(cache / "snapshots" / "0123" / name);
            fs::create_symlink(fs::path("../../blobs") / name, cache / "snapshots" / "0123" / name);
        }
        CHECK(io::model_folder(cache / "snapshots" / "0123").contains("t"));
        write_file(dir.path() / "models--x--y" / "secret.json", "{}");
        fs::remove(cache / "snapshots" / "0123" / "config.json");
        fs::create_symlink("../../secret.json", cache / "snapshots" / "0123" / "config.json");
        CHECK(contains(refusal_of(cache / "snapshots" / "0123"), "outside its folder"));
    }
    SECTION("out of the folder") {
        write_file(dir.path() / "elsewhere", content);
        make_folder(dir.path() / "a", {});
        SECTION("at once") { fs::create_symlink("../elsewhere", dir.path() / "a" / "model.safetensors"); }
        SECTION("by another link") {
            fs::create_symlink("../elsewhere", dir.path() / "a" / "link");
            fs::create_symlink("link", dir.path() / "a" / "model.safetensors");
        }
        SECTION("to a folder whose name begins alike") {
            make_folder(dir.path() / "a-secret", {{"model.safetensors", content}});
            fs::create_symlink("../a-secret/model.safetensors", dir.path() / "a" / "model.safetensors");
        }
        const std::string message = refusal_of(dir.path() / "a");
        CHECK(contains(message, (dir.path() / "a" / "model.safetensors").string() + ": is a link to "));
        CHECK(contains(message, "outside its folder"));
    }
}

TEST_CASE("folders that are not models are refused", "[model_folder]") {
    using gptq::format_error;
    const auto content = one_tensor("t", "U8", "[3]", "abc");
    const std::string index = "model.safetensors.index.json";
    CHECK(contains(refusal<format_error>({}), "neither model.safetensors nor"));
    CHECK(contains(refusal<format_error>({{"pytorch_model.bin", "x"}}), "converted to safetensors"));
    CHECK(contains(refusal<format_error>({{"a.safetensors", content}, {"b.safetensors", content}}),
                   "both a.safetensors and b.safetensors"));
    CHECK(contains(refusal<format_error>({{"model.safetensors", content.substr(0, 20)}}), "model.safetensors"));
    CHECK(contains(refusal<format_error>({{index, index_of({{"t", "s.safetensors"}})}}),
                   "shard s.safetensors is missing"));
    CHECK(contains(refusal<format_error>({{index, index_of({{"u", "s.safetensors"}})}, {"s.safetensors", content}}),
                   "tensor \"u\" is not in s.safetensors"));
    CHECK(contains(refusal<format_error>({{index, "{}"}}), "weight_map"));
    CHECK(contains(refusal<format_error>({{index, R"({"weight_map": {"t": 3}})"}}), "tensor \"t\""));
    CHECK(contains(refusal<format_error>({{index, R"({"weight_map": {"t": "a", "t": "b"}})"}}), "twice"));
    for (const char* name : {"../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\\\b"}) {
        INFO(name);
        CHECK(contains(refusal<format_error>({{index, std::string(R"({"weight_map": {"t": ")") + name + "\"}}"}}),
                       "not the name of a file in this folder"));
    }
    CHECK(
        contains(refusal<format_error>({{"config.json", "[]"}, {"model.safetensors", content}}), "not a JSON object"));
    CHECK(contains(refusal<format_error>({{"config.json", "{"}, {"model.safetensors", content}}), "not valid JSON"));
    const temp_dir dir;
    CHECK(contains(message_of<gptq::io_error>([&] { io::model_folder{dir.path() / "absent"}; }), "not a folder"));
    CHECK(contains(message_of<gptq::io_error>([&] { io::model_folder{dir.path()}; }), "config.json"));
}

TEST_CASE("matrices and vectors of every float type", "[model_folder]") {
    const std::vector<float> values{1.5f, -2.0f, 0.0f, 0.15625f, 65504.0f, -0.0f};
    std::vector<double> doubles(values.begin(), values.end());
    // Computed by hand: IEEE half and bfloat16 of the values above.
    const std::vector<std::uint16_t> halves{0x3e00, 0xc000, 0x0000, 0x3100, 0x7bff, 0x8000};
    const std::vector<std::uint16_t> brains{0x3fc0, 0xc000, 0x0000, 0x3e20, 0x477f, 0x8000};
    const temp_dir dir;
    const auto matrix_of = [&](const std::string& dtype, const std::string& data) {
        make_folder(dir.path(), {{"model.safetensors", one_tensor("t", dtype, "[2,3]", data)}});
        const auto m = io::model_folder(dir.path()).read_matrix("t");
        REQUIRE(m.shape()[0] == 2);
        REQUIRE(m.shape()[1] == 3);
        return std::vector<float>(m.data(), m.data() + m.size());
    };
    CHECK(matrix_of("F32", bytes_of(values)) == values);
    CHECK(matrix_of("F64", bytes_of(doubles)) == values);
    CHECK(matrix_of("F16", bytes_of(halves)) == values);
    auto rounded = values;
    rounded[4] = 65280.0f;  // what 0x477f is
    CHECK(matrix_of("BF16", bytes_of(brains)) == rounded);
    make_folder(dir.path(), {{"model.safetensors", one_tensor("t", "F32", "[6]", bytes_of(values))}});
    const auto v = io::model_folder(dir.path()).read_vector("t");
    CHECK(std::vector<float>(v.data(), v.data() + v.size()) == values);
}

TEST_CASE("tensors that are not what is asked for are named", "[model_folder]") {
    const temp_dir dir;
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const auto folder_with = [&](const std::string& dtype, const std::string& shape, const std::string& data) {
        make_folder(dir.path(), {{"model.safetensors", one_tensor("the.weight", dtype, shape, data)}});
        return io::model_folder(dir.path());
    };
    const auto matrix = [&](const io::model_folder& f) { return [&f] { f.read_matrix("the.weight"); }; };
    const auto with_nan = folder_with("F32", "[2,3]", bytes_of<float>({1, 2, 3, 4, 5, nan}));
    const auto message = message_of<gptq::non_finite_error>(matrix(with_nan));
    CHECK(contains(message, "\"the.weight\": NaN at row 1, column 2"));
    CHECK(contains(message, dir.path().string()));
    const auto with_inf = folder_with("F32", "[3]", bytes_of<float>({1, -inf, 3}));
    CHECK(contains(message_of<gptq::non_finite_error>([&] { with_inf.read_vector("the.weight"); }),
                   "infinity at element 1"));
    CHECK(contains(message_of<gptq::shape_error>(matrix(with_inf)), "[3]"));
    CHECK(contains(message_of<gptq::shape_error>([&] { with_nan.read_vector("the.weight"); }), "[2, 3]"));
    const auto too_large = folder_with("F64", "[1,1]", bytes_of<double>({1e300}));
    CHECK(contains(message_of<gptq::non_finite_error>(matrix(too_large)), "row 0, column 0"));
    const auto integers = folder_with("I32", "[1,2]", "12345678");
    CHECK(contains(message_of<gptq::unsupported_error>(matrix(integers)), "I32"));
    CHECK(contains(message_of<gptq::format_error>([&] { integers.tensor("x"); }), "tensor \"x\": the model has no"));
}

TEST_CASE("files to carry along", "[model_folder]") {
    const temp_dir dir;
    make_folder(dir.path(), {{"model.safetensors", one_tensor("t", "U8", "[1]", "x")},
                             {"tokenizer.json", "{}"},
                             {"generation_config.json", "{}"},
                             {"pytorch_model.bin", "x"},
                             {"pytorch_model.bin.index.json", "x"},
                             {"model.gguf", "x"},
                             {"quantize_config.json", "{}"},
                             {"quant_log.csv", ""},
                             {".hidden", ""},
                             {"LICENSE", "x"},
                             {"README.md", "x"},
                             {"readme.exe", "x"},
                             {"modeling_x.py", "x"},
                             {"optimizer.pkl", "x"},
                             {"last.ckpt", "x"}});
    fs::create_directory(dir.path() / "onnx");
    const temp_dir elsewhere;
    write_file(elsewhere.path() / "private_key", "secret");
    fs::create_symlink(elsewhere.path() / "private_key", dir.path() / "notes.txt");
    fs::create_symlink(elsewhere.path() / "private_key", dir.path() / "NOTICE");
    const io::model_folder model(dir.path());
    strings names;
    for (const auto& file : model.companion_files()) names.push_back(file.filename().string());
    CHECK(names == strings{"LICENSE", "README.md", "generation_config.json", "tokenizer.json"});
    CHECK(model.left_files() == strings{"NOTICE", "modeling_x.py", "notes.txt", "optimizer.pkl", "readme.exe"});
    io::folder_writer writer(dir.path() / "out");
    CHECK_THROWS_AS(writer.copy_file(dir.path() / "notes.txt"), gptq::io_error);
}

// ---- writing --------------------------------------------------------------------------------------------------------

TEST_CASE("a small folder has one file of the exact form", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    {
        io::folder_writer writer(out);
        CHECK_FALSE(fs::exists(out));
        add(writer, "b", {1, 2});
        const std::vector<std::size_t> shape{1, 0, 2};
        writer.add_tensor("empty \"one\"", io::dtype::i8, shape, {});
        add(writer, "a", {3});
        CHECK(writer.tensor_bytes() == 12);
        writer.write_text("config.json", "{}");
        write_file(dir.path() / "tokenizer.json", "tokens");
        writer.copy_file(dir.path() / "tokenizer.json");
        CHECK_FALSE(fs::exists(out));
        writer.finish();
    }
    CHECK(names_in(out) == strings{"config.json", "model.safetensors", "tokenizer.json"});
    CHECK(names_in(dir.path()) == strings{"out", "tokenizer.json"});
    CHECK(read_file(out / "tokenizer.json") == "tokens");
    std::string header = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                         R"("empty \"one\"":{"dtype":"I8","shape":[1,0,2],"data_offsets":[8,8]},)"
                         R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})";
    while (header.size() % 8 != 0) header += ' ';
    CHECK(read_file(out / "model.safetensors") == safetensors_bytes(header, bytes_of<float>({1, 2, 3})));
    // The permissions that any program's new folder has.
    fs::create_directory(dir.path() / "plain");
    CHECK(fs::status(out).permissions() == fs::status(dir.path() / "plain").permissions());
}

TEST_CASE("large folders become shards with an index", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    io::folder_writer writer(out, 40);
    std::map<std::string, std::vector<float>> tensors;
    const std::vector<std::size_t> sizes{4, 6, 1, 30, 5, 5, 1};  // | 16 + 24 | 4 | 120 | 20 + 20 | 4 |
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const std::string name = "t" + std::to_string(i);
        tensors[name] = std::vector<float>(sizes[i], static_cast<float>(i));
        add(writer, name, tensors[name]);
    }
    writer.write_text("config.json", "{}");
    writer.finish();
    CHECK(names_in(out) == strings{"config.json", "model-00001-of-00005.safetensors",
                                   "model-00002-of-00005.safetensors", "model-00003-of-00005.safetensors",
                                   "model-00004-of-00005.safetensors", "model-00005-of-00005.safetensors",
                                   "model.safetensors.index.json"});
    const auto index = nlohmann::json::parse(read_file(out / "model.safetensors.index.json"));
    CHECK(index["metadata"]["total_size"] == 4 * (4 + 6 + 1 + 30 + 5 + 5 + 1));
    CHECK(index["weight_map"]["t3"] == "model-00003-of-00005.safetensors");
    const io::model_folder model(out);
    CHECK(model.weight_files().size() == 5);
    for (const auto& [name, values] : tensors) {
        const auto v = model.read_vector(name);
        CHECK(std::vector<float>(v.data(), v.data() + v.size()) == values);
    }
}

TEST_CASE("headers that are large beside the data, and data that is large beside the header", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    io::folder_writer writer(out);
    SECTION("more tensors than one header has room for") {
        for (int i = 0; i < 9000; ++i) add(writer, "model.layers.some.long.name." + std::to_string(i), {float(i)});
        writer.write_text("config.json", "{}");
        writer.finish();
        const io::model_folder model(out);
        CHECK(model.weight_files().size() == 2);
        bool all = true;
        for (int i = 0; i < 9000; ++i)
            all &= model.read_vector("model.layers.some.long.name." + std::to_string(i))(0) == float(i);
        CHECK(all);
    }
    SECTION("a header padded with spaces") {
        std::vector<float> large(20'000'000);
        for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>(i);
        add(writer, "large", large);
        add(writer, "small", {5});
        writer.write_text("config.json", "{}");
        writer.finish();
        const io::model_folder model(out);
        CHECK(model.tensor("large").bytes.size() == 4 * large.size());
        CHECK(std::memcmp(model.tensor("large").bytes.read().data(), large.data(), 4 * large.size()) == 0);
        CHECK(model.read_vector("small")(0) == 5);
    }
    SECTION("data moved up in several pieces") {
        std::vector<float> values(7'000'000);  // 28 MB: less than a hundred times the room, more than one piece
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
        add(writer, "values", values);
        writer.write_text("config.json", "{}");
        writer.finish();
        CHECK(fs::file_size(out / "model.safetensors") < 4 * values.size() + 200);
        const io::model_folder model(out);
        CHECK(std::memcmp(model.tensor("values").bytes.read().data(), values.data(), 4 * values.size()) == 0);
    }
}

TEST_CASE("what cannot be written is refused", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    fs::create_directory(dir.path() / "there");
    CHECK(contains(message_of<gptq::io_error>([&] { io::folder_writer{dir.path() / "there"}; }), "already exists"));
    CHECK(contains(message_of<gptq::io_error>([&] { io::folder_writer{dir.path() / "there/"}; }), "already exists"));
    CHECK(
        contains(message_of<gptq::io_error>([&] { io::folder_writer{dir.path() / "no" / "parent"}; }), "No such file"));
    CHECK(contains(message_of<gptq::io_error>([&] { io::folder_writer{""}; }), "not the name"));
    CHECK(contains(message_of<gptq::io_error>([&] { io::folder_writer{".."}; }), "not the name"));
    fs::create_symlink("nowhere", dir.path() / "dangling");
    CHECK(contains(message_of<gptq::io_error>([&] { io::folder_writer{dir.path() / "dangling"}; }), "already exists"));
    io::folder_writer writer(out);
    add(writer, "t", {1});
    const std::vector<std::size_t> shape{2}, huge{std::size_t{1} << 63, 4};
    const std::vector<std::byte> bytes(8);
    CHECK(contains(message_of<gptq::format_error>([&] { add(writer, "t", {1}); }), "\"t\": is there already"));
    CHECK_THROWS_AS(add(writer, "", {1}), gptq::format_error);
    CHECK_THROWS_AS(add(writer, "__metadata__", {1}), gptq::format_error);
    CHECK_THROWS_AS(add(writer, std::string(5000, 'x'), {1}), gptq::format_error);
    CHECK(contains(message_of<gptq::shape_error>([&] { writer.add_tensor("u", io::dtype::f16, shape, bytes); }),
                   "F16[2] needs 4 bytes, but 8 were given"));
    CHECK_THROWS_AS(writer.add_tensor("u", io::dtype::f16, huge, {}), gptq::shape_error);
    // None of these wrote anything, so the folder can still be finished.
    writer.finish();
    CHECK_THROWS_AS(writer.finish(), gptq::io_error);
    CHECK_THROWS_AS(add(writer, "v", {1}), gptq::io_error);
    CHECK(names_in(out) == strings{"model.safetensors"});
    for (const char* name : {"../x", "/x", "a/b", "", ".."}) {
        io::folder_writer other(dir.path() / "other");
        CHECK_THROWS_AS(other.write_text(name, ""), gptq::format_error);
    }
    io::folder_writer invalid(dir.path() / "other");
    CHECK_THROWS_AS(add(invalid, "\xff", {1}), gptq::format_error);
    CHECK(contains(message_of<gptq::io_error>([&] { invalid.finish(); }), "writing failed before"));
}

TEST_CASE("an abandoned folder leaves nothing, a name taken meanwhile is not overwritten", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    {
        io::folder_writer writer(out);
        add(writer, "t", {1});
        writer.write_text("config.json", "{}");
        CHECK(names_in(dir.path()).size() == 1);
    }
    CHECK(names_in(dir.path()).empty());
    {
        io::folder_writer writer(out);
        add(writer, "t", {1});
        fs::create_directory(out);  // empty, so a plain rename would replace it
        CHECK(contains(message_of<gptq::io_error>([&] { writer.finish(); }), "File exists"));
    }
    CHECK(names_in(dir.path()) == strings{"out"});
    CHECK(names_in(out).empty());
}

TEST_CASE("a killed run leaves no folder that looks finished and does not block the next", "[folder_writer]") {
    const temp_dir dir;
    const auto out = dir.path() / "out";
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        io::folder_writer writer(out);
        add(writer, "t", {1});
        writer.write_text("config.json", "{}");
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK_FALSE(fs::exists(out));
    const auto left = names_in(dir.path());
    REQUIRE(left.size() == 1);
    CHECK(contains(left[0], "out.partial-"));
    CHECK_THROWS_AS(io::model_folder(dir.path() / left[0]), gptq::error);
    io::folder_writer writer(out);
    add(writer, "t", {2});
    writer.write_text("config.json", "{}");
    writer.finish();
    CHECK(io::model_folder(out).read_vector("t")(0) == 2);
}

namespace {

/// Writes tensors of 1 MiB, up to 8 of them, and returns what went wrong.
std::string fill(const fs::path& out) {
    const std::vector<float> values(1 << 18);
    return message_of<gptq::io_error>([&] {
        io::folder_writer writer(out);
        for (int i = 0; i < 8; ++i) add(writer, "t" + std::to_string(i), values);
        writer.finish();
    });
}

}  // namespace

TEST_CASE("a file that the system lets grow no more is an io_error with path and reason", "[folder_writer]") {
    const temp_dir dir;
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    auto limit = before;
    limit.rlim_cur = 2 << 20;
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    const auto message = fill(dir.path() / "out");
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, old_handler);
    CHECK(contains(message, (dir.path() / "out.partial-").string()));
    CHECK(contains(message, "File too large"));
    CHECK(names_in(dir.path()).empty());
}

TEST_CASE("a full disk is an io_error with path and reason", "[folder_writer]") {
    const temp_dir dir;
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        // A tiny disk that only this process sees; where that is not allowed, it says nothing.
        const bool own_mounts = ::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
        std::string message;
        if (own_mounts && ::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=4m") == 0) {
            message = fill(dir.path() / "out");
            if (!names_in(dir.path()).empty()) message += " [something is left]";
        }
        const auto written = ::write(pipe_ends[1], message.data(), message.size());
        ::_exit(written == static_cast<ssize_t>(message.size()) ? 0 : 1);
    }
    ::close(pipe_ends[1]);
    std::string message(4096, '\0');
    const auto length = ::read(pipe_ends[0], message.data(), message.size());
    message.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    ::close(pipe_ends[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    if (message.empty()) {
        WARN("skipped: no right to mount a small disk");
        return;
    }
    CHECK(contains(message, (dir.path() / "out.partial-").string()));
    CHECK(contains(message, "No space left on device"));
    CHECK_FALSE(contains(message, "something is left"));
}

// ---- quantized layers -----------------------------------------------------------------------------------------------

namespace {

/// A random layer whose groups follow neighbours, or a random permutation.
gptq::quantized_layer random_layer(int bits, bool sym, std::size_t N, std::size_t K, std::size_t group, bool permuted,
                                   int lowest_zero, unsigned seed) {
    std::mt19937 random(seed);
    const auto number = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    gptq::quantized_layer layer;
    gptq::allocate(layer, bits, sym, N, K, group);
    const int max_code = (1 << bits) - 1;
    for (auto& code : layer.codes) code = static_cast<std::uint8_t>(number(0, max_code));
    for (auto& zero : layer.zeros)
        zero = static_cast<std::uint8_t>(sym ? 1 << (bits - 1) : number(lowest_zero, max_code));
    for (auto& scale : layer.scales) scale = gptq::round_to_half(0.001f * static_cast<float>(number(1, 1000)));
    if (permuted) std::shuffle(layer.g_idx.begin(), layer.g_idx.end(), random);
    return layer;
}

io::quantization_config config_for(io::checkpoint_format format, const gptq::quantized_layer& layer) {
    io::quantization_config config;
    config.format = format;
    config.settings.bits = layer.bits;
    config.settings.group_size = static_cast<int>(layer.group_features);
    config.settings.sym = layer.sym;
    return config;
}

void check_equal(const gptq::quantized_layer& a, const gptq::quantized_layer& b) {
    CHECK(a.bits == b.bits);
    CHECK(a.sym == b.sym);
    CHECK(a.group_features == b.group_features);
    REQUIRE(a.codes.shape() == b.codes.shape());
    REQUIRE(a.scales.shape() == b.scales.shape());
    CHECK(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin()));
    CHECK(std::equal(a.zeros.begin(), a.zeros.end(), b.zeros.begin()));
    CHECK(std::equal(a.scales.begin(), a.scales.end(), b.scales.begin()));
    CHECK(std::equal(a.g_idx.begin(), a.g_idx.end(), b.g_idx.begin()));
}

std::byte byte_at(const io::tensor_info& t, std::size_t i) { return t.bytes.subspan(i, 1).read().front(); }

/// Bit `i` of a matrix of 32-bit words read down column `c` or along row `r`, straight from a file's bytes.
bool bit_down(const io::tensor_info& t, std::size_t c, std::size_t i) {
    const std::size_t word = i / 32 * t.shape[1] + c;
    return (std::to_integer<unsigned>(byte_at(t, 4 * word + i % 32 / 8)) >> (i % 8) & 1u) != 0;
}
bool bit_along(const io::tensor_info& t, std::size_t r, std::size_t i) {
    const std::size_t word = r * t.shape[1] + i / 32;
    return (std::to_integer<unsigned>(byte_at(t, 4 * word + i % 32 / 8)) >> (i % 8) & 1u) != 0;
}

template <class Bit>
unsigned field(Bit&& bit, std::size_t index, std::size_t bits) {
    unsigned value = 0;
    for (std::size_t b = 0; b < bits; ++b) value |= static_cast<unsigned>(bit(index * bits + b)) << b;
    return value;
}

template <class T>
T element(const io::tensor_info& t, std::size_t i) {
    T value{};
    t.bytes.subspan(i * sizeof(T), sizeof(T)).read(std::as_writable_bytes(std::span(&value, 1)));
    return value;
}

/// A half by its definition: (-1)^s 2^(e-15) (1 + m/1024).
float naive_half(std::uint16_t h) {
    const int exponent = h >> 10 & 31;
    const float mantissa = static_cast<float>(h & 1023);
    const float magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0f + mantissa, exponent - 25);
    return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

/// The weight of a gptq checkpoint by the formula of the format, bit by bit.
float naive_weight(const io::model_folder& m, const std::string& name, std::size_t bits, unsigned zero_offset,
                   std::size_t n, std::size_t k) {
    const auto& scales = m.tensor(name + ".scales");
    const auto g = static_cast<std::size_t>(element<std::int32_t>(m.tensor(name + ".g_idx"), k));
    const unsigned code = field([&](std::size_t i) { return bit_down(m.tensor(name + ".qweight"), n, i); }, k, bits);
    const unsigned zero =
        field([&](std::size_t i) { return bit_along(m.tensor(name + ".qzeros"), g, i); }, n, bits) + zero_offset;
    const float scale = naive_half(element<std::uint16_t>(scales, g * scales.shape[1] + n));
    return scale * (static_cast<float>(code) - static_cast<float>(zero));
}

float weight(const gptq::quantized_layer& q, std::size_t n, std::size_t k) {
    const auto g = static_cast<std::size_t>(q.g_idx(k));
    return q.scales(n, g) * (static_cast<float>(q.codes(n, k)) - static_cast<float>(q.zeros(n, g)));
}

}  // namespace

TEST_CASE("layers survive writing and reading in every format", "[quantized]") {
    struct format_case {
        io::checkpoint_format format;
        int lowest_zero;
        std::vector<int> bits;
    };
    const std::vector<format_case> formats = {{io::checkpoint_format::gptq, 1, {2, 3, 4, 8}},
                                              {io::checkpoint_format::gptq_v2, 0, {2, 3, 4, 8}},
                                              {io::checkpoint_format::awq, 0, {4}},
                                              {io::checkpoint_format::compressed_tensors, 0, {4, 8}}};
    unsigned seed = 0;
    for (const auto& [format, lowest_zero, all_bits] : formats)
        for (const int bits : all_bits)
            for (const bool sym : {true, false})
                for (const bool permuted : {true, false}) {
                    if (permuted && format == io::checkpoint_format::awq) continue;  // it has no g_idx
                    for (const std::size_t group : {std::size_t{32}, std::size_t{64}, std::size_t{160}}) {
                        INFO(io::format_name(format) << ", " << bits << " bits, group " << group << ", seed " << seed);
                        const auto layer = random_layer(bits, sym, 96, 160, group, permuted, lowest_zero, seed++);
                        const temp_dir dir;
                        io::folder_writer writer(dir.path() / "out");
                        io::write_quantized(writer.sink(), format, "a.b", layer);
                        writer.write_text("config.json", "{}");
                        writer.finish();
                        const io::model_folder model(dir.path() / "out");
                        CHECK(io::is_quantized(model, "a.b"));
                        CHECK_FALSE(io::is_quantized(model, "a"));
                        check_equal(layer, io::read_quantized(model, config_for(format, layer), "a.b"));
                    }
                }
}

TEST_CASE("the tensors have the names, types and shapes of the formats", "[quantized]") {
    const auto layer = random_layer(4, false, 64, 96, 32, true, 1, 1);
    const temp_dir dir;
    const auto written = [&](io::checkpoint_format format, const gptq::quantized_layer& q, const char* out) {
        io::folder_writer writer(dir.path() / out);
        io::write_quantized(writer.sink(), format, "m", q);
        writer.write_text("config.json", "{}");
        writer.finish();
        const io::model_folder model(dir.path() / out);
        strings lines;
        for (const auto& name : model.tensor_names())
            lines.push_back(name + " " + std::string(io::dtype_name(model.tensor(name).dtype)) +
                            io::shape_text(model.tensor(name).shape));
        return lines;
    };
    const strings gptq_lines{"m.g_idx I32[96]", "m.qweight I32[12, 64]", "m.qzeros I32[3, 8]", "m.scales F16[3, 64]"};
    CHECK(written(io::checkpoint_format::gptq, layer, "v1") == gptq_lines);
    CHECK(written(io::checkpoint_format::gptq_v2, layer, "v2") == gptq_lines);
    CHECK(written(io::checkpoint_format::compressed_tensors, layer, "ct") ==
          strings{"m.weight_g_idx I32[96]", "m.weight_packed I32[64, 12]", "m.weight_scale F16[64, 3]",
                  "m.weight_shape I64[2]", "m.weight_zero_point I32[8, 3]"});
    CHECK(written(io::checkpoint_format::compressed_tensors, random_layer(8, true, 33, 41, 41, false, 0, 1), "sym") ==
          strings{"m.weight_packed I32[33, 11]", "m.weight_scale F16[33, 1]", "m.weight_shape I64[2]"});
    const auto plain = random_layer(4, false, 64, 96, 32, false, 0, 1);
    CHECK(written(io::checkpoint_format::awq, plain, "awq") ==
          strings{"m.qweight I32[96, 8]", "m.qzeros I32[3, 8]", "m.scales F16[3, 64]"});
    const io::model_folder model(dir.path() / "sym");
    CHECK(element<std::int64_t>(model.tensor("m.weight_shape"), 0) == 33);
    CHECK(element<std::int64_t>(model.tensor("m.weight_shape"), 1) == 41);
    const io::model_folder v1(dir.path() / "v1"), v2(dir.path() / "v2");
    bool equal = true;
    for (std::size_t n = 0; n < 64; ++n)
        for (std::size_t k = 0; k < 96; ++k)
            equal &= naive_weight(v1, "m", 4, 1, n, k) == weight(layer, n, k) &&
                     naive_weight(v2, "m", 4, 0, n, k) == weight(layer, n, k);
    // By the definition of the format: the four bits of a word are, from the lowest, those of features 0 2 4 6 1 3 5 7.
    const io::model_folder awq(dir.path() / "awq");
    const auto nibble = [&](const char* name, std::size_t row, std::size_t n) {
        const std::size_t place = std::string("02461357").find(static_cast<char>('0' + n % 8));
        const unsigned byte = std::to_integer<unsigned>(byte_at(awq.tensor(name), 4 * (row * 8 + n / 8) + place / 2));
        return place % 2 == 0 ? byte & 15u : byte >> 4;
    };
    for (std::size_t n = 0; n < 64; ++n)
        for (std::size_t k = 0; k < 96; ++k)
            equal &=
                nibble("m.qweight", k, n) == plain.codes(n, k) &&
                nibble("m.qzeros", k / 32, n) == plain.zeros(n, k / 32) &&
                naive_half(element<std::uint16_t>(awq.tensor("m.scales"), k / 32 * 64 + n)) == plain.scales(n, k / 32);
    CHECK(equal);
}

TEST_CASE("what a format cannot hold is refused, naming the module", "[quantized]") {
    const temp_dir dir;
    io::folder_writer writer(dir.path() / "out");
    const auto write = [&](io::checkpoint_format format, const gptq::quantized_layer& layer) {
        return [&writer, format, &layer] { io::write_quantized(writer.sink(), format, "a.b", layer); };
    };
    const auto odd = random_layer(4, true, 33, 64, 32, false, 1, 1);
    auto zero = random_layer(4, false, 32, 64, 32, false, 1, 1);
    zero.zeros(3, 1) = 0;
    const auto six = random_layer(6, true, 32, 64, 32, false, 1, 1),
               three = random_layer(3, true, 32, 64, 32, false, 1, 1);
    auto book = random_layer(4, false, 32, 64, 32, false, 1, 1);
    book.levels.assign(16, 0.5f);
    using io::checkpoint_format;
    for (const auto format :
         {checkpoint_format::gptq, checkpoint_format::gptq_v2, checkpoint_format::compressed_tensors})
        CHECK(contains(message_of<gptq::unsupported_error>(write(format, book)), "module a.b"));
    CHECK(contains(message_of<gptq::shape_error>(write(checkpoint_format::gptq, odd)), "module a.b"));
    CHECK(contains(message_of<gptq::format_error>(write(checkpoint_format::gptq, zero)), "module a.b"));
    CHECK(contains(message_of<gptq::unsupported_error>(write(checkpoint_format::gptq_v2, six)), "module a.b"));
    CHECK(contains(message_of<gptq::unsupported_error>(write(checkpoint_format::compressed_tensors, three)),
                   "module a.b"));
    CHECK(writer.tensor_bytes() == 0);
}

namespace {

/// The tensors of a gptq layer of [32, 64] with 4 bits in groups of 32, to be spoilt one by one.
struct gptq_files {
    std::map<std::string, std::pair<std::string, std::string>> tensors;  // name -> dtype and shape, data

    gptq_files() {
        tensors["m.qweight"] = {R"("I32","shape":[8,32])", std::string(1024, '\x21')};
        tensors["m.qzeros"] = {R"("I32","shape":[2,4])", std::string(32, '\x77')};
        tensors["m.scales"] = {R"("F32","shape":[2,32])", bytes_of(std::vector<float>(64, 0.3f))};
        std::vector<std::int32_t> g_idx(64);
        for (std::size_t k = 0; k < 64; ++k) g_idx[k] = static_cast<std::int32_t>(k / 32);
        tensors["m.g_idx"] = {R"("I32","shape":[64])", bytes_of(g_idx)};
    }

    gptq::quantized_layer read(const io::quantization_config& config) const {
        std::string header, data;
        for (const auto& [name, t] : tensors) {
            header += (header.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":" + t.first + ",\"data_offsets\":[" +
                      std::to_string(data.size()) + "," + std::to_string(data.size() + t.second.size()) + "]}";
            data += t.second;
        }
        const temp_dir dir;
        make_folder(dir.path(), {{"model.safetensors", safetensors_bytes(header + "}", data)}});
        return io::read_quantized(io::model_folder(dir.path()), config, "m");
    }

    template <class E>
    std::string refusal(const io::quantization_config& config) const {
        return message_of<E>([&] { read(config); });
    }
};

io::quantization_config four_bits_by_32() {
    io::quantization_config config;
    config.settings.group_size = 32;
    return config;
}

template <class T>
void replace(std::string& data, std::size_t index, T value) {
    std::memcpy(data.data() + index * sizeof(T), &value, sizeof(T));
}

}  // namespace

TEST_CASE("files of other writers: scales of any float type, g_idx left out or counted from the end", "[quantized]") {
    gptq_files files;
    const auto config = four_bits_by_32();
    const auto plain = files.read(config);
    CHECK(plain.sym);
    CHECK(plain.codes(0, 0) == 1);
    CHECK(plain.codes(0, 1) == 2);
    CHECK(plain.zeros(0, 0) == 8);
    CHECK(plain.scales(31, 1) == 0.3f);  // not rounded to half
    SECTION("bfloat16 scales") {
        files.tensors["m.scales"] = {R"("BF16","shape":[2,32])", bytes_of(std::vector<std::uint16_t>(64, 0x3f80))};
        CHECK(files.read(config).scales(5, 1) == 1.0f);
    }
    SECTION("half scales, one of them 0") {
        std::vector<std::uint16_t> halves(64, 0x3c00);
        halves[32 + 5] = 0;
        files.tensors["m.scales"] = {R"("F16","shape":[2,32])", bytes_of(halves)};
        CHECK(files.read(config).scales(5, 1) == 0.0f);
        CHECK(files.read(config).scales(5, 0) == 1.0f);
    }
    SECTION("a negative scale, as AutoRound writes them") {
        replace(files.tensors["m.scales"].second, 33, -1.0f);
        auto expected = plain;
        expected.scales(1, 1) = -1.0f;
        check_equal(files.read(config), expected);
    }
    SECTION("no g_idx") {
        files.tensors.erase("m.g_idx");
        check_equal(files.read(config), plain);
        auto act = config;
        act.settings.order = gptq::order_kind::act;
        CHECK(contains(files.refusal<gptq::format_error>(act), "\"m.g_idx\": is missing"));
        act.settings.order = gptq::order_kind::act_static;
        check_equal(files.read(act), plain);
    }
    SECTION("g_idx from the end") {
        replace<std::int32_t>(files.tensors["m.g_idx"].second, 7, -1);
        replace<std::int32_t>(files.tensors["m.g_idx"].second, 8, -2);
        CHECK(files.read(config).g_idx(7) == 1);
        CHECK(files.read(config).g_idx(8) == 0);
    }
    SECTION("a config that calls asymmetric zero points symmetric") {
        replace<std::int32_t>(files.tensors["m.qzeros"].second, 0, 0x77777771);
        const auto layer = files.read(config);
        CHECK_FALSE(layer.sym);
        CHECK(layer.zeros(0, 0) == 2);
        CHECK(layer.zeros(1, 0) == 8);
    }
    SECTION("settings of this module from a rule") {
        auto other = config;
        other.settings.bits = 8;
        other.settings.group_size = 128;
        other.dynamic = io::dynamic_rules({{"m$", {{"bits", 4}, {"group_size", 32}}}}, "test");
        check_equal(files.read(other), plain);
    }
}

TEST_CASE("quantized tensors that lie are refused, naming the tensor", "[quantized]") {
    gptq_files files;
    auto config = four_bits_by_32();
    auto& tensors = files.tensors;
    using gptq::format_error;
    using gptq::shape_error;
    SECTION("missing tensors") {
        for (const char* name : {"m.qweight", "m.qzeros", "m.scales"}) {
            auto fewer = files;
            fewer.tensors.erase(name);
            CHECK(
                contains(fewer.refusal<format_error>(config), std::string("\"") + name + "\": the model has no such"));
        }
    }
    SECTION("shapes that contradict the config") {
        auto other = config;
        other.settings.bits = 2;
        CHECK(contains(files.refusal<shape_error>(other), "\"m.qzeros\": has the shape [2, 4], but [4, 2] is needed"));
        other.settings.bits = 3;
        CHECK(
            contains(files.refusal<shape_error>(other), "\"m.qweight\": has the shape [8, 32], but [6, 32] is needed"));
        other.settings.bits = 8;
        CHECK(contains(files.refusal<shape_error>(other), "\"m."));
        other = config;
        other.settings.group_size = 64;
        CHECK(contains(files.refusal<shape_error>(other), "\"m.qzeros\": has the shape [2, 4], but [1, 4] is needed"));
        other.settings.bits = 5;
        CHECK(contains(files.refusal<gptq::unsupported_error>(other), "\"m\": 5 bits"));
        other = config;
        other.dynamic = io::dynamic_rules({{"-:m", nullptr}}, "test");
        CHECK(contains(files.refusal<format_error>(other), "not quantized"));
    }
    SECTION("shapes that contradict each other") {
        tensors["m.qzeros"].first = R"("I32","shape":[1,8])";
        CHECK(contains(files.refusal<shape_error>(config), "\"m.qzeros\": has the shape [1, 8], but [2, 4]"));
    }
    SECTION("a transposed scale") {
        tensors["m.scales"].first = R"("F32","shape":[32,2])";
        CHECK(contains(files.refusal<shape_error>(config), "\"m.scales\""));
    }
    SECTION("types") {
        tensors["m.qweight"].first = R"("F32","shape":[8,32])";
        CHECK(contains(files.refusal<format_error>(config), "\"m.qweight\": is F32[8, 32]"));
    }
    SECTION("dimensions") {
        tensors["m.qzeros"].first = R"("I32","shape":[8])";
        CHECK(contains(files.refusal<format_error>(config), "\"m.qzeros\": is I32[8]"));
    }
    SECTION("an empty layer") {
        tensors["m.qweight"] = {R"("I32","shape":[0,32])", ""};
        CHECK(contains(files.refusal<shape_error>(config), "empty"));
    }
    SECTION("a shape that the layout does not have") {
        tensors["m.qweight"] = {R"("I32","shape":[8,31])", std::string(8 * 31 * 4, '\0')};
        tensors["m.scales"] = {R"("F32","shape":[2,31])", bytes_of(std::vector<float>(62, 1.0f))};
        CHECK(contains(files.refusal<shape_error>(config), "\"m"));
    }
    SECTION("scales") {
        replace(tensors["m.scales"].second, 33, std::numeric_limits<float>::quiet_NaN());
        CHECK(contains(files.refusal<gptq::non_finite_error>(config), "\"m.scales\": NaN at row 1, column 1"));
        replace(tensors["m.scales"].second, 33, std::numeric_limits<float>::infinity());
        CHECK(contains(files.refusal<gptq::non_finite_error>(config), "\"m.scales\": infinity"));
    }
    SECTION("g_idx") {
        for (const std::int32_t group :
             {2, -3, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()}) {
            replace(tensors["m.g_idx"].second, 63, group);
            CHECK(contains(files.refusal<format_error>(config), "\"m.g_idx\": entry 63 is " + std::to_string(group)));
        }
        tensors["m.g_idx"] = {R"("I32","shape":[63])", std::string(63 * 4, '\0')};
        CHECK(contains(files.refusal<shape_error>(config), "\"m.g_idx\": has 63 entries"));
    }
}

TEST_CASE("weight_shape of compressed-tensors is checked", "[quantized]") {
    const auto layer = random_layer(4, true, 8, 20, 20, false, 0, 3);
    const auto with_shape = [&](const std::vector<std::int64_t>& shape) {
        const temp_dir dir;
        io::folder_writer good(dir.path() / "good");
        io::write_quantized(good.sink(), io::checkpoint_format::compressed_tensors, "m", layer);
        good.write_text("config.json", "{}");
        good.finish();
        const io::model_folder source(dir.path() / "good");
        io::folder_writer bad(dir.path() / "bad");
        for (const char* name : {"m.weight_packed", "m.weight_scale"}) {
            const auto& t = source.tensor(name);
            bad.add_tensor(name, t.dtype, t.shape, t.bytes.read());
        }
        const std::vector<std::size_t> extent{shape.size()};
        bad.add_tensor("m.weight_shape", io::dtype::i64, extent, std::as_bytes(std::span(shape)));
        bad.write_text("config.json", "{}");
        bad.finish();
        auto config = config_for(io::checkpoint_format::compressed_tensors, layer);
        config.settings.group_size = -1;
        return io::read_quantized(io::model_folder(dir.path() / "bad"), config, "m");
    };
    CHECK(with_shape({8, 20}).in_features() == 20);
    CHECK_THROWS_AS(with_shape({8, 25}), gptq::shape_error);
    CHECK_THROWS_AS(with_shape({9, 20}), gptq::shape_error);
    CHECK_THROWS_AS(with_shape({8, 20, 1}), gptq::shape_error);
    CHECK_THROWS_AS(with_shape({8, -20}), gptq::format_error);
    CHECK_THROWS_AS(with_shape({8, std::numeric_limits<std::int64_t>::max()}), gptq::shape_error);
    CHECK_THROWS_AS(with_shape({8, 0}), gptq::shape_error);
}

TEST_CASE("configs are written where readers look for them", "[quantized]") {
    const temp_dir dir;
    make_folder(dir.path() / "source", {{"model.safetensors", one_tensor("t", "U8", "[1]", "x")}});
    write_file(dir.path() / "source" / "config.json", R"({"z": 1.5, "model_type": "llama", "a": [1]})");
    const io::model_folder source(dir.path() / "source");
    const auto write = [&](io::checkpoint_format format, const char* out) {
        io::quantization_config config;
        config.format = format;
        config.dynamic = io::dynamic_rules({{"z", {{"bits", 8}}}, {"a", {{"bits", 4}}}}, "test");
        io::folder_writer writer(dir.path() / out);
        io::write_configs(writer, source, config);
        writer.finish();
        return config.to_json();
    };
    const auto gptq_json = write(io::checkpoint_format::gptq, "gptq");
    CHECK(nlohmann::ordered_json::parse(read_file(dir.path() / "gptq" / "quantize_config.json")) == gptq_json);
    const auto config = nlohmann::ordered_json::parse(read_file(dir.path() / "gptq" / "config.json"));
    CHECK(config["quantization_config"] == gptq_json);
    CHECK(config["quantization_config"]["dynamic"].dump() == R"({"+:z":{"bits":8},"+:a":{"bits":4}})");
    CHECK(config.begin().key() == "z");  // the order of the source
    CHECK(config["model_type"] == "llama");
    const auto compressed = write(io::checkpoint_format::compressed_tensors, "ct");
    CHECK_FALSE(fs::exists(dir.path() / "ct" / "quantize_config.json"));
    CHECK(nlohmann::ordered_json::parse(read_file(dir.path() / "ct" / "config.json"))["quantization_config"] ==
          compressed);
}

TEST_CASE("checkpoints that GPTQModel wrote decode as a bit-by-bit reader says", "[quantized][shared]") {
    const auto shared = shared_dir();
    if (!shared) {
        WARN("skipped: no shared checkpoints");
        return;
    }
    for (const char* name : {"gptqmodel-w3g32", "gptqmodel-w4g128", "gptqmodel-w4g32act", "gptqmodel-w8pc"}) {
        const auto path = *shared / "data" / "peers" / name;
        const io::model_folder model(path);
        const auto config = io::quantization_config::parse(model);
        REQUIRE(config);
        std::size_t layers = 0;
        for (const auto& tensor : model.tensor_names()) {
            if (!tensor.ends_with(".qweight")) continue;
            ++layers;
            const std::string module = tensor.substr(0, tensor.size() - 8);
            INFO(name << " " << module);
            REQUIRE(io::is_quantized(model, module));
            const auto q = io::read_quantized(model, *config, module);
            CHECK(q.sym);
            const auto bits = static_cast<std::size_t>(config->settings.bits);
            std::size_t wrong = 0;
            for (std::size_t n = layers % 5; n < q.out_features(); n += 5)  // so that each place of a word is met
                for (std::size_t k = 0; k < q.in_features(); ++k)
                    wrong += naive_weight(model, module, bits, 1, n, k) != weight(q, n, k) ? 1 : 0;
            CHECK(wrong == 0);
        }
        CHECK(layers == 14);
    }
}
