// gzip files, where the build has zlib.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#ifdef GPTQ_HAS_ZLIB
#include <zlib.h>
#endif

#include <gptq/error.hpp>

namespace gptq::io {

/// The most bytes that a text may have, as it is stored and after decompression.
constexpr std::size_t max_text_bytes = std::size_t{4} << 30;

namespace detail {

/// No text is a thousand times as long as its compressed form; what claims to be is only looked at so far.
constexpr std::size_t max_ratio = 1000;
constexpr std::size_t always_decompressed = std::size_t{64} << 20;

/// Throws format_error for what `packed_bytes` have become if that is longer than a text may be, or than they can hold.
inline void check_decompressed(const std::string& text, std::size_t packed_bytes, const std::string& path) {
    if (text.size() > always_decompressed && text.size() / max_ratio > packed_bytes)
        throw format_error(path + ": " + std::to_string(packed_bytes) + " bytes decompress to more than " +
                           std::to_string(text.size()) + ", which no text does; decompress it if it is one");
    if (text.size() > max_text_bytes)
        throw format_error(path + ": decompresses to more than the " + std::to_string(max_text_bytes) +
                           " bytes that a text may have; give a part of it");
}

#ifdef GPTQ_HAS_ZLIB
/// The content of a gzip file of one member or more.
inline std::string gunzip(const std::string& packed, const std::string& path) {
    struct inflater {
        z_stream state{};
        ~inflater() { ::inflateEnd(&state); }
    } stream;
    z_stream& z = stream.state;
    if (::inflateInit2(&z, 15 + 16) != Z_OK) throw io_error(path + ": cannot start to decompress");
    std::string text;
    std::string block(std::size_t{1} << 20, '\0');
    std::size_t given = 0;
    for (;;) {
        if (z.avail_in == 0) {
            const std::size_t part = std::min(packed.size() - given, block.size());
            z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + given));
            z.avail_in = static_cast<uInt>(part);
            given += part;
        }
        z.next_out = reinterpret_cast<Bytef*>(block.data());
        z.avail_out = static_cast<uInt>(block.size());
        const int status = ::inflate(&z, Z_NO_FLUSH);
        if (status != Z_OK && status != Z_STREAM_END)
            throw format_error(path + ": is a gzip file that is cut off or damaged");
        text.append(block, 0, block.size() - z.avail_out);
        check_decompressed(text, packed.size(), path);
        if (status != Z_STREAM_END) continue;
        if (z.avail_in == 0 && given == packed.size()) return text;
        if (::inflateReset(&z) != Z_OK) throw format_error(path + ": is a damaged gzip file");
    }
}
#else
inline std::string gunzip(const std::string& /*packed*/, const std::string& path) {
    throw unsupported_error(path + ": is a gzip file, which this build cannot read; decompress it (gzip -d)");
}
#endif

}  // namespace detail
}  // namespace gptq::io
