// The observer that watches nothing.
#pragma once

#include <cstddef>

namespace gptq {

/// The default observer: compiles to nothing.
struct no_observer {
    void on_columns(std::size_t /*done*/, std::size_t /*total*/) const noexcept {}
};

}  // namespace gptq
