#include "ranks.hpp"

#ifdef GPTQ_PROGRAM_HAS_MPI
#include <cstdlib>
#include <optional>

#include <gptq/backends/mpi/communicator.hpp>

namespace program {
namespace {

std::optional<gptq::mpi_communicator> started;

/// What mpirun and its like tell the processes that they start.
bool is_one_of_several() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"})
        if (std::getenv(name) != nullptr) return true;
    return false;
}

}  // namespace

gptq::communicator_ref ranks() {
    if (!is_one_of_several()) return {};
    if (!started) {
        MPI_Init(nullptr, nullptr);
        started.emplace();
    }
    return *started;
}

void end_ranks(int status) {
    if (!started) return;
    if (status != 0) MPI_Abort(MPI_COMM_WORLD, status);
    started.reset();
    MPI_Finalize();
}

}  // namespace program
#else

namespace program {

gptq::communicator_ref ranks() { return {}; }

void end_ranks(int /*status*/) {}

}  // namespace program
#endif
