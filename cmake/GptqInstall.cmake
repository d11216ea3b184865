# find_package(gptq) gives gptq::gptq; find_package(gptq COMPONENTS model compiled cuda) gives gptq::model, gptq::compiled
# and gptq::cuda as well.
include(CMakePackageConfigHelpers)

set(gptq_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/gptq)
configure_package_config_file(cmake/gptqConfig.cmake.in ${PROJECT_BINARY_DIR}/gptqConfig.cmake
    INSTALL_DESTINATION ${gptq_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gptqConfigVersion.cmake
    COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)

install(EXPORT gptqTargets NAMESPACE gptq:: DESTINATION ${gptq_cmake_dir})
if(TARGET gptq_model)
    install(EXPORT gptqModelTargets NAMESPACE gptq:: DESTINATION ${gptq_cmake_dir})
endif()
if(TARGET gptq_cuda)
    install(EXPORT gptqCudaTargets NAMESPACE gptq:: DESTINATION ${gptq_cmake_dir})
endif()
install(FILES
    ${PROJECT_BINARY_DIR}/gptqConfig.cmake
    ${PROJECT_BINARY_DIR}/gptqConfigVersion.cmake
    ${PROJECT_SOURCE_DIR}/cmake/gptqCompiled.cmake
    ${PROJECT_SOURCE_DIR}/cmake/FindPCRE2.cmake
    ${PROJECT_SOURCE_DIR}/cmake/Findutf8proc.cmake
    DESTINATION ${gptq_cmake_dir})
file(GLOB compiled_sources ${PROJECT_SOURCE_DIR}/backends/cpu/*.cpp)
install(FILES ${compiled_sources} DESTINATION ${gptq_cmake_dir}/compiled)
