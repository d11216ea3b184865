// Scratch memory that is kept from one use to the next.
#pragma once

#include <cstddef>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>

namespace gptq::model {

/// Memory for one matrix at a time in host memory, of whatever shape is asked for; grows, never shrinks.
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

/// The same in the memory of a backend.
template <class B, class T>
class room_for_one {
 public:
    /// As scratch_matrix::shaped, and throws what `backend` throws where its memory is exhausted.
    matrix_view<T> shaped(const B& backend, std::size_t rows, std::size_t cols) {
        const std::size_t elements = checked_elements<T>(rows, cols);
        if (held_ < elements) {
            room_ = {};  // first, so that both are never there at once
            held_ = 0;
            room_ = backend.template room<T>(1, elements);
            held_ = elements;
        }
        return {room_.view().data, rows, cols};
    }

 private:
    room_of<B, T> room_;
    std::size_t held_ = 0;
};

/// What the layers of some windows read, kept from one site of a block to the next.
template <class B>
struct block_buffers {
    using room = room_for_one<B, typename B::activation>;
    room branch_input;  ///< [tokens, max(hidden, query features)]
    room intermediate;  ///< [tokens, intermediate]
    room beside;        ///< what the MLP reads where it runs beside attention
    room gathered;      ///< what the tokens of an expert read
};

/// Memory that holds nothing from one site to the next.
template <class B>
struct block_scratch {
    using room = room_for_one<B, typename B::activation>;
    room q, k, v;   ///< of some windows
    room chunk;     ///< outputs of a linear layer for some tokens
    room fused;     ///< outputs of a layer that computes several parts, for some tokens
    room everyone;  ///< intermediate features of an expert for tokens that do not go to it
    typename B::scratch backend;
};

}  // namespace gptq::model
