// Any bytes as the hub's answer about a repository, as an index of shards, as a ref, a repository's name, or an address
// to be redirected to: either an Error, or names that lead nowhere outside.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "hub/api.hpp"
#include "hub/cache.hpp"
#include "hub/fetch.hpp"
#include "hub/http.hpp"
#include "io/shard_index.hpp"

namespace {

/// Independent of is_safe_name: where a path walk would end.
bool stays_inside(std::string_view name) {
  const auto path = (std::filesystem::path("/root") / name).lexically_normal().string();
  return path.starts_with("/root/");
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  using namespace mxlm;
  try {
    const hub::RepoInfo info = hub::parse_repo_info(text, "The answer");
    require(hub::is_commit(info.commit));
    for (const hub::ListedFile& file : info.files) require(stays_inside(file.name));
    for (const std::string& name : hub::model_files(info.files)) require(name.find('/') == name.npos);
  } catch (const Error&) {
  }
  try {
    for (const auto& [tensor, shard] : parse_index(text, "The index")) {
      require(stays_inside(shard) && hub::is_safe_name(shard));
    }
  } catch (const Error&) {
  }
  for (const bool bare : {false, true}) {
    const auto repo = hub::parse_repo(text, hub::RepoKind::model, bare);
    if (!repo) continue;
    require(stays_inside(repo->revision));
    require(stays_inside(repo->id));
    const hub::RepoCache cache("/root", *repo);
    require(stays_inside(cache.lock("x").lexically_relative("/root").string()));
  }
  const std::string address(text.substr(0, 4096));
  if (address.find('\0') == address.npos) {
    (void)hub::printable_url(address);
    try {
      const std::string url = hub::resolve_url("https://hub.example/a/b", address);
      require(url.starts_with("https://"));
    } catch (const Error&) {
    }
  }
  return 0;
}
