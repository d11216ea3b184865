// The version of the library; CMakeLists.txt reads it from here.
#pragma once

namespace gptq {

/// Semantic version: major.minor.patch. While the major number is 0, a new minor number may break callers.
inline constexpr const char* version = "0.1.0";

}  // namespace gptq
