// The bodies of <gptq/io/text.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <unistd.h>
#include <utf8proc.h>
#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/gzip.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/text.hpp>
#include <gptq/io/zstd.hpp>

namespace gptq::io {
namespace detail {

/// All bytes of a file or pipe; "-" is standard input.
inline std::string read_stream(const std::string& path) {
    const descriptor file(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) throw_io_error(path, "open", errno);
    std::string bytes;
    std::string block(std::size_t{1} << 20, '\0');
    for (;;) {
        const ssize_t count = ::read(file.get(), block.data(), block.size());
        if (count < 0) throw_io_error(path, "read", errno);
        if (count == 0) return bytes;
        bytes.append(block, 0, static_cast<std::size_t>(count));
        if (bytes.size() > max_text_bytes)
            throw format_error(path + ": has more than the " + std::to_string(max_text_bytes) +
                               " bytes that a text may have; give a part of it");
    }
}

/// Throws unsupported_error, saying what to do, for a file whose first bytes are those of no text.
inline void refuse_binary(const std::string& bytes, const std::string& path) {
    struct kind {
        std::string_view magic, name, advice;
    };
    static constexpr std::string_view extract = "extract the text and give this";
    static constexpr std::array<kind, 7> kinds = {{
        {"\xfd\x37zXZ", "an xz file", "decompress it (xz -d)"},
        {"BZh", "a bzip2 file", "decompress it (bzip2 -d)"},
        {"PAR1", "a Parquet file", "write its text column to a text or JSON Lines file"},
        {"PK\x03\x04", "a zip file", extract},
        {"%PDF-", "a PDF file", extract},
        {"\x7f"
         "ELF",
         "a program (ELF)", "give a text"},
        {"ARROW1", "an Arrow file", "write its text column to a text or JSON Lines file"},
    }};
    for (const kind& k : kinds)
        if (bytes.starts_with(k.magic))
            throw unsupported_error(path + ": is " + std::string(k.name) + ", not a text; " + std::string(k.advice));
}

/// UTF-8 from UTF-16; `high` is the place of the more significant byte of a unit. Lone surrogates become U+FFFD.
inline std::string from_utf16(std::string_view bytes, std::size_t high) {
    const auto unit = [&](std::size_t i) {
        return static_cast<utf8proc_int32_t>(static_cast<unsigned char>(bytes[i + high]) << 8 |
                                             static_cast<unsigned char>(bytes[i + 1 - high]));
    };
    std::string text;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
        utf8proc_int32_t code = unit(i);
        if (code >= 0xD800 && code < 0xE000) {
            const utf8proc_int32_t next = code < 0xDC00 && i + 3 < bytes.size() ? unit(i + 2) : 0;
            const bool pair = next >= 0xDC00 && next < 0xE000;
            code = pair ? 0x10000 + ((code - 0xD800) << 10) + (next - 0xDC00) : 0xFFFD;
            if (pair) i += 2;
        }
        std::array<utf8proc_uint8_t, 4> encoded{};
        const auto count = utf8proc_encode_char(code, encoded.data());
        text.append(reinterpret_cast<const char*>(encoded.data()), static_cast<std::size_t>(count));
    }
    return text;
}

/// Ends every line by "\n", where it ends with "\r\n" or "\r".
inline void unify_line_ends(std::string& text) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool carriage_return = text[i] == '\r';
        if (carriage_return && i + 1 < text.size() && text[i + 1] == '\n') continue;
        text[kept++] = carriage_return ? '\n' : text[i];
    }
    text.resize(kept);
}

/// How many bytes of `text` are NUL or belong to no well-formed character.
inline std::size_t count_ill_formed(const std::string& text) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < text.size();) {
        const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i);
        utf8proc_int32_t code = 0;
        const auto length =
            utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(std::min<std::size_t>(text.size() - i, 4)), &code);
        if (length <= 0 || code == 0) ++count;
        i += length <= 0 ? 1 : static_cast<std::size_t>(length);
    }
    return count;
}

GPTQ_INLINE std::string content_of(const nlohmann::json& value) {
    if (value.is_string()) return value.get<std::string>();
    std::string text;
    if (value.is_array())
        for (const auto& part : value)
            if (part.is_object() && part.contains("text")) text += content_of(part["text"]);
    return text;
}

GPTQ_INLINE std::string text_of(const nlohmann::json& line, const std::string& where, const message_renderer& render) {
    if (line.is_object() && line.contains("text") && line["text"].is_string()) return line["text"].get<std::string>();
    if (!line.is_object() || !line.contains("messages") || !line["messages"].is_array())
        throw format_error(where + ": is no JSON object with a string `text` or a list `messages`; give the text only");
    if (render) {
        try {
            return render(line["messages"]);
        } catch (const error& problem) {
            throw format_error(where + ": " + problem.what());
        }
    }
    std::string text;
    for (const auto& message : line["messages"])
        if (message.is_object() && message.contains("content")) {
            if (!text.empty()) text += '\n';
            text += content_of(message["content"]);
        }
    return text;
}

/// The texts of JSON Lines, joined by "\n".
inline std::string join_json_lines(const std::string& lines, const std::string& path, const message_renderer& render) {
    std::string text;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < lines.size();) {
        const std::size_t end = std::min(lines.find('\n', begin), lines.size());
        const std::string_view line = std::string_view(lines).substr(begin, end - begin);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
        const std::string where = path + ": line " + std::to_string(number);
        text += text_of(parse_json(line, where), where, render) + '\n';
    }
    return text;
}

/// Whether the first line that is not blank is a JSON object.
inline bool is_json_lines(const std::string& text) {
    const std::size_t begin = text.find_first_not_of(" \t\n");
    if (begin == std::string::npos || text[begin] != '{') return false;
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    return nlohmann::json::accept(std::string_view(text).substr(begin, end - begin));
}

inline void refuse_ill_formed(const text_content& content, const std::string& path) {
    if (content.ill_formed > content.text.size() / min_bytes_per_ill_formed)
        throw format_error(path + ": " + std::to_string(content.ill_formed) + " of " +
                           std::to_string(content.text.size()) +
                           " bytes are no UTF-8 text; convert it to UTF-8 (iconv) if it is a text");
}

}  // namespace detail
GPTQ_INLINE text_content read_text(const std::string& path, const message_renderer& render) {
    const std::string name = path == "-" ? "standard input" : path;
    std::string bytes = detail::read_stream(path);
    if (bytes.starts_with("\x1f\x8b")) bytes = detail::gunzip(bytes, name);
    if (bytes.starts_with("\x28\xb5\x2f\xfd")) bytes = detail::unzstd(bytes, name);
    detail::refuse_binary(bytes, name);
    if (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff"))
        bytes = detail::from_utf16(std::string_view(bytes).substr(2), bytes.starts_with("\xff\xfe") ? 1 : 0);
    if (bytes.starts_with("\xef\xbb\xbf")) bytes.erase(0, 3);
    detail::unify_line_ends(bytes);
    text_content content{std::move(bytes), 0};
    content.ill_formed = detail::count_ill_formed(content.text);
    detail::refuse_ill_formed(content, name);
    if (detail::is_json_lines(content.text)) content.text = detail::join_json_lines(content.text, name, render);
    if (content.text.find_first_not_of(" \t\n\v\f") == std::string::npos)
        throw format_error(name + ": has no text but blanks");
    return content;
}

}  // namespace gptq::io
