# gptq::compiled   gptq::gptq with the kernels and the solver of the usual schemes compiled once, for programs of many files
# (see <gptq/compiled.hpp>). It is compiled in the project that uses it, with that project's flags, and with OpenMP where
# the project has looked for OpenMP before: all files of a program have to agree on that.
# GPTQ_COMPILED_SOURCE_DIR: the folder of kernels.cpp and solver.cpp.
if(NOT TARGET gptq::compiled)
    add_library(gptq_compiled STATIC EXCLUDE_FROM_ALL
        ${GPTQ_COMPILED_SOURCE_DIR}/kernels.cpp ${GPTQ_COMPILED_SOURCE_DIR}/solver.cpp)
    add_library(gptq::compiled ALIAS gptq_compiled)
    target_link_libraries(gptq_compiled PUBLIC gptq::gptq)
    target_compile_definitions(gptq_compiled PUBLIC GPTQ_COMPILED)
    if(TARGET OpenMP::OpenMP_CXX)
        target_link_libraries(gptq_compiled PUBLIC OpenMP::OpenMP_CXX)
    endif()
endif()
