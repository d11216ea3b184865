// mpi_communicator: the processes that mpirun starts as the ranks of a Communicator. MPI is version 3 or later.
#pragma once

// Their old C++ interface is not used, and does not compile without warnings.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/messages.hpp>

namespace gptq {

/// A model of Communicator on a copy of an MPI communicator. MPI_Init has been called, and MPI_Finalize comes after the
/// end of it. One thread uses it at a time.
class mpi_communicator {
 public:
    explicit mpi_communicator(MPI_Comm world = MPI_COMM_WORLD) {
        MPI_Comm_dup(world, &all_);
        MPI_Comm here = MPI_COMM_NULL;
        MPI_Comm_split_type(all_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
        rank_ = number_of(MPI_Comm_rank, all_);
        size_ = number_of(MPI_Comm_size, all_);
        neighbours_ = number_of(MPI_Comm_size, here);
        MPI_Comm_free(&here);
    }
    mpi_communicator(const mpi_communicator&) = delete;
    mpi_communicator& operator=(const mpi_communicator&) = delete;
    /// After a failure, messages that nobody takes are left to MPI_Abort.
    ~mpi_communicator() {
        if (!failed_) MPI_Comm_free(&all_);
    }

    std::size_t rank() const { return rank_; }
    std::size_t size() const { return size_; }
    std::size_t neighbours() const { return neighbours_; }

    rank_messages exchange(std::span<const std::byte> bytes) {
        mine_.assign(bytes.begin(), bytes.end());
        length_ = bytes.size();
        lengths_.resize(size_);
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Iallgather(&length_, 1, MPI_UINT64_T, lengths_.data(), 1, MPI_UINT64_T, all_, &request);
        wait(request);
        rank_messages given;
        for (const std::uint64_t length : lengths_) given.emplace_back(length);
        const std::uint64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
        const std::size_t piece = std::max<std::size_t>(1, most_at_once / size_);
        for (std::uint64_t first = 0; first < longest; first += piece) exchange_piece(first, piece, given);
        return given;
    }

    /// Each rank adds a part of the numbers up, and gives it to the others: about twice the numbers go out of each.
    void sum(std::span<float> numbers) {
        for (std::size_t first = 0; first < numbers.size(); first += most_at_once / sizeof(float))
            sum_piece(numbers.subspan(first, std::min(numbers.size() - first, most_at_once / sizeof(float))));
    }

    void fail(const std::string& reason) {
        if (failed_) return;
        failed_ = true;
        reason_ = reason.substr(0, max_message_bytes);
        for (std::size_t r = 0; r < size_; ++r) {
            MPI_Request request = MPI_REQUEST_NULL;
            if (r != rank_) {
                MPI_Isend(reason_.data(), static_cast<int>(reason_.size()), MPI_CHAR, static_cast<int>(r), failure_tag,
                          all_, &request);
                MPI_Request_free(&request);
            }
        }
    }

 private:
    static constexpr int failure_tag = 1;
    static constexpr std::size_t most_at_once = std::size_t{1} << 28;  // bytes; MPI counts in int

    static std::size_t number_of(int (*ask)(MPI_Comm, int*), MPI_Comm ranks) {
        int number = 0;
        ask(ranks, &number);
        return static_cast<std::size_t>(number);
    }

    /// Returns when the operation is complete. Throws communication_error when another rank says that it has stopped.
    void wait(MPI_Request& request) {
        using namespace std::chrono_literals;
        for (std::size_t round = 0;; ++round) {
            int done = 0, waiting = 0;
            MPI_Status status;
            MPI_Test(&request, &done, MPI_STATUS_IGNORE);
            if (done != 0) return;
            MPI_Iprobe(MPI_ANY_SOURCE, failure_tag, all_, &waiting, &status);
            if (waiting != 0) throw_failure(status);
            // Ranks of one machine share its processors: who waits long leaves them to who works.
            if (round > 100) std::this_thread::sleep_for(50us);
        }
    }

    [[noreturn]] void throw_failure(MPI_Status& status) {
        failed_ = true;
        int length = 0;
        MPI_Get_count(&status, MPI_CHAR, &length);
        std::string reason(static_cast<std::size_t>(length), '\0');
        MPI_Recv(reason.data(), length, MPI_CHAR, status.MPI_SOURCE, failure_tag, all_, MPI_STATUS_IGNORE);
        throw communication_error("rank " + std::to_string(status.MPI_SOURCE) + " has stopped: " + reason);
    }

    /// Bytes [first, first + piece) of each message, as far as it has them.
    void exchange_piece(std::uint64_t first, std::size_t piece, rank_messages& given) {
        const auto length_of = [first, piece](std::uint64_t size) {
            return static_cast<int>(std::min<std::uint64_t>(piece, size - std::min(size, first)));
        };
        counts_.clear();
        places_.clear();
        int all = 0;
        for (const auto& message : given) {
            counts_.push_back(length_of(message.size()));
            places_.push_back(all);
            all += counts_.back();
        }
        theirs_.resize(static_cast<std::size_t>(all));
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Iallgatherv(mine_.data() + std::min<std::uint64_t>(mine_.size(), first), counts_[rank_], MPI_BYTE,
                        theirs_.data(), counts_.data(), places_.data(), MPI_BYTE, all_, &request);
        wait(request);
        for (std::size_t r = 0; r < size_; ++r)
            if (counts_[r] != 0)
                std::memcpy(given[r].data() + first, theirs_.data() + places_[r], static_cast<std::size_t>(counts_[r]));
    }

    void sum_piece(std::span<float> numbers) {
        counts_.clear();
        places_.clear();
        for (std::size_t r = 0; r < size_; ++r) {
            places_.push_back(static_cast<int>(numbers.size() * r / size_));
            counts_.push_back(static_cast<int>(numbers.size() * (r + 1) / size_) - places_.back());
        }
        const std::size_t mine = static_cast<std::size_t>(counts_[rank_]);
        equal_.assign(size_, counts_[rank_]);
        beside_.clear();
        for (std::size_t r = 0; r < size_; ++r) beside_.push_back(static_cast<int>(r * mine));
        numbers_.assign(numbers.begin(), numbers.end());
        parts_.resize(size_ * mine);
        sums_.assign(mine, 0.0f);
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Ialltoallv(numbers_.data(), counts_.data(), places_.data(), MPI_FLOAT, parts_.data(), equal_.data(),
                       beside_.data(), MPI_FLOAT, all_, &request);
        wait(request);
        for (std::size_t i = 0; i < mine; ++i)
            for (std::size_t r = 0; r < size_; ++r) sums_[i] += parts_[r * mine + i];
        MPI_Iallgatherv(sums_.data(), counts_[rank_], MPI_FLOAT, numbers_.data(), counts_.data(), places_.data(),
                        MPI_FLOAT, all_, &request);
        wait(request);
        std::copy(numbers_.begin(), numbers_.end(), numbers.begin());
    }

    MPI_Comm all_ = MPI_COMM_NULL;
    std::size_t rank_ = 0, size_ = 1, neighbours_ = 1;
    bool failed_ = false;  // this rank or another one has stopped
    std::string reason_;
    // What an operation reads and writes lies here, because wait() may throw while it goes on.
    std::uint64_t length_ = 0;
    std::vector<std::uint64_t> lengths_;
    std::vector<std::byte> mine_, theirs_;
    std::vector<int> counts_, places_, equal_, beside_;
    std::vector<float> numbers_, parts_, sums_;
};

}  // namespace gptq
