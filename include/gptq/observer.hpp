// The observer that watches nothing, and any observer by reference.
#pragma once

#include <cstddef>
#include <memory>

namespace gptq {

/// The default observer: compiles to nothing.
struct no_observer {
    void on_columns(std::size_t /*done*/, std::size_t /*total*/) const noexcept {}
};

/// Any observer, by reference and without its type: the solver is compiled once for all of them. The observer outlives
/// it.
class observer_ref {
 public:
    template <class O>
    explicit observer_ref(O& observer)
        : observer_(std::addressof(observer)), call_([](const void* seen, std::size_t done, std::size_t total) {
              static_cast<O*>(const_cast<void*>(seen))->on_columns(done, total);
          }) {}

    void on_columns(std::size_t done, std::size_t total) const { call_(observer_, done, total); }

 private:
    const void* observer_;
    void (*call_)(const void*, std::size_t, std::size_t);
};

}  // namespace gptq
