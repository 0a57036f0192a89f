// Replaces cluster/mpi in a build without MPI.

#include "cluster/ranks.hpp"

#include <cstdlib>
#include <string_view>

#include "base/error.hpp"

namespace mxlm {

std::unique_ptr<Ranks> join_ranks() {
  const char* const size = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (size != nullptr && std::string_view(size) != "1") {
    const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (rank != nullptr && std::string_view(rank) != "0") std::exit(1);  // rank 0 prints the error for all ranks
    fail(
        "mpirun started {} processes, but this build of mxlm has no MPI, so that each would run all of it alone; "
        "install "
        "libopenmpi-dev and build again (-DMXLM_MPI=ON), or give several processes one journal: --journal DIR "
        "--shared.",
        size);
  }
  return nullptr;
}

}  // namespace mxlm
