// The threads of a block on the host: each has a stack of its own, all of them take turns on one thread of the system.
// A thread gives its turn away where it waits, so that a barrier costs no more than a change of stacks.
//
// The sanitizers are told about every change. ThreadSanitizer takes the members of a team for threads that nothing
// orders but atomic numbers, as on a device.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ucontext.h>

#include <gptq/error.hpp>

// g++ says which sanitizers watch by macros, clang by features.
#if defined(__SANITIZE_ADDRESS__)
#define GPTQ_FIBERS_ADDRESS
#elif defined(__SANITIZE_THREAD__)
#define GPTQ_FIBERS_THREAD
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GPTQ_FIBERS_ADDRESS
#elif __has_feature(thread_sanitizer)
#define GPTQ_FIBERS_THREAD
#endif
#endif
#ifdef GPTQ_FIBERS_ADDRESS
#include <sanitizer/asan_interface.h>
#endif
#ifdef GPTQ_FIBERS_THREAD
#include <sanitizer/tsan_interface.h>
#endif

namespace gptq::cuda::detail {

/// What the sanitizers know of a stack: where it is, and what they keep of it while another one is in use.
class watched_stack {
 public:
    /// The stack of the caller.
    watched_stack() = default;
    /// A stack of `bytes` bytes from `bottom` on.
    watched_stack([[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t bytes) {
#ifdef GPTQ_FIBERS_ADDRESS
        bottom_ = bottom;
        bytes_ = bytes;
#endif
#ifdef GPTQ_FIBERS_THREAD
        thread_ = __tsan_create_fiber(0);
#endif
    }
    /// Forgets a stack of a fiber.
    void forget() {
#ifdef GPTQ_FIBERS_THREAD
        __tsan_destroy_fiber(thread_);
#endif
    }
    /// Called once on the caller's own stack, before anything else is.
    void is_current() {
#ifdef GPTQ_FIBERS_THREAD
        thread_ = __tsan_get_current_fiber();
#endif
    }
    /// The frames that were on this stack are no more.
    void begin_anew() {
#ifdef GPTQ_FIBERS_ADDRESS
        __asan_unpoison_memory_region(bottom_, bytes_);
#endif
    }
    /// Called on this stack, right before it gives way to `next`; `ends`: for the last time. Inlined, because
    /// ThreadSanitizer must see the caller return from nothing in between.
    [[gnu::always_inline]] void leave_to([[maybe_unused]] watched_stack& next, [[maybe_unused]] bool ends) {
#ifdef GPTQ_FIBERS_ADDRESS
        __sanitizer_start_switch_fiber(ends ? nullptr : &kept_, next.bottom_, next.bytes_);
#endif
#ifdef GPTQ_FIBERS_THREAD
        __tsan_switch_to_fiber(next.thread_, 1);  // 1: the change orders nothing
#endif
    }
    /// Called on this stack, right after it came to its turn from `previous`.
    [[gnu::always_inline]] void enter_from([[maybe_unused]] watched_stack& previous) {
#ifdef GPTQ_FIBERS_ADDRESS
        __sanitizer_finish_switch_fiber(kept_, &previous.bottom_, &previous.bytes_);
        kept_ = nullptr;
#endif
    }

 private:
#ifdef GPTQ_FIBERS_ADDRESS
    void* kept_ = nullptr;
    const void* bottom_ = nullptr;
    std::size_t bytes_ = 0;
#endif
#ifdef GPTQ_FIBERS_THREAD
    void* thread_ = nullptr;
#endif
};

/// Members that take turns on the caller's thread.
class fiber_team {
 public:
    /// Runs on the thread that makes it.
    explicit fiber_team(std::size_t members) : members_(members + 1) {
        for (std::size_t i = 0; i < members; ++i) {
            members_[i].stack = std::make_unique_for_overwrite<std::byte[]>(stack_bytes);
            members_[i].watched = watched_stack(members_[i].stack.get(), stack_bytes);
        }
        members_[caller()].watched.is_current();
    }
    ~fiber_team() {
        for (std::size_t i = 0; i < caller(); ++i) members_[i].watched.forget();
    }
    fiber_team(const fiber_team&) = delete;
    fiber_team& operator=(const fiber_team&) = delete;

    /// body(i) for every member i; returns when all have returned. No body throws.
    void run(const std::function<void(std::size_t)>& body) {
        body_ = &body;
        waits_ = 0;
        returned_ = 0;
        current_ = caller();
        for (std::size_t i = 0; i < caller(); ++i) prepare(i);
        begun_.fetch_add(1, std::memory_order_acq_rel);
        if (caller() > 0) change_to(0, false);
        returned_.load(std::memory_order_acquire);
    }

    /// Called by a member that cannot go on: the others have their turns. Throws error if none of them can go on.
    void wait() {
        if (waits_.fetch_add(1, std::memory_order_relaxed) > 2 * caller())
            throw error("barrier: threads wait here that others, which wait elsewhere, do not reach");
        change_to(next_member(), false);
    }
    /// Called by a member that may have made it possible for others to go on.
    void progress() { waits_.store(0, std::memory_order_relaxed); }

 private:
    static constexpr std::size_t stack_bytes = 256 * 1024;

    struct member {
        ucontext_t context{};
        std::unique_ptr<std::byte[]> stack;
        watched_stack watched;
        std::atomic<bool> returned = false;
    };

    std::size_t caller() const { return members_.size() - 1; }

    void prepare(std::size_t i) {
        member& m = members_[i];
        m.returned.store(false, std::memory_order_relaxed);
        m.watched.begin_anew();
        if (getcontext(&m.context) != 0) throw error("fibers: the system has no contexts");
        m.context.uc_stack.ss_sp = m.stack.get();
        m.context.uc_stack.ss_size = stack_bytes;
        m.context.uc_link = nullptr;
        // Arguments of makecontext are ints: the address goes in two halves.
        const auto address = reinterpret_cast<std::uintptr_t>(this);
        makecontext(&m.context, reinterpret_cast<void (*)()>(&fiber_team::start), 2,
                    static_cast<unsigned>(address >> 32), static_cast<unsigned>(address & 0xffffffffu));
        m.context.uc_stack.ss_size = 0;  // or AddressSanitizer would clean the whole stack at every change
    }

    static void start(unsigned high, unsigned low) {
        const auto address = std::uintptr_t{high} << 32 | low;
        reinterpret_cast<fiber_team*>(address)->run_current();
    }

    void run_current() {
        const std::size_t i = current_.load(std::memory_order_relaxed);
        members_[i].watched.enter_from(members_[previous_.load(std::memory_order_relaxed)].watched);
        begun_.load(std::memory_order_acquire);
        (*body_)(i);
        members_[i].returned.store(true, std::memory_order_relaxed);
        progress();
        change_to(next_member(), true);
    }

    /// The next member that has not returned; the caller if there is none.
    std::size_t next_member() const {
        const std::size_t i = current_.load(std::memory_order_relaxed);
        for (std::size_t step = 1; step <= caller(); ++step) {
            const std::size_t next = (i + step) % caller();
            if (!members_[next].returned.load(std::memory_order_relaxed)) return next;
        }
        return caller();
    }

    void change_to(std::size_t next, bool ends) {
        const std::size_t i = current_.load(std::memory_order_relaxed);
        if (next == i) return;
        previous_.store(i, std::memory_order_relaxed);
        current_.store(next, std::memory_order_relaxed);
        watched_stack to = members_[next].watched;
        if (ends) returned_.fetch_add(1, std::memory_order_acq_rel);  // this member reads no more of the team's memory
        members_[i].watched.leave_to(to, ends);
        swapcontext(&members_[i].context, &members_[next].context);
        members_[i].watched.enter_from(members_[previous_.load(std::memory_order_relaxed)].watched);
    }

    // Numbers that members share are atomic, so that ThreadSanitizer has no complaint of them.
    std::vector<member> members_;  // the caller is the last one
    const std::function<void(std::size_t)>* body_ = nullptr;
    std::atomic<std::size_t> current_ = 0, previous_ = 0, waits_ = 0, returned_ = 0, begun_ = 0;
};

/// Where the members of a team, or some of them, meet. What each did before, all see after it.
class fiber_barrier {
 public:
    fiber_barrier(fiber_team& team, std::size_t members) : team_(team), members_(members) {}

    void arrive_and_wait() {
        team_.progress();
        const std::size_t meeting = meeting_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_.load(std::memory_order_relaxed))
            return open();
        while (meeting_.load(std::memory_order_acquire) == meeting) team_.wait();
    }
    /// The member takes no part in this meeting, nor in any after it.
    void arrive_and_drop() {
        team_.progress();
        const std::size_t members = members_.fetch_sub(1, std::memory_order_acq_rel) - 1;
        const std::size_t arrived = arrived_.load(std::memory_order_acquire);
        if (arrived != 0 && arrived == members) open();
    }

 private:
    void open() {
        arrived_.store(0, std::memory_order_relaxed);
        meeting_.fetch_add(1, std::memory_order_acq_rel);
    }

    fiber_team& team_;
    std::atomic<std::size_t> members_, arrived_ = 0, meeting_ = 0;
};

}  // namespace gptq::cuda::detail

#undef GPTQ_FIBERS_ADDRESS
#undef GPTQ_FIBERS_THREAD
