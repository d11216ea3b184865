// thread_ranks: the threads of one process as the ranks of a Communicator.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/error.hpp>
#include <gptq/messages.hpp>

namespace gptq {

/// `size` ranks, one a thread. It outlives the communicators that it hands out.
class thread_ranks {
 public:
    explicit thread_ranks(std::size_t size) : size_(size) {
        if (size == 0) throw option_error("thread_ranks: at least one rank is needed");
    }

    /// A model of Communicator.
    class communicator {
     public:
        communicator(thread_ranks& all, std::size_t rank) : all_(all), rank_(rank) {}

        std::size_t rank() const { return rank_; }
        std::size_t size() const { return all_.size_; }
        std::size_t neighbours() const { return all_.size_; }
        rank_messages exchange(std::span<const std::byte> bytes) { return all_.exchange(rank_, bytes); }
        void sum(std::span<float> numbers) {
            const rank_messages given = exchange(std::as_bytes(numbers));
            for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = 0.0f;
            for (const auto& message : given) {
                const std::vector<float> theirs = numbers_in<float>(message);
                for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] += theirs.at(i);
            }
        }
        void fail(const std::string& reason) { all_.fail(rank_, reason); }

     private:
        thread_ranks& all_;
        std::size_t rank_;
    };

    communicator of(std::size_t rank) { return {*this, rank}; }

 private:
    /// The last rank to come completes the round; those of the round before have taken it by then, or will not.
    rank_messages exchange(std::size_t rank, std::span<const std::byte> bytes) {
        std::unique_lock lock(mutex_);
        check();
        gathering_.resize(size_);
        gathering_[rank].assign(bytes.begin(), bytes.end());
        const std::size_t round = round_;
        if (++arrived_ == size_) {
            complete_ = std::exchange(gathering_, {});
            arrived_ = 0;
            ++round_;
            changed_.notify_all();
        }
        changed_.wait(lock, [&] { return round_ != round || failure_; });
        if (round_ == round) check();
        return complete_;
    }

    void fail(std::size_t rank, const std::string& reason) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = "rank " + std::to_string(rank) + " has stopped: " + reason;
        changed_.notify_all();
    }

    void check() const {
        if (failure_) throw communication_error(*failure_);
    }

    const std::size_t size_;
    std::mutex mutex_;
    std::condition_variable changed_;
    rank_messages gathering_, complete_;
    std::size_t arrived_ = 0, round_ = 0;
    std::optional<std::string> failure_;
};

}  // namespace gptq
