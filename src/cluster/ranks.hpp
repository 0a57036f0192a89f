#pragma once

// The processes that one mpirun starts: messages between them, and which of them share a host. MPI types stay inside
// this folder; without_mpi/ replaces mpi/ in a build without MPI.

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mxlm {

struct RankMessage {
  int from = 0;
  int kind = 0;  // the sender and the receiver agree on its meaning
  std::vector<std::byte> bytes;
};

/// The processes of one run, the ranks 0 to size() - 1; rank 0 leads. One thread at a time may use it. Messages between
/// two ranks arrive in the order of sending.
class Ranks {
 public:
  Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  virtual ~Ranks() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] bool leads() const { return rank() == 0; }
  /// The name of this host, its ranks, the index of this rank among them, and the first rank of the host.
  [[nodiscard]] virtual const std::string& host() const = 0;
  [[nodiscard]] virtual int ranks_here() const = 0;
  [[nodiscard]] virtual int number_here() const = 0;
  [[nodiscard]] virtual int first_here() const = 0;
  /// This rank's share of the processors that it may use, when ranks of this host with the same processors divide them
  /// evenly; 1 = all of them.
  [[nodiscard]] virtual double processor_share() const = 0;

  /// Sends up to 2^31 - 1 bytes. May wait until the other rank receives, unless the message is short.
  virtual void send(int to, int kind, std::span<const std::byte> bytes) = 0;
  /// Returns a message that has arrived; does not wait.
  virtual std::optional<RankMessage> receive() = 0;
  /// Called by every rank: all ranks receive the bytes of rank 0. Waits for the other ranks.
  virtual void broadcast(std::vector<std::byte>& bytes) = 0;
};

/// Joins this process with the processes that mpirun started beside it; nullptr if there are none. Throws Error if
/// mpirun started a build without MPI several times. main calls it once.
std::unique_ptr<Ranks> join_ranks();

}  // namespace mxlm
