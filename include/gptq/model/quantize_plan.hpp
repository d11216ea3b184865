// The plan of a quantization: every linear layer of the model with its settings, checked against the model's files and
// the format to write before any work is done.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/scheme.hpp>

namespace gptq::model {

/// How a module's codes are found; round_to_nearest is the baseline that ignores the calibration inputs.
enum class quantize_method { gptq, round_to_nearest };

/// What goes beyond GPTQ as published, in the same file format; each composes with every grid and order. What each
/// gives and costs: docs/quality.md.
struct quality_options {
    bool search_by_loss = false;  ///< fit grids by a search in the loop's own metric (see searched_by_loss)
    bool choose_damping = false;  ///< damp by the layer at hand (see damping.hpp), not by damp_percent
    bool correct_drift = false;   ///< aim at the float model's outputs (see drift.hpp); runs that model beside
    int refine_rounds = 0;        ///< rounds of refinement after the loop (see refine.hpp)
    bool refine_scales = true;    ///< ... of the scales and zero points
    bool refine_codes = true;     ///< ... of the codes
    std::size_t candidates = 1;   ///< partial sequences of codes that the loop keeps (see k_best.hpp)

    /// The combination that did best for a number of bits: see docs/quality.md.
    static quality_options best(int bits);
};

/// What to make of a model.
struct quantize_model_options {
    /// What the new checkpoint will say about itself; rules in `config.dynamic` change the settings of single modules.
    io::quantization_config config;
    quantize_method method = quantize_method::gptq;
    quality_options quality = {};
};

/// One linear layer.
struct module_plan {
    std::string name;           ///< as in the files, without ".weight"
    std::string name_in_layer;  ///< e.g. "mlp.down_proj"
    std::size_t out_features = 0;
    std::size_t in_features = 0;
};

/// How the modules of a stage are quantized.
struct stage_settings {
    scheme_config scheme;
    double damp_percent = 0.01;
};

/// Linear layers that read the same input. They share their settings, so one Hessian and one factorization serve them.
struct stage_plan {
    std::size_t layer = 0;  ///< index of the decoder block; the number of blocks for the output layer
    std::vector<module_plan> modules;
    std::optional<stage_settings> settings;  ///< nothing: left as they are

    std::size_t weights() const;
};

struct quantization_plan {
    std::vector<stage_plan> stages;     ///< in the order in which they are quantized
    std::vector<std::string> warnings;  ///< what the user should know although nothing is wrong
};

namespace detail {

inline constexpr std::string_view weight_suffix = ".weight";

std::vector<stage_plan> model_stages(const model_config& c, bool lm_head);

/// The settings of one module after the rules; nothing if they leave it alone.
std::optional<stage_settings> settings_of(const io::quantization_config& config, const std::string& name);

}  // namespace detail

/// Finds every linear layer of the model, applies the rules, and checks everything that can be known before the work:
/// tensors present and of the right shape, bits, shapes and group sizes that the format's readers accept, settings that
/// agree where runtimes fuse layers. Throws unsupported_error, shape_error or format_error naming the modules and what
/// would do.
quantization_plan plan_quantization(const model_config& config, const io::model_folder& folder,
                                    const io::quantization_config& wanted);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_plan.hpp>
#endif
