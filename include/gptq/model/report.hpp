// A quantized model beside the one it was made from: is the loss acceptable, and which modules lose most?
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include <gptq/model/quantize_log.hpp>

namespace gptq::model {

/// An increase of perplexity above this part of the float model's is reported as large.
inline constexpr double large_increase = 0.20;

struct comparison {
    double before = 0.0;               ///< perplexity of the float model
    double after = 0.0;                ///< perplexity of the quantized one
    double increase = 0.0;             ///< after / before - 1
    bool large = false;                ///< increase > large_increase, or `after` is not a number
    std::vector<module_record> worst;  ///< modules by falling relative error, at most `count` of them
};

/// Compares two perplexities of the same text; `records` are those of the quantization, empty if unknown.
inline comparison compare(double before, double after, std::vector<module_record> records, std::size_t count = 5) {
    std::stable_sort(records.begin(), records.end(), [](const module_record& a, const module_record& b) {
        return a.relative_error > b.relative_error;
    });
    if (records.size() > count) records.resize(count);
    const double increase = after / before - 1.0;
    return {before, after, increase, !(increase <= large_increase), std::move(records)};
}

namespace detail {

inline std::string percent_string(double fraction, const char* format) {
    char text[40];
    std::snprintf(text, sizeof text, format, 100.0 * fraction);
    return text;
}

}  // namespace detail

/// The comparison in words, one line a fact; names modules only if the increase is large.
inline std::string describe(const comparison& c) {
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "perplexity %.4f before, %.4f after", c.before, c.after);
    std::string text = std::string(numbers) + ": " + detail::percent_string(c.increase, "%+.1f %%") + "\n";
    if (!c.large) return text;
    text += "That is more than " + detail::percent_string(large_increase, "%.0f %%") +
            "; more bits, smaller groups or the group-aware order lose less.\n";
    if (c.worst.empty()) return text;
    text += "Modules that lose most, by the part of their outputs' energy that is wrong:\n";
    for (const module_record& r : c.worst)
        text += "  layer " + std::to_string(r.layer) + " " + r.module + ": " +
                detail::percent_string(r.relative_error, "%.2f %%") + "\n";
    return text;
}

}  // namespace gptq::model
