// The plan of a quantization: every linear layer of the model with its settings, checked against the model's files and
// the format to write before any work is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/scheme.hpp>
#include <gptq/settings.hpp>

namespace gptq::model {

/// What to make of a model.
struct quantize_model_options {
    /// What the new checkpoint will say about itself, with the settings of its modules; rules in `config.dynamic`
    /// change those of single modules. `config.calibration` is filled in.
    io::quantization_config config = {};
    bool restart = false;  ///< discard what an unfinished run has left, in place of going on with it
    /// Bytes of memory that the work may take, within about a fifth. Where that is not enough for all calibration
    /// tokens, some of what a block computes is computed twice, and states go to a file in OUT.partial; the result has
    /// the same bytes. Nothing: what the system has free, or on a device, no limit.
    std::optional<std::uint64_t> memory = std::nullopt;
    /// Who quantizes the model together, each calling quantize_model with the same arguments (<gptq/communicator.hpp>).
    /// Rank 0 writes.
    communicator_ref ranks = {};
    bool sums_in_order = false;  ///< several ranks write the bytes of one, and wait for each other's sums
};

/// One linear layer.
struct module_plan {
    std::string name;           ///< as in the files, without ".weight"
    std::string name_in_layer;  ///< e.g. "mlp.down_proj"
    std::size_t out_features = 0;
    std::size_t in_features = 0;
};

/// Linear layers that read the same input. They share their settings, so one Hessian and one factorization serve them.
struct stage_plan {
    std::size_t layer = 0;  ///< index of the decoder block; the number of blocks for the output layer
    std::vector<module_plan> modules;
    std::optional<quantize_settings> settings;  ///< nothing: left as they are

    std::size_t weights() const;
};

struct quantization_plan {
    std::vector<stage_plan> stages;     ///< in the order in which they are quantized
    std::vector<std::string> warnings;  ///< what the user should know although nothing is wrong

    /// Blocks, and one for the output layer where that is quantized.
    std::size_t pieces() const;
};

namespace detail {

inline constexpr std::string_view weight_suffix = ".weight";

std::vector<stage_plan> model_stages(const model_config& c, bool lm_head);

/// What is known of stages before any work: bits, shapes and group sizes that the format's readers accept, and settings
/// in range. Throws as plan_quantization.
void check_stages(io::checkpoint_format format, const std::vector<stage_plan>& stages);

/// Whether every reader of the format accepts groups of `size` for `in_features` inputs: see docs/formats.md.
bool group_size_fits(io::checkpoint_format format, int size, std::size_t in_features);

/// The zero points that a format can hold.
zero_points zeros_of(io::checkpoint_format format);

}  // namespace detail

/// Finds every linear layer of the model, applies the rules, and checks everything that can be known before the work:
/// tensors present and of the right shape, bits, shapes and group sizes that the format's readers accept, settings that
/// agree where runtimes fuse layers. Throws option_error for settings out of range, unsupported_error, shape_error or
/// format_error naming the modules and what would do.
quantization_plan plan_quantization(const model_config& config, const io::model_folder& folder,
                                    const io::quantization_config& wanted);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_plan.hpp>
#endif
