// The kernels, for builds of many files that define GPTQ_KERNELS_ELSEWHERE: see <gptq/kernels/dispatch.hpp>.
#include <gptq/kernels/dispatch.hpp>

namespace gptq::kernels {

// All of them: each way of holding inputs, each number of bits.
template kernel_family find_family<held_as::floats>(int);
template kernel_family find_family<held_as::int16>(int);
template kernel_family find_family<held_as::int8>(int);

}  // namespace gptq::kernels
