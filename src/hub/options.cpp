#include "hub/options.hpp"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <initializer_list>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;

/// The first of these variables that is set and not empty.
std::string variable(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return "";
}

bool is_true(std::string value) {
  std::transform(value.begin(), value.end(), value.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

fs::path home() {
  if (const std::string name = variable({"HOME"}); !name.empty()) return name;
  const passwd* user = getpwuid(getuid());
  return user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "/";
}

/// Replaces "~" or "~USER" at the start of a path by that home folder, as os.path.expanduser does; an unknown user
/// stays.
std::string expand_home(const std::string& path) {
  if (!path.starts_with('~')) return path;
  const size_t end = std::min(path.find('/'), path.size());
  std::string folder = home().string();
  if (end > 1) {
    const passwd* user = getpwnam(path.substr(1, end - 1).c_str());
    if (user == nullptr || user->pw_dir == nullptr) return path;
    folder = user->pw_dir;
  }
  while (folder.ends_with('/')) folder.pop_back();
  const std::string expanded = folder + path.substr(end);
  return expanded.empty() ? "/" : expanded;
}

/// Replaces $NAME and ${NAME} by the value of the variable, as os.path.expandvars does; an unset variable stays, and
/// values are not expanded again.
std::string expand_variables(const std::string& path) {
  const auto is_name = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  std::string out;
  size_t i = 0;
  while (i < path.size()) {
    size_t begin = i + 1, end = begin, next = begin;
    if (path[i] == '$' && path.compare(begin, 1, "{") == 0 && path.find('}', begin) != path.npos) {
      ++begin;
      end = path.find('}', begin);
      next = end + 1;
    } else if (path[i] == '$') {
      while (end < path.size() && is_name(path[end])) ++end;
      next = end;
    }
    const char* value = end > begin ? std::getenv(path.substr(begin, end - begin).c_str()) : nullptr;
    out += value != nullptr ? std::string(value) : path.substr(i, next - i);
    i = next;
  }
  return out;
}

/// The path of a variable's value, as huggingface_hub reads it, which also expands the value of HF_HOME twice.
fs::path path_of(const fs::path& value) { return expand_variables(expand_home(value.native())); }

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n";
  const size_t first = text.find_first_not_of(blanks);
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

std::string read_token(const fs::path& hugging_face_home) {
  if (is_true(variable({"HF_HUB_DISABLE_IMPLICIT_TOKEN"}))) return "";
  std::string token = trimmed(variable({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}));
  std::string where = "HF_TOKEN";
  if (token.empty()) {
    const std::string named = variable({"HF_TOKEN_PATH"});
    const fs::path path = path_of(named.empty() ? hugging_face_home / "token" : fs::path(named));
    where = path.string();
    constexpr size_t kLongest = 4096;
    if (std::ifstream file(path, std::ios::binary); file) {
      std::string content(kLongest, '\0');
      file.read(content.data(), static_cast<std::streamsize>(content.size()));
      content.resize(static_cast<size_t>(file.gcount()));
      token = trimmed(content);
    }
  }
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!printable) fail("The token in {} has spaces or unprintable characters; copy it again.", quote(where));
  return token;
}

}  // namespace

Options Options::from_environment() {
  Options options;
  const std::string xdg = variable({"XDG_CACHE_HOME"});
  const std::string named_home = variable({"HF_HOME"});
  const fs::path hugging_face_home =
      named_home.empty() ? (xdg.empty() ? home() / ".cache" : path_of(xdg)) / "huggingface" : path_of(named_home);
  const std::string cache = variable({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  options.cache = path_of(cache.empty() ? hugging_face_home / "hub" : fs::path(cache));
  if (const std::string endpoint = variable({"HF_ENDPOINT"}); !endpoint.empty()) options.endpoint = endpoint;
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (!options.endpoint.starts_with("https://") && !options.endpoint.starts_with("http://")) {
    fail("HF_ENDPOINT is {}, which is not an http or https address; correct or unset it.",
         quote(printable_url(options.endpoint)));
  }
  options.offline = is_true(variable({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));
  options.token = read_token(hugging_face_home);
  options.certificates = variable({"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"});
  return options;
}

std::string printable_url(const std::string& url) {
  std::string out = url.substr(0, url.find_first_of("?#"));
  const size_t host = out.find("://");
  if (host == out.npos) return out;
  const size_t path = std::min(out.find('/', host + 3), out.size());
  const size_t at = out.rfind('@', path);
  if (at != out.npos && at > host) out.erase(host + 3, at + 1 - (host + 3));
  return out;
}

}  // namespace mxlm::hub
