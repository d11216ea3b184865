// divided_windows: the windows of a text that steps of training read, and those that none reads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include <gptq/model/calibration.hpp>

namespace gptq::model::detail {

/// Windows that steps read, in an order that looks random and is always the same, and those that none reads.
struct divided_windows {
    static constexpr std::size_t part = 8, most = 8;

    std::vector<std::span<const std::int32_t>> read, held_out;

    explicit divided_windows(const token_windows& windows) {
        const std::size_t count = windows.count(), apart = std::clamp<std::size_t>(count / part, 1, most);
        for (std::size_t w = 0, next = 1; w < count; ++w) {
            const auto window = std::span(windows.tokens).subspan(w * windows.length, windows.length);
            const bool last_of_part = w + 1 == next * count / apart;
            (last_of_part ? held_out : read).push_back(window);
            if (last_of_part) ++next;
        }
    }

    std::span<const std::int32_t> of_step(std::size_t step) {
        if (step % read.size() == 0)
            for (std::size_t i = read.size(); i > 1; --i) std::swap(read[i - 1], read[random_() % i]);
        return read[step % read.size()];
    }

 private:
    std::mt19937_64 random_;
};

}  // namespace gptq::model::detail
