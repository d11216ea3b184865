// Several GPUs, or any backends, on one layer: tokens are shared out when Hessians are accumulated, rows of W when the
// layer is quantized. Rows are independent of each other once the Hessian is known, so the result is that of one
// backend.
//
//     gptq::cuda::split_hessian<gptq::cuda_backend> h(in_features, backends);
//     h.add(X);
//     h.reduce(gptq::cuda::nccl_sum(backends));  // of <gptq/backends/cuda/nccl.hpp>; reduce() goes through host memory
//     auto q = gptq::cuda::quantize<w4>(W, h, options);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/quantize.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::cuda {

/// A run of rows: [first, first + count).
struct row_range {
    std::size_t first;
    std::size_t count;
    friend bool operator==(const row_range&, const row_range&) = default;
};

/// Part `part` of `parts` when `rows` are shared out: contiguous, all of them, sizes differing by at most one.
constexpr row_range rows_of_part(std::size_t rows, std::size_t part, std::size_t parts) {
    const std::size_t first = rows * part / parts;
    return {first, rows * (part + 1) / parts - first};
}

namespace detail {

/// work(i) for every i below n, each in a thread of its own; then what the first of them to fail, by number, threw.
template <class Work>
void in_threads(std::size_t n, const Work& work) {
    std::vector<std::exception_ptr> failures(n);
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < n; ++i)
            threads.emplace_back([&, i] {
                try {
                    work(i);
                } catch (...) {
                    failures[i] = std::current_exception();
                }
            });
    }
    for (const std::exception_ptr& failure : failures)
        if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace detail

/// Adds matrices of several backends through host memory, in double. For two GPUs or so, and for tests.
struct sum_through_host {
    /// Every parts[i], in the memory of backends[i], becomes the sum of all; their shapes are equal.
    template <Backend B>
    void operator()(std::span<const B> backends, std::span<const matrix_view<float>> parts) const {
        const std::size_t rows = parts[0].rows, cols = parts[0].cols;
        matrix<double> sum(rows, cols);
        matrix<float> host(rows, cols);
        for (std::size_t i = 0; i < parts.size(); ++i) {
            backends[i].download(matrix_view<const float>(parts[i]), host.view());
            for (std::size_t k = 0; k < rows * cols; ++k) sum.data()[k] += double{host.data()[k]};
        }
        for (std::size_t k = 0; k < rows * cols; ++k) host.data()[k] = static_cast<float>(sum.data()[k]);
        for (std::size_t i = 0; i < parts.size(); ++i) {
            const auto lent = backends[i].lend(std::as_const(host).view());
            backends[i].for_each_row(rows, gptq::detail::copy_row{lent.view(), parts[i]});
        }
    }
};

/// The Hessian of a layer's inputs over several backends: each has seen some of the tokens, until reduce().
template <Backend B>
class split_hessian {
 public:
    /// For layers of `in_features` = K inputs. Throws shape_error without backends.
    split_hessian(std::size_t in_features, std::vector<B> backends) : backends_(std::move(backends)) {
        if (backends_.empty()) throw shape_error("split_hessian: no backend to accumulate on");
        for (const B& backend : backends_) {
            parts_.emplace_back(in_features, backend);
            sums_.push_back(backend.template make_matrix<float>(in_features, in_features));
        }
    }

    /// Adds tokens X [T, K], a share to each backend. Throws as basic_hessian::add.
    template <class X>
    void add(const X& x) {
        const readable_matrix<float, X> readable(x, "hessian: the inputs");
        const matrix_view<const float> inputs = readable.view();
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            const row_range rows = rows_of_part(inputs.rows, i, parts_.size());
            parts_[i].add(inputs.block(rows.first, rows.count, 0, inputs.cols));
        }
        reduced_ = false;
    }

    /// Gives every backend the mean over all tokens. `sum` is called only where there is more than one backend:
    /// sum(backends, parts) makes each of the parts, which lie in the backends' memories, the sum of all.
    template <class Sum = sum_through_host>
    void reduce(const Sum& sum = {}) {
        std::vector<matrix_view<float>> views;
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            const matrix_view<float> to = sums_[i].view();
            const double share = samples() == 0 ? 0.0 : double(parts_[i].samples()) / double(samples());
            backends_[i].for_each_row(to.rows, gptq::detail::copy_row{parts_[i].upper(), to});
            backends_[i].for_each_row(to.rows, gptq::detail::mix_row{to, to, 0.0f, static_cast<float>(share)});
            views.push_back(to);
        }
        if (views.size() > 1) sum(std::span<const B>(backends_), std::span<const matrix_view<float>>(views));
        reduced_ = true;
    }

    std::size_t in_features() const { return parts_.front().in_features(); }
    std::size_t samples() const {
        std::size_t all = 0;
        for (const auto& part : parts_) all += part.samples();
        return all;
    }
    std::span<const B> backends() const { return backends_; }

    /// H in the memory of backend i, upper triangle. Throws gptq::error before reduce().                    [K, K]
    matrix_view<const float> upper(std::size_t i) const {
        if (!reduced_) throw error("split_hessian: call reduce() after the last add()");
        return sums_[i].view();
    }

 private:
    std::vector<B> backends_;
    std::vector<basic_hessian<B>> parts_;
    std::vector<decltype(std::declval<const B&>().template make_matrix<float>(0, 0))> sums_;
    bool reduced_ = false;
};

namespace detail {

/// The rows of a layer's result.
inline quantized_view rows_of(quantized_view q, row_range rows, std::span<std::int32_t> g_idx) {
    const auto part = [&](auto m) { return m.block(rows.first, rows.count, 0, m.cols); };
    return {part(q.codes), part(q.scales), part(q.zeros), g_idx};
}

/// Quantizes some rows of a layer as gptq::quantize does.
template <Scheme S, Backend B>
solve_report quantize_rows(const B& backend, matrix_view<const float> H, matrix_view<const float> W,
                           std::size_t group_features, std::size_t tokens, quantized_view q,
                           const quantize_options& options) {
    const auto f = factor_hessian<typename S::order>(backend, H, group_features, options, {}, {}, tokens);
    no_observer observer;
    return solve_and_refine<S::bits>(W, f, q, options, observer, typename S::grid{});
}

}  // namespace detail

/// Quantizes W [N, K] by scheme S with its rows shared out over the Hessian's backends, a host thread each; every one
/// factors the Hessian for itself. Throws as gptq::quantize, and gptq::error before h.reduce().
template <Scheme S, ReadableMatrix M, Backend B>
quantized<S> quantize(const M& W, const split_hessian<B>& h, const quantize_options& options = {}) {
    const readable_matrix<float, M> readable(W, "weights");
    const matrix_view<const float> weights = readable.view();
    if (h.samples() == 0) throw shape_error("hessian: no calibration inputs were added");
    check_options(options);
    const std::size_t group_features =
        gptq::detail::features_of<typename S::group>(h.in_features(), options.group_size);
    quantized<S> q;
    allocate(q, weights.rows, weights.cols, group_features);
    gptq::detail::check_layer(weights, h.in_features(), group_features, q.view());
    const std::size_t parts = std::min(h.backends().size(), weights.rows);
    std::vector<solve_report> reports(parts);
    std::vector<std::vector<std::int32_t>> g_idx(parts, std::vector<std::int32_t>(weights.cols));  // all the same
    detail::in_threads(parts, [&](std::size_t i) {
        const row_range rows = rows_of_part(weights.rows, i, parts);
        reports[i] = detail::quantize_rows<S>(h.backends()[i], h.upper(i),
                                              weights.block(rows.first, rows.count, 0, weights.cols), group_features,
                                              h.samples(), detail::rows_of(q.view(), rows, g_idx[i]), options);
    });
    std::copy(g_idx[0].begin(), g_idx[0].end(), q.g_idx.begin());
    q.report = reports[0];
    for (std::size_t i = 1; i < parts; ++i) q.report.loss += reports[i].loss;
    return q;
}

}  // namespace gptq::cuda
