// The commands beside `eval`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "io/safetensors.hpp"
#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

const std::string kLines =
    "Alice was beginning to get very tired of sitting by her sister on the bank.\r\n\u00e9\u4e16\n";

/// stdout of a command that succeeds.
std::string output(const std::string& arguments) {
  const Outcome outcome = run_mxlm(arguments);
  EXPECT_EQ(outcome.code, 0) << arguments << "\n" << outcome.err;
  return outcome.out;
}

template <typename T>
std::vector<T> values(const TensorEntry& entry) {
  EXPECT_EQ(entry.size, static_cast<size_t>(entry.elements()) * sizeof(T));
  std::vector<T> out(static_cast<size_t>(entry.elements()));
  std::memcpy(out.data(), entry.data(), entry.size);
  return out;
}

TEST(Tokenize, SpecialTokensAndBack) {
  const Folder folder;
  const std::string text = quoted(folder.file("text.txt", kLines));
  const json ids = json::parse(output("tokenize " + quoted(kModel) + " --text " + text));
  ASSERT_TRUE(ids.is_array());
  ASSERT_GT(ids.size(), 10U);
  EXPECT_EQ(ids, json::parse(output("tokenize " + quoted(kModel + "/tokenizer.json") + " --text - <" + text)));
  EXPECT_EQ(output("tokenize " + quoted(kModel) + " --decode --text " + quoted(folder.file("ids.json", ids.dump()))),
            kLines);

  json tokenizer = json::parse(slurp(kModel + "/tokenizer.json"));
  const json special = {{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}};
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {special, sequence}},
      {"pair", {special, sequence}},
      {"special_tokens", {{"<|endoftext|>", {{"id", "<|endoftext|>"}, {"ids", {0}}, {"tokens", {"<|endoftext|>"}}}}}}};
  const std::string with_template = quoted(folder.file("tokenizer.json", tokenizer.dump()));
  EXPECT_EQ(json::parse(output("tokenize " + with_template + " --text " + text)), ids);
  json expected = ids;
  expected.insert(expected.begin(), 0);
  EXPECT_EQ(json::parse(output("tokenize " + with_template + " --special --text " + text)), expected);
}

TEST(Logits, ShapeAndMeanNllAreThoseOfEval) {
  const Folder folder;
  const std::string text = slurp(fs::path(MXLM_SOURCE_DIR) / "data/alice.txt").substr(0, 3000);
  const std::string text_path = quoted(folder.file("text.txt", text));
  const std::vector<int> ids = json::parse(output("tokenize " + quoted(kModel) + " --text " + text_path));
  constexpr size_t kLength = 48, kCount = 3;
  ASSERT_GE(ids.size(), kLength * kCount);
  json windows = json::array();
  for (size_t w = 0; w < kCount; ++w) {
    windows.push_back(std::vector<int>(ids.begin() + static_cast<std::ptrdiff_t>(w * kLength),
                                       ids.begin() + static_cast<std::ptrdiff_t>((w + 1) * kLength)));
  }
  const std::string tokens = quoted(folder.file("tokens.json", windows.dump()));
  const std::string variant = "mlp=mxfp4,attention=mxfp8,lm_head=mxint8";
  const json result = json::parse(output("eval --quiet --dtype float32 --text " + text_path +
                                         " --context 48 --max-windows 3 --mx " + variant + " --json -"));
  for (const size_t v : {0, 1}) {
    const std::string out = folder / "logits.safetensors";
    output("logits " + quoted(kModel) + " --dtype float32 --hidden --tokens " + tokens + " -o " + quoted(out) +
           (v == 1 ? " --mx " + variant : ""));
    const Checkpoint file = Checkpoint::from_file(FileView::map(out));
    const TensorEntry& logits = file.tensors().at("logits");
    EXPECT_EQ(logits.type, DType::f32);
    ASSERT_EQ(logits.shape, (std::vector<int64_t>{3, 48, 4096}));
    EXPECT_EQ(file.tensors().at("hidden").shape, (std::vector<int64_t>{9, 3, 48, 256}));
    const auto x = values<float>(logits);
    double sum = 0;
    for (size_t w = 0; w < kCount; ++w) {
      for (size_t t = 0; t + 1 < kLength; ++t) {
        const float* row = x.data() + (w * kLength + t) * 4096;
        double total = 0;
        for (size_t i = 0; i < 4096; ++i) total += std::exp(static_cast<double>(row[i]));
        sum += std::log(total) - static_cast<double>(row[static_cast<size_t>(ids[w * kLength + t + 1])]);
      }
    }
    EXPECT_NEAR(sum / (kCount * (kLength - 1)), result["runs"][0]["variants"][v]["nll"].get<double>(), 1e-6) << v;
  }
}

TEST(Cast, DecodedAndPackedAreTheSameValues) {
  const Folder folder;
  // The smallest real checkpoint of the tests: matrices whose rows end in a short block, and vectors.
  const std::string input = (fs::path(MXLM_TEST_DATA) / "models/bfloat16/model.safetensors").string();
  const std::string decoded_path = folder / "decoded.safetensors", again_path = folder / "again.safetensors",
                    packed_path = folder / "packed.safetensors";
  output("cast " + quoted(input) + " -o " + quoted(decoded_path) + " --format mxint8");
  output("cast " + quoted(decoded_path) + " -o " + quoted(again_path) + " --format mxint8");
  output("cast " + quoted(input) + " -o " + quoted(packed_path) + " --format mxint8 --packed");
  const Checkpoint source = Checkpoint::from_file(FileView::map(input));
  const Checkpoint decoded = Checkpoint::from_file(FileView::map(decoded_path));
  const Checkpoint again = Checkpoint::from_file(FileView::map(again_path));
  const Checkpoint packed = Checkpoint::from_file(FileView::map(packed_path));
  ASSERT_EQ(decoded.tensors().size(), source.tensors().size());
  ASSERT_EQ(packed.tensors().size(), 2 * source.tensors().size());
  for (const auto& [name, entry] : source.tensors()) {
    const TensorEntry& values_entry = decoded.tensors().at(name);
    EXPECT_EQ(values_entry.type, DType::f32);
    EXPECT_EQ(values_entry.shape, entry.shape);
    const auto x = values<float>(values_entry);
    EXPECT_EQ(x, values<float>(again.tensors().at(name))) << name;  // what is quantised stays as it is
    EXPECT_EQ(packed.tensors().at(name).type, DType::u8);
    EXPECT_EQ(packed.tensors().at(name).shape, entry.shape);  // a code a byte
    const auto codes = values<int8_t>(packed.tensors().at(name));
    const auto scales = values<uint8_t>(packed.tensors().at(name + ".scale"));
    const auto cols = static_cast<size_t>(entry.shape.back());
    const size_t blocks = (cols + 31) / 32;
    ASSERT_EQ(scales.size(), codes.size() / cols * blocks);
    double largest_error = 0, largest_value = 0;
    const auto raw = values<uint16_t>(entry);
    for (size_t i = 0; i < codes.size(); ++i) {
      const int scale = scales[i / cols * blocks + i % cols / 32];
      ASSERT_EQ(std::ldexp(static_cast<float>(codes[i]), scale - 127 - 6), x[i]) << name << " " << i;
      const float original = to_float(BFloat16{raw[i]});
      largest_error = std::max(largest_error, std::abs(static_cast<double>(original) - x[i]));
      largest_value = std::max(largest_value, std::abs(static_cast<double>(original)));
    }
    EXPECT_LE(largest_error, largest_value / 32) << name;  // 7 bits and a sign
    EXPECT_GT(largest_error, 0) << name;
  }
}

TEST(Cast, PackedSizesOfNarrowFormatsAndRefusals) {
  const Folder folder;
  const std::string input = (fs::path(MXLM_TEST_DATA) / "models/bfloat16/model.safetensors").string();
  const Checkpoint source = Checkpoint::from_file(FileView::map(input));
  for (const auto& [format, bits] : {std::pair<const char*, int64_t>{"mxfp4", 4}, {"mxfp6_e2m3", 6}}) {
    const std::string out = folder / "packed.safetensors";
    output("cast " + quoted(input) + " -o " + quoted(out) + " --packed --format " + format);
    const Checkpoint packed = Checkpoint::from_file(FileView::map(out));
    for (const auto& [name, entry] : source.tensors()) {
      std::vector<int64_t> shape = entry.shape;
      shape.back() = (shape.back() * bits + 7) / 8;
      EXPECT_EQ(packed.tensors().at(name).shape, shape) << name;
    }
  }
  for (const auto& [format, word] : {std::pair<const char*, const char*>{"mxfp4@block=0", "block"},
                                     {"mxfp4@scale_bits=4", "scale_bits"},
                                     {"mxfp5", "mxfp5"}}) {
    const std::string out = folder / "refused.safetensors";
    const Outcome outcome = run_mxlm("cast " + quoted(input) + " -o " + quoted(out) + " --packed --format " + format);
    EXPECT_EQ(outcome.code, 2) << format;
    EXPECT_THAT(outcome.err, HasSubstr(word));
    EXPECT_FALSE(fs::exists(out));
  }
}

TEST(Cast, Stages) {
  const Folder folder;
  const std::string input = folder / "in.safetensors";
  const std::vector<float> x{448, 1, 100, -0.3F, 0.01F, 17, 224, 2, -50, 0.2F, 0, 3};
  {
    SafetensorsWriter writer(input, {{"x", DType::f32, {2, 6}}});
    writer.append(std::as_bytes(std::span(x)));
    writer.finish();
  }
  const std::string out = folder / "out.safetensors";
  const auto cast = [&](const std::string& format) {
    output("cast " + quoted(input) + " -o " + quoted(out) + " --format " + format);
    return values<float>(Checkpoint::from_file(FileView::map(out)).tensors().at("x"));
  };
  // The tensor's scale is 448 / 448, the second row's own 224 / 448: E4M3 of x, and of 2 x halved.
  EXPECT_EQ(cast("fp8_e4m3_tensor"),
            (std::vector<float>{448, 1, 96, -0.3125F, 0.009765625F, 16, 224, 2, -48, 0.203125F, 0, 3}));
  EXPECT_EQ(cast("fp8_e4m3_row"), cast("fp8_e4m3_tensor"));
  EXPECT_EQ(cast("fp8_e4m3_unscaled"), cast("fp8_e4m3_tensor"));
  EXPECT_EQ(cast("bf16"),
            (std::vector<float>{448, 1, 100, -0.30078125F, 0.010009765625F, 17, 224, 2, -50, 0.2001953125F, 0, 3}));
  // One block a row under the tensor's scale 1/6: E4M3 scales 448 and 224, so steps of 37.3 and 18.7 under 6 x them.
  const std::vector<float> fp4 = cast("nvfp4");
  EXPECT_FLOAT_EQ(fp4[0], 448);
  EXPECT_FLOAT_EQ(fp4[2], 1.5F * 448 / 6);
  EXPECT_FLOAT_EQ(fp4[6], 224);
  EXPECT_EQ(fp4[1], 0);
  const Outcome packed = run_mxlm("cast " + quoted(input) + " -o " + quoted(out) + " --format nvfp4 --packed");
  EXPECT_EQ(packed.code, 2);
  EXPECT_THAT(packed.err, HasSubstr("one E8M0 scale a block"));
  const Outcome outliers = run_mxlm("cast " + quoted(input) + " -o " + quoted(out) + " --format llm_int8");
  EXPECT_EQ(outliers.code, 2);
  EXPECT_THAT(outliers.err, HasSubstr("int8_row"));
}

TEST(Formats, ListsTheTable) {
  const std::string table = output("formats");
  for (const char* name : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8", "mxeXmY",
                           "nvfp4", "llm_int8", "mxintN", "rceil", "nearest", "448", "57344"}) {
    EXPECT_THAT(table, HasSubstr(name));
  }
}

TEST(Inspect, ListsEveryLinearAndWhatReplacesIt) {
  const std::string text = output("inspect --quiet --mx mlp=mxfp4 --mx lm_head=mxint8/none,model.layers.3.*=mxfp8");
  std::istringstream lines(text);
  std::string line;
  std::set<std::string> linears;
  int mlp = 0, layer = 0;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string module;
    words >> module;
    if (!module.starts_with("model.layers.") && module != "lm_head") continue;
    linears.insert(module);
    const bool is_mlp = module.find(".mlp.") != std::string::npos;
    EXPECT_EQ(line.find("mxfp4_e2m1") != std::string::npos, is_mlp) << line;
    EXPECT_EQ(line.find("mxint8/none") != std::string::npos, module == "lm_head") << line;
    const bool third = module.starts_with("model.layers.3.");
    EXPECT_EQ(line.find("mxfp8_e4m3") != std::string::npos, third) << line;
    mlp += is_mlp;
    layer += third;
  }
  EXPECT_EQ(linears.size(), 8U * 7 + 1);
  EXPECT_EQ(mlp, 8 * 3);
  EXPECT_EQ(layer, 7);
  for (const char* word :
       {"booklet-7m", "llama", "6951168", "weights of one step", "hidden states", "limit", "It scores", "comparison"}) {
    EXPECT_THAT(text, HasSubstr(word));
  }
}

TEST(Help, OfEveryCommandHasAnExample) {
  EXPECT_THAT(output("--help"), HasSubstr("Example:"));
  for (const char* command :
       {"eval", "inspect", "logits", "cast", "tokenize", "formats", "bench", "models", "fetch", "suite"}) {
    EXPECT_THAT(output(std::string(command) + " --help"), HasSubstr(std::string("Example: mxlm ") + command));
  }
  EXPECT_THAT(output("--version"), HasSubstr("mxlm "));
}

}  // namespace
}  // namespace mxlm
