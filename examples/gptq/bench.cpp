#include "bench.hpp"

#include "device.hpp"

namespace program {

void bench(const bench_arguments& arguments) {
    choose_device(
        arguments, [&] { on_gpu::bench(arguments); }, [&] { bench_on(cpu_of(arguments), arguments); });
}

}  // namespace program
