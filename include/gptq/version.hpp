// The version of the library, in one place.
#pragma once

#include <string_view>

namespace gptq {

/// As it appears in `meta.quantizer` of the checkpoints that are written ("gptq:<version>").
inline constexpr std::string_view version_string = "0.1.0";

}  // namespace gptq
