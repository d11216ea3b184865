// The CUDA backend's logic without a GPU: its kernels run on the host, BLAS stands in for cuBLAS and cuSOLVER.
#include <algorithm>
#include <cstddef>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "support/catch.hpp"
#include "support/mutant_context.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

using gptq::matrix;
using gptq::matrix_view;
using gptq::cuda::host_executed_backend;

namespace {

/// cpu_backend with rows by the core's own loops, one after the other: what the kernels have to agree with, bit by bit.
struct plain_backend : gptq::cpu_backend {
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        for (std::size_t r = 0; r < n; ++r) f(r);
    }
    template <int Bits, class Grid>
    void quantize_block(const gptq::block_to_quantize<Bits, Grid>& block) const {
        gptq::quantize_rows(*this, block);
    }
    template <int Bits, class Grid>
    void fit_groups(const gptq::groups_to_fit<Bits, Grid>& fit) const {
        for_each_row(fit.W.rows, fit);
    }
};

/// A backend whose kernels run in a faulty context.
template <class Context>
struct faulty_machine : gptq::cuda::host_machine {
    template <class Kernel>
    void launch(const gptq::cuda::launch_shape& shape, const Kernel& kernel) const {
        gptq::cuda::host_launch<Context>(shape, kernel);
    }
};
template <class Context>
using faulty_backend = gptq::cuda::basic_backend<faulty_machine<Context>>;

template <class S, class B>
gptq::quantized<S> quantize_on(const B& backend, const gptq_test::random_layer& layer,
                               const gptq::quantize_options& options) {
    gptq::basic_hessian<B> h(layer.X.cols(), backend);
    h.add(layer.X.view());
    return gptq::quantize<S>(layer.W.view(), h, options, backend);
}

/// The same codes, scales and zeros on both; the loss but for the order of its sum.
template <class S>
void check_same(const gptq_test::random_layer& layer, const gptq::quantize_options& options) {
    const auto expected = quantize_on<S>(plain_backend{}, layer, options);
    const auto got = quantize_on<S>(host_executed_backend{}, layer, options);
    CAPTURE(int{S::bits}, options.group_size, options.block_size, layer.W.rows(), layer.W.cols());
    CHECK(got.codes == expected.codes);
    CHECK(got.scales == expected.scales);
    CHECK(got.zeros == expected.zeros);
    CHECK(got.g_idx == expected.g_idx);
    CHECK(got.report.loss == Approx(expected.report.loss).epsilon(1e-12));
    CHECK(expected.report.loss > 0.0);
}

}  // namespace

TEST_CASE("the host-executed CUDA backend conforms", "[many]") {
    CHECK(gptq::testing::check_backend(host_executed_backend{}) == gptq::testing::violations{});
}

TEST_CASE("the CUDA kernels quantize as the plain loops do, in every scheme", "[many]") {
    // 70 columns in blocks of 48: tiles of 32, of 16 and of 6, groups that end within them, a short group last.
    const auto layer = gptq_test::make_layer(6, 70, 160, 11);
    gptq_test::for_each_scheme([&]<class S>() { check_same<S>(layer, {.block_size = 48, .group_size = 20}); });
}

TEST_CASE("the CUDA kernels quantize as the plain loops do, in groups of every size", "[many]") {
    using natural = gptq::scheme<4, gptq::group_size<gptq::dynamic>, gptq::asymmetric>;
    using reordered = gptq::scheme<3, gptq::group_size<gptq::dynamic>, gptq::symmetric, gptq::act_order>;
    const auto layer = gptq_test::make_layer(5, 97, 200, 12);  // 5 rows: the second block of warps has one
    for (const int group_size : {1, 7, 16, 32, 33, 64, 97, gptq::per_channel}) {
        check_same<natural>(layer, {.block_size = 64, .group_size = group_size});
        check_same<reordered>(layer, {.block_size = 64, .group_size = group_size});
    }
}

TEST_CASE("the CUDA kernels quantize columns that are groups of their own, a few tiles of one column") {
    using own_groups = gptq::scheme<4, gptq::group_size<1>, gptq::asymmetric>;
    check_same<own_groups>(gptq_test::make_layer(2, 5, 40, 15), {.block_size = 4});
}

// Faults that these tests must see. A barrier that is missing is for ThreadSanitizer to see (tests/cuda).
TEST_CASE("a fault in the shuffles of the solver's kernel is seen") {
    using w4 = gptq::scheme<4, gptq::group_size<32>, gptq::asymmetric>;
    const auto layer = gptq_test::make_layer(4, 64, 100, 16);
    const auto expected = quantize_on<w4>(plain_backend{}, layer, {});
    const auto right = quantize_on<w4>(host_executed_backend{}, layer, {});
    const auto wrong = quantize_on<w4>(faulty_backend<gptq_test::with_shifted_shuffles>{}, layer, {});
    CHECK((right.codes == expected.codes));
    CHECK_FALSE((wrong.codes == expected.codes));
}

TEST_CASE("the solver's kernel without barriers of warps", "[.][solver_without_warp_barrier]") {
    using w4 = gptq::scheme<4, gptq::group_size<32>, gptq::asymmetric>;
    quantize_on<w4>(faulty_backend<gptq_test::without_warp_barrier>{}, gptq_test::make_layer(4, 64, 100, 16), {});
}

TEST_CASE("the CUDA kernels refine as the plain loops do") {
    using w2 = gptq::scheme<2, gptq::group_size<16>, gptq::asymmetric, gptq::act_order>;
    check_same<w2>(gptq_test::make_layer(5, 40, 100, 13), {.block_size = 32, .refine = {.rounds = 2}});
}

TEST_CASE("the CUDA kernels search among candidates as the plain loops do") {
    using w2 = gptq::scheme<2, gptq::group_size<16>, gptq::searched_by_loss<gptq::symmetric>, gptq::group_aware_order>;
    check_same<w2>(gptq_test::make_layer(5, 40, 100, 17), {.block_size = 32, .candidates = 4});
}

TEST_CASE("the CUDA kernels round to nearest as the plain loops do") {
    using w3 = gptq::scheme<3, gptq::group_size<16>, gptq::searched<gptq::asymmetric>>;
    const auto layer = gptq_test::make_layer(7, 40, 1, 14);
    const auto expected = gptq::round_to_nearest<w3>(layer.W.view(), {}, plain_backend{});
    const auto got = gptq::round_to_nearest<w3>(layer.W.view(), {}, host_executed_backend{});
    CHECK(got.codes == expected.codes);
    CHECK(got.scales == expected.scales);
}

TEST_CASE("a block too wide for shared memory takes the plain loop") {
    using kernel = gptq::cuda::solve_kernel<4, gptq::symmetric>;
    CHECK(kernel::holds(6336));
    CHECK_FALSE(kernel::holds(6337));
    kernel widest{.rows = 8, .block = {}};
    widest.block.T = {nullptr, 8, 6336};
    CHECK(widest.launch().shared_bytes <= gptq::cuda::largest_shared_bytes);
}

TEST_CASE("kernels by element do what the row operation does") {
    // 3 x 1500 elements: several blocks of threads, rows that end within one.
    matrix<float> from(3, 1500), by_rows(3, 1500), by_elements(3, 1500);
    for (std::size_t i = 0; i < 4500; ++i) from.data()[i] = static_cast<float>(i);
    const auto add = [&](matrix<float>& to) { return gptq::detail::add_row{from.view(), to.view()}; };
    static_assert(gptq::cuda::ColumnwiseOperation<gptq::detail::add_row>);
    static_assert(!gptq::cuda::ColumnwiseOperation<gptq::detail::identity_row>, "it asks for its column's number");
    plain_backend{}.for_each_row(3, add(by_rows));
    host_executed_backend{}.for_each_row(3, add(by_elements));
    CHECK(std::equal(by_rows.data(), by_rows.data() + 4500, by_elements.data()));
    host_executed_backend{}.for_each_row(
        3, gptq::detail::add_row{from.view().columns(0, 0), by_rows.view().columns(0, 0)});
    CHECK(std::equal(by_rows.data(), by_rows.data() + 4500, by_elements.data()));  // no columns, nothing done
}
