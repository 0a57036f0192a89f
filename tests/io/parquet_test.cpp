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

TEST(ParquetWithoutArrow, SaysWhatToInstall) {
  if (!parquet_reader().empty()) GTEST_SKIP() << "built with Arrow";
  EXPECT_THAT(refusal(kFiles / "snappy.parquet"), AllOf(HasSubstr("without Apache Arrow"), HasSubstr("pyarrow")));
}

class Parquet : public testing::Test {
 protected:
  void SetUp() override {
    if (parquet_reader().empty()) GTEST_SKIP() << "built without Arrow";
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
  EXPECT_THAT(refusal(kFiles / "few.parquet"), HasSubstr("no value in the column 'text' of row 3"));
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
              AllOf(HasSubstr("has no column 'body'"), HasSubstr("--field: 'text' 'other' 'meta'")));
  EXPECT_THAT(refusal(kFiles / "numbers.parquet"), AllOf(HasSubstr("no column 'text'"), HasSubstr("there is none")));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "id"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "few.parquet", "list.list.element"), HasSubstr("does not hold one string a row"));
  EXPECT_THAT(refusal(kFiles / "no_rows.parquet"), HasSubstr("holds no documents"));
}

TEST_F(Parquet, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  EXPECT_THAT(refusal(folder.path() / "missing.parquet"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder.file("empty.parquet", "")), HasSubstr("could not be read"));
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

TEST_F(Parquet, RefusesMoreTextThanItMayHold) {
  const fs::path path = kFiles / "bomb.parquet";
  ASSERT_LT(fs::file_size(path), 1000U);  // and 10 GB when it is read
  EXPECT_THAT(message_of([&] { read_documents(path.string(), "text", 0, uint64_t{4} << 20); }),
              AllOf(HasSubstr("bomb.parquet"), HasSubstr("more than 4 MiB"), HasSubstr("--max-samples")));
  EXPECT_EQ(read(path, "text", 3).documents.size(), 3U);
}

// What read_parquet makes of a reader that is this shell script.
std::string refusal_of_reader(const std::string& script) {
  const TemporaryFolder folder;
  const auto reader = folder.file("reader", "#!/bin/sh\n" + script);
  fs::permissions(reader, fs::perms::owner_all);
  const auto file = folder.file("x.parquet", "content");
  std::string text = message_of([&] {
    read_parquet(
        file.string(), "text", [](auto, auto) { return true; }, reader);
  });
  EXPECT_THAT(text, HasSubstr("x.parquet"));
  return text;
}

TEST(ParquetReader, MayEndOrSayAnything) {
  EXPECT_THAT(refusal_of_reader("kill -SEGV $$"), HasSubstr("ended with signal 11"));
  EXPECT_THAT(refusal_of_reader("exit 3"), HasSubstr("ended with code 3"));
  EXPECT_THAT(refusal_of_reader("printf 'T\\005\\0\\0\\0\\0\\0\\0\\0abc'"), HasSubstr("ended with code 0"));
  EXPECT_THAT(refusal_of_reader("printf 'X\\0\\0\\0\\0\\0\\0\\0\\0'"), HasSubstr("something unknown"));
  EXPECT_THAT(refusal_of_reader("printf 'T\\0\\0\\0\\0\\0\\0\\0\\177'; sleep 9"), HasSubstr("something impossible"));
  EXPECT_THAT(refusal_of_reader("printf 'E\\003\\0\\0\\0\\0\\0\\0\\0bad'; sleep 9"), HasSubstr("bad"));
  EXPECT_THAT(message_of([] {
                read_parquet((kFiles / "few.parquet").string(), "text", [](auto, auto) { return true; }, "/nowhere/x");
              }),
              AllOf(HasSubstr("/nowhere/x"), HasSubstr("could not be run")));
}

TEST(ParquetReader, GetsTheFileAndTheFieldAndStopsWhenThereIsEnough) {
  const TemporaryFolder folder;
  const auto reader = folder.file("reader",
                                  "#!/bin/sh\nprintf 'S\\001\\0\\0\\0\\0\\0\\0\\0sT\\007\\0\\0\\0\\0\\0\\0\\0'; cat; "
                                  "while :; do printf 'T\\003\\0\\0\\0\\0\\0\\0\\0%s' \"$1\"; done");
  fs::permissions(reader, fs::perms::owner_all);
  const auto file = folder.file("x.parquet", "content");
  std::vector<std::pair<std::string, std::string>> rows;
  read_parquet(
      file.string(), "-n ",
      [&](std::string_view text, std::string_view subset) {
        rows.emplace_back(text, subset);
        return rows.size() < 3;
      },
      reader);
  EXPECT_EQ(rows, (std::vector<std::pair<std::string, std::string>>{{"content", "s"}, {"-n ", ""}, {"-n ", ""}}));
}

}  // namespace
}  // namespace mxlm
