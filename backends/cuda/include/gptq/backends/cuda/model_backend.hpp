// Whole models on a CUDA machine: the model of ModelBackend whose rows are kernels and whose products are the
// machine's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/backends/cuda/attention_decode_kernel.hpp>
#include <gptq/backends/cuda/attention_kernel.hpp>
#include <gptq/backends/cuda/basic_backend.hpp>
#include <gptq/backends/cuda/model_kernels.hpp>
#include <gptq/backends/cuda/prepared.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::cuda {

// ---------------------------------------------------------------------------------------------------------------------
// ModelMachine<M, T>: a ProductMachine that multiplies matrices of T as well.
//  1. multiply_transposed(X, W, Y, beta): Y = X W' + beta Y, summed in float, X and W of T, Y of T or of float.
//                                                                                  X [M, K]  W [N, K]  Y [M, N]
//  2. gram(X, H, alpha, beta): H = beta H + alpha X'X, at least in the upper triangle.            X [M, K]  H [K, K]
// ---------------------------------------------------------------------------------------------------------------------
template <class M, class T>
concept ModelMachine = ProductMachine<M> &&
    requires(const M& m, matrix_view<const T> x, matrix_view<T> y, matrix_view<float> states) {
    m.multiply_transposed(x, x, y, 0.0f);
    m.multiply_transposed(x, x, states, 1.0f);
    m.gram(x, states, 1.0f, 0.0f);
};

/// Whether layers that are quantized in the files are held as codes, or as what these stand for.
enum class held_form { codes, dense };

/// A model of ModelBackend on machine M; T is what linear layers read and write.
template <class T, ModelMachine<T> M>
class basic_model_backend {
    template <class U>
    using memory = decltype(std::declval<const M&>().template room_for<U>(0, 0));

 public:
    using activation = T;

    /// A model::low_rank_term in the machine's memory.
    struct low_rank_term {
        memory<T> down, up;  ///< [r, K], [N, r]
    };

    /// A linear layer in the machine's memory, or none.
    struct weights {
        std::variant<std::monostate, memory<T>, basic_prepared<M>> held;  ///< dense [N, K], or packed
        memory<float> bias;                                               ///< [1, N], or empty
        std::vector<low_rank_term> terms;                                 ///< of adapters

        explicit operator bool() const { return held.index() != 0; }
    };

    struct norm {
        memory<float> weight, bias;  ///< [1, features], or empty
        bool centred = false;
        float eps = 0.0f;
    };

    using table = memory<T>;  ///< [rows, features]

    /// The machine's pool serves all calls.
    struct scratch {};

    static constexpr std::size_t branch_tokens = std::size_t{1} << 14;  ///< products as large as the machine runs best
    static constexpr std::size_t attention_tokens = branch_tokens;
    static constexpr bool beside_host = true;

    explicit basic_model_backend(M machine, held_form form = held_form::codes)
        : solver_(std::move(machine)), form_(form) {}

    const basic_backend<M>& solver() const { return solver_; }
    const M& machine() const { return solver_.machine(); }

    template <class U>
    memory<U> room(std::size_t rows, std::size_t cols) const {
        return machine().template room_for<U>(rows, cols);
    }
    memory<float> upload(matrix_view<const float> host) const {
        auto copied = room<float>(host.rows, host.cols);
        machine().upload(host, copied.view());
        return copied;
    }
    template <class U>
    void read(matrix_view<const U> mine, matrix_view<float> host) const {
        if constexpr (std::is_same_v<U, float>) {
            machine().download(mine, host);
        } else {
            auto wide = room<float>(mine.rows, mine.cols);
            each(mine.rows, mine.cols, convert_element<U, float>{mine, wide.view()});
            machine().download(matrix_view<const float>(wide.view()), host);
        }
    }

    weights hold(model::stored_layer&& stored) const {
        weights layer;
        if (const auto* numbers = std::get_if<model::table>(&stored.weights))
            layer.held = numbers_of(*numbers);
        else if (const auto* codes = std::get_if<quantized_layer>(&stored.weights))
            hold_codes(layer, *codes);
        layer.bias = vector_of(stored.bias);
        for (model::low_rank_term& term : stored.terms)
            layer.terms.push_back(
                {numbers_of(model::table(std::move(term.down))), numbers_of(model::table(std::move(term.up)))});
        return layer;
    }
    norm hold(model::norm_layer&& stored) const {
        return {vector_of(stored.weight), vector_of(stored.bias), stored.kind == model::norm_kind::layer,
                static_cast<float>(stored.eps)};
    }
    table hold(model::table&& stored) const { return numbers_of(stored); }

    void multiply(matrix_view<const T> x, std::span<const model::linear_output<weights, T>> outputs) const {
        for (const auto& [layer, y] : outputs) {
            product(x, layer, y);
            add_terms_and_bias(layer, x, y);
        }
    }
    void multiply(matrix_view<const T> x, const weights& layer, matrix_view<float> y) const {
        if (const auto* dense = std::get_if<memory<T>>(&layer.held)) {
            machine().multiply_transposed(x, dense->view(), y, 0.0f);
        } else {
            auto narrow = room<T>(y.rows, y.cols);
            product(x, layer, narrow.view());
            each(y.rows, y.cols, convert_element<T, float>{narrow.view(), y});
        }
        add_terms_and_bias(layer, x, y);
    }
    void multiply(matrix_view<const T> x, const table& tokens, matrix_view<float> y) const {
        machine().multiply_transposed(x, tokens.view(), y, 0.0f);
    }
    void add_product(matrix_view<const T> x, const weights& layer, const norm* after, scratch&,
                     matrix_view<float> states) const {
        const auto* dense = std::get_if<memory<T>>(&layer.held);
        if (dense != nullptr && after == nullptr) {
            machine().multiply_transposed(x, dense->view(), states, 1.0f);
            add_terms_and_bias(layer, x, states);
            return;
        }
        auto y = room<T>(states.rows, states.cols);
        product(x, layer, y.view());
        add_terms_and_bias(layer, x, y.view());
        const matrix_view<const T> terms = y.view();
        if (after != nullptr)
            launch(add_normalized_kernel<T>{terms, states, row_norm_of(*after)});
        else
            each(states.rows, states.cols, add_element<T>{states, terms});
    }

    template <class From, class To>
    void normalize(const norm& layer, matrix_view<From> x, matrix_view<To> y) const {
        using source = std::remove_const_t<From>;
        launch(normalize_kernel<source, To>{x, y, row_norm_of(layer)});
    }
    template <class From>
    void convert(matrix_view<From> x, matrix_view<T> y) const {
        each(x.rows, x.cols, convert_element<std::remove_const_t<From>, T>{x, y});
    }
    void rotate(matrix_view<const float> cosines, matrix_view<const float> sines, const model::rotary_heads& heads,
                matrix_view<T> x) const {
        each(x.rows, x.cols / heads.head_dim * cosines.cols, rotate_pair<T>{x, cosines, sines, heads});
    }
    void attend(const model::attention_shape& shape, matrix_view<const T> q, matrix_view<const T> k,
                matrix_view<const T> v, scratch&, matrix_view<T> out) const {
        cuda::attend<T>(machine(), shape, q, k, v, out);
    }
    void activate(model::mlp_activation f, matrix_view<T> x) const { each(x.rows, x.cols, activate_element<T>{x, f}); }
    void gate(model::mlp_activation f, matrix_view<T> x, matrix_view<const T> y) const {
        each(x.rows, x.cols, gate_element<T>{x, y, f});
    }
    void cap(float c, matrix_view<float> x) const { each(x.rows, x.cols, cap_element{x, c}); }

    void look_up(const table& tokens, std::span<const std::int32_t> ids, float factor,
                 matrix_view<float> states) const {
        const auto lent = machine().lend(matrix_view<const std::int32_t>(ids.data(), 1, ids.size()));
        each(states.rows, states.cols, look_up_element<T>{tokens.view(), lent.view(), factor, states});
    }
    void add(matrix_view<float> states, matrix_view<const float> terms) const {
        each(states.rows, states.cols, add_repeated_element{states, terms});
    }
    void gather(matrix_view<const T> x, std::span<const std::int32_t> rows, matrix_view<T> y) const {
        const auto lent = machine().lend(matrix_view<const std::int32_t>(rows.data(), 1, rows.size()));
        each(y.rows, y.cols, gather_element<T>{x, lent.view(), y});
    }
    void scatter_add(matrix_view<const T> y, std::span<const std::int32_t> rows, std::span<const float> shares,
                     matrix_view<float> states) const {
        const auto lent_rows = machine().lend(matrix_view<const std::int32_t>(rows.data(), 1, rows.size()));
        const auto lent_shares = machine().lend(matrix_view<const float>(shares.data(), 1, shares.size()));
        each(y.rows, y.cols, scatter_add_element<T>{y, lent_rows.view(), lent_shares.view(), states});
    }
    std::vector<double> negative_log_likelihoods(matrix_view<const float> logits,
                                                 std::span<const std::int32_t> targets) const {
        const auto lent = machine().lend(matrix_view<const std::int32_t>(targets.data(), 1, targets.size()));
        auto found = room<double>(logits.rows, 1);
        launch(score_kernel{logits, lent.view(), found.view()});
        std::vector<double> host(logits.rows);
        machine().download(matrix_view<const double>(found.view()), matrix_view<double>(host.data(), host.size(), 1));
        return host;
    }

    /// The weights as floats: themselves, or widened.
    memory<float> floats(const weights& layer) const {
        const matrix_view<const T> W = std::get<memory<T>>(layer.held).view();
        auto wide = room<float>(W.rows, W.cols);
        each(W.rows, W.cols, convert_element<T, float>{W, wide.view()});
        return wide;
    }
    void replace(weights& layer, matrix_view<const float> W) const {
        convert(W, std::get<memory<T>>(layer.held).view());
    }

    template <class Statistics, class... Inputs>
    void add_tokens(Statistics& statistics, const Inputs&... inputs) const {
        statistics.add(in_backend, inputs...);
    }

 private:
    template <class Kernel>
    void launch(const Kernel& kernel) const {
        const launch_shape shape = kernel.launch();
        if (shape.blocks > 0) machine().launch(shape, kernel);
    }

    /// f(ctx, r, c) for every element of a matrix [rows, cols].
    template <class F>
    void each(std::size_t rows, std::size_t cols, const F& f) const {
        launch(for_each_element(rows, cols, f));
    }

    static detail::row_norm row_norm_of(const norm& layer) {
        return {layer.weight.view().data, layer.bias.view().data, layer.centred, layer.eps};
    }

    memory<float> vector_of(const tensor1<float>& host) const {
        return host.size() == 0 ? memory<float>() : upload(matrix_view<const float>(host.data(), 1, host.size()));
    }

    /// Numbers of the files as T; those that are T already go over as they are.
    memory<T> numbers_of(const model::table& stored) const {
        auto held = room<T>(stored.rows(), stored.cols());
        stored.visit([&]<class From>(matrix_view<const From> host) {
            if constexpr (std::is_same_v<From, T>) {
                machine().upload(host, held.view());
            } else {
                auto copied = room<From>(host.rows, host.cols);
                machine().upload(host, copied.view());
                each(host.rows, host.cols, convert_element<From, T>{copied.view(), held.view()});
            }
        });
        return held;
    }

    /// The kernels for codes read half and bfloat16.
    void hold_codes(weights& layer, const quantized_layer& codes) const {
        if constexpr (tensor_element<T>) {
            if (form_ == held_form::codes) {
                layer.held.template emplace<basic_prepared<M>>(prepare(codes, solver_));
                return;
            }
        }
        layer.held = numbers_of(model::table(dequantize(codes)));
    }

    void product(matrix_view<const T> x, const weights& layer, matrix_view<T> y) const {
        if (const auto* dense = std::get_if<memory<T>>(&layer.held)) {
            machine().multiply_transposed(x, dense->view(), y, 0.0f);
            return;
        }
        if constexpr (tensor_element<T>) std::get<basic_prepared<M>>(layer.held).template multiply<T>(x, y);
    }

    /// Adds what a layer has beside its weights; U is T or float.
    template <class U>
    void add_terms_and_bias(const weights& layer, matrix_view<const T> x, matrix_view<U> y) const {
        for (const low_rank_term& term : layer.terms) {
            auto narrow = room<T>(x.rows, term.down.view().rows);
            machine().multiply_transposed(x, term.down.view(), narrow.view(), 0.0f);
            machine().multiply_transposed(matrix_view<const T>(narrow.view()), term.up.view(), y, 1.0f);
        }
        const matrix_view<const float> bias = layer.bias.view();
        if (bias.cols != 0) each(y.rows, y.cols, add_bias_element<U>{y, bias.data});
    }

    basic_backend<M> solver_;
    held_form form_;
};

}  // namespace gptq::cuda
