// Models and non-models of every concept. A toy model has every operation that its concept asks for, except the one
// whose number it is given: so each sentence `static_assert(!Concept<toy<i>>)` shows that the concept asks for i.
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/grids/nf4.hpp>
#include <gptq/groups.hpp>
#include <gptq/host_memory.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/observer.hpp>
#include <gptq/orders.hpp>
#include <gptq/prune.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/round_to_grid.hpp>
#include <gptq/scheme.hpp>

namespace gptq_test {

constexpr int nothing = -1;

/// Whether Check::operator()<i>() is false for all i below N: none of the incomplete toys is taken for a model.
template <int N, class Check>
constexpr bool none_of_first(Check check) {
    return [&]<int... I>(std::integer_sequence<int, I...>) { return !(check.template operator()<I>() || ...); }
    (std::make_integer_sequence<int, N>{});
}

// ---------------------------------------------------------------------------------------------------------- QuantGrid
template <int Missing>
struct toy_sym {
    static constexpr bool sym = true;
};
template <>
struct toy_sym<3> {};

template <int Missing>
struct toy_grid : toy_sym<Missing> {
    template <int Bits>
    gptq::grid_params fit(std::span<const float>) const requires(Missing != 0);
    template <int Bits>
    std::uint8_t encode(float, gptq::grid_params) const requires(Missing != 1);
    template <int Bits>
    float decode(std::uint8_t, gptq::grid_params) const requires(Missing != 2);
};
static_assert(gptq::QuantGrid<toy_grid<nothing>, 4>);
static_assert(none_of_first<4>([]<int I> { return gptq::QuantGrid<toy_grid<I>, 4>; }));
static_assert(!gptq::CostAwareGrid<toy_grid<nothing>, 4> && !gptq::AffineGrid<toy_grid<nothing>>);
static_assert(!gptq::LevelGrid<toy_grid<nothing>, 4> && !gptq::RefittableGrid<toy_grid<nothing>, 4>);
static_assert(gptq::LevelGrid<gptq::nf4, 4> && !gptq::AffineGrid<gptq::nf4> && !gptq::QuantGrid<gptq::nf4, 3>);
static_assert(gptq::RefittableGrid<gptq::symmetric, 4> && gptq::RefittableGrid<gptq::searched_by_loss<gptq::nf4>, 4>);

struct grid_with_integer_levels : toy_grid<nothing> {
    template <int Bits>
    std::array<int, std::size_t{1} << Bits> levels() const;
};
static_assert(gptq::QuantGrid<grid_with_integer_levels, 4> && !gptq::LevelGrid<grid_with_integer_levels, 4>);

static_assert(gptq::CostAwareGrid<gptq::searched_by_loss<gptq::symmetric>, 4> &&
              !gptq::CostAwareGrid<gptq::symmetric, 4> && gptq::AffineGrid<gptq::asymmetric_from_one>);
static_assert(gptq::QuantGrid<gptq::symmetric, 2> && gptq::QuantGrid<gptq::asymmetric, 8>);

struct grid_with_wide_codes : toy_grid<1> {
    template <int Bits>
    int encode(float, gptq::grid_params) const;
};
static_assert(!gptq::QuantGrid<grid_with_wide_codes, 4>, "codes are bytes");

// ------------------------------------------------------------------------------------------ GroupPolicy,
// OrderingPolicy
static_assert(gptq::GroupPolicy<gptq::group_size<32>> && gptq::GroupPolicy<gptq::group_size<gptq::dynamic>>);
static_assert(!gptq::GroupPolicy<gptq::symmetric>);

struct order_without_flags {
    std::vector<std::size_t> operator()(std::span<const float>, std::size_t) const;
};
struct toy_order : order_without_flags {
    static constexpr bool groups_follow_order = false;
    static constexpr bool static_groups = false;
};
static_assert(gptq::OrderingPolicy<toy_order> && gptq::OrderingPolicy<gptq::natural_order> &&
              gptq::OrderingPolicy<gptq::act_order> && gptq::OrderingPolicy<gptq::act_order_static> &&
              gptq::OrderingPolicy<gptq::group_aware_order>);
static_assert(!gptq::OrderingPolicy<order_without_flags>);

// ------------------------------------------------------------------------------------------------- Backend, FactorPath
template <int Missing>
struct toy_backend {
    using view = gptq::matrix_view<float>;
    using const_view = gptq::matrix_view<const float>;
    template <class T>
    gptq::matrix<T> make_matrix(std::size_t, std::size_t) const requires(Missing != 0);
    gptq::host_memory::lent<float> lend(const_view) const requires(Missing != 1);
    void download(const_view, view) const requires(Missing != 2);
    template <class F>
    void for_each_row(std::size_t, const F&) const requires(Missing != 3);
    void gram_update(view, const_view, float, float) const requires(Missing != 4);
    bool factor_upper(view) const requires(Missing != 5);
    bool inverse_factor_upper(view) const requires(Missing != 6);
    void multiply(view, const_view, const_view, float, float) const requires(Missing != 7);
    void solve_upper_right(view, const_view) const requires(Missing != 8);
};
static_assert(gptq::Backend<toy_backend<nothing>> && gptq::Backend<gptq::reference_backend> &&
              gptq::Backend<gptq::cpu_backend>);
static_assert(none_of_first<9>([]<int I> { return gptq::Backend<toy_backend<I>>; }));

struct backend_that_cannot_fail : toy_backend<5> {
    void factor_upper(view) const;
};
static_assert(!gptq::Backend<backend_that_cannot_fail>, "factor_upper tells whether H is positive definite");

template <int Missing>
struct toy_path {
    using view = gptq::matrix_view<float>;
    using const_view = gptq::matrix_view<const float>;
    template <class B>
    bool factor(const B&, view) const requires(Missing != 0);
    template <class B>
    void current(const B&, const_view, const_view, std::size_t, view, std::size_t, std::size_t) const
        requires(Missing != 1);
    template <class B>
    void diagonal_block(const B&, const_view, std::size_t, std::size_t, view) const requires(Missing != 2);
    template <class B>
    void leave(const B&, const_view, view, std::size_t, const_view) const requires(Missing != 3);
    template <class B>
    void column_costs(const B&, const_view, view) const requires(Missing != 4);
    template <class B>
    void hessian_factor(const B&, const_view, view) const requires(Missing != 5);
    template <class B>
    void enter(const B&, const_view, const_view, std::size_t, view) const requires(Missing != 6);
};
static_assert(gptq::FactorPath<toy_path<nothing>, gptq::reference_backend>);
static_assert(none_of_first<7>([]<int I> { return gptq::FactorPath<toy_path<I>, gptq::reference_backend>; }));
static_assert(!gptq::FactorPath<toy_path<nothing>, toy_backend<7>>, "a path needs a whole backend");
static_assert(gptq::FactorPath<gptq::inverse_free_path, gptq::reference_backend> &&
              gptq::FactorPath<gptq::paper_path, gptq::reference_backend>);

// ---------------------------------------------------------------------------------------------------------- BlockRule
struct toy_rule {
    void operator()(const gptq::column_block&) const;
};
static_assert(gptq::BlockRule<toy_rule> && !gptq::BlockRule<gptq::no_observer>);
static_assert(gptq::BlockRule<gptq::prune_columns<gptq::reference_backend>> &&
              gptq::BlockRule<gptq::round_to_grid<4, gptq::symmetric, gptq::reference_backend, gptq::paper_path>> &&
              gptq::BlockRule<gptq::prune_and_round<4, gptq::symmetric, gptq::reference_backend, gptq::paper_path>>);

// --------------------------------------------------------------------------------------------------------- PackLayout
template <int Missing>
struct toy_layout_constants {
    static constexpr bool scales_by_group = true;
    static constexpr int min_zero = 0;
};
template <>
struct toy_layout_constants<8> {
    static constexpr int min_zero = 0;
};
template <>
struct toy_layout_constants<9> {
    static constexpr bool scales_by_group = true;
};
template <int Missing>
struct toy_layout : toy_layout_constants<Missing> {
    using bytes = gptq::matrix_view<std::uint8_t>;
    using const_bytes = gptq::matrix_view<const std::uint8_t>;
    using words = gptq::matrix_view<std::uint32_t>;
    using const_words = gptq::matrix_view<const std::uint32_t>;
    static bool supports(int) requires(Missing != 0);
    static void check_shape(std::size_t, std::size_t) requires(Missing != 1);
    template <int Bits>
    static gptq::extent2 code_words(std::size_t, std::size_t) requires(Missing != 2);
    template <int Bits>
    static gptq::extent2 zero_words(std::size_t, std::size_t) requires(Missing != 3);
    template <int Bits>
    static void pack_codes(const_bytes, words) requires(Missing != 4);
    template <int Bits>
    static void unpack_codes(const_words, bytes) requires(Missing != 5);
    template <int Bits>
    static void pack_zeros(const_bytes, words) requires(Missing != 6);
    template <int Bits>
    static void unpack_zeros(const_words, bytes) requires(Missing != 7);
};
static_assert(gptq::PackLayout<toy_layout<nothing>>);
static_assert(none_of_first<10>([]<int I> { return gptq::PackLayout<toy_layout<I>>; }));
static_assert(gptq::PackLayout<gptq::layout::gptq_v1> && gptq::PackLayout<gptq::layout::gptq_v2> &&
              gptq::PackLayout<gptq::layout::compressed_tensors>);

// --------------------------------------------------------------------------------------------- Observer, Scheme,
// matrices
struct toy_observer {
    void on_columns(std::size_t, std::size_t);
};
static_assert(gptq::Observer<toy_observer> && gptq::Observer<gptq::no_observer>);
static_assert(!gptq::Observer<int>);

struct toy_scheme {
    static constexpr int bits = 4;
    using group = gptq::group_size<64>;
    using grid = toy_grid<nothing>;
    using order = toy_order;
};
struct scheme_of_broken_grid : toy_scheme {
    using grid = toy_grid<2>;
};
static_assert(gptq::Scheme<toy_scheme> && gptq::Scheme<gptq::scheme<4>>);
static_assert(!gptq::Scheme<scheme_of_broken_grid> && !gptq::Scheme<int>);

static_assert(!gptq::MatrixLike<std::vector<float>>, "a vector is not a matrix");

// A view gives up the right to write, and never gains it.
static_assert(std::convertible_to<gptq::matrix_view<float>, gptq::matrix_view<const float>>);
static_assert(!std::convertible_to<gptq::matrix_view<const float>, gptq::matrix_view<float>>);

}  // namespace gptq_test
