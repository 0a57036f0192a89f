#pragma once

// The finished shards of a run, kept in a folder so that a later run can go on. plan.json identifies the run,
// rounds.mxj holds the records of finished shards, and `lock` names the process that uses the folder. If several
// processes share the folder, each writes its own rounds.WORKER.mxj; shared_rounds.hpp explains how they share the
// shards.

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

/// A property that digits depend on. `name` is readable in messages.
struct JournalFact {
  std::string name, value;
};

/// Seconds and positions of shards, from which speeds follow.
struct JournalTimes {
  int64_t positions = 0;
  std::vector<VariantSeconds> seconds;  // [variant]
};

/// One thread at a time may use a journal.
class Journal {
 public:
  enum class Open : uint8_t {
    fresh,   // begins a journal; an existing journal is an Error
    resume,  // goes on with the existing journal, or begins a journal
    share,   // like `resume`, beside other processes that share the folder
  };

  /// Opens the journal of the run that `facts` describe and that has `windows` windows. Throws Error if the folder
  /// cannot be used, if another process uses it (naming the process), or if it holds another run (naming the
  /// differences).
  Journal(std::filesystem::path folder, Open open, std::vector<JournalFact> facts, size_t windows,
          FileCalls& calls = system_calls());
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  /// The lists of variants that were run together, as canonical text. Each list begins with the baseline ("").
  [[nodiscard]] const std::vector<std::vector<std::string>>& passes() const { return passes_; }
  /// Drops windows whose records do not hold `scored`[window] tokens of every variant, with a warning. Only a file that
  /// mxlm did not write has such records. Returns the number of dropped windows.
  size_t drop_misfits(std::span<const size_t> scored);
  /// Adds a list of variants to the plan and returns its index. In a shared folder only the first process can add a
  /// list, and the other processes must ask for the same list. Throws Error.
  size_t add_pass(std::vector<std::string> variants);

  /// Reads the records of all processes again. Reads the files that the folder lists, and those of `files` that exist,
  /// because the list of a folder on a network file system may be a minute old.
  void reread(const std::vector<std::string>& files);
  /// The name of the file that this process writes records to.
  [[nodiscard]] const std::string& records_name() const { return records_name_; }

  /// The journal's results of a pass, for each window.
  [[nodiscard]] std::vector<std::optional<WindowResult>> known(size_t pass, bool reversed) const;
  /// The number of windows that the journal holds of a pass.
  [[nodiscard]] size_t known_windows(size_t pass, bool reversed) const;
  [[nodiscard]] bool complete(size_t pass, bool reversed) const;
  [[nodiscard]] JournalTimes times(size_t pass, bool reversed) const;

  /// Writes a finished shard; `windows` are the window ids of `result`. Syncs the file if the last sync was more than a
  /// second ago. If somebody removed the folder, it is made again with all its records, unless processes share it.
  /// Never throws: after a failure nothing more is written, and failure() gives the reason.
  void append(size_t pass, bool reversed, std::vector<uint32_t> windows, const RoundResult& result);
  /// Syncs all records to the disk.
  void flush();
  /// Why the journal lacks some appended shards; nullopt if it lacks none.
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
  size_t good_bytes_ = 0;  // of the file of records, up to the end of the last whole record
  double synced_ = 0;      // the time of the last sync, on the monotonic clock
  bool unsynced_ = false;
  std::optional<std::string> failure_;
};

/// Whether a folder holds a journal.
bool holds_journal(const std::filesystem::path& folder);
/// Whether the folder's file of shards has more than a header.
bool holds_rounds(const std::filesystem::path& folder);
/// Whether a process has locked the folder.
bool journal_in_use(const std::filesystem::path& folder);

/// Removes the files of a journal, and its folder if it is then empty. Does nothing if a process uses the journal.
void remove_journal(const std::filesystem::path& folder);

}  // namespace mxlm
