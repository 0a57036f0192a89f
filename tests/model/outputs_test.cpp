// Quantised outputs of Linears through a whole model, against microxcaling around transformers
// (tools/goldens/make_output_goldens.py).

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "io/file.hpp"
#include "logits_of.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

template <typename T>
std::vector<T> values(const Checkpoint& checkpoint, const std::string& name) {
  const TensorEntry& entry = checkpoint.tensors().at(name);
  std::vector<T> out(static_cast<size_t>(entry.elements()));
  EXPECT_EQ(entry.size, out.size() * sizeof(T));
  std::memcpy(out.data(), entry.data(), entry.size);
  return out;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

TEST(Outputs, AreQuantisedWhereThePrototypeQuantisesThem) {
  const fs::path folder = fs::path(MXLM_TEST_DATA) / "models" / "attention_bias";
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const FileView config = FileView::map(folder / "config.json");
  const ModelSpec spec = load_spec(Config::parse(config.text(), config.name()), checkpoint);
  const Checkpoint golden =
      Checkpoint::from_file(FileView::map(fs::path(MXLM_TEST_DATA) / "outputs" / "goldens.safetensors"));
  std::vector<int32_t> tokens;
  for (const int64_t id : values<int64_t>(golden, "tokens")) tokens.push_back(static_cast<int32_t>(id));
  const std::vector<std::span<const int32_t>> windows{tokens};
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  const auto ours = [&](const ProductSpec& product) {
    return logits_of(spec, *backend, DType::f32, windows,
                     [&](const LinearSpec& linear) { return linear.role == Role::lm_head ? ProductSpec{} : product; });
  };
  EXPECT_LT(distance(ours({}), values<float>(golden, "baseline")), 1e-5);
  for (const std::string format : {"mxint8", "mxfp8_e4m3", "mxfp4_e2m1"}) {
    const OperandSpec spec_of = mx::parse_format(format);
    const auto weights = values<float>(golden, "weights." + format);
    const auto outputs = values<float>(golden, "outputs." + format);
    const auto all = values<float>(golden, "all." + format);
    EXPECT_LT(distance(ours({.weights = spec_of, .activations = {}, .outputs = {}}), weights), 1e-5);
    // A value near a tie rounds either way and makes a difference from there on; one misplaced rounding makes one as
    // large as the effect itself.
    const double effect = distance(outputs, weights);
    const double difference = distance(ours({.weights = spec_of, .activations = {}, .outputs = spec_of}), outputs);
    const double all_difference = distance(ours({.weights = spec_of, .activations = spec_of, .outputs = spec_of}), all);
    EXPECT_LT(difference, 0.05 * effect) << format;
    EXPECT_LT(all_difference, 0.05 * distance(all, weights)) << format;
    RecordProperty(format, std::to_string(difference / effect) + " " + std::to_string(all_difference / effect));
  }
}

}  // namespace
}  // namespace mxlm
