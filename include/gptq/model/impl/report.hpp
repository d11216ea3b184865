// The bodies of <gptq/model/report.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/report.hpp>

namespace gptq::model {

GPTQ_INLINE comparison compare(double before, double after, std::vector<module_record> records, std::size_t count) {
    std::stable_sort(records.begin(), records.end(), [](const module_record& a, const module_record& b) {
        return a.relative_error > b.relative_error;
    });
    if (records.size() > count) records.resize(count);
    const double increase = after / before - 1.0;
    return {before, after, increase, !(increase <= large_increase), std::move(records)};
}

}  // namespace gptq::model

namespace gptq::model {
namespace detail {

inline std::string percent_string(double fraction, const char* format) {
    char text[40];
    std::snprintf(text, sizeof text, format, 100.0 * fraction);
    return text;
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE std::string describe(const comparison& c) {
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
