// The CUDA backend, but for the machine that it runs on: a device, or the host in its place.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fit_kernel.hpp>
#include <gptq/backends/cuda/row_kernels.hpp>
#include <gptq/backends/cuda/solve_kernel.hpp>
#include <gptq/concepts.hpp>
#include <gptq/drift.hpp>
#include <gptq/factor.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/round_to_grid.hpp>

namespace gptq::cuda {

/// Which triangle of a row-major symmetric matrix is meant.
enum class triangle { upper, lower };

// ---------------------------------------------------------------------------------------------------------------------
// Machine<M>: what basic_backend stands on. Each call sees the results of the calls before.
//  1. make_matrix<T>, lend and download as sentences 1 and 2 of Backend.
//  2. launch(shape, kernel) runs a kernel of context.hpp.
//  3. gemm(A, B, C, alpha, beta), syrk_upper(X, H, alpha, beta), trsm_right_upper(A, B), potrf(S, triangle) and
//     potri(S, triangle) as the functions of these names in <gptq/backends/cpu/blas.hpp>.
// ---------------------------------------------------------------------------------------------------------------------
template <class M>
concept Machine = requires(const M& m, std::size_t n, matrix_view<float> w, matrix_view<const float> c, float s) {
    { m.template make_matrix<float>(n, n).view() } -> std::same_as<matrix_view<float>>;
    { m.lend(c).view() } -> std::same_as<matrix_view<const float>>;
    m.download(c, w);
    m.launch(launch_shape{}, row_kernel<gptq::detail::row_operation>{});
    m.gemm(c, c, w, s, s);
    m.syrk_upper(c, w, s, s);
    m.trsm_right_upper(c, w);
    { m.potrf(w, triangle::upper) } -> std::same_as<bool>;
    { m.potri(w, triangle::upper) } -> std::same_as<bool>;
};

/// Whether the diagonal of a finished factor is in row r what it has to be.
struct check_factor_row {
    matrix_view<const float> A;       ///< [K, K]
    matrix_view<std::uint8_t> wrong;  ///< [K, 1]
    constexpr void operator()(std::size_t r) const noexcept {
        const bool positive_and_finite = A(r, r) > 0.0f && A(r, r) <= std::numeric_limits<float>::max();
        wrong(r, 0) = positive_and_finite ? 0 : 1;
    }
};

/// A model of Backend whose rows are kernels on machine M.
template <Machine M>
class basic_backend {
 public:
    basic_backend() = default;
    explicit basic_backend(M machine) : machine_(std::move(machine)) {}

    template <class T>
    auto make_matrix(std::size_t rows, std::size_t cols) const {
        return machine_.template make_matrix<T>(rows, cols);
    }
    template <class T>
    auto lend(matrix_view<T> host) const {
        return machine_.lend(host);
    }
    template <class T>
    void download(matrix_view<const std::type_identity_t<T>> mine, matrix_view<T> host) const {
        machine_.download(mine, host);
    }

    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        if constexpr (ColumnwiseOperation<F>)
            launch(element_kernel<F>{n, f});
        else
            launch(row_kernel<F>{n, f});
    }
    /// The solver's loop has a kernel of its own, for blocks of up to 6336 columns.
    template <int Bits, class Grid>
    void quantize_block(const block_to_quantize<Bits, Grid>& block) const {
        if (block.candidates == 1 && solve_kernel<Bits, Grid>::holds(block.T.cols))
            launch(solve_kernel<Bits, Grid>{block.T.rows, block});
        else
            quantize_rows(*this, block);
    }

    /// A warp a group.
    template <int Bits, class Grid>
    void fit_groups(const groups_to_fit<Bits, Grid>& fit) const {
        launch(fit_kernel<Bits, Grid>{fit.W.rows, fit});
    }

    /// A thread for every few elements.
    void permute_hessian(const hessian_permutation& permutation) const {
        for_each_row(permutation.H.rows, permute_feature{permutation, 0, permutation.F.cols});
    }

    /// What asks for its column's number, or goes over half of the columns, is taken apart as well.
    void for_each_row(std::size_t n, const gptq::detail::identity_row& f) const {
        for_each_row(n, identity_part{f, 0, f.to.cols});
    }
    void for_each_row(std::size_t n, const gptq::detail::anti_transpose_row& f) const {
        for_each_row(n, anti_transpose_part{f, 0, f.to.cols});
    }
    void for_each_row(std::size_t n, const gptq::detail::reverse_row& f) const {
        for_each_row(n, reverse_part{f, 0, f.M.cols / 2});
    }
    void for_each_row(std::size_t n, const gptq::detail::dot_row& f) const { launch(dot_kernel{n, f}); }

    void gram_update(matrix_view<float> H, matrix_view<const float> X, float alpha, float beta) const {
        machine_.syrk_upper(X, H, alpha, beta);
    }

    /// The same for numbers of 16 bits, where the machine multiplies them.
    template <tensor_element T>
    void gram_update(matrix_view<float> H, matrix_view<const T> X, float alpha, float beta) const requires
        requires(const M& m) {
        m.gram(X, H, alpha, beta);
    }
    { machine_.gram(X, H, alpha, beta); }

    /// With J the reversal of rows and columns, J H J = L L' gives H = (J L J)(J L J)', and J L J is upper triangular.
    /// The reversal also turns the upper triangle, which holds H, into the lower one, which the factorization reads.
    bool factor_upper(matrix_view<float> H) const {
        reverse(H);
        const bool positive_definite = machine_.potrf(H, triangle::lower);
        reverse(H);
        return positive_definite && finish_factor(H);
    }

    /// The paper's way: Cholesky, inverse, Cholesky.
    bool inverse_factor_upper(matrix_view<float> H) const {
        constexpr auto upper = triangle::upper;
        return machine_.potrf(H, upper) && machine_.potri(H, upper) && machine_.potrf(H, upper) && finish_factor(H);
    }

    void multiply(matrix_view<float> C, matrix_view<const float> A, matrix_view<const float> B, float alpha,
                  float beta) const {
        machine_.gemm(A, B, C, alpha, beta);
    }

    void solve_upper_right(matrix_view<float> B, matrix_view<const float> A) const { machine_.trsm_right_upper(A, B); }

    const M& machine() const { return machine_; }

 private:
    template <class Kernel>
    void launch(const Kernel& kernel) const {
        const launch_shape shape = kernel.launch();
        if (shape.blocks > 0) machine_.launch(shape, kernel);
    }

    void reverse(matrix_view<float> H) const { for_each_row((H.rows + 1) / 2, reverse_row_pair{H, 0, H.cols}); }

    /// Zeroes what lies below the diagonal; false if the diagonal holds a number that is not positive or not finite, as
    /// it does wherever a NaN or an infinity went in.
    bool finish_factor(matrix_view<float> H) const {
        auto wrong = make_matrix<std::uint8_t>(H.rows, 1);
        for_each_row(H.rows, zero_lower_part{H, 0, H.cols});
        for_each_row(H.rows, check_factor_row{H, wrong.view()});
        std::vector<std::uint8_t> found(H.rows);
        download(wrong.view(), matrix_view<std::uint8_t>(found.data(), found.size(), 1));
        return std::count(found.begin(), found.end(), 0) == static_cast<std::ptrdiff_t>(found.size());
    }

    M machine_;
};

}  // namespace gptq::cuda
