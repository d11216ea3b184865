// Checks of numbers on the command line, whose messages stay short.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <CLI/CLI.hpp>

namespace program {

/// A whole number of at least 1.
inline CLI::Validator at_least_one() {
    return {[](std::string& text) {
                const bool digits = !text.empty() && std::all_of(text.begin(), text.end(),
                                                                 [](unsigned char c) { return c >= '0' && c <= '9'; });
                if (digits && text.find_first_not_of('0') != std::string::npos) return std::string();
                return "give a whole number of at least 1, not " + text;
            },
            "1 OR MORE", "at_least_one"};
}

namespace detail {

/// The number, or NaN where the text is not one.
inline double number_of(const std::string& text) {
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    return text.empty() || *end != '\0' ? std::nan("") : number;
}

}  // namespace detail

/// A finite number of at least 0.
inline CLI::Validator not_negative() {
    return {[](std::string& text) {
                const double number = detail::number_of(text);
                if (number >= 0.0 && std::isfinite(number)) return std::string();
                return "give a number of at least 0, not " + text;
            },
            "0 OR MORE", "not_negative"};
}

/// A finite number above 0.
inline CLI::Validator above_zero() {
    return {[](std::string& text) {
                const double number = detail::number_of(text);
                if (number > 0.0 && std::isfinite(number)) return std::string();
                return "give a number above 0, not " + text;
            },
            "ABOVE 0", "above_zero"};
}

/// A number from 0 to 1.
inline CLI::Validator fraction() {
    return {[](std::string& text) {
                const double number = detail::number_of(text);
                if (number >= 0.0 && number <= 1.0) return std::string();
                return "give a number from 0 to 1, not " + text;
            },
            "0 TO 1", "fraction"};
}

namespace detail {

/// The factor that a suffix of a size stands for; 0 for what is none.
inline double unit_of(const std::string& suffix) {
    const std::string powers = "kMGT";
    if (suffix.empty() || suffix == "B") return 1.0;
    const std::size_t power = suffix[0] == 'K' ? 0 : powers.find(suffix[0]);
    const std::string rest = suffix.substr(1);
    if (power == std::string::npos || (rest != "B" && rest != "iB")) return 0.0;
    return std::pow(rest == "iB" ? 1024.0 : 1000.0, static_cast<double>(power + 1));
}

}  // namespace detail

/// A size such as 6GB, 1.5GiB or 4096, which becomes a number of bytes.
inline CLI::Validator size_in_bytes() {
    return {[](std::string& text) {
                const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
                const double bytes = detail::number_of(text.substr(0, digits)) * detail::unit_of(text.substr(digits));
                if (!(bytes >= 1.0 && bytes < 1e18)) return "give a size such as 6GB or 512MiB, not " + text;
                text = std::to_string(static_cast<std::uint64_t>(bytes));
                return std::string();
            },
            "BYTES", "size_in_bytes"};
}

/// cpu, cuda, or cuda and the number of a GPU.
inline CLI::Validator device_name() {
    return {[](std::string& text) {
                const std::string prefix = "cuda:";
                const bool numbered = text.starts_with(prefix) && text.size() > prefix.size() &&
                                      text.size() < prefix.size() + 4 &&
                                      std::all_of(text.begin() + static_cast<std::ptrdiff_t>(prefix.size()), text.end(),
                                                  [](unsigned char c) { return c >= '0' && c <= '9'; });
                if (text == "cpu" || text == "cuda" || numbered) return std::string();
                return "give cpu, cuda or cuda:N, not " + text;
            },
            "cpu|cuda|cuda:N", "device_name"};
}

}  // namespace program
