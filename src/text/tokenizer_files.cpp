#include "text/tokenizer_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <simdjson.h>

#include <algorithm>
#include <set>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "text/json.hpp"
#include "text/sentencepiece.hpp"
#include "text/token_settings.hpp"
#include "text/tokenizer_class.hpp"
#include "text/unicode.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using text::AddedToken;
using text::TokenizerClass;
using text::TokenSettings;

constexpr const char* kHowToConvert =
    "convert the tokenizer with transformers, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), which "
    "writes "
    "tokenizer.json ('mxlm logits' takes token ids and needs no tokenizer)";

/// tokenizer.json without its vocabulary, for comparison with the files beside it.
struct JsonParts {
  json parts;  // normalizer, pre_tokenizer, model
  std::map<int64_t, AddedToken> added;
};

JsonParts read_parts(std::string_view bytes, const std::string& name) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(bytes.data(), bytes.size()).get(root);
  if (error != simdjson::SUCCESS) fail("{}: this is not valid JSON ({})", name, simdjson::error_message(error));
  const text::Json whole{root, name};
  JsonParts out;
  const auto copy = [](const text::Json& part) { return json::parse(simdjson::minify(part.value)); };
  for (const char* key : {"normalizer", "pre_tokenizer"}) {
    if (const auto part = whole.find(key)) out.parts[key] = copy(*part);
  }
  out.parts["model"] = json::object();
  const text::Json model = whole.at("model");
  for (const auto [key, value] : model.object()) {
    if (!value.is_array() && !value.is_object()) out.parts["model"][std::string(key)] = copy({value, name});
  }
  if (const auto list = whole.find("added_tokens")) {
    size_t index = 0;
    for (const auto element : list->array()) {
      const text::Json entry = list->item(element, index++);
      AddedToken token{.content = std::string(entry.at("content").string()),
                       .single_word = entry.at("single_word").boolean(),
                       .lstrip = entry.at("lstrip").boolean(),
                       .rstrip = entry.at("rstrip").boolean(),
                       .normalized = entry.at("normalized").boolean(),
                       .special = entry.at("special").boolean()};
      out.added[entry.at("id").token_id()] = std::move(token);
    }
  }
  return out;
}

/// The tokens that the files beside the vocabulary add, in the order in which they get ids (TokenizersBackend.__init__
/// of transformers). `known` are the contents of the existing added tokens.
std::vector<AddedToken> tokens_to_add(TokenizerClass kind, const TokenSettings& settings, std::set<std::string> known) {
  std::vector<AddedToken> out;
  std::set<std::string> named;
  for (const auto& [role, token] : settings.named) {
    if (token) named.insert(token->content);
  }
  for (const auto& [id, token] : settings.added) {
    out.push_back(token);
    known.insert(token.content);
  }
  std::set<AddedToken> fresh;
  const auto add_new = [&](const AddedToken& token) {
    if (!known.contains(token.content) && fresh.insert(token).second) out.push_back(token);
  };
  for (const auto& [role, token] : settings.named) {
    if (token) add_new(*token);
  }
  for (const AddedToken& token : settings.extra) add_new(token);
  for (AddedToken& token : out) token.special = token.special || named.contains(token.content);
  if (kind == TokenizerClass::cohere) {  // it adds all of them once more
    const size_t before = out.size();
    for (const auto& [role, token] : settings.named) {
      if (token) out.push_back(*token);
    }
    out.insert(out.end(), settings.extra.begin(), settings.extra.end());
    for (size_t i = before; i < out.size(); ++i) out[i].special = true;
  }
  if (kind == TokenizerClass::qwen2) {  // it adds all of them once more, without flags
    for (const auto& [role, token] : settings.named) {
      if (token) out.push_back({.content = token->content, .normalized = false, .special = true});
    }
    for (const AddedToken& token : settings.extra) {
      out.push_back({.content = token.content, .normalized = false, .special = true});
    }
  }
  return out;
}

/// vocab.json and merges.txt, as `tokenizers` reads them.
void read_vocabulary_and_merges(const TokenizerFiles& files, json& model) {
  json& vocabulary = model["vocab"] = json::parse(files.files.find("vocab.json")->second, nullptr, false);
  if (!vocabulary.is_object()) fail("{}/vocab.json: this is not a valid JSON object", files.folder);
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_unsigned()) fail("{}/vocab.json: {} has no token id", files.folder, quote(token));
  }
  json& merges = model["merges"] = json::array();
  std::string_view rest = files.files.find("merges.txt")->second;
  if (!text::valid_utf8(rest)) fail("{}/merges.txt: this is not UTF-8", files.folder);
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    if (line.ends_with('\r') && end != rest.npos) line.remove_suffix(1);
    merges.push_back(line);
  }
}

/// vocab.txt: one token per line.
void read_word_pieces(const TokenizerFiles& files, json& model) {
  std::string_view rest = files.files.find("vocab.txt")->second;
  if (!text::valid_utf8(rest)) fail("{}/vocab.txt: this is not UTF-8", files.folder);
  json& vocabulary = model["vocab"] = json::object();
  for (int64_t id = 0; !rest.empty(); ++id) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    while (!line.empty()) {
      size_t last = line.size() - 1;
      while (last > 0 && (static_cast<unsigned char>(line[last]) & 0xC0U) == 0x80) --last;
      if (!text::is_space(text::decode_at(line, last).code)) break;
      line = line.substr(0, last);
    }
    vocabulary[std::string(line)] = id;
  }
}

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    for (size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[group >> (18 - 6 * i) & 63U] : '=';
  }
  return out;
}

/// Converts tokenizer.model into `out`, a growing tokenizer.json; its control and user-defined pieces become tokens.
void read_sentencepiece(const TokenizerFiles& files, TokenizerClass kind, TokenSettings& settings, json& out) {
  const std::string name = files.folder + "/tokenizer.model";
  const auto pieces = text::SentencePieceModel::parse(files.files.find("tokenizer.model")->second, name);
  const bool backend = kind == TokenizerClass::backend;
  json& model = out["model"];
  if (backend && pieces.algorithm == text::SentencePieceModel::Algorithm::unigram) {
    if (pieces.unk_id < 0 || static_cast<size_t>(pieces.unk_id) >= pieces.pieces.size()) {
      fail("{}: its unknown piece {} is not there", name, pieces.unk_id);
    }
    model = {{"type", "Unigram"}, {"unk_id", pieces.unk_id}, {"byte_fallback", pieces.byte_fallback}};
    json& vocabulary = model["vocab"] = json::array();
    for (const auto& piece : pieces.pieces) vocabulary.push_back(json::array({piece.text, piece.score}));
  } else {
    json& vocabulary = model["vocab"] = json::object();
    for (size_t id = 0; id < pieces.pieces.size(); ++id) vocabulary[std::string(pieces.pieces[id].text)] = id;
    json& merges = model["merges"] = json::array();
    for (const auto& [left, right] : pieces.merges(name)) merges.push_back(json::array({left, right}));
  }
  if (backend) {
    json& vocabulary = model["vocab"];
    for (const auto& [id, token] : settings.added) {  // names for pieces that the model only reserves
      if (!vocabulary.is_object() || static_cast<uint64_t>(id) >= pieces.pieces.size()) continue;
      const std::string old(pieces.pieces[static_cast<size_t>(id)].text);
      if (old == token.content || vocabulary.contains(token.content)) continue;
      vocabulary.erase(old);
      vocabulary[token.content] = id;
    }
    if (vocabulary.is_object()) {
      model.update({{"type", "BPE"},
                    {"unk_token", pieces.unk_piece},
                    {"fuse_unk", true},
                    {"byte_fallback", pieces.byte_fallback}});
    }
    json steps = json::array();
    if (!pieces.precompiled_charsmap.empty()) {
      steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(pieces.precompiled_charsmap)}});
    }
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}});
    out["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    json decoders = {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}}};
    if (pieces.byte_fallback) {
      decoders.push_back({{"type", "ByteFallback"}});
      decoders.push_back({{"type", "Fuse"}});
    }
    out["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
    if (pieces.bos_id >= 0) settings.set_default("bos_token", pieces.bos_piece);
    if (pieces.eos_id >= 0) settings.set_default("eos_token", pieces.eos_piece);
    if (pieces.unk_id >= 0) settings.set_default("unk_token", pieces.unk_piece);
  }
  if (settings.has_extra) return;  // extra_special_tokens replaces the model's own tokens
  settings.extra.clear();
  for (const auto& piece : pieces.pieces) {
    const bool control = piece.type == text::SentencePieceModel::Type::control;
    if (!control && piece.type != text::SentencePieceModel::Type::user_defined) continue;
    settings.extra.push_back({.content = std::string(piece.text), .normalized = false, .special = control});
  }
}

/// Makes a tokenizer.json for a folder without one.
std::string build_json(const TokenizerFiles& files, TokenizerClass kind, TokenSettings& settings) {
  const AddedToken* unknown = settings.find("unk_token");
  json out = text::class_parts(kind, settings.config, unknown != nullptr ? unknown->content : "");
  out["added_tokens"] = json::array();
  const std::string first = text::vocabulary_files(kind).front();
  if (first == "tokenizer.model") {
    read_sentencepiece(files, kind, settings, out);
  } else if (first == "vocab.json") {
    read_vocabulary_and_merges(files, out["model"]);
  } else {
    read_word_pieces(files, out["model"]);
  }
  return out.dump();
}

/// The tokens around a text if no tokenizer.json gives a template.
TokenizerAdditions::Template template_of(TokenizerClass kind, const TokenSettings& settings) {
  const auto wants = [&](const char* key, bool absent) {
    const auto it = settings.config.find(key);
    return it == settings.config.end() ? absent : it->is_boolean() && it->get<bool>();
  };
  TokenizerAdditions::Template out;
  const auto add = [&](std::vector<std::string>& to, const char* role) {
    if (const AddedToken* token = settings.find(role)) to.push_back(token->content);
  };
  if (kind == TokenizerClass::bert || kind == TokenizerClass::roberta) {
    add(out.before, "cls_token");
    add(out.after, "sep_token");
    return out;
  }
  if (wants("add_bos_token", kind == TokenizerClass::code_llama)) add(out.before, "bos_token");
  if (wants("add_eos_token", false)) add(out.after, "eos_token");
  return out;
}

/// The sentence of FolderTokenizer::difference for a tokenizer.json that transformers changes.
std::string difference_of(const TokenizerFiles& files, TokenizerClass kind, const TokenSettings& settings,
                          const JsonParts& parts, const std::vector<AddedToken>& added, const Tokenizer& tokenizer) {
  if (kind == TokenizerClass::backend) return "";
  const AddedToken* unknown = settings.find("unk_token");
  std::vector<std::string> different = text::different_parts(
      parts.parts, text::class_parts(kind, settings.config, unknown != nullptr ? unknown->content : ""));
  // Only GPTNeoXTokenizer forgets the template of tokenizer.json.
  if (kind == TokenizerClass::gpt_neox && !(tokenizer.prefix().empty() && tokenizer.suffix().empty())) {
    different.emplace_back("post_processor");
  }
  std::set<std::string_view> kept;
  for (const AddedToken& token : added) kept.insert(token.content);
  const auto is_kept = [&](const auto& entry) { return kept.contains(entry.second.content); };
  if (!std::all_of(parts.added.begin(), parts.added.end(), is_kept)) different.emplace_back("added_tokens");
  if (different.empty()) return "";
  return fmt::format(
      "{}: tokenizer.json is used as it is; transformers 5 builds a {} with another {} from it, so that ids of some "
      "texts "
      "differ there.",
      files.folder, text::class_name(kind), fmt::join(different, " and "));
}

[[noreturn]] void fail_without_vocabulary(const TokenizerFiles& files, TokenizerClass kind) {
  std::vector<std::string> there = files.others;
  for (const char* name : {"vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"}) {
    if (files.files.contains(name)) there.emplace_back(name);
  }
  if (there.empty()) {
    fail(
        "The folder '{}' holds no tokenizer; is the download complete? ('mxlm logits' takes token ids and needs none.)",
        files.folder);
  }
  fail("The folder '{}' has no tokenizer.json but {}, which mxlm does not read for a {}; {}.", files.folder,
       fmt::join(there, ", "), text::class_name(kind), kHowToConvert);
}

/// The id of a role: from the tokenizer's files, where null means no token; else from config.json (the first id of a
/// list).
int32_t role_id(const std::string& role, const TokenSettings& settings, const ordered_json& config,
                const Tokenizer& tokenizer) {
  const auto named = std::find_if(settings.named.begin(), settings.named.end(),
                                  [&](const auto& entry) { return entry.first == role + "_token"; });
  if (named != settings.named.end()) {
    return named->second ? tokenizer.id_of(named->second->content).value_or(-1) : -1;
  }
  ordered_json id = config.value(role + "_token_id", ordered_json());
  if (id.is_array()) id = id.empty() ? ordered_json() : ordered_json(id[0]);
  if (!id.is_number_integer()) return -1;
  const auto number = id.get<int64_t>();
  return number < 0 || number > text::kMaxTokenId ? -1 : static_cast<int32_t>(number);
}

/// transformers reads tokenizer.VERSION.json instead of tokenizer.json where tokenizer_config.json lists such a file.
void refuse_other_versions(const ordered_json& config, const std::string& folder) {
  const auto list = config.find("fast_tokenizer_files");
  if (list == config.end() || !list->is_array()) return;
  for (const auto& entry : *list) {
    if (!entry.is_string()) continue;
    const auto file = entry.get<std::string>();
    if (file.starts_with("tokenizer.") && file.ends_with(".json") && file != "tokenizer.json") {
      fail(
          "'{}/tokenizer_config.json' lists {} for some versions of transformers, and tokenizer.json alone is read; "
          "copy the file that is meant to tokenizer.json and leave out 'fast_tokenizer_files'.",
          folder, quote(file));
    }
  }
}

}  // namespace

const std::vector<std::string>& tokenizer_file_names() {
  static const std::vector<std::string> names = {"tokenizer.json",
                                                 "tokenizer_config.json",
                                                 "special_tokens_map.json",
                                                 "added_tokens.json",
                                                 "vocab.json",
                                                 "merges.txt",
                                                 "vocab.txt",
                                                 "tokenizer.model",
                                                 "config.json"};
  return names;
}

bool is_other_tokenizer_file(std::string_view name) {
  const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
  return name == "tekken.json" || ends(".tiktoken") || ends(".model") || ends(".spm") || ends(".bpe.codes") ||
         name.starts_with("tokenizer.model.") || (name.starts_with("tokenization_") && ends(".py"));
}

FolderTokenizer read_tokenizer(const TokenizerFiles& files) {
  const auto json_file = files.files.find("tokenizer.json");
  const bool has_json = json_file != files.files.end();
  const std::string name = files.folder + "/tokenizer.json";
  JsonParts parts;
  if (has_json) parts = read_parts(json_file->second, name);
  TokenSettings settings = TokenSettings::read(files, parts.added);
  refuse_other_versions(settings.config, files.folder);
  const ordered_json config = text::object_of(files, "config.json");
  const auto text_of = [](const ordered_json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  std::string declared = text_of(settings.config, "tokenizer_class");
  if (declared.empty()) declared = text_of(config, "tokenizer_class");
  const TokenizerClass kind =
      text::tokenizer_class(text_of(config, "model_type"), declared,
                            has_json && json_file->second.find("\"ByteLevel\"") != std::string_view::npos);
  for (const char* role :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    settings.set_default(role, text::default_token(kind, role));
  }
  if (kind == TokenizerClass::code_llama) {  // each is checked before the later ones of this list
    settings.set_default("fill_token", "<FILL_ME>");
    settings.set_default("eot_token", "\u2581<EOT>");
    settings.set_default("suffix_token", "\u2581<SUF>");
    settings.set_default("middle_token", "\u2581<MID>");
    settings.set_default("prefix_token", "\u2581<PRE>");
  }
  std::string built;
  if (!has_json) {
    for (const std::string& file : text::vocabulary_files(kind)) {
      if (!files.files.contains(file)) fail_without_vocabulary(files, kind);
    }
    built = build_json(files, kind, settings);
  }
  std::set<std::string> known;
  for (const auto& [id, token] : parts.added) known.insert(token.content);
  TokenizerAdditions additions;
  additions.tokens = tokens_to_add(kind, settings, has_json ? known : std::set<std::string>());
  if (!has_json) additions.replaced_template = template_of(kind, settings);
  FolderTokenizer out{.tokenizer = Tokenizer::from_json(
                          has_json ? json_file->second : std::string_view(built),
                          has_json ? name : files.folder + "/" + text::vocabulary_files(kind).front(), additions),
                      .special = {},
                      .difference = ""};
  out.special = {.bos = role_id("bos", settings, config, out.tokenizer),
                 .eos = role_id("eos", settings, config, out.tokenizer),
                 .pad = role_id("pad", settings, config, out.tokenizer)};
  if (has_json) out.difference = difference_of(files, kind, settings, parts, additions.tokens, out.tokenizer);
  return out;
}

}  // namespace mxlm
