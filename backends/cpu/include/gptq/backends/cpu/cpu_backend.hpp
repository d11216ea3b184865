// The CPU backend: BLAS and LAPACK for what is cubic, rows in parallel where the user's build has OpenMP.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/backends/cpu/row_threads.hpp>
#include <gptq/backends/cpu/row_tile.hpp>
#include <gptq/concepts.hpp>
#include <gptq/host_memory.hpp>

namespace gptq {

namespace detail {

/// Row r beyond the diagonal, H(r, c), becomes H(n-1-r, n-1-c), which lies below the diagonal; or the other way.
template <bool Down>
struct move_row_across {
    matrix_view<float> H;  // [n, n]
    void operator()(std::size_t r) const noexcept {
        const std::size_t last = H.rows - 1;
        for (std::size_t c = r + 1; c < H.cols; ++c) {
            float &above = H(r, c), &below = H(last - r, last - c);
            (Down ? below : above) = Down ? above : below;
        }
    }
};

/// The long rows first: on_row_threads judges by them whether more than one thread pays.
struct zero_lower_row {
    matrix_view<float> H;
    void operator()(std::size_t i) const noexcept {
        const std::size_t r = H.rows - 1 - i;
        std::fill_n(H.row(r).begin(), r, 0.0f);
    }
};

}  // namespace detail

/// The default backend. Needs a BLAS and a LAPACK at link time; uses as many threads as they and OpenMP are set to.
struct cpu_backend : host_memory {
    /// An f that reads memory better if it does neighbouring rows together has f.rows(first, last).
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        detail::on_row_threads(n, [&](std::size_t first, std::size_t last) {
            if constexpr (requires { f.rows(first, last); })
                f.rows(first, last);
            else
                for (std::size_t r = first; r < last; ++r) f(r);
        });
    }

    /// Vectorized for the processor where the grid is affine and nothing is searched. Everything else is plain loops,
    /// except the fits of grids that search by the loss.
    template <int Bits, class Grid>
    void quantize_block(const block_to_quantize<Bits, Grid>& block) const {
        const kernels::column_kernels kernel = kernels::find_column_kernels(best_isa());
        if constexpr (AffineGrid<Grid>)
            if (block.candidates == 1) return quantize_tiles(block, kernel);
        quantize_rows(*this, detail::with_kernels(block, kernel));
    }

    template <int Bits, class Grid>
    void fit_groups(const groups_to_fit<Bits, Grid>& fit) const {
        for_each_row(fit.W.rows, detail::with_kernels(fit, kernels::find_column_kernels(best_isa())));
    }

    void gram_update(matrix_view<float> H, matrix_view<const float> X, float alpha, float beta) const {
        blas::syrk_upper(X, H, alpha, beta);
    }

    /// With J the reversal of rows and columns, J H J = L L' gives H = (J L J)(J L J)', and J L J is upper triangular.
    /// The reversal also turns the upper triangle, which holds H, into the lower one, which the factorization reads.
    bool factor_upper(matrix_view<float> H) const {
        for_each_row(H.rows, detail::move_row_across<true>{H});
        reverse_diagonal(H);
        const bool positive_definite = blas::potrf(H, blas::triangle::lower);
        for_each_row(H.rows, detail::move_row_across<false>{H});
        reverse_diagonal(H);
        return positive_definite && finish_factor(H);
    }

    /// The paper's way: Cholesky, inverse, Cholesky.
    bool inverse_factor_upper(matrix_view<float> H) const {
        constexpr auto upper = blas::triangle::upper;
        return blas::potrf(H, upper) && blas::potri(H, upper) && blas::potrf(H, upper) && finish_factor(H);
    }

    void multiply(matrix_view<float> C, matrix_view<const float> A, matrix_view<const float> B, float alpha,
                  float beta) const {
        blas::gemm(A, B, C, alpha, beta);
    }

    void solve_upper_right(matrix_view<float> B, matrix_view<const float> A) const { blas::trsm_right_upper(A, B); }

 private:
    template <int Bits, AffineGrid Grid>
    static void quantize_tiles(const block_to_quantize<Bits, Grid>& block, const kernels::column_kernels& kernel) {
        constexpr std::size_t lanes = kernels::tile_lanes;
        detail::on_row_threads(block.T.rows, [&](std::size_t first, std::size_t last) {
            detail::row_tile<Bits, Grid> tile(block, kernel);
            for (std::size_t r = first; r < last; r += lanes) tile.quantize(r, std::min(lanes, last - r));
        });
    }

    static void reverse_diagonal(matrix_view<float> H) {
        for (std::size_t i = 0; 2 * i < H.rows; ++i) std::swap(H(i, i), H(H.rows - 1 - i, H.rows - 1 - i));
    }

    /// Zeroes what lies below the diagonal; false if the factor holds a diagonal that is no positive finite number, as
    /// it does wherever a NaN or an infinity went in.
    bool finish_factor(matrix_view<float> H) const {
        for (std::size_t i = 0; i < H.rows; ++i)
            if (!(H(i, i) > 0.0f) || !std::isfinite(H(i, i))) return false;
        for_each_row(H.rows, detail::zero_lower_row{H});
        return true;
    }
};

static_assert(Backend<cpu_backend>);

}  // namespace gptq
