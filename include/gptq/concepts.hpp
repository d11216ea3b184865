// The concepts of a layer: what a model of each must do, and what it costs. docs/concepts.md lists all concepts of the
// library, also those of other headers.
//
// Everything is customized by passing an object of a plain type. Nothing is inherited, registered or specialized.
// examples/ holds a grid, a backend and a layout of a user's own in about 30 lines each, and
// <gptq/testing/conformance.hpp> checks a model of yours against the numbered sentences below. ModelBackend, for whole
// models, is in <gptq/model/backend.hpp>; docs/backends.md says what both concepts of backends mean in practice.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <gptq/grids/params.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

// ---------------------------------------------------------------------------------------------------------------------
// QuantGrid<G, Bits>: the values that a group of weights can take.
//  1. fit<Bits>(w) returns parameters for the weights of one group; the scale is finite, not 0, and exact as a half.
//  2. encode<Bits>(x, p) returns a code in [0, 2^Bits), that of a value nearest to x.
//  3. encode<Bits>(decode<Bits>(c, p), p) == c for every code c that encode can return.
//  4. Nothing depends on anything but the arguments; all three may run concurrently.
//  5. G::sym tells whether every zero point is 2^(Bits-1), as symmetric kernels and files assume.
//  6. A grid may offer fit<Bits>(w, costs) as well, costs[k] > 0 being the loss that a squared error of 1 in w[k] means
//     to the solver, which then calls this one (CostAwareGrid).
//  7. A grid whose decode(c, p) is p.scale * (c - p.zero), for any scale and zero, may say so: G::affine. Backends may
//     round by themselves (AffineGrid); zero points are at least G::min_zero, and encode returns each code in
//     [0, 2^Bits) for some x.
//  8. A grid whose decode(c, p) is p.scale * (level - p.zero), for any scale and zero, with a level for each code, may
//     give the levels: levels<Bits>() returns these 2^Bits finite numbers (LevelGrid). Those of an affine grid are
//     0, 1, 2, ... and need not be given. What holds a layer apart from its grid (quantized_layer, prepare, pack) takes
//     a LevelGrid only.
//  9. A LevelGrid may offer storable(scale), the nearest scale that it may have. Its scales are then refitted when the
//     codes are known (RefittableGrid).
// Cost: fit once a group, encode and decode once a weight.
// ---------------------------------------------------------------------------------------------------------------------
template <class G, int Bits>
concept QuantGrid = requires(const G& grid, std::span<const float> w, float x, std::uint8_t code, grid_params p) {
    { G::sym } -> std::convertible_to<bool>;
    { grid.template fit<Bits>(w) } -> std::same_as<grid_params>;
    { grid.template encode<Bits>(x, p) } -> std::same_as<std::uint8_t>;
    { grid.template decode<Bits>(code, p) } -> std::same_as<float>;
};

template <class G, int Bits>
concept CostAwareGrid = QuantGrid<G, Bits> && requires(const G& grid, std::span<const float> w) {
    { grid.template fit<Bits>(w, w) } -> std::same_as<grid_params>;
};

template <class G>
concept AffineGrid = requires {
    requires G::affine;
    { G::min_zero } -> std::convertible_to<int>;
};

template <class G, int Bits>
concept GridWithLevels = requires(const G& grid) {
    { grid.template levels<Bits>() } -> std::same_as<std::array<float, std::size_t{1} << Bits>>;
};

template <class G, int Bits>
concept LevelGrid = QuantGrid<G, Bits> &&(AffineGrid<G> || GridWithLevels<G, Bits>);

template <class G, int Bits>
concept RefittableGrid = LevelGrid<G, Bits> && requires(float scale) {
    { G::storable(scale) } -> std::same_as<float>;
};

// ---------------------------------------------------------------------------------------------------------------------
// GroupPolicy<G>: how many input features share their parameters.
//  1. features(in_features, requested) is in [1, in_features] for in_features > 0. `requested` is the run-time group
//     size; policies that know theirs ignore it.
// ---------------------------------------------------------------------------------------------------------------------
template <class G>
concept GroupPolicy = requires(std::size_t in_features, int requested) {
    { G::features(in_features, requested) } -> std::same_as<std::size_t>;
};

// ---------------------------------------------------------------------------------------------------------------------
// OrderingPolicy<O>: in which order the columns are quantized.
//  1. order(diag, group_features) is a permutation of 0 .. diag.size()-1; the same arguments give the same permutation.
//  2. If O::groups_follow_order, group j holds the columns order[j*g], order[j*g+1], ... and the result needs its
//     g_idx.
//     Otherwise group j holds the original columns j*g .. (j+1)*g-1.
//  3. If O::static_groups, grids are fitted to the original weights before the loop. Otherwise they are fitted when the
//     loop arrives, and then the columns of a group must be neighbours in the order, a short last group last.
// ---------------------------------------------------------------------------------------------------------------------
template <class O>
concept OrderingPolicy = requires(const O& order, std::span<const float> diag, std::size_t group_features) {
    { O::groups_follow_order } -> std::convertible_to<bool>;
    { O::static_groups } -> std::convertible_to<bool>;
    { order(diag, group_features) } -> std::same_as<std::vector<std::size_t>>;
};

// ---------------------------------------------------------------------------------------------------------------------
// Backend<B>: where matrices live and who multiplies them. All matrices given to 3-12 are views of its memory.
//  1. make_matrix<T>(r, c) owns r x c zeroed elements and has view().
//  2. lend(host).view() shows a host matrix in the backend's memory, for as long as both live (a host backend lends the
//     elements themselves); download(mine, host) copies a matrix of equal shape out. Both for float, double,
//     std::uint8_t and std::size_t; lend for half and bfloat16 as well.
//  3. for_each_row(n, f) calls f(r) exactly once for every r in [0, n), possibly concurrently; f touches row r only. An f
//     that is to run on a GPU copies by loops: nvcc leaves std::copy and std::fill out of device code without a word.
//  4. gram_update(H, X, alpha, beta): H = beta H + alpha X'X, in the upper triangle (row-major) only.
//     H [K,K]  X [T,K]
//  5. factor_upper(H): overwrites H, of which the upper triangle is read, by the upper triangular A with H = A A',
//     zeros below. Returns false, H then being unspecified, where H is not positive definite or a result is not finite.
//     H [K,K]
//  6. inverse_factor_upper(H): likewise by the upper triangular U with U'U = H^-1 (the paper's "Cholesky of the
//     inverse").
//  7. multiply(C, A, B, alpha, beta): C = beta C + alpha A B; no argument overlaps C; beta = 0 ignores what C held.
//  8. solve_upper_right(B, A): B = B A^-1 for an upper triangular A whose lower part is not read.
//     B [N,K]  A [K,K]
//  9. A call's results are visible to the next call. Calls throw for resources that ran out, and what f throws leaves
//     for_each_row.
// A backend may do some of the solver's work better than by rows, and then has one or more of these. Their arguments
// are public types with comments on every matrix; each computes what its plain form does, up to rounding:
// 10. quantize_block(block), block a block_to_quantize<Bits, Grid> of <gptq/round_to_grid.hpp>; plain: quantize_rows.
// 11. fit_groups(fit), fit a groups_to_fit<Bits, Grid> of <gptq/fit_groups.hpp>; plain: fit(r) for every row.
// 12. permute_hessian(p), p a hessian_permutation of <gptq/factor.hpp>; plain: p.place(i, 0, K) for every feature i.
// Cost: 4, 7 and 8 carry almost all arithmetic; 3 carries the loop over columns.
// ---------------------------------------------------------------------------------------------------------------------
namespace detail {
struct row_operation {
    constexpr void operator()(std::size_t) const noexcept {}
};
}  // namespace detail

template <class B>
concept Backend = requires(const B& b, std::size_t n, matrix_view<float> m, matrix_view<const float> c, float s) {
    { b.template make_matrix<float>(n, n).view() } -> std::same_as<matrix_view<float>>;
    { b.lend(c).view() } -> std::same_as<matrix_view<const float>>;
    b.download(c, m);
    b.for_each_row(n, detail::row_operation{});
    b.gram_update(m, c, s, s);
    { b.factor_upper(m) } -> std::same_as<bool>;
    { b.inverse_factor_upper(m) } -> std::same_as<bool>;
    b.multiply(m, c, c, s, s);
    b.solve_upper_right(m, c);
};

// ---------------------------------------------------------------------------------------------------------------------
// FactorPath<P, B>: how the solver gets the inverse Hessian's Cholesky factor U (U'U = H^-1) and what it does with it.
// W [N,K] is the solver's working copy: columns that are already quantized hold D = W - Q, later ones what the path
// left. Columns are taken in super-blocks of a few blocks; S [N, s] is the one that begins at column `first`. The head
// of <gptq/quantize.hpp> draws them.
//  1. factor(b, H): prepares H in place; false where it is not positive definite.
//  2. enter(b, F, W, first, S): called before the first block of the super-block; S is the path's to fill.
//  3. current(b, F, W, first, S, begin, end): columns [begin, end) of the super-block, a block, get their up-to-date
//     weights in S: all errors before `begin` fed back. The blocks before `begin` in it are quantized, and S
//     holds their errors, Err = (w - q)/U[k,k].
//  4. diagonal_block(b, F, begin, end, U): U [end-begin, end-begin] = the diagonal block of U.
//  5. leave(b, F, W, first, Err): called once the whole super-block is quantized.                          Err [N, s]
//  6. column_costs(b, F, c): c(0, k) = 1/U[k,k]^2.                                                             c [1, K]
//  7. hessian_factor(b, F, A): A = the upper triangular matrix with H = A A'.                                  A [K, K]
// ---------------------------------------------------------------------------------------------------------------------
template <class P, class B>
concept FactorPath = Backend<B> &&
    requires(const P& path, const B& b, matrix_view<float> m, matrix_view<const float> c, std::size_t n) {
    { path.factor(b, m) } -> std::same_as<bool>;
    path.enter(b, c, c, n, m);
    path.current(b, c, c, n, m, n, n);
    path.diagonal_block(b, c, n, n, m);
    path.leave(b, c, m, n, c);
    path.column_costs(b, c, m);
    path.hessian_factor(b, c, m);
};

// ---------------------------------------------------------------------------------------------------------------------
// BlockRule<R>: what the solver's loop does to a block of columns: round_to_grid (GPTQ), prune_columns (SparseGPT).
//  1. rule(block) chooses a value q for every weight of block.T and leaves, in the backend's memory, T = Err with
//     Err[:,k] = (w - q)/U[k,k], W less the values q, and in `loss` each row's squares of Err on top of what was there.
//     Within the block, every weight has the errors of the columns before it fed back before its value is chosen:
//     column_block::settle does all this for one weight.
//  2. Blocks come in the order of the columns. What the rule throws leaves the solver.
// ---------------------------------------------------------------------------------------------------------------------
struct column_block;

template <class R>
concept BlockRule = requires(const R& rule, const column_block& block) {
    rule(block);
};

// ---------------------------------------------------------------------------------------------------------------------
// PackLayout<L>: how codes and zero points lie in 32-bit words.
//  1. code_words<Bits>(N, K) and zero_words<Bits>(N, G) are the exact shapes of the packed matrices.
//  2. pack_codes<Bits>(codes, words) and unpack_codes<Bits>(words, codes) are inverse; every bit that holds no code is
//     0. codes [N,K]: one byte a code, row = output feature
//  3. pack_zeros<Bits>(zeros, words) and unpack_zeros<Bits>(words, zeros) likewise, for the zero points in
//     [min_zero, 2^Bits) ; min_zero is 1 for formats that store zero - 1.                                  zeros [N,G]
//  4. supports(bits), constexpr, tells which numbers of bits the layout defines; check_shape(N, K) throws shape_error,
//     naming the numbers, for layers that the layout cannot hold.
//  5. scales_by_group tells how scales lie in the file: [G,N] if true, [N,G] if false.
//  6. A layout may say stores_symmetric_zeros = false: then symmetric layers have no packed zero points.
//  7. A layout may have code_block(words, first, count): the view of the words of output features
//     [first, first + count), which unpack_codes unpacks like a whole layer. Without it, prepare unpacks the whole
//     layer at once.
// ---------------------------------------------------------------------------------------------------------------------
/// The shape of a packed matrix.
struct extent2 {
    std::size_t rows = 0;
    std::size_t cols = 0;
    friend bool operator==(const extent2&, const extent2&) = default;
};

template <class L>
concept PackLayout = requires(std::size_t n, int bits, matrix_view<const std::uint8_t> codes,
                              matrix_view<std::uint8_t> out, matrix_view<const std::uint32_t> packed,
                              matrix_view<std::uint32_t> words) {
    { L::scales_by_group } -> std::convertible_to<bool>;
    { L::min_zero } -> std::convertible_to<int>;
    { L::supports(bits) } -> std::same_as<bool>;
    L::check_shape(n, n);
    { L::template code_words<4>(n, n) } -> std::same_as<extent2>;
    { L::template zero_words<4>(n, n) } -> std::same_as<extent2>;
    L::template pack_codes<4>(codes, words);
    L::template unpack_codes<4>(packed, out);
    L::template pack_zeros<4>(codes, words);
    L::template unpack_zeros<4>(packed, out);
};

// ---------------------------------------------------------------------------------------------------------------------
// Observer<O>: is told how far the solver has come, and may stop it.
//  1. on_columns(done, total) is called from the calling thread after each block of columns. What it throws leaves
//     quantize() unchanged; gptq::cancelled is the exception for "the user wants to stop".
// ---------------------------------------------------------------------------------------------------------------------
template <class O>
concept Observer = requires(O& observer, std::size_t n) {
    observer.on_columns(n, n);
};

}  // namespace gptq
