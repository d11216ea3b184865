// cuda_backend: quantizes on a GPU. For nvcc; see <gptq/cuda.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>

#include <cuda_runtime.h>

#include <gptq/backends/cuda/basic_backend.hpp>
#include <gptq/backends/cuda/blas.hpp>
#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/dense_product.hpp>
#include <gptq/backends/cuda/device_context.hpp>
#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/memory.hpp>
#include <gptq/backends/cuda/prepared.hpp>
#include <gptq/backends/cuda/stream.hpp>
#include <gptq/concepts.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// What a backend is made of; the defaults are those of cuda_backend{}.
struct cuda_options {
    int device = 0;
    /// Everything goes to this stream, which the caller keeps alive. Backends on one device that share a stream see
    /// each other's results without further ado; that is why the default is the device's common one.
    cudaStream_t stream = cudaStreamLegacy;
    cuda::gram_precision gram = cuda::gram_precision::float32;
};

namespace cuda {

/// A GPU as a model of Machine: one device, one stream, the libraries' handles. Copies share them.
class device_machine {
 public:
    /// Throws cuda_error where there is no such device.
    explicit device_machine(const cuda_options& options = {}) : options_(options) {
        const device_scope scope(options.device);
        pool_ = std::make_shared<const memory_pool>(options.device, options.stream);
        algebra_ = std::make_shared<const linear_algebra>(pool_);
        dense_product_ = std::make_shared<const dense_product>(pool_);
        check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, options.device),
              "cudaDeviceGetAttribute");
    }

    /// Throws cuda_error where the device's memory is exhausted.
    template <class T>
    device_matrix<T> make_matrix(std::size_t rows, std::size_t cols) const {
        device_matrix<T> made = room_for<T>(rows, cols);
        const device_scope scope(options_.device);
        if (made.bytes() != 0)
            check(cudaMemsetAsync(made.view().data, 0, made.bytes(), options_.stream), "cudaMemsetAsync");
        return made;
    }

    /// As make_matrix, but the elements are not set.
    template <class T>
    device_matrix<T> room_for(std::size_t rows, std::size_t cols) const {
        return device_matrix<T>(pool_, rows, cols);
    }

    /// A copy of a host matrix.
    template <class T>
    class lent {
     public:
        explicit lent(device_matrix<T> copy) : copy_(std::move(copy)) {}
        matrix_view<const T> view() const { return copy_.view(); }

     private:
        device_matrix<T> copy_;
    };
    template <class T>
    lent<std::remove_const_t<T>> lend(matrix_view<T> host) const {
        auto mine = room_for<std::remove_const_t<T>>(host.rows, host.cols);
        copy(host, mine.view());
        return lent<std::remove_const_t<T>>(std::move(mine));
    }

    /// Throws shape_error where the shapes differ.
    template <class T>
    void upload(matrix_view<const std::type_identity_t<T>> host, matrix_view<T> mine) const {
        copy(host, mine);
    }
    template <class T>
    void download(matrix_view<const std::type_identity_t<T>> mine, matrix_view<T> host) const {
        copy(mine, host);
    }

    template <class Kernel>
    void launch(const launch_shape& shape, const Kernel& kernel) const {
        const device_scope scope(options_.device);
        device_launch(shape, options_.stream, kernel);
    }

    void gemm(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
              float beta) const {
        const device_scope scope(options_.device);
        algebra_->gemm(A, B, C, alpha, beta);
    }
    void syrk_upper(matrix_view<const float> X, matrix_view<float> H, float alpha, float beta) const {
        const device_scope scope(options_.device);
        algebra_->syrk_upper(X, H, alpha, beta, options_.gram);
    }
    void trsm_right_upper(matrix_view<const float> A, matrix_view<float> B) const {
        const device_scope scope(options_.device);
        algebra_->trsm_right_upper(A, B);
    }
    bool potrf(matrix_view<float> S, triangle part) const {
        const device_scope scope(options_.device);
        return algebra_->potrf(S, part);
    }
    bool potri(matrix_view<float> S, triangle part) const {
        const device_scope scope(options_.device);
        return algebra_->potri(S, part);
    }

    template <class T, class U>
    void multiply_transposed(matrix_view<const T> X, matrix_view<const T> W, matrix_view<U> Y, float beta) const {
        const device_scope scope(options_.device);
        (*dense_product_)(X, W, Y, beta);
    }
    /// Some rows of the upper triangle at a time, so that little of the lower one is computed, and some tokens, so that
    /// sums of float stay short.
    template <tensor_element T>
    void gram(matrix_view<const T> X, matrix_view<float> H, float alpha, float beta) const {
        constexpr std::size_t tokens = std::size_t{1} << 15;
        const std::size_t strip = H.rows > 4096 ? 2048 : 1024;
        const device_scope scope(options_.device);
        for (std::size_t first = 0; first < X.rows; first += tokens) {
            const auto x = X.block(first, std::min(tokens, X.rows - first), 0, X.cols);
            for (std::size_t row = 0; row < H.rows; row += strip) {
                const std::size_t rows = std::min(strip, H.rows - row);
                dense_product_->multiply_columns(x.columns(row, row + rows), x.columns(row, H.cols),
                                                 H.block(row, rows, row, H.cols - row), alpha,
                                                 first == 0 ? beta : 1.0f);
            }
        }
    }
    void gram(matrix_view<const float> X, matrix_view<float> H, float alpha, float beta) const {
        syrk_upper(X, H, alpha, beta);
    }
    /// Two blocks on each multiprocessor: see docs/cuda.md.
    std::size_t wanted_blocks() const { return 2 * static_cast<std::size_t>(multiprocessors_); }

    int device() const { return options_.device; }
    cudaStream_t stream() const { return options_.stream; }

    /// Waits for everything that was started. Throws cuda_error where something failed.
    void synchronize() const {
        const device_scope scope(options_.device);
        check(cudaStreamSynchronize(options_.stream), "cudaStreamSynchronize");
    }

 private:
    template <class T>
    void copy(matrix_view<const std::type_identity_t<T>> from, matrix_view<T> to) const {
        const device_scope scope(options_.device);
        cuda::copy(from, to, options_.stream);
    }

    cuda_options options_;
    std::shared_ptr<const memory_pool> pool_;
    std::shared_ptr<const linear_algebra> algebra_;
    std::shared_ptr<const dense_product> dense_product_;
    int multiprocessors_ = 0;
};

static_assert(ProductMachine<device_machine>);

/// A quantized layer made ready for products on a GPU; see gptq::prepare.
using cuda_prepared = basic_prepared<device_machine>;

}  // namespace cuda

/// Quantizes on a GPU: a model of Backend, passed as any other:
///     gptq::quantize<w4>(W, h, options, gptq::cuda_backend{});
/// Making one sets up cuBLAS and cuSOLVER; copies share them. Throws cuda_error where the device is missing.
class cuda_backend : public cuda::basic_backend<cuda::device_machine> {
 public:
    explicit cuda_backend(const cuda_options& options) : basic_backend(cuda::device_machine(options)) {}
    cuda_backend() : cuda_backend(cuda_options{}) {}
};

static_assert(Backend<cuda_backend>);

using cuda::cuda_prepared;

/// X Wq' for X [tokens, in_features] in device memory. [tokens, out_features], computed when the stream gets there.
template <cuda::tensor_element T>
cuda::device_matrix<T> matmul(const cuda::device_matrix<T>& X, const cuda_prepared& m) {
    auto Y = m.machine().template room_for<T>(X.view().rows, m.out_features());
    m.template multiply<T>(X.view(), Y.view());
    return Y;
}

}  // namespace gptq
