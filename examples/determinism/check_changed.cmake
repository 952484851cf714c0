# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# cmake -D saved=FILE -P check_changed.cmake -- COMMAND...: changes one digit of a digest in a copy of FILE and demands
# that COMMAND... --check COPY finds it and ends with 1.
set(command)
set(after FALSE)
foreach(i RANGE 1 ${CMAKE_ARGC})
  if(after AND NOT "${CMAKE_ARGV${i}}" STREQUAL "")
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(after TRUE)
  endif()
endforeach()

file(READ ${saved} text)
set(line "digest T=1 end-to-end: ")
if(NOT text MATCHES "${line}([0-9a-f])")
  message(FATAL_ERROR "${saved} has no line \"${line}\"")
endif()
if(CMAKE_MATCH_1 STREQUAL "0")
  set(digit 1)
else()
  set(digit 0)
endif()
string(REPLACE "${line}${CMAKE_MATCH_1}" "${line}${digit}" text "${text}")
file(WRITE ${saved}.changed "${text}")

execute_process(COMMAND ${command} --check ${saved}.changed RESULT_VARIABLE code OUTPUT_VARIABLE output)
if(NOT code EQUAL 1 OR NOT output MATCHES "unlike [^\n]*: digest T=1 end-to-end is ")
  message(FATAL_ERROR "A changed digest was not found. Exit code ${code}, output:\n${output}")
endif()
