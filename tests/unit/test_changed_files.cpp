// Files that somebody cuts, overwrites or replaces while they are in use.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/safetensors.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
namespace fs = std::filesystem;
namespace io = gptq::io;

constexpr std::size_t rows = 512, cols = 256;

/// A model of one matrix, "w" [rows, cols] of ones.
fs::path write_model(const temp_dir& dir) {
    const std::vector<float> ones(rows * cols, 1.0f);
    const std::string size = std::to_string(4 * ones.size());
    write_file(dir.path() / "config.json", "{}");
    write_file(dir.path() / "model.safetensors",
               safetensors_bytes(R"({"w":{"dtype":"F32","shape":[512,256],"data_offsets":[0,)" + size + "]}}",
                                 std::string(reinterpret_cast<const char*>(ones.data()), 4 * ones.size())));
    return dir.path() / "model.safetensors";
}

/// Past the grain of the file system's clock, so that a change has another time than the file.
void wait_for_the_clock() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

std::string refusal(const io::model_folder& model) {
    return message_of<gptq::io_error>([&] { model.read_matrix("w"); });
}

}  // namespace

TEST_CASE("a file that becomes shorter is an error that names it, and no signal") {
    const temp_dir dir;
    const fs::path file = write_model(dir);
    const io::model_folder model(dir.path());
    CHECK(model.read_matrix("w")(rows - 1, cols - 1) == 1.0f);
    fs::resize_file(file, 5000);
    const std::string message = refusal(model);
    CHECK(contains(message, file.string() + ": was changed while it was in use"));
    CHECK(contains(message, "5000 now"));
    CHECK_THROWS_AS(model.tensor("w").bytes.read(), gptq::io_error);
    CHECK_THROWS_AS(model.require_finite("w"), gptq::io_error);
}

TEST_CASE("a file that is overwritten in place is an error, and its new numbers are not used") {
    const temp_dir dir;
    const fs::path file = write_model(dir);
    const io::model_folder model(dir.path());
    wait_for_the_clock();
    const int descriptor = ::open(file.c_str(), O_WRONLY);
    const std::vector<char> zeros(4096, '\0');
    REQUIRE(::pwrite(descriptor, zeros.data(), zeros.size(), 100'000) == 4096);
    ::close(descriptor);
    CHECK(contains(refusal(model), "was changed while it was in use"));
}

TEST_CASE("a file that is replaced or deleted is read to its end") {
    const temp_dir dir;
    const fs::path file = write_model(dir);
    const io::model_folder model(dir.path());
    wait_for_the_clock();
    SECTION("replaced under its name") {
        write_file(dir.path() / "new", "something else");
        fs::rename(dir.path() / "new", file);
    }
    SECTION("deleted") { fs::remove(file); }
    CHECK(model.read_matrix("w")(rows - 1, cols - 1) == 1.0f);
}

TEST_CASE("a file in use may be renamed, linked and made read-only") {
    const temp_dir dir;
    const fs::path file = write_model(dir);
    const io::model_folder model(dir.path());
    wait_for_the_clock();
    fs::create_hard_link(file, dir.path() / "other.safetensors");
    fs::permissions(file, fs::perms::owner_read);
    fs::rename(file, dir.path() / "moved.safetensors");
    CHECK(model.read_matrix("w")(0, 0) == 1.0f);
}
