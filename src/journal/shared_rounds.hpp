#pragma once

// Rounds that several processes share through a folder alone, which may lie on a network file system: no process knows
// of another, and any may die. docs/architecture.md says how.

#include <sys/stat.h>
#include <sys/types.h>

#include <condition_variable>
#include <ctime>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/plan.hpp"
#include "engine/round.hpp"
#include "io/descriptor.hpp"

namespace mxlm {

/// One pass over a list of variants. A claim is a file `claim.SEGMENT.ROUND` that only one process can make; it says
/// who has the round, is touched while that process lives, and says in the end which file holds the records.
class SharedRounds {
 public:
  /// Claims of this process name `records` as the file, in `folder`, that finished rounds go to. A claim that has not
  /// been touched for `seconds`, by the clock of the file system, is anybody's. Throws Error if the folder cannot be
  /// written.
  SharedRounds(std::filesystem::path folder, size_t pass, bool reversed, std::string records, double seconds);
  /// Gives up what is claimed and not finished.
  ~SharedRounds();
  SharedRounds(const SharedRounds&) = delete;
  SharedRounds& operator=(const SharedRounds&) = delete;

  /// How all processes cut the run into rounds: as the first of them wanted to. Throws Error if what is there does not
  /// cut `windows` windows.
  std::vector<std::vector<Plan::Range>> agree(const std::vector<std::vector<Plan::Range>>& own, size_t windows);

  /// Tries to claim a round. A claim that is dated ahead of the file system's clock counts from when it was seen first;
  /// what is no regular file is put aside. Throws Error.
  Claim claim(size_t round);
  /// Says in the log who has a round that this process waits for, once for each holder.
  void tell_of_waiting(size_t round);
  /// The records of a claimed round are on the disk.
  void finished(size_t round);
  /// The files that finished rounds among the first `rounds` name.
  [[nodiscard]] std::vector<std::string> record_files(size_t rounds) const;
  /// A round that was finished has to be done again, for its record cannot be read.
  void forget(size_t round);

 private:
  void beat();
  [[nodiscard]] timespec now() const;
  [[nodiscard]] std::filesystem::path path_of(size_t round) const;

  std::filesystem::path folder_;
  std::string pass_;     // "0", "0r": a pass, in the other order of sums
  std::string records_;  // where this process's results go
  double seconds_;
  std::filesystem::path clock_path_;
  Descriptor clock_;  // a file of this process, whose time is the file system's when it has been touched
  mutable std::mutex mutex_;
  std::map<size_t, Descriptor> held_;
  /// A claim whose date lies ahead, as it was when it was seen first.
  struct Ahead {
    timespec dated{}, seen{};
    ino_t file = 0;
  };
  [[nodiscard]] double age(size_t round, const struct stat& claim);
  [[nodiscard]] bool put_aside(size_t round, const std::filesystem::path& path);
  std::map<size_t, Ahead> ahead_;
  std::map<size_t, std::string> told_;  // whom of
  bool ending_ = false;
  std::condition_variable end_;
  std::thread heart_;
};

/// A name of this process in a shared folder: host, process and a number, so that no other has it.
std::string worker_name(int number);

/// Whether a file name is one that records of a worker go to.
bool is_records_name(const std::string& name);

}  // namespace mxlm
