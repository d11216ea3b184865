// Rounding to nearest on a grid that is a table of 16 values, as programs that hold NF4 and FP4 do it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/method.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::study {

/// `Grid` has 4 bits. Its layers have no checkpoint format here: they take 4 bits a weight and a half for each group.
template <class Grid>
struct codebook_method {
    static constexpr bool in_checkpoints = false;

    /// Throws option_error for other bits.
    static quantize_settings of_four_bits(std::string_view name, const quantize_settings& wanted) {
        if (wanted.bits != 4)
            throw option_error(std::string(name) + ": has 4 bits, not " + std::to_string(wanted.bits));
        quantize_settings s = settings::nearest(4);
        s.group_size = wanted.group_size;
        return s;
    }

    static quantized_layer solve(const layer_problem& p) {
        const std::size_t group = group_size<dynamic>::features(p.W.cols, p.settings.group_size);
        held_layer<cpu_backend> held(p.H.backend(), p.W.rows, p.W.cols, group_count(p.W.cols, group));
        round_to_nearest_into<4>(in_backend, p.H.backend(), p.W, group, held, Grid{});
        quantized_layer layer;
        allocate(layer, 4, true, p.W.rows, p.W.cols, group);
        layer.levels = levels_of<4>(Grid{});
        held.download(layer.view());
        return layer;
    }
};

}  // namespace gptq::study
