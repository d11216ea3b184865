// What the fuzz targets share. A target is a file fuzz_NAME.cpp that defines LLVMFuzzerTestOneInput: libFuzzer calls it
// with inputs of its own (scripts/fuzz), replay.cpp with the corpus and simple changes of it.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <typeinfo>

#include <gptq/error.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace gptq_fuzz {

/// Ends the program, so that the fuzzer keeps the input.
[[noreturn]] inline void fail(const std::string& what) {
    std::cerr << "finding: " << what.substr(0, 2000) << std::endl;
    std::abort();
}

/// Errors of the library are answers; a message without bounds, any other exception, and false are findings.
template <class Action>
void survives(const Action& act) {
    try {
        act();
    } catch (const gptq::error& answer) {
        if (std::strlen(answer.what()) > gptq::max_message_bytes) fail("a message without bounds");
    } catch (const std::exception& other) {
        fail(std::string(typeid(other).name()) + ": " + other.what());
    }
}

inline void require(bool condition, const char* what) {
    if (!condition) fail(what);
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

/// Takes what lies before the first zero byte off `input`; all of it where there is none.
inline std::string_view take_part(std::string_view& input) {
    const std::size_t end = std::min(input.find('\0'), input.size());
    const std::string_view part = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    return part;
}

/// A folder in memory for one process.
class scratch_folder {
 public:
    scratch_folder()
        : path_((std::filesystem::exists("/dev/shm") ? std::filesystem::path("/dev/shm")
                                                     : std::filesystem::temp_directory_path()) /
                ("gptq-fuzz-" + std::to_string(::getpid()))) {
        std::filesystem::create_directories(path_);
    }
    ~scratch_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    scratch_folder(const scratch_folder&) = delete;
    scratch_folder& operator=(const scratch_folder&) = delete;

    const std::filesystem::path& path() const { return path_; }

    /// Writes a file and returns its path.
    std::filesystem::path write(const char* name, std::string_view bytes) const {
        std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
        return path_ / name;
    }

 private:
    std::filesystem::path path_;
};

}  // namespace gptq_fuzz
