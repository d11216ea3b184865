#include "generate.hpp"

#include "device.hpp"

namespace program {

void generate(const generate_arguments& arguments) {
    choose_device(
        arguments, [&] { on_gpu::generate(arguments); }, [&] { generate_on(cpu_of(arguments), arguments); });
}

}  // namespace program
