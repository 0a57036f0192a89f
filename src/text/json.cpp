#include "text/json.hpp"

#include "base/error.hpp"

namespace mxlm::text {

std::optional<Json> Json::find(std::string_view key) const {
  simdjson::dom::element member;
  const auto error = object().at_key(key).get(member);
  if (error != simdjson::SUCCESS || member.is_null()) return std::nullopt;
  return Json{member, where + "." + std::string(key)};
}

Json Json::at(std::string_view key) const {
  auto member = find(key);
  if (!member) fail("{}: the member \"{}\" is missing", where, key);
  return *std::move(member);
}

Json Json::item(simdjson::dom::element element, size_t index) const {
  return {element, where + "[" + std::to_string(index) + "]"};
}

simdjson::dom::array Json::array() const {
  simdjson::dom::array out;
  if (value.get(out) != simdjson::SUCCESS) fail("{}: should be an array", where);
  return out;
}

simdjson::dom::object Json::object() const {
  simdjson::dom::object out;
  if (value.get(out) != simdjson::SUCCESS) fail("{}: should be an object", where);
  return out;
}

std::string_view Json::string() const {
  std::string_view out;
  if (value.get(out) != simdjson::SUCCESS) fail("{}: should be a string", where);
  return out;
}

bool Json::boolean() const {
  bool out = false;
  if (value.get(out) != simdjson::SUCCESS) fail("{}: should be true or false", where);
  return out;
}

int32_t Json::token_id() const {
  uint64_t out = 0;
  if (value.get(out) != simdjson::SUCCESS) fail("{}: should be a token id, an integer from 0 on", where);
  if (out > static_cast<uint64_t>(kMaxTokenId))
    fail("{}: the token id {} is above the limit of {}", where, out, kMaxTokenId);
  return static_cast<int32_t>(out);
}

bool Json::boolean_or(std::string_view key, bool otherwise) const {
  const auto member = find(key);
  return member ? member->boolean() : otherwise;
}

}  // namespace mxlm::text
