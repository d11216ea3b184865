// Numbers and texts as the bytes of a message between ranks of one kind of machine, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gptq/error.hpp>

namespace gptq {

/// All of a message as numbers.
template <class T>
requires std::is_trivially_copyable_v<T> std::vector<T> numbers_in(std::span<const std::byte> bytes) {
    std::vector<T> numbers(bytes.size() / sizeof(T));
    if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
    return numbers;
}

/// A message that is being written.
class message_writer {
 public:
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void put(const T& value) { put_all(std::span(&value, 1)); }

    /// Their number, and they.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void put_list(std::span<const T> values) {
        put(static_cast<std::uint64_t>(values.size()));
        put_all(values);
    }
    void put_text(const std::string& text) { put_list(std::span<const char>(text)); }

    std::span<const std::byte> bytes() const { return bytes_; }

 private:
    template <class T>
    void put_all(std::span<const T> values) {
        const auto raw = std::as_bytes(values);
        bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    }

    std::vector<std::byte> bytes_;
};

/// Reads what message_writer has written, in the same order. Throws format_error where the message ends before.
class message_reader {
 public:
    /// The bytes outlive it.
    explicit message_reader(std::span<const std::byte> bytes) : rest_(bytes) {}

    template <class T>
    requires std::is_trivially_copyable_v<T> T get() {
        T value{};
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }
    template <class T>
    requires std::is_trivially_copyable_v<T> std::vector<T> get_list() {
        const auto count = get<std::uint64_t>();
        if (count > rest_.size() / sizeof(T)) fail();
        return numbers_in<T>(take(static_cast<std::size_t>(count) * sizeof(T)));
    }
    std::string get_text() {
        const auto all = get_list<char>();
        return {all.begin(), all.end()};
    }

 private:
    [[noreturn]] static void fail() { throw format_error("a message of another rank is cut off"); }

    std::span<const std::byte> take(std::size_t count) {
        if (count > rest_.size()) fail();
        const auto taken = rest_.first(count);
        rest_ = rest_.subspan(count);
        return taken;
    }

    std::span<const std::byte> rest_;
};

}  // namespace gptq
