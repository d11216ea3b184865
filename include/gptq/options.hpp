// What a caller of quantize() can choose at run time.
#pragma once

#include <cstddef>
#include <string>

#include <gptq/error.hpp>
#include <gptq/groups.hpp>

namespace gptq {

/// What happens to codes and scales once the loop is through; see <gptq/refine.hpp>.
struct refine_options {
    /// Passes over all groups; 0: none. Each costs up to 3 N K^2 flops on top of the N K^2 of the loop.
    int rounds = 0;
    bool scales = true;  ///< refit each group's scale and zero point by least squares, its codes fixed
    bool codes = true;   ///< set each code to the best one, all else fixed (coordinate descent)
};

/// The most candidates that quantize_options may ask for.
inline constexpr std::size_t max_candidates = 16;

/// Options of quantize(); the defaults are the paper's.
struct quantize_options {
    /// Added to the diagonal of H, as a fraction of the mean of the diagonal: 0 to less than 1.
    double damp_percent = 0.01;
    /// In place of damp_percent, what automatic_damping() finds for the layer (see damping.hpp).
    bool choose_damping = false;
    /// Where the factorization fails, damping is multiplied by this and tried again, up to a damping of 1.
    double damp_growth = 4.0;
    /// Columns whose errors are applied to the rest of the layer at once. Changes the result only by rounding noise.
    std::size_t block_size = 128;
    /// For schemes with group_size<dynamic> only: input features per group, or per_channel.
    int group_size = dynamic;
    refine_options refine = {};  ///< what happens after the loop
    /// Partial sequences of codes that are kept for each row of a group, 1 to max_candidates; 1 is the published
    /// algorithm. Each costs N K times half the columns searched at once, see <gptq/k_best.hpp>.
    std::size_t candidates = 1;
};

namespace detail {

/// Whether a damping was asked for that is not the default.
inline bool names_damping(const quantize_options& options) {
    return options.damp_percent != quantize_options{}.damp_percent || options.choose_damping;
}

}  // namespace detail

/// Throws option_error for options that are out of range or contradict each other; the message says what would do.
inline void check_options(const quantize_options& options) {
    const auto refuse = [](const std::string& what) { throw option_error(what); };
    if (!(options.damp_percent >= 0.0 && options.damp_percent < 1.0))
        refuse("damp_percent: " + std::to_string(options.damp_percent) +
               " is not in [0, 1); it is a fraction of the diagonal's mean, so that one per cent is 0.01");
    if (options.choose_damping && options.damp_percent != quantize_options{}.damp_percent)
        refuse("damp_percent: with choose_damping it would not be used; give one of the two");
    if (!(options.damp_growth > 1.0))
        refuse("damp_growth: " + std::to_string(options.damp_growth) + " is not more than 1");
    if (options.block_size == 0) refuse("block_size: 0 columns a block; the usual size is 128");
    if (options.candidates == 0 || options.candidates > max_candidates)
        refuse("candidates: " + std::to_string(options.candidates) + " is not between 1 and " +
               std::to_string(max_candidates));
    if (options.refine.rounds < 0)
        refuse("refine.rounds: " + std::to_string(options.refine.rounds) + " is negative; 0 refines nothing");
}

/// Throws option_error for options that rounding to nearest does not use.
inline void check_rounding_options(const quantize_options& options) {
    const auto refuse = [](const std::string& option) {
        throw option_error(option + ": round_to_nearest does not use it; leave it out, or call quantize");
    };
    if (options.refine.rounds != 0) refuse("refine.rounds");
    if (options.candidates != quantize_options{}.candidates) refuse("candidates");
    if (detail::names_damping(options)) refuse(options.choose_damping ? "choose_damping" : "damp_percent");
}

}  // namespace gptq
