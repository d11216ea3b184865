// check_model_backend: holds a ModelBackend to its sentences in <gptq/model/backend.hpp>, with plain_model_backend as
// the oracle.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/drift.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/hessian.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/reference_model_backend.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

/// A part of a larger matrix in a backend's memory, so that its rows do not follow each other.
template <class Room>
struct placed {
    Room room;
    std::size_t cols;
    auto view() { return room.view().columns(0, cols); }
    auto view() const { return room.view().columns(0, cols); }
};

template <class T, class B>
auto place(const B& b, std::size_t rows, std::size_t cols) {
    return placed<model::room_of<B, T>>{b.template room<T>(rows, cols + 8), cols};
}

/// Host numbers as states, or as activations.
template <class T, class B>
auto put(const B& b, const matrix<float>& host) {
    auto mine = place<T>(b, host.rows(), host.cols());
    const auto uploaded = b.upload(host.view());
    const matrix_view<const float> from = uploaded.view();
    if constexpr (std::is_same_v<T, float>)
        b.solver().for_each_row(from.rows, gptq::detail::copy_row{from, mine.view()});
    else
        b.convert(from, mine.view());
    return mine;
}

template <class B, class T>
matrix<float> fetch(const B& b, matrix_view<T> mine) {
    matrix<float> host(mine.rows, mine.cols);
    b.read(matrix_view<const std::remove_const_t<T>>(mine), host.view());
    return host;
}

template <class B>
using number_of = typename B::activation;

template <class T>
matrix_view<const std::remove_const_t<T>> as_const_view(matrix_view<T> m) {
    return m;
}

template <class B>
class model_backend_check : findings {
 public:
    explicit model_backend_check(const B& backend) : findings("ModelBackend"), backend_(backend) {}

    violations all() {
        constexpr bool known = std::is_same_v<number_of<B>, float> || std::is_same_v<number_of<B>, half> ||
                               std::is_same_v<number_of<B>, bfloat16>;
        if (!known) report(1, "the activation is none of float, half and bfloat16");
        attempt(2, [&] { check_memory(); });
        attempt(4, [&] { check_holding(); });
        attempt(5, [&] { check_products(); });
        attempt(6, [&] { check_added_products(); });
        attempt(7, [&] { check_norms(); });
        attempt(8, [&] { check_rotation(); });
        attempt(9, [&] { check_attention(); });
        attempt(10, [&] { check_activations(); });
        attempt(10, [&] { check_cap(); });
        attempt(11, [&] { check_tokens(); });
        attempt(12, [&] { check_likelihoods(); });
        attempt(13, [&] { check_replacing(); });
        attempt(14, [&] { check_statistics(); });
        if (B::branch_tokens == 0 || B::attention_tokens == 0) report(15, "no tokens are held at a time");
        attempt(17, [&] { check_gathering(); });
        attempt(18, [&] { check_rows_alone(); });
        return take();
    }

 private:
    /// Numbers that every activation holds exactly.
    matrix<float> numbers(std::size_t rows, std::size_t cols) {
        matrix<float> m(rows, cols);
        for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = std::round(random_.real() * 64.0f) / 64.0f;
        return m;
    }
    tensor2<float> stored(std::size_t rows, std::size_t cols) {
        const matrix<float> from = numbers(rows, cols);
        auto m = make_tensor2<float>(rows, cols);
        std::copy_n(from.data(), rows * cols, m.data());
        return m;
    }
    tensor1<float> stored(std::size_t n) {
        const matrix<float> from = numbers(1, n);
        auto v = make_tensor1<float>(n);
        std::copy_n(from.data(), n, v.data());
        return v;
    }
    model::stored_layer layer(std::size_t N, std::size_t K, bool bias = true, std::size_t terms = 1) {
        model::stored_layer made;
        made.weights = model::table(stored(N, K));
        if (bias) made.bias = stored(N);
        for (std::size_t i = 0; i < terms; ++i) made.terms.push_back({stored(3, K), stored(N, 3)});
        return made;
    }
    model::norm_layer norm(model::norm_kind kind, std::size_t features) {
        return {kind, 1e-3, stored(features),
                kind == model::norm_kind::layer ? stored(features) : make_tensor1<float>(0)};
    }

    /// f(backend) -> a host matrix, here and on the reference: equal but for the rounding of sums and of activations.
    template <class F>
    void compare(int sentence, const std::string& what, const F& f) {
        const matrix<float> expected = f(reference_), got = f(backend_);
        if (got.rows() != expected.rows() || got.cols() != expected.cols())
            return report(sentence, what + ": has another shape than the reference's");
        float largest = 1e-3f;
        for (std::size_t i = 0; i < expected.rows() * expected.cols(); ++i)
            largest = std::max(largest, std::fabs(expected.data()[i]));
        constexpr float unit = std::is_same_v<number_of<B>, float>  ? 2e-6f
                               : std::is_same_v<number_of<B>, half> ? 0x1p-10f
                                                                    : 0x1p-7f;
        for (std::size_t i = 0; i < expected.rows() * expected.cols(); ++i)
            if (!(std::fabs(got.data()[i] - expected.data()[i]) <= 6.0f * unit * largest))
                return report(sentence, what + ": element " + shape_string(i / got.cols(), i % got.cols()) + " is " +
                                            text(got.data()[i]) + ", the reference has " + text(expected.data()[i]));
    }

    // --- 2, 3: memory ------------------------------------------------------------------------------------------------

    void check_memory() {
        const matrix<float> host = numbers(5, 7);
        if (const auto m = backend_.template room<float>(5, 7); m.view().rows != 5 || m.view().cols != 7)
            report(3, "room(5, 7) has another shape");
        compare(2, "what solver() sees of an uploaded matrix", [&](const auto& b) {
            const auto mine = b.upload(host.view());
            matrix<float> back(5, 7);
            b.solver().download(matrix_view<const float>(mine.view()), back.view());
            return back;
        });
        compare(3, "read, of an uploaded part of a matrix", [&](const auto& b) {
            const auto mine = b.upload(host.view().block(1, 3, 2, 4));
            return fetch(b, matrix_view<const float>(mine.view()));
        });
        compare(3, "read, of activations",
                [&]<class A>(const A& b) { return fetch(b, put<number_of<A>>(b, host).view()); });
    }

    // --- 4: weights --------------------------------------------------------------------------------------------------

    void check_holding() {
        if (typename B::weights none; static_cast<bool>(none)) report(4, "weights made of nothing are a layer");
        if (!static_cast<bool>(backend_.hold(layer(4, 8)))) report(4, "a layer that is held is none");
    }

    // --- 5, 6: products ----------------------------------------------------------------------------------------------

    template <class A>
    static matrix<float> product(const A& b, const matrix<float>& x, const typename A::weights& w, std::size_t N) {
        const auto inputs = put<number_of<A>>(b, x);
        auto y = place<number_of<A>>(b, x.rows(), N);
        const model::output_of<A> only{w, y.view()};
        b.multiply(as_const_view(inputs.view()), std::span<const model::output_of<A>>(&only, 1));
        return fetch(b, y.view());
    }

    void check_products() {
        for (const std::size_t T : {1u, 3u, 8u, 40u}) {
            const std::string of = ", x " + shape_string(T, 48);
            const matrix<float> x = numbers(T, 48);
            const model::stored_layer first = layer(24, 48), second = layer(40, 48, false, 0);
            const model::table table(stored(56, 48));
            for (const bool last : {false, true})
                compare(5, "multiply of two layers" + of, [&]<class A>(const A& b) {
                    const auto w = b.hold(model::stored_layer(first)), v = b.hold(model::stored_layer(second));
                    const auto inputs = put<number_of<A>>(b, x);
                    auto y = place<number_of<A>>(b, T, 24), z = place<number_of<A>>(b, T, 40);
                    const std::array<model::output_of<A>, 2> outputs{{{w, y.view()}, {v, z.view()}}};
                    b.multiply(as_const_view(inputs.view()), std::span<const model::output_of<A>>(outputs));
                    return last ? fetch(b, z.view()) : fetch(b, y.view());
                });
            compare(5, "multiply of a layer to float" + of, [&]<class A>(const A& b) {
                const auto w = b.hold(model::stored_layer(first));
                auto y = place<float>(b, T, 24);
                b.multiply(as_const_view(put<number_of<A>>(b, x).view()), w, y.view());
                return fetch(b, y.view());
            });
            compare(5, "multiply of a table" + of, [&]<class A>(const A& b) {
                const auto w = b.hold(model::table(table));
                auto y = place<float>(b, T, 56);
                b.multiply(as_const_view(put<number_of<A>>(b, x).view()), w, y.view());
                return fetch(b, y.view());
            });
        }
    }

    void check_added_products() {
        for (const bool normed : {false, true}) {
            const matrix<float> x = numbers(9, 48), states = numbers(9, 24);
            const model::stored_layer w = layer(24, 48);
            const model::norm_layer after = norm(model::norm_kind::rms, 24);
            compare(6, normed ? "add_product with a norm" : "add_product", [&]<class A>(const A& b) {
                const auto held = b.hold(model::stored_layer(w));
                const auto held_norm = b.hold(model::norm_layer(after));
                auto sums = put<float>(b, states);
                typename A::scratch scratch;
                b.add_product(as_const_view(put<number_of<A>>(b, x).view()), held, normed ? &held_norm : nullptr,
                              scratch, sums.view());
                return fetch(b, sums.view());
            });
        }
    }

    // --- 7 to 10: rows -----------------------------------------------------------------------------------------------

    void check_norms() {
        for (const auto kind : {model::norm_kind::rms, model::norm_kind::layer}) {
            const std::string name = kind == model::norm_kind::rms ? "a root mean square norm, " : "a layer norm, ";
            const matrix<float> x = numbers(6, 40);
            const model::norm_layer stored_norm = norm(kind, 40);
            const auto in_place = [&](const auto& b, auto mine) {
                b.normalize(b.hold(model::norm_layer(stored_norm)), as_const_view(mine.view()), mine.view());
                return fetch(b, mine.view());
            };
            compare(7, name + "float to float, in place", [&](const auto& b) { return in_place(b, put<float>(b, x)); });
            compare(7, name + "activation to activation, in place",
                    [&]<class A>(const A& b) { return in_place(b, put<number_of<A>>(b, x)); });
            compare(7, name + "float to activation", [&]<class A>(const A& b) {
                auto y = place<number_of<A>>(b, 6, 40);
                b.normalize(b.hold(model::norm_layer(stored_norm)), as_const_view(put<float>(b, x).view()), y.view());
                return fetch(b, y.view());
            });
        }
        const matrix<float> x = numbers(6, 40);
        compare(7, "convert of activations", [&]<class A>(const A& b) {
            auto y = place<number_of<A>>(b, 6, 40);
            b.convert(as_const_view(put<number_of<A>>(b, x).view()), y.view());
            return fetch(b, y.view());
        });
    }

    void check_rotation() {
        const matrix<float> x = numbers(6, 32), cosines = numbers(3, 6), sines = numbers(3, 6);
        for (const bool neighbours : {false, true})
            compare(8, "rotate, 12 of the 16 features of 2 heads", [&]<class A>(const A& b) {
                auto turned = put<number_of<A>>(b, x);
                const auto c = b.upload(cosines.view()), s = b.upload(sines.view());
                b.rotate(c.view(), s.view(), model::rotary_heads{16, neighbours}, turned.view());
                return fetch(b, turned.view());
            });
    }

    void check_attention() {
        struct sizes {
            std::size_t queries, keys, span;
            float cap = 0.0f;
        };
        for (const auto& [queries, keys, span, cap] :
             {sizes{5, 5, 0}, {1, 7, 0}, {3, 9, 4}, {70, 70, 0}, {70, 75, 33}, {3, 9, 4, 0.3f}}) {
            constexpr std::size_t windows = 2, heads = 4, kv_heads = 2, dim = 16;
            const model::attention_shape shape{.heads = heads,
                                               .kv_heads = kv_heads,
                                               .head_dim = dim,
                                               .scale = 0.25f,
                                               .span = span,
                                               .queries = queries,
                                               .keys = keys,
                                               .cap = cap};
            const matrix<float> q = numbers(windows * queries, heads * dim),
                                k = numbers(windows * keys, kv_heads * dim),
                                v = numbers(windows * keys, kv_heads * dim);
            compare(9,
                    "attend, " + std::to_string(queries) + " queries of " + std::to_string(keys) + " keys, span " +
                        std::to_string(span) + ", cap " + std::to_string(cap),
                    [&]<class A>(const A& b) {
                        auto out = place<number_of<A>>(b, q.rows(), q.cols());
                        typename A::scratch scratch;
                        const auto mine = [&](const matrix<float>& m) { return put<number_of<A>>(b, m); };
                        const auto Q = mine(q), K = mine(k), V = mine(v);
                        b.attend(shape, as_const_view(Q.view()), as_const_view(K.view()), as_const_view(V.view()),
                                 scratch, out.view());
                        return fetch(b, out.view());
                    });
        }
    }

    void check_activations() {
        matrix<float> x = numbers(5, 33);
        for (std::size_t c = 0; c < 33; ++c) x(0, c) *= 8.0f;
        const matrix<float> y = numbers(5, 33);
        for (const auto f : {model::mlp_activation::silu, model::mlp_activation::gelu, model::mlp_activation::gelu_tanh,
                             model::mlp_activation::relu, model::mlp_activation::relu_squared}) {
            const std::string number = std::to_string(static_cast<int>(f));
            compare(10, "activate, function " + number, [&]<class A>(const A& b) {
                auto mine = put<number_of<A>>(b, x);
                b.activate(f, mine.view());
                return fetch(b, mine.view());
            });
            compare(10, "gate, function " + number, [&]<class A>(const A& b) {
                auto mine = put<number_of<A>>(b, x);
                b.gate(f, mine.view(), as_const_view(put<number_of<A>>(b, y).view()));
                return fetch(b, mine.view());
            });
        }
    }

    void check_cap() {
        matrix<float> x = numbers(5, 33);
        for (std::size_t c = 0; c < 33; ++c) x(0, c) *= 40.0f;
        compare(10, "cap", [&](const auto& b) {
            auto mine = put<float>(b, x);
            b.cap(1.5f, mine.view());
            return fetch(b, mine.view());
        });
    }

    // --- 11, 12: tokens ----------------------------------------------------------------------------------------------

    void check_tokens() {
        const model::table table(stored(10, 24));
        const std::vector<std::int32_t> ids{9, 0, 3, 3, 7};
        compare(11, "look_up", [&](const auto& b) {
            const auto held = b.hold(model::table(table));
            auto states = place<float>(b, 5, 24);
            b.look_up(held, ids, 1.5f, states.view());
            return fetch(b, states.view());
        });
        const matrix<float> states = numbers(7, 24), terms = numbers(3, 24);
        compare(11, "add of 3 rows to 7", [&](const auto& b) {
            auto sums = put<float>(b, states);
            b.add(sums.view(), as_const_view(put<float>(b, terms).view()));
            return fetch(b, sums.view());
        });
    }

    void check_likelihoods() {
        matrix<float> logits = numbers(4, 50);
        for (std::size_t c = 0; c < 50; ++c)
            logits(2, c) = 300.0f * logits(2, c);  // e^x of these is no float, but a double
        const std::vector<std::int32_t> targets{0, 49, 20, 7};
        compare(12, "negative_log_likelihoods", [&](const auto& b) {
            const auto found = b.negative_log_likelihoods(as_const_view(put<float>(b, logits).view()), targets);
            matrix<float> nll(1, found.size());
            for (std::size_t i = 0; i < found.size(); ++i)
                nll(0, i) = static_cast<float>(found[i]) * (i == 2 ? 1e-3f : 1.0f);
            return nll;
        });
    }

    // --- 13, 14: what the solver uses
    // ----------------------------------------------------------------------------------

    void check_replacing() {
        const model::stored_layer w = layer(12, 24, true, 0);
        const matrix<float> W = numbers(12, 24), x = numbers(3, 24);
        compare(13, "floats", [&](const auto& b) {
            const auto held = b.hold(model::stored_layer(w));
            return fetch(b, matrix_view<const float>(b.floats(held).view()));
        });
        compare(13, "a product after replace", [&](const auto& b) {
            auto held = b.hold(model::stored_layer(w));
            const auto uploaded = b.upload(W.view());
            b.replace(held, uploaded.view());
            return product(b, x, held, 12);
        });
    }

    void check_statistics() {
        constexpr std::size_t K = 20;
        const matrix<float> first = numbers(30, K), second = numbers(11, K), wanted = numbers(30, K), W = numbers(8, K);
        compare(14, "a Hessian of tokens that come in two parts", [&]<class A>(const A& b) {
            basic_hessian<model::solver_of<A>> h(K, b.solver());
            b.add_tokens(h, as_const_view(put<number_of<A>>(b, first).view()));
            b.add_tokens(h, as_const_view(put<number_of<A>>(b, second).view()));
            matrix<float> upper = fetch(b, h.upper());
            for (std::size_t i = 0; i < K; ++i)
                for (std::size_t j = 0; j < i; ++j) upper(i, j) = 0.0f;
            return upper;
        });
        compare(14, "a drift", [&]<class A>(const A& b) {
            basic_drift<model::solver_of<A>> d(K, b.solver());
            b.add_tokens(d, as_const_view(put<number_of<A>>(b, wanted).view()),
                         as_const_view(put<number_of<A>>(b, first).view()), matrix_view<const float>(),
                         matrix_view<const float>());
            auto P = b.template room<float>(8, K);
            const auto uploaded = b.upload(W.view());
            d.shortfall(uploaded.view(), P.view());
            return fetch(b, P.view());
        });
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            matrix<float> x = numbers(5, K);
            x(3, 4) = bad;
            basic_hessian<model::solver_of<B>> h(K, backend_.solver());
            try {
                backend_.add_tokens(h, as_const_view(put<number_of<B>>(backend_, x).view()));
            } catch (const non_finite_error&) {
                continue;
            }
            if (std::isfinite(fetch(backend_, h.upper())(4, 4)))
                report(14, "inputs with " + text(bad) + " are added without a word");
        }
    }

    // --- 17, 18: rows
    // --------------------------------------------------------------------------------------------------

    void check_gathering() {
        const matrix<float> x = numbers(6, 24), y = numbers(3, 24), states = numbers(6, 24);
        const std::vector<std::int32_t> rows{1, 4, 5};
        const std::vector<float> shares{0.5f, -2.0f, 0.25f};
        compare(17, "gather", [&]<class A>(const A& b) {
            auto to = place<number_of<A>>(b, 3, 24);
            b.gather(as_const_view(put<number_of<A>>(b, x).view()), rows, to.view());
            return fetch(b, to.view());
        });
        compare(17, "scatter_add", [&]<class A>(const A& b) {
            auto sums = put<float>(b, states);
            b.scatter_add(as_const_view(put<number_of<A>>(b, y).view()), rows, shares, sums.view());
            return fetch(b, sums.view());
        });
    }

    /// The reference computes all rows at once, the backend each for itself, into one matrix.
    void check_rows_alone() {
        const model::stored_layer w = layer(16, 40);
        const matrix<float> x = numbers(7, 40);
        compare(18, "multiply of rows that come alone", [&]<class A>(const A& b) {
            const auto held = b.hold(model::stored_layer(w));
            if constexpr (std::is_same_v<A, model::plain_model_backend>) return product(b, x, held, 16);
            const auto inputs = put<number_of<A>>(b, x);
            auto y = place<number_of<A>>(b, 7, 16);
            for (std::size_t r = 0; r < 7; ++r) {
                const model::output_of<A> only{held, y.view().block(r, 1, 0, 16)};
                b.multiply(as_const_view(inputs.view().block(r, 1, 0, 40)),
                           std::span<const model::output_of<A>>(&only, 1));
            }
            return fetch(b, y.view());
        });
    }

    const B& backend_;
    model::plain_model_backend reference_;
    random_numbers random_{23};
};

}  // namespace detail

/// Holds `backend` to the sentences of ModelBackend that can be seen to be broken (all but 16), each operation on
/// matrices whose rows do not follow each other in memory, against plain_model_backend. solver() is another subject:
/// check_backend.
template <model::ModelBackend B>
[[nodiscard]] violations check_model_backend(const B& backend = {}) {
    return detail::model_backend_check<B>(backend).all();
}

}  // namespace gptq::testing
