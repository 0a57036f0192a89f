#include "text/token_settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <set>
#include <unordered_map>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"
#include "text/json.hpp"

namespace mxlm::text {
namespace {

using nlohmann::ordered_json;

constexpr std::array kRoles = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

bool is_role(const std::string& key) { return std::find(kRoles.begin(), kRoles.end(), key) != kRoles.end(); }

/// A token given by its content alone: it is special and found in the text without normalisation.
AddedToken plain(const std::string& content) { return {.content = content, .normalized = false, .special = true}; }

/// "<s>" or {"content": "<s>", ...} as transformers' AddedToken reads it; `where` names file and member.
AddedToken token_of_json(const ordered_json& value, const std::string& where, std::optional<bool> special = {}) {
  if (value.is_string()) return plain(value.get<std::string>());
  const auto content = value.is_object() ? value.find("content") : value.end();
  if (!value.is_object() || content == value.end() || !content->is_string()) {
    fail("{}: should be a token, \"TEXT\" or {{\"content\": \"TEXT\", ...}}", where);
  }
  AddedToken token;
  const auto read = [&](const char* key, bool otherwise) {
    const auto it = value.find(key);
    if (it == value.end() || it->is_null()) return otherwise;
    if (!it->is_boolean()) fail("{}.{}: should be true or false", where, key);
    return it->get<bool>();
  };
  token.content = content->get<std::string>();
  token.single_word = read("single_word", false);
  token.lstrip = read("lstrip", false);
  token.rstrip = read("rstrip", false);
  token.special = special ? *special : read("special", false);
  token.normalized = read("normalized", !token.special);
  return token;
}

/// The tokens by the ids in the files. Of two tokens with the same id the later counts, but the first keeps its flags
/// for the roles that name it, as in transformers.
struct StatedTokens {
  std::map<int64_t, AddedToken> by_id;
  std::map<std::string, AddedToken> by_content;

  void add(int64_t id, const AddedToken& token, const std::string& where) {
    if (id < 0 || id > kMaxTokenId) fail("{}: {} is not a token id", where, id);
    by_id[id] = token;
    by_content[token.content] = token;
  }
};

void read_decoder(StatedTokens& added, const ordered_json& decoder, const std::string& where) {
  if (!decoder.is_object()) fail("{}: should be an object", where);
  for (const auto& [key, value] : decoder.items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const std::string entry = where + "." + quote(key);
    if (error != std::errc() || end != key.data() + key.size()) fail("{}: the key is not a token id", entry);
    if (!value.is_object()) fail("{}: should be an object", entry);
    added.add(id, token_of_json(value, entry), entry);
  }
}

bool truthy(const ordered_json& value) {
  return !value.is_null() && !(value.is_boolean() && !value.get<bool>()) &&
         !((value.is_array() || value.is_object()) && value.empty());
}

/// A parsed value with nesting of at most kJsonDepth; of members with the same key the last one counts.
ordered_json copy_of(simdjson::dom::element value) {
  switch (value.type()) {
    case simdjson::dom::element_type::OBJECT: {
      ordered_json::object_t out;  // filled as a list, because look-ups search through all members
      std::unordered_map<std::string_view, size_t> places;
      for (const auto [key, member] : simdjson::dom::object(value)) {
        const auto [place, fresh] = places.emplace(key, out.size());
        if (fresh) {
          out.emplace_back(std::string(key), copy_of(member));
        } else {
          (out.begin() + static_cast<std::ptrdiff_t>(place->second))->second = copy_of(member);
        }
      }
      return out;
    }
    case simdjson::dom::element_type::ARRAY: {
      ordered_json out = ordered_json::array();
      for (const auto element : simdjson::dom::array(value)) out.push_back(copy_of(element));
      return out;
    }
    case simdjson::dom::element_type::STRING:
      return std::string(std::string_view(value));
    case simdjson::dom::element_type::BOOL:
      return bool(value);
    case simdjson::dom::element_type::INT64:
      return int64_t(value);
    case simdjson::dom::element_type::UINT64:
      return uint64_t(value);
    case simdjson::dom::element_type::DOUBLE:
      return double(value);
    case simdjson::dom::element_type::NULL_VALUE:
      break;
  }
  return nullptr;
}

/// The contents of a list's tokens that exist as tokens while transformers reads added_tokens.json: strings, and tokens
/// of special_tokens_map.json. Objects with a "__type" become tokens later.
std::set<std::string> contents_of(const ordered_json& list) {
  std::set<std::string> out;
  if (!list.is_array()) return out;
  for (const auto& value : list) {
    if (value.is_string()) out.insert(value.get<std::string>());
    if (value.is_object() && !value.contains("__type") && value.contains("content") && value["content"].is_string()) {
      out.insert(value["content"].get<std::string>());
    }
  }
  return out;
}

/// Applies special_tokens_map.json to the configuration; its tokens are special whatever the file says.
void merge_map(ordered_json& config, const ordered_json& map) {
  for (const auto& [key, value] : map.items()) {
    if (key == "extra_special_tokens" && value.is_array()) {
      ordered_json list = config.contains(key) && config[key].is_array() ? config[key] : ordered_json::array();
      std::set<std::string> known;
      for (const auto& token : list) known.insert(token.dump());
      for (ordered_json token : value) {
        if (token.is_object()) token["special"] = true;
        if (known.insert(token.dump()).second) list.push_back(token);
      }
      config[key] = list;
      continue;
    }
    config[key] = value;
    if (value.is_object() && key != "extra_special_tokens") config[key]["special"] = true;
  }
}

}  // namespace

ordered_json object_of(const TokenizerFiles& files, const std::string& name) {
  const auto it = files.files.find(name);
  if (it == files.files.end()) return ordered_json::object();
  const std::string path = files.folder + "/" + name;
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parse_python_json(parser, it->second, root);
  if (error != simdjson::SUCCESS)
    fail("{}: this is not a valid JSON object ({})", path, simdjson::error_message(error));
  ordered_json out = copy_of(root);
  if (!out.is_object()) fail("{}: this is not a valid JSON object", path);
  return out;
}

TokenSettings TokenSettings::read(const TokenizerFiles& files, const std::map<int64_t, AddedToken>& in_json) {
  TokenSettings out;
  out.config = object_of(files, "tokenizer_config.json");
  ordered_json& config = out.config;
  const std::string config_name = files.folder + "/tokenizer_config.json";
  const std::string extra_key = "extra_special_tokens", old_extra_key = "additional_special_tokens";
  if (config.contains(old_extra_key) && !(config.contains(extra_key) && truthy(config[extra_key]))) {
    config[extra_key] = config[old_extra_key];
    config.erase(old_extra_key);
  }

  // The model's own tokens: image_token and similar ones, and a mapping of names.
  std::vector<std::pair<std::string, AddedToken>> own;
  std::unordered_map<std::string, size_t> places;
  const auto take_own = [&](const std::string& key, const ordered_json& value) {
    const auto [place, fresh] = places.emplace(key, own.size());
    if (fresh) own.emplace_back(key, AddedToken{});
    own[place->second].second = token_of_json(value, config_name + ": " + quote(key));
  };
  const auto take_mapping = [&] {
    if (!config.contains(extra_key) || !config[extra_key].is_object()) return;
    for (const auto& [key, value] : config[extra_key].items()) take_own(key, value);
    config.erase(extra_key);
  };
  for (const bool typed : {true, false}) {
    for (const auto& [key, value] : config.items()) {
      if (!key.ends_with("_token") || is_role(key)) continue;
      if (typed ? value.is_object() && value.contains("__type") : value.is_string()) take_own(key, value);
    }
  }
  take_mapping();

  StatedTokens stated;
  if (config.contains("added_tokens_decoder")) {
    read_decoder(stated, config["added_tokens_decoder"], config_name + ": added_tokens_decoder");
  } else {
    const ordered_json map = object_of(files, "special_tokens_map.json");
    merge_map(config, map);
    take_mapping();
    for (const auto& [key, value] : map.items()) {
      const bool is_token = value.is_string() || value.is_object();
      if (is_token && key.ends_with("_token") && !is_role(key) && !places.contains(key)) take_own(key, config[key]);
    }
    std::set<std::string> special = contents_of(config.value(extra_key, ordered_json()));
    for (const char* role : kRoles)
      special.merge(contents_of(ordered_json::array({config.value(role, ordered_json())})));
    const std::string name = files.folder + "/added_tokens.json";
    const ordered_json list = object_of(files, "added_tokens.json");
    for (const auto& [content, id] : list.items()) {
      const std::string where = name + ": " + quote(content);
      if (!id.is_number_integer()) fail("{}: should be a token id", where);
      const bool is_special = special.contains(content);
      stated.add(id.get<int64_t>(), {.content = content, .normalized = !is_special, .special = is_special}, where);
    }
    for (const auto& [id, token] : in_json) stated.add(id, token, files.folder + "/tokenizer.json");
  }
  out.added = std::move(stated.by_id);

  for (const std::string role : kRoles) {
    const auto it = config.find(role);
    if (it == config.end()) continue;
    if (it->is_null()) {
      out.named.emplace_back(role, std::nullopt);
      continue;
    }
    AddedToken token = token_of_json(*it, fmt::format("{}: {}", config_name, role));
    if (const auto known = stated.by_content.find(token.content); known != stated.by_content.end()) {
      token = known->second;
    }
    out.named.emplace_back(role, std::move(token));
  }
  for (auto& [role, token] : own) out.named.emplace_back(role, std::move(token));

  if (config.contains(extra_key)) {
    const ordered_json& list = config[extra_key];
    out.has_extra = true;
    if (!list.is_null() && !list.is_array()) fail("{}: {} should be a list of tokens", config_name, extra_key);
    out.extra.reserve(list.size());
    const std::string where = fmt::format("{}: {}", config_name, extra_key);
    for (const auto& value : list) out.extra.push_back(token_of_json(value, where));
  } else if (config.contains(old_extra_key) && config[old_extra_key].is_array()) {
    // Only special_tokens_map.json can have added these.
    const std::string where = fmt::format("{}/special_tokens_map.json: {}", files.folder, old_extra_key);
    for (const auto& value : config[old_extra_key]) out.extra.push_back(token_of_json(value, where));
  }
  return out;
}

const AddedToken* TokenSettings::find(const std::string& role) const {
  const auto it = std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == role; });
  return it == named.end() || !it->second ? nullptr : &*it->second;
}

void TokenSettings::set_default(const std::string& role, const std::string& content) {
  const auto same = [&](const auto& entry) { return entry.first == role; };
  if (content.empty() || std::any_of(named.begin(), named.end(), same)) return;
  // The roles keep their order, in which new tokens get their ids; the class's own tokens come after them.
  const auto rank = [](const std::string& name) {
    return std::find(kRoles.begin(), kRoles.end(), name) - kRoles.begin();
  };
  const auto at = std::find_if(named.begin(), named.end(), [&](const auto& entry) {
    return is_role(role) ? rank(entry.first) > rank(role) : !is_role(entry.first);
  });
  named.insert(at, {role, plain(content)});
}

}  // namespace mxlm::text
