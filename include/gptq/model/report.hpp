// A quantized model beside the one it was made from: is the loss acceptable, and which modules lose most?
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <gptq/model/quantize_log.hpp>

namespace gptq::model {

/// An increase of perplexity above this part of the float model's is reported as large.
inline constexpr double large_increase = 0.20;

struct comparison {
    double before = 0.0;               ///< perplexity of the float model
    double after = 0.0;                ///< perplexity of the quantized one
    double increase = 0.0;             ///< after / before - 1
    bool large = false;                ///< increase > large_increase, or `after` is not a number
    std::vector<module_record> worst;  ///< modules by falling relative error, at most `count` of them
};

/// Compares two perplexities of the same text; `records` are those of the quantization, empty if unknown.
comparison compare(double before, double after, std::vector<module_record> records, std::size_t count = 5);

/// Indices of the errors that are more than five times the median of those of the same kind, of which there are at
/// least four, and more than a hundredth. Errors are parts of an energy; one that is no number counts as far above.
std::vector<std::size_t> far_above_their_kind(const std::vector<std::string>& kinds, const std::vector<double>& errors);

/// What stands out in the records of a quantization, a sentence each, with the likely cause and a remedy: modules that
/// lose far more than those of the same name in other blocks, and modules that rounding to nearest would serve better.
std::vector<std::string> outstanding_errors(const std::vector<module_record>& records);

/// The comparison in words, one line a fact; names modules only if the increase is large.
std::string describe(const comparison& c);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/report.hpp>
#endif
