// The kernels, the threads and the products of gptq::compiled: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/backends/cpu/share_rows.hpp>
#include <gptq/backends/cpu/usual.hpp>
#include <gptq/kernels/find_isa.hpp>
#include <gptq/kernels/find_kernel.hpp>

namespace gptq {

// All kernels: each way of holding inputs, each number of bits, each kind of levels.
template kernels::kernel_family kernels::find_family<kernels::held_as::floats>(int, kernels::levels_as);
template kernels::kernel_family kernels::find_family<kernels::held_as::int16>(int, kernels::levels_as);
template kernels::kernel_family kernels::find_family<kernels::held_as::int8>(int, kernels::levels_as);

GPTQ_USUAL_PRODUCTS(template)

}  // namespace gptq
