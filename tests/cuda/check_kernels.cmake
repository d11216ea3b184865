# cmake -DPTXAS=... -DARCH=80 -DPTX=file.ptx -DOUT=file.cubin -P: assembles the kernels for one architecture. Warnings are
# errors, and there are registers for everything.

execute_process(
    COMMAND ${PTXAS} -v -warn-spills -warn-lmem-usage -Werror -arch=sm_${ARCH} ${PTX} -o ${OUT}
    RESULT_VARIABLE status OUTPUT_VARIABLE messages ERROR_VARIABLE messages)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "ptxas does not assemble ${PTX} for sm_${ARCH}:\n${messages}")
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
message(STATUS "sm_${ARCH}: ${kernel_count} kernels without spills, ${most} registers at most")
