#pragma once

// Requests to the hub: metadata and downloads, with retries.

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "hub/api.hpp"
#include "hub/cache.hpp"
#include "hub/http.hpp"
#include "hub/options.hpp"

namespace mxlm::hub {

/// The hub did not deliver what was asked for.
class HubError : public Error {
 public:
  enum class Kind : uint8_t {
    offline,      // HF_HUB_OFFLINE is set
    unreachable,  // no connection, a broken one, or a failing server
    refused,      // gated, private, no valid token
    missing,      // no such repository, revision or file
    damaged,      // the bytes differ from what was promised
  };
  HubError(Kind k, const std::string& what) : Error(what), kind(k) {}
  Kind kind;
};

/// What the hub promises about a file before the download.
struct RemoteFile {
  std::string name;
  std::string etag;              // SHA-256 (64 hex digits) of an LFS file, git's blob SHA-1 (40) of another
  std::optional<uint64_t> size;  // bytes
};

/// Talks to the hub. Retries temporary failures (429, 5xx, broken connections) with back-off, turns all others into a
/// HubError that says what to do, follows redirects, and sends the token to the endpoint alone. For one thread.
class Client {
 public:
  Client(const Options& options, const std::atomic<bool>& cancelled);

  /// The commit and the files of a revision of a repository.
  RepoInfo info(const Repo& repo);
  /// The hash and size of a file at a commit.
  RemoteFile head(const Repo& repo, const std::string& commit, const std::string& name);
  /// Downloads a file to `partial`, continuing an earlier attempt, and verifies it. The partial file stays when the
  /// connection breaks or the user interrupts. `on_bytes` receives the number of bytes in the file, which may shrink.
  void download(const Repo& repo, const std::string& commit, const RemoteFile& file,
                const std::filesystem::path& partial, const std::function<void(uint64_t)>& on_bytes);

 private:
  class Transfer;
  HttpResponse attempt(const Repo& repo, HttpRequest request, const BodySink& sink);
  HttpResponse persist(const Repo& repo, const HttpRequest& request, const std::string& what, const BodySink& sink,
                       const std::function<void()>& before, const std::function<bool()>& progressed);
  void wait(std::chrono::milliseconds time) const;
  [[noreturn]] void explain(const Repo& repo, const std::string& what, const HttpResponse& response) const;
  [[nodiscard]] std::string file_url(const Repo& repo, const std::string& commit, const std::string& name) const;

  const Options& options_;
  const std::atomic<bool>& cancelled_;
  HttpClient http_;
};

}  // namespace mxlm::hub
