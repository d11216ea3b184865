// Where the weights of layers lie while they are multiplied.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/zeroed_allocator.hpp>

namespace gptq {

/// Hands out memory for the weights of many layers, one after the other in chunks of large pages. A product with one
/// row reads each weight once. Layers that are smaller than a large page would lie in pages of 4 KiB, and looking up
/// the addresses of these pages would take a quarter of the product's time. Not for several threads at a time.
class weight_memory {
 public:
    /// Chunks of so many bytes, or more for an array that does not fit. What is not used of a chunk takes address space
    /// only. 0 gives each array memory of its own.
    explicit weight_memory(std::size_t chunk_bytes = std::size_t{64} << 20) : chunk_bytes_(chunk_bytes) {}
    weight_memory(const weight_memory&) = delete;
    weight_memory& operator=(const weight_memory&) = delete;

    /// `count` zeros, on a boundary of 64 bytes. They stay for as long as any copy of the pointer does, whatever
    /// becomes of this object. T is trivial.
    template <class T>
    std::shared_ptr<T[]> zeros(std::size_t count) {
        static_assert(std::is_trivial_v<T> && alignof(T) <= alignment);
        std::byte* begin = take(checked_elements<T>(count, 1, "an array") * sizeof(T));
        return {chunk_, reinterpret_cast<T*>(begin)};
    }

 private:
    using chunk = std::vector<std::byte, detail::zeroed_allocator<std::byte>>;
    static constexpr std::size_t alignment = 64;

    std::byte* take(std::size_t bytes) {
        void* next = next_;
        if (std::align(alignment, bytes, next, left_) == nullptr) {
            const std::size_t size = std::max(chunk_bytes_, bytes + alignment);
            chunk_ = std::make_shared<chunk>(size);
            next = chunk_->data();
            left_ = size;
            std::align(alignment, bytes, next, left_);
        }
        auto* begin = static_cast<std::byte*>(next);
        next_ = begin + bytes;
        left_ -= bytes;
        return begin;
    }

    std::size_t chunk_bytes_;
    std::shared_ptr<chunk> chunk_;
    std::byte* next_ = nullptr;
    std::size_t left_ = 0;
};

}  // namespace gptq
