// gptq eval --dump: what a model computes on its way through a text, as a safetensors file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gptq/io/folder_writer.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/decoder.hpp>

namespace program {

/// Writes the matrices of those names and, as "input_ids", the tokens. The file is there when all of it is.
template <gptq::model::ModelBackend B>
void write_dump(const gptq::model::basic_decoder<B>& decoder, std::span<const std::int32_t> tokens,
                const std::vector<std::string>& names, const std::string& path) {
    gptq::io::refuse_existing(path);
    gptq::io::write_tensors(path, [&](const gptq::io::tensor_sink& sink) {
        const std::array length{tokens.size()};
        sink("input_ids", gptq::io::dtype::i32, length, std::as_bytes(tokens));
        decoder.observe(tokens, names, [&](const std::string& name, gptq::matrix_view<const float> values) {
            const std::array shape{values.rows, values.cols};
            sink(name, gptq::io::dtype::f32, shape, std::as_bytes(std::span(values.data, values.rows * values.cols)));
        });
    });
}

}  // namespace program
