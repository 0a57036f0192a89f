#include "hub/client.hpp"

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <thread>
#include <vector>

#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"
#include "io/sha256.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;
using Milliseconds = std::chrono::milliseconds;

constexpr size_t kLongestAnswer = size_t{256} << 20;  // limit of an answer of the API
constexpr int kMostRedirects = 10;

template <typename... Args>
[[noreturn]] void fail_hub(HubError::Kind kind, fmt::format_string<Args...> text, Args&&... args) {
  throw HubError(kind, fmt::format(text, std::forward<Args>(args)...));
}

bool is_redirect(const HttpResponse& response) {
  return response.status == 301 || response.status == 302 || response.status == 303 || response.status == 307 ||
         response.status == 308;
}

/// Answers that a retry may change.
bool may_pass(long status) {
  return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/// How long the server asks to wait: Retry-After in seconds or as a date, or "t=" in a RateLimit header.
std::optional<Milliseconds> asked_delay(const HttpResponse& response) {
  if (const auto seconds = response.size_header("retry-after")) {
    return std::chrono::seconds(std::min<uint64_t>(*seconds, 1 << 30));
  }
  if (const std::string date = response.header("retry-after"); !date.empty()) {
    const time_t when = curl_getdate(date.c_str(), nullptr), now = time(nullptr);
    if (when != -1) return std::chrono::seconds(std::max<time_t>(when - now, 0));
  }
  const std::string limit = response.header("ratelimit");
  if (const size_t at = limit.find("t="); response.status == 429 && at != limit.npos) {
    int64_t seconds = 0;
    for (size_t i = at + 2; i < limit.size() && limit[i] >= '0' && limit[i] <= '9' && seconds < 1'000'000; ++i) {
      seconds = seconds * 10 + (limit[i] - '0');
    }
    return std::chrono::seconds(seconds);
  }
  return std::nullopt;
}

/// The hash in an ETag, without quotes and the mark of weak ETags; "" if it is not a hash.
std::string hash_of_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  const bool hex =
      std::all_of(etag.begin(), etag.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  return hex && (etag.size() == 40 || etag.size() == 64) ? etag : "";
}

}  // namespace

/// A file that is being written, and the hash of what it holds. LFS files are hashed as bytes arrive. git's hash begins
/// with the size, so small files are hashed at the end.
class Client::Transfer {
 public:
  Transfer(const fs::path& path, const RemoteFile& file)
      : path_(path), file_(file), descriptor_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) {
    if (descriptor_.get() < 0) fail_errno("written", path.native(), errno);
    const off_t end = lseek(descriptor_.get(), 0, SEEK_END);
    if (end < 0) fail_errno("written", path.native(), errno);
    size_ = static_cast<uint64_t>(end);
    if (file_.size && size_ > *file_.size) {
      restart();
    } else {
      hash_file();
    }
  }

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] bool complete() const { return file_.size && size_ == *file_.size; }

  void restart() {
    if (ftruncate(descriptor_.get(), 0) != 0 || lseek(descriptor_.get(), 0, SEEK_SET) != 0) {
      fail_errno("written", path_.native(), errno);
    }
    size_ = 0;
    hash_.emplace(algorithm());
  }

  void append(std::span<const std::byte> bytes) {
    if (file_.size && bytes.size() > *file_.size - size_) {
      restart();
      fail_hub(HubError::Kind::damaged, "The hub sends more than the {} bytes it promised of {}; try again later.",
               *file_.size, quote(file_.name));
    }
    if (is_lfs()) hash_->update(bytes);
    while (!bytes.empty()) {
      const ssize_t written = write(descriptor_.get(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_errno("written", path_.native(), errno);
      size_ += static_cast<uint64_t>(written);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  /// True if the file has the promised hash; call it once.
  bool verify() {
    if (!is_lfs()) {
      hash_.emplace(algorithm());
      const std::string header = fmt::format("blob {}", size_);
      hash_->update(std::as_bytes(std::span(header.c_str(), header.size() + 1)));  // with its NUL
      hash_pieces();
    }
    if (fsync(descriptor_.get()) != 0) fail_errno("written", path_.native(), errno);
    return hash_->hex() == file_.etag;
  }

 private:
  [[nodiscard]] bool is_lfs() const { return file_.etag.size() == 64; }
  [[nodiscard]] Digest::Algorithm algorithm() const {
    return is_lfs() ? Digest::Algorithm::sha256 : Digest::Algorithm::sha1;
  }

  void hash_file() {
    hash_.emplace(algorithm());
    if (is_lfs()) hash_pieces();
  }

  void hash_pieces() {
    if (lseek(descriptor_.get(), 0, SEEK_SET) != 0) fail_errno("read", path_.native(), errno);
    std::vector<std::byte> piece(size_t{1} << 20);
    for (;;) {
      throw_if_interrupted();
      const size_t got = read_fully(descriptor_, piece, path_.native());
      if (got == 0) return;
      hash_->update(std::span(piece).first(got));
    }
  }

  fs::path path_;
  const RemoteFile& file_;
  Descriptor descriptor_;
  uint64_t size_ = 0;
  std::optional<Digest> hash_;
};

Client::Client(const Options& options, const std::atomic<bool>& cancelled)
    : options_(options), cancelled_(cancelled), http_(options, cancelled) {}

std::string Client::file_url(const Repo& repo, const std::string& commit, const std::string& name) const {
  return fmt::format("{}/{}{}/resolve/{}/{}", options_.endpoint, repo.kind == RepoKind::dataset ? "datasets/" : "",
                     repo.id, commit, percent_encode(name, /*keep_slashes=*/true));
}

void Client::wait(Milliseconds time) const {
  const auto end = std::chrono::steady_clock::now() + time;
  for (;;) {
    if (interrupt_requested() || cancelled_.load(std::memory_order_relaxed)) throw Interrupted();
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) return;
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(left, Milliseconds(100)));
  }
}

/// One request, with redirects. A HEAD ends at the answer that has the file's hash, before the redirect to the file's
/// bytes.
HttpResponse Client::attempt(const Repo& repo, HttpRequest request, const BodySink& sink) {
  const std::string first = request.url;
  std::string commit;
  for (int redirects = 0; redirects <= kMostRedirects; ++redirects) {
    request.with_token = same_origin(request.url, options_.endpoint);
    HttpResponse response = http_.perform(request, sink);
    // The hub names the commit; the server of the bytes does not.
    if (const std::string told = response.header("x-repo-commit"); !told.empty()) commit = told;
    const bool told = request.head && !response.header("x-linked-etag").empty();
    if (!is_redirect(response) || told) {
      if (!commit.empty()) response.headers["x-repo-commit"] = commit;
      return response;
    }
    request.url = resolve_url(request.url, response.header("location"));
  }
  fail_hub(HubError::Kind::unreachable, "{} redirects in circles for {} {}; check HF_ENDPOINT.",
           quote(printable_url(first)), repo.what(), quote(repo.id));
}

/// Retries until an answer arrives that a retry would not change. `before` prepares an attempt; attempts for which
/// `progressed` returns true do not count.
HttpResponse Client::persist(const Repo& repo, const HttpRequest& request, const std::string& what,
                             const BodySink& sink, const std::function<void()>& before,
                             const std::function<bool()>& progressed) {
  // An unreachable server is given less time than a busy one.
  constexpr int kConnectRetries = 2;
  int failures = 0;
  for (;;) {
    Milliseconds delay = options_.first_delay * (1 << std::min(failures, 8));
    std::string reason;
    int retries = options_.retries;
    if (before) before();
    try {
      HttpResponse response = attempt(repo, request, sink);
      if (!may_pass(response.status)) return response;
      reason = fmt::format("it answered {}", response.status);
      if (const auto asked = asked_delay(response)) {
        delay = std::max<Milliseconds>(*asked, delay.zero());
        if (delay > options_.longest_delay) retries = 0;
      }
      if (response.status == 429 && failures >= retries) {
        fail_hub(HubError::Kind::unreachable,
                 "{} refuses {} for too many requests{}; wait a while and try again, it goes on where it stopped.",
                 quote(printable_url(options_.endpoint)), what,
                 delay > options_.longest_delay ? fmt::format(" for the next {} s", delay.count() / 1000) : "");
      }
    } catch (const HttpFailure& failure) {
      reason = failure.what();
      if (!failure.connected) retries = std::min(retries, kConnectRetries);
    }
    if (progressed && progressed()) {
      failures = 0;
      delay = std::min(delay, options_.first_delay);
    }
    if (failures >= retries) {
      fail_hub(HubError::Kind::unreachable,
               "{} cannot be had from {} ({}); check the connection and try again, it goes on where it stopped.", what,
               quote(printable_url(options_.endpoint)), reason);
    }
    ++failures;
    log_info("{}: {}; trying again in {:.1f} s", what, reason, static_cast<double>(delay.count()) / 1000);
    wait(delay);
  }
}

void Client::explain(const Repo& repo, const std::string& what, const HttpResponse& response) const {
  const std::string code = response.header("x-error-code");
  std::string message = response.header("x-error-message");
  // A server may repeat what it was sent.
  const std::string& secret = options_.token;
  for (size_t at = 0; !secret.empty() && (at = message.find(secret, at)) != std::string::npos;) {
    message.replace(at, secret.size(), "***");
    at += 3;
  }
  const std::string endpoint = printable_url(options_.endpoint);
  const std::string page = fmt::format("{}/{}{}", endpoint, repo.kind == RepoKind::dataset ? "datasets/" : "", repo.id);
  const bool token = !options_.token.empty();
  using Kind = HubError::Kind;
  if (code == "GatedRepo") {
    fail_hub(Kind::refused, "The {} {} is gated: accept its conditions at {}, {}.", repo.what(), quote(repo.id), page,
             token ? "with the account whose token is in use (it has no access yet)"
                   : "and set HF_TOKEN to a token of that account");
  }
  if (code == "RevisionNotFound") {
    fail_hub(Kind::missing, "The {} {} has no revision {}; see {}.", repo.what(), quote(repo.id), quote(repo.revision),
             page);
  }
  if (code == "EntryNotFound") {
    fail_hub(Kind::missing, "The {} {} has no {} at revision {}; see {}.", repo.what(), quote(repo.id), what,
             quote(repo.revision), page);
  }
  if (code == "DisabledRepo") {
    fail_hub(Kind::refused, "The {} {} has been disabled; see {}.", repo.what(), quote(repo.id), page);
  }
  if (response.status == 401 && message.starts_with("Invalid credentials")) {
    fail_hub(Kind::refused, "{} does not accept the token in HF_TOKEN or the token file; set a valid one or none.",
             endpoint);
  }
  if (code == "RepoNotFound" || response.status == 401) {
    fail_hub(Kind::missing, "{} shows no {} {} {}; check the name, {}.", endpoint, repo.what(), quote(repo.id),
             token ? "to the account of the token in use" : "without a token",
             token ? "or use a token of an account that may see it"
                   : "or set HF_TOKEN to a token of an account that may see it if it is private or gated");
  }
  if (response.status == 403) {
    fail_hub(Kind::refused, "{} refuses {} ({}); check what the token in HF_TOKEN may do, and see {}.", endpoint, what,
             quote(message.empty() ? "403" : message), page);
  }
  if (response.status == 404) {
    fail_hub(Kind::missing, "{} has no {} of the {} {} at revision {}; check the name.", endpoint, what, repo.what(),
             quote(repo.id), quote(repo.revision));
  }
  fail_hub(Kind::unreachable, "{} answered {} for {} of {}{}; try again later.", endpoint, response.status, what,
           quote(repo.id), message.empty() ? "" : " (" + quote(message) + ")");
}

RepoInfo Client::info(const Repo& repo) {
  HttpRequest request;
  // blobs=true adds the sizes.
  request.url = fmt::format("{}/api/{}/{}/revision/{}?blobs=true", options_.endpoint,
                            repo.kind == RepoKind::dataset ? "datasets" : "models", repo.id,
                            percent_encode(repo.revision, /*keep_slashes=*/false));
  const std::string what = fmt::format("the list of files of {}", quote(repo.id));
  std::string body;
  const HttpResponse response = persist(
      repo, request, what,
      [&](const HttpResponse& answer, std::span<const std::byte> piece) {
        if (answer.status != 200) return;
        if (body.size() + piece.size() > kLongestAnswer) {
          fail_hub(HubError::Kind::damaged, "{} is longer than {} MiB; check HF_ENDPOINT.", what, kLongestAnswer >> 20);
        }
        body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      },
      [&body] { body.clear(); }, nullptr);
  if (response.status != 200) explain(repo, "list of files", response);
  return parse_repo_info(body, fmt::format("The answer of {} about {}", printable_url(options_.endpoint), repo.id));
}

RemoteFile Client::head(const Repo& repo, const std::string& commit, const std::string& name) {
  HttpRequest request;
  request.url = file_url(repo, commit, name);
  request.head = true;
  const HttpResponse response = persist(
      repo, request, fmt::format("{} of {}", quote(name), quote(repo.id)),
      [](const HttpResponse&, std::span<const std::byte>) {}, nullptr, nullptr);
  const bool linked = !response.header("x-linked-etag").empty();
  if (response.status != 200 && !linked) explain(repo, "file " + quote(name), response);
  const std::string told = response.header("x-repo-commit");
  if (!told.empty() && told != commit) {
    fail_hub(HubError::Kind::damaged, "{} answered with another revision of {} than was asked for; try again later.",
             printable_url(options_.endpoint), quote(repo.id));
  }
  RemoteFile file;
  file.name = name;
  file.etag = hash_of_etag(response.header(linked ? "x-linked-etag" : "etag"));
  if (file.etag.empty()) {
    fail_hub(HubError::Kind::damaged, "{} gives no hash of {}, so it cannot be verified; check HF_ENDPOINT.",
             printable_url(options_.endpoint), quote(name));
  }
  file.size = response.size_header("x-linked-size");
  if (!file.size && response.status == 200) file.size = response.size_header("content-length");
  return file;
}

void Client::download(const Repo& repo, const std::string& commit, const RemoteFile& file, const fs::path& partial,
                      const std::function<void(uint64_t)>& on_bytes) {
  const std::string what = fmt::format("{} of {}", quote(file.name), quote(repo.id));
  for (int damaged = 0;; ++damaged) {
    Transfer transfer(partial, file);
    const bool resumed = transfer.size() > 0;
    on_bytes(transfer.size());
    HttpRequest request;
    request.url = file_url(repo, commit, file.name);
    uint64_t before = 0;
    int idle = 0;
    bool ended = transfer.complete();
    while (!ended) {
      bool fresh = true;
      const HttpResponse response = persist(
          repo, request, what,
          [&](const HttpResponse& answer, std::span<const std::byte> piece) {
            if (answer.status != 200 && answer.status != 206) return;
            if (fresh) {
              fresh = false;
              const std::string range = answer.header("content-range");
              const bool fits = range.starts_with(fmt::format("bytes {}-", transfer.size()));
              // A server that does not know ranges, or returns another range, starts over.
              if (answer.status == 206 && !fits) {
                fail_hub(HubError::Kind::damaged,
                         "The hub sends another part of {} than was asked for ({}); try again.", what, quote(range));
              }
              if (answer.status == 200 && transfer.size() > 0) transfer.restart();
            }
            transfer.append(piece);
            on_bytes(transfer.size());
          },
          [&] {
            fresh = true;
            before = request.from = transfer.size();
          },
          [&] { return transfer.size() > before; });
      if (response.status == 416) {  // the partial file is longer than the file
        transfer.restart();
        if (++idle > options_.retries) explain(repo, "file " + quote(file.name), response);
        continue;
      }
      if (response.status != 200 && response.status != 206) explain(repo, "file " + quote(file.name), response);
      ended = !file.size || transfer.complete();
      // An answer that ended well and is still short: ask for the rest while more bytes arrive.
      if (!ended && transfer.size() <= before && ++idle > options_.retries) {
        fail_hub(HubError::Kind::damaged, "The hub sends {} bytes of {} instead of {}; try again later.",
                 transfer.size(), what, *file.size);
      }
    }
    if (transfer.verify()) return;
    std::error_code error;
    fs::remove(partial, error);
    // The bytes of an earlier run may have been bad: start over once.
    if (!resumed || damaged > 0) {
      fail_hub(HubError::Kind::damaged,
               "{} does not have the hash that the hub promised, so it was not kept; try again.", what);
    }
    log_warn("{}: what an earlier download left is damaged; starting over", what);
  }
}

}  // namespace mxlm::hub
