# What the project's own tests, examples and benchmarks are built with. Nobody who uses gptq gets any of it.
add_library(gptq_build_options INTERFACE)
target_compile_options(gptq_build_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow;-Werror>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # g++ 12 takes the std::string in "text" + string for overlapping memory (GCC bug 105651) and an empty
    # std::optional for an uninitialized value (bug 80635). Neither is one.
    target_compile_options(gptq_build_options INTERFACE
        "$<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-maybe-uninitialized>")
endif()

# With OpenMP the CPU backend takes the rows of a layer in parallel; without it everything works, more slowly.
find_package(OpenMP QUIET COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
    target_link_libraries(gptq_build_options INTERFACE OpenMP::OpenMP_CXX)
else()
    message(STATUS "gptq: ${CMAKE_CXX_COMPILER_ID} has no OpenMP here; layers are quantized by one thread")
endif()
