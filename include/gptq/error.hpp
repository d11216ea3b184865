// Every exception the library throws. Each message names the tensor or file, what was found, and what to do.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include <gptq/quote.hpp>

#include <gptq/compiler.hpp>

namespace gptq {

/// No message is longer.
inline constexpr std::size_t max_message_bytes = 2000;

/// Base of every exception that the library throws. Messages hold names and settings from files of strangers, so every
/// message is made printable here: one line of UTF-8 of at most max_message_bytes.
class error : public std::runtime_error {
 public:
    explicit error(std::string_view message) : std::runtime_error(printable(message, max_message_bytes)) {}
};

/// Matrices whose shapes do not fit together, or a size that a format cannot hold.
class shape_error : public error {
 public:
    using error::error;
};

/// An option out of its range, or one that the call does not use.
class option_error : public error {
 public:
    using error::error;
};

/// A type of the caller's own that breaks a sentence of its concept in <gptq/concepts.hpp>; the message names both.
class concept_error : public error {
 public:
    using error::error;
};

/// A NaN or an infinity where only finite numbers make sense; the message says at which row and column.
class non_finite_error : public error {
 public:
    using error::error;
};

/// A file that is not what it claims to be: truncated, lying about its sizes, or not of the expected kind.
class format_error : public error {
 public:
    using error::error;
};

/// The operating system refused to read or write; the message carries the path and the system's reason.
class io_error : public error {
 public:
    using error::error;
};

/// A well-formed request for something that the library does not do (an architecture, a number of bits, a layout).
class unsupported_error : public error {
 public:
    using error::error;
};

/// Thrown out of a long operation when its observer asked to stop; nothing half written is left behind.
class cancelled : public error {
 public:
    using error::error;
};

/// A shape as it appears in messages: "[2, 3]".
inline std::string shape_string(std::size_t rows, std::size_t cols) {
    return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

}  // namespace gptq
