#include "io/documents.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
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
                         testing::Values("documents.jsonl", "documents.jsonl.gz", "documents.jsonl.zst"));

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

TEST(Documents, LinesAreReadAsPythonReadsThem) {
  const json golden = json::parse(read_all(kData / "python_lines.json"));
  size_t refused = 0;
  for (const auto& example : golden["lines"]) {
    const auto line = example[0].get<std::string>();
    DocumentSource source;
    const auto parse = [&] { append_json_line(line, "text", "Line 7", source); };
    if (example[1].is_null()) {
      EXPECT_THAT(message_of(parse), HasSubstr("Line 7")) << line;
      ++refused;
      continue;
    }
    ASSERT_NO_THROW(parse()) << line;
    ASSERT_EQ(source.documents.size(), 1U) << line;
    EXPECT_EQ(source.documents[0].text, example[1].get<std::string>()) << line;
  }
  EXPECT_GT(refused, 30U);
  EXPECT_GT(golden["lines"].size() - refused, 25U);
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
  for (const std::string name : {"documents.jsonl.zst", "documents.jsonl.gz"}) {
    const std::string whole = read_all(kData / name);
    const size_t end = whole.find_last_not_of('\0');  // the gzip file is padded
    for (size_t size = 1; size < end; size += size < 40 ? 1 : 3) {
      const auto path = folder.file(name, whole.substr(0, size));
      try {
        read_documents(path.string(), "text", 0);
        ADD_FAILURE() << name << " cut after " << size << " bytes was read";
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), testing::AnyOf(HasSubstr("ends in the middle"), HasSubstr("not valid JSON")));
      }
    }
  }
}

std::string gzip_member(std::string content) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(content.data());
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

TEST(Gzip, ReadsMembersPaddingAndDataThatShrinksMuch) {
  const TemporaryFolder folder;
  const std::string first = "{\"text\":\"" + std::string(5'000'000, 'a') + "\"}\n";
  const std::string second = "{\"text\":\"b\"}\n";
  const auto member = gzip_member(first), other = gzip_member(second), none = gzip_member("");
  // The padding is longer than the pieces that are read.
  const std::string zeros(300'000, '\0');
  for (const auto& bytes : {member + other, none + member + zeros + other, member + none + other + zeros}) {
    const auto source = read_documents(folder.file("a.jsonl.gz", bytes).string(), "text", 0);
    ASSERT_EQ(source.documents.size(), 2U);
    EXPECT_EQ(source.documents[0].text.size(), 5'000'000U);
    EXPECT_EQ(source.documents[1].text, "b");
    EXPECT_EQ(source.sha256, sha256_of(first + second));
  }
}

TEST(Gzip, RefusesWhatIsNoneOrDamaged) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& bytes) {
    const auto path = folder.file("a.jsonl.gz", bytes);
    return message_of([&] { read_documents(path.string(), "text", 0); });
  };
  const std::string member = gzip_member("{\"text\":\"some text\"}\n");
  EXPECT_THAT(refusal(""), HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal("{\"text\":\"x\"}\n"), AllOf(HasSubstr("could not be decompressed"), HasSubstr("a.jsonl.gz")));
  EXPECT_THAT(refusal(std::string(64, '\0')), HasSubstr("could not be decompressed"));
  EXPECT_THAT(refusal(member + "garbage"), HasSubstr("could not be decompressed"));
  EXPECT_THAT(refusal(member + member.substr(0, 9)), HasSubstr("ends in the middle"));
  std::string checksum = member;
  checksum[member.size() - 5] ^= 1;
  EXPECT_THAT(refusal(checksum), HasSubstr("incorrect data check"));
  std::string length = member;
  length[member.size() - 1] ^= 1;
  EXPECT_THAT(refusal(length), HasSubstr("incorrect length check"));
  EXPECT_THAT(message_of([&] { read_documents("missing.jsonl.gz", "text", 0); }), HasSubstr("No such file"));
}

TEST(Documents, RefusesALineThatACompressedFileMakesEndless) {
  const TemporaryFolder folder;
  std::string bomb;
  const std::string member = gzip_member(std::string(size_t{16} << 20, 'x'));
  for (int i = 0; i < 17; ++i) bomb += member;
  EXPECT_THAT(message_of([&] { read_documents(folder.file("a.jsonl.gz", bomb).string(), "text", 0); }),
              HasSubstr("longer than 256 MiB"));
}

TEST(Documents, RefusesMoreTextThanItMayHold) {
  // Each of these compressed files of some kilobytes holds 16 MiB in lines that are short enough.
  const TemporaryFolder folder;
  const std::string line = "{\"text\":\"" + std::string(1000, 'x') + "\"}\n";
  std::string lines, empty;
  for (int i = 0; i < 16'000; ++i) lines += line;
  for (int i = 0; i < 200'000; ++i) empty += "{\"text\":\"\"}\n";
  const size_t most = size_t{4} << 20;
  for (const std::string& content : {lines, empty}) {
    const std::string path = folder.file("a.jsonl.gz", gzip_member(content)).string();
    EXPECT_LT(fs::file_size(path), 100'000U);
    EXPECT_THAT(message_of([&] { read_documents(path, "text", 0, most); }),
                AllOf(HasSubstr("a.jsonl.gz"), HasSubstr("more than 4 MiB"), HasSubstr("--max-samples")));
    EXPECT_EQ(read_documents(path, "text", 1000, most).documents.size(), 1000U);
  }
  const std::string text = folder.file("a.txt", std::string(2 * most, 'x')).string();
  EXPECT_THAT(message_of([&] { read_text(text, most); }), AllOf(HasSubstr("a.txt"), HasSubstr("more than 4 MiB")));
  if (fs::exists("/dev/zero")) {
    EXPECT_THAT(message_of([&] { read_text("/dev/zero", most); }), HasSubstr("more than 4 MiB"));
  }
}

TEST(FolderOfDocuments, IsReadInTheOrderOfNames) {
  const TemporaryFolder folder;
  const std::string a = "{\"text\":\"a1\"}\n{\"text\":\"a2\"}", b = "{\"text\":\"b\"}\n", c = "{\"text\":\"c\"}\n";
  folder.file("10.jsonl.gz", gzip_member(b));
  folder.file("2.jsonl", c);
  folder.file("00.jsonl", a);
  folder.file("README.md", "left out");
  folder.file(".hidden.jsonl", "left out");
  fs::create_directory(folder.path() / "3.jsonl");
  const auto read = [&](int64_t limit) {
    const auto source = read_documents(folder.path().string(), "text", limit);
    EXPECT_FALSE(source.is_text);
    EXPECT_EQ(source.name, folder.path().string());
    std::vector<std::string> texts;
    for (const auto& document : source.documents) texts.push_back(document.text);
    return std::pair(texts, source.sha256);
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(read(0), std::pair(Texts({"a1", "a2", "b", "c"}), sha256_of(a + b + c)));
  EXPECT_EQ(read(2), std::pair(Texts({"a1", "a2"}), sha256_of(a)));
  EXPECT_EQ(read(3), std::pair(Texts({"a1", "a2", "b"}), sha256_of(a + b)));
}

TEST(FolderOfDocuments, OfTextsHasADocumentAFile) {
  const TemporaryFolder folder;
  folder.file("b.txt", "two\n");
  folder.file("a.txt", "one\xff");
  const auto source = read_documents(folder.path().string(), "text", 0);
  ASSERT_EQ(source.documents.size(), 2U);
  EXPECT_FALSE(source.is_text);
  EXPECT_EQ(source.documents[0].text, "one\xef\xbf\xbd");
  EXPECT_EQ(source.documents[1].text, "two\n");
  EXPECT_EQ(source.invalid_utf8, 1);
  EXPECT_EQ(source.sha256, sha256_of("one\xfftwo\n"));
}

TEST(FolderOfDocuments, RefusesWhatItCannotUse) {
  const TemporaryFolder folder;
  const auto refusal = [&] { return message_of([&] { read_documents(folder.path().string(), "text", 0); }); };
  EXPECT_THAT(refusal(), AllOf(HasSubstr("holds no data set"), HasSubstr(".jsonl.gz")));
  folder.file("a.jsonl", "");
  EXPECT_THAT(refusal(), HasSubstr("holds no documents"));
  folder.file("a.txt", "text");
  EXPECT_THAT(refusal(), HasSubstr("holds both .txt files and others"));
  fs::remove(folder.path() / "a.txt");
  folder.file("b.jsonl", "{");
  EXPECT_THAT(refusal(), HasSubstr((folder.path() / "b.jsonl").string()));
}

TEST(Documents, APlainTextIsOneDocument) {
  const TemporaryFolder folder;
  const auto source = read_documents(folder.file("a.txt", "{\"not\": parsed}").string(), "text", 0);
  EXPECT_TRUE(source.is_text);
  EXPECT_EQ(source.documents[0].text, "{\"not\": parsed}");
}

}  // namespace
}  // namespace mxlm
