// Thread counts of the libraries that the program is linked with.
#include "threads.hpp"

#include <algorithm>
#include <cstdlib>
#include <future>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <gptq/error.hpp>
#include <gptq/kernels/isa.hpp>

// OpenBLAS's own call. Weak: with another BLAS it is absent, and that library's environment variable is the way.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int count);
extern "C" __attribute__((weak)) int openblas_get_num_threads();
extern "C" __attribute__((weak)) char* openblas_get_config();
extern "C" __attribute__((weak)) char* openblas_get_corename();

namespace program {
namespace {

void set_threads(std::size_t count) {
    if (count == 0) return;
    if (openblas_set_num_threads) openblas_set_num_threads(static_cast<int>(count));
#ifdef _OPENMP
    omp_set_num_threads(static_cast<int>(count));
#endif
}

/// OpenBLAS and OpenMP have teams of their own.
void require_threads(std::size_t count) {
    std::promise<void> done;
    const std::shared_future<void> end = done.get_future().share();
    std::vector<std::thread> team;
    std::string problem;
    try {
        while (team.size() + 2 < 2 * count) team.emplace_back([end] { end.wait(); });
    } catch (const std::system_error& refusal) {
        problem = refusal.code().message();
    }
    done.set_value();
    for (std::thread& one : team) one.join();
    if (!problem.empty())
        throw gptq::error("cannot start " + std::to_string(count) + " threads for each of BLAS and OpenMP: " + problem +
                          "; give fewer --threads, or raise the limit on processes (ulimit -u, or the container's)");
}

/// OpenBLAS maps a buffer for each of its threads; 0: as many as it chooses.
void require_address_space(std::size_t threads) {
    constexpr std::size_t buffer = std::size_t{128} << 20;
    rlimit limit{};
    if (!openblas_get_num_threads) return;
    if (threads == 0) threads = static_cast<std::size_t>(openblas_get_num_threads());
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    const std::size_t needed = threads * buffer;
    void* room = mmap(nullptr, needed, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        throw gptq::error("OpenBLAS needs " + std::to_string(needed >> 20) +
                          " MiB of address space, and the limit on it (ulimit -v) leaves less; raise it, or give fewer "
                          "--threads");
    munmap(room, needed);
}

/// What sums are added up with where their order is to be the same on all machines of an architecture.
#ifdef __aarch64__
constexpr const char *fixed_isa = "neon", *fixed_core = "ARMV8";
#else
constexpr const char *fixed_isa = "avx2", *fixed_core = "Haswell";
#endif

/// True where the variable did not have that value.
bool change_variable(const char* name, const char* value) {
    const char* now = std::getenv(name);
    return (now == nullptr || std::string_view(now) != value) && setenv(name, value, 1) == 0;
}

/// Threads that spin keep the processors from each other: more than twice the processor time on two cores.
bool let_idle_threads_sleep(std::string_view command) {
    if (command != "quantize" && command != "eval" && command != "study") return false;
    const char *openmp = "OMP_WAIT_POLICY", *openblas = "OPENBLAS_THREAD_TIMEOUT";
    if (std::getenv(openmp) || std::getenv("GOMP_SPINCOUNT") || std::getenv(openblas)) return false;
    // The time-out is 2^4 cycles.
    return setenv(openmp, "passive", 1) == 0 && setenv(openblas, "4", 1) == 0;
}

bool choose_kernels(char** arguments) {
    const auto is_option = [](const char* a) { return std::string_view(a) == "--reproducible"; };
    char** end = arguments;
    while (*end != nullptr) ++end;
    if (std::none_of(arguments, end, is_option)) return false;
    const bool isa_changed = change_variable("GPTQ_ISA", fixed_isa);
    return change_variable("OPENBLAS_CORETYPE", fixed_core) || isa_changed;
}

}  // namespace

void use_threads(std::size_t count, bool computes) {
    if (computes) require_address_space(count);
    if (computes && count > 1) require_threads(count);
    set_threads(count);
}

std::size_t threads_in_use() {
    if (openblas_get_num_threads) return static_cast<std::size_t>(openblas_get_num_threads());
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_max_threads());
#else
    return std::thread::hardware_concurrency();
#endif
}

std::string blas_name() { return openblas_get_config ? openblas_get_config() : "unknown"; }

void choose_environment(char** argv) {
    if (argv[0] == nullptr || argv[1] == nullptr) return;
    const bool idle_changed = let_idle_threads_sleep(argv[1]);
    if (choose_kernels(argv) || idle_changed) execv("/proc/self/exe", argv);
}

void fix_order_of_sums() {
    const bool chosen = openblas_get_corename != nullptr && std::string_view(openblas_get_corename()) == fixed_core;
    if (!chosen || gptq::isa_name(gptq::best_isa()) != fixed_isa)
        throw gptq::unsupported_error("--reproducible computes by the kernels for " + std::string(fixed_isa) +
                                      " and by those of OpenBLAS for " + fixed_core +
                                      ", which this machine or this program does not have; leave the option out");
    openblas_set_num_threads(1);
}

}  // namespace program
