// Rotary position embedding: pairs of features of a head are turned by an angle that grows with the position.
#pragma once

#include <cstddef>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The angle that each pair of features turns by from one token to the next.              [head_dim / 2]
std::vector<float> rope_frequencies(const rope_settings& rope, std::size_t head_dim);

/// Cosines and sines for consecutive positions.
class rope_table {
 public:
    rope_table() = default;

    /// For positions first, first + 1, ..., first + count - 1. Angles are float products, as in the programs that
    /// the models were trained with.
    rope_table(const rope_settings& rope, std::size_t head_dim, std::size_t first, std::size_t count);

    /// Turns every head of every row; row r is at the table's r-th position.                x [count, heads * head_dim]
    void rotate(matrix_view<float> x) const;

 private:
    /// The two features of a pair lie half a head apart.
    static void rotate_head(float* head, std::size_t half, const float* cosines, const float* sines);

    matrix<float> cos_;  // [count, head_dim / 2]
    matrix<float> sin_;
};

/// The tables of a model's blocks for consecutive positions: blocks with a window may have one of their own.
struct rope_tables {
    rope_table full, windowed;

    rope_tables(const model_config& c, std::size_t first, std::size_t count);

    const rope_table& of_block(const model_config& c, std::size_t index) const;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/rope.hpp>
#endif
