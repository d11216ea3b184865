// Run by mpirun: mpi_communicator keeps the sentences of Communicator, and a model that all processes quantize has the
// bytes of one that a single process quantizes. The exit status is 0 where both hold.
#include <cstdio>
#include <filesystem>
#include <string>

#include <gptq/backends/mpi/communicator.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/testing/check_communicator.hpp>

#include "program/tiny_model.hpp"
#include "support/files.hpp"

static_assert(gptq::Communicator<gptq::mpi_communicator>);

namespace fs = std::filesystem;
namespace model = gptq::model;

namespace {

bool keeps_sentences(gptq::mpi_communicator& ranks) {
    const auto broken = gptq::testing::check_communicator(ranks);
    for (const std::string& line : broken) std::fprintf(stderr, "rank %zu: %s\n", ranks.rank(), line.c_str());
    return broken.empty();
}

/// `folder` is this process's own.
bool writes_the_same(gptq::mpi_communicator& ranks, const fs::path& folder) {
    gptq_test::write_tiny_model(folder / "model", {.blocks = 2});
    const std::string text = gptq_test::some_text(25 * 256);
    const model::token_windows windows{{text.begin(), text.end()}, 256};
    const gptq::io::model_folder source(folder / "model");
    model::quantize_model_options options;
    options.config.settings.group_size = 32;
    options.config.settings.correct_drift = true;
    model::quantize_model(source, folder / "alone", windows, options);
    options.ranks = ranks;
    options.sums_in_order = true;
    model::quantize_model(source, folder / "together", windows, options);
    if (ranks.rank() != 0) return !fs::exists(folder / "together");
    const auto weights = [&](const char* name) { return gptq_test::read_file(folder / name / "model.safetensors"); };
    return weights("alone") == weights("together");
}

}  // namespace

int main() {
    MPI_Init(nullptr, nullptr);
    bool good = false;
    {
        gptq::mpi_communicator ranks;
        const fs::path folder = fs::temp_directory_path() / ("gptq-mpi-ranks-" + std::to_string(ranks.rank()));
        fs::remove_all(folder);
        fs::create_directories(folder);
        good = keeps_sentences(ranks) && writes_the_same(ranks, folder);
        if (!good) std::fprintf(stderr, "rank %zu: failed\n", ranks.rank());
        fs::remove_all(folder);
    }
    MPI_Finalize();
    return good ? 0 : 1;
}
