# cmake -DOBJDUMP=... -DLINKER=... -DOBJECTS=a;b -DWORK=... -P: fails if an instruction set's instructions stand outside
# its kernels. An object has a section for every function, and objdump takes minutes for thousands of sections; so the
# sections are linked into one first.
if(NOT OBJDUMP OR NOT LINKER)
    message("skipped: there is no objdump or no linker")
    return()
endif()
find_program(AWK NAMES awk gawk mawk)
if(NOT AWK)
    message("skipped: there is no awk")
    return()
endif()
foreach(object IN LISTS OBJECTS)
    execute_process(
        COMMAND ${LINKER} --unresolved-symbols=ignore-all --defsym=__dso_handle=0 -e 0 -o ${WORK}/regions ${object}
        COMMAND_ERROR_IS_FATAL ANY)
    execute_process(
        COMMAND ${OBJDUMP} -d -C --no-show-raw-insn ${WORK}/regions
        COMMAND ${AWK} -f ${CMAKE_CURRENT_LIST_DIR}/check_regions.awk
        RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    message("${object}:\n${output}")
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "see above")
    endif()
endforeach()
