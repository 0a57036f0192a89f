# Apache Arrow's C++ library, which reads Parquet files. It comes as a CMake package (libarrow-dev and libparquet-dev,
# where a distribution has them) or inside the Python package pyarrow, of the Python that MXLM_PYTHON names, of the
# environment that scripts/setup --ci makes, or of python3. The library then stays where it is and is found by its path.
# Makes mxlm_arrow, a library to link, if a program with it builds and runs.
set(MXLM_ARROW AUTO CACHE STRING "Read Parquet files with Apache Arrow: AUTO (where it is), ON, OFF")
set_property(CACHE MXLM_ARROW PROPERTY STRINGS AUTO ON OFF)
set(MXLM_PYTHON "" CACHE FILEPATH "A Python that has the package pyarrow")

# Sets `result` to the folder of pyarrow, or to "".
function(mxlm_find_pyarrow result)
  set(${result} "" PARENT_SCOPE)
  foreach(python IN ITEMS ${MXLM_PYTHON} ${PROJECT_SOURCE_DIR}/build/ci-venv/bin/python python3)
    # Importing it would take a second.
    execute_process(COMMAND ${python} -c "import importlib.util as u; print(u.find_spec('pyarrow').submodule_search_locations[0])"
                    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
    if(status EQUAL 0 AND EXISTS "${folder}/include/parquet/file_reader.h")
      set(${result} "${folder}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# mxlm_import_arrow(TARGET FOLDER NAME): the library FOLDER/libNAME.so.N as the imported TARGET.
function(mxlm_import_arrow target folder name)
  file(GLOB found ${folder}/lib${name}.so ${folder}/lib${name}.so.*)
  list(FILTER found INCLUDE REGEX "/lib${name}\\.so(\\.[0-9]+)?$")
  if(found)
    list(GET found 0 library)
    add_library(${target} SHARED IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${library} INTERFACE_INCLUDE_DIRECTORIES ${folder}/include)
  endif()
endfunction()

function(mxlm_find_arrow)
  if(NOT MXLM_ARROW)
    message(STATUS "Parquet files: not read (MXLM_ARROW is ${MXLM_ARROW})")
    return()
  endif()
  set(libraries "")
  find_package(Arrow CONFIG QUIET)
  find_package(Parquet CONFIG QUIET)
  if(TARGET Arrow::arrow_shared AND TARGET Parquet::parquet_shared)
    set(libraries Parquet::parquet_shared Arrow::arrow_shared)
    set(where "the CMake package of Arrow ${Arrow_VERSION}")
  else()
    mxlm_find_pyarrow(folder)
    if(folder)
      mxlm_import_arrow(mxlm_libparquet "${folder}" parquet)
      mxlm_import_arrow(mxlm_libarrow "${folder}" arrow)
    endif()
    if(TARGET mxlm_libparquet AND TARGET mxlm_libarrow)
      set(libraries mxlm_libparquet mxlm_libarrow)
      set(where "${folder}")
    endif()
  endif()

  set(works FALSE)
  if(libraries)
    # Its headers may want another compiler, and the library another libstdc++. Once a place is enough.
    if(NOT MXLM_ARROW_CHECKED STREQUAL "${where}")
      try_run(MXLM_ARROW_RUNS MXLM_ARROW_COMPILES SOURCES ${PROJECT_SOURCE_DIR}/cmake/check_arrow.cpp
              LINK_LIBRARIES ${libraries} CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON
              COMPILE_OUTPUT_VARIABLE compile_output RUN_OUTPUT_VARIABLE run_output)
      if(MXLM_ARROW_COMPILES AND MXLM_ARROW_RUNS EQUAL 0)
        set(MXLM_ARROW_CHECKED "${where}" CACHE INTERNAL "")
      endif()
      unset(MXLM_ARROW_RUNS CACHE)
      unset(MXLM_ARROW_COMPILES CACHE)
    endif()
    if(MXLM_ARROW_CHECKED STREQUAL "${where}")
      set(works TRUE)
    endif()
  endif()

  if(works)
    message(STATUS "Parquet files: read with ${where}")
    add_library(mxlm_arrow INTERFACE)
    target_link_libraries(mxlm_arrow INTERFACE ${libraries})
  elseif(MXLM_ARROW STREQUAL "AUTO")
    if(libraries)
      message(STATUS "Parquet files: not read (a program with Arrow of ${where} does not build or run here)")
    else()
      message(STATUS "Parquet files: not read (Arrow is not here: install pyarrow, or libarrow-dev and libparquet-dev)")
    endif()
  else()
    message(FATAL_ERROR "MXLM_ARROW is ${MXLM_ARROW}, and Arrow's C++ library is not here or does not work with this "
                        "compiler: install pyarrow, or libarrow-dev and libparquet-dev.\n${compile_output}${run_output}")
  endif()
endfunction()

mxlm_find_arrow()
