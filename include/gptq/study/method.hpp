// StudyMethod: whatever turns the weights of a layer into codes, so that a study can hold it beside the others.
#pragma once

#include <concepts>
#include <string_view>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/settings.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::study {

using layer_factor = factored_hessian<cpu_backend, inverse_free_path>;

/// A layer, and what its calibration inputs say.
struct layer_problem {
    matrix_view<const float> W;           ///< [N, K]
    const basic_hessian<cpu_backend>& H;  ///< (2/T) X'X, [K, K]
    layer_factor* factor;  ///< of H, in the order that the settings ask for; null for methods without one
    const quantize_settings& settings;
    io::checkpoint_format format;  ///< which decides the grid, or the zero points that it may have
};

/// A type without state. Its file includes what it needs, and study_methods() of <gptq/study/methods.hpp> lists it.
///  - name: as --method and results have it.
///  - in_checkpoints: whether a checkpoint format holds its codes, and quantize_model finds them from the settings.
///  - settings_of(wanted): the settings that it makes of those of the plan, without what it makes no use of; settings
///    whose method is gptq get a factor. Throws option_error for what it does not have.
///  - solve(problem): the layer; throws what the solver throws.
template <class M>
concept StudyMethod = requires(const quantize_settings& wanted, const layer_problem& problem) {
    { M::name } -> std::convertible_to<std::string_view>;
    { M::in_checkpoints } -> std::convertible_to<bool>;
    { M::settings_of(wanted) } -> std::same_as<quantize_settings>;
    { M::solve(problem) } -> std::same_as<quantized_layer>;
};

/// A StudyMethod without its type.
struct study_method {
    std::string_view name;
    bool in_checkpoints;
    quantize_settings (*settings_of)(const quantize_settings& wanted);
    quantized_layer (*solve)(const layer_problem& problem);
};

template <StudyMethod M>
constexpr study_method method_of() {
    return {M::name, M::in_checkpoints, &M::settings_of, &M::solve};
}

}  // namespace gptq::study
