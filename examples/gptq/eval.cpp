#include "eval.hpp"

#include "device.hpp"

namespace program {

void eval(const eval_arguments& arguments) {
    choose_device(
        arguments, [&] { on_gpu::eval(arguments); }, [&] { eval_on(cpu_of(arguments), arguments); });
}

}  // namespace program
