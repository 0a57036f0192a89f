#include "hub/cache.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"
#include "io/file.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
}

/// The name of a user or of a repository.
bool is_part(std::string_view part) {
  constexpr size_t kLongest = 96;
  return !part.empty() && part.size() <= kLongest && std::all_of(part.begin(), part.end(), is_word) &&
         part.front() != '.' && part.front() != '-' && part.back() != '.' && part.back() != '-' &&
         part.find("..") == part.npos && part.find("--") == part.npos;
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    fail("The folder {} cannot be made ({}); set HF_HOME or HF_HUB_CACHE to a place that can be written.",
         quote(path.string()), error.message());
  }
}

}  // namespace

std::optional<Repo> parse_repo(std::string_view text, RepoKind kind, bool bare) {
  Repo repo{.kind = kind, .id = "", .revision = "main"};
  if (const size_t at = text.find('@'); at != text.npos) {
    repo.revision = text.substr(at + 1);
    if (!is_safe_name(repo.revision)) return std::nullopt;
    text = text.substr(0, at);
  }
  const size_t slash = text.find('/');
  const bool valid =
      slash == text.npos ? bare && is_part(text) : is_part(text.substr(0, slash)) && is_part(text.substr(slash + 1));
  if (!valid) return std::nullopt;
  repo.id = text;
  return repo;
}

bool is_safe_name(std::string_view name) {
  constexpr size_t kLongest = 1024;
  if (name.empty() || name.size() > kLongest) return false;
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return false;
  }
  for (size_t begin = 0;;) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == name.size()) return true;
    begin = end + 1;
  }
}

bool is_commit(std::string_view text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

RepoCache::RepoCache(fs::path cache, const Repo& repo) : cache_(std::move(cache)), revision_(repo.revision) {
  repo_folder_ = repo.kind == RepoKind::model ? "models" : "datasets";
  const size_t slash = repo.id.find('/');
  repo_folder_ += "--" + repo.id.substr(0, slash);
  if (slash != repo.id.npos) repo_folder_ += "--" + repo.id.substr(slash + 1);
  folder_ = cache_ / repo_folder_;
}

fs::path RepoCache::lock(const std::string& etag) const { return cache_ / ".locks" / repo_folder_ / (etag + ".lock"); }

std::optional<std::string> RepoCache::commit() const {
  std::error_code error;
  std::string commit = revision_;
  if (!is_commit(commit)) {
    const fs::path ref = folder_ / "refs" / revision_;
    if (!fs::is_regular_file(ref, error) || fs::file_size(ref, error) == 0) return std::nullopt;
    const FileView view = FileView::map(ref);
    const std::string_view text = view.text();
    commit = text.substr(0, std::min(text.find_last_not_of(" \r\n") + 1, text.size()));
    if (!is_commit(commit)) fail("{} does not hold a commit; remove it, and fetch again.", quote(ref.string()));
  }
  if (!fs::is_directory(snapshot(commit), error)) return std::nullopt;
  return commit;
}

std::optional<fs::path> RepoCache::file(const std::string& commit, const std::string& name) const {
  if (!is_safe_name(name)) fail("{} is not the name of a file in a repository.", quote(name));
  fs::path path = snapshot(commit) / name;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  return path;
}

std::vector<std::string> RepoCache::files(const std::string& commit) const {
  std::vector<std::string> out;
  const fs::path root = snapshot(commit);
  std::error_code error;
  std::set<fs::path> folders{fs::canonical(root, error)};  // resolved paths: a link may lead back
  for (fs::recursive_directory_iterator it(root, fs::directory_options::follow_directory_symlink, error), end;
       !error && it != end; it.increment(error)) {
    std::error_code ignored;  // the error of a link that leads nowhere
    if (it->is_directory(ignored) && !folders.insert(fs::canonical(it->path(), ignored)).second) {
      it.disable_recursion_pending();
    }
    if (it->is_regular_file(ignored)) out.push_back(it->path().lexically_relative(root).generic_string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

void RepoCache::link(const std::string& commit, const std::string& name, const std::string& etag) const {
  const fs::path pointer = snapshot(commit) / name;
  make_folder(pointer.parent_path());
  const fs::path target = fs::path("blobs") / etag;
  fs::path up = "../..";
  for (const char c : name) {
    if (c == '/') up /= "..";
  }
  const fs::path temporary = pointer.string() + fmt::format(".{}.tmp", getpid());
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_symlink(up / target, temporary, error);
  if (error == std::errc::operation_not_permitted || error == std::errc::not_supported ||
      error == std::errc::function_not_supported) {
    // A file system without links gets the file itself, as with huggingface_hub.
    error.clear();
    fs::rename(folder_ / target, pointer, error);
  } else if (!error) {
    fs::rename(temporary, pointer, error);
  }
  if (error) fail("{} cannot be written ({}).", quote(pointer.string()), error.message());
}

void RepoCache::write_ref(const std::string& commit) const {
  if (revision_ == commit) return;
  const fs::path ref = folder_ / "refs" / revision_;
  make_folder(ref.parent_path());
  write_file(ref, commit);
}

}  // namespace mxlm::hub
