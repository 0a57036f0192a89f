// What comes from outside and is wrong, missing or expensive.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "text/tokenizer.hpp"

namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// A tokenizer of three letters.
json small() {
  return {{"version", "1.0"},
          {"added_tokens", json::array()},
          {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"<unk>", 3}}}, {"merges", {"a b"}}}}};
}

/// Expects that the tokenizer is refused with a sentence that holds `what`.
void expect_refused(const json& tokenizer, const std::string& what) {
  try {
    mxlm::Tokenizer::from_json(tokenizer.dump(), "tokenizer.json");
    ADD_FAILURE() << "accepted, instead of: " << what << "\n" << tokenizer;
  } catch (const mxlm::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("tokenizer.json"));
    EXPECT_THAT(e.what(), HasSubstr(what));
  }
}

json with(const std::string& pointer, const json& value) {
  json out = small();
  out[json::json_pointer(pointer)] = value;
  return out;
}

json split_by(const std::string& regex) {
  return with("/pre_tokenizer",
              {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
}

json added(const std::string& content, int64_t id, bool normalized = false) {
  return {{"id", id},        {"content", content},       {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", false}};
}

std::vector<int32_t> encode(const json& tokenizer, const std::string& text) {
  return mxlm::Tokenizer::from_json(tokenizer.dump(), "t").encode(text, false);
}

TEST(HostileTokenizer, IsRefusedWithASentence) {
  for (const std::string text : {"", "{", "[]", "1", "{\"model\": 1}", "\xff", "{}"}) {
    EXPECT_THROW(mxlm::Tokenizer::from_json(text, "t"), mxlm::Error) << text;
  }
  EXPECT_THROW(mxlm::Tokenizer::from_json(std::string(5000, '['), "t"), mxlm::Error);
  json no_merges = small();
  no_merges["model"].erase("merges");
  expect_refused(no_merges, "without merges");
  expect_refused(with("/model/type", "Trigram"), "'Trigram' is not supported");
  expect_refused(with("/model/dropout", 0.1), "dropout");
  expect_refused(with("/model/merges", {"a c"}), "'c', which is not in the vocabulary");
  expect_refused(with("/model/merges", {"b a"}), "'ba', which is not in the vocabulary");
  expect_refused(with("/model/merges", {"a b c"}), "two tokens");
  expect_refused(with("/model/merges", {{"a", "b", "c"}}), "left");
  expect_refused(with("/model/merges", {7}), "left");
  expect_refused(with("/model/vocab/a", -1), "token id");
  expect_refused(with("/model/vocab/a", int64_t{1} << 40), "above the limit");
  expect_refused(with("/model/vocab/a", 1), "two tokens have the id 1");
  expect_refused(with("/model/vocab/a", "0"), "token id");
  expect_refused(with("/normalizer", {{"type", "Bert"}}), "normalizer 'Bert' is not supported");
  expect_refused(with("/pre_tokenizer", {{"type", "UnicodeScripts"}}),
                 "pre-tokenizer 'UnicodeScripts' is not supported");
  expect_refused(with("/post_processor", {{"type", "XlmProcessing"}}), "'XlmProcessing' is not supported");
  expect_refused(with("/decoder", {{"type", "CTC"}}), "decoder 'CTC' is not supported");
  expect_refused(with("/post_processor", {{"type", "TemplateProcessing"},
                                          {"single", json::array({{{"SpecialToken", {{"id", "<s>"}}}}})},
                                          {"special_tokens", json::object()}}),
                 "'<s>'");
  expect_refused(with("/added_tokens", json::array({added("x", int64_t{1} << 33)})), "above the limit");
  expect_refused(with("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "__"}}), "one character");
  json twice = with("/added_tokens", {added("X", 4, true), added("x", 5, true)});
  twice["normalizer"] = {{"type", "Lowercase"}};
  expect_refused(twice, "once normalised");
  json nothing = with("/added_tokens", json::array({added("  ", 4, true)}));
  nothing["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
  expect_refused(nothing, "leaves nothing of the added token '  '");
}

TEST(HostileTokenizer, NothingFollowsATemplate) {
  const json whole = {{"type", "TemplateProcessing"}, {"single", json::array({{{"Sequence", {{"id", "A"}}}}})}};
  const json bert = {{"type", "BertProcessing"}, {"sep", {"a", 0}}, {"cls", {"b", 1}}};
  for (const json& second : {whole, bert}) {
    const json both = json::array({whole, second});
    expect_refused(with("/post_processor", {{"type", "Sequence"}, {"processors", both}}),
                   "follows a TemplateProcessing");
  }
}

TEST(HostileTokenizer, NestedSequencesEnd) {
  json inner = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i) inner = {{"type", "Sequence"}, {"normalizers", {inner}}};
  expect_refused(with("/normalizer", inner), "nested too deeply");
}

TEST(HostileTokenizer, RegexesThatWouldMeanSomethingElseAreRefused) {
  for (const std::string regex : {R"(\p{Greek_Extended})",
                                  R"(\X)",
                                  R"(\K)",
                                  R"(\1)",
                                  "a(?i)b",
                                  "[a",
                                  "a)",
                                  R"(\p{L)",
                                  R"(\)",
                                  R"(\xff)",
                                  "(?R)",
                                  "(?1)",
                                  "(*LIMIT_MATCH=1)a",
                                  R"(\C)",
                                  "(?<=a+)b",
                                  "*",
                                  "[a&&]",
                                  "[&&a]",
                                  "[[:foo:]]",
                                  "[[:alpha:",
                                  "[a-[b]]",
                                  "[[a]-z]",
                                  "[[a]",
                                  "{2}+",
                                  "(?x: a)",
                                  "(?#x"}) {
    expect_refused(split_by(regex), "regular expression");
  }
}

TEST(HostileTokenizer, ClassesInsideClassesEnd) {
  expect_refused(split_by(std::string(10'000, '[') + "a" + std::string(10'000, ']')), "nested too deeply");
}

TEST(HostileTokenizer, WordModelsAreChecked) {
  json unigram = small();
  unigram["model"] = {{"type", "Unigram"},
                      {"unk_id", 0},
                      {"vocab", json::array({json::array({"<unk>", 0}), json::array({"a", -1.5})})}};
  EXPECT_EQ(encode(unigram, "aab"), (std::vector<int32_t>{1, 1, 0}));
  const auto changed = [&](const std::string& pointer, const json& value) {
    json out = unigram;
    out[json::json_pointer(pointer)] = value;
    return out;
  };
  expect_refused(changed("/model/vocab", json::array()), "no tokens");
  expect_refused(changed("/model/vocab/1", json::array({"a"})), "[token, score]");
  expect_refused(changed("/model/vocab/1", json::array({"a", "b"})), "[token, score]");
  expect_refused(changed("/model/unk_id", 2), "there is no token 2");
  expect_refused(changed("/model/unk_id", -1), "token id");
  EXPECT_THROW((void)encode(changed("/model/unk_id", nullptr), "b"), mxlm::Error);

  json pieces = small();
  pieces["model"] = {{"type", "WordPiece"},
                     {"unk_token", "[UNK]"},
                     {"continuing_subword_prefix", "##"},
                     {"max_input_chars_per_word", 100},
                     {"vocab", {{"a", 0}, {"##b", 1}}}};
  EXPECT_EQ(encode(pieces, "ab"), (std::vector<int32_t>{0, 1}));
  EXPECT_THROW((void)encode(pieces, "ac"), mxlm::Error);  // its unk_token has no id
  pieces["model"]["max_input_chars_per_word"] = -1;
  expect_refused(pieces, "integer from 0 on");
}

TEST(HostileTokenizer, ACharsmapStaysInsideItself) {
  const auto with_map = [](const std::string& base64) {
    return with("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", base64}});
  };
  expect_refused(with_map(""), "not whole");
  expect_refused(with_map("AAAA"), "not whole");
  expect_refused(with_map("!AAA"), "not base64");
  expect_refused(with_map("AAA"), "not base64");
  expect_refused(with_map("CAAAAAAAAAA="), "not whole");  // eight bytes of trie, of which four are there
  expect_refused(with_map("BAAAAAAAAAD/"), "no UTF-8");   // a trie of a unit, and a byte 0xff
  const json outside = with_map("BAAAAAD8//8=");          // the unit's offset leads far out of it
  EXPECT_THROW((void)encode(outside, "ab"), mxlm::Error);
}

TEST(HostileTokenizer, ARegexThatExplodesIsAnError) {
  const auto tokenizer = mxlm::Tokenizer::from_json(split_by("(?:a|aa|aaa)*(?:a+)+[cd]").dump(), "t");
  EXPECT_THROW((void)tokenizer.encode(std::string(60, 'a'), false), mxlm::Error);
  const auto deep = mxlm::Tokenizer::from_json(split_by("(?:(?:a|b)*?)*[cd]").dump(), "t");
  EXPECT_THROW((void)deep.encode(std::string(200000, 'a'), false), mxlm::Error);
}

TEST(HostileTokenizer, AnUnknownTokenThatIsMissingIsAnErrorWhenNeeded) {
  const auto tokenizer = mxlm::Tokenizer::from_json(with("/model/unk_token", "none").dump(), "t");
  EXPECT_EQ(tokenizer.encode("ab", false), std::vector<int32_t>{2});
  EXPECT_THROW((void)tokenizer.encode("abc", false), mxlm::Error);
}

TEST(LongPieces, MergeWithoutAQuadraticScan) {
  // One piece without a place to cut it: a million characters take well under a second.
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 250'000; ++i) {
    text += "abba";
    expected.insert(expected.end(), {2, 1, 0});
  }
  EXPECT_EQ(encode(small(), text), expected);
}

TEST(LongPieces, AreCutOnlyWhereNoTokenCrosses) {
  // "b a" meets in no token, so a long text is cut there; unknowns and bytes must come out as in one piece.
  json tokenizer = small();
  tokenizer["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}, {"<unk>", 3}, {"<0xC3>", 4}, {"<0xA9>", 5}, {"bb", 6}};
  tokenizer["model"]["merges"] = {"a b", "b b"};
  tokenizer["model"]["unk_token"] = "<unk>";
  tokenizer["model"]["fuse_unk"] = true;
  tokenizer["model"]["byte_fallback"] = true;
  const auto t = mxlm::Tokenizer::from_json(tokenizer.dump(), "t");
  json whole = tokenizer;
  whole["model"]["ignore_merges"] = true;  // which is never cut
  const auto uncut = mxlm::Tokenizer::from_json(whole.dump(), "t");
  const std::vector<std::string> parts = {"a", "b", "x", "\xc3\xa9", "y"};
  uint32_t state = 7;
  std::string text;
  for (int i = 0; i < 20'000; ++i) {
    state = state * 1664525U + 1013904223U;
    text += parts[(state >> 24) % parts.size()];
  }
  EXPECT_EQ(t.encode(text, false), uncut.encode(text, false));
}

TEST(LongPieces, ScanAndHeapAgree) {
  // The same random word is merged alone (a scan) and in front of a long tail that cannot merge with it (a heap).
  json tokenizer = small();
  tokenizer["model"]["vocab"] = {{"a", 0},  {"b", 1},    {"c", 2},   {"ab", 3},  {"ba", 4},
                                 {"aa", 5}, {"abab", 6}, {"aab", 7}, {"baa", 8}, {"aaba", 9}};
  tokenizer["model"]["merges"] = {"b a", "a b", "a a", "ab ab", "a ab", "ba a", "aa ba"};
  const auto t = mxlm::Tokenizer::from_json(tokenizer.dump(), "t");
  const std::string tail(100, 'c');
  uint32_t state = 1;
  for (int i = 0; i < 3000; ++i) {
    std::string word;
    for (uint32_t n = 1 + i % 40; n > 0; --n) {
      state = state * 1664525U + 1013904223U;
      word += (state >> 30) % 2 == 0 ? 'a' : 'b';
    }
    std::vector<int32_t> expected = t.encode(word, false);
    expected.insert(expected.end(), tail.size(), 2);
    ASSERT_EQ(t.encode(word + tail, false), expected) << word;
  }
}

TEST(Tokenizer, KnowsItsTokens) {
  json tokenizer = with("/added_tokens", json::array({added("<x>", 4)}));
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single", {{{"SpecialToken", {{"id", "<x>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                                 {"special_tokens", {{"<x>", {{"id", "<x>"}, {"ids", {4}}, {"tokens", {"<x>"}}}}}}};
  const auto t = mxlm::Tokenizer::from_json(tokenizer.dump(), "t");
  EXPECT_EQ(t.size(), 5);
  EXPECT_EQ(t.id_of("ab"), 2);
  EXPECT_EQ(t.id_of("<x>"), 4);
  EXPECT_EQ(t.id_of("nothing"), std::nullopt);
  EXPECT_EQ(t.prefix(), std::vector<int32_t>{4});
  EXPECT_TRUE(t.suffix().empty());
  EXPECT_EQ(t.encode("ab", true), (std::vector<int32_t>{4, 2}));
  EXPECT_EQ(t.encode("", true), std::vector<int32_t>{4});
  EXPECT_TRUE(t.encode("", false).empty());
  EXPECT_EQ(t.decode({4, 2, 99, -1}), "<x> ab");
}

}  // namespace
