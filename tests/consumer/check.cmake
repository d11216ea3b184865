# cmake -DCONSUMER=... -DWORK=... ... -P: configures, builds and runs the project CONSUMER in the folder WORK, with gptq
# installed into WORK/prefix; the project that has gptq as a subdirectory is given GPTQ_SOURCE and uses that.
function(run)
    execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${GPTQ_BINARY} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${CONSUMER} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_PREFIX_PATH=${WORK}/prefix -DGPTQ_SOURCE=${GPTQ_SOURCE})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
run(${WORK}/build/model_consumer)
if(EXISTS ${WORK}/build/compiled_consumer)
    run(${WORK}/build/compiled_consumer)
endif()
