// Reads a text, for calibration or scoring, from the kinds of files that people keep texts in.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

namespace gptq::io {

/// A text of which more than one byte in this many is no UTF-8 text is refused.
constexpr std::size_t min_bytes_per_ill_formed = 100;

/// A text in UTF-8 with lines ended by "\n", and how many of its bytes are ill-formed.
struct text_content {
    std::string text;
    std::size_t ill_formed = 0;
};

/// Turns the `messages` of a line of JSON Lines, a list, into a text. What it throws ends the reading.
using message_renderer = std::function<std::string(const nlohmann::json& messages)>;

namespace detail {

/// The text of a JSON string, or of the parts of a message that have one.
std::string content_of(const nlohmann::json& value);

/// The text of a line of JSON Lines: its `text`, or its `messages` as `render` has them, or without it their contents,
/// a line each.
std::string text_of(const nlohmann::json& line, const std::string& where, const message_renderer& render = {});

}  // namespace detail

/// The text in a file or pipe; "-" is standard input. The content decides what it is: UTF-8, UTF-16 with a byte order
/// mark, gzip or zstd of either, or JSON Lines whose objects have `text` or `messages` (as `render` has them, or their
/// contents joined by "\n"). Throws io_error if it cannot be read; unsupported_error for files of other kinds;
/// format_error for a text that is blank, damaged, larger than max_text_bytes, or ill-formed in more than one byte of
/// min_bytes_per_ill_formed, and for messages that `render` refuses.
text_content read_text(const std::string& path, const message_renderer& render = {});

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/text.hpp>
#endif
