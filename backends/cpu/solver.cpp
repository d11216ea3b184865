// The solver of gptq::compiled, for the usual schemes: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/backends/cpu/usual.hpp>

namespace gptq {

GPTQ_USUAL_SOLVERS(template)

}  // namespace gptq
