# cmake -DNVCC=... -DARCH=80 -DSOURCE=... -DINCLUDES=a;b -DOUT=folder -P: compiles the kernels for one architecture.
# Warnings are errors; ptxas must find registers for everything, and the PTX hold the instructions that make it fast.

list(TRANSFORM INCLUDES PREPEND -I)
file(MAKE_DIRECTORY ${OUT})
execute_process(
    COMMAND ${NVCC} -std=c++20 --expt-relaxed-constexpr -Werror all-warnings
        -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow,-Werror -Xptxas -v,-warn-spills,-warn-lmem-usage
        ${INCLUDES} -arch=sm_${ARCH} --keep --keep-dir ${OUT} -c ${SOURCE} -o ${OUT}/kernels.o
    RESULT_VARIABLE status OUTPUT_VARIABLE messages ERROR_VARIABLE messages)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "nvcc does not compile ${SOURCE} for sm_${ARCH}:\n${messages}")
endif()

# What ptxas says of each kernel: its name, its stack and spills, its registers.
string(REGEX MATCHALL "Compiling entry function '[^']+'" kernels "${messages}")
string(REGEX MATCHALL " 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" clean "${messages}")
string(REGEX MATCHALL "Used [0-9]+ registers" registers "${messages}")
list(LENGTH kernels kernel_count)
list(LENGTH clean clean_count)
list(LENGTH registers registers_count)
if(kernel_count EQUAL 0 OR NOT clean_count EQUAL kernel_count OR NOT registers_count EQUAL kernel_count)
    message(FATAL_ERROR "sm_${ARCH}: of ${kernel_count} kernels, ${clean_count} need no stack:\n${messages}")
endif()

# The kernels of tensor cores are launched with two blocks a multiprocessor, for which any number of registers will do;
# with so few as here, blocks of the other kernels fill a multiprocessor by half.
set(most 0)
foreach(kernel used IN ZIP_LISTS kernels registers)
    string(REGEX MATCH "[0-9]+" used ${used})
    set(limit 128)
    if(kernel MATCHES "decode_kernel|attend_kernel")
        set(limit 255)
    endif()
    if(used GREATER limit)
        message(FATAL_ERROR "sm_${ARCH}: ${used} registers are more than ${limit}. ${kernel}")
    endif()
    if(used GREATER most)
        set(most ${used})
    endif()
endforeach()
if(messages MATCHES "bytes smem")
    message(FATAL_ERROR "sm_${ARCH}: a kernel has shared memory that its launch does not ask for:\n${messages}")
endif()

file(GLOB ptx ${OUT}/*.ptx)
file(READ "${ptx}" ptx)
# nvcc makes a trap, without a warning, of device code that takes the address of a constant of the host.
if(ptx MATCHES "\n[ \t]*trap;")
    message(FATAL_ERROR "sm_${ARCH}: the PTX holds a trap, in the place of code that only the host can run")
endif()
set(counts "")
foreach(instruction
        mma.sync.aligned.m16n8k16.row.col.f32.f16 mma.sync.aligned.m16n8k16.row.col.f32.bf16
        ldmatrix.sync.aligned.m8n8.x4 ldmatrix.sync.aligned.m8n8.x4.trans cp.async.cg.shared.global cp.async.wait_group)
    string(REPLACE "." "[.]" pattern ${instruction})
    string(REGEX MATCHALL "${pattern}" found "${ptx}")
    list(LENGTH found count)
    if(count EQUAL 0)
        message(FATAL_ERROR "sm_${ARCH}: no ${instruction} in the PTX")
    endif()
    string(APPEND counts "; ${count} ${instruction}")
endforeach()
file(REMOVE_RECURSE ${OUT})
message(STATUS "sm_${ARCH}: ${kernel_count} kernels without spills, ${most} registers at most${counts}")
