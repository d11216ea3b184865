# The warnings that the project's own tests, examples and benchmarks are built with. Nobody else gets them.
add_library(gptq_warnings INTERFACE)
target_compile_options(gptq_warnings INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror)
