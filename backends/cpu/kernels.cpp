// The kernels, for builds of many files that define GPTQ_KERNELS_ELSEWHERE: see <gptq/kernels/dispatch.hpp>.
#include <gptq/kernels/dispatch.hpp>

namespace gptq::kernels {

template kernel find_kernel<held_as::floats>(isa, int);
template kernel find_kernel<held_as::int16>(isa, int);
template kernel find_kernel<held_as::int8>(isa, int);

}  // namespace gptq::kernels
