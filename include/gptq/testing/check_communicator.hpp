// check_communicator: holds a Communicator to the sentences in <gptq/communicator.hpp>.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

/// What rank r gives in a round: another length each time, one of which is 0.
inline std::vector<std::byte> message_of(std::size_t rank, std::size_t round) {
    std::vector<std::byte> message((rank + round) % 3 * 700);
    for (std::size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(7 * rank + 3 * round + i);
    return message;
}

template <Communicator C>
void check_exchange(C& ranks, findings& found) {
    for (std::size_t round = 0; round < 5; ++round) {
        const rank_messages given = ranks.exchange(message_of(ranks.rank(), round));
        if (given.size() != ranks.size()) return found.report(3, "another number of messages than of ranks");
        for (std::size_t r = 0; r < given.size(); ++r)
            if (given[r] != message_of(r, round)) found.report(3, "not what rank " + std::to_string(r) + " gave");
    }
}

/// 1 and then 2^-24 twice: in this order it stays 1, and in any other it does not.
template <Communicator C>
void check_sum(C& ranks, findings& found) {
    std::vector<float> numbers(1000);
    const auto of = [](std::size_t rank, std::size_t i) {
        return rank == i % 2 ? 1.0f : 0x1p-24f * static_cast<float>(i % 7);
    };
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = of(ranks.rank(), i);
    ranks.sum(numbers);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        float expected = of(0, i);
        for (std::size_t r = 1; r < ranks.size(); ++r) expected += of(r, i);
        if (numbers[i] != expected)
            return found.report(4, text(numbers[i]) + " in place of " + text(expected) + ", in the order of the ranks");
    }
    ranks.sum(std::span<float>());
}

}  // namespace detail

/// Every rank calls it, at the same time, and gets what it found itself. It does not call fail().
template <Communicator C>
[[nodiscard]] violations check_communicator(C& ranks) {
    detail::findings found("Communicator");
    if (ranks.size() == 0 || ranks.rank() >= ranks.size()) {
        found.report(1, "rank " + std::to_string(ranks.rank()) + " of " + std::to_string(ranks.size()));
        return found.take();
    }
    if (ranks.neighbours() == 0 || ranks.neighbours() > ranks.size())
        found.report(2, std::to_string(ranks.neighbours()) + " of " + std::to_string(ranks.size()));
    found.attempt(3, [&] { detail::check_exchange(ranks, found); });
    found.attempt(4, [&] { detail::check_sum(ranks, found); });
    return found.take();
}

}  // namespace gptq::testing
