#include "io/zip.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io_helpers.hpp"
#include "zip_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::vector<std::pair<std::string, std::string>> kFiles{{"x/data.pkl", "pickle"}, {"x/data/0", ""}, {"y", "z"}};

FileView view(std::string_view bytes) { return FileView::from_owned("x.bin", to_bytes(bytes)); }

std::string refusal(std::string_view bytes) {
  std::string text = message_of([&] { read_zip(view(bytes)); });
  EXPECT_THAT(text, HasSubstr("'x.bin'"));
  return text;
}

std::string refusal(const ZipOptions& options) { return refusal(zip_archive(kFiles, options)); }

TEST(Zip, ListsTheFilesOfAnArchiveInBothForms) {
  for (const bool zip64 : {false, true}) {
    for (const std::string comment : {"", "a comment", "PK\x05\x06"}) {
      const std::string bytes = zip_archive(kFiles, {.zip64 = zip64, .flags = 8, .comment = comment});
      const auto entries = read_zip(view(bytes));
      ASSERT_EQ(entries.size(), kFiles.size());
      for (const auto& [name, content] : kFiles) {
        const auto& entry = entries.find(name)->second;
        EXPECT_EQ(bytes.substr(entry.offset, entry.size), content) << name;
      }
    }
  }
  EXPECT_TRUE(read_zip(view(zip_archive({}))).empty());
}

TEST(Zip, RefusesLyingRecords) {
  for (const bool zip64 : {false, true}) {
    EXPECT_THAT(refusal({.zip64 = zip64, .flags = 1}), HasSubstr("'x/data.pkl' in it is encrypted"));
    EXPECT_THAT(refusal({.zip64 = zip64, .entries = 20}), HasSubstr("claims 20 files"));
    EXPECT_THAT(refusal({.zip64 = zip64, .entries = 4}), HasSubstr("directory"));
    EXPECT_THAT(refusal({.zip64 = zip64, .entries = 2}), HasSubstr("bytes after the last entry"));
    EXPECT_THAT(refusal({.zip64 = zip64, .directory = 0}), HasSubstr("directory is damaged"));
    EXPECT_THAT(refusal({.zip64 = zip64, .directory = 100'000}), HasSubstr("outside the file"));
    EXPECT_THAT(refusal({.zip64 = zip64, .overlap = true}), HasSubstr("has two names"));
    EXPECT_THAT(refusal({.zip64 = zip64, .local_name = "other"}), HasSubstr("has two names"));
    EXPECT_THAT(refusal({.zip64 = zip64, .size_change = 100'000}), HasSubstr("reaches past its data"));
    EXPECT_THAT(refusal({.zip64 = zip64, .size_change = 1}), HasSubstr("reaches past its data"));
    EXPECT_THAT(refusal({.zip64 = zip64, .packed_change = 1}), HasSubstr("two sizes"));
  }
  EXPECT_THAT(refusal({.zip64 = true, .entries = 2'000'000}), HasSubstr("claims 2000000 files"));
  EXPECT_THAT(refusal({.zip64 = true, .entries = int64_t{1} << 62}), HasSubstr("claims"));
  EXPECT_THAT(refusal({.zip64 = true, .directory = int64_t{1} << 62}), HasSubstr("outside the file"));
  EXPECT_THAT(refusal({.zip64 = true, .size_change = uint64_t{1} << 63}), HasSubstr("reaches past its data"));
  EXPECT_THAT(refusal({.zip64 = true, .size_change = ~uint64_t{0} - 5}), HasSubstr("reaches past its data"));
  EXPECT_THAT(refusal(zip_archive({{"a", "1"}, {"a", "2"}})), HasSubstr("holds 'a' twice"));
}

TEST(Zip, RefusesAFileInsideAnother) {
  const std::string inner = zip_archive({{"b", "1"}});
  std::string bytes = zip_archive({{"a", inner}, {"b", "1"}});
  constexpr size_t kHeader = 30 + 1 + 3, kEnd = 22, kDirectoryEntry = 46 + 1, kOffsetField = 42;
  bytes.replace(bytes.size() - kEnd - kDirectoryEntry + kOffsetField, 4, little(kHeader, 4));
  EXPECT_THAT(refusal(bytes), HasSubstr("'b' in it overlaps"));
}

TEST(Zip, RefusesArchivesCutAnywhere) {
  for (const bool zip64 : {false, true}) {
    const std::string whole = zip_archive(kFiles, {.zip64 = zip64});
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_THAT(refusal(whole.substr(0, size)), HasSubstr("not a valid zip archive")) << size;
    }
  }
}

TEST(Zip, EveryChangedByteIsAnArchiveOrAnError) {
  for (const bool zip64 : {false, true}) {
    const std::string whole = zip_archive(kFiles, {.zip64 = zip64});
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const char value : {'\0', '\x01', '\x7f', '\xff'}) {
        std::string changed = whole;
        changed[at] = value;
        try {
          for (const auto& [name, entry] : read_zip(view(changed))) {
            ASSERT_LE(entry.offset, changed.size());
            ASSERT_LE(entry.size, changed.size() - entry.offset);
          }
        } catch (const Error&) {
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxlm
