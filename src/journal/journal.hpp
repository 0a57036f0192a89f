#pragma once

// What a run has finished, kept in a folder so that a later one can go on: plan.json says what the run is, rounds.mxj
// holds a record for each finished round, `lock` who works on it. Where several processes share the folder, each has a
// rounds.WORKER.mxj of its own; shared_rounds.hpp says how they share the rounds.

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/descriptor.hpp"
#include "io/file_calls.hpp"
#include "journal/records.hpp"

namespace mxlm {

/// One thing that digits depend on: what it is, in words for a message, and its value.
struct JournalFact {
  std::string name, value;
};

/// Seconds and positions of rounds, for speeds.
struct JournalTimes {
  int64_t positions = 0;
  std::vector<VariantSeconds> seconds;  // [variant]
};

/// Used by one thread at a time.
class Journal {
 public:
  enum class Open : uint8_t {
    fresh,   // the folder holds no journal yet; an Error if it does
    resume,  // goes on with the one that is there; a new one where none is
    share,   // the same, beside other processes that do so too
  };

  /// Opens the journal of a run that is described by `facts`, windows counted from 0 to `windows` - 1. Throws Error if
  /// the folder cannot be used, another process works on it (naming it), or it holds another run (naming what differs).
  Journal(std::filesystem::path folder, Open open, std::vector<JournalFact> facts, size_t windows,
          FileCalls& calls = system_calls());
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  /// Lists of variants, as canonical text, that were run together, the baseline ("") first in each.
  [[nodiscard]] const std::vector<std::vector<std::string>>& passes() const { return passes_; }
  /// Forgets windows whose records do not hold `scored`[window] tokens of every variant, with a warning: those of a
  /// file that this program did not write. How many they were.
  size_t drop_misfits(std::span<const size_t> scored);
  /// Writes down a new list. In a shared folder only the first process can, and the others must want the same. Throws
  /// Error.
  size_t add_pass(std::vector<std::string> variants);

  /// Reads again what is there, by other processes too: besides the files that the folder lists, which on a network
  /// file system may be a minute behind, those of `files` that exist.
  void reread(const std::vector<std::string>& files);
  /// The name of the file that this process's records go to.
  [[nodiscard]] const std::string& records_name() const { return records_name_; }

  /// What is there of a pass: [window].
  [[nodiscard]] std::vector<std::optional<WindowResult>> known(size_t pass, bool reversed) const;
  /// How many windows are there of it.
  [[nodiscard]] size_t known_windows(size_t pass, bool reversed) const;
  [[nodiscard]] bool complete(size_t pass, bool reversed) const;
  [[nodiscard]] JournalTimes times(size_t pass, bool reversed) const;

  /// Writes a finished round down; `windows` are those of `result`. What finished more than a second before is on the
  /// disk then. A folder that somebody removed is made again, with all that it held, unless processes share it. Never
  /// throws: after a failure nothing more is written, and failure() says why.
  void append(size_t pass, bool reversed, std::vector<uint32_t> windows, const RoundResult& result);
  /// Puts everything on the disk.
  void flush();
  /// Why the journal misses what was appended, if it does.
  [[nodiscard]] const std::optional<std::string>& failure() const { return failure_; }

 private:
  using Key = std::pair<size_t, bool>;  // pass, reversed
  void make_folder() const;
  void lock(bool shared);
  void read_plan(const std::vector<JournalFact>& facts);
  void write_plan();
  bool write_first_plan();
  [[nodiscard]] std::string plan_text() const;
  void read_rounds(std::vector<std::string> files = {});
  size_t read_file(const std::filesystem::path& path, bool own);
  void open_rounds();
  void open_own_rounds();
  [[nodiscard]] bool is_gone() const;
  void restore();
  void write(std::span<const std::byte> record);
  void sync(double after_seconds);
  void fail_later(const char* action, int error);

  std::filesystem::path folder_;
  FileCalls& calls_;  // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  bool shared_ = false;
  std::string records_name_;
  std::optional<Descriptor> lock_, rounds_;
  std::vector<JournalFact> facts_;
  std::vector<std::vector<std::string>> passes_;
  size_t windows_;
  std::map<Key, std::map<uint32_t, WindowResult>> known_;
  std::map<Key, JournalTimes> times_;
  size_t good_bytes_ = 0;  // of the rounds' file
  double synced_ = 0;      // when, on the monotonic clock
  bool unsynced_ = false;
  std::optional<std::string> failure_;
};

/// Whether a folder holds a journal; whether its file of rounds has more than a header; whether a process works on it.
bool holds_journal(const std::filesystem::path& folder);
bool holds_rounds(const std::filesystem::path& folder);
bool journal_in_use(const std::filesystem::path& folder);

/// Removes a journal's files and its folder, if nothing else is in it and no process works on it.
void remove_journal(const std::filesystem::path& folder);

}  // namespace mxlm
