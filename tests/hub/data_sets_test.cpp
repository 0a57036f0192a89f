// Data sets by name, from a hub on the loopback device and from the cache.
#include "io/hub/data_sets.hpp"

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
