// Owners of what CUDA and its libraries hand out.
#pragma once

#include <memory>
#include <type_traits>

namespace gptq::cuda {

/// Calls Destroy, a function of CUDA's, which reports nothing that could be acted upon.
template <class Handle, auto Destroy>
struct destroyed_by {
    void operator()(Handle handle) const { Destroy(handle); }
};

/// Owns a handle that Destroy takes back.
template <class Handle, auto Destroy>
using unique_handle = std::unique_ptr<std::remove_pointer_t<Handle>, destroyed_by<Handle, Destroy>>;

}  // namespace gptq::cuda
