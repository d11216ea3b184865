// What most programs need of the solver and of products: compiled once, in the library of <gptq/compiled.hpp>.
#pragma once

#include <gptq/activation.hpp>
#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/factor.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/grids/fp8_e4m3.hpp>
#include <gptq/grids/mxfp4.hpp>
#include <gptq/grids/nvfp4.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matmul.hpp>
#include <gptq/observer.hpp>
#include <gptq/orders.hpp>
#include <gptq/quantized.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>

// Explicit instantiations, or with `what` = extern template their declarations: solve_and_refine and rounding for the
// bits and grids that checkpoints hold, factor_hessian for all orders, multiplication of floats for all activations.
#define GPTQ_USUAL_SOLVER_IN_BACKEND(what, bits, grid)                                                   \
    what solve_report solve_and_refine<bits>(                                                            \
        in_backend_t, matrix_view<const float>, const factored_hessian<cpu_backend, inverse_free_path>&, \
        held_layer<cpu_backend>&, const quantize_options&, observer_ref&, const grid&);
#define GPTQ_USUAL_SOLVER(what, bits, grid)                                                                           \
    what solve_report solve_and_refine<bits>(matrix_view<const float>,                                                \
                                             const factored_hessian<cpu_backend, inverse_free_path>&, quantized_view, \
                                             const quantize_options&, observer_ref&, const grid&);                    \
    GPTQ_USUAL_SOLVER_IN_BACKEND(what, bits, grid)
#define GPTQ_USUAL_ROUNDING(what, bits, grid)                                                                      \
    what void round_to_nearest_into<bits>(in_backend_t, const cpu_backend&, matrix_view<const float>, std::size_t, \
                                          held_layer<cpu_backend>&, const grid&);
#define GPTQ_USUAL_ELEMENTS(what, bits, grid)                        \
    GPTQ_USUAL_SOLVER_IN_BACKEND(what, bits, grid)                   \
    GPTQ_USUAL_SOLVER_IN_BACKEND(what, bits, searched_by_loss<grid>) \
    GPTQ_USUAL_ROUNDING(what, bits, grid)
#define GPTQ_USUAL_SOLVERS_OF(what, bits)                                \
    GPTQ_USUAL_SOLVER(what, bits, symmetric)                             \
    GPTQ_USUAL_SOLVER(what, bits, asymmetric)                            \
    GPTQ_USUAL_SOLVER(what, bits, asymmetric_from_one)                   \
    GPTQ_USUAL_SOLVER(what, bits, searched_by_loss<symmetric>)           \
    GPTQ_USUAL_SOLVER(what, bits, searched_by_loss<asymmetric>)          \
    GPTQ_USUAL_SOLVER(what, bits, searched_by_loss<asymmetric_from_one>) \
    GPTQ_USUAL_ROUNDING(what, bits, symmetric)                           \
    GPTQ_USUAL_ROUNDING(what, bits, asymmetric)                          \
    GPTQ_USUAL_ROUNDING(what, bits, asymmetric_from_one)
#define GPTQ_USUAL_FACTOR(what, order)                                                                                \
    what factored_hessian<cpu_backend, inverse_free_path> factor_hessian<order>(                                      \
        const cpu_backend&, matrix_view<const float>, std::size_t, const quantize_options&, const inverse_free_path&, \
        const order&, std::size_t);
#define GPTQ_USUAL_SOLVERS(what)              \
    GPTQ_USUAL_SOLVERS_OF(what, 2)            \
    GPTQ_USUAL_SOLVERS_OF(what, 3)            \
    GPTQ_USUAL_SOLVERS_OF(what, 4)            \
    GPTQ_USUAL_SOLVERS_OF(what, 8)            \
    GPTQ_USUAL_ELEMENTS(what, 4, mxfp4)       \
    GPTQ_USUAL_ELEMENTS(what, 4, nvfp4)       \
    GPTQ_USUAL_ELEMENTS(what, 8, fp8_e4m3)    \
    GPTQ_USUAL_FACTOR(what, natural_order)    \
    GPTQ_USUAL_FACTOR(what, act_order)        \
    GPTQ_USUAL_FACTOR(what, act_order_static) \
    GPTQ_USUAL_FACTOR(what, group_aware_order)
#define GPTQ_USUAL_PRODUCT(what, activation)                                                                      \
    what class prepared<activation>;                                                                              \
    what void prepared<activation>::multiply(matrix_view<const float>, matrix_view<float>, const matmul_options&, \
                                             const no_epilogue&) const;
#define GPTQ_USUAL_PRODUCTS(what)               \
    GPTQ_USUAL_PRODUCT(what, activation::exact) \
    GPTQ_USUAL_PRODUCT(what, activation::int16) \
    GPTQ_USUAL_PRODUCT(what, activation::int8)

namespace gptq {

GPTQ_USUAL_SOLVERS(extern template)
GPTQ_USUAL_PRODUCTS(extern template)

}  // namespace gptq
