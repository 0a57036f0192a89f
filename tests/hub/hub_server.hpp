#pragma once

#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace mxlm::hub {

/// What a client sent.
struct Seen {
  std::string method, target;
  std::map<std::string, std::string> headers;  // names in lower case
  [[nodiscard]] std::string header(const std::string& name) const {
    const auto at = headers.find(name);
    return at == headers.end() ? "" : at->second;
  }
};

/// What the server shall send.
struct Reply {
  int status = 200;
  std::map<std::string, std::string> headers;
  std::string body;
  bool head_only = false;                 // headers alone, as for HEAD (Content-Length of the body all the same)
  size_t drop_after = std::string::npos;  // closes the connection after so many bytes of the body
  std::chrono::milliseconds pause{0};     // between pieces of 64 KiB
};

/// An HTTP/1.1 server on the loopback device, in threads of its own, one a connection.
class LoopbackServer {
 public:
  using Handler = std::function<Reply(const Seen&)>;
  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (listener_ < 0 || bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 64) != 0 || getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no loopback server");
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::jthread([this](const std::stop_token& stop) { accept_all(stop); });
  }
  ~LoopbackServer() {
    acceptor_.request_stop();
    acceptor_.join();
    stopping_ = true;
    connections_.clear();
    close(listener_);
  }
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<Seen> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  /// How many requests had this method and a target with this in it.
  size_t count(std::string_view method, std::string_view part) const {
    size_t n = 0;
    for (const Seen& s : seen()) n += s.method == method && s.target.find(part) != std::string::npos ? 1 : 0;
    return n;
  }

 private:
  void accept_all(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      pollfd ready{.fd = listener_, .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd >= 0) connections_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    std::string buffer;
    while (!stopping_) {
      const size_t end = buffer.find("\r\n\r\n");
      if (end == std::string::npos) {
        pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
        const int n = poll(&ready, 1, 10);
        if (n == 0) continue;
        char piece[4096];
        const ssize_t got = recv(fd, piece, sizeof piece, 0);
        if (n < 0 || got <= 0) break;
        buffer.append(piece, static_cast<size_t>(got));
        continue;
      }
      const Seen request = parse(std::string_view(buffer).substr(0, end + 2));
      buffer.erase(0, end + 4);
      {
        const std::lock_guard lock(mutex_);
        seen_.push_back(request);
      }
      if (!answer(fd, request, handler_(request))) break;
    }
    close(fd);
  }

  static Seen parse(std::string_view text) {
    Seen seen;
    const auto line = [&text] {
      const size_t end = text.find("\r\n");
      const std::string_view out = text.substr(0, end);
      text.remove_prefix(end + 2);
      return out;
    };
    const std::string_view first = line();
    const size_t a = first.find(' '), b = first.rfind(' ');
    seen.method = first.substr(0, a);
    seen.target = first.substr(a + 1, b - a - 1);
    while (!text.empty()) {
      const std::string_view header = line();
      const size_t colon = header.find(':');
      std::string name(header.substr(0, colon));
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      seen.headers[name] = header.substr(std::min(header.size(), colon + 2));
    }
    return seen;
  }

  bool send_all(int fd, std::string_view bytes) const {
    while (!bytes.empty()) {
      if (stopping_) return false;
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      if (poll(&ready, 1, 10) == 0) continue;
      const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  bool answer(int fd, const Seen& request, Reply reply) const {
    const bool no_body = request.method == "HEAD" || reply.head_only;
    std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " x\r\n";
    if (!reply.headers.contains("Content-Length")) reply.headers["Content-Length"] = std::to_string(reply.body.size());
    for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
    if (!send_all(fd, head + "\r\n")) return false;
    if (no_body) return true;
    const std::string_view body = std::string_view(reply.body).substr(0, reply.drop_after);
    constexpr size_t kPiece = size_t{1} << 16;
    for (size_t at = 0; at < body.size(); at += kPiece) {
      if (!send_all(fd, body.substr(at, kPiece))) return false;
      if (reply.pause.count() > 0) std::this_thread::sleep_for(reply.pause);
    }
    // A body that is not as long as was said ends with the connection.
    return body.size() == std::stoull(reply.headers.at("Content-Length"));
  }

  Handler handler_;
  int listener_;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::vector<Seen> seen_;
  std::atomic<bool> stopping_{false};
  std::deque<std::jthread> connections_;
  std::jthread acceptor_;
};

/// Hash of a file as the hub gives it, computed by OpenSSL here and not by the code under test.
inline std::string hash_hex(const EVP_MD* method, const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, method, nullptr);
  std::string out;
  for (unsigned int i = 0; i < size; ++i) {
    constexpr const char* kDigits = "0123456789abcdef";
    out += kDigits[digest[i] >> 4];
    out += kDigits[digest[i] & 15];
  }
  return out;
}
inline std::string lfs_hash(const std::string& bytes) { return hash_hex(EVP_sha256(), bytes); }
inline std::string git_hash(const std::string& bytes) {
  return hash_hex(EVP_sha1(), "blob " + std::to_string(bytes.size()) + std::string(1, '\0') + bytes);
}

/// A hub with one repository, as huggingface.co answers: small files are served where they are asked for, LFS files
/// (those that end in .safetensors, .bin, .zst or .parquet) by a second server, to which a redirect leads.
class FakeHub {
 public:
  /// Changes the answer to a request; `cdn` is true for the second server.
  using Twist = std::function<void(const Seen&, bool cdn, Reply&)>;

  FakeHub(std::string repo, std::map<std::string, std::string> files, std::string kind = "models")
      : repo_(std::move(repo)),
        kind_(std::move(kind)),
        files_(std::move(files)),
        cdn_([this](const Seen& seen) { return twisted(seen, true, serve_cdn(seen)); }),
        hub_([this](const Seen& seen) { return twisted(seen, false, serve_hub(seen)); }) {}

  [[nodiscard]] std::string url() const { return hub_.url(); }
  [[nodiscard]] const LoopbackServer& hub() const { return hub_; }
  [[nodiscard]] const LoopbackServer& cdn() const { return cdn_; }
  void twist(Twist twist) {
    const std::lock_guard lock(mutex_);
    twist_ = std::move(twist);
  }
  void set_file(const std::string& name, std::string bytes) { files_[name] = std::move(bytes); }
  void set_commit(std::string commit) { commit_ = std::move(commit); }
  [[nodiscard]] const std::string& commit() const { return commit_; }
  [[nodiscard]] const std::string& file(const std::string& name) const { return files_.at(name); }

  static bool is_lfs(const std::string& name) {
    for (const char* ending : {".safetensors", ".bin", ".zst", ".parquet"}) {
      if (name.ends_with(ending)) return true;
    }
    return false;
  }
  static Reply error(int status, const std::string& code, const std::string& message) {
    Reply reply{.status = status, .headers = {}, .body = "{\"error\":\"no\"}"};
    if (!code.empty()) reply.headers["X-Error-Code"] = code;
    if (!message.empty()) reply.headers["X-Error-Message"] = message;
    return reply;
  }

 private:
  Reply twisted(const Seen& seen, bool cdn, Reply reply) {
    const std::lock_guard lock(mutex_);
    if (twist_) twist_(seen, cdn, reply);
    return reply;
  }

  Reply serve_hub(const Seen& seen) const {
    const std::string api = "/api/" + kind_ + "/" + repo_ + "/revision/";
    if (seen.target.starts_with(api)) {
      const std::string revision = seen.target.substr(api.size(), seen.target.find('?') - api.size());
      if (revision != "main" && revision != commit_ && revision != "refs%2Fpr%2F1" &&
          revision != "refs%2Fconvert%2Fparquet") {
        return error(404, "RevisionNotFound", "Invalid rev id");
      }
      std::string list;
      for (const auto& [name, bytes] : files_) {
        list += (list.empty() ? "" : ",") + std::string("{\"rfilename\":\"") + name +
                "\",\"size\":" + std::to_string(bytes.size()) + "}";
      }
      return {.status = 200, .headers = {}, .body = "{\"sha\":\"" + commit_ + "\",\"siblings\":[" + list + "]}"};
    }
    const std::string resolve = (kind_ == "datasets" ? "/datasets/" : "/") + repo_ + "/resolve/" + commit_ + "/";
    if (!seen.target.starts_with(resolve)) return error(401, "", "");
    const std::string name = seen.target.substr(resolve.size());
    const auto file = files_.find(name);
    if (file == files_.end()) return error(404, "EntryNotFound", "Entry not found");
    Reply reply;
    reply.headers["X-Repo-Commit"] = commit_;
    if (is_lfs(name)) {
      reply.status = 302;
      reply.headers["X-Linked-Etag"] = "\"" + lfs_hash(file->second) + "\"";
      reply.headers["X-Linked-Size"] = std::to_string(file->second.size());
      reply.headers["Location"] = cdn_.url() + "/" + name + "?signature=secret";
      return reply;
    }
    reply.headers["ETag"] = "\"" + git_hash(file->second) + "\"";
    reply.body = file->second;
    return reply;
  }

  Reply serve_cdn(const Seen& seen) const {
    const std::string name = seen.target.substr(1, seen.target.find('?') - 1);
    const auto file = files_.find(name);
    if (file == files_.end()) return error(404, "", "");
    Reply reply;
    const std::string range = seen.header("range");
    if (range.empty()) {
      reply.body = file->second;
      return reply;
    }
    const size_t from = std::stoull(range.substr(6));
    if (from >= file->second.size()) return {.status = 416, .headers = {}, .body = ""};
    reply.status = 206;
    reply.body = file->second.substr(from);
    reply.headers["Content-Range"] = "bytes " + std::to_string(from) + "-" + std::to_string(file->second.size() - 1) +
                                     "/" + std::to_string(file->second.size());
    return reply;
  }

  std::string repo_, kind_;
  std::map<std::string, std::string> files_;
  std::string commit_ = "0123456789abcdef0123456789abcdef01234567";
  std::mutex mutex_;
  Twist twist_;
  LoopbackServer cdn_, hub_;
};

}  // namespace mxlm::hub
