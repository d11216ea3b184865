// The bodies of <gptq/io/json.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/json.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE std::string quote_literals(std::string_view text) {
    std::string result;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size();) {
        if (in_string && text[i] == '\\') {
            result += text.substr(i, 2);
            i += 2;
            continue;
        }
        if (text[i] == '"') in_string = !in_string;
        std::string_view literal;
        for (const std::string_view name : {"NaN", "Infinity", "-Infinity"})
            if (!in_string && text.substr(i).starts_with(name)) literal = name;
        result += literal.empty() ? std::string(1, text[i]) : "\"\\u0001" + std::string(literal) + "\"";
        i += std::max<std::size_t>(literal.size(), 1);
    }
    return result;
}

}  // namespace detail
}  // namespace gptq::io
