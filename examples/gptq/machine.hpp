// What a measurement was made on, and how much memory it took.
#pragma once

#include <cstdint>
#include <optional>

#include <nlohmann/json.hpp>

namespace program {

/// {"threads", "processor", "instruction_set", "blas"}: what decides how fast and in which last digits something is
/// computed.
nlohmann::ordered_json machine_json();

/// From here on peak_memory() counts anew, where the system can (Linux).
void begin_peak_memory();

/// The most bytes of memory that this process had at once; nothing if the system does not say.
std::optional<std::uint64_t> peak_memory();

}  // namespace program
