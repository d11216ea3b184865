// The methods that a study knows.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/quote.hpp>
#include <gptq/study/checkpoint_methods.hpp>
#include <gptq/study/fp4_method.hpp>
#include <gptq/study/method.hpp>
#include <gptq/study/nf4_method.hpp>

namespace gptq::study {
namespace detail {

inline constexpr std::array methods{method_of<rtn_method>(), method_of<gptq_method>(), method_of<best_method>(),
                                    method_of<awq_method>(), method_of<nf4_method>(),  method_of<fp4_method>()};

}  // namespace detail

/// All of them.
inline std::span<const study_method> study_methods() { return detail::methods; }

/// The method of that name. Throws option_error, naming those that there are.
inline const study_method& find_method(std::string_view name) {
    std::string names;
    for (const study_method& method : study_methods()) {
        if (method.name == name) return method;
        names += (names.empty() ? "" : ", ") + std::string(method.name);
    }
    throw option_error("method " + in_quotes(name) + ": is not known; choose from " + names);
}

}  // namespace gptq::study
