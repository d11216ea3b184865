// The kernels of weigh.hpp, written once for all instruction sets: a fragment under the rules of loops.inl.

/// Columns [first, first + 16 Parts) of the first `Sums` sums.
template <std::size_t Sums, std::size_t Parts>
[[gnu::always_inline]] inline void weigh_part(const weighed_rows& of, std::size_t first) {
    const float *const weights = of.weights, *const rows = of.rows + first;
    const std::size_t weights_ld = of.weights_ld, rows_ld = of.rows_ld, count = of.count;
    vec::floats sums[Sums][Parts];
    for (auto& sum : sums)
        for (vec::floats& part : sum) part = vec::splat_float(0.0f);
    for (std::size_t i = 0; i < count; ++i) {
        if (i + rows_ahead < count)
            for (std::size_t p = 0; p < Parts; ++p)
                __builtin_prefetch(rows + (i + rows_ahead) * rows_ld + p * weigh_lanes);
        for (std::size_t s = 0; s < Sums; ++s) {
            const vec::floats weight = vec::splat_float(weights[s * weights_ld + i]);
            for (std::size_t p = 0; p < Parts; ++p)
                sums[s][p] =
                    vec::multiply_add(weight, vec::load_floats(rows + i * rows_ld + p * weigh_lanes), sums[s][p]);
        }
    }
    for (std::size_t s = 0; s < Sums; ++s)
        for (std::size_t p = 0; p < Parts; ++p)
            vec::store_floats(of.sums + s * of.sums_ld + first + p * weigh_lanes, sums[s][p]);
}

template <std::size_t Sums, std::size_t Parts>
inline void weigh(const weighed_rows& of) {
    std::size_t first = 0;
    for (; first + Parts * weigh_lanes <= of.columns; first += Parts * weigh_lanes) weigh_part<Sums, Parts>(of, first);
    for (; first < of.columns; first += weigh_lanes) weigh_part<Sums, 1>(of, first);
}

inline weigh_kernels find_weigh_kernels() { return {weigh<1, 4>, weigh<weigh_together, vec::width>}; }

/// This set's kernels for floats, by a name that find_kernel.hpp can pass on.
struct float_kernels {
    static column_kernels columns() { return find_column_kernels(); }
    static weigh_kernels weighing() { return find_weigh_kernels(); }
};
