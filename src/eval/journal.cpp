#include "eval/journal.hpp"

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
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/file.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSchema = "mxlm.journal/1";
constexpr const char* kPlan = "plan.json";
constexpr const char* kRounds = "rounds.mxj";
constexpr const char* kLock = "lock";
// A finished round is on the disk at most this much later than the next one.
constexpr double kSyncSeconds = 1;
// A record holds windows of about so many bytes.
constexpr size_t kRecordBytes = size_t{1} << 28;
constexpr size_t kMostPlanBytes = size_t{64} << 20;

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

size_t bytes_of(const WindowResult& window) {
  size_t tokens = 0;
  for (const WindowScores& scores : window.scores) tokens += scores.tokens.size();
  return tokens * sizeof(TokenScore);
}

}  // namespace

bool holds_journal(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kPlan, ignored);
}

bool journal_in_use(const fs::path& folder) {
  const int fd = ::open((folder / kLock).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const Descriptor lock(fd);
  return flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

void remove_journal(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {kPlan, kRounds, kLock}) fs::remove(folder / name, ignored);
  fs::remove(folder, ignored);
}

Journal::Journal(fs::path folder, Open open, std::vector<JournalFact> facts, size_t windows, FileCalls& calls)
    : folder_(std::move(folder)), calls_(calls), windows_(windows) {
  if (windows > std::numeric_limits<uint32_t>::max()) fail("A journal holds no more than 2^32 windows.");
  make_folder();
  lock();
  if (holds_journal(folder_)) {
    if (open == Open::fresh) {
      fail("{} holds the journal of a run already; give --resume to go on with it, or name another folder.",
           quote(folder_.native()));
    }
    read_plan(facts);
    read_rounds();
  } else {
    std::error_code ignored;
    // A header alone is what a run leaves that was ended before it had a plan.
    if (const auto size = fs::file_size(folder_ / kRounds, ignored); !ignored && size > journal_header().size()) {
      fail("{} holds rounds, but no {} that says of what; name another folder.", quote(folder_.native()), kPlan);
    }
    facts_ = std::move(facts);
  }
  open_rounds();
}

Journal::~Journal() { flush(); }

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

void Journal::lock() {
  const fs::path path = folder_ / kLock;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail_errno("written", path.native(), errno);
  lock_.emplace(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      log_warn("'{}' cannot be locked here; let no second process use the same journal", path.native());
      return;
    }
    std::string holder(200, '\0');
    const ssize_t n = pread(fd, holder.data(), holder.size(), 0);
    holder.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    fail("{} is in use by {}; wait for it, or name another folder with --journal.", quote(folder_.native()),
         holder.empty() ? "another process" : quote(holder));
  }
  const std::string me = this_process();
  // For people: that it cannot be written harms nothing.
  if (::ftruncate(fd, 0) != 0 || pwrite(fd, me.data(), me.size(), 0) < 0) log_debug("the lock has no name");
}

void Journal::read_plan(const std::vector<JournalFact>& facts) {
  const fs::path path = folder_ / kPlan;
  const std::string text(FileView::map(path).text());
  const auto broken = [&path](const std::string& why) {
    fail("{} cannot be used ({}); name another folder with --journal.", quote(path.native()), why);
  };
  if (text.size() > kMostPlanBytes) broken("it is too large");
  const auto depth_limit = [](int depth, json::parse_event_t, json&) { return depth < 16; };
  const json plan = json::parse(text, depth_limit, /*allow_exceptions=*/false);
  if (!plan.is_object()) broken("it is no JSON object");
  if (plan.value("schema", json()) != kSchema) broken("it is of another version of mxlm");
  const json stored = plan.value("facts", json()), segments = plan.value("segments", json());
  if (!stored.is_object() || !segments.is_array()) broken("parts of it are missing");
  std::vector<std::string> differences;
  for (const JournalFact& fact : facts) {
    const auto found = stored.find(fact.name);
    const std::string was = found != stored.end() && found->is_string() ? found->get<std::string>() : "";
    if (was != fact.value) {
      differences.push_back(fmt::format("{}: {} there, {} now", fact.name, shown(was), shown(fact.value)));
    }
    facts_.push_back(fact);
  }
  if (!differences.empty()) {
    fail("{} is the journal of another run ({}); repeat that run's command, or name another folder with --journal.",
         quote(folder_.native()), fmt::join(differences, "; "));
  }
  for (const json& segment : segments) {
    if (!segment.is_array() || segment.empty()) broken("a list of variants is none");
    auto& variants = segments_.emplace_back();
    for (const json& variant : segment) {
      if (!variant.is_string()) broken("a variant is no text");
      variants.push_back(variant.get<std::string>());
    }
  }
}

void Journal::write_plan() {
  json facts = json::object();
  for (const JournalFact& fact : facts_) facts[fact.name] = fact.value;
  const json plan = {{"schema", kSchema}, {"facts", facts}, {"windows", windows_}, {"segments", segments_}};
  const std::string text = plan.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  const fs::path path = folder_ / kPlan;
  if (const int error = replace_file(calls_, path, text); error != 0) fail_errno("written", path.native(), error);
}

size_t Journal::add_segment(std::vector<std::string> variants) {
  segments_.push_back(std::move(variants));
  try {
    write_plan();
  } catch (const Error&) {
    segments_.pop_back();
    throw;
  }
  return segments_.size() - 1;
}

void Journal::read_rounds() {
  const fs::path path = folder_ / kRounds;
  std::error_code error;
  if (!fs::exists(path, error) || fs::file_size(path, error) == 0) return;
  JournalScan scan = scan_journal(FileView::map(path).bytes());
  if (scan.foreign) fail("{} is no journal's file; name another folder with --journal.", quote(path.native()));
  for (const std::string& where : scan.damaged) {
    log_warn("'{}': {} is damaged; its round is done again", path.native(), where);
  }
  if (scan.torn) log_info("'{}': the last record is not whole; its round is done again", path.native());
  good_bytes_ = scan.end;
  for (JournalRound& round : scan.rounds) {
    const size_t variants = round.segment < segments_.size() ? segments_[round.segment].size() : 0;
    const bool fits = round.result.seconds.size() == variants &&
                      std::all_of(round.windows.begin(), round.windows.end(), [&](uint32_t w) { return w < windows_; });
    if (!fits) {
      log_warn("'{}': a record does not fit the plan; its round is done again", path.native());
      continue;
    }
    const Key key{round.segment, round.reversed};
    JournalTimes& times = times_[key];
    times.positions += round.result.positions;
    times.seconds.resize(variants);
    for (size_t v = 0; v < variants; ++v) times.seconds[v] += round.result.seconds[v];
    for (size_t w = 0; w < round.windows.size(); ++w) {
      known_[key].insert_or_assign(round.windows[w], std::move(round.result.windows[w]));
    }
  }
}

void Journal::open_rounds() {
  const fs::path path = folder_ / kRounds;
  const int fd = calls_.open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail_errno("written", path.native(), errno);
  rounds_.emplace(fd);
  // What is torn must not stand before what follows.
  if (calls_.ftruncate(fd, static_cast<off_t>(good_bytes_)) != 0) fail_errno("written", path.native(), errno);
  if (good_bytes_ > 0) return;
  const auto header = journal_header();
  int error = write_bytes(calls_, fd, header);
  if (error == 0 && calls_.fsync(fd) != 0) error = errno;
  if (error != 0) fail_errno("written", path.native(), error);
  good_bytes_ = header.size();
}

std::vector<std::optional<WindowResult>> Journal::known(size_t segment, bool reversed) const {
  std::vector<std::optional<WindowResult>> out(windows_);
  const auto found = known_.find({segment, reversed});
  if (found == known_.end()) return out;
  for (const auto& [window, result] : found->second) out[window] = result;
  return out;
}

bool Journal::complete(size_t segment, bool reversed) const {
  const auto found = known_.find({segment, reversed});
  return found != known_.end() && found->second.size() == windows_;
}

JournalTimes Journal::times(size_t segment, bool reversed) const {
  const auto found = times_.find({segment, reversed});
  if (found != times_.end()) return found->second;
  return {.positions = 0, .seconds = std::vector<VariantSeconds>(segments_.at(segment).size())};
}

void Journal::append(size_t segment, bool reversed, std::vector<uint32_t> windows, const RoundResult& result) {
  JournalRound round{.segment = static_cast<uint32_t>(segment), .reversed = reversed, .windows = {}, .result = {}};
  round.result.positions = result.positions;
  round.result.seconds = result.seconds;
  size_t bytes = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    round.windows.push_back(windows[w]);
    round.result.windows.push_back(result.windows[w]);
    bytes += bytes_of(result.windows[w]);
    if (bytes < kRecordBytes && w + 1 < windows.size()) continue;
    write(round);
    round.windows.clear();
    round.result.windows.clear();
    // The times stand in the first record of a round.
    round.result.positions = 0;
    std::fill(round.result.seconds.begin(), round.result.seconds.end(), VariantSeconds());
    bytes = 0;
  }
  sync(kSyncSeconds);
}

void Journal::write(const JournalRound& round) {
  if (failure_) return;
  const auto record = encode_record(round);
  if (const int error = write_bytes(calls_, rounds_->get(), record); error != 0) {
    // Half a record at the end would be dropped by the next reader anyway.
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

void Journal::flush() { sync(0); }

void Journal::fail_later(const char* action, int error) {
  failure_ = fmt::format("the journal's '{}' could not be {} ({})", (folder_ / kRounds).native(), action,
                         std::generic_category().message(error));
  log_error("{}; the run goes on, but what it finishes from here on cannot be resumed", *failure_);
}

}  // namespace mxlm
