# Compiler options that hold everywhere, and one function to declare a room (a folder of src/ as a static library).

add_library(mxlm_options INTERFACE)
target_include_directories(mxlm_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
# Of clang: what clang-tidy would take a fifth of its time for.
target_compile_options(mxlm_options INTERFACE "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wreserved-identifier>")
target_compile_options(mxlm_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wnon-virtual-dtor;-Woverloaded-virtual;-Werror;-ffp-contract=off>"
  # Device code rounds where the host's does: a multiplication and an addition are two roundings.
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;--fmad=false;-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
if(CMAKE_UNITY_BUILD)
  # Where files are compiled together, g++ takes a class in an anonymous namespace for a header's.
  target_compile_options(mxlm_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endif()
target_compile_definitions(mxlm_options INTERFACE MXLM_VERSION="${PROJECT_VERSION}")
if(MXLM_SANITIZE)
  target_compile_options(mxlm_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${MXLM_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>"
    # With sanitizers g++ takes the standard library's std::function for uninitialised.
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
  target_link_options(mxlm_options INTERFACE -fsanitize=${MXLM_SANITIZE})
endif()

# mxlm_room(NAME USES rooms and libraries...): the sources of this folder become the static library mxlm_NAME, which may
# see only what USES names, so that the linker keeps the table of rooms in docs/architecture.md true.
function(mxlm_room name)
  cmake_parse_arguments(ROOM "" "FOLDER" "USES" ${ARGN})
  if(NOT ROOM_FOLDER)
    set(ROOM_FOLDER ${name})
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${ROOM_FOLDER}/*.cpp)
  if(sources)
    add_library(mxlm_${name} STATIC ${sources})
    target_link_libraries(mxlm_${name} PUBLIC mxlm_options ${ROOM_USES})
  else()
    add_library(mxlm_${name} INTERFACE)
    target_link_libraries(mxlm_${name} INTERFACE mxlm_options ${ROOM_USES})
  endif()
endfunction()

# mxlm_precompile(TARGET HEADERS...): reads these headers once for all of a target's files; half of the time to build was
# spent on them. Only a saving: a file still includes what it uses (clang-tidy compiles without).
function(mxlm_precompile target)
  list(TRANSFORM ARGN REPLACE "(.+)" "$<$<COMPILE_LANGUAGE:CXX>:<\\1$<ANGLE-R>>")
  target_precompile_headers(${target} PRIVATE ${ARGN})
endfunction()
set(mxlm_common_headers algorithm array cmath cstdint cstring filesystem functional map memory optional span string
                        string_view vector fmt/format.h)
