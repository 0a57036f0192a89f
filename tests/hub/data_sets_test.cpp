// Data sets by name, from a hub on the loopback device and from the cache.
#include "hub/data_sets.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.hpp"
#include "hub_server.hpp"
#include "io/file.hpp"

namespace mxlm::hub {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kData = MXLM_TEST_DATA;

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

class DataSets : public testing::Test {
 protected:
  DataSets() {
    std::string name = (fs::temp_directory_path() / "mxlm_data_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
    options_.cache = folder_ / "hub";
    options_.first_delay = std::chrono::milliseconds(1);
  }
  ~DataSets() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  DocumentSource read(const std::string& what, ReadDataOptions how = {}) const {
    return read_data_set(options_, parse_data_request(what), how, nullptr);
  }

  fs::path folder_;
  Options options_;
};

class WikiText : public DataSets {
 protected:
  WikiText()
      : hub_("Salesforce/wikitext",
             {{"wikitext-2-raw-v1/test-00000-of-00001.parquet", slurp(kData / "hub/wikitext.parquet")},
              {"wikitext-2-raw-v1/train-00000-of-00002.parquet", slurp(kData / "hub/wikitext.parquet")},
              {"wikitext-2-raw-v1/train-00001-of-00002.parquet", slurp(kData / "hub/wikitext.parquet")},
              {"wikitext-2-v1/test-00000-of-00001.parquet", "the tokenised one"},
              {"wikitext-103-raw-v1/test-00000-of-00001.parquet", slurp(kData / "hub/wikitext.parquet")}},
             "datasets"),
        raw_(slurp(kData / "hub/wikitext.raw")) {
    options_.endpoint = hub_.url();
  }
  FakeHub hub_;
  std::string raw_;
};

TEST_F(WikiText, IsTheRawFileByteForByte) {
  const DocumentSource source = read("wikitext2");
  ASSERT_EQ(source.documents.size(), 1);
  EXPECT_EQ(source.documents[0].text, raw_);
  EXPECT_EQ(source.sha256, sha256_hex(std::as_bytes(std::span(raw_))));
  EXPECT_TRUE(source.is_text);
  EXPECT_EQ(source.name, "wikitext2:test");
  EXPECT_EQ(read("wikitext2:train").documents.at(0).text, raw_ + raw_);
  EXPECT_EQ(read("wikitext103:test").documents.at(0).text, raw_);
  EXPECT_EQ(hub_.cdn().count("GET", "wikitext-2-raw-v1/test"), 1);
  EXPECT_EQ(hub_.cdn().count("GET", "wikitext-2-v1"), 0);
}

TEST_F(WikiText, AsRowsWithoutBlankOnes) {
  std::vector<std::string> lines;
  std::istringstream text(raw_);
  for (std::string line; std::getline(text, line);) {
    if (line.find_first_not_of(' ') != line.npos) lines.push_back(line + "\n");
  }
  const DocumentSource source = read("wikitext2", {.field = "text", .max_documents = 0, .wikitext_rows = true});
  ASSERT_EQ(source.documents.size(), lines.size());
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(source.documents[i].text, lines[i]);
  EXPECT_FALSE(source.is_text);
  EXPECT_EQ(read("wikitext2", {.field = "text", .max_documents = 3, .wikitext_rows = true}).documents.size(), 3);
}

TEST_F(WikiText, TakesThePlaceOfThePile) {
  // This hub has no Pile; a network that is down is the same.
  EXPECT_EQ(read("pile").name, "wikitext2:test");
  const DocumentSource rows = read("pile");
  EXPECT_EQ(rows.documents.size(), 5);
  EXPECT_FALSE(rows.is_text);
  options_.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(read("pile:val:Github").documents.size(), 5);
  options_.offline = true;
  EXPECT_EQ(read("pile").documents.size(), 5);
}

TEST_F(WikiText, AShardThatIsMissingIsFetchedAgain) {
  read("wikitext2:train");
  const fs::path snapshot = options_.cache / "datasets--Salesforce--wikitext/snapshots" / hub_.commit();
  fs::remove(snapshot / "wikitext-2-raw-v1/train-00001-of-00002.parquet");
  EXPECT_EQ(read("wikitext2:train").documents.at(0).text, raw_ + raw_);
  // Under its old name, as older caches have it.
  fs::rename(options_.cache / "datasets--Salesforce--wikitext", options_.cache / "datasets--wikitext");
  options_.offline = true;
  EXPECT_EQ(read("wikitext2:train").documents.at(0).text, raw_ + raw_);
}

TEST_F(DataSets, ThePile) {
  FakeHub hub("monology/pile-uncopyrighted",
              {{"test.jsonl.zst", slurp(kData / "io/documents.jsonl.zst")},
               {"train/07.jsonl.zst", slurp(kData / "io/documents.jsonl.zst")}},
              "datasets");
  options_.endpoint = hub.url();
  EXPECT_EQ(read("pile").documents.size(), 6);
  EXPECT_EQ(read("pile:train/07").name, "pile:train/07");
  EXPECT_EQ(read("pile:test:Books3").documents.at(0).text, "First document.\n");
  EXPECT_EQ(read("pile:test:Wikipedia (en)", {.field = "text", .max_documents = 1, .wikitext_rows = false})
                .documents.at(0)
                .subset,
            "Wikipedia (en)");
  EXPECT_THROW(read("pile:test:Book3"), Error);
  for (const char* split : {"pile:train", "pile:train/30", "pile:train/0", "pile:train/0x", "pile:../x", "pile:Test"}) {
    EXPECT_THROW(read(split), UsageError) << split;
  }
}

std::vector<std::string> texts_of(const DocumentSource& source) {
  std::vector<std::string> out;
  out.reserve(source.documents.size());
  for (const Document& document : source.documents) out.push_back(document.text);
  return out;
}

// Data sets whose rows or lines are documents: what each fetches, and what else is there and is left alone.
TEST_F(DataSets, DocumentsByName) {
  struct Example {
    const char *name, *repository;
    std::map<std::string, std::string> files;
    std::vector<std::string> texts;
  };
  const std::string code = slurp(kData / "hub/code.parquet");
  const std::vector<std::string> functions = {"def one():\n    return 1\n",
                                              "def two(a):\n    \"\"\"Doubles.\"\"\"\n    return 2 * a\n"};
  const std::string gzipped = slurp(kData / "io/documents.jsonl.gz");
  const auto in_gzipped = texts_of(read_documents((kData / "io/documents.jsonl.gz").string(), "text", 0));
  const auto in_rows = texts_of(read_documents((kData / "hub/wikitext.parquet").string(), "text", 0));
  std::map<std::string, std::string> sample;
  std::vector<std::string> sample_texts;
  for (const char* part : {"arxiv", "book", "c4", "cc_2019-30", "cc_2020-05", "cc_2021-04", "cc_2022-05", "cc_2023-06",
                           "github", "stackexchange", "wikipedia"}) {
    sample[std::string(part) + "_sample.jsonl"] = std::string("{\"text\": \"of ") + part + "\", \"meta\": {}}\n";
    sample_texts.push_back(std::string("of ") + part);
  }
  sample["more_sample.jsonl"] = "not asked for";
  const std::vector<Example> examples = {
      {"code",
       "code-search-net/code_search_net",
       {{"python/test-00000-of-00001.parquet", code}, {"java/test-00000-of-00001.parquet", "never fetched"}},
       functions},
      {"code:valid",
       "code-search-net/code_search_net",
       {{"python/validation-00000-of-00001.parquet", slurp(kData / "hub/code_plain.parquet")}},
       functions},
      {"code:train",
       "code-search-net/code_search_net",
       {{"python/train-00000-of-00002.parquet", code}, {"python/train-00001-of-00002.parquet", code}},
       {functions[0], functions[1], functions[0], functions[1]}},
      {"c4",
       "allenai/c4",
       {{"en/c4-validation.00000-of-00008.json.gz", gzipped}, {"en/c4-validation.00001-of-00008.json.gz", "no"}},
       in_gzipped},
      {"c4:train",
       "allenai/c4",
       {{"en/c4-train.00000-of-01024.json.gz", gzipped}, {"en/c4-validation.00000-of-00008.json.gz", "no"}},
       in_gzipped},
      {"fineweb-edu",
       "HuggingFaceFW/fineweb-edu",
       {{"sample/10BT/000_00000.parquet", slurp(kData / "hub/wikitext.parquet")},
        {"sample/10BT/001_00000.parquet", "x"}},
       in_rows},
      {"redpajama", "togethercomputer/RedPajama-Data-1T-Sample", sample, sample_texts},
      {"lambada",
       "EleutherAI/lambada_openai",
       {{"data/lambada_test_en.jsonl", "{\"text\":\"a last word\"}\n"}, {"data/lambada_test_de.jsonl", "no"}},
       {"a last word"}},
      {"lambada:test",
       "EleutherAI/lambada_openai",
       {{"en/test-00000-of-00001.parquet", slurp(kData / "hub/wikitext.parquet")}},
       in_rows},
  };
  for (const Example& example : examples) {
    SCOPED_TRACE(example.name);
    FakeHub hub(example.repository, example.files, "datasets");
    options_.endpoint = hub.url();
    options_.cache = folder_ / "hub" / std::to_string(&example - examples.data());
    const DocumentSource source = read(example.name);
    ASSERT_FALSE(source.documents.empty());
    EXPECT_FALSE(source.is_text);
    EXPECT_EQ(texts_of(source), example.texts);
    // From the cache alone.
    options_.endpoint = "http://127.0.0.1:1";
    EXPECT_EQ(read(example.name).sha256, source.sha256);
    EXPECT_THROW(read(std::string(example.name).substr(0, std::string(example.name).find(':')) + ":dev"), UsageError);
  }
}

TEST_F(DataSets, ThePennTreebankIsOneTextFromRowsAndFromLines) {
  const std::string text = "no it was n't black monday but while the <unk>  N points";
  for (const auto& [file, bytes] : std::map<std::string, std::string>{
           {"penn_treebank/validation-00000-of-00001.parquet", slurp(kData / "hub/sentences.parquet")},
           {"ptb.valid.txt", " no it was n't black monday \n but while the <unk> \n \n N points \n"}}) {
    FakeHub hub("ptb-text-only/ptb_text_only", {{file, bytes}, {"ptb_text_only.py", "no code"}}, "datasets");
    options_.endpoint = hub.url();
    options_.cache = folder_ / "hub" / file.substr(0, 4);
    const DocumentSource source = read("ptb:validation");
    ASSERT_EQ(source.documents.size(), 1);
    EXPECT_TRUE(source.is_text);
    EXPECT_EQ(source.documents[0].text, text);
    EXPECT_EQ(source.sha256, sha256_hex(std::as_bytes(std::span(text))));
    EXPECT_EQ(read("ptb:val", {.field = "text", .max_documents = 2, .wikitext_rows = false}).documents.at(0).text,
              "no it was n't black monday but while the <unk>");
    const DocumentSource rows = read("ptb:valid", {.field = "text", .max_documents = 0, .wikitext_rows = true});
    ASSERT_EQ(rows.documents.size(), 3);
    EXPECT_EQ(rows.documents[2].text, "N points");
  }
}

// What was a script has its rows in a branch that the hub made.
TEST_F(DataSets, ConvertedDataSetsAreFound) {
  FakeHub hub("code-search-net/code_search_net",
              {{"python/test/0000.parquet", slurp(kData / "hub/code.parquet")}, {"code_search_net.py", "no code"}},
              "datasets");
  hub.twist([](const Seen& seen, bool, Reply& reply) {
    if (seen.target.find("/revision/main") == std::string::npos) return;
    reply.body =
        R"({"sha":"1111111111111111111111111111111111111111","siblings":[{"rfilename":"code_search_net.py"}]})";
  });
  options_.endpoint = hub.url();
  EXPECT_EQ(read("code").documents.size(), 2);
  EXPECT_EQ(slurp(options_.cache / "datasets--code-search-net--code_search_net/refs/refs/convert/parquet"),
            hub.commit());
  options_.offline = true;
  EXPECT_EQ(read("code").documents.size(), 2);
  EXPECT_THROW(read("code:train"), HubError);
  options_.offline = false;
  EXPECT_THROW(read("code:train"), HubError);
}

TEST_F(DataSets, SomeOfSeveralFilesAreNotAll) {
  FakeHub hub("togethercomputer/RedPajama-Data-1T-Sample", {{"arxiv_sample.jsonl", "{\"text\":\"x\"}\n"}}, "datasets");
  options_.endpoint = hub.url();
  EXPECT_THROW(read("redpajama"), HubError);
}

TEST_F(DataSets, WhatComesDamagedIsNoReasonForAnother) {
  FakeHub hub("monology/pile-uncopyrighted", {{"test.jsonl.zst", "bytes"}}, "datasets");
  hub.twist([](const Seen&, bool cdn, Reply& reply) {
    if (cdn) reply.body = "other";
  });
  options_.endpoint = hub.url();
  EXPECT_THROW(read("pile"), HubError);
}

TEST_F(DataSets, PathsWithSplitsAndColons) {
  const fs::path data = folder_ / "data";
  fs::create_directories(data);
  const auto write = [&](const std::string& name, const std::string& text, const std::string& subset) {
    std::ofstream(data / name) << R"({"text": ")" << text << R"(", "meta": {"pile_set_name": ")" << subset << "\"}}\n";
  };
  write("test-00000.jsonl", "a", "A");
  write("test-00001.jsonl", "b", "B");
  write("testing.jsonl", "c", "A");
  write("train.jsonl", "d", "A");
  write("odd:name.jsonl", "e", "A");
  const std::string path = data.string();
  EXPECT_EQ(read(path).documents.size(), 5);
  EXPECT_EQ(read(path + ":test").documents.size(), 2);
  EXPECT_EQ(read(path + ":train").documents.at(0).text, "d");
  EXPECT_EQ(read(path + ":test:B").documents.at(0).text, "b");
  EXPECT_EQ(read(path + "/odd:name.jsonl").documents.at(0).text, "e");
  EXPECT_EQ(read(path + "/train.jsonl::A").documents.at(0).text, "d");
  EXPECT_THROW(read(path + "/train.jsonl:test"), UsageError);
  EXPECT_THROW(read(path + ":validation"), Error);
  EXPECT_THROW(read(path + ":test:C"), Error);
  EXPECT_THROW(read("pyle"), UsageError);
  EXPECT_THROW(read(path + "/nothing.jsonl"), Error);
}

}  // namespace
}  // namespace mxlm::hub
