// Products of matrices by cuBLASLt, for many rows of inputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include <cublasLt.h>
#include <cuda_runtime.h>

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

    /// Y = X W' + beta Y, summed in float; returns before the work is done.            X [M, K]  W [N, K]  Y [M, N]
    /// Throws shape_error where the shapes do not fit, cuda_error where cuBLASLt has no way to do it.
    template <class T, class U>
    void operator()(matrix_view<const T> X, matrix_view<const T> W, matrix_view<U> Y, float beta = 0.0f) const {
        if (X.cols != W.cols || Y.rows != X.rows || Y.cols != W.rows)
            throw shape_error("cuBLASLt: the shapes of the operands do not fit together");
        // Column by column the operands are X', W' and Y', and  Y' = (W')' X'.
        run(operation(CUBLAS_OP_T, CUBLAS_OP_N), W, X, Y, 1.0f, beta);
    }

    /// C = alpha A' B + beta C, likewise.                                              A [M, K]  B [M, N]  C [K, N]
    template <class T>
    void multiply_columns(matrix_view<const T> A, matrix_view<const T> B, matrix_view<float> C, float alpha,
                          float beta) const {
        if (A.rows != B.rows || C.rows != A.cols || C.cols != B.cols)
            throw shape_error("cuBLASLt: the shapes of the operands do not fit together");
        // Column by column,  C' = B' (A')'.
        run(operation(CUBLAS_OP_N, CUBLAS_OP_T), B, A, C, alpha, beta);
    }

 private:
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA suggests from Hopper on

    /// Sums in float.
    class operation {
     public:
        operation(cublasOperation_t first, cublasOperation_t second) {
            cublasLtMatmulDesc_t made = nullptr;
            check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
            handle_.reset(made);
            set(CUBLASLT_MATMUL_DESC_TRANSA, first);
            set(CUBLASLT_MATMUL_DESC_TRANSB, second);
        }
        cublasLtMatmulDesc_t get() const { return handle_.get(); }

     private:
        void set(cublasLtMatmulDescAttributes_t attribute, cublasOperation_t value) {
            check(cublasLtMatmulDescSetAttribute(get(), attribute, &value, sizeof(value)),
                  "cublasLtMatmulDescSetAttribute");
        }

        unique_handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> handle_;
    };

    template <class T>
    static constexpr cudaDataType_t type_of() {
        return std::is_same_v<T, float> ? CUDA_R_32F : std::is_same_v<T, half> ? CUDA_R_16F : CUDA_R_16BF;
    }

    /// A row-major matrix as the library sees it: its transpose.
    class layout {
     public:
        template <class T>
        explicit layout(matrix_view<T> m) {
            cublasLtMatrixLayout_t made = nullptr;
            check(cublasLtMatrixLayoutCreate(&made, type_of<std::remove_const_t<T>>(), m.cols, m.rows,
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

    /// The operands as the library sees them: C = alpha op(A) op(B) + beta C.
    template <class T, class U>
    void run(const operation& op, matrix_view<const T> A, matrix_view<const T> B, matrix_view<U> C, float alpha,
             float beta) const {
        const layout a(A), b(B), c(C);
        device_matrix<std::byte> workspace(pool_, 1, workspace_bytes);
        const cublasLtMatmulAlgo_t algorithm =
            choose(op, a, b, c, {alignment_of(A.data), alignment_of(B.data), alignment_of(C.data)});
        check(cublasLtMatmul(handle_.get(), op.get(), &alpha, A.data, a.get(), B.data, b.get(), &beta, C.data, c.get(),
                             C.data, c.get(), &algorithm, workspace.view().data, workspace_bytes, pool_->stream()),
              "cublasLtMatmul");
    }

    /// The largest power of two, up to what the library asks for, that an address is a multiple of.
    static std::uint32_t alignment_of(const void* address) {
        const auto bits = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(address)) | 256u;
        return bits & (~bits + 1u);
    }

    /// What the library takes for the fastest way.
    cublasLtMatmulAlgo_t choose(const operation& op, const layout& a, const layout& b, const layout& c,
                                const std::array<std::uint32_t, 3>& alignments) const {
        cublasLtMatmulPreference_t made = nullptr;
        check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
        const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, destroy_preference> preference(made);
        const auto prefer = [made](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
            check(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof(value)),
                  "cublasLtMatmulPreferenceSetAttribute");
        };
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignments[0]);
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignments[1]);
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignments[2]);
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignments[2]);
        cublasLtMatmulHeuristicResult_t result{};
        int found = 0;
        check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), op.get(), a.get(), b.get(), c.get(), c.get(), made, 1,
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
