# gptq::cuda   the CUDA backend on top of gptq::gptq, for files that nvcc compiles: see <gptq/cuda.hpp>.
# Headers only; it brings cuBLAS, cuSOLVER, C++20 for nvcc, and the option that lets kernels call constexpr functions.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(CMAKE_CUDA_COMPILER nvcc HINTS ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda)
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

add_library(gptq_cuda INTERFACE)
add_library(gptq::cuda ALIAS gptq_cuda)
set_target_properties(gptq_cuda PROPERTIES EXPORT_NAME cuda)
# CMake learned of C++20 in nvcc with 3.26 only.
target_compile_options(gptq_cuda INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr>")
target_link_libraries(gptq_cuda INTERFACE gptq CUDA::cudart CUDA::cublas CUDA::cublasLt CUDA::cusolver)
target_sources(gptq_cuda INTERFACE FILE_SET HEADERS BASE_DIRS backends/cuda/include FILES ${gptq_cuda_headers})
install(TARGETS gptq_cuda EXPORT gptqCudaTargets FILE_SET HEADERS)

# NCCL sums Hessians of several GPUs; one GPU does not need it.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)

# What the project's own CUDA files are built with, in place of gptq_build_options.
# nvcc writes parentheses of its own around pointers to members.
add_library(gptq_cuda_build_options INTERFACE)
target_compile_options(gptq_cuda_build_options INTERFACE
    $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror,-Wno-parentheses -Xptxas=-warn-spills>)

# Everything that nvcc compiles: cmake --build --preset cuda --target cuda_programs
add_custom_target(cuda_programs)

# add_gptq_cuda_program(NAME SOURCE): a program of one file, with the CPU kernels from elsewhere.
function(add_gptq_cuda_program name source)
    add_executable(${name} ${source})
    add_dependencies(cuda_programs ${name})
    target_link_libraries(${name} PRIVATE gptq::cuda gptq::compiled gptq_cuda_build_options)
    if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
        target_include_directories(${name} SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
        target_link_libraries(${name} PRIVATE ${NCCL_LIBRARY})
        target_compile_definitions(${name} PRIVATE GPTQ_HAVE_NCCL)
    endif()
endfunction()
