// Damping that follows from the diagonal of a layer's Hessian.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace gptq {

/// A damping for a Hessian with this diagonal, as a fraction of the diagonal's mean: a twentieth of its median, and not
/// below 1e-4. Inputs that are always 0 do not count; without any other, 0.01.
///
/// Damping hides every input that is smaller than the damping. Where few inputs are huge, a hundredth of the mean is
/// more than most inputs have. Where all inputs are alike, more than a hundredth of the mean does better. The few huge
/// inputs do not move the median, and the damping that is best for tokens held out is proportional to it: from 1e-4 to
/// 0.05 of the mean within one model (docs/quality.md). Cost: one partial sort of K numbers.
inline double automatic_damping(std::span<const float> diagonal) {
    constexpr double of_median = 0.05, least = 1e-4, usual = 0.01;
    std::vector<float> live;
    for (const float d : diagonal)
        if (d > 0.0f) live.push_back(d);
    if (live.empty()) return usual;
    const double mean = std::accumulate(live.begin(), live.end(), 0.0) / static_cast<double>(live.size());
    const auto median = live.begin() + static_cast<std::ptrdiff_t>(live.size() / 2);
    std::nth_element(live.begin(), median, live.end());
    return std::max(least, of_median * double{*median} / mean);
}

}  // namespace gptq
