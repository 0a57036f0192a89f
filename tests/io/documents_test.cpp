#include "io/documents.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zstd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/file.hpp"
#include "io_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kData = fs::path(MXLM_TEST_DATA) / "io";

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

std::string sha256_of(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

TEST(Utf8, ReplacesAsPythonDoes) {
  const json golden = json::parse(read_all(kData / "utf8_replace.json"));
  ASSERT_GT(golden["cases"].size(), 50U);
  std::string out;
  for (const auto& [input, expected] : golden["cases"].get<std::vector<std::pair<std::string, std::string>>>()) {
    EXPECT_EQ(replace_invalid_utf8(from_hex(input), out), input != expected) << input;
    EXPECT_EQ(out, from_hex(expected)) << input;
  }
}

TEST(Utf8, ReplacesAsPythonDoesInEveryStringOfUpToFourCriticalBytes) {
  const json golden = json::parse(read_all(kData / "utf8_replace.json"));
  const std::string alphabet = from_hex(golden["alphabet"]);
  std::string all, out;
  for (size_t length = 1; length <= 4; ++length) {
    size_t count = 1;
    for (size_t i = 0; i < length; ++i) count *= alphabet.size();
    for (size_t number = 0; number < count; ++number) {
      std::string input(length, '\0');
      for (size_t i = length, rest = number; i-- > 0; rest /= alphabet.size())
        input[i] = alphabet[rest % alphabet.size()];
      replace_invalid_utf8(input, out);
      all += out;
      all.append(2, '\0');
    }
  }
  EXPECT_EQ(sha256_of(all), golden["all_up_to_4"].get<std::string>());
}

TEST(Text, KeepsEveryByteOfAFile) {
  const TemporaryFolder folder;
  const std::string content("\xef\xbb\xbfmark\r\nCR LF\n\0NUL and no end", 30);
  const auto source = read_text(folder.file("a.txt", content).string());
  ASSERT_EQ(source.documents.size(), 1U);
  EXPECT_EQ(source.documents[0].text, content);
  EXPECT_EQ(source.documents[0].subset, "");
  EXPECT_EQ(source.sha256, sha256_of(content));
  EXPECT_EQ(source.name, (folder.path() / "a.txt").string());
  EXPECT_EQ(source.invalid_utf8, 0);
  EXPECT_TRUE(source.is_text);
}

TEST(Text, HashesTheBytesAndReplacesInTheText) {
  const TemporaryFolder folder;
  const auto source = read_text(folder.file("a.txt", "ab\xff").string());
  EXPECT_EQ(source.documents[0].text, "ab\xef\xbf\xbd");
  EXPECT_EQ(source.sha256, sha256_of("ab\xff"));
  EXPECT_EQ(source.invalid_utf8, 1);
}

TEST(Text, TheProjectsTexts) {
  // Digests of data/README.md.
  const fs::path data = fs::path(MXLM_SOURCE_DIR) / "data";
  EXPECT_EQ(read_text((data / "wiki.test.raw").string()).sha256,
            "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08");
  EXPECT_EQ(read_text((data / "alice.txt").string()).invalid_utf8, 0);
}

TEST(Text, ReadsStdinThroughAPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const std::string content(3'000'000, 'y');
  std::thread writer([&] {
    std::string_view rest = content;
    while (!rest.empty()) {
      const ssize_t n = write(ends[1], rest.data(), std::min<size_t>(rest.size(), 777));
      if (n <= 0) break;
      rest.remove_prefix(static_cast<size_t>(n));
    }
    close(ends[1]);
  });
  const int saved = dup(STDIN_FILENO);
  dup2(ends[0], STDIN_FILENO);
  const auto source = read_text("-");
  dup2(saved, STDIN_FILENO);
  close(saved);
  close(ends[0]);
  writer.join();
  EXPECT_EQ(source.name, "-");
  EXPECT_EQ(source.documents[0].text, content);
  EXPECT_EQ(source.sha256, sha256_of(content));
}

TEST(Text, RefusesMissingFilesAndFolders) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] { read_text((folder.path() / "no.txt").string()); }), HasSubstr("No such file"));
  EXPECT_THAT(message_of([&] { read_text(folder.path().string()); }), HasSubstr("is a folder"));
}

class GoldenDocuments : public testing::TestWithParam<const char*> {};

TEST_P(GoldenDocuments, AreThoseOfPython) {
  const json golden = json::parse(read_all(kData / "documents.json"));
  const auto source = read_documents((kData / GetParam()).string(), "text", 0);
  json documents = json::array();
  for (const auto& document : source.documents) documents.push_back({document.text, document.subset});
  EXPECT_EQ(documents, golden["documents"]);
  EXPECT_EQ(source.sha256, golden["sha256"].get<std::string>());
  EXPECT_EQ(source.invalid_utf8, 0);
  EXPECT_FALSE(source.is_text);
}

INSTANTIATE_TEST_SUITE_P(PlainAndCompressed, GoldenDocuments,
                         testing::Values("documents.jsonl", "documents.jsonl.zst"));

TEST(Documents, StopEarlyAndHashOnlyTheLinesRead) {
  const TemporaryFolder folder;
  const std::string two = "{\"text\":\"one\"}\n\n{\"text\":\"two\"}\n";
  const auto path = folder.file("a.jsonl", two + "this is no JSON\n");
  const auto source = read_documents(path.string(), "text", 2);
  ASSERT_EQ(source.documents.size(), 2U);
  EXPECT_EQ(source.documents[1].text, "two");
  EXPECT_EQ(source.sha256, sha256_of(two));
  EXPECT_THAT(message_of([&] { read_documents(path.string(), "text", 3); }),
              AllOf(HasSubstr("Line 4 of"), HasSubstr("not valid JSON")));
}

TEST(Documents, LinesLongerThanThePiecesRead) {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 5; ++i)
    content += "{\"content\":\"" + std::string(1'500'000, static_cast<char>('a' + i)) + "\"}\n";
  const auto plain = read_documents(folder.file("a.jsonl", content).string(), "content", 0);
  ASSERT_EQ(plain.documents.size(), 5U);
  EXPECT_EQ(plain.documents[4].text, std::string(1'500'000, 'e'));
  EXPECT_EQ(plain.sha256, sha256_of(content));

  // Data that shrinks this much leaves output inside the decoder after all input has been taken.
  std::string compressed(ZSTD_compressBound(content.size()), '\0');
  compressed.resize(ZSTD_compress(compressed.data(), compressed.size(), content.data(), content.size(), 3));
  const auto packed = read_documents(folder.file("a.jsonl.zst", compressed).string(), "content", 0);
  EXPECT_EQ(packed.documents.size(), 5U);
  EXPECT_EQ(packed.sha256, sha256_of(content));
}

TEST(Documents, InvalidUtf8AndLoneSurrogatesBecomeReplacements) {
  const TemporaryFolder folder;
  const auto source = read_documents(
      folder
          .file("a.jsonl",
                "{\"text\":\"a\xff\"}\n{\"text\":\"\\\\ud800 \\ud83c\\udf4c \\ud800\\u0041\\udc00\"}\n{\"text\":\"b\"}")
          .string(),
      "text", 0);
  ASSERT_EQ(source.documents.size(), 3U);
  EXPECT_EQ(source.documents[0].text, "a\xef\xbf\xbd");
  EXPECT_EQ(source.documents[1].text, "\\ud800 \xf0\x9f\x8d\x8c \xef\xbf\xbd\x41\xef\xbf\xbd");
  EXPECT_EQ(source.invalid_utf8, 2);
}

TEST(Documents, RefusesBadLines) {
  const TemporaryFolder folder;
  const auto refusal = [&](std::string_view line) {
    const auto path = folder.file("a.jsonl", "{\"text\":\"fine\"}\n" + std::string(line) + "\n");
    std::string text = message_of([&] { read_documents(path.string(), "text", 0); });
    EXPECT_THAT(text, AllOf(HasSubstr("Line 2 of"), HasSubstr("a.jsonl")));
    return text;
  };
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("{\"body\":\"x\"}"), AllOf(HasSubstr("no field 'text'"), HasSubstr("--field")));
  EXPECT_THAT(refusal("{\"text\":null}"), HasSubstr("not a string"));
  EXPECT_THAT(refusal("{\"text\":\"x\"} {\"text\":\"y\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{\"text\":\"\\ud800\\q\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(std::string(5'000, '[')), HasSubstr("not valid JSON"));
}

TEST(Documents, RefusesBadFiles) {
  const TemporaryFolder folder;
  const auto refusal = [](const fs::path& path) {
    return message_of([&] { read_documents(path.string(), "text", 0); });
  };
  EXPECT_THAT(refusal("-"), HasSubstr(".jsonl.zst"));
  EXPECT_THAT(refusal(folder.file("a.csv", "x")), AllOf(HasSubstr("a.csv"), HasSubstr(".txt, .jsonl")));
  EXPECT_THAT(refusal(folder.file("empty.jsonl", "\n\n")), HasSubstr("holds no documents"));
  EXPECT_THAT(refusal(folder.path() / "missing.jsonl"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder.path() / "missing.jsonl.zst"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder.file("empty.jsonl.zst", "")), HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal(folder.file("plain.jsonl.zst", "{\"text\":\"x\"}\n")), HasSubstr("could not be decompressed"));
  EXPECT_THAT(refusal(kData / "wide_window.jsonl.zst"), HasSubstr("128 MiB"));
}

TEST(Documents, RefusesCompressedFilesCutAnywhere) {
  const TemporaryFolder folder;
  const std::string whole = read_all(kData / "documents.jsonl.zst");
  int refused = 0, shorter = 0;
  for (size_t size = 1; size < whole.size(); ++size) {
    const auto path = folder.file("cut.jsonl.zst", whole.substr(0, size));
    try {
      read_documents(path.string(), "text", 0);
      ++shorter;  // cut between two frames, and there the line is whole by chance
    } catch (const Error& error) {
      ++refused;
      EXPECT_THAT(error.what(), testing::AnyOf(HasSubstr("ends in the middle"), HasSubstr("not valid JSON")));
    }
  }
  EXPECT_EQ(shorter, 0);
  EXPECT_EQ(refused, static_cast<int>(whole.size()) - 1);
}

TEST(Documents, APlainTextIsOneDocument) {
  const TemporaryFolder folder;
  const auto source = read_documents(folder.file("a.txt", "{\"not\": parsed}").string(), "text", 0);
  EXPECT_TRUE(source.is_text);
  EXPECT_EQ(source.documents[0].text, "{\"not\": parsed}");
}

}  // namespace
}  // namespace mxlm
