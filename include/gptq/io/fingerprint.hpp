// A short text that other contents hardly have: what runs and studies recognize their inputs by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <gptq/io/file.hpp>

namespace gptq::io {

/// FNV-1a of 64 bits. It tells changes from the same contents; it is no defence against someone who wants two to agree.
class fingerprint {
 public:
    void add(std::span<const std::byte> bytes) {
        for (const std::byte b : bytes) hash_ = (hash_ ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3;
    }
    void add(std::string_view text) { add(bytes_of(text)); }
    std::string text() const { return std::to_string(hash_); }

    /// The same number in 16 hexadecimal digits.
    std::string hex() const {
        std::string digits(16, '0');
        std::uint64_t rest = hash_;
        for (std::size_t i = digits.size(); i-- > 0; rest /= 16) digits[i] = "0123456789abcdef"[rest % 16];
        return digits;
    }

 private:
    std::uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace gptq::io
