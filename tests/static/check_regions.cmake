# cmake -DOBJDUMP=... -DOBJECTS=a;b -P: fails if an instruction set's instructions stand outside its kernels.
if(NOT OBJDUMP)
    message("skipped: there is no objdump")
    return()
endif()
find_program(AWK NAMES awk gawk mawk)
if(NOT AWK)
    message("skipped: there is no awk")
    return()
endif()
foreach(object IN LISTS OBJECTS)
    execute_process(
        COMMAND ${OBJDUMP} -d -C --no-show-raw-insn ${object}
        COMMAND ${AWK} -f ${CMAKE_CURRENT_LIST_DIR}/check_regions.awk
        RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    message("${object}:\n${output}")
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "see above")
    endif()
endforeach()
