# mxlm_embed(TARGET NAME FILE): the bytes of FILE become the function mxlm::embedded::NAME() of TARGET, which
# src/io/embedded.hpp declares. The assembler copies the file, so that megabytes cost no compile time.
function(mxlm_embed target name file)
  set(EMBED_NAME ${name})
  set(EMBED_FILE ${PROJECT_SOURCE_DIR}/${file})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/embedded/${name}.cpp)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/embed.cpp.in ${source} @ONLY)
  # Apart from files that are compiled together, which lose what an object depends on.
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS ${EMBED_FILE} SKIP_UNITY_BUILD_INCLUSION ON)
  target_sources(${target} PRIVATE ${source})
endfunction()
