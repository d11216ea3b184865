# cmake -DFILE=... -DLINES=... -P: fails unless FILE has fewer than LINES lines.
file(READ ${FILE} content)
string(REGEX MATCHALL "\n" newlines "${content}")
list(LENGTH newlines count)
if(count EQUAL 0 OR count GREATER_EQUAL LINES)
    message(FATAL_ERROR "${FILE} has ${count} lines; it must have fewer than ${LINES}")
endif()
