// Where the tests find models and texts that are too large, or not ours, to live in the repository.
#pragma once

#include <filesystem>
#include <optional>
#include <system_error>

namespace gptq_test {

/// The folder `shared` next to the checkout (models under data/, texts under data/text/), or nothing where there is
/// none; a test that needs it then says WARN("skipped: ...") and returns.
inline std::optional<std::filesystem::path> shared_dir() {
    const std::filesystem::path dir = GPTQ_SHARED_DIR;  // defined by tests/CMakeLists.txt, "" if not found
    std::error_code ignored;
    if (dir.empty() || !std::filesystem::is_directory(dir, ignored)) return std::nullopt;
    return dir;
}

/// The root of the source tree: examples/demo and golden files are read from there.
inline std::filesystem::path source_dir() { return GPTQ_SOURCE_DIR; }

}  // namespace gptq_test
