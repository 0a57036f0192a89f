#pragma once

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

/// What tokenizer_config.json, special_tokens_map.json and added_tokens.json say, put together as
/// PreTrainedTokenizerBase._from_pretrained of transformers 5.23 does.
struct TokenSettings {
  nlohmann::ordered_json config;  // tokenizer_config.json, in which special_tokens_map.json has replaced what it names
  std::map<int64_t, AddedToken> added;  // by the id that the files give
  /// By role (bos_token..., and the model's own, as image_token): the token, or nullopt where a file says null.
  std::vector<std::pair<std::string, std::optional<AddedToken>>> named;
  std::vector<AddedToken> extra;
  bool has_extra = false;  // whether tokenizer_config.json speaks of extra tokens, even of none

  /// `in_json` are tokenizer.json's added tokens by id. Throws Error naming the file and the member that is wrong.
  static TokenSettings read(const TokenizerFiles& files, const std::map<int64_t, AddedToken>& in_json);

  /// The token of a role, if a file or the class names one.
  [[nodiscard]] const AddedToken* find(const std::string& role) const;
  /// Gives a role a token where no file speaks of the role.
  void set_default(const std::string& role, const std::string& content);
};

/// The JSON object of a file; an empty one where the file is missing. Throws Error if the file is no JSON object.
nlohmann::ordered_json object_of(const TokenizerFiles& files, const std::string& name);

}  // namespace mxlm::text
