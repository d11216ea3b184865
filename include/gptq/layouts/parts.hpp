// What a file that holds layers of one layout adds to PackLayout: names of tensors, and what the shapes mean.
#pragma once

#include <string_view>

namespace gptq::layout {

/// What is added to a module's name for the tensors of its layer. A layout of files has them as `parts`, beside
///  1. reads_groups_of(size), which tells whether programs that read the files take groups of that many input features;
///  2. layer_of(words, bits), the shape [N, K] of a layer from that of its packed codes. Without it, files hold the
///     shape in NAME.weight_shape.
struct layer_parts {
    std::string_view codes;
    std::string_view zeros;
    std::string_view scales;
    std::string_view g_idx;  ///< empty where files have no such tensor: groups are runs of neighbours then
};

}  // namespace gptq::layout
