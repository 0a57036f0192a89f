#pragma once

// The processes that one mpirun starts: messages between them, and who shares a host. No MPI type is seen outside this
// folder; without_mpi/ stands in for mpi/ in a build without it.

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mxlm {

struct RankMessage {
  int from = 0;
  int kind = 0;  // the affair of those who talk
  std::vector<std::byte> bytes;
};

/// The processes of one run, "ranks" 0 to size() - 1, of which 0 leads. Used by one thread at a time; messages between
/// two ranks arrive in the order in which they were sent.
class Ranks {
 public:
  Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  virtual ~Ranks() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] bool leads() const { return rank() == 0; }
  /// This host, as it calls itself; its ranks, which of them this one is, and the rank that is the first of them.
  [[nodiscard]] virtual const std::string& host() const = 0;
  [[nodiscard]] virtual int ranks_here() const = 0;
  [[nodiscard]] virtual int number_here() const = 0;
  [[nodiscard]] virtual int first_here() const = 0;
  /// Of the processors that this rank may run on, the share that is its own when ranks of this host that may run on the
  /// same ones divide them evenly: 1 = all.
  [[nodiscard]] virtual double processor_share() const = 0;

  /// Up to 2^31 - 1 bytes. May wait until the other rank receives, unless they are few.
  virtual void send(int to, int kind, std::span<const std::byte> bytes) = 0;
  /// A message that has arrived; does not wait.
  virtual std::optional<RankMessage> receive() = 0;
  /// Every rank calls it: all get the bytes of rank 0. Waits for the others.
  virtual void broadcast(std::vector<std::byte>& bytes) = 0;
};

/// Joins this process with those that mpirun started beside it; nullptr where there are none. Throws Error where a
/// build without MPI is started several times by mpirun. To be called once, by main.
std::unique_ptr<Ranks> join_ranks();

}  // namespace mxlm
