// zstd files, where the build has libzstd.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#ifdef GPTQ_HAS_ZSTD
#include <zstd.h>
#endif

#include <gptq/error.hpp>
#include <gptq/io/gzip.hpp>

namespace gptq::io::detail {

#ifdef GPTQ_HAS_ZSTD
/// The content of a zstd file of one frame or more.
inline std::string unzstd(const std::string& packed, const std::string& path) {
    const std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream(ZSTD_createDStream(), &ZSTD_freeDStream);
    if (!stream) throw io_error(path + ": cannot start to decompress");
    std::string text;
    std::string block(ZSTD_DStreamOutSize(), '\0');
    ZSTD_inBuffer in{packed.data(), packed.size(), 0};
    for (std::size_t wanted = 1; in.pos < in.size || wanted != 0;) {
        ZSTD_outBuffer out{block.data(), block.size(), 0};
        const std::size_t before = in.pos;
        wanted = ZSTD_decompressStream(stream.get(), &out, &in);  // 0 at the end of a frame
        if (ZSTD_isError(wanted) || (wanted != 0 && in.pos == before && out.pos == 0))
            throw format_error(path + ": is a zstd file that is cut off or damaged");
        text.append(block, 0, out.pos);
        check_decompressed(text, packed.size(), path);
    }
    return text;
}
#else
inline std::string unzstd(const std::string& /*packed*/, const std::string& path) {
    throw unsupported_error(path + ": is a zstd file, which this build cannot read; decompress it (zstd -d)");
}
#endif

}  // namespace gptq::io::detail
