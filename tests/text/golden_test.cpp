// Ids of small tokenizers, each with one part or flag, as the `tokenizers` library has them. The goldens are made by
// tools/goldens/make_tokenizer_goldens.py, which names the library's version in the file.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "text/tokenizer.hpp"

namespace {

using nlohmann::json;

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

const json& goldens() {
  static const json all = json::parse(read(MXLM_TEST_DATA "/text/goldens.json"));
  return all;
}

mxlm::Tokenizer build(const json& golden) {
  json whole = golden["parts"];
  whole["version"] = "1.0";
  whole["model"] = goldens()["models"][golden["model"].get<std::string>()];
  whole["model"].update(golden["options"]);
  return mxlm::Tokenizer::from_json(whole.dump(), golden["name"].get<std::string>());
}

TEST(Goldens, EveryPartAndFlagEncodesAsTheLibrary) {
  const json& texts = goldens()["texts"];
  size_t compared = 0;
  for (const json& golden : goldens()["tokenizers"]) {
    const std::string name = golden["name"];
    const mxlm::Tokenizer tokenizer = build(golden);
    const bool parse_special = !golden["encode_special"].get<bool>();
    for (size_t i = 0; i < texts.size(); ++i) {
      const json& expected = golden["cases"][i];
      if (expected.is_null()) continue;  // the library itself fails there
      const std::string text = texts[i];
      const auto answer = [&](const char* kind, size_t part) {
        return goldens()[kind].at(expected.at(part).get<size_t>());
      };
      const std::vector<int32_t> ids = answer("ids", 0), special = answer("ids", 1);
      EXPECT_EQ(tokenizer.encode(text, false, parse_special), ids) << name << ", text " << i << ": " << text;
      EXPECT_EQ(tokenizer.encode(text, true, parse_special), special) << name << ", text " << i;
      EXPECT_EQ(tokenizer.decode(ids), answer("decoded", 2).get<std::string>()) << name << ", text " << i;
      ++compared;
    }
  }
  EXPECT_GT(compared, 2000U);
}

// A text whose end is not looked at has the same first ids, whatever its tokenizer does with it.
TEST(Goldens, TheFirstIdsAreThoseOfTheWholeText) {
  std::string all;
  for (const std::string text : goldens()["texts"]) all += text + "\n";
  std::string book = read(MXLM_SOURCE_DIR "/data/alice.txt").substr(0, 30'000);
  size_t shorter = 0;
  for (const json& golden : goldens()["tokenizers"]) {
    const mxlm::Tokenizer tokenizer = build(golden);
    for (const std::string& text : {all + book, book + all}) {
      std::vector<int32_t> whole;
      try {
        whole = tokenizer.encode(text, true);
      } catch (const std::exception&) {
        continue;  // it cannot encode some of the texts
      }
      for (const size_t enough : {1, 2, 7, 300, 1000, 5000}) {
        const std::vector<int32_t> first = tokenizer.encode(text, true, true, enough);
        ASSERT_GE(first.size(), std::min<size_t>(enough, whole.size())) << golden["name"];
        if (first.size() < enough) {
          ASSERT_EQ(first, whole);
        }
        ASSERT_TRUE(std::equal(first.begin(), first.end(), whole.begin())) << golden["name"] << " " << enough;
        shorter += first.size() < whole.size() ? 1 : 0;
      }
    }
  }
  EXPECT_GT(shorter, 200U);
}

TEST(Goldens, BookletEncodesAsTheLibrary) {
  const auto tokenizer =
      mxlm::Tokenizer::from_json(read(MXLM_SOURCE_DIR "/models/booklet-7m/tokenizer.json"), "booklet-7m");
  EXPECT_EQ(tokenizer.size(), 4096);
  for (const json& c : goldens()["booklet"]) {
    const std::string text = c["text"];
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text, false), ids) << text.substr(0, 60);
    EXPECT_EQ(tokenizer.encode(text, true), ids) << "its template adds nothing";
    if (text.find("<|endoftext|>") == std::string::npos) {
      EXPECT_EQ(tokenizer.decode(ids), text);
    }
  }
}

TEST(Goldens, ThreadsShareOneTokenizer) {
  const auto tokenizer =
      mxlm::Tokenizer::from_json(read(MXLM_SOURCE_DIR "/models/booklet-7m/tokenizer.json"), "booklet-7m");
  const json& cases = goldens()["booklet"];
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int repeat = 0; repeat < 3; ++repeat) {
        for (const json& c : cases) {
          if (tokenizer.encode(c["text"].get<std::string>(), false) != c["ids"].get<std::vector<int32_t>>()) ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
