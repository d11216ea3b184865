// Reading a text file whole.
#pragma once

#include <limits>
#include <string>

#include <gptq/io/file.hpp>

namespace program {

/// Throws io_error naming the file and the system's reason.
inline std::string read_text(const std::string& path) {
    return gptq::io::read_text_file(path, std::numeric_limits<std::size_t>::max());
}

}  // namespace program
