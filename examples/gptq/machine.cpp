// The machine, as Linux and the linked BLAS describe it.
#include "machine.hpp"

#include <fstream>
#include <sstream>
#include <string>

#include <gptq/kernels/isa.hpp>

#include "threads.hpp"

namespace program {
namespace {

/// The rest of the first line of a file that begins with `key`; "" without one.
std::string line_after(const char* file, const std::string& key) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(key)) continue;
        const std::size_t begin = line.find_first_not_of(" \t:", key.size());
        return begin == std::string::npos ? "" : line.substr(begin);
    }
    return "";
}

}  // namespace

nlohmann::ordered_json machine_json() {
    const std::string processor = line_after("/proc/cpuinfo", "model name");
    return {{"threads", threads_in_use()},
            {"processor", processor.empty() ? "unknown" : processor},
            {"instruction_set", std::string(gptq::isa_name(gptq::best_isa()))},
            {"blas", blas_name()}};
}

void begin_peak_memory() {
    std::ofstream file("/proc/self/clear_refs");
    file << "5";  // resets VmHWM
}

std::optional<std::uint64_t> peak_memory() {
    std::istringstream words(line_after("/proc/self/status", "VmHWM"));
    std::uint64_t kilobytes = 0;
    if (!(words >> kilobytes)) return std::nullopt;
    return kilobytes * 1024;
}

}  // namespace program
