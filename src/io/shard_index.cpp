#include "io/shard_index.hpp"

#include <filesystem>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"

namespace mxlm {

namespace dom = simdjson::dom;

namespace {

// True if the name of a shard is a file in the folder of the index or below it, on this and on other systems.
bool stays_inside(std::string_view name) {
  if (name.find_first_of(std::string_view("\\\0", 2)) != name.npos) return false;
  const std::filesystem::path path(name);
  if (path.is_absolute()) return false;
  for (const auto& part : path) {
    if (part == "..") return false;
  }
  const auto normal = path.lexically_normal();
  return normal.has_filename() && normal != ".";
}

}  // namespace

std::map<std::string, std::string, std::less<>> parse_index(std::string_view text, const std::string& where) {
  dom::parser parser;
  const dom::element root = parse_json(parser, text, where, "The index");
  dom::object members, weights;
  bool found = false;
  if (root.get(members) != simdjson::SUCCESS) fail("The index {} is not a JSON object; get it again.", quote(where));
  for (const auto [key, value] : members) {
    if (key == "weight_map") found = value.get(weights) == simdjson::SUCCESS;
  }
  if (!found) fail("The index {} has no weight_map that is a JSON object; get it again.", quote(where));
  std::map<std::string, std::string, std::less<>> map;
  for (const auto [name, value] : weights) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS) {
      fail("The index {} names no shard for tensor {}; get it again.", quote(where), quote(name));
    }
    if (!stays_inside(shard)) {
      fail("The index {} names {} as a shard, which is not a file in its folder or below it; get it again.",
           quote(where), quote(shard));
    }
    map.insert_or_assign(std::string(name), std::string(shard));
  }
  if (map.empty()) fail("The index {} names no tensors; get it again.", quote(where));
  return map;
}

}  // namespace mxlm
