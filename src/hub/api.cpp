#include "hub/api.hpp"

#include <simdjson.h>

#include <map>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "hub/cache.hpp"

namespace mxlm::hub {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMostFiles = 1'000'000;

dom::object parse_object(dom::parser& parser, std::string_view json, const std::string& where) {
  dom::element root;
  if (const auto error = parser.parse(json.data(), json.size()).get(root); error != simdjson::SUCCESS) {
    fail("{} is not valid JSON ({}); try again later.", where, simdjson::error_message(error));
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) fail("{} is not a JSON object; try again later.", where);
  return object;
}

}  // namespace

RepoInfo parse_repo_info(std::string_view json, const std::string& where) {
  dom::parser parser;
  const dom::object object = parse_object(parser, json, where);
  RepoInfo info;
  std::string_view commit;
  if (object["sha"].get(commit) != simdjson::SUCCESS || !is_commit(commit)) {
    fail("{} has no commit ('sha'); check HF_ENDPOINT.", where);
  }
  info.commit = commit;
  dom::array siblings;
  if (object["siblings"].get(siblings) != simdjson::SUCCESS) {
    fail("{} has no list of files ('siblings'); check HF_ENDPOINT.", where);
  }
  std::map<std::string, std::optional<uint64_t>> files;
  for (const dom::element entry : siblings) {
    std::string_view name;
    if (entry["rfilename"].get(name) != simdjson::SUCCESS) {
      fail("{} lists a file without a name; check HF_ENDPOINT.", where);
    }
    if (!is_safe_name(name)) fail("{} lists a file {}, which is not a safe name.", where, quote(name));
    uint64_t size = 0;
    const bool known = entry["size"].get(size) == simdjson::SUCCESS && size <= uint64_t{1} << 60;
    files[std::string(name)] = known ? std::optional<uint64_t>(size) : std::nullopt;
    if (files.size() > kMostFiles) fail("{} lists more than {} files.", where, kMostFiles);
  }
  info.files.reserve(files.size());
  for (const auto& [name, size] : files) info.files.push_back({.name = name, .size = size});
  return info;
}

}  // namespace mxlm::hub
