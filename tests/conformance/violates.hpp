// Whether a check found what it should have found.
#pragma once

#include <algorithm>
#include <string>

#include <gptq/testing/violations.hpp>

namespace gptq_test {

/// True if one of the lines starts with `sentence`, such as "Backend 4:".
inline bool violates(const gptq::testing::violations& found, const std::string& sentence) {
    return std::any_of(found.begin(), found.end(),
                       [&](const std::string& line) { return line.rfind(sentence + ":", 0) == 0; });
}

}  // namespace gptq_test
