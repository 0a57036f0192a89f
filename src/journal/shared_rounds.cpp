#include "journal/shared_rounds.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/file.hpp"
#include "io/file_calls.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kDone = "done ";
// A claim is touched this many times before it would expire.
constexpr double kBeats = 4;
constexpr size_t kMostCutBytes = size_t{64} << 20;

double seconds_between(const timespec& a, const timespec& b) {
  return static_cast<double>(b.tv_sec - a.tv_sec) + 1e-9 * static_cast<double>(b.tv_nsec - a.tv_nsec);
}

Descriptor make_clock(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) fail_errno("written", path.native(), errno);
  return Descriptor(fd);
}

/// The state of a claim's file. The file is opened again for each look, because a network file system refreshes a file
/// when it is opened.
struct ClaimState {
  std::string text;
  struct stat status {};
  bool foreign = false;  // a folder, a link or a pipe, which mxlm never makes
};

/// nullopt if the file is gone. Throws Error if the file cannot be read.
std::optional<ClaimState> look_at(const fs::path& path) {
  ClaimState state;
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ESTALE) return std::nullopt;
    state.foreign = errno == ELOOP || errno == ENXIO;
    if (!state.foreign) fail_errno("read", path.native(), errno);
    return state;
  }
  const Descriptor file(fd);
  if (::fstat(fd, &state.status) != 0) return std::nullopt;
  state.foreign = !S_ISREG(state.status.st_mode);
  if (state.foreign) return state;
  std::array<char, 512> buffer{};
  const ssize_t size = ::read(fd, buffer.data(), buffer.size());
  if (size < 0) return std::nullopt;
  state.text.assign(buffer.data(), static_cast<size_t>(size));
  return state;
}

/// Describes, for messages, the process that made a claim or a file of records; worker_name() is a part of `text`.
std::string holder(const std::string& text) {
  std::string name = text.substr(0, text.find('\n'));
  constexpr std::string_view kBefore = "rounds.", kAfter = ".mxj";
  if (!name.starts_with(kBefore) || !name.ends_with(kAfter)) return quote(name);
  name = name.substr(kBefore.size(), name.size() - kBefore.size() - kAfter.size());
  const size_t number = name.rfind('.');
  const size_t process = number == std::string::npos || number == 0 ? std::string::npos : name.rfind('.', number - 1);
  if (process == std::string::npos) return quote(name);
  return fmt::format("process {} on {}", quote(name.substr(process + 1, number - process - 1)),
                     quote(name.substr(0, process)));
}

/// The file of records that a finished claim names; nullopt if the claim is not finished.
std::optional<std::string> records_of(const ClaimState& state) {
  if (!state.text.starts_with(kDone) || !state.text.ends_with("\n")) return std::nullopt;
  const std::string name = state.text.substr(kDone.size(), state.text.size() - kDone.size() - 1);
  if (!is_records_name(name)) return std::nullopt;
  return name;
}

}  // namespace

std::string worker_name(int number) {
  char host[256] = "unknown";
  gethostname(host, sizeof(host) - 1);
  std::string name = fmt::format("{}.{}.{}", host, getpid(), number);
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

bool is_records_name(const std::string& name) {
  return name.starts_with("rounds.") && name.ends_with(".mxj") && name.find('/') == std::string::npos;
}

SharedRounds::SharedRounds(fs::path folder, size_t pass, bool reversed, std::string records, double seconds)
    : folder_(std::move(folder)),
      pass_(fmt::format("{}{}", pass, reversed ? "r" : "")),
      records_(std::move(records)),
      seconds_(seconds),
      clock_path_(folder_ / ("clock." + records_)),
      clock_(make_clock(clock_path_)) {
  heart_ = std::thread([this] { beat(); });
}

SharedRounds::~SharedRounds() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  end_.notify_all();
  heart_.join();
  std::error_code ignored;
  for (const auto& [round, file] : held_) fs::remove(path_of(round), ignored);
  fs::remove(clock_path_, ignored);
}

fs::path SharedRounds::path_of(size_t round) const { return folder_ / fmt::format("claim.{}.{}", pass_, round); }

void SharedRounds::beat() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    // Touch the open file and not its name, which may belong to another process by now. After a failure the claim
    // expires.
    for (const auto& [round, file] : held_) {
      if (::futimens(file.get(), nullptr) != 0) log_debug("the claim of shard {} cannot be touched", round);
    }
    end_.wait_for(lock, std::chrono::duration<double>(seconds_ / kBeats), [this] { return ending_; });
  }
}

timespec SharedRounds::now() const {
  struct stat status {};
  if (::futimens(clock_.get(), nullptr) != 0 || ::fstat(clock_.get(), &status) != 0) {
    fail_errno("written", clock_path_.native(), errno);
  }
  return status.st_mtim;
}

std::vector<std::vector<Plan::Range>> SharedRounds::agree(const std::vector<std::vector<Plan::Range>>& own,
                                                          size_t windows) {
  const fs::path path = folder_ / fmt::format("cut.{}.json", pass_);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    const std::string text = json(own).dump() + "\n";
    fs::path mine = path;
    mine += "." + records_;
    if (const int error = replace_file(system_calls(), mine, text); error != 0) {
      fail_errno("written", mine.native(), error);
    }
    // The first process wins: a link is made only once, and its file is complete.
    const int error = ::link(mine.c_str(), path.c_str()) != 0 ? errno : 0;
    fs::remove(mine, ignored);
    if (error != 0 && error != EEXIST) fail_errno("written", path.native(), error);
  }
  const FileView file = FileView::map(path);
  const auto broken = [&path] {
    fail("{} does not say how this run is cut into shards; name another folder with --journal.", quote(path.native()));
  };
  const std::string text(file.text());
  if (text.size() > kMostCutBytes) broken();
  const auto depth_limit = [](int depth, json::parse_event_t, json&) { return depth < 8; };
  const json parsed = json::parse(text, depth_limit, /*allow_exceptions=*/false);
  std::vector<std::vector<Plan::Range>> cut;
  try {
    parsed.get_to(cut);
  } catch (const json::exception&) {
    broken();
  }
  size_t at = 0;
  for (const auto& round : cut) {
    if (round.empty()) broken();
    for (const auto& [begin, end] : round) {
      if (begin != at || end <= begin || end > windows) broken();
      at = end;
    }
  }
  if (at != windows) broken();
  return cut;
}

Claim SharedRounds::claim(size_t round) {
  const fs::path path = path_of(round);
  const std::string me = records_ + "\n";
  // The second attempt follows when an expired or foreign claim has been moved away.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
      Descriptor file(fd);
      if (::pwrite(fd, me.data(), me.size(), 0) < 0) fail_errno("written", path.native(), errno);
      const std::lock_guard lock(mutex_);
      held_.emplace(round, std::move(file));
      return Claim::ours;
    }
    if (errno != EEXIST) fail_errno("written", path.native(), errno);
    const auto state = look_at(path);
    if (!state) return Claim::busy;  // the file has just gone, so ask again
    if (state->foreign) {
      if (!put_aside(round, path)) return Claim::busy;
      continue;
    }
    if (records_of(*state)) return Claim::done;
    if (age(round, state->status) < seconds_) return Claim::busy;
    // Another process may have moved the same claim and made its own in the meantime, so check which claim was moved.
    const fs::path aside = folder_ / fmt::format("expired.{}.{}.{}", pass_, round, records_);
    if (::rename(path.c_str(), aside.c_str()) != 0) return Claim::busy;
    const auto moved = look_at(aside);
    const bool same = moved && moved->status.st_ino == state->status.st_ino && moved->text == state->text;
    if (!same && ::link(aside.c_str(), path.c_str()) != 0) log_debug("shard {} has another claim", round);
    std::error_code ignored;
    fs::remove(aside, ignored);
    if (!same) return Claim::busy;
    log_warn("shard {} was claimed by {}, which has not been heard of for {:.0f} s; it is computed again", round + 1,
             holder(state->text), seconds_);
  }
  return Claim::busy;
}

/// The seconds since a claim was touched.
double SharedRounds::age(size_t round, const struct stat& claim) {
  const timespec time = now();
  const double age = seconds_between(claim.st_mtim, time);
  if (age >= 0) return age;
  // The claim's date lies in the future, because the server's clock was set back or somebody set the date. A living
  // process soon sets another date, so count from the time when this date was first seen.
  Ahead& seen = ahead_[round];
  if (seen.file != claim.st_ino || seconds_between(seen.dated, claim.st_mtim) != 0) {
    seen = {.dated = claim.st_mtim, .seen = time, .file = claim.st_ino};
  }
  return seconds_between(seen.seen, time);
}

/// Renames a foreign file that has the name of a claim, so that the shard can be claimed. Returns false if the file has
/// gone already.
bool SharedRounds::put_aside(size_t round, const fs::path& path) {
  const fs::path aside = folder_ / fmt::format("foreign.{}.{}.{}", pass_, round, records_);
  if (::rename(path.c_str(), aside.c_str()) != 0) {
    if (errno == ENOENT) return false;
    fail_errno("moved", path.native(), errno);
  }
  log_warn("{} is not a file of mxlm and is now called {}; shard {} is claimed again", quote(path.native()),
           quote(aside.filename().native()), round + 1);
  return true;
}

void SharedRounds::tell_of_waiting(size_t round) {
  const auto state = look_at(path_of(round));
  if (!state || state->foreign || records_of(*state)) return;
  std::string& told = told_[round];
  if (told == state->text) return;
  told = state->text;
  log_info("waiting for shard {}, claimed by {}", round + 1, holder(state->text));
}

void SharedRounds::finished(size_t round) {
  const std::lock_guard lock(mutex_);
  const auto found = held_.find(round);
  if (found == held_.end()) return;
  const std::string text = fmt::format("{}{}\n", kDone, records_);
  const int fd = found->second.get();
  // A claim that cannot be marked as finished expires, and the shard is computed again with the same digits.
  if (::pwrite(fd, text.data(), text.size(), 0) < 0 || ::fsync(fd) != 0) {
    log_warn("the claim of shard {} cannot be written; another process may compute the shard again", round + 1);
  }
  held_.erase(found);
}

std::vector<std::string> SharedRounds::record_files(size_t rounds) const {
  std::vector<std::string> out;
  for (size_t round = 0; round < rounds; ++round) {
    const auto state = look_at(path_of(round));
    const auto name = state ? records_of(*state) : std::nullopt;
    if (name && std::find(out.begin(), out.end(), *name) == out.end()) out.push_back(*name);
  }
  return out;
}

void SharedRounds::forget(size_t round) {
  const auto state = look_at(path_of(round));
  std::error_code ignored;
  if (state && records_of(*state)) fs::remove(path_of(round), ignored);
}

}  // namespace mxlm
