// Printing of results.
#pragma once

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/quote.hpp>

namespace program {

/// printf into a string.
__attribute__((format(printf, 1, 2))) inline std::string format(const char* pattern, ...) {
    std::va_list arguments, again;
    va_start(arguments, pattern);
    va_copy(again, arguments);
    const int length = std::vsnprintf(nullptr, 0, pattern, arguments);
    va_end(arguments);
    std::string text(length > 0 ? static_cast<std::size_t>(length) : 0, '\0');
    std::vsnprintf(text.data(), text.size() + 1, pattern, again);
    va_end(again);
    return text;
}

/// "12.3 MB" (10^6 bytes) and the like.
inline std::string bytes_string(std::uint64_t bytes) {
    const auto b = static_cast<double>(bytes);
    if (bytes >= 1'000'000'000) return format("%.2f GB", b / 1e9);
    if (bytes >= 1'000'000) return format("%.1f MB", b / 1e6);
    return format("%.1f kB", b / 1e3);
}

/// For a write to standard output that failed; errno has the reason.
[[noreturn]] inline void fail_output() {
    throw gptq::io_error("standard output: cannot write: " + std::generic_category().message(errno));
}

/// Writes what is still buffered. Throws io_error where that, or a write before, failed.
inline void flush_output() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail_output();
}

/// Throws io_error, with the system's reason, where the text cannot be written.
inline void print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output();
}

/// A warning on standard error, one line.
inline void warn(const std::string& warning) {
    std::fprintf(stderr, "warning: %s\n", gptq::printable(warning, gptq::max_message_bytes).c_str());
}

/// One line of JSON. Strings that are not UTF-8 (paths, pieces of text) get replacement characters.
inline void print_json(const nlohmann::ordered_json& value) {
    print(value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace program
