// Scales of a site's inputs, folded into what computes them: the layers read x / s with weights W diag(s), and compute
// what they did before. AWQ (Lin et al., MLSys 2024, arXiv:2306.00978, section 3) and SmoothQuant (Xiao et al., ICML
// 2023, arXiv:2211.10438, section 4) choose such scales before a model is quantized.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gptq/io/dtype.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// One of the layers of a block.
struct layer_place {
    std::size_t site = 0, module = 0;
    bool operator==(const layer_place&) const = default;
};

/// What stands before a site and can take 1 / s: a norm, or rows of a layer.
struct scale_fold {
    std::string obstacle;              ///< why nothing can, for a message; empty: the fold is legal
    std::optional<norm_place> norm;    ///< its weights, and biases, are divided
    layer_place layer;                 ///< where it is no norm: its rows, and their biases, are divided
    std::vector<std::size_t> rows;     ///< row of `layer` that scale i divides                                 [scales]
    std::vector<std::size_t> columns;  ///< scale of input feature k; heads of a group share theirs                 [K]
    std::size_t scales = 0;
};

/// What stands before site `site`. Norms before q, k, v and before gate and up are legal where all that reads them is
/// in the site; v before o, each scale for all heads that share keys and values; up before down where down's input is
/// linear in it, as in gated MLPs, or scales with it (ReLU).
scale_fold fold_before(const model_config& config, const block_description& block, std::size_t site);

/// Multiplies column k of the site's layers by s[columns[k]] and divides what stands before by s, which is exact up to
/// the rounding of floats. The layers touched become float. Throws unsupported_error with the obstacle where the fold
/// is not legal, or a layer is stored as codes; shape_error for another number of scales; option_error for scales that
/// are not positive and finite.
void fold_scales(stored_block& block, std::size_t site, const scale_fold& fold, std::span<const float> s);

/// For a norm, the scales nearest to s with which `source` can store the divided weights exactly in the numbers that it
/// has them in; 1 where the quotient would be 0 or is not finite. For a layer, s: its codes are found afterwards.
std::vector<float> storable_scales(const model_config& config, const io::model_folder& source,
                                   const stored_block& block, const scale_fold& fold, std::span<const float> s);

/// Norms and biases of a block that folds changed, by the names of the tensors.
class folded_tensors {
 public:
    /// What the fold has changed in `block` but the weights of layers, as `source` stores such tensors; the block then
    /// has what these numbers stand for. Throws non_finite_error for biases that they cannot hold.
    void add(const model_config& config, const io::model_folder& source, stored_block& block, const scale_fold& fold);

    /// Every tensor by its name, once.
    void write(const io::tensor_sink& sink) const;

    bool empty() const { return tensors_.empty(); }

 private:
    struct named_tensor {
        std::string name;
        io::dtype dtype;
        std::size_t size;
        std::vector<std::byte> bytes;
    };
    /// `values` less `minus` is stored.
    void put(const io::model_folder& source, const std::string& name, tensor1<float>& values, float minus);

    std::vector<named_tensor> tensors_;
};

/// Puts the norms and biases that `stored` has in the place of the block's: those that folded_tensors wrote. Throws
/// shape_error for one of another size, and what reading throws.
void take_folded(const model_config& config, const io::model_folder& stored, stored_block& block);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/scale_fold.hpp>
#endif
