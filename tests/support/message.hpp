// What an exception says.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace gptq_test {

/// The message of what `f` throws, or "nothing was thrown".
template <class F>
std::string message_of(F&& f) {
    try {
        std::forward<F>(f)();
    } catch (const std::exception& problem) {
        return problem.what();
    }
    return "nothing was thrown";
}

/// `message` mentions every one of `parts`.
template <class... Parts>
bool mentions(const std::string& message, const Parts&... parts) {
    return ((message.find(parts) != std::string::npos) && ...);
}

}  // namespace gptq_test
