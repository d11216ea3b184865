// The kernels of columns.hpp, written once for all instruction sets: a fragment under the rules of loops.inl.

/// Adding and subtracting this rounds a number below 2^22 to the nearest whole one, ties to the even one; the bits of
/// the sum end in that whole number.
inline constexpr float rounding_shift = 0x1.8p23f;

/// How many scales lie between 0 and the value of the grid that is nearest to a weight of `steps` scales: code - zero.
/// What is no number counts as the lowest code.
inline vec::floats nearest_steps(vec::floats steps, vec::floats lowest, vec::floats highest) {
    steps = vec::minimum(vec::maximum(steps, lowest), highest);
    const vec::floats shifted = vec::add_floats(steps, vec::splat_float(rounding_shift));
    return vec::add_floats(shifted, vec::splat_float(-rounding_shift));
}

inline vec::floats negative(vec::floats x) { return vec::multiply(x, vec::splat_float(-1.0f)); }

/// The grids of a tile's rows, as rounding wants them.
struct tile_grids {
    vec::floats scale, lowest, highest, code_shift;
};

/// Columns [i, i + Count): rounds them, turns their weights into errors and subtracts the errors' share from the
/// weights after them, each of which is loaded and stored once for all Count. Adds the squares of the errors to
/// `losses`.
template <std::size_t Count>
[[gnu::always_inline]] inline void quantize_together(const column_tile& tile, const tile_grids& grids, std::size_t i,
                                                     vec::floats& losses) {
    float* const weights = tile.weights;  // in registers: what is stored below could otherwise be the tile itself
    const std::size_t columns = tile.columns, ld = tile.U_ld;
    const float* const U = tile.U + i * ld;
    vec::floats shares[Count];  // minus the errors
    const auto less_shares = [&](vec::floats w, std::size_t count, std::size_t j) __attribute__((always_inline)) {
        for (std::size_t c = 0; c < count; ++c) w = vec::multiply_add(shares[c], vec::splat_float(U[c * ld + j]), w);
        return w;
    };
    for (std::size_t c = 0, k = i; c < Count; ++c, ++k) {
        const vec::floats w = less_shares(vec::load_floats(weights + k * tile_lanes), c, k);
        const vec::floats steps = nearest_steps(vec::divide(w, grids.scale), grids.lowest, grids.highest);
        const vec::floats value = vec::multiply(grids.scale, steps);
        vec::store_floats(tile.values + k * tile_lanes, value);
        vec::store(tile.codes + k * tile_lanes,
                   vec::bit_and(vec::as_ints(vec::add_floats(steps, grids.code_shift)), vec::splat(0xffu)));
        const vec::floats error = vec::divide(vec::add_floats(w, negative(value)), vec::splat_float(U[c * ld + k]));
        vec::store_floats(weights + k * tile_lanes, error);
        losses = vec::multiply_add(error, error, losses);
        shares[c] = negative(error);
    }
    for (std::size_t j = i + Count; j < columns; ++j) {
        float* to = weights + j * tile_lanes;
        vec::store_floats(to, less_shares(vec::load_floats(to), Count, j));
    }
}

/// column_kernels::quantize.
inline void quantize_columns(const column_tile& tile) {
    constexpr std::size_t together = 4;  // measured: 2 and 8 are slower
    const vec::floats zero = vec::load_floats(tile.zeros), lowest = negative(zero);
    const tile_grids grids = {vec::load_floats(tile.scales), lowest,
                              vec::add_floats(vec::splat_float(tile.max_code), lowest),
                              vec::add_floats(zero, vec::splat_float(rounding_shift))};
    vec::floats losses = vec::load_floats(tile.losses);
    std::size_t i = tile.first;
    for (; i + together <= tile.last; i += together) quantize_together<together>(tile, grids, i, losses);
    for (; i < tile.last; ++i) quantize_together<1>(tile, grids, i, losses);
    vec::store_floats(tile.losses, losses);
}

/// column_kernels::loss. A weight between two values may count with either, which is as far away: so no division.
inline float loss_of_group(const costly_weights& group, float scale, float zero, float max_code) {
    const vec::floats inverse = vec::splat_float(1.0f / scale), backwards = vec::splat_float(-scale);
    const vec::floats lowest = vec::splat_float(-zero);
    const vec::floats highest = vec::splat_float(max_code - zero);
    vec::floats sum = vec::splat_float(0.0f);
    for (std::size_t k = 0; k < group.count; k += tile_lanes) {
        const vec::floats w = vec::load_floats(group.weights + k);
        const vec::floats steps = nearest_steps(vec::multiply(w, inverse), lowest, highest);
        const vec::floats error = vec::multiply_add(backwards, steps, w);
        sum = vec::multiply_add(vec::multiply(error, vec::load_floats(group.costs + k)), error, sum);
    }
    float lanes[tile_lanes], total = 0.0f;
    vec::store_floats(lanes, sum);
    for (const float lane : lanes) total += lane;
    return total;
}

inline column_kernels find_column_kernels() { return {quantize_columns, loss_of_group}; }
