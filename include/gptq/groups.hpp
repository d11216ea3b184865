// Group policies: how many input features share a scale.
#pragma once

#include <algorithm>
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
    static constexpr int value = Size;  ///< input features, per_channel or dynamic

    /// The number of input features in a (full) group of a layer with `in_features` inputs. `requested` is for
    /// group_size<dynamic>: a positive size of at most in_features, or per_channel; other policies accept their own
    /// size and `dynamic`, which asks for nothing. Throws option_error for other requests.
    static std::size_t features(std::size_t in_features, int requested = dynamic) {
        if constexpr (Size == dynamic) {
            check_request(in_features, requested);
            return requested == per_channel ? in_features : static_cast<std::size_t>(requested);
        } else {
            if (requested != dynamic && requested != Size)
                throw option_error("group_size: " + std::to_string(requested) + " was asked for, but the scheme's is " +
                                   std::to_string(Size) + "; leave the option out, or use group_size<dynamic>");
            return Size == per_channel ? in_features : std::min(static_cast<std::size_t>(Size), in_features);
        }
    }

 private:
    static void check_request(std::size_t in_features, int requested) {
        if (requested == dynamic)
            throw option_error("group_size: the scheme leaves it to the options; set the option group_size");
        if (requested <= 0 && requested != per_channel)
            throw option_error("group_size: " + std::to_string(requested) +
                               " is not a size; give a positive number or -1 for one group per row");
        if (requested > 0 && static_cast<std::size_t>(requested) > in_features)
            throw option_error("group_size: " + std::to_string(requested) + " is more than the " +
                               std::to_string(in_features) + " inputs of the layer; -1 makes one group per row");
    }
};

/// The number of groups, the last one possibly short.
constexpr std::size_t group_count(std::size_t in_features, std::size_t group_features) {
    return (in_features + group_features - 1) / group_features;
}

namespace detail {

/// Policy::features, held to its promise. Throws concept_error where it breaks it.
template <class Policy>
std::size_t features_of(std::size_t in_features, int requested) {
    const std::size_t features = Policy::features(in_features, requested);
    if (features == 0 || features > in_features)
        throw concept_error("GroupPolicy 1: features(" + std::to_string(in_features) + ", ...) returns " +
                            std::to_string(features) + ", which is not between 1 and the number of inputs");
    return features;
}

}  // namespace detail
}  // namespace gptq
