// Printing of results.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

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

inline void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

/// One line of JSON. Strings that are not UTF-8 (paths, pieces of text) get replacement characters.
inline void print_json(const nlohmann::ordered_json& value) {
    print(value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace program
