// The bodies of <gptq/model/report.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <map>
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

GPTQ_INLINE std::vector<std::size_t> far_above_their_kind(const std::vector<std::string>& kinds,
                                                          const std::vector<double>& errors) {
    constexpr std::size_t fewest = 4;
    constexpr double times = 5.0, least = 0.01;
    std::map<std::string, std::vector<double>> of_kind;
    for (std::size_t i = 0; i < errors.size(); ++i)
        of_kind[kinds[i]].push_back(std::isnan(errors[i]) ? std::numeric_limits<double>::infinity() : errors[i]);
    std::vector<std::size_t> far;
    for (std::size_t i = 0; i < errors.size(); ++i) {
        std::vector<double>& all = of_kind[kinds[i]];
        if (all.size() < fewest) continue;
        const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
        std::nth_element(all.begin(), middle, all.end());
        if (!(errors[i] <= std::max(least, times * *middle))) far.push_back(i);
    }
    return far;
}

namespace detail {

/// "layer 0 mlp.down_proj, layer 1 mlp.down_proj and 3 more"
inline std::string list_of_modules(const std::vector<module_record>& records) {
    constexpr std::size_t most = 5;
    std::string text;
    for (std::size_t i = 0; i < std::min(most, records.size()); ++i)
        text += (i == 0 ? "layer " : ", layer ") + std::to_string(records[i].layer) + " " + records[i].module;
    return records.size() <= most ? text : text + " and " + std::to_string(records.size() - most) + " more";
}

inline std::string percent_string(double fraction, const char* format) {
    char text[40];
    std::snprintf(text, sizeof text, format, 100.0 * fraction);
    return text;
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE std::vector<std::string> outstanding_errors(const std::vector<module_record>& records) {
    std::vector<std::string> kinds, found;
    std::vector<double> errors;
    std::vector<module_record> hard, worse;
    for (const module_record& r : records) {
        kinds.push_back(r.module);
        errors.push_back(r.relative_error);
        if (!(r.error <= r.rtn_error)) worse.push_back(r);
    }
    for (const std::size_t i : far_above_their_kind(kinds, errors)) hard.push_back(records[i]);
    if (!hard.empty())
        found.push_back("far larger errors than in other blocks: " + detail::list_of_modules(hard) +
                        "; their inputs likely have outliers: give them 8 bits by a rule of --dynamic, or smaller "
                        "groups");
    if (!worse.empty())
        found.push_back("larger errors than rounded to nearest: " + detail::list_of_modules(worse) +
                        "; the Hessian likely says too little: calibrate with more text, or with more damping");
    return found;
}

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
