// Tokenizers of folders: what AutoTokenizer of transformers makes of the same files, as
// tools/goldens/make_tokenizer_folder_goldens.py wrote it down, and files that make no sense.

#include "text/tokenizer_files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "text/sentencepiece.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Folder = std::map<std::string, std::string>;

const json& folder_goldens() {
  static const json all = [] {
    std::ifstream in(MXLM_TEST_DATA "/text/folders.json", std::ios::binary);
    return json::parse(in);
  }();
  return all;
}

std::string from_base64(const std::string& text) {
  static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const size_t digit = digits.find(c);
    if (digit == digits.npos) break;
    group = group << 6 | static_cast<uint32_t>(digit);
    if ((bits += 6) >= 8) out += static_cast<char>(group >> (bits -= 8) & 0xffU);
  }
  return out;
}

/// The bytes of a file of the goldens.
std::string bytes_of(const std::string& content) {
  if (content.starts_with("@")) return bytes_of(folder_goldens()["shared"][content.substr(1)]);
  return content.starts_with("base64:") ? from_base64(content.substr(7)) : content;
}

std::string shared(const std::string& name) { return bytes_of("@" + name); }

FolderTokenizer read_folder(const Folder& folder, const std::vector<std::string>& others = {}) {
  TokenizerFiles files{.folder = "model", .files = {}, .others = others};
  for (const auto& [name, bytes] : folder) files.files.emplace(name, bytes);
  return read_tokenizer(files);
}

TEST(TokenizerFolders, EncodeAsAutoTokenizer) {
  const json& texts = folder_goldens()["texts"];
  size_t compared = 0;
  for (const json& golden : folder_goldens()["cases"]) {
    const std::string name = golden["name"];
    SCOPED_TRACE(name);
    Folder folder;
    for (const auto& [file, content] : golden["files"].items()) {
      folder[file] = bytes_of(content);
      if (file == "tokenizer.json") {
        json whole = json::parse(folder[file]);
        whole["model"] = json::parse(bytes_of(whole["model"]));
        folder[file] = whole.dump();
      }
    }
    std::optional<FolderTokenizer> read_or_refused;
    try {
      read_or_refused = read_folder(folder);
    } catch (const Error& e) {
      // These two need the models Unigram and WordPiece, which are compared as soon as they are read.
      EXPECT_TRUE(name == "a unigram model" || name == "bert") << e.what();
      EXPECT_THAT(e.what(), HasSubstr("is not supported, only BPE is"));
      continue;
    }
    const FolderTokenizer& read = *read_or_refused;
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::string text = texts[i];
      EXPECT_EQ(read.tokenizer.encode(text, false), golden["ids"][i].get<std::vector<int32_t>>()) << text;
      EXPECT_EQ(read.tokenizer.encode(text, true), golden["special"][i].get<std::vector<int32_t>>()) << text;
      ++compared;
    }
    EXPECT_EQ(read.tokenizer.decode(golden["special"][2].get<std::vector<int32_t>>()), golden["decoded"]);
    EXPECT_EQ(read.special.bos, golden["bos"]);
    EXPECT_EQ(read.special.eos, golden["eos"]);
    EXPECT_EQ(read.special.pad, golden["pad"]);
    // Where transformers gives other ids than tokenizer.json, and only there, a sentence says so.
    EXPECT_EQ(read.difference.empty(), golden["oracle"] == "transformers") << read.difference;
  }
  EXPECT_GE(compared, 400U);
}

/// A tokenizer.json in which "<s>" is 0, "</s>" 1, "<pad>" 2 and "a" 3.
std::string four_tokens() {
  const json whole = {
      {"version", "1.0"},
      {"model",
       {{"type", "BPE"}, {"vocab", {{"<s>", 0}, {"</s>", 1}, {"<pad>", 2}, {"a", 3}}}, {"merges", json::array()}}}};
  return whole.dump();
}

void expect_special(const std::string& tokenizer_config, const std::string& config, int32_t bos, int32_t eos,
                    int32_t pad) {
  Folder folder = {{"tokenizer.json", four_tokens()}, {"config.json", config}};
  if (!tokenizer_config.empty()) folder["tokenizer_config.json"] = tokenizer_config;
  const SpecialTokens got = read_folder(folder).special;
  EXPECT_EQ(got.bos, bos) << tokenizer_config << config;
  EXPECT_EQ(got.eos, eos) << tokenizer_config << config;
  EXPECT_EQ(got.pad, pad) << tokenizer_config << config;
}

TEST(TokenizerFolders, TheTokenizersOwnConfigurationSaysFirstWhichTokensAreSpecial) {
  const std::string model = R"({"bos_token_id": 3, "eos_token_id": [2, 3], "pad_token_id": null})";
  expect_special("", model, 3, 2, -1);
  expect_special("{}", model, 3, 2, -1);
  expect_special(R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})", model, 0, 1, -1);
  // null means that the tokenizer has none, whatever the model's configuration says (Qwen2).
  expect_special(R"({"bos_token": null, "pad_token": "<pad>"})", model, -1, 2, 2);
  expect_special("", R"({"bos_token_id": -5, "eos_token_id": [], "pad_token_id": 1e300})", -1, -1, -1);
  expect_special("", R"({"bos_token_id": "0", "eos_token_id": 99999999999, "pad_token_id": [[0]]})", -1, -1, -1);
}

TEST(TokenizerFolders, NumbersThatPythonAloneReadsAreOfNoInterest) {
  expect_special(
      "\xef\xbb\xbf"
      R"({"model_max_length": Infinity, "x": [NaN, -1e999], "pad_token": "<pad>"})",
      R"({"bos_token_id": NaN, "eos_token_id": 10000000000000000000000})", -1, -1, 2);
  // Of two members with one name the last one holds.
  expect_special(R"({"pad_token": "a", "eos_token": "a", "pad_token": "<pad>"})", "{}", -1, 3, 2);
  expect_special(R"({"model_max_length": 1000000000000000019884624838656, "pad_token": "<pad>"})", "{}", -1, -1, 2);
}

/// Expects that a folder is refused with a sentence that names `file` and says `what`.
void expect_folder_refused(const Folder& folder, const std::string& file, const std::string& what) {
  try {
    read_folder(folder);
    ADD_FAILURE() << "accepted, instead of: " << file << ": " << what;
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(file));
    EXPECT_THAT(e.what(), HasSubstr(what));
  }
}

TEST(TokenizerFolders, WhatMakesNoSenseIsRefused) {
  const auto beside = [](const std::string& file, const std::string& text) {
    return Folder{{"tokenizer.json", four_tokens()}, {file, text}};
  };
  expect_folder_refused(beside("tokenizer_config.json", "[]"), "tokenizer_config.json", "not a valid JSON object");
  expect_folder_refused(beside("config.json", "{"), "config.json", "not a valid JSON object");
  expect_folder_refused(beside("tokenizer_config.json", R"({"eos_token": 7})"), "eos_token", "should be a token");
  expect_folder_refused(beside("tokenizer_config.json", R"({"eos_token": {"id": 2}})"), "eos_token",
                        "should be a token");
  expect_folder_refused(beside("tokenizer_config.json", R"({"eos_token": {"content": "x", "lstrip": 1}})"), "lstrip",
                        "true or false");
  expect_folder_refused(beside("tokenizer_config.json", R"({"added_tokens_decoder": []})"), "added_tokens_decoder",
                        "should be an object");
  expect_folder_refused(beside("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "y"}}})"), "'x'",
                        "not a token id");
  expect_folder_refused(beside("tokenizer_config.json", R"({"added_tokens_decoder": {"-1": {"content": "y"}}})"), "-1",
                        "not a token id");
  expect_folder_refused(beside("tokenizer_config.json", R"({"added_tokens_decoder": {"1": "y"}})"), "'1'",
                        "should be an object");
  expect_folder_refused(beside("tokenizer_config.json", R"({"extra_special_tokens": 3})"), "extra_special_tokens",
                        "list");
  expect_folder_refused(beside("tokenizer_config.json", R"({"fast_tokenizer_files": [1, "tokenizer.4.0.0.json"]})"),
                        "tokenizer_config.json", "lists 'tokenizer.4.0.0.json'");
  EXPECT_NO_THROW(read_folder(beside("tokenizer_config.json", R"({"fast_tokenizer_files": ["tokenizer.json"]})")));
  expect_folder_refused(beside("added_tokens.json", R"({"x": "1"})"), "added_tokens.json", "token id");
  expect_folder_refused(beside("added_tokens.json", R"({"x": 99999999999})"), "added_tokens.json", "token id");
  const std::string deep = std::string(100000, '[');
  expect_folder_refused(beside("special_tokens_map.json", R"({"x": )" + deep + "1" + std::string(100000, ']') + "}"),
                        "special_tokens_map.json", "too deep");
  const std::string gpt2 = R"({"model_type": "gpt2"})";
  expect_folder_refused({{"config.json", gpt2}, {"vocab.json", "[]"}, {"merges.txt", "a b"}}, "vocab.json",
                        "JSON object");
  expect_folder_refused({{"config.json", gpt2}, {"vocab.json", R"({"a": -1})"}, {"merges.txt", "#version"}},
                        "vocab.json", "token id");
  expect_folder_refused({{"config.json", gpt2}, {"vocab.json", R"({"a": 1})"}, {"merges.txt", "a"}}, "merges", "space");
  expect_folder_refused({{"config.json", gpt2}, {"vocab.json", R"({"a": 1})"}, {"merges.txt", "\xff"}}, "merges.txt",
                        "UTF-8");
  expect_folder_refused({{"config.json", R"({"model_type": "llama"})"},
                         {"tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": 1})"},
                         {"tokenizer.model", shared("llama_model")}},
                        "legacy", "true or false");
}

TEST(TokenizerFolders, AFolderWithoutAKnownTokenizerIsToldWhatItHolds) {
  expect_folder_refused({}, "model", "holds no tokenizer");
  expect_folder_refused({{"config.json", R"({"model_type": "llama"})"}, {"vocab.json", "{}"}, {"merges.txt", "x"}},
                        "vocab.json, merges.txt", "save_pretrained");
  expect_folder_refused({{"config.json", R"({"model_type": "gpt2"})"}, {"vocab.json", "{}"}}, "vocab.json",
                        "save_pretrained");
  try {
    read_folder({{"config.json", R"({"model_type": "qwen"})"}}, {"qwen.tiktoken"});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("qwen.tiktoken"));
    EXPECT_THAT(e.what(), HasSubstr("mxlm logits"));
  }
  EXPECT_TRUE(is_other_tokenizer_file("tekken.json"));
  EXPECT_TRUE(is_other_tokenizer_file("tokenizer.model.v3"));
  EXPECT_FALSE(is_other_tokenizer_file("model.safetensors"));
}

/// A field of a protocol buffer message that holds bytes.
std::string field(uint32_t number, const std::string& bytes) {
  std::string out;
  for (uint64_t value : {uint64_t{number} << 3 | 2, uint64_t{bytes.size()}}) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80U);
    out += static_cast<char>(value);
  }
  return out + bytes;
}

std::string piece(const std::string& text) { return field(1, field(1, text)); }

void expect_model_refused(const std::string& bytes, const std::string& what) {
  try {
    const auto model = text::SentencePieceModel::parse(bytes, "tokenizer.model");
    static_cast<void>(model.merges("tokenizer.model"));
    ADD_FAILURE() << "accepted, instead of: " << what;
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("tokenizer.model"));
    EXPECT_THAT(e.what(), HasSubstr(what));
  }
}

TEST(SentencePiece, HostileFilesAreRefused) {
  expect_model_refused("", "no pieces");
  expect_model_refused("<html>404</html>", "not a SentencePiece model");
  expect_model_refused("version https://git-lfs.github.com/spec/v1\n", "not a SentencePiece model");
  expect_model_refused(std::string(20, '\xff'), "not a SentencePiece model");
  expect_model_refused(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "not a SentencePiece model");
  expect_model_refused(std::string("\x0b", 1), "not a SentencePiece model");      // a group
  expect_model_refused(std::string("\x08\x01", 2), "not a SentencePiece model");  // pieces as a number
  expect_model_refused(std::string("\x00\x00", 2), "not a SentencePiece model");  // field 0
  expect_model_refused(piece("a") + piece("a"), "twice");
  expect_model_refused(piece(""), "empty");
  expect_model_refused(piece("\xc3"), "UTF-8");
  expect_model_refused(piece("a") + field(2, "\x18\x03"), "words or characters");
  expect_model_refused(piece(std::string(20000, 'a')), "too long");
  const std::string good = shared("user_model");
  size_t refused = 0;
  for (size_t size = 0; size < good.size(); size += 7) {
    try {
      static_cast<void>(text::SentencePieceModel::parse(std::string_view(good).substr(0, size), "cut"));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, good.size() / 14);  // the others end where a piece does
}

TEST(SentencePiece, MergesAreOrderedByPieceAndThenByTheLeftSide) {
  const std::string bytes =
      piece("a") + piece("b") + piece("\u2581") + piece("ab") + piece("\u2581a") + piece("\u2581ab") + piece("bb");
  const auto model = text::SentencePieceModel::parse(bytes, "m");
  using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;
  EXPECT_EQ(model.merges("m"), (Pairs{{"a", "b"}, {"\u2581", "a"}, {"\u2581", "ab"}, {"\u2581a", "b"}, {"b", "b"}}));
}

}  // namespace
}  // namespace mxlm
