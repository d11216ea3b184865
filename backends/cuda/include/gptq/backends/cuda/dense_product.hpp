// Products of half and bfloat16 matrices by cuBLASLt, for many rows of inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/handle.hpp>
#include <gptq/backends/cuda/memory.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// A handle of cuBLASLt and the memory it works in; belongs to the device and the stream of its pool.
class dense_product {
 public:
    /// Throws cuda_error where the library cannot be set up.
    explicit dense_product(std::shared_ptr<const memory_pool> pool) : pool_(std::move(pool)) {
        cublasLtHandle_t made = nullptr;
        check(cublasLtCreate(&made), "cublasLtCreate");
        handle_.reset(made);
    }

    /// Y = X W', summed in float; returns before the work is done.                    X [M, K]  W [N, K]  Y [M, N]
    /// Throws shape_error where the shapes do not fit, cuda_error where cuBLASLt has no way to do it.
    template <tensor_element T>
    void operator()(matrix_view<const T> X, matrix_view<const T> W, matrix_view<T> Y) const {
        if (X.cols != W.cols || Y.rows != X.rows || Y.cols != W.rows)
            throw shape_error("cuBLASLt: the shapes of the operands do not fit together");
        // Column by column the operands are X', W' and Y', and  Y' = (W')' X'.
        const operation op;
        const layout w(W), x(X), y(Y);
        device_matrix<std::byte> workspace(pool_, 1, workspace_bytes);
        const cublasLtMatmulAlgo_t algorithm = choose(op, w, x, y);
        const float one = 1.0f, zero = 0.0f;
        check(cublasLtMatmul(handle_.get(), op.get(), &one, W.data, w.get(), X.data, x.get(), &zero, Y.data, y.get(),
                             Y.data, y.get(), &algorithm, workspace.view().data, workspace_bytes, pool_->stream()),
              "cublasLtMatmul");
    }

 private:
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA suggests from Hopper on

    /// Sums in float, the first operand transposed.
    class operation {
     public:
        operation() {
            cublasLtMatmulDesc_t made = nullptr;
            check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
            handle_.reset(made);
            const cublasOperation_t transposed = CUBLAS_OP_T;
            check(cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
                  "cublasLtMatmulDescSetAttribute");
        }
        cublasLtMatmulDesc_t get() const { return handle_.get(); }

     private:
        unique_handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> handle_;
    };

    /// A row-major matrix as the library sees it: its transpose.
    class layout {
     public:
        template <class T>
        explicit layout(matrix_view<T> m) {
            constexpr bool is_half = std::is_same_v<std::remove_const_t<T>, half>;
            cublasLtMatrixLayout_t made = nullptr;
            check(cublasLtMatrixLayoutCreate(&made, is_half ? CUDA_R_16F : CUDA_R_16BF, m.cols, m.rows,
                                             static_cast<std::int64_t>(m.ld)),
                  "cublasLtMatrixLayoutCreate");
            handle_.reset(made);
        }
        cublasLtMatrixLayout_t get() const { return handle_.get(); }

     private:
        unique_handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy> handle_;
    };

    struct destroy_preference {
        void operator()(cublasLtMatmulPreference_t p) const { cublasLtMatmulPreferenceDestroy(p); }
    };

    /// What the library takes for the fastest way.
    cublasLtMatmulAlgo_t choose(const operation& op, const layout& w, const layout& x, const layout& y) const {
        cublasLtMatmulPreference_t made = nullptr;
        check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
        const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, destroy_preference> preference(made);
        check(cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                                   sizeof(workspace_bytes)),
              "cublasLtMatmulPreferenceSetAttribute");
        cublasLtMatmulHeuristicResult_t result{};
        int found = 0;
        check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), op.get(), w.get(), x.get(), y.get(), y.get(), made, 1,
                                             &result, &found),
              "cublasLtMatmulAlgoGetHeuristic");
        if (found == 0)
            throw cuda_error("cublasLtMatmulAlgoGetHeuristic: cuBLASLt has no algorithm for these matrices");
        return result.algo;
    }

    struct destroy {
        void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
    };
    std::shared_ptr<const memory_pool> pool_;
    std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, destroy> handle_;
};

}  // namespace gptq::cuda
