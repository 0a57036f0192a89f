#pragma once

// The files beside a vocabulary that describe tokens.

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/tokenizer_class.hpp"
#include "text/tokenizer_files.hpp"

namespace mxlm::text {

/// The content of tokenizer_config.json, special_tokens_map.json and added_tokens.json, combined as
/// PreTrainedTokenizerBase._from_pretrained of transformers 5.23 combines them.
struct TokenSettings {
  nlohmann::ordered_json config;        // tokenizer_config.json after special_tokens_map.json replaced what it names
  std::map<int64_t, AddedToken> added;  // by the id in the files
  /// By role (bos_token..., and the model's own, such as image_token): the token, or nullopt if a file says null.
  std::vector<std::pair<std::string, std::optional<AddedToken>>> named;
  std::vector<AddedToken> extra;
  bool has_extra = false;  // true if tokenizer_config.json mentions extra tokens, even an empty list

  /// `in_json` are tokenizer.json's added tokens by id. Throws Error naming the file and the wrong member.
  static TokenSettings read(const TokenizerFiles& files, const std::map<int64_t, AddedToken>& in_json);

  /// The token of a role, if a file or the class names one.
  [[nodiscard]] const AddedToken* find(const std::string& role) const;
  /// Gives a role a token if no file mentions the role.
  void set_default(const std::string& role, const std::string& content);
};

/// The JSON object of a file; empty if the file is missing. Throws Error if the content is not a JSON object.
nlohmann::ordered_json object_of(const TokenizerFiles& files, const std::string& name);

}  // namespace mxlm::text
