#pragma once

// HTTP with libcurl: one request at a time, without redirects.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "hub/options.hpp"

namespace mxlm::hub {

/// The answer to one request; a redirect is an answer too.
struct HttpResponse {
  long status = 0;
  std::map<std::string, std::string> headers;  // names in lower case; the last of equal names counts
  /// The header's value, or "".
  [[nodiscard]] std::string header(const std::string& name) const;
  /// The header as a number of bytes; nullopt if it is missing or not a number.
  [[nodiscard]] std::optional<uint64_t> size_header(const std::string& name) const;
};

/// The network failed: no connection, a broken one, or a stalled one. `connected` is false if the server was not
/// reached.
class HttpFailure : public std::runtime_error {
 public:
  HttpFailure(const std::string& what, bool was_connected) : std::runtime_error(what), connected(was_connected) {}
  bool connected;
};

struct HttpRequest {
  std::string url;
  bool head = false;
  bool with_token = false;
  uint64_t from = 0;  // ask for the bytes from this offset on (Range)
};

/// Receives a piece of the body; the status and headers of the answer are known by then.
using BodySink = std::function<void(const HttpResponse&, std::span<const std::byte>)>;

/// One connection at a time, kept alive between requests. For one thread.
class HttpClient {
 public:
  /// `cancelled` ends a running request with Interrupted, and so does Ctrl-C.
  HttpClient(const Options& options, const std::atomic<bool>& cancelled);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// Sends one request and returns its answer, without following redirects. Throws HttpFailure, Interrupted, Error for
  /// an invalid address, and what the sink throws.
  HttpResponse perform(const HttpRequest& request, const BodySink& sink);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The address of `location` (absolute or relative) in an answer from `base`. Throws Error unless it is http or https,
/// and if it leaves https for http.
std::string resolve_url(const std::string& base, const std::string& location);

/// True if scheme, host and port are equal, so that a token for one address may go to the other.
bool same_origin(const std::string& a, const std::string& b);

/// `text` with everything except letters, digits and "-._~" written as %XX; with `keep_slashes`, "/" stays.
std::string percent_encode(std::string_view text, bool keep_slashes);

}  // namespace mxlm::hub
