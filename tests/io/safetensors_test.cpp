#include "io/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;
using nlohmann::json;

std::string hex(const std::byte* data, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += fmt::format("{:02x}", std::to_integer<unsigned>(data[i]));
  return out;
}

Checkpoint parse(std::string_view header, std::string_view data) {
  return Checkpoint::from_file(FileView::from_owned("x.safetensors", to_bytes(safetensors(header, data))));
}

std::string refusal(std::string_view header, std::string_view data = "") {
  std::string text = message_of([&] { parse(header, data); });
  EXPECT_THAT(text, HasSubstr("'x.safetensors'"));
  return text;
}

std::string refusal_of_bytes(std::string_view bytes) {
  return message_of([&] { Checkpoint::from_file(FileView::from_owned("x.safetensors", to_bytes(bytes))); });
}

TEST(Safetensors, ReadsTheProjectsModel) {
  const auto model = Checkpoint::open(fs::path(MXLM_SOURCE_DIR) / "models/booklet-7m");
  EXPECT_EQ(model.tensors().size(), 74U);
  const TensorEntry* embedding = model.find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->type, DType::bf16);
  EXPECT_EQ(embedding->shape, (std::vector<int64_t>{4096, 256}));
  EXPECT_EQ(embedding->size, size_t{4096} * 256 * 2);
  EXPECT_EQ(model.find("lm_head.weight"), nullptr);
  int64_t parameters = 0;
  for (const auto& [name, tensor] : model.tensors()) parameters += tensor.elements();
  EXPECT_EQ(parameters, 6'951'168);  // models/README.md
}

TEST(Safetensors, ReadsWhatTheReferenceLibraryWrote) {
  const fs::path folder = fs::path(MXLM_TEST_DATA) / "io";
  const json golden = json::parse(read_all(folder / "reference_safetensors.json"));
  const std::map<std::string, DType> types{{"<f2", DType::f16}, {"<f4", DType::f32},    {"<f8", DType::f64},
                                           {"<i8", DType::i64}, {"<i4", DType::i32},    {"<i2", DType::i16},
                                           {"|u1", DType::u8},  {"|b1", DType::boolean}};
  const auto file = Checkpoint::from_file(FileView::map(folder / "reference.safetensors"));
  EXPECT_EQ(file.sha256(), golden["sha256"].get<std::string>());
  ASSERT_EQ(file.tensors().size(), golden["tensors"].size());
  for (const auto& [name, expected] : golden["tensors"].items()) {
    const TensorEntry* tensor = file.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->type, types.at(expected["dtype"])) << name;
    EXPECT_EQ(json(tensor->shape), expected["shape"]) << name;
    EXPECT_EQ(hex(tensor->data(), tensor->size), expected["hex"].get<std::string>()) << name;
  }
}

TEST(Safetensors, AnEmptyHeaderAndMetadataAreFine) {
  EXPECT_TRUE(parse("{}", "").tensors().empty());
  EXPECT_TRUE(parse(R"({"__metadata__":{"a":"b"}}   )", "").tensors().empty());
}

TEST(Safetensors, CopiesTensorsThatLieUnaligned) {
  // Two bytes, then two floats: the reference library's own files never look like this, old ones do.
  const auto file = parse(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                          R"("b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}})",
                          std::string_view("\x01\x02\0\0\x80\x3f\0\0\0\x40", 10));
  const TensorEntry* tensor = file.find("b");
  ASSERT_NE(tensor, nullptr);
  ASSERT_EQ(reinterpret_cast<uintptr_t>(tensor->data()) % 4, 0U);
  EXPECT_EQ(reinterpret_cast<const float*>(tensor->data())[0], 1.0F);
  EXPECT_EQ(reinterpret_cast<const float*>(tensor->data())[1], 2.0F);
  EXPECT_EQ(tensor->elements(), 2);
}

TEST(SafetensorsRefuses, BadLengths) {
  EXPECT_THAT(refusal_of_bytes("1234567"), HasSubstr("has 7 bytes"));
  EXPECT_THAT(refusal_of_bytes(std::string_view("\0\0\0\0\0\0\0\x80", 8)),
              HasSubstr("claims 9223372036854775808 bytes"));
  EXPECT_THAT(refusal_of_bytes("\xff\xff\xff\xff\xff\xff\xff\xff"), HasSubstr("claims 18446744073709551615 bytes"));
  EXPECT_THAT(refusal_of_bytes(std::string_view("\x01\xe1\xf5\x05\0\0\0\0{}", 10)),
              HasSubstr("claims 100000001 bytes"));
  EXPECT_THAT(refusal_of_bytes(std::string_view("\x10\0\0\0\0\0\0\0{}", 10)), HasSubstr("truncated"));
  EXPECT_THAT(refusal_of_bytes(std::string_view("\0\0\0\0\0\0\0\0", 8)), HasSubstr("not valid JSON"));
}

TEST(SafetensorsRefuses, BadJson) {
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("{\"a\xff\":{}}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(std::string(100'000, '[') + std::string(100'000, ']')), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"a":)" + std::string(80, '[') + std::string(80, ']') + "}"), HasSubstr("not valid JSON"));
}

TEST(SafetensorsRefuses, BadTensors) {
  EXPECT_THAT(refusal(R"({"a":1})"), AllOf(HasSubstr("'a'"), HasSubstr("JSON object")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[]}})"), HasSubstr("once each"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", "1234"),
              HasSubstr("once each"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"more":1}})", "1234"),
              HasSubstr("unknown field 'more'"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":4,"shape":[],"data_offsets":[0,4]}})", "1234"), HasSubstr("not a string"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", "1234"), HasSubstr("not a list"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234"), HasSubstr("whole number"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "1234"),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", "1234"),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", "1234"),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"),
              HasSubstr("overflows"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})"),
              HasSubstr("overflows"));
}

TEST(SafetensorsRefuses, BadOffsets) {
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234"),
              HasSubstr("two data_offsets"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2,4]}})", "1234"),
              HasSubstr("two data_offsets"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", "1234"),
              HasSubstr("not whole numbers"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":{}}})", "1234"), HasSubstr("not a list"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234"),
              HasSubstr("before it begins"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", "1234"),
              HasSubstr("spans 3 bytes where its shape and dtype need 4"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234"), HasSubstr("truncated"));
  EXPECT_THAT(
      refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}})", "1234"),
      HasSubstr("truncated"));
}

TEST(SafetensorsRefuses, OverlapsHolesAndRests) {
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}})",
                      "12345"),
              AllOf(HasSubstr("'b'"), HasSubstr("overlaps")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                      "1234"),
              HasSubstr("overlaps"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                      "1234"),
              AllOf(HasSubstr("'b'"), HasSubstr("hole of 2 bytes")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "12"), HasSubstr("hole of 1 byte"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "12"), HasSubstr("1 bytes after"));
  EXPECT_THAT(refusal("{}", "12"), HasSubstr("2 bytes after"));
}

TEST(SafetensorsRefuses, NamesTwice) {
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                      "12"),
              AllOf(HasSubstr("'a'"), HasSubstr("twice")));
}

TEST(SafetensorsRefuses, NamesNeverBreakTheSentence) {
  EXPECT_THAT(refusal("{\"a\\nb\\u001b[31m\":1}"), HasSubstr("'a?b?[31m'"));
  EXPECT_LT(refusal("{\"" + std::string(100'000, 'x') + "\":1}").size(), 400U);
}

constexpr std::string_view kA = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
constexpr std::string_view kBC =
    R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";

TEST(Folder, ReadsShardsThroughTheIndexAndThroughLinks) {
  const TemporaryFolder folder, blobs;
  const auto one = blobs.file("0123abcd", safetensors(kA, "1"));
  fs::create_symlink(one, folder.path() / "model-00001-of-00002.safetensors");
  folder.file("model-00002-of-00002.safetensors", safetensors(kBC, "23"));
  folder.file("model.safetensors.index.json",
              R"({"metadata":{"total_size":3},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
              R"("b":"model-00002-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}})");
  const auto model = Checkpoint::open(folder.path());
  ASSERT_EQ(model.tensors().size(), 3U);
  EXPECT_EQ(std::to_integer<char>(*model.find("a")->data()), '1');
  EXPECT_EQ(std::to_integer<char>(*model.find("c")->data()), '3');
  // sha256sum model-*.safetensors | cut -c1-64 | tr -d '\n' | sha256sum
  const std::string first = safetensors(kA, "1"), second = safetensors(kBC, "23");
  const std::string both = sha256_hex(std::as_bytes(std::span(first))) + sha256_hex(std::as_bytes(std::span(second)));
  EXPECT_EQ(model.sha256(), sha256_hex(std::as_bytes(std::span(both))));
}

TEST(Folder, PrefersTheSingleFileAndFindsAnOnlyOne) {
  const TemporaryFolder folder;
  folder.file("weights.safetensors", safetensors(kA, "1"));
  folder.file("notes.txt", "nothing");
  EXPECT_NE(Checkpoint::open(folder.path()).find("a"), nullptr);
  folder.file("model.safetensors.index.json", "not read");
  folder.file("model.safetensors", safetensors(kBC, "23"));
  EXPECT_NE(Checkpoint::open(folder.path()).find("b"), nullptr);
}

TEST(Folder, RefusesWhatItCannotUse) {
  const TemporaryFolder folder;
  const auto open = [&] { Checkpoint::open(folder.path()); };
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder.path() / "missing"); }), HasSubstr("does not exist"));
  EXPECT_THAT(message_of(open), HasSubstr("holds no model.safetensors, pytorch_model.bin"));
  const auto a = folder.file("a.safetensors", safetensors(kA, "1"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(a); }), HasSubstr("is not a folder"));
  folder.file("b.safetensors", safetensors(kA, "1"));
  EXPECT_THAT(message_of(open), HasSubstr("holds 2 *.safetensors"));

  const auto index = [&](std::string_view text) {
    folder.file("model.safetensors.index.json", text);
    return message_of(open);
  };
  EXPECT_THAT(index("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(index("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(index("{}"), HasSubstr("has no weight_map"));
  EXPECT_THAT(index(R"({"weight_map":[]})"), HasSubstr("has no weight_map"));
  EXPECT_THAT(index(R"({"weight_map":{}})"), HasSubstr("names no tensors"));
  EXPECT_THAT(index(R"({"weight_map":{"a":1}})"), HasSubstr("names no shard for tensor 'a'"));
  for (const auto* shard :
       {"../a.safetensors", "/etc/passwd", "x/../a", "x/../../a", "..", ".", "./", "x/", "", "a\\\\b", "a\\u0000b"}) {
    EXPECT_THAT(index(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", shard)), HasSubstr("not a file in its folder"));
  }
  EXPECT_THAT(index(R"({"weight_map":{"a":"gone.safetensors"}})"),
              AllOf(HasSubstr("gone.safetensors"), HasSubstr("No such file")));
}

// Each as transformers 5.23 loads it (tools/checks/check_real_folders.py).
TEST(Folder, TakesAllTensorsOfAllShardsWhateverTheIndexSays) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "deep");
  folder.file("deep/one.safetensors", safetensors(kA, "1"));
  folder.file("two.safetensors", safetensors(kBC, "23"));
  folder.file("model.safetensors.index.json",
              R"({"weight_map":{"a":"two.safetensors","a":"./deep/one.safetensors","b":"./two.safetensors",)"
              R"("gone":"two.safetensors"}})");
  const auto model = Checkpoint::open(folder.path());
  ASSERT_EQ(model.tensors().size(), 3U);  // "c" too, which is not listed
  EXPECT_EQ(std::to_integer<char>(*model.find("a")->data()), '1');
  ASSERT_EQ(model.unread().size(), 1U);
  EXPECT_THAT(model.unread().at("gone"), AllOf(HasSubstr("in no shard"), HasSubstr("two.safetensors")));
  // Of one tensor in two shards the later shard's is taken.
  folder.file("zwei.safetensors", safetensors(kA, "9"));
  folder.file("model.safetensors.index.json", R"({"weight_map":{"a":"deep/one.safetensors","x":"zwei.safetensors"}})");
  EXPECT_EQ(std::to_integer<char>(*Checkpoint::open(folder.path()).find("a")->data()), '9');
  // By the names as they are written: "./zwei" comes before "deep".
  folder.file("model.safetensors.index.json",
              R"({"weight_map":{"a":"deep/one.safetensors","x":"./zwei.safetensors"}})");
  EXPECT_EQ(std::to_integer<char>(*Checkpoint::open(folder.path()).find("a")->data()), '1');
}

TEST(Folder, LeavesOtherFilesAside) {
  const TemporaryFolder folder;
  folder.file("consolidated.safetensors", safetensors(kBC, "23"));
  folder.file("adapter_model.safetensors", safetensors(kBC, "23"));
  EXPECT_FALSE(Checkpoint::is_in(folder.path()));
  folder.file("model.fp16.safetensors", safetensors(kA, "1"));
  EXPECT_TRUE(Checkpoint::is_in(folder.path()));
  EXPECT_NE(Checkpoint::open(folder.path()).find("a"), nullptr);
}

TEST(Safetensors, KeepsTensorsOfOtherTypesAside) {
  const auto file = parse(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"F4","shape":[2],"data_offsets":[1,2]},)"
      R"("y":{"dtype":"F9_NEW","shape":[1,2],"data_offsets":[2,5]}})",
      "1234 ");
  EXPECT_EQ(file.tensors().size(), 1U);
  EXPECT_EQ(file.find("x"), nullptr);
  EXPECT_THAT(file.unread().at("x"), HasSubstr("stored as 'F4', which is not supported"));
  EXPECT_THAT(file.unread().at("y"), HasSubstr("F9_NEW"));
  EXPECT_THAT(refusal(R"({"x":{"dtype":"F4","shape":[2],"data_offsets":[0,9]}})"), HasSubstr("x"));
}

TEST(Folder, RenamesTensors) {
  const auto file = parse(kBC, "23");
  const auto renamed = file.renamed([](std::string_view name) { return name == "b" ? "" : "z"; });
  ASSERT_EQ(renamed.tensors().size(), 1U);
  EXPECT_EQ(std::to_integer<char>(*renamed.find("z")->data()), '3');
  // Of two the first by its old name is taken.
  const auto first = file.renamed([](std::string_view) { return "c"; });
  EXPECT_EQ(std::to_integer<char>(*first.find("c")->data()), '2');
  EXPECT_EQ(std::to_integer<char>(*file.with(renamed.tensors()).find("z")->data()), '3');
}

TEST(SafetensorsWriter, WritesWhatItReads) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out.safetensors";
  {
    SafetensorsWriter writer(path, {{"wide", DType::f32, {2, 1}},
                                    {"scalar", DType::bf16, {}},
                                    {"none", DType::u8, {0}},
                                    {"odd \"name\"\n\\ \u00fc", DType::u8, {3}}});
    writer.append(to_bytes("12345"));
    writer.append(to_bytes("678ab"));
    EXPECT_FALSE(fs::exists(path));  // only finish() gives it its name
    writer.append(to_bytes("xyz"));
    writer.finish();
  }
  const auto file = Checkpoint::from_file(FileView::map(path));
  ASSERT_EQ(file.tensors().size(), 4U);
  EXPECT_EQ(hex(file.find("wide")->data(), 8), "3132333435363738");
  EXPECT_EQ(file.find("wide")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(hex(file.find("scalar")->data(), 2), "6162");
  EXPECT_TRUE(file.find("scalar")->shape.empty());
  EXPECT_EQ(file.find("none")->size, 0U);
  EXPECT_EQ(hex(file.find("odd \"name\"\n\\ \u00fc")->data(), 3), "78797a");
}

TEST(SafetensorsWriter, LeavesNothingBehindWhenItIsAbandoned) {
  const TemporaryFolder folder;
  { const SafetensorsWriter writer(folder.path() / "out.safetensors", {{"a", DType::f32, {2}}}); }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesTwoTensorsOfOneName) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] {
                SafetensorsWriter(folder.path() / "x", {{"a", DType::f32, {1}}, {"a", DType::u8, {1}}});
              }),
              HasSubstr("two tensors of one name"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace mxlm
