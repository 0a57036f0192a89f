#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::hub {

/// A file of a repository, as the hub lists it.
struct ListedFile {
  std::string name;
  std::optional<uint64_t> size;  // bytes, if the hub said
};

/// What the hub says of a repository at a revision.
struct RepoInfo {
  std::string commit;
  std::vector<ListedFile> files;  // in name order, each name once
};

/// Reads the hub's answer to /api/models/ID/revision/REVISION (or datasets). Throws Error, beginning with `where`, if
/// it is no such answer, holds no commit, or names a file whose name would lead outside the repository.
RepoInfo parse_repo_info(std::string_view json, const std::string& where);

}  // namespace mxlm::hub
