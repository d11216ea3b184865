// work_queue: what the host does beside a backend that computes elsewhere.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace gptq::model {

/// Does pieces of work one after the other in a thread of its own, all that were added before it is destroyed. Where a
/// piece throws, those after it are dropped, and the next call of add() or finish() throws the same.
class work_queue {
 public:
    /// At most `most` pieces wait: add() waits until there is room. With 0, add() does the work itself.
    explicit work_queue(std::size_t most) : most_(most) {
        if (most_ != 0) thread_ = std::thread([this] { work(); });
    }
    work_queue(const work_queue&) = delete;
    work_queue& operator=(const work_queue&) = delete;
    ~work_queue() {
        if (thread_.joinable()) end();
    }

    void add(std::function<void()>&& piece) {
        if (most_ == 0) return piece();
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return waiting_.size() < most_ || failure_; });
        if (failure_) std::rethrow_exception(failure_);
        waiting_.push_back(std::move(piece));
        changed_.notify_all();
    }

    /// Waits until all is done. Nothing can be added afterwards.
    void finish() {
        if (thread_.joinable()) end();
        if (failure_) std::rethrow_exception(failure_);
    }

 private:
    void end() {
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    void work() {
        std::unique_lock lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return ended_ || !waiting_.empty(); });
            if (waiting_.empty() || failure_) return;
            const std::function<void()> piece = std::move(waiting_.front());
            waiting_.pop_front();
            lock.unlock();
            changed_.notify_all();
            try {
                piece();
                lock.lock();
            } catch (...) {
                lock.lock();
                failure_ = std::current_exception();
                changed_.notify_all();
                return;
            }
        }
    }

    std::size_t most_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> waiting_;
    std::exception_ptr failure_;
    bool ended_ = false;
    std::thread thread_;
};

}  // namespace gptq::model
