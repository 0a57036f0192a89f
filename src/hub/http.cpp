#include "hub/http.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <exception>
#include <mutex>
#include <string_view>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"

namespace mxlm::hub {
namespace {

constexpr size_t kMostHeaders = 256;
constexpr size_t kLongestHeader = 16384;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

/// The part of a request that curl's callbacks see.
struct Exchange {
  CURL* easy = nullptr;
  HttpResponse response;
  const BodySink* sink = nullptr;
  std::exception_ptr thrown;
  std::array<char, CURL_ERROR_SIZE> reason{};
  std::chrono::steady_clock::time_point last_byte = std::chrono::steady_clock::now();
};

/// A request in the multi handle; the destructor removes it.
class Attached {
 public:
  Attached(CURLM* multi, CURL* easy) : multi_(multi), easy_(easy) {
    if (curl_multi_add_handle(multi_, easy_) != CURLM_OK) throw std::bad_alloc();
  }
  ~Attached() { curl_multi_remove_handle(multi_, easy_); }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

 private:
  CURLM* multi_;
  CURL* easy_;
};

size_t on_header(const char* data, size_t /*one*/, size_t size, void* user) {
  Exchange& exchange = *static_cast<Exchange*>(user);
  exchange.last_byte = std::chrono::steady_clock::now();
  const std::string_view line(data, size);
  if (line.starts_with("HTTP/")) {  // also after an interim answer
    exchange.response.headers.clear();
    return size;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos) return size;
  if (size > kLongestHeader || exchange.response.headers.size() >= kMostHeaders) return 0;
  exchange.response.headers[lower(trim(line.substr(0, colon)))] = trim(line.substr(colon + 1));
  return size;
}

size_t on_body(const char* data, size_t /*one*/, size_t size, void* user) {
  Exchange& exchange = *static_cast<Exchange*>(user);
  exchange.last_byte = std::chrono::steady_clock::now();
  try {
    curl_easy_getinfo(exchange.easy, CURLINFO_RESPONSE_CODE, &exchange.response.status);
    (*exchange.sink)(exchange.response, std::as_bytes(std::span(data, size)));
    return size;
  } catch (...) {  // exceptions must not pass through curl, which is C
    exchange.thrown = std::current_exception();
    return 0;
  }
}

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, UrlDeleter>;

Url parse_url(const std::string& text) {
  Url url(curl_url());
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
    fail("{} is not an address that can be fetched; check HF_ENDPOINT.", quote(printable_url(text)));
  }
  return url;
}

std::string part(const Url& url, CURLUPart which) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
  std::string out = text;
  curl_free(text);
  return out;
}

}  // namespace

std::string HttpResponse::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? "" : at->second;
}

std::optional<uint64_t> HttpResponse::size_header(const std::string& name) const {
  const std::string text = header(name);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr uint64_t kMost = uint64_t{1} << 60;
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > kMost) return std::nullopt;
  return value;
}

struct HttpClient::State {
  const Options& options;
  const std::atomic<bool>& cancelled;
  CURLM* multi = nullptr;  // holds the connections
  curl_slist* with_token = nullptr;

  State(const Options& hub_options, const std::atomic<bool>& flag) : options(hub_options), cancelled(flag) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    multi = curl_multi_init();
    if (multi == nullptr) throw std::bad_alloc();
    if (!options.token.empty()) {
      with_token = curl_slist_append(nullptr, ("Authorization: Bearer " + options.token).c_str());
      if (with_token == nullptr) throw std::bad_alloc();
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    curl_multi_cleanup(multi);
    curl_slist_free_all(with_token);
  }

  void set_up(const HttpRequest& request, Exchange& exchange) const {
    const auto set = [&exchange](CURLoption option, auto value) {
      if (curl_easy_setopt(exchange.easy, option, value) != CURLE_OK) throw std::bad_alloc();
    };
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_USERAGENT, "mxlm/" MXLM_VERSION);
    set(CURLOPT_NOBODY, request.head ? 1L : 0L);
    set(CURLOPT_CONNECTTIMEOUT, 20L);
    set(CURLOPT_HEADERFUNCTION, &on_header);
    set(CURLOPT_HEADERDATA, &exchange);
    set(CURLOPT_WRITEFUNCTION, &on_body);
    set(CURLOPT_WRITEDATA, &exchange);
    set(CURLOPT_BUFFERSIZE, 512L * 1024);
    set(CURLOPT_ERRORBUFFER, exchange.reason.data());
    if (request.with_token && with_token != nullptr) set(CURLOPT_HTTPHEADER, with_token);
    if (request.from > 0) set(CURLOPT_RANGE, fmt::format("{}-", request.from).c_str());
    if (!options.certificates.empty()) set(CURLOPT_CAINFO, options.certificates.c_str());
  }

  /// Runs the transfer to its end, or until an interrupt.
  [[nodiscard]] CURLcode drive(const Exchange& exchange) const {
    CURLcode result = CURLE_OK;
    for (int running = 1; running > 0;) {
      if (interrupt_requested() || cancelled.load(std::memory_order_relaxed)) throw Interrupted();
      curl_multi_perform(multi, &running);
      int left = 0;
      while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
        if (message->msg == CURLMSG_DONE) result = message->data.result;
      }
      constexpr int kMilliseconds = 100;  // the longest delay of an interrupt
      // (curl's own speed limit uses a mean, which a fast start keeps up for minutes.)
      if (running > 0 && std::chrono::steady_clock::now() - exchange.last_byte > options.stall) {
        throw HttpFailure(fmt::format("nothing came for {} s", options.stall.count()), /*was_connected=*/true);
      }
      if (running > 0) curl_multi_poll(multi, nullptr, 0, kMilliseconds, nullptr);
    }
    return result;
  }
};

HttpClient::HttpClient(const Options& options, const std::atomic<bool>& cancelled)
    : state_(std::make_unique<State>(options, cancelled)) {}

HttpClient::~HttpClient() = default;

HttpResponse HttpClient::perform(const HttpRequest& request, const BodySink& sink) {
  Exchange exchange;
  exchange.sink = &sink;
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), &curl_easy_cleanup);
  if (!easy) throw std::bad_alloc();
  exchange.easy = easy.get();
  state_->set_up(request, exchange);
  CURLcode result = CURLE_OK;
  {
    const Attached attached(state_->multi, easy.get());
    result = state_->drive(exchange);
  }
  if (exchange.thrown) std::rethrow_exception(exchange.thrown);
  if (result != CURLE_OK) {
    const std::string reason = exchange.reason.front() != '\0' ? exchange.reason.data() : curl_easy_strerror(result);
    if (result == CURLE_SSL_CACERT_BADFILE || result == CURLE_PEER_FAILED_VERIFICATION) {
      fail("{} cannot be trusted ({}); name your certificate authorities with SSL_CERT_FILE.",
           quote(printable_url(request.url)), reason);
    }
    const bool connected = result != CURLE_COULDNT_CONNECT && result != CURLE_COULDNT_RESOLVE_HOST &&
                           result != CURLE_COULDNT_RESOLVE_PROXY && result != CURLE_SSL_CONNECT_ERROR;
    throw HttpFailure(reason, connected);
  }
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &exchange.response.status);
  return std::move(exchange.response);
}

std::string resolve_url(const std::string& base, const std::string& location) {
  const Url url = parse_url(base);
  const std::string scheme = part(url, CURLUPART_SCHEME);
  if (location.empty() || curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK) {
    fail("{} redirects to {}, which is not an address; try again later.", quote(printable_url(base)),
         quote(printable_url(location)));
  }
  const std::string to = part(url, CURLUPART_SCHEME);
  if ((to != "http" && to != "https") || (scheme == "https" && to != "https")) {
    fail("{} redirects to {}, which is not safe; check HF_ENDPOINT.", quote(printable_url(base)),
         quote(printable_url(location)));
  }
  char* text = nullptr;
  if (curl_url_get(url.get(), CURLUPART_URL, &text, 0) != CURLUE_OK) throw std::bad_alloc();
  std::string out = text;
  curl_free(text);
  return out;
}

bool same_origin(const std::string& a, const std::string& b) {
  const Url first = parse_url(a), second = parse_url(b);
  for (const CURLUPart which : {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT}) {
    if (lower(part(first, which)) != lower(part(second, which))) return false;
  }
  return true;
}

std::string percent_encode(std::string_view text, bool keep_slashes) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace mxlm::hub
