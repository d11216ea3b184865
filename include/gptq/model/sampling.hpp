// How the next token is chosen from logits. Every setting means what it means in transformers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

namespace gptq::model {

/// Settings that apply in this order: repetition_penalty, temperature, top_k, top_p, min_p. Each filter works on the
/// probabilities of the tokens that those before it left.
struct sampling_options {
    /// 0 takes the most likely token; otherwise logits are divided by it before one is drawn.
    double temperature = 0.0;
    /// Draw from so many of the most likely tokens, and those as likely as the last of them; 0: from all.
    std::size_t top_k = 0;
    /// Draw from the fewest most likely tokens whose probabilities sum up to this; 1: from all.
    double top_p = 1.0;
    /// Draw from tokens that are at least so likely, as a part of the most likely one's probability; 0: from all.
    double min_p = 0.0;
    /// Logits of tokens that the text has already are divided by it if positive, multiplied if negative; 1: as they
    /// are.
    double repetition_penalty = 1.0;
};

/// Throws unsupported_error naming the setting that is out of its range.
void check_sampling(const sampling_options& o);

namespace detail {

/// The score of a token that is not to be drawn.
inline constexpr double ruled_out = -std::numeric_limits<double>::infinity();

std::int32_t draw(std::span<const double> weights, std::mt19937_64& random);

}  // namespace detail

/// The scores that are left of logits, not yet divided by the temperature; minus infinity for tokens that are ruled
/// out. `seen` are the tokens of the text so far. Filters need a temperature above 0 and are left out without one.
/// Throws non_finite_error where the logits are not finite, and as check_sampling.
std::vector<double> sampling_scores(std::span<const float> logits, const sampling_options& options,
                                    std::span<const std::int32_t> seen = {});

/// The next token after these logits. Draws once from `random` if temperature is above 0, else not at all: of equal
/// scores, then, the lowest id wins. Throws as sampling_scores.
std::int32_t choose_token(std::span<const float> logits, const sampling_options& options,
                          std::span<const std::int32_t> seen, std::mt19937_64& random);

/// The same with a temperature only.
std::int32_t choose_token(std::span<const float> logits, double temperature, std::mt19937_64& random);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/sampling.hpp>
#endif
