#pragma once

// The Hugging Face cache on disk.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::hub {

enum class RepoKind : uint8_t { model, dataset };

/// A repository of the hub at a revision (branch, tag or commit).
struct Repo {
  RepoKind kind = RepoKind::model;
  std::string id;  // ORG/NAME (old ones: NAME)
  std::string revision = "main";

  /// "model" or "data set", for messages.
  [[nodiscard]] const char* what() const { return kind == RepoKind::model ? "model" : "data set"; }
};

/// Reads ORG/NAME[@REVISION]; nullopt if `text` does not have that form. With `bare`, NAME alone is accepted too.
std::optional<Repo> parse_repo(std::string_view text, RepoKind kind, bool bare = false);

/// True for the relative path of a file that stays inside its repository: no empty, "." or ".." part, no backslash or
/// control character, at most 1024 bytes.
bool is_safe_name(std::string_view name);

/// True for 40 lowercase hex digits: a commit, or the hash of a small file.
bool is_commit(std::string_view text);

/// A repository in the cache on disk, in huggingface_hub's layout: refs/REVISION holds a commit, and
/// snapshots/COMMIT/NAME is a link to blobs/ETAG. Links are followed wherever they lead, as huggingface_hub does: the
/// user made them (a cache on several disks) or a download did, because a repository holds no links. What came from a
/// repository is not trusted: a ref must be a commit, and the name of a file must stay inside its folder.
class RepoCache {
 public:
  RepoCache(std::filesystem::path cache, const Repo& repo);

  [[nodiscard]] std::filesystem::path blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  [[nodiscard]] std::filesystem::path lock(const std::string& etag) const;
  [[nodiscard]] std::filesystem::path snapshot(const std::string& commit) const {
    return folder_ / "snapshots" / commit;
  }

  /// The commit of the revision, if the cache knows it and has its snapshot. Throws Error if the ref is damaged.
  [[nodiscard]] std::optional<std::string> commit() const;
  /// The path of a file in a snapshot, or nullopt. Throws Error for a name that is_safe_name refuses.
  [[nodiscard]] std::optional<std::filesystem::path> file(const std::string& commit, const std::string& name) const;
  /// The names of all files of a snapshot, sorted; folders are joined with '/'. A folder that links make appear twice
  /// is listed once.
  [[nodiscard]] std::vector<std::string> files(const std::string& commit) const;

  /// Links a snapshot's file to its blob.
  void link(const std::string& commit, const std::string& name, const std::string& etag) const;
  /// Notes that the revision is this commit now (a revision that is itself a commit needs no note).
  void write_ref(const std::string& commit) const;

 private:
  std::filesystem::path cache_, folder_;
  std::string repo_folder_, revision_;
};

}  // namespace mxlm::hub
