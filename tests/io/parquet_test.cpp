#include "io/parquet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/documents.hpp"
#include "io/file.hpp"
#include "io_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::SizeIs;
namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kData = fs::path(MXLM_TEST_DATA) / "io";
const fs::path kFiles = kData / "parquet";

DocumentSource read(const fs::path& path, const std::string& field = "text", int64_t limit = 0) {
  return read_documents(path.string(), field, limit);
}

std::string refusal(const fs::path& path, const std::string& field = "text") {
  std::string text = message_of([&] { read(path, field); });
  EXPECT_THAT(text, HasSubstr(path.filename().string()));
  return text;
}

TEST(Parquet, IsReadAsArrowWroteIt) {
  const json golden = json::parse(read_all(kData / "parquet.json"));
  ASSERT_GT(golden["documents"].size(), 600U);
  for (const auto* name :
       {"snappy.parquet", "zstd_pages2.parquet", "gzip_large.parquet", "delta.parquet", "lz4_fallback.parquet"}) {
    const auto source = read(kFiles / name);
    json documents = json::array();
    for (const auto& document : source.documents) documents.push_back({document.text, document.subset});
    EXPECT_EQ(documents, golden["documents"]) << name;
    EXPECT_EQ(source.sha256, golden["sha256"].get<std::string>()) << name;
    EXPECT_FALSE(source.is_text);
  }
}

TEST(Parquet, StopsEarlyAndHashesOnlyTheRowsRead) {
  const auto source = read(kFiles / "few.parquet", "text", 2);
  ASSERT_THAT(source.documents, SizeIs(2));
  EXPECT_EQ(source.documents[1].text, "two");
  EXPECT_EQ(source.documents[1].subset, "");
  EXPECT_EQ(source.sha256, sha256_hex(std::as_bytes(std::span("one\ntwo\n", 8))));
  // The rest of the file holds a null.
  EXPECT_THAT(refusal(kFiles / "few.parquet"), HasSubstr("no value in the column 'text' of row 3"));
}

TEST(Parquet, TakesAnotherColumnAndReplacesInvalidUtf8) {
  const auto source = read(kFiles / "few.parquet", "other");
  ASSERT_THAT(source.documents, SizeIs(4));
  EXPECT_EQ(source.documents[0].text, "caf\xef\xbf\xbd");
  EXPECT_EQ(source.invalid_utf8, 1);
}

TEST(Parquet, ReadsMembersOfStructs) {
  const auto source = read(kFiles / "deep.parquet", "a.b.text");
  std::vector<std::pair<std::string, std::string>> rows;
  for (const auto& document : source.documents) rows.emplace_back(document.text, document.subset);
  EXPECT_EQ(rows, (std::vector<std::pair<std::string, std::string>>{{"x", "X"}, {"y", ""}, {"", ""}, {"x", "Y"}}));
  EXPECT_THAT(refusal(kFiles / "deep.parquet", "a.b"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "deep.parquet", "a.b.text.more"),
              AllOf(HasSubstr("has no column"), HasSubstr("'a.b.text' 'meta.pile_set_name'")));
}

TEST(Parquet, IsReadFromAFolder) {
  const TemporaryFolder folder;
  folder.file("b.parquet", read_all(kFiles / "few.parquet"));
  folder.file("a.jsonl", "{\"other\":\"first\"}\n");
  const auto source = read(folder.path(), "other");
  ASSERT_THAT(source.documents, SizeIs(5));
  EXPECT_EQ(source.documents[0].text, "first");
  EXPECT_EQ(source.documents[4].text, "d");
}

TEST(Parquet, RefusesColumnsThatHoldNoText) {
  EXPECT_THAT(refusal(kFiles / "few.parquet", "body"),
              AllOf(HasSubstr("has no column 'body'"), HasSubstr("--field: 'text' 'other' 'meta'")));
  EXPECT_THAT(refusal(kFiles / "numbers.parquet"), AllOf(HasSubstr("no column 'text'"), HasSubstr("there is none")));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "id"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "list.list.element"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "no_rows.parquet"), HasSubstr("holds no documents"));
}

TEST(Parquet, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  EXPECT_THAT(refusal(folder.path() / "missing.parquet"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder.file("empty.parquet", "")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(folder.file("text.parquet", "no Parquet")), HasSubstr("could not be read"));
  const std::string whole = read_all(kFiles / "few.parquet");
  for (size_t size = 1; size < whole.size(); size += 150) {
    EXPECT_THAT(refusal(folder.file("cut.parquet", whole.substr(0, size))), HasSubstr("could not be read"));
  }
  // A byte of the text changes the page's checksum.
  std::string changed = whole;
  changed[whole.find("four")] = 'F';
  EXPECT_THAT(refusal(folder.file("changed.parquet", changed)), HasSubstr("could not be read"));
}

TEST(Parquet, RefusesWhatItDoesNotKnowByName) {
  EXPECT_THAT(refusal(kFiles / "brotli.parquet", "a.b.text"), HasSubstr("codec 4 of the format"));
  const TemporaryFolder folder;
  std::string encrypted = read_all(kFiles / "few.parquet");
  encrypted.back() = 'E';
  EXPECT_THAT(refusal(folder.file("encrypted.parquet", encrypted)), HasSubstr("is encrypted"));
}

// No checksum guards these files, so that each byte is believed as far as it can be.
TEST(Parquet, AnyByteMayBeWrong) {
  for (const auto& [name, field] : {std::pair{"deep.parquet", "a.b.text"}, {"bomb.parquet", "text"}}) {
    const std::string whole = read_all(kFiles / name);
    size_t refused = 0;
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const int change : {0x01, 0x40, 0x80, 0xff}) {
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ change);
        size_t rows = 0;
        try {
          read_parquet(FileView::from_memory(name, std::as_bytes(std::span(changed))), field,
                       [&](std::string_view, std::string_view) { return ++rows < 100; });
        } catch (const Error& error) {
          ++refused;
          ASSERT_THAT(error.what(), HasSubstr(name)) << at;
        }
      }
    }
    EXPECT_GT(refused, whole.size());
  }
}

TEST(Parquet, RefusesMoreTextThanItMayHold) {
  const fs::path path = kFiles / "bomb.parquet";
  ASSERT_LT(fs::file_size(path), 1000U);  // and 10 GB when it is read
  EXPECT_THAT(message_of([&] { read_documents(path.string(), "text", 0, uint64_t{4} << 20); }),
              AllOf(HasSubstr("bomb.parquet"), HasSubstr("more than 4 MiB"), HasSubstr("--max-samples")));
  EXPECT_EQ(read(path, "text", 3).documents.size(), 3U);
}

}  // namespace
}  // namespace mxlm
