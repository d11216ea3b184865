// What a caller of quantize() can choose at run time.
#pragma once

#include <cstddef>

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
    /// Added to the diagonal of H, as a fraction of the mean of the diagonal.
    double damp_percent = 0.01;
    /// In place of damp_percent, what automatic_damping() finds for the layer at hand (see damping.hpp).
    bool choose_damping = false;
    /// Where the factorization fails, damping is multiplied by this and tried again, up to a damping of 1.
    double damp_growth = 4.0;
    /// Columns whose errors are applied to the rest of the layer at once. Changes the result only by rounding noise.
    std::size_t block_size = 128;
    /// Read by schemes with group_size<dynamic> only: input features per group, or per_channel.
    int group_size = dynamic;
    refine_options refine = {};
    /// Partial sequences of codes that are kept for each row of a group, 1 to max_candidates; 1 is the published
    /// algorithm. Each costs N K times half the columns searched at once, see <gptq/k_best.hpp>.
    std::size_t candidates = 1;
};

}  // namespace gptq
