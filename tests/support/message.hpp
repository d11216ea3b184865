// What an exception says, for tests of messages.
#pragma once

#include <string>
#include <string_view>

#include <gptq/error.hpp>

namespace gptq_test {

/// The message of the gptq::error that f() throws, or "" if it throws none.
template <class F>
std::string message_of(const F& f) {
    try {
        f();
    } catch (const gptq::error& e) {
        return e.what();
    }
    return {};
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace gptq_test
