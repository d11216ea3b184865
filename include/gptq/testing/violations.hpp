// What the checks of <gptq/testing/conformance.hpp> return, and the reproducible numbers that they feed their subjects.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>

namespace gptq::testing {

/// One line for each broken promise: concept, number of the sentence in <gptq/concepts.hpp>, what was found and where.
/// Empty for a model that conforms.
using violations = std::vector<std::string>;

namespace detail {

/// "Backend 4: <what>".
inline std::string violation(const char* concept_name, int sentence, const std::string& what) {
    return std::string(concept_name) + " " + std::to_string(sentence) + ": " + what;
}

/// What checks of one concept find, where an exception is a finding, too.
class findings {
 public:
    explicit findings(const char* concept_name) : concept_name_(concept_name) {}

    void report(int sentence, const std::string& what) { found_.push_back(violation(concept_name_, sentence, what)); }

    template <class Check>
    void attempt(int sentence, const Check& check) {
        try {
            check();
        } catch (const std::exception& e) {
            report(sentence, std::string("throws: ") + e.what());
        }
    }

    /// All so far, which are forgotten here.
    violations take() { return std::exchange(found_, {}); }

 private:
    const char* concept_name_;
    violations found_;
};

/// The shortest digits that are exactly x.
inline std::string text(float x) {
    char digits[32];
    return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}

/// The same numbers on every machine, which the distributions of the standard library do not promise.
class random_numbers {
 public:
    explicit random_numbers(std::uint64_t seed) : state_(seed * 2 + 1) {}

    /// Uniform in [0, below).
    std::uint32_t integer(std::uint32_t below) { return static_cast<std::uint32_t>(next() % below); }

    /// Uniform in [-1, 1).
    float real() { return static_cast<float>(next()) * 0x1p-31f - 1.0f; }

    /// [rows, cols] of real().
    matrix<float> reals(std::size_t rows, std::size_t cols) {
        matrix<float> m(rows, cols);
        for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = real();
        return m;
    }

 private:
    std::uint64_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return state_ >> 32;
    }

    std::uint64_t state_;
};

}  // namespace detail

}  // namespace gptq::testing
