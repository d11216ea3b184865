// Reading a text file whole.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include <gptq/io/text.hpp>

namespace program {

/// What gptq::io::read_text reads, with a warning on standard error if bytes of it are ill-formed.
inline std::string read_text(const std::string& path) {
    gptq::io::text_content content = gptq::io::read_text(path);
    if (content.ill_formed != 0)
        std::fprintf(stderr, "warning: %s: %zu bytes are no UTF-8 text; U+FFFD takes their place\n", path.c_str(),
                     content.ill_formed);
    return std::move(content.text);
}

}  // namespace program
