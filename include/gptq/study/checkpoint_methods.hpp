// The methods whose codes checkpoints hold: rounding to nearest, GPTQ, GPTQ with all that helps, and AWQ.
#pragma once

#include <cstddef>
#include <string_view>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/backends/cpu/usual.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/model/stage_solver.hpp>
#include <gptq/observer.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/method.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::study {
namespace detail {

inline constexpr const char* needs_whole_model =
    "scales are folded into what comes before a layer, for which a layer by itself is too little (--depth model)";

/// make(held, group) fills a layer of the problem's shape, in groups of so many features.
template <class Make>
quantized_layer stored_layer(const layer_problem& p, const Make& make) {
    const std::size_t group = group_size<dynamic>::features(p.W.cols, p.settings.group_size);
    held_layer<cpu_backend> held(p.H.backend(), p.W.rows, p.W.cols, group_count(p.W.cols, group));
    make(held, group);
    quantized_layer layer;
    allocate(layer, p.settings.bits, p.settings.sym, p.W.rows, p.W.cols, group);
    layer.levels = model::detail::levels_in(p.format);
    held.download(layer.view());
    return layer;
}

/// The settings of `preset` with the shape of the codes and the smoothing in `wanted`.
inline quantize_settings shaped(quantize_settings preset, const quantize_settings& wanted) {
    preset.bits = wanted.bits;
    preset.group_size = wanted.group_size;
    preset.sym = wanted.sym;
    preset.smooth = wanted.smooth;
    return preset;
}

}  // namespace detail

/// Every weight by itself.
struct rtn_method {
    static constexpr std::string_view name = "rtn";
    static constexpr bool in_checkpoints = true;
    static quantize_settings settings_of(const quantize_settings& wanted) {
        return detail::shaped(settings::nearest(), wanted);
    }
    static quantized_layer solve(const layer_problem& p) {
        return detail::stored_layer(p, [&](held_layer<cpu_backend>& held, std::size_t group) {
            model::detail::visit_rounding_scheme(p.settings, p.format, [&]<class S>() {
                round_to_nearest_into<S::bits>(in_backend, p.H.backend(), p.W, group, held, typename S::grid{});
            });
        });
    }
};

/// The solver with the settings as they are.
struct gptq_method {
    static constexpr std::string_view name = "gptq";
    static constexpr bool in_checkpoints = true;
    static quantize_settings settings_of(const quantize_settings& wanted) { return wanted; }
    static quantized_layer solve(const layer_problem& p) {
        return detail::stored_layer(p, [&](held_layer<cpu_backend>& held, std::size_t) {
            const no_observer nobody;
            observer_ref watching(nobody);
            model::detail::visit_storable_scheme(p.settings, p.format, [&]<class S>() {
                solve_and_refine<S::bits>(in_backend, p.W, *p.factor, held, solver_options(p.settings), watching,
                                          typename S::grid{});
            });
        });
    }
};

/// settings::best() in the wanted order. At depth `layers` the inputs are the float model's, so that no drift is
/// corrected there.
struct best_method {
    static constexpr std::string_view name = "best";
    static constexpr bool in_checkpoints = true;
    static quantize_settings settings_of(const quantize_settings& wanted) {
        quantize_settings best = detail::shaped(settings::best(wanted.bits), wanted);
        best.order = wanted.order;
        best.damp_percent = wanted.damp_percent;
        return best;
    }
    static quantized_layer solve(const layer_problem& p) { return gptq_method::solve(p); }
};

/// Rounding to nearest after scales are folded into what comes before, in clipped groups; at depth `model` only.
struct awq_method {
    static constexpr std::string_view name = "awq";
    static constexpr bool in_checkpoints = true;
    static quantize_settings settings_of(const quantize_settings& wanted) {
        return detail::shaped(settings::awq(), wanted);
    }
    [[noreturn]] static quantized_layer solve(const layer_problem&) { throw option_error(detail::needs_whole_model); }
};

}  // namespace gptq::study
