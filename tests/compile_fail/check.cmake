# cmake -DCXX=... -DSOURCE=... -DINCLUDES=a;b -P: see CMakeLists.txt in this folder.
file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// expect: (.+)$")
    message(FATAL_ERROR "${SOURCE} does not begin with '// expect: <regular expression>'")
endif()
set(expected "${CMAKE_MATCH_1}")

set(wrong "")
file(STRINGS ${SOURCE} flag_line REGEX "^// flags: " LIMIT_COUNT 1)
if(flag_line MATCHES "^// flags: (.+)$")
    separate_arguments(wrong UNIX_COMMAND "${CMAKE_MATCH_1}")
endif()

list(TRANSFORM INCLUDES PREPEND -I)
set(compile ${CXX} -std=c++20 -fsyntax-only ${INCLUDES} ${SOURCE})

execute_process(COMMAND ${compile} -DCORRECT RESULT_VARIABLE status ERROR_VARIABLE messages)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "With -DCORRECT it must compile, but:\n${messages}")
endif()

execute_process(COMMAND ${compile} ${wrong} RESULT_VARIABLE status ERROR_VARIABLE messages)
if(status EQUAL 0)
    message(FATAL_ERROR "It compiled, but must not")
endif()
if(NOT messages MATCHES "${expected}")
    message(FATAL_ERROR "The compiler does not say '${expected}', but:\n${messages}")
endif()
