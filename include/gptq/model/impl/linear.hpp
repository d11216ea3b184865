// The bodies of <gptq/model/linear.hpp>.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/weight_memory.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/matmul.hpp>
#include <gptq/xtensor/quantized.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

GPTQ_INLINE std::size_t linear_job::count() const {
    return std::visit([](const auto& job) { return job.count(); }, job_);
}

GPTQ_INLINE std::size_t linear_job::work() const {
    return std::visit([](const auto& job) { return job.work(); }, job_);
}

GPTQ_INLINE void linear_job::operator()(std::size_t first, std::size_t last) const {
    std::visit([&](const auto& job) { job(first, last); }, job_);
}

GPTQ_INLINE std::size_t linear::out_features() const {
    return on_weights([](const auto& m) { return m.out_features(); }, [](const auto& w) { return w.rows; });
}

GPTQ_INLINE std::size_t linear::in_features() const {
    return on_weights([](const auto& m) { return m.in_features(); }, [](const auto& w) { return w.cols; });
}

GPTQ_INLINE void linear::hold(const quantized_layer& q, quantized_form form, weight_memory* memory) {
    weight = form == quantized_form::dense ? dequantize(q) : make_tensor2<float>(0, 0);
    switch (form) {
        case quantized_form::dense: packed = std::monostate(); return;
        case quantized_form::exact: packed = prepare<activation::exact>(q, memory); return;
        case quantized_form::int16: packed = prepare<activation::int16>(q, memory); return;
        case quantized_form::int8: packed = prepare<activation::int8>(q, memory); return;
    }
}

GPTQ_INLINE void linear::hold(table&& numbers, quantized_form form) {
    const bool narrow = form != quantized_form::dense && numbers.is_narrow();
    weight = narrow ? make_tensor2<float>(0, 0) : std::move(numbers).floats();
    if (narrow)
        packed = std::move(numbers);
    else
        packed = std::monostate();
}

GPTQ_INLINE linear_job linear::begin(matrix_view<const float> x, matrix_view<float> y, const linear_job* beside) const {
    if (x.cols != in_features() || y.cols != out_features() || x.rows != y.rows)
        throw shape_error("linear layer " + shape_string(out_features(), in_features()) + ": input " +
                          shape_string(x.rows, x.cols) + " and output " + shape_string(y.rows, y.cols) +
                          " do not fit it");
    const begun_product<float>* product = beside != nullptr ? beside->product() : nullptr;
    return on_weights([&](const auto& m) { return linear_job(m.begin(x, y, {}, no_epilogue{}, product)); },
                      [&]<class T>(matrix_view<const T> w) {
                          if (!worth_blas(x)) return linear_job(dense_job<T>{x, w, y});
                          multiply_dense(x, w, y);
                          return linear_job();
                      });
}

namespace detail {

/// Y += X · downᵀ · upᵀ.
inline void add_term(const low_rank_term& term, matrix_view<const float> x, matrix_view<float> y) {
    const matrix_view<const float> down = view_of(term.down), up = view_of(term.up);
    matrix<float> narrow(x.rows, down.rows);
    multiply_dense(x, down, narrow.view());
    const matrix_view<const float> inputs = narrow.view();
    if (worth_blas(x)) return blas::gemm_nt(inputs, up, y, 1.0f, 1.0f);
    matrix<float> sums(y.rows, y.cols);
    multiply_dense(inputs, up, sums.view());
    add(y, sums.view());
}

}  // namespace detail

GPTQ_INLINE void apply_together(matrix_view<const float> x, std::span<const linear_output<linear, float>> outputs) {
    std::vector<linear_job> jobs;
    std::size_t work = 0;
    for (const auto& [layer, y] : outputs) {
        jobs.push_back(layer.begin(x, y, jobs.empty() ? nullptr : &jobs.back()));
        work += jobs.back().work();
    }
    kernels::run_jobs(jobs, matmul_options{}.threads_for(work));
    for (const auto& [layer, y] : outputs) {
        for (const low_rank_term& term : layer.terms) detail::add_term(term, x, y);
        if (layer.bias.size() == 0) continue;
        for (std::size_t r = 0; r < y.rows; ++r)
            for (std::size_t n = 0; n < y.cols; ++n) y(r, n) += layer.bias(n);
    }
}

}  // namespace gptq::model
