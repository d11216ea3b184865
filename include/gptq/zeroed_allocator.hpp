// Memory for large matrices that starts as zeros without being written. The operating system's fresh pages are zero;
// the thread that touches a page first, usually one of several, spends the time to make it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gptq::detail {

/// Asks for pages of 2 MiB where a buffer holds some; a hint. Faults of 4 KiB took a tenth of a layer's time.
inline void prefer_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
    const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + page - 1) / page * page;
    const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

/// std::allocator for numbers, except that elements without an initial value are zero. Throws std::bad_alloc.
template <class T>
struct zeroed_allocator {
    using value_type = T;

    zeroed_allocator() = default;
    template <class U>
    constexpr zeroed_allocator(const zeroed_allocator<U>&) noexcept {}

    T* allocate(std::size_t n) {
        if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
        void* memory = std::calloc(n, sizeof(T));
        if (memory == nullptr) throw std::bad_alloc();
        prefer_large_pages(memory, n * sizeof(T));
        return static_cast<T*>(memory);
    }
    void deallocate(T* memory, std::size_t) noexcept { std::free(memory); }

    /// Zero already.
    template <class U>
    void construct(U*) noexcept {}
    template <class U>
    void construct(U* element, const U& value) noexcept {
        *element = value;
    }

    friend bool operator==(const zeroed_allocator&, const zeroed_allocator&) { return true; }
};

}  // namespace gptq::detail
