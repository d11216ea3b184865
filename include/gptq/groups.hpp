// Group policies: how many input features share a scale.
#pragma once

#include <cstddef>
#include <string>

#include <gptq/error.hpp>

namespace gptq {

/// One group for all input features of a row.
inline constexpr int per_channel = -1;
/// The group size is given at run time (options.group_size).
inline constexpr int dynamic = -2;

/// `Size` input features a group: a positive number, `per_channel`, or `dynamic`. Where the size does not divide the
/// input features, the last group is short.
template <int Size>
struct group_size {
    static_assert(Size > 0 || Size == per_channel || Size == dynamic,
                  "gptq::group_size: a positive size, gptq::per_channel or gptq::dynamic");
    static constexpr int value = Size;

    /// The number of input features in a (full) group of a layer with `in_features` inputs. `requested` is read only by
    /// group_size<dynamic>: a positive size or per_channel. Throws shape_error for other requests.
    static std::size_t features(std::size_t in_features, int requested = dynamic) {
        int size = Size;
        if constexpr (Size == dynamic) size = requested;
        if (size == per_channel) return in_features;
        if (size <= 0)
            throw shape_error("group_size: " + std::to_string(size) +
                              " is not a size; give a positive number or -1 for one group per row");
        return static_cast<std::size_t>(size) < in_features ? static_cast<std::size_t>(size) : in_features;
    }
};

/// The number of groups, the last one possibly short.
constexpr std::size_t group_count(std::size_t in_features, std::size_t group_features) {
    return (in_features + group_features - 1) / group_features;
}

}  // namespace gptq
