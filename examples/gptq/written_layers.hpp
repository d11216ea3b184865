// What convert and quantize say about a file or folder whose layers they have written.
#pragma once

#include <cstddef>
#include <string>

#include <gptq/io/gguf_export.hpp>

#include "output.hpp"

namespace program {

inline void print_written(const std::string& out, const std::string& form, std::size_t layers, std::size_t bytes,
                          bool json) {
    if (json) return print_json({{"out", out}, {"format", form}, {"layers", layers}, {"bytes", bytes}});
    print(format("%s: %zu layers as %s, %s of tensors\n", out.c_str(), layers, form.c_str(),
                 bytes_string(bytes).c_str()));
}

/// The form is the list of types.
inline void print_gguf_result(const std::string& out, const gptq::io::gguf_result& result, bool json) {
    std::string types;
    for (const std::string& type : result.types) types += (types.empty() ? "" : ", ") + type;
    print_written(out, types, result.layers, result.bytes, json);
}

}  // namespace program
