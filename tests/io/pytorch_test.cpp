#include "io/pytorch.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io_helpers.hpp"
#include "zip_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;
using nlohmann::json;
using std::string_literals::operator""s;

const fs::path kData = fs::path(MXLM_TEST_DATA) / "io";

std::string hex(const TensorEntry& tensor) {
  std::string out;
  for (size_t i = 0; i < tensor.size; ++i) out += fmt::format("{:02x}", std::to_integer<unsigned>(tensor.data()[i]));
  return out;
}

void expect_golden(const Checkpoint& checkpoint, const json& golden) {
  EXPECT_EQ(checkpoint.tensors().size(), golden.size());
  for (const auto& [name, expected] : golden.items()) {
    const TensorEntry* tensor = checkpoint.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(dtype_name(tensor->type), expected["dtype"].get<std::string>()) << name;
    EXPECT_EQ(tensor->shape, expected["shape"].get<std::vector<int64_t>>()) << name;
    EXPECT_EQ(hex(*tensor), expected["hex"].get<std::string>()) << name;
    EXPECT_TRUE(is_aligned(*tensor)) << name;
  }
}

class PyTorchProtocols : public testing::TestWithParam<int> {};

TEST_P(PyTorchProtocols, AreReadAsTorchHasThem) {
  const json golden = json::parse(read_all(kData / "pytorch.json"));
  ASSERT_GE(golden["tensors"].size(), 30U);
  const auto path = kData / "pytorch" / fmt::format("protocol{}.bin", GetParam());
  const auto checkpoint = Checkpoint::from_file(FileView::map(path));
  expect_golden(checkpoint, golden["tensors"]);
  EXPECT_EQ(checkpoint.sha256(), sha256_hex(FileView::map(path).bytes()));
  // What is contiguous lies in the mapping, and tensors that share a storage share it there too.
  const auto* whole = checkpoint.find("views.whole");
  EXPECT_EQ(whole->file.bytes().size(), fs::file_size(path));
  EXPECT_EQ(checkpoint.find("views.same")->data() - checkpoint.find("views.same")->file.bytes().data(),
            whole->data() - whole->file.bytes().data());
  EXPECT_EQ(checkpoint.find("views.rows")->offset, whole->offset + 2 * 5 * sizeof(float));
}

INSTANTIATE_TEST_SUITE_P(All, PyTorchProtocols, testing::Values(2, 3, 4, 5));

TEST(PyTorch, ReadsFromMemoryThatIsNotAligned) {
  const json golden = json::parse(read_all(kData / "pytorch.json"));
  const std::string bytes = "x"s + read_all(kData / "pytorch/protocol2.bin");
  const auto file = FileView::from_memory("memory", std::as_bytes(std::span(bytes)).subspan(1));
  expect_golden(Checkpoint::from_file(file), golden["tensors"]);
}

TEST(PyTorch, ReadsOtherWritersOfTheSameLayout) {
  for (const auto* name : {"small.bin", "zipfile.bin"}) {
    const auto checkpoint = Checkpoint::from_file(FileView::map(kData / "pytorch" / name));
    ASSERT_NE(checkpoint.find("a"), nullptr);
    EXPECT_EQ(hex(*checkpoint.find("a")), "000000000000803f0000004000004040") << name;
  }
  EXPECT_NE(Checkpoint::from_file(FileView::map(kData / "pytorch/nested.bin")).find("a"), nullptr);
}

TEST(PyTorch, RefusesEverythingElse) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"legacy.bin", "PyTorch before 1.6"},
      {"command.bin", "'posix.system' at byte"},
      {"command4.bin", "'posix.system' at byte"},
      {"training.bin", "a dict under the name 'model'"},
      {"list.bin", "holds a list"},
      {"tensor.bin", "holds a tensor"},
      {"module.bin", "'torch.nn.modules.linear.Linear'"},
      {"complex.bin", "'torch.ComplexFloatStorage'"},
      {"sparse.bin", "'torch._utils._rebuild_sparse_tensor'"},
      {"expanded.bin", "repeats elements of its storage"},
      {"deflated.bin", "compressed"},
      {"big_endian.bin", "byte order 'big'"},
      {"short_storage.bin", "a storage of 15 bytes where the pickle says 16"},
      {"script.bin", "TorchScript"},
  };
  for (const auto& [name, expected] : cases) {
    const auto path = kData / "pytorch" / name;
    EXPECT_THAT(message_of([&] { Checkpoint::from_file(FileView::map(path)); }),
                AllOf(HasSubstr(expected), HasSubstr(path.string())));
  }
}

TEST(PyTorch, EveryCutIsRefused) {
  const std::string whole = read_all(kData / "pytorch/small.bin");
  for (size_t size = 4; size < whole.size(); ++size) {
    const auto file = FileView::from_owned("x.bin", to_bytes(whole.substr(0, size)));
    EXPECT_THAT(message_of([&] { Checkpoint::from_file(file); }), HasSubstr("not a valid zip archive"));
  }
}

// An archive with a state dict of one tensor "w", a float storage of `elements`, and 24 bytes of data.
std::string archive(const std::string& offset, const std::string& shape, const std::string& strides,
                    const std::string& elements = "K\x06") {
  const auto unicode = [](const std::string& text) { return "X"s + little(text.size(), 4) + text; };
  const std::string pickle = "\x80\x02}" + unicode("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + unicode("storage") +
                             "ctorch\nFloatStorage\n" + unicode("0") + unicode("cpu") + elements + "tQ" + offset +
                             shape + strides + "\x89NtRs.";
  return zip_archive({{"m/data.pkl", pickle}, {"m/data/0", "abcdefghijklmnopqrstuvwx"}});
}

TEST(PyTorch, ChecksTensorsAgainstTheirStorage) {
  const auto open = [](const std::string& bytes) {
    return Checkpoint::from_file(FileView::from_owned("x.bin", to_bytes(bytes)));
  };
  const auto bad = [&](const std::string& bytes) {
    std::string text = message_of([&] { open(bytes); });
    EXPECT_THAT(text, AllOf(HasSubstr("Tensor 'w'"), HasSubstr("'x.bin'")));
    return text;
  };
  const std::string zero = "K\0"s, largest = "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s, minus = "J\xff\xff\xff\xff";
  EXPECT_EQ(hex(*open(archive(zero, "K\x03K\x02\x86", "K\x01K\x03\x86")).find("w")),
            "616263646d6e6f706566676871727374696a6b6c75767778");
  EXPECT_EQ(open(archive("K\x05", ")", ")")).find("w")->size, 4U);
  EXPECT_THAT(bad(archive("K\x06", ")", ")")), HasSubstr("reaches element 6 of a storage of 6"));
  EXPECT_THAT(bad(archive(minus, ")", ")")), HasSubstr("begins before its storage"));
  EXPECT_THAT(bad(archive(largest, "K\x02\x85", "K\x01\x85")), HasSubstr("overflow"));
  EXPECT_THAT(bad(archive("K\x01", "K\x02K\x03\x86", "K\x03K\x01\x86")), HasSubstr("reaches element 6"));
  EXPECT_THAT(bad(archive(zero, "K\x02\x85", minus + "\x85")), HasSubstr("negative stride"));
  EXPECT_THAT(bad(archive(zero, minus + "\x85", "K\x01\x85")), HasSubstr("negative extent"));
  EXPECT_THAT(bad(archive(zero, largest + "\x85", "K\x01\x85")), HasSubstr("size overflows"));
  EXPECT_THAT(bad(archive(zero, "K\x03\x85", largest + "\x85")), HasSubstr("overflow"));
  EXPECT_THAT(bad(archive(zero, "J\0\0\0\x01\x85"s, zero + "\x85")), HasSubstr("repeats elements"));
  EXPECT_THAT(bad(archive(zero, ")", ")", "K\x07")), HasSubstr("24 bytes where the pickle says 28"));
  std::string missing = archive(zero, ")", ")");
  for (size_t at = 0; (at = missing.find("m/data/0", at)) != missing.npos; ++at) missing[at + 7] = '1';
  EXPECT_THAT(bad(missing), HasSubstr("the storage '0', which is missing"));
}

TEST(PyTorch, RefusesOtherZipArchives) {
  const auto bad = [](const std::vector<std::pair<std::string, std::string>>& files) {
    return message_of([&] { Checkpoint::from_file(FileView::from_owned("x.bin", to_bytes(zip_archive(files)))); });
  };
  EXPECT_THAT(bad({{"word/document.xml", "x"}}), HasSubstr("without data.pkl"));
  EXPECT_THAT(bad({{"a/data.pkl", "x"}, {"b/data.pkl", "x"}}), HasSubstr("two pickles"));
  EXPECT_THAT(bad({{"a/b/data.pkl", "x"}}), HasSubstr("without data.pkl"));
}

TEST(PyTorchFolder, ReadsShards) {
  const fs::path folder = kData / "pytorch/sharded";
  const auto checkpoint = Checkpoint::open(folder);
  expect_golden(checkpoint, json::parse(read_all(folder / "golden.json")));
  const std::string both = sha256_hex(FileView::map(folder / "pytorch_model-00001-of-00002.bin").bytes()) +
                           sha256_hex(FileView::map(folder / "pytorch_model-00002-of-00002.bin").bytes());
  EXPECT_EQ(checkpoint.sha256(), sha256_hex(std::as_bytes(std::span(both))));
}

TEST(PyTorchFolder, IsReadWhereNoSafetensorsFileHasTheUsualName) {
  const TemporaryFolder folder;
  const std::string other = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  const auto shape = [&] { return Checkpoint::open(folder.path()).find("a")->shape; };
  folder.file("pytorch_model.bin.index.json", "not read");
  folder.file("training_args.bin", "not read");
  folder.file("other.safetensors", safetensors(other, "1"));
  folder.file("pytorch_model.bin", read_all(kData / "pytorch/small.bin"));
  EXPECT_EQ(shape(), (std::vector<int64_t>{4}));
  folder.file("model.safetensors", safetensors(other, "1"));
  EXPECT_EQ(shape(), (std::vector<int64_t>{1}));
}

}  // namespace
}  // namespace mxlm
