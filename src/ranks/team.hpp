#pragma once

// Rank 0's side of a run on several ranks: it tells the others what to compute, hands rounds to them and takes their
// results, so that only the queue's rounds are shared and everything else (data, journal, reduction, reports) stays
// where it is in a run of one process.

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/ranks.hpp"
#include "devices/devices.hpp"
#include "devices/records.hpp"
#include "engine/round.hpp"
#include "load/load.hpp"
#include "ranks/messages.hpp"

namespace mxlm {

struct EngineJob;
class RoundQueue;

class Team {
 public:
  /// Tells the other ranks to load a model, which they do while this one goes on. Both are borrowed.
  Team(Ranks& ranks, const LoadedModel& model, DType compute);

  /// Waits until all have loaded it. Throws Error if one could not, if its model is not the same, or if it computes
  /// with another kind of backend than this rank's, unless they may be `mixed`; Interrupted.
  void gather(const std::string& model_sha256, const BackendKind& own, bool mixed);

  // After gather:
  /// Of all other ranks.
  [[nodiscard]] size_t workers() const;
  /// The least of `own` and the other ranks' limits, each a rank's part of its host's or device's.
  [[nodiscard]] uint64_t memory_limit(uint64_t own) const;
  [[nodiscard]] uint64_t device_limit(uint64_t own) const;
  /// This rank's kind of backend, and the others' if they are mixed.
  [[nodiscard]] const BackendKind& backends() const { return backends_; }
  [[nodiscard]] int ranks() const { return ranks_.size(); }

  /// Gives the others a job, whose windows stand beside it.
  void begin(const JobNews& job, std::span<const Window> windows);
  /// Hands out that job's rounds until every rank has said that it is done: RoundHooks::elsewhere. What goes wrong ends
  /// the queue.
  std::vector<WorkerOutcome> serve(const EngineJob& job, RoundQueue& rounds);
  /// What the last job took of the others' GPUs.
  [[nodiscard]] const std::vector<DeviceUse>& devices() const { return devices_; }

 private:
  class Serving;
  void tell_all(TeamTalk kind);

  Ranks& ranks_;                    // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  const LoadedModel& model_;        // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  std::vector<ReadyNews> members_;  // [rank - 1]
  BackendKind backends_;
  std::vector<DeviceUse> devices_;
};

/// The end of the program on rank 0: the others end with the same exit code.
void dismiss(Ranks& ranks, int code);

}  // namespace mxlm
