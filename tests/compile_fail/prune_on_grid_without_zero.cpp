// expect: AffineGrid
#include <gptq/gptq.hpp>

/// Values that are no multiples of a scale: none need be 0.
struct my_grid {
    static constexpr bool sym = false;
    template <int Bits>
    gptq::grid_params fit(std::span<const float>) const {
        return {};
    }
    template <int Bits>
    std::uint8_t encode(float, gptq::grid_params) const {
        return 0;
    }
    template <int Bits>
    float decode(std::uint8_t, gptq::grid_params) const {
        return 1.0f;
    }
};

#ifdef CORRECT
using grid = gptq::symmetric;
#else
using grid = my_grid;
#endif

auto prune(const gptq::tensor2<float>& W, const gptq::hessian<float>& h) {
    using S = gptq::scheme<4, gptq::group_size<32>, grid>;
    return gptq::prune_and_quantize<S>(W, gptq::factorize<S>(h), gptq::sparsity<2, 4>::pattern);
}
