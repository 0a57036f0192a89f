// Every checkpoint of tests/data/models against the logits that transformers computed from it
// (tools/goldens/make_model_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "io/file.hpp"
#include "io/safetensors.hpp"
#include "logits_of.hpp"
#include "model/config.hpp"
#include "model/forward.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using cpu::Isa;
using cpu::Order;

const fs::path kModels = fs::path(MXLM_TEST_DATA) / "models";

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kModels)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// One file of expected logits, [windows * length, vocabulary] row-major.
struct Expected {
  std::string file;
  int64_t windows = 0, length = 0, vocabulary = 0;
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  std::vector<float> logits_bfloat16;  // empty but for the BF16 model
  double double_error = 0;             // max |float32 logits - float64 logits| of transformers

  [[nodiscard]] std::vector<std::span<const int32_t>> spans() const {
    std::vector<std::span<const int32_t>> out;
    for (int64_t w = 0; w < windows; ++w) {
      out.emplace_back(tokens.data() + w * length, static_cast<size_t>(length));
    }
    return out;
  }
};

std::vector<float> floats(const TensorEntry& entry) {
  EXPECT_EQ(entry.type, DType::f32);
  std::vector<float> out(static_cast<size_t>(entry.elements()));
  std::memcpy(out.data(), entry.data(), entry.size);
  return out;
}

Expected read_expected(const fs::path& path) {
  const FileView file = FileView::map(path);
  const Checkpoint checkpoint = Checkpoint::from_file(file);
  Expected out;
  out.file = path.filename().string();
  const TensorEntry& tokens = checkpoint.tensors().at("tokens");
  const TensorEntry& logits = checkpoint.tensors().at("logits");
  out.windows = tokens.shape.at(0);
  out.length = tokens.shape.at(1);
  out.vocabulary = logits.shape.at(2);
  std::vector<int64_t> ids(static_cast<size_t>(tokens.elements()));
  std::memcpy(ids.data(), tokens.data(), tokens.size);
  for (const int64_t id : ids) out.tokens.push_back(static_cast<int32_t>(id));
  out.logits = floats(logits);
  if (const TensorEntry* bf16 = checkpoint.find("logits_bfloat16")) out.logits_bfloat16 = floats(*bf16);
  const std::string_view text = file.text();
  constexpr std::string_view key = "\"double_error\":\"";
  const size_t at = text.find(key);
  EXPECT_NE(at, text.npos) << path;
  out.double_error = std::strtod(std::string(text.substr(at + key.size(), 16)).c_str(), nullptr);
  EXPECT_GT(out.double_error, 0) << path;
  return out;
}

std::vector<Expected> all_expected(const fs::path& folder) {
  std::vector<Expected> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("expected") && name.ends_with(".safetensors")) out.push_back(read_expected(entry.path()));
  }
  EXPECT_FALSE(out.empty()) << folder;
  return out;
}

struct Model {
  Checkpoint checkpoint;
  ModelSpec spec;
  explicit Model(const fs::path& folder) : checkpoint(Checkpoint::open(folder)) {
    const FileView file = FileView::map(folder / "config.json");
    spec = load_spec(Config::parse(file.text(), file.name()), checkpoint);
  }
};

std::vector<float> logits_of(const ModelSpec& spec, Backend& backend, DType compute,
                             const std::vector<std::span<const int32_t>>& windows) {
  return logits_of(spec, backend, compute, windows, [](const LinearSpec&) { return ProductSpec{}; });
}

double largest(const std::vector<float>& x) {
  double out = 0;
  for (const float v : x) out = std::max(out, std::abs(static_cast<double>(v)));
  return out;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double out = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= out)) out = d;  // keeps a NaN
  }
  return out;
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, Float32LogitsAreThoseOfTransformers) {
  const Model model(kModels / GetParam());
  for (const Expected& expected : all_expected(kModels / GetParam())) {
    ASSERT_EQ(expected.vocabulary, model.spec.vocabulary);
    for (const Isa isa : test_isas()) {
      for (const Order order : {Order::forward, Order::reversed}) {
        const auto backend = test_backend({.threads = 1, .isa = isa, .order = order});
        const auto ours = logits_of(model.spec, *backend, DType::f32, expected.spans());
        const double difference = largest_difference(ours, expected.logits);
        // Theirs is double_error away from the exact result. Ours may be twice as far, on the other side.
        EXPECT_LE(difference, 3 * expected.double_error) << expected.file << " " << isa_name(isa);
        EXPECT_LE(difference, 2e-5 * largest(expected.logits)) << expected.file << " " << isa_name(isa);
        if (order == Order::forward && isa == test_isas().back()) {
          RecordProperty(expected.file, std::to_string(difference / expected.double_error));
        }
      }
    }
  }
}

TEST_P(Golden, AWindowGivesTheSameBitsAloneInCompanyAndOnTwoThreads) {
  const Model model(kModels / GetParam());
  // Windows of all lengths in one batch: under dynamic RoPE they have different frequencies.
  std::vector<Expected> files = all_expected(kModels / GetParam());
  std::vector<std::span<const int32_t>> together;
  for (const Expected& expected : files) {
    for (const auto& window : expected.spans()) together.push_back(window);
  }
  for (const DType compute : {DType::f32, DType::bf16}) {
    const auto one = test_backend({.threads = 1, .isa = std::nullopt, .order = Order::forward});
    const auto two = test_backend({.threads = 2, .isa = std::nullopt, .order = Order::forward});
    const std::vector<float> all = logits_of(model.spec, *two, compute, together);
    size_t at = 0;
    for (const auto& window : together) {
      const std::vector<float> alone = logits_of(model.spec, *one, compute, {window});
      ASSERT_LE(at + alone.size(), all.size());
      EXPECT_EQ(std::memcmp(alone.data(), all.data() + at, alone.size() * sizeof(float)), 0);
      at += alone.size();
    }
    EXPECT_EQ(at, all.size());
  }
}

TEST_P(Golden, TokensOutsideTheVocabularyAreRefused) {
  const Model model(kModels / GetParam());
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = Order::forward});
  const ForwardPass forward(model.spec, *backend, DType::f32);
  for (const int64_t bad : {int64_t{-1}, model.spec.vocabulary}) {
    const std::vector<int32_t> window{0, static_cast<int32_t>(bad), 1};
    const std::vector<std::span<const int32_t>> windows{window};
    EXPECT_THROW((void)forward.make_batch(windows), Error) << bad;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::ValuesIn(model_names()), [](const auto& test) { return test.param; });

TEST(GoldenBfloat16, IsAsFarFromFloat32AsTransformers) {
  const Model model(kModels / "bfloat16");
  const Expected expected = read_expected(kModels / "bfloat16/expected.safetensors");
  ASSERT_FALSE(expected.logits_bfloat16.empty());
  const double theirs = rms_difference(expected.logits_bfloat16, expected.logits);
  for (const Isa isa : test_isas()) {
    const auto backend = test_backend({.threads = 1, .isa = isa, .order = Order::forward});
    const auto ours = logits_of(model.spec, *backend, DType::bf16, expected.spans());
    EXPECT_LE(rms_difference(ours, expected.logits), 1.1 * theirs) << isa_name(isa);
    EXPECT_GT(rms_difference(ours, expected.logits), 0.5 * theirs) << isa_name(isa);  // it does round
  }
}

}  // namespace
}  // namespace mxlm
