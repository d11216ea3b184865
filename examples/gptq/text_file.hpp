// Reading a text file whole.
#pragma once

#include <cstddef>
#include <limits>
#include <string>

#include <gptq/io/file.hpp>

namespace program {

/// The text with every line ended by "\n", whether the file ends them so, with "\r\n" or with "\r". Other programs read
/// text in this way, and a model's perplexity depends on it. Throws io_error naming the file and the system's reason.
inline std::string read_text(const std::string& path) {
    std::string text = gptq::io::read_text_file(path, std::numeric_limits<std::size_t>::max());
    std::size_t kept = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool carriage_return = text[i] == '\r';
        if (carriage_return && i + 1 < text.size() && text[i + 1] == '\n') continue;
        text[kept++] = carriage_return ? '\n' : text[i];
    }
    text.resize(kept);
    return text;
}

}  // namespace program
