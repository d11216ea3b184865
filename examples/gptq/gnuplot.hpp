// Charts by gnuplot, which runs as a program of its own where it is installed.
#pragma once

#include <optional>
#include <string>

namespace program {

/// What `gnuplot` prints for a script on standard output; nothing where it is not installed or fails.
std::optional<std::string> run_gnuplot(const std::string& script);

}  // namespace program
