// Ranks with Open MPI.

#include "cluster/ranks.hpp"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "base/error.hpp"

namespace mxlm {
namespace {

constexpr size_t kMostBytes = std::numeric_limits<int>::max();

/// The sum over the processors that this rank may use of its even share in each, divided by their number.
double share_of_processors(MPI_Comm here, int ranks_here) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) return 1.0 / ranks_here;
  std::vector<cpu_set_t> all(static_cast<size_t>(ranks_here));
  MPI_Allgather(&mine, sizeof(mine), MPI_BYTE, all.data(), sizeof(mine), MPI_BYTE, here);
  double share = 0, count = 0;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mine)) continue;
    const auto users = std::count_if(all.begin(), all.end(), [&](const cpu_set_t& s) { return CPU_ISSET(cpu, &s); });
    share += 1.0 / static_cast<double>(std::max<std::ptrdiff_t>(users, 1));
    count += 1;
  }
  return count > 0 ? share / count : 1.0 / ranks_here;
}

class MpiRanks final : public Ranks {
 public:
  MpiRanks() {
    // One thread at a time uses MPI, but not always the same thread: during a run it is the leader's or the follower's
    // own thread.
    int provided = MPI_THREAD_SINGLE;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    if (provided < MPI_THREAD_SERIALIZED && size_ > 1) {
      fail("This Open MPI was built without threads (MPI_THREAD_SERIALIZED), which mxlm needs; use Debian's.");
    }
    MPI_Comm here = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &number_here_);
    MPI_Comm_size(here, &ranks_here_);
    MPI_Allreduce(&rank_, &first_here_, 1, MPI_INT, MPI_MIN, here);
    share_ = share_of_processors(here, ranks_here_);
    MPI_Comm_free(&here);
    std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
    int length = 0;
    MPI_Get_processor_name(name.data(), &length);
    host_.assign(name.data(), static_cast<size_t>(length));
  }
  ~MpiRanks() override { MPI_Finalize(); }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  [[nodiscard]] const std::string& host() const override { return host_; }
  [[nodiscard]] int ranks_here() const override { return ranks_here_; }
  [[nodiscard]] int number_here() const override { return number_here_; }
  [[nodiscard]] int first_here() const override { return first_here_; }
  [[nodiscard]] double processor_share() const override { return share_; }

  void send(int to, int kind, std::span<const std::byte> bytes) override {
    if (bytes.size() > kMostBytes) fail("A message of {} MB is too long for MPI.", bytes.size() >> 20);
    MPI_Send(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, kind, MPI_COMM_WORLD);
  }

  std::optional<RankMessage> receive() override {
    int there = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there, &status);
    if (there == 0) return std::nullopt;
    int count = 0;
    MPI_Get_count(&status, MPI_BYTE, &count);
    RankMessage message{.from = status.MPI_SOURCE, .kind = status.MPI_TAG, .bytes = {}};
    message.bytes.resize(static_cast<size_t>(count));
    MPI_Recv(message.bytes.data(), count, MPI_BYTE, message.from, message.kind, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return message;
  }

  void broadcast(std::vector<std::byte>& bytes) override {
    auto size = static_cast<uint64_t>(bytes.size());
    MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    bytes.resize(size);
    for (size_t at = 0; at < size;) {
      const size_t piece = std::min(kMostBytes, size - at);
      MPI_Bcast(bytes.data() + at, static_cast<int>(piece), MPI_BYTE, 0, MPI_COMM_WORLD);
      at += piece;
    }
  }

 private:
  int rank_ = 0, size_ = 1, ranks_here_ = 1, number_here_ = 0, first_here_ = 0;
  double share_ = 1;
  std::string host_;
};

}  // namespace

std::unique_ptr<Ranks> join_ranks() {
  // A process that runs alone starts nothing of MPI. mpirun sets the first variable, srun --mpi=pmix the second; MPI
  // itself knows the number of ranks.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr && std::getenv("PMIX_RANK") == nullptr) return nullptr;
  auto ranks = std::make_unique<MpiRanks>();
  if (ranks->size() == 1) return nullptr;
  return ranks;
}

}  // namespace mxlm
