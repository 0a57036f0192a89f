# Installs the library into a folder of its own, builds tests/library/consumer against that and nothing else, and runs
# it. usage: cmake -DBUILD=... -DSOURCE=... -DWORK=... -DCOMPILER=... -DFLAGS=... -P consumer.cmake
file(REMOVE_RECURSE ${WORK})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --component library --prefix ${WORK}/prefix
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
# Moved afterwards, so that no path of the installation may be absolute.
file(RENAME ${WORK}/prefix ${WORK}/moved)
# A copy outside the tree: nothing of the project can be found by a relative path.
file(COPY ${SOURCE}/main.cpp ${SOURCE}/CMakeLists.txt DESTINATION ${WORK}/source)
execute_process(COMMAND ${CMAKE_COMMAND} -S ${WORK}/source -B ${WORK}/build -DCMAKE_PREFIX_PATH=${WORK}/moved
                        -DCMAKE_CXX_COMPILER=${COMPILER} "-DCMAKE_CXX_FLAGS=${FLAGS}"
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
execute_process(COMMAND ${WORK}/build/consumer COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE said ERROR_VARIABLE errors)
if(NOT said MATCHES "^baseline [0-9.]+ 0\nmlp=mxfp4_e2m1 [0-9.]+ 0\\.[0-9]+\n'mxfp3'[^\n]*\n$" OR errors)
  message(FATAL_ERROR "The program said:\n${said}${errors}")
endif()
# Only the API can be seen.
execute_process(COMMAND nm -DC --defined-only ${WORK}/moved/${LIBRARY} COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE names)
string(REGEX MATCHALL "mxlm::[^\n]*" ours "${names}")
list(FILTER ours EXCLUDE REGEX "^mxlm::(api::|Error|UsageError|Interrupted)")
if(ours)
  message(FATAL_ERROR "libmxlm shows what is not of its API: ${ours}")
endif()
file(REMOVE_RECURSE ${WORK})
