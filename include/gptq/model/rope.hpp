// Rotary position embedding: pairs of features of a head are turned by an angle that grows with the position.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The angle that each pair of the features that rotate turns by from one token to the next, in a text of so many
/// tokens.
///                                                                                                 [features / 2]
std::vector<float> rope_frequencies(const rope_settings& rope, std::size_t features, std::size_t length = 0);

/// Some positions of a text, one after the other.
struct text_range {
    std::size_t first = 0, count = 0;
    std::size_t length = 0;  ///< the text rotates as one of at least so many tokens

    /// The tokens of the text that frequencies depend on (longrope, dynamic).
    std::size_t seen() const { return std::max(first + count, length); }
};

/// Cosines and sines of the angles at some positions, in host memory.
struct rope_table {
    matrix<float> cosines, sines;  ///< [count, features / 2]

    rope_table() = default;

    /// A row for each position. Angles are float products, as in the programs that the models were trained with.
    rope_table(const rope_settings& rope, std::size_t features, std::span<const text_range> ranges);
};

/// Turns the first n features of every head of every row of x, row r by the angles of row r % cosines.rows.
///                                                       cosines, sines [positions, n / 2]  x [rows, heads * head_dim]
void rotate(matrix_view<const float> cosines, matrix_view<const float> sines, const rotary_heads& heads,
            matrix_view<float> x);

/// A rope_table in the memory of a backend.
template <class B>
struct rotation {
    uploaded<B> cosines, sines;  ///< [count, features / 2]
};

/// The tables of a model's blocks for some positions of some texts: blocks with a window may have one of their own.
template <class B>
struct rope_tables {
    rotation<B> full, windowed;

    rope_tables(const B& backend, const model_config& c, std::span<const text_range> ranges) {
        if (!c.rotary()) return;
        full = moved(backend, rope_table(c.rope, c.rotary_features, ranges));
        own_for_windows_ = c.window_rope != c.rope;
        if (own_for_windows_) windowed = moved(backend, rope_table(c.window_rope, c.rotary_features, ranges));
    }
    rope_tables(const B& backend, const model_config& c, const text_range& range)
        : rope_tables(backend, c, std::span<const text_range>(&range, 1)) {}

    const rotation<B>& of_block(const model_config& c, std::size_t index) const {
        return own_for_windows_ && c.windows[index] != 0 ? windowed : full;
    }

 private:
    static rotation<B> moved(const B& backend, rope_table&& table) {
        return {backend.upload(std::as_const(table.cosines).view()), backend.upload(std::as_const(table.sines).view())};
    }

    bool own_for_windows_ = false;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/rope.hpp>
#endif
