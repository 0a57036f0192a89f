#pragma once

// Lets several processes share the shards of a run through a folder alone, which may be on a network file system. The
// processes do not know one another, and each may die at any time. docs/architecture.md explains the files.

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

/// The claims of one pass over a list of variants. A claim is a file `claim.PASS.SHARD` that only one process can make.
/// The file names the process that computes the shard, is touched while that process lives, and finally names the file
/// that holds the records.
class SharedRounds {
 public:
  /// `records` is the file in `folder` that this process writes finished shards to. A claim expires when it has not
  /// been touched for `seconds` by the clock of the file system; then every process may take it. Throws Error if the
  /// folder cannot be written.
  SharedRounds(std::filesystem::path folder, size_t pass, bool reversed, std::string records, double seconds);
  /// Gives up the claims of unfinished shards.
  ~SharedRounds();
  SharedRounds(const SharedRounds&) = delete;
  SharedRounds& operator=(const SharedRounds&) = delete;

  /// Returns the cut of the run into shards that all processes use, which is the cut of the first process. Throws Error
  /// if the stored cut does not cover `windows` windows.
  std::vector<std::vector<Plan::Range>> agree(const std::vector<std::vector<Plan::Range>>& own, size_t windows);

  /// Tries to claim a shard. A claim with a date in the future counts from the time when it was first seen. A claim
  /// that is not a regular file is renamed. Throws Error.
  Claim claim(size_t round);
  /// Logs which process has claimed a shard that this process waits for, once for each holder.
  void tell_of_waiting(size_t round);
  /// Marks a claimed shard as finished; its records must be on the disk.
  void finished(size_t round);
  /// The files of records that the finished claims among the first `rounds` shards name.
  [[nodiscard]] std::vector<std::string> record_files(size_t rounds) const;
  /// Removes the claim of a finished shard whose record cannot be read, so that the shard is computed again.
  void forget(size_t round);

 private:
  void beat();
  [[nodiscard]] timespec now() const;
  [[nodiscard]] std::filesystem::path path_of(size_t round) const;

  std::filesystem::path folder_;
  std::string pass_;     // "0", or "0r" for the other order of sums
  std::string records_;  // the file of this process's records
  double seconds_;
  std::filesystem::path clock_path_;
  Descriptor clock_;  // a file of this process; touching it gives the time of the file system
  mutable std::mutex mutex_;
  std::map<size_t, Descriptor> held_;
  /// A claim with a date in the future, and the time when the claim was first seen.
  struct Ahead {
    timespec dated{}, seen{};
    ino_t file = 0;
  };
  [[nodiscard]] double age(size_t round, const struct stat& claim);
  [[nodiscard]] bool put_aside(size_t round, const std::filesystem::path& path);
  std::map<size_t, Ahead> ahead_;
  std::map<size_t, std::string> told_;  // by shard, the claim that was logged last
  bool ending_ = false;
  std::condition_variable end_;
  std::thread heart_;
};

/// A unique name of this process in a shared folder: host, process id and a number.
std::string worker_name(int number);

/// Whether `name` is the name of a worker's file of records.
bool is_records_name(const std::string& name);

}  // namespace mxlm
