// The kernels of columns.hpp, written once for all instruction sets: a fragment under the rules of loops.inl.

/// Adding and subtracting this rounds a number below 2^22 to the nearest whole one, ties to the even one; the bits of the
/// sum end in that whole number.
inline constexpr float rounding_shift = 0x1.8p23f;

/// How many scales lie between 0 and the value of the grid that is nearest to w: code - zero. What is no number counts
/// as the lowest code.
inline vec::floats nearest_steps(vec::floats w, vec::floats scale, vec::floats lowest, vec::floats highest) {
    const vec::floats steps = vec::minimum(vec::maximum(vec::divide(w, scale), lowest), highest);
    const vec::floats shifted = vec::add_floats(steps, vec::splat_float(rounding_shift));
    return vec::add_floats(shifted, vec::splat_float(-rounding_shift));
}

inline vec::floats negative(vec::floats x) { return vec::multiply(x, vec::splat_float(-1.0f)); }

/// column_kernels::quantize.
inline void quantize_columns(const column_tile& tile) {
    const vec::floats scale = vec::load_floats(tile.scales), zero = vec::load_floats(tile.zeros);
    const vec::floats lowest = negative(zero), highest = vec::add_floats(vec::splat_float(tile.max_code), lowest);
    const vec::floats code_shift = vec::add_floats(zero, vec::splat_float(rounding_shift));
    vec::floats losses = vec::load_floats(tile.losses);
    float* const weights = tile.weights;  // in registers: what is stored below could otherwise be the tile itself
    const std::size_t columns = tile.columns;
    for (std::size_t i = tile.first; i < tile.last; ++i) {
        const vec::floats w = vec::load_floats(weights + i * tile_lanes);
        const vec::floats steps = nearest_steps(w, scale, lowest, highest);
        const vec::floats value = vec::multiply(scale, steps);
        vec::store_floats(tile.values + i * tile_lanes, value);
        vec::store(tile.codes + i * tile_lanes,
                   vec::bit_and(vec::as_ints(vec::add_floats(steps, code_shift)), vec::splat(0xffu)));
        const float* u = tile.U + i * tile.U_ld;
        const vec::floats error = vec::divide(vec::add_floats(w, negative(value)), vec::splat_float(u[i]));
        const vec::floats share = negative(error);
        for (std::size_t j = i + 1; j < columns; ++j) {
            float* to = weights + j * tile_lanes;
            vec::store_floats(to, vec::multiply_add(share, vec::splat_float(u[j]), vec::load_floats(to)));
        }
        vec::store_floats(weights + i * tile_lanes, error);
        losses = vec::multiply_add(error, error, losses);
    }
    vec::store_floats(tile.losses, losses);
}

/// column_kernels::loss.
inline float loss_of_group(const costly_weights& group, float scale, float zero, float max_code) {
    const vec::floats scales = vec::splat_float(scale), lowest = vec::splat_float(-zero);
    const vec::floats highest = vec::splat_float(max_code - zero);
    vec::floats sum = vec::splat_float(0.0f);
    for (std::size_t k = 0; k < group.count; k += tile_lanes) {
        const vec::floats w = vec::load_floats(group.weights + k);
        const vec::floats value = vec::multiply(scales, nearest_steps(w, scales, lowest, highest));
        const vec::floats error = vec::add_floats(w, negative(value));
        sum = vec::multiply_add(vec::multiply(error, vec::load_floats(group.costs + k)), error, sum);
    }
    float lanes[tile_lanes], total = 0.0f;
    vec::store_floats(lanes, sum);
    for (const float lane : lanes) total += lane;
    return total;
}

inline column_kernels find_column_kernels() { return {quantize_columns, loss_of_group}; }
