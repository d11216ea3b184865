// NF4: 16 levels, each as likely as the others for weights of a normal distribution.
#pragma once

#include <array>

#include <gptq/grids/codebook.hpp>

namespace gptq {

/// The levels of NF4, in rising order.
struct nf4_table {
    static constexpr std::array<float, 16> values = {
        -1.0f,
        -0.6961928009986877f,
        -0.5250730514526367f,
        -0.39491748809814453f,
        -0.28444138169288635f,
        -0.18477343022823334f,
        -0.09105003625154495f,
        0.0f,
        0.07958029955625534f,
        0.16093020141124725f,
        0.24611230194568634f,
        0.33791524171829224f,
        0.44070982933044434f,
        0.5626170039176941f,
        0.7229568362236023f,
        1.0f,
    };
};

/// The 4-bit NormalFloat of Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (2023), appendix E. Its
/// scale is a group's largest magnitude, as a half.
struct nf4 : codebook<nf4_table> {};

}  // namespace gptq
