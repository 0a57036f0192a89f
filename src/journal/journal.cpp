#include "journal/journal.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <limits>
#include <span>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/file.hpp"
#include "journal/identity.hpp"
#include "journal/shared_rounds.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPlan = "plan.json";
constexpr const char* kRounds = "rounds.mxj";
constexpr const char* kLock = "lock";
// A finished shard syncs the journal to the disk if the last sync is at least this long ago.
constexpr double kSyncSeconds = 1;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string this_process() {
  char host[256] = "unknown";
  gethostname(host, sizeof(host) - 1);
  char when[64] = "";
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  std::strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&time, &utc));
  return fmt::format("process {} on {} since {}", getpid(), host, when);
}

std::string shown(const std::string& value) { return value.empty() ? "nothing" : quote(value); }

}  // namespace

bool holds_journal(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kPlan, ignored);
}

bool holds_rounds(const fs::path& folder) {
  std::error_code error;
  const auto size = fs::file_size(folder / kRounds, error);
  return !error && size > journal_header().size();
}

bool journal_in_use(const fs::path& folder) {
  const int fd = ::open((folder / kLock).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const Descriptor lock(fd);
  return flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

void remove_journal(const fs::path& folder) {
  std::error_code ignored;
  // Another process may have begun to use the folder since this process closed it. Such a process checks that its lock
  // file still has a name.
  const int fd = ::open((folder / kLock).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  const Descriptor lock(fd, /*owned=*/fd >= 0);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return;
  for (const char* name : {kPlan, kRounds, kLock}) fs::remove(folder / name, ignored);
  fs::remove(folder, ignored);
}

Journal::Journal(fs::path folder, Open open, std::vector<JournalFact> facts, size_t windows, FileCalls& calls)
    : folder_(std::move(folder)), calls_(calls), windows_(windows) {
  if (windows > std::numeric_limits<uint32_t>::max()) fail("A journal holds no more than 2^32 windows.");
  shared_ = open == Open::share;
  make_folder();
  lock(shared_);
  if (holds_journal(folder_)) {
    if (open == Open::fresh) {
      fail("{} already holds the journal of a run; give --resume to go on with it, or name another folder.",
           quote(folder_.native()));
    }
    read_plan(facts);
    read_rounds();
  } else {
    // A run that ended before it wrote a plan leaves only a header, which may be reused.
    if (holds_rounds(folder_)) {
      fail("{} holds shards, but no {} that says which run they belong to; name another folder.",
           quote(folder_.native()), kPlan);
    }
    facts_ = std::move(facts);
  }
  open_rounds();
}

Journal::~Journal() { sync(0); }

void Journal::make_folder() const {
  std::error_code error;
  const fs::path parent = folder_.parent_path();
  if (!parent.empty()) fs::create_directories(parent, error);
  if (!error && mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) error = {errno, std::generic_category()};
  if (!error && !fs::is_directory(folder_, error) && !error) error = std::make_error_code(std::errc::not_a_directory);
  if (error) {
    fail("The journal's folder {} cannot be made ({}); name another with --journal.", quote(folder_.native()),
         error.message());
  }
}

void Journal::lock(bool shared) {
  const fs::path path = folder_ / kLock;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail_errno("written", path.native(), errno);
  lock_.emplace(fd);
  // Processes that share the folder do not exclude one another, but exclude processes that do not share it.
  if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      log_warn("'{}' cannot be locked on this file system; do not let a second process use the same journal",
               path.native());
      return;
    }
    std::string holder(200, '\0');
    const ssize_t n = pread(fd, holder.data(), holder.size(), 0);
    holder.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    fail("{} is in use by {}; wait until it ends, or name another folder with --journal.", quote(folder_.native()),
         holder.empty() ? "another process" : quote(holder));
  }
  struct stat info {};
  if (fstat(fd, &info) == 0 && info.st_nlink == 0) {
    fail("A run that had finished with {} removed it; start again.", quote(folder_.native()));
  }
  if (shared) return;
  const std::string me = this_process();
  // The lock's text only serves messages, so a failure to write it is harmless.
  if (::ftruncate(fd, 0) != 0 || pwrite(fd, me.data(), me.size(), 0) < 0) log_debug("the lock has no name");
}

void Journal::read_plan(const std::vector<JournalFact>& facts) {
  facts_.clear();
  passes_.clear();
  const fs::path path = folder_ / kPlan;
  JournalPlan plan = parse_journal_plan(FileView::map(path).text(), path.native());
  std::vector<std::string> differences;
  bool other_version = false;
  for (const JournalFact& fact : facts) {
    const auto found = plan.facts.find(fact.name);
    const std::string was = found != plan.facts.end() ? found->second : "";
    if (was != fact.value) {
      differences.push_back(fmt::format("{}: {} there, {} now", fact.name, shown(was), shown(fact.value)));
      other_version = other_version || fact.name == "version" || fact.name == "records";
    }
    facts_.push_back(fact);
  }
  if (other_version) {
    fail(
        "{} was written by mxlm {}, and mxlm {} cannot go on with its journals ({}); finish that run with mxlm {}, or "
        "name another folder with --journal.",
        quote(folder_.native()), quote(plan.written_by), MXLM_VERSION, fmt::join(differences, "; "),
        quote(plan.written_by));
  }
  if (!differences.empty()) {
    fail("{} is the journal of another run ({}); repeat that run's command, or name another folder with --journal.",
         quote(folder_.native()), fmt::join(differences, "; "));
  }
  passes_ = std::move(plan.passes);
}

std::string Journal::plan_text() const {
  JournalPlan plan{.facts = {}, .written_by = MXLM_VERSION, .passes = {}};
  for (const JournalFact& fact : facts_) plan.facts.emplace(fact.name, fact.value);
  plan.passes = passes_;
  return journal_plan_text(plan, windows_);
}

void Journal::write_plan() {
  const fs::path path = folder_ / kPlan;
  if (const int error = replace_file(calls_, path, plan_text()); error != 0) {
    fail_errno("written", path.native(), error);
  }
}

/// Returns false if another process wrote the plan first.
bool Journal::write_first_plan() {
  const fs::path path = folder_ / kPlan, mine = folder_ / (kPlan + ("." + records_name_));
  if (const int error = replace_file(calls_, mine, plan_text()); error != 0) {
    fail_errno("written", mine.native(), error);
  }
  // Unlike a rename, a link does not replace an existing file, and it appears complete or not at all, on NFS too.
  const int error = ::link(mine.c_str(), path.c_str()) != 0 ? errno : 0;
  std::error_code ignored;
  fs::remove(mine, ignored);
  if (error != 0 && error != EEXIST) fail_errno("written", path.native(), error);
  return error == 0;
}

size_t Journal::add_pass(std::vector<std::string> variants) {
  if (shared_) {
    if (!passes_.empty()) {
      fail(
          "Variants cannot be added to {}, because several processes may share it; name another folder with --journal.",
          quote(folder_.native()));
    }
    passes_.push_back(variants);
    if (!write_first_plan()) {
      read_plan(std::vector<JournalFact>(facts_));
      if (passes_.empty() || passes_.front() != variants) {
        fail("Another process began {} with other variants; give all processes the same variants.",
             quote(folder_.native()));
      }
    }
    return 0;
  }
  passes_.push_back(std::move(variants));
  try {
    write_plan();
  } catch (const Error&) {
    passes_.pop_back();
    throw;
  }
  return passes_.size() - 1;
}

void Journal::reread(const std::vector<std::string>& files) {
  known_.clear();
  times_.clear();
  read_rounds(files);
}

void Journal::read_rounds(std::vector<std::string> files) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().native();
    if (is_records_name(name)) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  for (const std::string& name : files) {
    // Only truncate a torn end in this process's own file; other processes own their files.
    const bool own = !shared_ && name == kRounds;
    const size_t good = read_file(folder_ / name, own);
    if (own) good_bytes_ = good;
  }
}

/// Reads the records of one file. Returns the byte where the last whole record ends.
size_t Journal::read_file(const fs::path& path, bool own) {
  std::error_code error;
  if (!fs::exists(path, error) || fs::file_size(path, error) == 0) return 0;
  JournalScan scan = scan_journal(FileView::map(path).bytes());
  if (scan.foreign) fail("{} is not a file of a journal; name another folder with --journal.", quote(path.native()));
  for (const std::string& where : scan.damaged) {
    log_warn("'{}': {} is damaged; its shard is computed again", path.native(), where);
  }
  if (scan.torn && own) {
    log_info("'{}': the last record is incomplete; its shard is computed again", path.native());
  }
  for (JournalRound& round : scan.rounds) {
    const size_t variants = round.pass < passes_.size() ? passes_[round.pass].size() : 0;
    const bool fits = round.result.seconds.size() == variants &&
                      std::all_of(round.windows.begin(), round.windows.end(), [&](uint32_t w) { return w < windows_; });
    if (!fits) {
      log_warn("'{}': a record does not fit the plan; its shard is computed again", path.native());
      continue;
    }
    const Key key{round.pass, round.reversed};
    JournalTimes& times = times_[key];
    times.positions += round.result.positions;
    times.seconds.resize(variants);
    for (size_t v = 0; v < variants; ++v) times.seconds[v] += round.result.seconds[v];
    for (size_t w = 0; w < round.windows.size(); ++w) {
      known_[key].insert_or_assign(round.windows[w], std::move(round.result.windows[w]));
    }
  }
  return scan.end;
}

/// Creates a file of records that only this process writes.
void Journal::open_own_rounds() {
  for (int number = 0;; ++number) {
    records_name_ = fmt::format("rounds.{}.mxj", worker_name(number));
    const fs::path path = folder_ / records_name_;
    const int fd = calls_.open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST) continue;
    if (fd < 0) fail_errno("written", path.native(), errno);
    rounds_.emplace(fd);
    return;
  }
}

size_t Journal::drop_misfits(std::span<const size_t> scored) {
  size_t dropped = 0;
  for (auto& [key, windows] : known_) {
    dropped += std::erase_if(windows, [&](const auto& entry) {
      const size_t tokens = scored[entry.first];
      const std::vector<WindowScores>& all = entry.second.scores;
      return std::any_of(all.begin(), all.end(), [&](const WindowScores& s) { return s.tokens.size() != tokens; });
    });
  }
  if (dropped > 0) {
    log_warn("'{}': the records of {} windows do not match the run's tokens; these windows are computed again",
             (folder_ / kRounds).native(), dropped);
  }
  return dropped;
}

void Journal::open_rounds() {
  records_name_ = kRounds;
  good_bytes_ = shared_ ? 0 : good_bytes_;
  if (shared_) open_own_rounds();
  const fs::path path = folder_ / records_name_;
  if (!rounds_) {
    const int opened = calls_.open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (opened < 0) fail_errno("written", path.native(), errno);
    rounds_.emplace(opened);
  }
  const int fd = rounds_->get();
  // New records must not follow a torn one.
  if (calls_.ftruncate(fd, static_cast<off_t>(good_bytes_)) != 0) fail_errno("written", path.native(), errno);
  if (good_bytes_ > 0) return;
  const auto header = journal_header();
  int error = write_bytes(calls_, fd, header);
  if (error == 0 && calls_.fsync(fd) != 0) error = errno;
  // Sync the folders too: without its name on the disk, a file is lost.
  if (error == 0) error = sync_folder(calls_, folder_);
  if (error == 0) error = sync_folder(calls_, fs::absolute(folder_).lexically_normal().parent_path());
  if (error != 0) fail_errno("written", path.native(), error);
  good_bytes_ = header.size();
}

std::vector<std::optional<WindowResult>> Journal::known(size_t pass, bool reversed) const {
  std::vector<std::optional<WindowResult>> out(windows_);
  const auto found = known_.find({pass, reversed});
  if (found == known_.end()) return out;
  for (const auto& [window, result] : found->second) out[window] = result;
  return out;
}

size_t Journal::known_windows(size_t pass, bool reversed) const {
  const auto found = known_.find({pass, reversed});
  return found == known_.end() ? 0 : found->second.size();
}

bool Journal::complete(size_t pass, bool reversed) const {
  const auto found = known_.find({pass, reversed});
  return found != known_.end() && found->second.size() == windows_;
}

JournalTimes Journal::times(size_t pass, bool reversed) const {
  const auto found = times_.find({pass, reversed});
  if (found != times_.end()) return found->second;
  return {.positions = 0, .seconds = std::vector<VariantSeconds>(passes_.at(pass).size())};
}

void Journal::append(size_t pass, bool reversed, std::vector<uint32_t> windows, const RoundResult& result) {
  if (is_gone()) restore();
  each_record(static_cast<uint32_t>(pass), reversed, windows, result,
              [this](std::span<const std::byte> record) { write(record); });
  sync(kSyncSeconds);
}

void Journal::write(std::span<const std::byte> record) {
  if (failure_) return;
  if (record.size() > kMostRecordBytes) return fail_later("written", EFBIG);
  if (const int error = write_bytes(calls_, rounds_->get(), record); error != 0) {
    // If the truncation fails, the next reader drops the half record.
    if (calls_.ftruncate(rounds_->get(), static_cast<off_t>(good_bytes_)) != 0) log_debug("a torn record stays");
    fail_later("written", error);
    return;
  }
  good_bytes_ += record.size();
  unsynced_ = true;
}

void Journal::sync(double after_seconds) {
  const double time = now();
  if (failure_ || !unsynced_ || time - synced_ < after_seconds) return;
  synced_ = time;
  unsynced_ = false;
  if (calls_.fsync(rounds_->get()) != 0) fail_later("put on the disk", errno);
}

void Journal::flush() {
  if (is_gone()) restore();
  sync(0);
}

/// Whether the file of shards has lost its name, or whether another file has the name.
bool Journal::is_gone() const {
  struct stat ours {};
  struct stat named {};
  // In a shared folder nothing is restored: the processes find their claims missing and end.
  if (failure_ || shared_ || fstat(rounds_->get(), &ours) != 0) return false;
  if (lstat((folder_ / records_name_).c_str(), &named) != 0) return errno == ENOENT || errno == ENOTDIR;
  return ours.st_ino != named.st_ino || ours.st_dev != named.st_dev;
}

/// Makes the folder again, and copies the records from the old file, which is still open.
void Journal::restore() {
  const fs::path path = folder_ / records_name_;
  log_warn("somebody has removed or replaced the journal's {} during the run; it is written again",
           quote(path.native()));
  try {
    make_folder();
    lock_.reset();
    lock(/*shared=*/false);
    if (holds_journal(folder_) && FileView::map(folder_ / kPlan).text() != plan_text()) {
      fail("{} now holds the journal of another run.", quote(folder_.native()));
    }
    write_plan();
    const int fd = calls_.open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) fail_errno("written", path.native(), errno);
    Descriptor again(fd);
    std::vector<std::byte> piece(size_t{1} << 20);
    for (size_t at = 0; at < good_bytes_;) {
      const ssize_t got =
          pread(rounds_->get(), piece.data(), std::min(piece.size(), good_bytes_ - at), static_cast<off_t>(at));
      if (got <= 0) fail_errno("read", path.native(), got < 0 ? errno : EIO);
      const auto bytes = std::span(piece).first(static_cast<size_t>(got));
      if (const int error = write_bytes(calls_, fd, bytes); error != 0) fail_errno("written", path.native(), error);
      at += bytes.size();
    }
    int error = calls_.fsync(fd) != 0 ? errno : sync_folder(calls_, folder_);
    if (error == 0) error = sync_folder(calls_, fs::absolute(folder_).lexically_normal().parent_path());
    if (error != 0) fail_errno("written", path.native(), error);
    rounds_.emplace(std::move(again));
  } catch (const Error& error) {
    lock_.reset();  // the folder may belong to another run now
    failure_ =
        fmt::format("the journal's {} is gone and could not be written again ({})", quote(path.native()), error.what());
    log_error("{}; the run goes on, but its shards cannot be resumed", *failure_);
  }
}

void Journal::fail_later(const char* action, int error) {
  failure_ = fmt::format("the journal's '{}' could not be {} ({})", (folder_ / records_name_).native(), action,
                         std::generic_category().message(error));
  log_error("{}; the run goes on, but shards that it finishes from now on cannot be resumed", *failure_);
}

}  // namespace mxlm
