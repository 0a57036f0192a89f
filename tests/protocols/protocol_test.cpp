#include "protocols/protocol.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json read_json(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

/// The embedded model's tokenizer with a post-processor of our own.
Tokenizer make_tokenizer(const json& post_processor) {
  json tokenizer = read_json(std::string(MXLM_SOURCE_DIR) + "/models/booklet-7m/tokenizer.json");
  tokenizer["post_processor"] = post_processor;
  return Tokenizer::from_json(tokenizer.dump(), "tokenizer.json");
}

json golden_protocols() { return read_json(MXLM_TEST_DATA "/eval/protocols.json"); }

uint64_t fnv1a(const std::vector<Window>& windows) {
  uint64_t value = 0xCBF29CE484222325;
  for (const Window& window : windows) {
    for (const int32_t token : window.tokens) {
      for (int byte = 0; byte < 4; ++byte) {
        value = (value ^ (static_cast<uint32_t>(token) >> (8 * byte) & 0xFF)) * 0x100000001B3;
      }
    }
  }
  return value;
}

DocumentSource make_source(const json& text) {
  DocumentSource source;
  source.name = "a text";
  source.is_text = text["is_text"];
  for (const json& document : text["documents"]) source.documents.push_back({.text = document, .subset = {}});
  return source;
}

TEST(Protocol, WindowsEqualThoseCutInPython) {
  const json data = golden_protocols();
  std::map<std::string, Tokenizer> tokenizers;
  for (const auto& [name, processor] : data["post_processors"].items()) {
    tokenizers.emplace(name, make_tokenizer(processor));
  }
  const std::map<std::string, api::Bos> policies{
      {"template", api::Bos::from_template}, {"always", api::Bos::always}, {"never", api::Bos::never}};
  std::set<std::string> protocols;
  for (const json& test : data["cases"]) {
    SCOPED_TRACE(test["text"].get<std::string>() + ", " + test["protocol"].get<std::string>() + ", tokenizer " +
                 test["tokenizer"].get<std::string>() + ", context " + test["context"].dump() + ", bos " +
                 test["bos"].get<std::string>());
    protocols.insert(test["protocol"]);
    const ProtocolOptions options{.name = test["protocol"],
                                  .context = test["context"],
                                  .stride = test["protocol"] == "hf-stride" ? 20 : 0,
                                  .bos = policies.at(test["bos"]),
                                  .bos_id = 0,
                                  .prefix_id = 0,
                                  .pad_id = 0};
    const WindowSet got =
        make_windows(options, make_source(data["texts"][test["text"]]), tokenizers.at(test["tokenizer"]));
    std::vector<size_t> lengths;
    std::vector<int32_t> first, documents, score_begin, next, keys;
    std::vector<double> weights;
    std::vector<int64_t> words, bytes;
    for (const Window& window : got.windows) {
      lengths.push_back(window.tokens.size());
      first.push_back(window.tokens.front());
      documents.push_back(window.document);
      score_begin.push_back(window.score_begin);
      next.push_back(window.next);
      keys.push_back(window.keys);
      weights.push_back(window.note.weight);
      words.push_back(window.note.words);
      bytes.push_back(window.note.bytes);
    }
    ASSERT_EQ(json(lengths), test["lengths"]);
    // What a case does not name is the same for all windows.
    const auto all = [&](auto value) { return json(std::vector(lengths.size(), value)); };
    EXPECT_EQ(json(first), test.value("first", json(first)));
    EXPECT_EQ(json(documents), test.value("document", test.value("documents", all(0))));
    EXPECT_EQ(json(score_begin),
              test["score_begin"].size() == 1 ? all(test["score_begin"][0].get<int32_t>()) : test["score_begin"]);
    EXPECT_EQ(json(next), test.value("next", all(-1)));
    EXPECT_EQ(json(keys), test.value("keys", all(0)));
    EXPECT_EQ(json(weights), test.value("weight", all(0)));
    EXPECT_EQ(json(words), test.value("words", all(0)));
    EXPECT_EQ(json(bytes), test.value("bytes", all(0)));
    EXPECT_EQ(fmt::format("{:016x}", fnv1a(got.windows)), test["fnv1a"].get<std::string>());
    EXPECT_EQ(got.skipped_documents, test["skipped"].get<int64_t>());
    EXPECT_EQ(got.scored_tokens, test["scored"].get<int64_t>());
    const Aggregate wanted = test["protocol"] == "gptq"        ? Aggregate::window_mean
                             : test["protocol"] == "hf-stride" ? Aggregate::weighted_windows
                                                               : Aggregate::token_mean;
    EXPECT_EQ(got.aggregate, wanted);
    EXPECT_EQ(got.kind, test["protocol"] == "self" ? ScoreKind::self : ScoreKind::next_token);

    // Threads change nothing.
    ProtocolOptions threads = options;
    threads.loader_workers = 3;
    const WindowSet again =
        make_windows(threads, make_source(data["texts"][test["text"]]), tokenizers.at(test["tokenizer"]));
    EXPECT_EQ(fnv1a(again.windows), fnv1a(got.windows));
    EXPECT_EQ(again.skipped_documents, got.skipped_documents);

    // A limit keeps the first windows as they are.
    ProtocolOptions two = options;
    two.max_windows = 2;
    const WindowSet limited =
        make_windows(two, make_source(data["texts"][test["text"]]), tokenizers.at(test["tokenizer"]));
    ASSERT_EQ(limited.windows.size(), std::min<size_t>(2, got.windows.size()));
    for (size_t w = 0; w < limited.windows.size(); ++w) {
      EXPECT_EQ(limited.windows[w].tokens, got.windows[w].tokens);
    }

    // So many windows spread evenly are those from the middle of as many equal parts.
    ProtocolOptions some = options;
    some.windows = 3;
    const auto spread = [&] {
      return make_windows(some, make_source(data["texts"][test["text"]]), tokenizers.at(test["tokenizer"]));
    };
    if (test["protocol"] == "lmeval") {
      EXPECT_THROW(spread(), Error);
      continue;
    }
    const WindowSet set = spread();
    const size_t total = got.windows.size();
    ASSERT_EQ(set.windows.size(), std::min<size_t>(3, total));
    int64_t scored = 0, left_out = 0;
    for (size_t i = 0; i < set.windows.size(); ++i) {
      const size_t at = total > 3 ? total * (2 * i + 1) / 6 : i;
      EXPECT_EQ(set.windows[i].tokens, got.windows[at].tokens);
      EXPECT_EQ(set.windows[i].note.weight, got.windows[at].note.weight);
      scored += static_cast<int64_t>(set.windows[i].scored());
      for (size_t w = i > 0 && total > 3 ? total * (2 * i - 1) / 6 + 1 : at; w < at; ++w) {
        left_out += static_cast<int64_t>(got.windows[w].scored()) + 1;
      }
      if (i > 0) {
        EXPECT_EQ(set.windows[i].tokens_left_out, std::exchange(left_out, 0));
      }
    }
    EXPECT_EQ(set.scored_tokens, scored);
    EXPECT_EQ(set.cluster_unit, got.cluster_unit);
  }
  EXPECT_EQ(protocols.size(), protocol_names().size());
}

TEST(Wikitext, PagesAndDetokenisedTextEqualThoseOfTheHarness) {
  const json data = golden_protocols();
  ASSERT_GT(data["wikitext"].size(), 100U);
  for (const json& sample : data["wikitext"]) {
    const std::string page = sample["page"];
    EXPECT_EQ(protocols::detokenize_wikitext(page), sample["detokenized"].get<std::string>()) << page;
    EXPECT_EQ(protocols::count_words(page), sample["words"].get<int64_t>()) << page;
  }
  ASSERT_GT(data["wikitext_pages"].size(), 50U);
  for (const json& sample : data["wikitext_pages"]) {
    const std::string text = sample["text"];
    EXPECT_EQ(json(protocols::wikitext_pages(text)), sample["pages"]) << text;
  }
}

TEST(Wikitext, ADataSetOfRowsIsTheRawFile) {
  const std::string raw = " \n = A title = \n \n Some words . \n";
  DocumentSource file;
  file.is_text = true;
  file.documents.push_back({.text = raw, .subset = {}});
  DocumentSource rows;
  for (const char* row : {"", " = A title = \n", "", " Some words . \n"}) {
    rows.documents.push_back({.text = row, .subset = {}});
  }
  for (const DocumentSource* source : {&file, &rows}) {
    EXPECT_TRUE(protocols::is_wikitext(*source));
    EXPECT_EQ(protocols::raw_wikitext(*source), raw);
    EXPECT_EQ(protocols::join_rows(*source), "\n\n = A title = \n\n\n\n\n Some words . \n");
  }
  rows.documents.push_back({.text = "Two\nlines \n", .subset = {}});
  EXPECT_FALSE(protocols::is_wikitext(rows));
  file.documents[0].text = "Two\nlines \n";
  EXPECT_FALSE(protocols::is_wikitext(file));
}

class ProtocolErrors : public testing::Test {
 protected:
  static std::string message(const ProtocolOptions& options, const std::vector<std::string>& documents) {
    static const Tokenizer tokenizer = make_tokenizer(nullptr);
    DocumentSource source;
    source.name = "text.txt";
    for (const std::string& text : documents) source.documents.push_back({.text = text, .subset = {}});
    try {
      make_windows(options, source, tokenizer);
    } catch (const UsageError& error) {
      return std::string("usage: ") + error.what();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
};

TEST_F(ProtocolErrors, SayWhatIsWrong) {
  const std::string text = "One two three four five six seven eight nine ten.";
  EXPECT_THAT(message({.name = "windows", .context = 8}, {text}),
              testing::AllOf(HasSubstr("usage: "), HasSubstr("'windows'"),
                             HasSubstr("window, document, gptq, hf-stride, llamacpp, lmeval, self")));
  EXPECT_THAT(message({.context = 1}, {text}), HasSubstr("usage: --context must be 2 or more"));
  EXPECT_THAT(message({.context = -5}, {text}), HasSubstr("usage: --context"));
  EXPECT_THAT(message({.context = int64_t{1} << 40}, {text}), HasSubstr("usage: --context"));
  EXPECT_THAT(message({.context = 8, .max_windows = -1}, {text}), HasSubstr("usage: --max-windows"));
  EXPECT_THAT(message({.context = 8, .windows = -1}, {text}), HasSubstr("usage: --windows"));
  EXPECT_THAT(message({.context = 8, .max_windows = 2, .windows = 2}, {text}), HasSubstr("exclude one another"));
  EXPECT_THAT(message({.context = 8, .bos = api::Bos::always}, {text}), HasSubstr("usage: --bos always"));
  EXPECT_THAT(message({.context = 8}, {""}), HasSubstr("'text.txt' has no token to score"));
  EXPECT_THAT(message({.context = 8}, {}), HasSubstr("'text.txt' has no token to score"));
  EXPECT_THAT(message({.name = "document", .context = 8}, {"", "", "a"}), HasSubstr("no token to score"));
  EXPECT_THAT(message({.name = "gptq", .context = 1000}, {text}), HasSubstr("at least one full window of 1000 tokens"));
  EXPECT_THAT(message({.name = "gptq", .context = 8}, {}), HasSubstr("'text.txt' has 0"));
  EXPECT_THAT(message({.name = "llamacpp", .context = 8}, {text}), HasSubstr("two windows of 8 tokens"));
  EXPECT_THAT(message({.name = "llamacpp", .context = 2}, {text}), HasSubstr("usage: "));
  EXPECT_THAT(message({.name = "llamacpp", .context = 8}, {text, text}), HasSubstr("reads one text"));
  EXPECT_THAT(message({.name = "hf-stride", .context = 8, .stride = 9}, {text}), HasSubstr("usage: --stride"));
  EXPECT_THAT(message({.name = "hf-stride", .context = 8, .stride = -1}, {text}), HasSubstr("usage: --stride"));
  EXPECT_THAT(message({.context = 8, .stride = 4}, {text}), HasSubstr("usage: --stride belongs to"));
  EXPECT_THAT(message({.name = "lmeval", .context = 8}, {text}), HasSubstr("usage: protocol lmeval"));
  EXPECT_THAT(message({.name = "lmeval", .context = 8, .prefix_id = 0}, {""}), HasSubstr("no token to score"));
  EXPECT_THAT(message({.name = "self", .context = 8}, {text}), HasSubstr("usage: protocol self"));
  EXPECT_THAT(message({.name = "self", .context = 8, .pad_id = 0}, {" \n"}), HasSubstr("no token to score"));
  EXPECT_EQ(message({.context = 2}, {text}), "accepted");
  EXPECT_EQ(message({.name = "hf-stride", .context = 8, .stride = 8}, {text}), "accepted");
  EXPECT_EQ(message({.name = "llamacpp", .context = 3}, {text}), "accepted");
}

}  // namespace
}  // namespace mxlm
