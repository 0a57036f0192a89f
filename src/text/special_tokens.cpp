#include "text/special_tokens.hpp"

#include <optional>

#include "base/error.hpp"
#include "base/json.hpp"
#include "text/json.hpp"

namespace mxlm {
namespace {

namespace dom = simdjson::dom;

/// A JSON object and the parser that owns it.
class Object {
 public:
  Object(std::string_view json, const std::string& name) {
    if (json.empty()) return;
    const dom::element root = parse_json(parser_, json, name, "The text");
    if (root.get(members_) != simdjson::SUCCESS) fail("{}: this is no JSON object", name);
    present_ = true;
  }
  /// The member `key`, which may be null; nullopt where it is missing.
  [[nodiscard]] std::optional<dom::element> find(const std::string& key) const {
    dom::element member;
    if (!present_ || !last_member(members_, key, member)) return std::nullopt;
    return member;
  }

 private:
  dom::parser parser_;
  dom::object members_;
  bool present_ = false;
};

/// The id of "<s>" or {"content": "<s>", ...}; -1 for anything else.
int32_t id_of_token(dom::element value, const Tokenizer& tokenizer) {
  std::string_view content;
  if (value.is_object() && value["content"].get(value) != simdjson::SUCCESS) return -1;
  if (value.get(content) != simdjson::SUCCESS) return -1;
  return tokenizer.id_of(content).value_or(-1);
}

/// An id, or the first of a list; -1 for anything else.
int32_t first_id(dom::element value) {
  int64_t id = -1;
  if (value.is_array() && value.at(0).get(value) != simdjson::SUCCESS) return -1;
  if (value.get(id) != simdjson::SUCCESS || id < 0 || id > text::kMaxTokenId) return -1;
  return static_cast<int32_t>(id);
}

}  // namespace

SpecialTokens read_special_tokens(std::string_view tokenizer_config, std::string_view config,
                                  const Tokenizer& tokenizer) {
  const Object names(tokenizer_config, "tokenizer_config.json"), ids(config, "config.json");
  const auto role = [&](const std::string& name) {
    if (const auto token = names.find(name + "_token")) return id_of_token(*token, tokenizer);
    const auto id = ids.find(name + "_token_id");
    return id ? first_id(*id) : -1;
  };
  return {.bos = role("bos"), .eos = role("eos"), .pad = role("pad")};
}

}  // namespace mxlm
