// Checkpoints that hold weights in codes (tools/goldens/make_packed_goldens.py), and what is refused.

#include "model/packed.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "io/file.hpp"
#include "logits_of.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kPacked = fs::path(MXLM_TEST_DATA) / "packed";

std::vector<std::string> packed_folders() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kPacked)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

Config config_of(const std::string& name, bool quantized) {
  const FileView file = FileView::map(kPacked / name / "config.json");
  std::string text(file.text());
  if (!quantized) {  // an object key that nobody reads
    const size_t at = text.find("quantization_config");
    EXPECT_NE(at, std::string::npos);
    text.replace(at, 5, "former");
  }
  return Config::parse(text, name);
}

class Packed : public testing::TestWithParam<std::string> {};

TEST_P(Packed, WeightsAndLogitsAreThoseOfTheDecodedCheckpoint) {
  const Checkpoint codes = Checkpoint::from_file(FileView::map(kPacked / GetParam() / "model.safetensors"));
  const Checkpoint values = Checkpoint::from_file(FileView::map(kPacked / GetParam() / "decoded.safetensors"));
  const ModelSpec packed = load_spec(config_of(GetParam(), true), codes);
  const ModelSpec decoded = load_spec(config_of(GetParam(), false), values);
  const auto ours = packed.linears(), theirs = decoded.linears();
  ASSERT_EQ(ours.size(), theirs.size());
  EXPECT_EQ(packed.parameters(), decoded.parameters());
  EXPECT_EQ(packed.dtype, DType::bf16);
  size_t in_codes = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    std::vector<std::byte> our_storage, their_storage;
    const HostMatrix a = ours[i]->weight.view(our_storage), b = theirs[i]->weight.view(their_storage);
    ASSERT_EQ(a.type, DType::bf16);
    ASSERT_EQ(b.type, DType::bf16);
    ASSERT_EQ(a.rows * a.cols, b.rows * b.cols);
    const auto *x = reinterpret_cast<const BFloat16*>(a.data), *y = reinterpret_cast<const BFloat16*>(b.data);
    for (int64_t k = 0; k < a.rows * a.cols; ++k) {
      const float want = to_float(y[k]);
      const bool same = x[k].bits == y[k].bits || (std::isnan(want) && std::isnan(to_float(x[k])));
      ASSERT_TRUE(same) << ours[i]->module << " at " << k << ": " << to_float(x[k]) << ", not " << want;
    }
    if (ours[i]->weight.stored_bits > 0) ++in_codes;
  }
  EXPECT_EQ(in_codes, 7U);

  const std::vector<int32_t> window{3, 14, 15, 9, 26, 5, 35, 8};
  const std::vector<std::span<const int32_t>> windows{window};
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  for (const char* format : {"none", "mxfp4"}) {
    ProductSpec product;
    product.weights = product.activations = mx::parse_format(format);
    const auto all = [&](const LinearSpec&) { return product; };
    const std::vector<float> one = logits_of(packed, *backend, DType::bf16, windows, all);
    const std::vector<float> other = logits_of(decoded, *backend, DType::bf16, windows, all);
    EXPECT_EQ(std::memcmp(one.data(), other.data(), one.size() * sizeof(float)), 0) << format;
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Packed, testing::ValuesIn(packed_folders()),
                         [](const auto& test) { return test.param; });

std::string refusal(const std::string& quantization) {
  try {
    PackedFormats::read(Config::parse(R"({"quantization_config": )" + quantization + "}", "config.json"));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// As AutoGPTQ, AutoAWQ, bitsandbytes (0.37 wrote no quant_method), MLX and DeepSeek write them.
TEST(PackedFormats, NamesTheMethodThatIsNoMicroscalingFormat) {
  const auto said = [](const std::string& text) {
    try {
      PackedFormats::read(Config::parse(text, "config.json"));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(said(R"({"_name_or_path": "org/base", "quantization_config": {"quant_method": "gptq", "bits": 4,
                    "group_size": 128}})"),
            "'config.json': the weights are quantised with GPTQ (4 bits, groups of 128), which is not a Microscaling "
            "format and cannot be read; give the original model (the file names 'org/base').");
  EXPECT_THAT(said(R"({"quantization_config": {"quant_method": "awq", "w_bit": 4, "q_group_size": 64}})"),
              HasSubstr("with AWQ (4 bits, groups of 64),"));
  EXPECT_THAT(said(R"({"quantization_config": {"load_in_8bit": true, "load_in_4bit": false}})"),
              HasSubstr("with bitsandbytes (8 bits),"));
  EXPECT_THAT(said(R"({"quantization_config": {"quant_method": "bitsandbytes", "_load_in_4bit": true}})"),
              HasSubstr("with bitsandbytes (4 bits),"));
  EXPECT_THAT(said(R"({"quantization": {"group_size": 64, "bits": 4}})"),
              HasSubstr("with MLX (4 bits, groups of 64),"));
  EXPECT_THAT(said(R"({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
                      "quantization_config": {"group_size": 32, "bits": 4, "mode": "mxfp4"}})"),
              HasSubstr("with MLX"));
  EXPECT_THAT(said(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})"),
              HasSubstr("with FP8,"));
  // A folder of whoever wrote the file is no model's name, and other text is none either.
  for (const char* name : {"/home/me/base", "./base", "base", "a/b/c", "org/", "org/ba se", "org/b\\u0007"}) {
    EXPECT_THAT(
        said(std::string(R"({"quantization_config": {"quant_method": "gptq"}, "_name_or_path": ")") + name + "\"}"),
        HasSubstr("give the original model."))
        << name;
  }
}

TEST(PackedFormats, RefusesWhatCannotBeReadWithTheReason) {
  EXPECT_THAT(refusal("{}"), AllOf(HasSubstr("names no quant_method"), HasSubstr("modelopt MXFP8"),
                                   HasSubstr("compressed-tensors mxfp4-pack-quantized"), HasSubstr("quark fp4")));
  EXPECT_THAT(refusal(R"({"quant_method": "new"})"), HasSubstr("quant_method is 'new'"));
  EXPECT_THAT(refusal(R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})"), HasSubstr("quant_algo is 'NVFP4'"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"})"),
              HasSubstr("format is 'nvfp4-pack-quantized'"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
                         "quantization_status": "frozen"})"),
              HasSubstr("quantization_status is 'frozen'"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
                         "transform_config": {"config_groups": {"r1": {"type": "hadamard"}}}})"),
              HasSubstr("rotates"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "mixed-precision",
                         "config_groups": {"a": {"format": "mxfp8-quantized"}, "b": {"format": "pack-quantized"}}})"),
              HasSubstr("the format of b of its config_groups is 'pack-quantized'"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
                         "config_groups": {"a": {"weights": {"group_size": 16}}}})"),
              HasSubstr("group_size 16, not 32"));
  EXPECT_THAT(refusal(R"({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int4"}}})"),
              HasSubstr("dtype in global_quant_config is 'int4'"));
  EXPECT_THAT(refusal(R"({"quant_method": "quark", "global_quant_config":
                         {"weight": {"dtype": "fp4", "group_size": 32, "scale_format": "float32"}}})"),
              HasSubstr("scale_format"));
  EXPECT_EQ(refusal(R"({"quant_method": "mxfp4"})"), "accepted");
  EXPECT_EQ(refusal("null"), "accepted");
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "dense", "config_groups": {"a": {"weights":
                         {"num_bits": 8}}}})"),
              HasSubstr("format is 'dense'"));
  EXPECT_THAT(refusal(R"({"quant_method": "compressed-tensors", "format": "dense",
                         "sparsity_config": {"format": "sparse-24-bitmask"}})"),
              HasSubstr("sparse-24-bitmask"));
  // Only activations or the key/value cache: the weights are plain.
  EXPECT_EQ(refusal(R"({"quant_method": "compressed-tensors", "format": "dense", "config_groups": {},
                       "kv_cache_scheme": {"num_bits": 8}, "sparsity_config": {}})"),
            "accepted");
}

/// A checkpoint of one module "m" in a file.
class PackedTensors : public testing::Test {
 protected:
  struct Declared {
    std::string name;
    DType type;
    std::vector<int64_t> shape;
  };
  std::string read(const std::vector<Declared>& tensors, int64_t rows, int64_t cols, const std::string& quantization) {
    const fs::path path = fs::path(testing::TempDir()) / "packed_test.safetensors";
    std::vector<SafetensorsWriter::Declared> declared;
    for (const Declared& t : tensors) declared.push_back({t.name, t.type, t.shape});
    SafetensorsWriter writer(path, declared);
    for (const Declared& t : tensors) {
      size_t size = dtype_size(t.type);
      for (const int64_t d : t.shape) size *= static_cast<size_t>(d);
      writer.append(std::vector<std::byte>(size));
    }
    writer.finish();
    std::string result;
    try {
      const Checkpoint checkpoint = Checkpoint::from_file(FileView::map(path));
      const auto formats =
          PackedFormats::read(Config::parse(R"({"quantization_config": )" + quantization + "}", "config.json"));
      const auto weight = formats->weight(checkpoint, "m", rows, cols);
      result = weight ? "packed" : "plain";
      if (weight) {
        std::vector<BFloat16> values(static_cast<size_t>(rows * cols));
        weight->decode(values.data());
      }
    } catch (const Error& error) {
      result = error.what();
    }
    fs::remove(path);
    return result;
  }
};

TEST_F(PackedTensors, AreCheckedAgainstTheConfig) {
  const std::string fp4 = R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"})";
  const std::string fp8 = R"({"quant_method": "compressed-tensors", "format": "mxfp8-quantized"})";
  const Declared scale{"m.weight_scale", DType::u8, {4, 2}};
  EXPECT_EQ(read({{"m.weight_packed", DType::u8, {4, 32}}, scale}, 4, 64, fp4), "packed");
  EXPECT_EQ(read({{"m.weight", DType::f8_e4m3, {4, 64}}, scale}, 4, 64, fp8), "packed");
  EXPECT_EQ(read({{"m.weight", DType::bf16, {4, 64}}}, 4, 64, fp4), "plain");
  EXPECT_EQ(read({{"n.weight", DType::bf16, {4, 64}}}, 4, 64, fp4), "plain");
  EXPECT_THAT(read({{"m.weight_packed", DType::u8, {4, 32}}}, 4, 64, fp4), HasSubstr("no tensor 'm.weight_scale'"));
  EXPECT_THAT(read({{"m.weight_packed", DType::u8, {4, 31}}, scale}, 4, 64, fp4), HasSubstr("holds no weight [4, 64]"));
  EXPECT_THAT(read({{"m.weight_packed", DType::u8, {5, 32}}, scale}, 4, 64, fp4), HasSubstr("holds no weight [4, 64]"));
  EXPECT_THAT(read({{"m.weight_packed", DType::i32, {4, 8}}, scale}, 4, 64, fp4), HasSubstr("stored as I32"));
  EXPECT_THAT(read({{"m.weight", DType::f8_e4m3, {4, 64}}, scale}, 4, 64, fp4), HasSubstr("holds no weight"));
  EXPECT_THAT(read({{"m.weight_packed", DType::u8, {4, 20}}, {"m.weight_scale", DType::u8, {4, 2}}}, 4, 40, fp4),
              HasSubstr("not a multiple of the block size 32"));
  EXPECT_THAT(read({{"m.weight", DType::f8_e4m3, {4, 64}}, {"m.weight_scale", DType::f32, {4, 1}}}, 4, 64, fp8),
              AllOf(HasSubstr("F32 [4, 1]"), HasSubstr("not the E8M0 scales [4, 2]")));
  EXPECT_THAT(
      read({{"m.weight_packed", DType::u8, {4, 32}}, scale, {"m.weight_global_scale", DType::f32, {1}}}, 4, 64, fp4),
      HasSubstr("m.weight_global_scale"));
  EXPECT_THAT(read({{"m.weight", DType::u8, {4, 48}}, scale}, 4, 64,
                   R"({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp6_e2m3"}},
                       "layer_quant_config": {"*k*": {"weight": {"dtype": "fp6_e3m2"}}}})"),
              HasSubstr("two formats"));
}

}  // namespace
}  // namespace mxlm
