# gptq::compiled   gptq::gptq with the kernels and the solver of the usual schemes compiled once, and gptq::model, where it is
# there, with all that is no template (see <gptq/compiled.hpp>). It is compiled in the project that uses it, with that project's flags, and with OpenMP where
# the project has looked for OpenMP before: all files of a program have to agree on that.
# GPTQ_COMPILED_SOURCE_DIR: the folder of the sources.
if(NOT TARGET gptq::compiled)
    add_library(gptq_compiled STATIC EXCLUDE_FROM_ALL
        ${GPTQ_COMPILED_SOURCE_DIR}/kernels.cpp ${GPTQ_COMPILED_SOURCE_DIR}/solver.cpp)
    add_library(gptq::compiled ALIAS gptq_compiled)
    target_link_libraries(gptq_compiled PUBLIC gptq::gptq)
    target_compile_definitions(gptq_compiled PUBLIC GPTQ_COMPILED)
    if(TARGET gptq::model)
        target_sources(gptq_compiled PRIVATE ${GPTQ_COMPILED_SOURCE_DIR}/io.cpp
            ${GPTQ_COMPILED_SOURCE_DIR}/model.cpp ${GPTQ_COMPILED_SOURCE_DIR}/study.cpp
            ${GPTQ_COMPILED_SOURCE_DIR}/tokenizer.cpp)
        target_link_libraries(gptq_compiled PUBLIC gptq::model)
    endif()
    if(TARGET OpenMP::OpenMP_CXX)
        target_link_libraries(gptq_compiled PUBLIC OpenMP::OpenMP_CXX)
    endif()
endif()
