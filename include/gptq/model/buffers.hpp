// Scratch memory that is kept from one use to the next.
#pragma once

#include <cstddef>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::model {

/// Memory for one matrix at a time, of whatever shape is asked for; grows, never shrinks.
class scratch_matrix {
 public:
    /// A [rows, cols] matrix with unspecified elements; invalidates the one handed out before. Throws
    /// shape_error for more elements than memory can hold.
    matrix_view<float> shaped(std::size_t rows, std::size_t cols) {
        const std::size_t elements = checked_elements<float>(rows, cols);
        if (values_.size() < elements) values_.resize(elements);
        return {values_.data(), rows, cols};
    }

 private:
    std::vector<float> values_;
};

/// Memory that the blocks of a model use one after the other.
struct block_buffers {
    scratch_matrix branch_input;  ///< [tokens, max(hidden, query features)]
    scratch_matrix intermediate;  ///< [tokens, intermediate]
    scratch_matrix q, k, v;       ///< of one window
    scratch_matrix scores;
    scratch_matrix chunk;  ///< outputs of a linear layer for some tokens
};

}  // namespace gptq::model
