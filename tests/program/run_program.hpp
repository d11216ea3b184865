// Runs the program gptq as a user does, and catches what it says.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

namespace gptq_test {

/// The program's path, from the environment variable GPTQ_BIN that CTest sets; nothing where it was not built.
std::optional<std::string> program_path();

/// Whether there is no program to test, which this says.
bool skipped();

struct run_result {
    int status = -1;  ///< exit status; 128 + the signal's number if one ended it
    std::string out, err;
};

struct run_limits {
    /// This folder is a disk of that many bytes while the program runs.
    std::optional<std::pair<std::filesystem::path, std::size_t>> small_disk = std::nullopt;
    std::optional<std::size_t> file_bytes = std::nullopt;     ///< writes beyond this size of a file fail
    std::optional<std::size_t> address_space = std::nullopt;  ///< bytes
    std::optional<std::size_t> processes = std::nullopt;      ///< of a user that has no others, where that can be had
    unsigned seconds = 0;                                     ///< SIGALRM ends the program after that; 0: never
    /// Sent as soon as something matching appears on standard error: (text to wait for, signal).
    std::optional<std::pair<std::string, int>> signal_after = std::nullopt;
};

/// The status of a run whose small_disk could not be made: that needs privileges, or user namespaces.
inline constexpr int no_small_disk = 126;

/// Starts `gptq arguments...`, whose output goes to the files `out` and `err` of the folder, and leaves it running.
pid_t start_program(const std::vector<std::string>& arguments, const std::filesystem::path& folder,
                    const run_limits& limits = {});

/// Runs `gptq arguments...` and waits for it.
run_result run_program(const std::vector<std::string>& arguments, const run_limits& limits = {});

/// Appends those of `defaults` (option, value, option, value, ...) that `arguments` does not set itself.
std::vector<std::string> with_defaults(std::vector<std::string> arguments, const std::vector<std::string>& defaults);

std::vector<std::string> lines_of(const std::string& text);

/// What the folder holds, sorted.
std::vector<std::string> names_in(const std::filesystem::path& folder);

}  // namespace gptq_test
