# Open MPI: MXLM_MPI ON, OFF, or AUTO (where it is found). Sets MXLM_WITH_MPI; src/cluster/mpi alone links it.
set(MXLM_MPI AUTO CACHE STRING "Build for mpirun, with Open MPI: AUTO (where it is), ON, OFF")
set_property(CACHE MXLM_MPI PROPERTY STRINGS AUTO ON OFF)

set(MXLM_WITH_MPI OFF)
if(MXLM_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)  # the C interface, not the C++ one that is no more
  if(MXLM_MPI STREQUAL "AUTO")
    find_package(MPI QUIET COMPONENTS CXX)
  else()
    find_package(MPI REQUIRED COMPONENTS CXX)
  endif()
  set(MXLM_WITH_MPI ${MPI_CXX_FOUND})
endif()
if(MXLM_WITH_MPI)
  message(STATUS "MPI: version ${MPI_CXX_VERSION}")
else()
  message(STATUS "MPI: MXLM_MPI is ${MXLM_MPI}, none")
endif()
