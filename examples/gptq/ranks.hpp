// The processes that mpirun starts, as one.
#pragma once

#include <gptq/communicator.hpp>

namespace program {

/// This process among those that mpirun has started; one alone where it has not, or where the build has no MPI.
gptq::communicator_ref ranks();

/// The end of the process: its ranks are told, and the others are ended with it where it has failed.
void end_ranks(int status);

}  // namespace program
