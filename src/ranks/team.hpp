#pragma once

// Rank 0's side of a run on several ranks. Rank 0 tells the other ranks what to compute, gives them shards and takes
// their results. Only the shards of the queue are shared; data, journal, reduction and reports work as in a run of one
// process.

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

/// The other ranks of a run, as rank 0 sees them.
class Team {
 public:
  /// Tells the other ranks to load a model and does not wait for them. Borrows `ranks` and `model`.
  Team(Ranks& ranks, const LoadedModel& model, DType compute);

  /// Waits until all ranks have loaded the model. Throws Error if a rank could not load it or has another model, or,
  /// unless `mixed`, if a rank computes with another kind of backend than rank 0. Throws Interrupted.
  void gather(const std::string& model_sha256, const BackendKind& own, bool mixed);

  // These need gather() first.

  /// The number of workers of all other ranks.
  [[nodiscard]] size_t workers() const;
  /// The smallest of `own` and the other ranks' limits. A limit is one rank's share of its host's or device's memory.
  [[nodiscard]] uint64_t memory_limit(uint64_t own) const;
  [[nodiscard]] uint64_t device_limit(uint64_t own) const;
  /// The kind of backend of rank 0, together with the other kinds if ranks are mixed.
  [[nodiscard]] const BackendKind& backends() const { return backends_; }
  [[nodiscard]] int ranks() const { return ranks_.size(); }

  /// Gives the other ranks a job. `windows` are its windows; job.windows is not used.
  void begin(const JobNews& job, std::span<const Window> windows);
  /// Gives out the shards of that job until every rank has reported, as RoundHooks::elsewhere does. An error ends the
  /// queue.
  std::vector<WorkerOutcome> serve(const EngineJob& job, RoundQueue& rounds);
  /// What the last job took of the other ranks' GPUs.
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

/// Ends the other ranks with the exit code of rank 0.
void dismiss(Ranks& ranks, int code);

}  // namespace mxlm
