# cmake -DNVCC=... -DSOURCE=... -DINCLUDES=a;b -DOUT=file.ptx -P: compiles the kernels to PTX, once for all architectures.
# Warnings are errors, and the PTX holds the instructions that make it fast.

list(TRANSFORM INCLUDES PREPEND -I)
execute_process(
    COMMAND ${NVCC} -std=c++20 --expt-relaxed-constexpr -Werror all-warnings ${INCLUDES} -arch=compute_80 --ptx
        ${SOURCE} -o ${OUT}
    RESULT_VARIABLE status OUTPUT_VARIABLE messages ERROR_VARIABLE messages)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "nvcc does not compile ${SOURCE}:\n${messages}")
endif()
file(READ "${OUT}" ptx)
# nvcc makes a trap, without a warning, of device code that takes the address of a constant of the host.
if(ptx MATCHES "\n[ \t]*trap;")
    message(FATAL_ERROR "the PTX holds a trap, in the place of code that only the host can run")
endif()
set(counts "")
foreach(instruction
        mma.sync.aligned.m16n8k16.row.col.f32.f16 mma.sync.aligned.m16n8k16.row.col.f32.bf16
        ldmatrix.sync.aligned.m8n8.x4 ldmatrix.sync.aligned.m8n8.x4.trans cp.async.cg.shared.global cp.async.wait_group)
    string(REPLACE "." "[.]" pattern ${instruction})
    string(REGEX MATCHALL "${pattern}" found "${ptx}")
    list(LENGTH found count)
    if(count EQUAL 0)
        message(FATAL_ERROR "no ${instruction} in the PTX")
    endif()
    string(APPEND counts "; ${count} ${instruction}")
endforeach()
message(STATUS "PTX${counts}")
