#include "io/shard_index.hpp"

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"

namespace mxlm {

namespace dom = simdjson::dom;

std::map<std::string, std::string, std::less<>> parse_index(std::string_view text, const std::string& where) {
  dom::parser parser;
  const dom::element root = parse_json(parser, text, where, "The index");
  dom::object members, weights;
  bool found = false;
  if (root.get(members) != simdjson::SUCCESS) fail("The index {} is not a JSON object; get it again.", quote(where));
  for (const auto [key, value] : members) {
    if (key != "weight_map") continue;
    if (found) fail("The index {} has two weight_maps; get it again.", quote(where));
    found = value.get(weights) == simdjson::SUCCESS;
    if (!found) break;
  }
  if (!found) fail("The index {} has no weight_map that is a JSON object; get it again.", quote(where));
  std::map<std::string, std::string, std::less<>> map;
  for (const auto [name, value] : weights) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS) {
      fail("The index {} names no shard for tensor {}; get it again.", quote(where), quote(name));
    }
    // A plain name keeps the index from reaching outside its folder.
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos) {
      fail("The index {} names {} as a shard, which is not a plain file name in its folder; get it again.",
           quote(where), quote(shard));
    }
    if (!map.emplace(name, shard).second) {
      fail("The index {} names tensor {} twice; get it again.", quote(where), quote(name));
    }
  }
  if (map.empty()) fail("The index {} names no tensors; get it again.", quote(where));
  return map;
}

}  // namespace mxlm
