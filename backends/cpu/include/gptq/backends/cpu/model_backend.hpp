// cpu_model_backend: whole models on the CPU, in float; products with quantized weights by the kernels of this machine.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/adjoint.hpp>
#include <gptq/model/attention.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/differentiable_backend.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/weight_memory.hpp>

namespace gptq::model {

/// The default model of ModelBackend and DifferentiableModelBackend. Copies share the memory of the weights that they
/// hold.
class cpu_model_backend {
 public:
    using activation = float;
    using weights = linear;
    using norm = norm_layer;
    using table = model::table;

    /// Memory of one thread.
    struct scratch {
        scratch_matrix scores, branch;
    };

    static constexpr std::size_t branch_tokens = 512;  // their branch outputs stay in the second-level cache
    static constexpr std::size_t attention_tokens = 1;
    static constexpr bool beside_host = false;

    /// Quantized layers are held in `form`. Layers of numbers are held as the files have them, but in float for
    /// quantized_form::dense.
    cpu_model_backend(quantized_form form = quantized_form::exact) : form_(form) {}

    const cpu_backend& solver() const { return solver_; }

    template <class T>
    matrix<T> room(std::size_t rows, std::size_t cols) const {
        return matrix<T>(rows, cols);
    }
    matrix<float> upload(matrix_view<const float> host) const {
        matrix<float> copy(host.rows, host.cols);
        solver_.download(host, copy.view());
        return copy;
    }
    void read(matrix_view<const float> mine, matrix_view<float> host) const { solver_.download(mine, host); }

    linear hold(stored_layer&& stored) const {
        linear layer;
        if (auto* numbers = std::get_if<model::table>(&stored.weights)) layer.hold(std::move(*numbers), form_);
        if (const auto* codes = std::get_if<quantized_layer>(&stored.weights)) layer.hold(*codes, form_, memory_.get());
        layer.bias = std::move(stored.bias);
        layer.terms = std::move(stored.terms);
        return layer;
    }
    norm_layer hold(norm_layer&& stored) const { return std::move(stored); }
    model::table hold(model::table&& stored) const { return std::move(stored); }

    void multiply(matrix_view<const float> x, std::span<const linear_output<linear, float>> outputs) const {
        apply_together(x, outputs);
    }
    void multiply(matrix_view<const float> x, const linear& w, matrix_view<float> y) const { w.apply(x, y); }
    void multiply(matrix_view<const float> x, const model::table& tokens, matrix_view<float> y) const {
        tokens.multiply(x, y);
    }
    void add_product(matrix_view<const float> x, const linear& w, const norm_layer* after, scratch& memory,
                     matrix_view<float> states) const {
        const auto output = memory.branch.shaped(x.rows, states.cols);
        w.apply(x, output);
        if (after != nullptr) model::normalize(*after, output, output);
        model::add(states, output);
    }

    void normalize(const norm_layer& layer, matrix_view<const float> x, matrix_view<float> y) const {
        model::normalize(layer, x, y);
    }
    void convert(matrix_view<const float> x, matrix_view<float> y) const { solver_.download(x, y); }
    void rotate(matrix_view<const float> cosines, matrix_view<const float> sines, const rotary_heads& heads,
                matrix_view<float> x) const {
        model::rotate(cosines, sines, heads, x);
    }
    void attend(const attention_shape& shape, matrix_view<const float> q, matrix_view<const float> k,
                matrix_view<const float> v, scratch& memory, matrix_view<float> out) const {
        for (std::size_t first = 0, key = 0; first < q.rows; first += shape.queries, key += shape.keys)
            model::attend(shape, q.block(first, shape.queries, 0, q.cols), k.block(key, shape.keys, 0, k.cols),
                          v.block(key, shape.keys, 0, v.cols), memory.scores,
                          out.block(first, shape.queries, 0, out.cols));
    }
    void activate(mlp_activation f, matrix_view<float> x) const { model::activate(f, x); }
    void gate(mlp_activation f, matrix_view<float> x, matrix_view<const float> y) const {
        model::activate(f, x);
        model::multiply(x, y);
    }
    void cap(float c, matrix_view<float> x) const { model::cap(c, x); }

    void look_up(const model::table& tokens, std::span<const std::int32_t> ids, float factor,
                 matrix_view<float> states) const {
        for (std::size_t t = 0; t < ids.size(); ++t)
            tokens.copy_row(static_cast<std::size_t>(ids[t]), factor, states.row(t));
    }
    void add(matrix_view<float> states, matrix_view<const float> terms) const {
        for (std::size_t first = 0; first < states.rows; first += terms.rows)
            model::add(states.block(first, std::min(terms.rows, states.rows - first), 0, states.cols), terms);
    }
    void gather(matrix_view<const float> x, std::span<const std::int32_t> rows, matrix_view<float> y) const {
        for (std::size_t i = 0; i < rows.size(); ++i)
            std::ranges::copy(x.row(static_cast<std::size_t>(rows[i])), y.row(i).begin());
    }
    void scatter_add(matrix_view<const float> y, std::span<const std::int32_t> rows, std::span<const float> shares,
                     matrix_view<float> states) const {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::span<float> state = states.row(static_cast<std::size_t>(rows[i]));
            for (std::size_t c = 0; c < state.size(); ++c) state[c] += shares[i] * y(i, c);
        }
    }
    std::vector<double> negative_log_likelihoods(matrix_view<const float> logits,
                                                 std::span<const std::int32_t> targets) const {
        std::vector<double> found(logits.rows);
        for (std::size_t r = 0; r < logits.rows; ++r)
            found[r] = negative_log_likelihood(logits.row(r), static_cast<std::size_t>(targets[r]));
        return found;
    }

    host_memory::lent<float> floats(const linear& w) const { return {view_of(w.weight)}; }
    void replace(linear& w, matrix_view<const float> W) const { solver_.download(W, view_of(w.weight)); }

    /// Hessians and drifts name the token and the feature of a number that is not finite.
    template <class Statistics, class... Inputs>
    void add_tokens(Statistics& statistics, const Inputs&... inputs) const {
        statistics.add(inputs...);
    }

    void multiply_adjoint(std::span<const linear_gradient<linear>> outputs, matrix_view<float> dx) const {
        model::multiply_adjoint(outputs, dx);
    }
    void multiply_adjoint(matrix_view<const float> dy, const model::table& tokens, matrix_view<float> dx) const {
        model::multiply_adjoint(dy, tokens, dx);
    }
    void weight_gradient(matrix_view<const float> dy, matrix_view<const float> x, matrix_view<float> dW) const {
        blas::gemm_tn(dy, x, dW, 1.0f, 0.0f);
    }
    void normalize_adjoint(const norm_layer& layer, matrix_view<const float> x, matrix_view<const float> dy,
                           matrix_view<float> dx, matrix_view<float> sums) const {
        model::normalize_adjoint(layer, x, dy, dx, sums);
    }
    void rotate_adjoint(matrix_view<const float> cosines, matrix_view<const float> sines, const rotary_heads& heads,
                        matrix_view<float> dx) const {
        model::rotate_adjoint(cosines, sines, heads, dx);
    }
    void attend_adjoint(const attention_shape& shape, matrix_view<const float> q, matrix_view<const float> k,
                        matrix_view<const float> v, matrix_view<const float> dout, scratch& memory,
                        matrix_view<float> dq, matrix_view<float> dk, matrix_view<float> dv) const {
        for (std::size_t first = 0, key = 0; first < q.rows; first += shape.queries, key += shape.keys) {
            const auto rows_of = [&](const auto& m) { return m.block(first, shape.queries, 0, m.cols); };
            const auto keys_of = [&](const auto& m) { return m.block(key, shape.keys, 0, m.cols); };
            model::attend_adjoint(shape, rows_of(q), keys_of(k), keys_of(v), rows_of(dout), memory.scores, rows_of(dq),
                                  keys_of(dk), keys_of(dv));
        }
    }
    void activate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<float> dx) const {
        model::activate_adjoint(f, x, dx);
    }
    void gate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<const float> y,
                      matrix_view<const float> dz, matrix_view<float> dx, matrix_view<float> dy) const {
        model::gate_adjoint(f, x, y, dz, dx, dy);
    }
    void cap_adjoint(float c, matrix_view<const float> y, matrix_view<float> dx) const { model::cap_adjoint(c, y, dx); }
    void scale(float factor, matrix_view<float> x) const {
        for (std::size_t r = 0; r < x.rows; ++r)
            for (float& value : x.row(r)) value *= factor;
    }
    void copy(matrix_view<const float> x, matrix_view<float> y) const { solver_.download(x, y); }
    double distill(matrix_view<const float> reference, float factor, matrix_view<float> logits) const {
        return model::distill(reference, factor, logits);
    }

 private:
    quantized_form form_;
    cpu_backend solver_;
    std::shared_ptr<weight_memory> memory_ = std::make_shared<weight_memory>();  // of layers that are held as codes
};

static_assert(DifferentiableModelBackend<cpu_model_backend>);

}  // namespace gptq::model
