// Communicator: how the processes, or threads, that do one piece of work together tell each other what they found.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gptq/error.hpp>

namespace gptq {

/// Another rank goes no further, or is not there any more; the message says which, and why.
class communication_error : public error {
 public:
    using error::error;
};

/// One message of bytes for each rank, or from each.
using rank_messages = std::vector<std::vector<std::byte>>;

/// One of several ranks. All of them call exchange and sum in the same order, with sums of the same length.
///
///  1. size() is at least 1, rank() is from 0 to size() - 1 and another one on each rank; neither changes.
///  2. neighbours() is how many ranks share this machine's memory, this one among them.
///  3. exchange(bytes) returns what each rank gave, by rank, and the same on every rank. Lengths may differ, and be 0.
///  4. sum(numbers) puts in the place of each number the sum over all ranks, added in the order of the ranks; the same
///     bytes on every rank.
///  5. After fail(reason), exchange and sum of the other ranks throw communication_error with the rank and the reason,
///     also those that wait already. fail itself throws nothing and waits for nobody.
template <class C>
concept Communicator = requires(C& c, const C& fixed, std::span<const std::byte> bytes, std::span<float> numbers,
                                const std::string& reason) {
    { fixed.rank() } -> std::convertible_to<std::size_t>;
    { fixed.size() } -> std::convertible_to<std::size_t>;
    { fixed.neighbours() } -> std::convertible_to<std::size_t>;
    { c.exchange(bytes) } -> std::convertible_to<rank_messages>;
    c.sum(numbers);
    c.fail(reason);
};

/// The only rank of a piece of work.
struct single_process {
    std::size_t rank() const { return 0; }
    std::size_t size() const { return 1; }
    std::size_t neighbours() const { return 1; }
    rank_messages exchange(std::span<const std::byte> bytes) const { return {{bytes.begin(), bytes.end()}}; }
    void sum(std::span<float>) const {}
    void fail(const std::string&) const noexcept {}
};

/// Any Communicator by reference and without its type, or single_process. The communicator outlives it.
class communicator_ref {
 public:
    communicator_ref() = default;
    template <Communicator C>
    requires(!std::is_same_v<C, communicator_ref>) communicator_ref(C& ranks)
        : ranks_(std::addressof(ranks)),
          rank_(ranks.rank()),
          size_(ranks.size()),
          neighbours_(ranks.neighbours()),
          exchange_([](void* c, std::span<const std::byte> bytes) -> rank_messages {
              return static_cast<C*>(c)->exchange(bytes);
          }),
          sum_([](void* c, std::span<float> numbers) { static_cast<C*>(c)->sum(numbers); }),
          fail_([](void* c, const std::string& reason) { static_cast<C*>(c)->fail(reason); }) {}

    std::size_t rank() const { return rank_; }
    std::size_t size() const { return size_; }
    std::size_t neighbours() const { return neighbours_; }
    bool alone() const { return size_ == 1; }
    bool leads() const { return rank_ == 0; }

    rank_messages exchange(std::span<const std::byte> bytes) const {
        return ranks_ == nullptr ? single_process().exchange(bytes) : exchange_(ranks_, bytes);
    }
    void sum(std::span<float> numbers) const {
        if (ranks_ != nullptr) sum_(ranks_, numbers);
    }
    void fail(const std::string& reason) const {
        if (ranks_ != nullptr) fail_(ranks_, reason);
    }

 private:
    void* ranks_ = nullptr;
    std::size_t rank_ = 0, size_ = 1, neighbours_ = 1;
    rank_messages (*exchange_)(void*, std::span<const std::byte>) = nullptr;
    void (*sum_)(void*, std::span<float>) = nullptr;
    void (*fail_)(void*, const std::string&) = nullptr;
};

}  // namespace gptq
