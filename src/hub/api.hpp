#pragma once

// Answers of the hub's API.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::hub {

/// A file of a repository in the hub's list.
struct ListedFile {
  std::string name;
  std::optional<uint64_t> size;  // bytes, if the hub says
};

/// The hub's description of a repository at a revision.
struct RepoInfo {
  std::string commit;
  std::vector<ListedFile> files;  // in name order, each name once
};

/// Reads the hub's answer to /api/models/ID/revision/REVISION (or datasets). Throws Error, beginning with `where`, if
/// the text is not such an answer, holds no commit, or names a file whose name would lead outside the repository.
RepoInfo parse_repo_info(std::string_view json, const std::string& where);

}  // namespace mxlm::hub
