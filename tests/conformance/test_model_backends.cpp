// Every model backend of the library conforms, and the check finds those that do not.
#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/model_backend.hpp>
#include <gptq/model/reference_model_backend.hpp>
#include <gptq/testing/check_model_backend.hpp>

#include "support/catch.hpp"
#include "violates.hpp"

using gptq::matrix_view;
using gptq::model::cpu_model_backend;
using gptq::model::plain_model_backend;
using gptq::testing::check_model_backend;
using gptq_test::violates;

namespace {

using float_view = matrix_view<float>;
using const_floats = matrix_view<const float>;
const gptq::testing::violations none;

template <class T>
using host_model = gptq::cuda::basic_model_backend<T, gptq::cuda::host_machine>;

/// Breaks one promise, the one whose number it has. One type, so that the check is compiled once.
struct broken : plain_model_backend {
    explicit broken(int promise) : promise_(promise) {}
    using plain_model_backend::convert;
    using plain_model_backend::hold;
    using plain_model_backend::multiply;

    gptq::matrix<float> upload(const_floats host) const {
        return plain_model_backend::upload(promise_ == 3 ? const_floats(host.data, host.rows, host.cols) : host);
    }
    weights hold(gptq::model::stored_layer&& stored) const {
        if (promise_ == 4) stored.weights = std::monostate();
        if (promise_ == 5) stored.bias = gptq::make_tensor1<float>(0);
        return plain_model_backend::hold(std::move(stored));
    }
    void add_product(const_floats x, const weights& w, const norm* after, scratch& memory, float_view states) const {
        plain_model_backend::add_product(x, w, promise_ == 6 ? nullptr : after, memory, states);
    }
    void normalize(const norm& layer, const_floats x, float_view y) const {
        norm other = layer;
        if (promise_ == 7) other.eps = 1e-6;
        plain_model_backend::normalize(other, x, y);
    }
    void rotate(const_floats cosines, const_floats sines, gptq::model::rotary_heads heads, float_view x) const {
        if (promise_ == 8) heads.neighbours = false;
        plain_model_backend::rotate(cosines, sines, heads, x);
    }
    void attend(gptq::model::attention_shape shape, const_floats q, const_floats k, const_floats v, scratch& memory,
                float_view out) const {
        if (promise_ == 9) shape.span = 0;
        plain_model_backend::attend(shape, q, k, v, memory, out);
    }
    void gate(gptq::model::mlp_activation f, float_view x, const_floats y) const {
        if (promise_ == 10 && f == gptq::model::mlp_activation::gelu) f = gptq::model::mlp_activation::gelu_tanh;
        plain_model_backend::gate(f, x, y);
    }
    void add(float_view states, const_floats terms) const {
        plain_model_backend::add(promise_ == 11 ? states.block(0, terms.rows, 0, states.cols) : states, terms);
    }
    std::vector<double> negative_log_likelihoods(const_floats logits, std::span<const std::int32_t> targets) const {
        auto found = plain_model_backend::negative_log_likelihoods(logits, targets);
        if (promise_ == 12) found.back() = 0.0;
        return found;
    }
    void replace(weights& w, const_floats W) const {
        if (promise_ != 13) plain_model_backend::replace(w, W);
    }
    template <class Statistics, class X, class... Others>
    void add_tokens(Statistics& statistics, const X& x, const Others&... others) const {
        const auto some = promise_ == 14 ? x.block(1, x.rows - 1, 0, x.cols) : x;
        if constexpr (sizeof...(others) == 0)
            statistics.add(some);
        else
            statistics.add(x, others...);
    }
    void scatter_add(const_floats y, std::span<const std::int32_t> rows, std::span<const float> shares,
                     float_view states) const {
        const std::vector<float> ones(shares.size(), 1.0f);
        plain_model_backend::scatter_add(y, rows, promise_ == 17 ? std::span<const float>(ones) : shares, states);
    }

 private:
    int promise_;
};

}  // namespace

TEST_CASE("the library's model backends conform") {
    CHECK(check_model_backend(plain_model_backend()) == none);
    CHECK(check_model_backend(cpu_model_backend(gptq::model::quantized_form::dense)) == none);
}

TEST_CASE("the CUDA backend's kernels conform, run on the host", "[openmp]") {
    CHECK(check_model_backend(host_model<float>(gptq::cuda::host_machine(), gptq::cuda::held_form::dense)) == none);
}

TEST_CASE("so they do in half", "[many][openmp]") {
    CHECK(check_model_backend(host_model<gptq::half>(gptq::cuda::host_machine(), gptq::cuda::held_form::dense)) ==
          none);
}

TEST_CASE("the check finds broken model backends") {
    CHECK(check_model_backend(broken(0)) == none);
    for (const int promise : {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17}) {
        INFO(promise);
        CHECK(violates(check_model_backend(broken(promise)), "ModelBackend " + std::to_string(promise)));
    }
}
