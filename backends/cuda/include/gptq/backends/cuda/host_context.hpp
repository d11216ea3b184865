// Kernels on the host: the CUDA threads of a block take turns, one block after the other. For tests, not for speed.
//
// It is stricter than a device, so that mistakes show: shared memory begins as NaNs and is bounds-checked, asynchronous
// copies spoil their destination and land no earlier than the wait that covers them, every access is an ordinary one
// that ThreadSanitizer sees, and threads that wait for each other in vain are an error. A shuffle, a load_matrix or an
// mma does order the lanes of its warp here, which the devices do not promise: a warp_barrier that is missing between
// two of them goes unnoticed.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fibers.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>

namespace gptq::cuda {

namespace detail {

/// What shared memory and the destinations of copies hold before they are written: NaN as float, half and bfloat16.
inline constexpr int poison = 0xff;

/// A pointer into shared memory that knows where its array ends.
template <class T>
class checked_pointer {
 public:
    checked_pointer(T* data, std::size_t count) : data_(data), left_(count) {}

    T& operator[](std::size_t i) const { return *range(i, 1); }
    checked_pointer operator+(std::size_t i) const {
        if (i > left_) out_of_bounds(i);
        return {data_ + i, left_ - i};
    }
    /// The `bytes` bytes from here on, which begin at a multiple of their number.
    std::byte* aligned_bytes(std::size_t bytes) const {
        const auto first = reinterpret_cast<std::byte*>(range(0, (bytes + sizeof(T) - 1) / sizeof(T)));
        if (reinterpret_cast<std::uintptr_t>(first) % bytes != 0)
            throw error("shared memory: the address is not a multiple of " + std::to_string(bytes));
        return first;
    }

 private:
    T* range(std::size_t i, std::size_t count) const {
        if (i >= left_ || count > left_ - i) out_of_bounds(i);
        return data_ + i;
    }
    [[noreturn]] void out_of_bounds(std::size_t i) const {
        throw error("shared memory: element " + std::to_string(i) + " of " + std::to_string(left_));
    }

    T* data_;
    std::size_t left_;
};

/// What a lane tells the others of its warp in one call that all lanes make.
struct lane_message {
    const char* operation = nullptr;
    std::size_t call = 0;
    std::array<std::uint32_t, 12> words{};
};

/// What the threads of a warp share. Messages of neighbouring calls lie apart, so that one barrier a call is enough.
struct host_warp {
    explicit host_warp(fiber_team& team) : barrier(team, warp_size) {}

    fiber_barrier barrier;
    std::array<std::array<lane_message, warp_size>, 2> messages{};
};

/// What the threads of a block share.
struct host_block {
    host_block(const launch_shape& shape, std::size_t block_index, fiber_team& team)
        : index(block_index), barrier(team, shape.threads), shared(shape.shared_bytes / sizeof(line) + 1) {
        for (std::size_t w = 0; w < shape.threads / warp_size; ++w) warps.emplace_back(team);
        std::memset(static_cast<void*>(shared.data()), poison, shared.size() * sizeof(line));
    }

    struct alignas(128) line {
        std::array<std::byte, 128> bytes;
    };
    std::size_t index;
    fiber_barrier barrier;
    std::deque<host_warp> warps;
    std::vector<line> shared;  // at least shared_bytes
};

/// An asynchronous copy that has not landed.
struct pending_copy {
    std::byte* to;
    const void* from;
    std::size_t bytes;
    std::size_t valid;
    void land() const {
        if (valid != 0) std::memcpy(to, from, valid);
        std::memset(to + valid, 0, bytes - valid);
    }
};

template <class T>
T element_of(std::uint32_t word, std::size_t i) {
    return T{static_cast<std::uint16_t>(word >> (16 * i))};
}

/// A float next to x, its last bit 1 unless it is x: rounding it to fewer bits gives what rounding x gives.
inline float round_to_odd(double x) {
    const float nearest = static_cast<float>(x);
    if (double{nearest} == x || std::bit_cast<std::uint32_t>(nearest) % 2 != 0) return nearest;
    const float infinity = std::numeric_limits<float>::infinity();
    return std::nextafter(nearest, double{nearest} < x ? infinity : -infinity);
}

}  // namespace detail

/// One thread of a kernel on the host; a model of kernel_context, which says what the functions do. What breaks its
/// rules throws gptq::error.
class host_context {
 public:
    host_context(const launch_shape& shape, detail::host_block& block, std::size_t thread)
        : shape_(shape), block_(block), warp_(block.warps[thread / warp_size]), thread_(thread) {}
    host_context(const host_context&) = delete;
    host_context& operator=(const host_context&) = delete;
    ~host_context() {
        block_.barrier.arrive_and_drop();
        warp_.barrier.arrive_and_drop();
    }

    std::size_t thread() const { return thread_; }
    std::size_t threads() const { return shape_.threads; }
    std::size_t warp() const { return thread_ / warp_size; }
    std::size_t lane() const { return thread_ % warp_size; }
    std::size_t block() const { return block_.index; }
    std::size_t blocks() const { return shape_.blocks; }

    void barrier() { block_.barrier.arrive_and_wait(); }
    void warp_barrier() { warp_.barrier.arrive_and_wait(); }

    template <class T>
    detail::checked_pointer<T> shared(std::size_t offset, std::size_t count) {
        if (offset % alignof(T) != 0 || offset > shape_.shared_bytes ||
            count > (shape_.shared_bytes - offset) / sizeof(T))
            throw error("shared memory: " + std::to_string(count) + " elements of " + std::to_string(sizeof(T)) +
                        " bytes at " + std::to_string(offset) + " of " + std::to_string(shape_.shared_bytes));
        return {reinterpret_cast<T*>(block_.shared.data()->bytes.data() + offset), count};
    }

    template <std::size_t Bytes, class T>
    void copy_async(detail::checked_pointer<T> to, const void* from, std::size_t valid) {
        static_assert(Bytes == 16);
        if (valid > Bytes || (valid != 0 && reinterpret_cast<std::uintptr_t>(from) % Bytes != 0))
            throw error("copy_async: " + std::to_string(valid) + " bytes, or a source that is not at a multiple of 16");
        std::byte* bytes = to.aligned_bytes(Bytes);
        std::memset(bytes, detail::poison, Bytes);
        begun_.push_back({bytes, from, Bytes, valid});
    }
    void commit_copies() { batches_.push_back(std::exchange(begun_, {})); }
    template <std::size_t Newest>
    void wait_copies() {
        while (batches_.size() > Newest) {
            for (const detail::pending_copy& copy : batches_.front()) copy.land();
            batches_.erase(batches_.begin());
        }
    }
    /// Throws if a copy was begun and never waited for.
    void expect_no_copies() const {
        bool none = begun_.empty();
        for (const auto& batch : batches_) none = none && batch.empty();
        if (!none) throw error("the thread returned before a copy that it began had landed");
    }

    template <class T>
    T shuffle(T value, std::size_t lane) {
        static_assert(sizeof(T) == 4);
        if (lane >= warp_size) throw error("shuffle from lane " + std::to_string(lane));
        const std::array<std::uint32_t, 12> words{std::bit_cast<std::uint32_t>(value)};
        return std::bit_cast<T>(exchange("shuffle", words)[lane].words[0]);
    }
    template <class T>
    T shuffle_xor(T value, std::size_t mask) {
        return shuffle(value, lane() ^ mask);
    }

    /// Every lane reads the row that it names before any other lane can know: that the row was there is not due to this
    /// call.
    template <class T>
    fragment_a load_matrix_x4(detail::checked_pointer<T> row) {
        const auto& rows = exchange("load_matrix_x4", words_of(row));
        fragment_a result;
        for (std::size_t j = 0; j < 4; ++j) result[j] = rows[8 * j + lane() / 4].words[lane() % 4];
        return result;
    }
    template <class T>
    fragment_a load_matrix_x4_transposed(detail::checked_pointer<T> row) {
        const auto& rows = exchange("load_matrix_x4_transposed", words_of(row));
        const std::size_t column = lane() / 4;
        fragment_a result;
        for (std::size_t j = 0; j < 4; ++j) {
            const auto element = [&](std::size_t i) {
                return rows[8 * j + lane() % 4 * 2 + i].words[column / 2] >> (column % 2 * 16) & 0xffffu;
            };
            result[j] = element(0) | element(1) << 16;
        }
        return result;
    }

    template <tensor_element T>
    void mma_16x8x16(accumulators& c, const fragment_a& a, const fragment_b& b) {
        const auto& lanes = exchange("mma_16x8x16", elements<T>(a, b));
        for (std::size_t i = 0; i < 4; ++i) {
            const std::size_t row = lane() / 4 + i / 2 * 8, col = lane() % 4 * 2 + i % 2;
            for (std::size_t k = 0; k < 16; ++k) c[i] += element_a(lanes, row, k) * element_b(lanes, k, col);
        }
    }

    std::uint32_t put_bits(std::uint32_t a, std::uint32_t mask, std::uint32_t base) const { return (a & mask) | base; }
    template <tensor_element T>
    std::uint32_t fma_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) const {
        const auto fma = [=](std::size_t i) {
            const auto number = [i](std::uint32_t word) { return double{to_float(detail::element_of<T>(word, i))}; };
            return detail::round_to_odd(number(a) * number(b) + number(c));
        };
        return narrow_pair<T>(fma(0), fma(1));
    }
    template <tensor_element T>
    std::uint32_t narrow_pair(float low, float high) const {
        return narrow<T>(low).bits | static_cast<std::uint32_t>(narrow<T>(high).bits) << 16;
    }
    template <tensor_element T>
    float widen(T x) const {
        return to_float(x);
    }

 private:
    using warp_messages = std::array<detail::lane_message, warp_size>;

    /// What all lanes say in this call, once all have said it.
    const warp_messages& exchange(const char* operation, const std::array<std::uint32_t, 12>& words) {
        warp_messages& messages = warp_.messages[++call_ % 2];
        messages[lane()] = {operation, call_, words};
        warp_barrier();
        for (std::size_t i = 0; i < warp_size; ++i)
            if (messages[i].operation != operation || messages[i].call != call_)
                throw error(std::string(operation) + ": lane " + std::to_string(i) + " does not take part");
        return messages;
    }

    /// The 16 bytes that a lane names for load_matrix_x4.
    template <class T>
    static std::array<std::uint32_t, 12> words_of(detail::checked_pointer<T> row) {
        std::array<std::uint32_t, 12> words{};
        std::memcpy(words.data(), row.aligned_bytes(16), 16);
        return words;
    }

    /// The elements that a lane holds, as floats: 8 of A, 4 of B.
    template <class T>
    static std::array<std::uint32_t, 12> elements(const fragment_a& a, const fragment_b& b) {
        std::array<std::uint32_t, 12> floats;
        for (std::size_t i = 0; i < 12; ++i)
            floats[i] =
                std::bit_cast<std::uint32_t>(to_float(detail::element_of<T>(i < 8 ? a[i / 2] : b[i / 2 - 4], i % 2)));
        return floats;
    }
    static float element_a(const warp_messages& lanes, std::size_t row, std::size_t k) {
        return std::bit_cast<float>(lanes[row % 8 * 4 + k % 8 / 2].words[(k / 8 * 2 + row / 8) * 2 + k % 2]);
    }
    static float element_b(const warp_messages& lanes, std::size_t k, std::size_t col) {
        return std::bit_cast<float>(lanes[col * 4 + k % 8 / 2].words[8 + k / 8 * 2 + k % 2]);
    }

    const launch_shape& shape_;
    detail::host_block& block_;
    detail::host_warp& warp_;
    std::size_t thread_;
    std::size_t call_ = 0;
    std::vector<detail::pending_copy> begun_;
    std::vector<std::vector<detail::pending_copy>> batches_;
};

static_assert(kernel_context<host_context>);

namespace detail {

/// An error of a thread with its block and thread in front.
[[gnu::noinline]] inline std::exception_ptr failure_of(std::size_t block, std::size_t thread, const std::string& what) {
    return std::make_exception_ptr(
        error("block " + std::to_string(block) + ", thread " + std::to_string(thread) + ": " + what));
}

/// Runs every thread of a block. Throws what the first thread to fail threw, with its block and thread in front.
template <std::derived_from<host_context> Context, class Body>
void run_block(fiber_team& team, const launch_shape& shape, std::size_t index, const Body& body) {
    host_block block(shape, index, team);
    std::exception_ptr failure;
    std::atomic<bool> failed = false;
    team.run([&](std::size_t thread) {
        try {
            Context context(shape, block, thread);
            body(context);
            context.expect_no_copies();
        } catch (const std::exception& e) {
            if (!failed.exchange(true)) failure = failure_of(index, thread, e.what());
        }
    });
    if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace detail

/// Runs `body`, a kernel, on the host and returns when it is done. Throws shape_error for a launch that no device
/// accepts, and gptq::error, with block and thread, where the kernel breaks a rule of kernel_context or throws. A test
/// that wants to see a kernel fail gives a Context of its own, which derives from host_context and leaves something
/// out.
template <class Context = host_context, class Body>
void host_launch(const launch_shape& shape, const Body& body) {
    check_launch(shape);
    detail::fiber_team team(shape.threads);
    for (std::size_t index = 0; index < shape.blocks; ++index) detail::run_block<Context>(team, shape, index, body);
}

/// Launches kernels on the host: what functions that launch kernels take in place of a device's stream.
template <class Context = host_context>
struct basic_host_launcher {
    template <class Body>
    void operator()(const launch_shape& shape, const Body& body) const {
        host_launch<Context>(shape, body);
    }
};
using host_launcher = basic_host_launcher<>;

}  // namespace gptq::cuda
