#include "io/parquet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/documents.hpp"
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

TEST(ParquetWithoutArrow, SaysWhatToInstall) {
  if (parquet_supported()) GTEST_SKIP() << "built with Arrow";
  EXPECT_THAT(refusal(kFiles / "snappy.parquet"), AllOf(HasSubstr("without Apache Arrow"), HasSubstr("pyarrow")));
}

class Parquet : public testing::Test {
 protected:
  void SetUp() override {
    if (!parquet_supported()) GTEST_SKIP() << "built without Arrow";
  }
};

TEST_F(Parquet, IsReadAsArrowWroteIt) {
  const json golden = json::parse(read_all(kData / "parquet.json"));
  ASSERT_GT(golden["documents"].size(), 600U);
  for (const auto* name : {"snappy.parquet", "zstd_pages2.parquet", "gzip_large.parquet", "delta.parquet"}) {
    const auto source = read(kFiles / name);
    json documents = json::array();
    for (const auto& document : source.documents) documents.push_back({document.text, document.subset});
    EXPECT_EQ(documents, golden["documents"]) << name;
    EXPECT_EQ(source.sha256, golden["sha256"].get<std::string>()) << name;
    EXPECT_FALSE(source.is_text);
  }
}

TEST_F(Parquet, StopsEarlyAndHashesOnlyTheRowsRead) {
  const auto source = read(kFiles / "few.parquet", "text", 2);
  ASSERT_THAT(source.documents, SizeIs(2));
  EXPECT_EQ(source.documents[1].text, "two");
  EXPECT_EQ(source.documents[1].subset, "");
  EXPECT_EQ(source.sha256, sha256_hex(std::as_bytes(std::span("one\ntwo\n", 8))));
  // The rest of the file holds a null.
  EXPECT_THAT(refusal(kFiles / "few.parquet"), HasSubstr("Row 3 of"));
}

TEST_F(Parquet, TakesAnotherColumnAndReplacesInvalidUtf8) {
  const auto source = read(kFiles / "few.parquet", "other");
  ASSERT_THAT(source.documents, SizeIs(4));
  EXPECT_EQ(source.documents[0].text, "caf\xef\xbf\xbd");
  EXPECT_EQ(source.invalid_utf8, 1);
}

TEST_F(Parquet, IsReadFromAFolder) {
  const TemporaryFolder folder;
  folder.file("b.parquet", read_all(kFiles / "few.parquet"));
  folder.file("a.jsonl", "{\"other\":\"first\"}\n");
  const auto source = read(folder.path(), "other");
  ASSERT_THAT(source.documents, SizeIs(5));
  EXPECT_EQ(source.documents[0].text, "first");
  EXPECT_EQ(source.documents[4].text, "d");
}

TEST_F(Parquet, RefusesColumnsThatHoldNoText) {
  EXPECT_THAT(refusal(kFiles / "few.parquet", "body"),
              AllOf(HasSubstr("no column 'body'"), HasSubstr("('text', 'other', 'meta')"), HasSubstr("--field")));
  EXPECT_THAT(refusal(kFiles / "numbers.parquet"), AllOf(HasSubstr("no column 'text'"), HasSubstr("there is none")));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "id"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "list.list.element"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "no_rows.parquet"), HasSubstr("holds no documents"));
}

TEST_F(Parquet, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  EXPECT_THAT(refusal(folder.path() / "missing.parquet"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder.file("text.parquet", "no Parquet")), HasSubstr("could not be read as Parquet"));
  const std::string whole = read_all(kFiles / "few.parquet");
  for (size_t size = 1; size < whole.size(); ++size) {
    const auto file = FileView::from_owned("cut.parquet", to_bytes(whole.substr(0, size)));
    EXPECT_THAT(message_of([&] { read_parquet(file, "other", [](auto...) { return true; }); }),
                AllOf(HasSubstr("could not be read as Parquet"), HasSubstr("'cut.parquet'")));
  }
  // A byte of the text changes the page's checksum.
  std::string changed = whole;
  changed[whole.find("four")] = 'F';
  EXPECT_THAT(refusal(folder.file("changed.parquet", changed)), HasSubstr("could not be read as Parquet"));
}

TEST_F(Parquet, EveryChangedByteIsAFileOrAnError) {
  const std::string whole = read_all(kFiles / "few.parquet");
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char value : {'\0', '\x7f', '\xff'}) {
      std::string changed = whole;
      changed[at] = value;
      try {
        read_parquet(FileView::from_owned("x.parquet", to_bytes(changed)), "other",
                     [](std::string_view text, std::string_view) { return text.size() < 1'000'000; });
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace mxlm
