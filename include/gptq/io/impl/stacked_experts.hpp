// The bodies of <gptq/io/stacked_experts.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/stacked_experts.hpp>

namespace gptq::io {
namespace detail {

inline constexpr std::array<expert_names, 5> names_of_experts = {{
    {"mixtral", "block_sparse_moe.", "w1", "w3", "w2"},
    {"qwen2_moe", "mlp.", "gate_proj", "up_proj", "down_proj"},
    {"qwen3_moe", "mlp.", "gate_proj", "up_proj", "down_proj"},
    {"qwen3_vl_moe", "mlp.", "gate_proj", "up_proj", "down_proj"},
    {"olmoe", "mlp.", "gate_proj", "up_proj", "down_proj"},
}};

/// Far above every published model; what keeps a header from asking for much memory.
inline constexpr std::size_t most_experts = std::size_t{1} << 14;

/// A pair of shapes. Their own numbers tell whether the last two dimensions are exchanged.
struct expert_sizes {
    std::size_t count = 0, inside = 0, hidden = 0;
    bool exchanged = false;
};

inline expert_sizes sizes_of(const tensor_info& gate_up, const tensor_info& down) {
    const auto &a = gate_up.shape, &b = down.shape;
    const bool fit = a.size() == 3 && b.size() == 3 && a[0] == b[0] && a[0] <= most_experts && !down.bytes.empty() &&
                     is_float(gate_up.dtype) && is_float(down.dtype);
    if (fit && a[1] == 2 * b[2] && a[2] == b[1]) return {a[0], b[2], b[1], false};
    if (fit && a[2] == 2 * b[1] && a[1] == b[2]) return {a[0], b[1], b[2], true};
    throw shape_error("the stacked experts " + gate_up.name + " " + shape_text(a) + " and " + down.name + " " +
                      shape_text(b) +
                      " are not float numbers [experts, 2 inside, hidden] and [experts, hidden, inside], or the same " +
                      "with the last two dimensions exchanged");
}

/// A matrix [rows, cols], row by row, whose columns lie in `stored` one after the other, each `stride` bytes after the
/// one before. Every piece of a column is a read of its own.
class columns_as_rows : public byte_source {
 public:
    columns_as_rows(file_bytes stored, std::size_t cols, std::size_t element, std::size_t stride)
        : stored_(std::move(stored)), cols_(cols), element_(element), stride_(stride) {}

    /// Parts begin and end between numbers.
    void read_at(std::size_t offset, std::span<std::byte> out) const override {
        if (out.empty()) return;
        const std::size_t first = offset / element_, last = first + out.size() / element_;  // numbers of the matrix
        const std::size_t top = first / cols_, rows = (last - 1) / cols_ + 1 - top;
        std::vector<std::byte> column(rows * element_);
        for (std::size_t c = 0; c < cols_; ++c) {
            stored_.subspan(c * stride_ + top * element_, column.size()).read(column);
            for (std::size_t r = 0; r < rows; ++r) {
                const std::size_t number = (top + r) * cols_ + c;
                if (number >= first && number < last)
                    std::memcpy(out.data() + (number - first) * element_, column.data() + r * element_, element_);
            }
        }
    }

 private:
    file_bytes stored_;
    std::size_t cols_, element_, stride_;
};

/// Rows [rows, cols] of a stored matrix; of one that is stored as [cols, all columns] those columns.
inline file_bytes matrix_within(const tensor_info& stored, std::size_t begin, std::size_t rows, std::size_t cols,
                                bool exchanged) {
    const std::size_t element = dtype_size(stored.dtype);
    const auto part = stored.bytes.subspan(begin * element, stored.bytes.size() - begin * element);
    const std::size_t bytes = rows * cols * element;
    if (!exchanged) return part.subspan(0, bytes);
    return {std::make_shared<columns_as_rows>(part, cols, element, stored.shape[2] * element), 0, bytes};
}

}  // namespace detail

GPTQ_INLINE const expert_names* find_expert_names(const nlohmann::json& config) {
    const auto type = config.find("model_type");
    const auto& all = detail::names_of_experts;
    const auto found = std::find_if(all.begin(), all.end(), [&](const expert_names& names) {
        return type != config.end() && *type == std::string(names.model_type);
    });
    return found == all.end() ? nullptr : &*found;
}

GPTQ_INLINE std::string published_name(const expert_names& names, std::string stacked) {
    static constexpr std::string_view block = ".mlp.";
    const std::size_t at = stacked.find(block);
    if (at != std::string::npos) stacked.replace(at + 1, block.size() - 1, names.block);
    return stacked;
}

GPTQ_INLINE std::vector<tensor_info> split_experts(const expert_names& names, const tensor_info& gate_up,
                                                   const tensor_info& down) {
    const detail::expert_sizes sizes = detail::sizes_of(gate_up, down);
    const std::size_t I = sizes.inside, K = sizes.hidden;
    const std::string prefix = gate_up.name.substr(0, gate_up.name.rfind('.') + 1);
    std::vector<tensor_info> split;
    const auto add = [&](std::size_t expert, std::string_view name, const tensor_info& stored, std::size_t begin,
                         std::size_t rows, std::size_t cols) {
        const std::string full = prefix + std::to_string(expert) + "." + std::string(name) + ".weight";
        split.push_back({published_name(names, full),
                         stored.dtype,
                         {rows, cols},
                         detail::matrix_within(stored, begin, rows, cols, sizes.exchanged)});
    };
    for (std::size_t e = 0; e < sizes.count; ++e) {
        const std::size_t begin = e * 2 * I * K;
        add(e, names.gate, gate_up, begin, I, K);
        add(e, names.up, gate_up, begin + (sizes.exchanged ? I : I * K), I, K);
        add(e, names.down, down, e * I * K, K, I);
    }
    return split;
}

}  // namespace gptq::io
