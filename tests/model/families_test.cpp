// Every checkpoint of tests/data/families against transformers (logits) and microxcaling (MX weights and activations):
// tools/goldens/make_family_goldens.py says what the files hold and how they were made.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/backend.hpp"
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
using nlohmann::json;

const fs::path kFamilies = fs::path(MXLM_TEST_DATA) / "families";

std::vector<std::string> folders() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFamilies)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

struct Case {
  json golden;
  std::vector<std::vector<int32_t>> windows;
  Checkpoint checkpoint;
  ModelSpec spec;
  std::unique_ptr<Backend> backend;

  explicit Case(const std::string& name) : checkpoint(Checkpoint::open(kFamilies / name)) {
    std::ifstream file(kFamilies / name / "expected/golden.json");
    golden = json::parse(file);
    windows = golden["windows"].get<std::vector<std::vector<int32_t>>>();
    const FileView config = FileView::map(kFamilies / name / "config.json");
    spec = load_spec(Config::parse(config.text(), config.name()), checkpoint);
    backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  }
};

mx::Format format_of(const std::string& name) {
  mx::Format format;
  format.element = mx::parse_element(name).value();
  return format;
}

/// Logits [tokens, vocabulary] of each window, all windows in one micro-batch. `product` says what is quantised in the
/// Linears of attention and MLP.
std::vector<std::vector<float>> logits_of(const Case& model, const ProductSpec& product) {
  const std::vector<std::span<const int32_t>> windows(model.windows.begin(), model.windows.end());
  const std::vector<float> all =
      logits_of(model.spec, *model.backend, DType::f32, windows, [&](const LinearSpec& linear) {
        const bool replaced = linear.role == Role::attention || linear.role == Role::mlp;
        return replaced ? product : ProductSpec{};
      });
  std::vector<std::vector<float>> out;
  auto from = all.begin();
  for (const auto& window : model.windows) {
    const auto to = from + static_cast<int64_t>(window.size()) * model.spec.vocabulary;
    out.emplace_back(from, to);
    from = to;
  }
  return out;
}

/// NLL in nats of every token but a window's first.
std::vector<std::vector<double>> nll_of(const Case& model, const std::vector<std::vector<float>>& logits) {
  const auto vocabulary = static_cast<size_t>(model.spec.vocabulary);
  std::vector<std::vector<double>> out;
  for (size_t w = 0; w < logits.size(); ++w) {
    auto& nll = out.emplace_back();
    for (size_t t = 0; t + 1 < model.windows[w].size(); ++t) {
      const float* row = logits[w].data() + t * vocabulary;
      const double top = *std::max_element(row, row + vocabulary);
      double sum = 0;
      for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v] - top);
      nll.push_back(top + std::log(sum) - row[model.windows[w][t + 1]]);
    }
  }
  return out;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double mean(const std::vector<std::vector<double>>& nll) {
  std::vector<double> all;
  for (const auto& window : nll) all.insert(all.end(), window.begin(), window.end());
  return mean(all);
}

class Families : public testing::TestWithParam<std::string> {};

TEST_P(Families, Float32LogitsAreThoseOfTransformers) {
  const Case model(GetParam());
  const auto ours = logits_of(model, {});
  const Checkpoint expected =
      Checkpoint::from_file(FileView::map(kFamilies / GetParam() / "expected/logits.safetensors"));
  const auto largest = model.golden["largest"].get<double>();
  double worst = 0;
  for (size_t w = 0; w < ours.size(); ++w) {
    const TensorEntry& entry = expected.tensors().at("logits." + std::to_string(w));
    ASSERT_EQ(entry.type, DType::f32);
    ASSERT_EQ(static_cast<size_t>(entry.elements()), ours[w].size());
    std::vector<float> theirs(ours[w].size());
    std::memcpy(theirs.data(), entry.data(), entry.size);
    for (size_t i = 0; i < theirs.size(); ++i) {
      ASSERT_TRUE(std::isfinite(ours[w][i])) << "window " << w << " logit " << i;
      worst = std::max(worst, std::abs(static_cast<double>(ours[w][i]) - theirs[i]));
    }
  }
  EXPECT_LE(worst, 2e-5 * largest);
  RecordProperty("relative_difference", std::to_string(1e6 * worst / largest) + "e-6");
}

TEST_P(Families, QuantisedWeightsGiveTheNllOfMicroxcaling) {
  const Case model(GetParam());
  const auto baseline = nll_of(model, logits_of(model, {}));
  EXPECT_NEAR(mean(baseline), model.golden["baseline"]["nll"].get<double>(), 5e-6);
  ASSERT_FALSE(model.golden["weight_only"].empty());
  for (const auto& [name, expected] : model.golden["weight_only"].items()) {
    const auto nll = nll_of(model, logits_of(model, {.weights = format_of(name), .activations = std::nullopt}));
    EXPECT_NEAR(mean(nll), expected["nll"].get<double>(), 5e-5) << name;
    for (size_t w = 0; w < nll.size(); ++w) {
      EXPECT_NEAR(mean(nll[w]), expected["by_window"][w].get<double>(), 5e-5) << name << " window " << w;
    }
  }
}

// Rounding of activations is chaotic: where a sum differs in its last bit a value may fall to the other side of a tie,
// and all tokens that see it change. Few do, so the median token is that of microxcaling unless its own figures already
// move (median_spread, spread) when its inputs change by the last bits of a float32.
TEST_P(Families, QuantisedWeightsAndActivationsGiveTheNllOfMicroxcalingCoarsely) {
  const Case model(GetParam());
  ASSERT_FALSE(model.golden["weight_and_activation"].empty());
  for (const auto& [name, expected] : model.golden["weight_and_activation"].items()) {
    const auto nll = nll_of(model, logits_of(model, {.weights = format_of(name), .activations = format_of(name)}));
    EXPECT_NEAR(mean(nll), expected["nll"].get<double>(), 0.02 + 3 * expected["spread"].get<double>()) << name;
    std::vector<double> differences;
    for (size_t w = 0; w < nll.size(); ++w) {
      const auto theirs = expected["by_token"][w].get<std::vector<double>>();
      ASSERT_EQ(theirs.size(), nll[w].size());
      for (size_t t = 0; t < theirs.size(); ++t) differences.push_back(std::abs(nll[w][t] - theirs[t]));
    }
    std::nth_element(differences.begin(), differences.begin() + static_cast<int64_t>(differences.size() / 2),
                     differences.end());
    EXPECT_LE(differences[differences.size() / 2], 1e-3 + 3 * expected["median_spread"].get<double>()) << name;
  }
}

TEST_P(Families, EveryLinearHasItsRole) {
  const Case model(GetParam());
  std::map<std::string, std::string> ours, theirs, routers;
  for (const LinearSpec* linear : model.spec.linears()) {
    const std::string role(role_name(linear->role));
    EXPECT_TRUE((role == "router" ? routers : ours).emplace(linear->module, role).second) << linear->module;
  }
  for (const auto& linear : model.golden["linears"]) {
    if (linear["role"] == "router") {
      EXPECT_EQ(routers.count(linear["module"]), 1U) << linear["module"];
    } else {
      theirs.emplace(linear["module"], linear["role"]);
    }
  }
  EXPECT_EQ(ours, theirs);
}

INSTANTIATE_TEST_SUITE_P(Folders, Families, testing::ValuesIn(folders()), [](const auto& test) { return test.param; });

// What transformers 5.23 takes an absent key and null for (docs/numerics.md).
TEST(FamilyKeys, AbsentIsNotNull) {
  const auto read = [](const std::string& name, const char* key, bool null) {
    std::ifstream file(kFamilies / name / "config.json");
    json config = json::parse(file);
    config.erase(key);
    if (null) config[key] = nullptr;
    const Checkpoint checkpoint = Checkpoint::open(kFamilies / name);
    return load_spec(Config::parse(config.dump(), name), checkpoint);
  };
  EXPECT_EQ(read("mistral", "sliding_window", false).layers[0].attention.sliding_window, 4096);
  EXPECT_EQ(read("mistral", "sliding_window", true).layers[0].attention.sliding_window, 0);
  EXPECT_EQ(read("starcoder2", "sliding_window", false).layers[0].attention.sliding_window, 0);
  EXPECT_EQ(read("gemma2", "sliding_window", false).layers[0].attention.sliding_window, 4096);
  EXPECT_EQ(read("gemma2", "attn_logit_softcapping", false).layers[0].attention.softcap, 50.0F);
  EXPECT_EQ(read("gemma2", "attn_logit_softcapping", true).layers[0].attention.softcap, 0.0F);
  EXPECT_EQ(read("gemma2", "final_logit_softcapping", false).logit_softcap, 30.0F);
  EXPECT_EQ(read("gemma2", "final_logit_softcapping", true).logit_softcap, 0.0F);
  EXPECT_EQ(read("gemma3", "attn_logit_softcapping", false).layers[0].attention.softcap, 0.0F);
  EXPECT_EQ(read("mixtral", "rope_theta", false).ropes[0].theta, 1e6);
  EXPECT_EQ(read("smollm3", "rope_theta", false).ropes[0].theta, 2e6);
  EXPECT_EQ(read("cohere", "rope_theta", false).ropes[0].theta, 5e5);
  EXPECT_EQ(read("gpt_oss", "rope_theta", false).ropes[0].theta, 1.5e5);
  EXPECT_EQ(read("qwen2", "rope_theta", false).ropes[0].theta, 1e4);
}

TEST(FamilyProducts, AreTheFloat64SumsOfTheQuantisedOperands) {
  int found = 0;
  for (const std::string& name : folders()) {
    const fs::path path = kFamilies / name / "expected/product.safetensors";
    if (!fs::exists(path)) continue;
    ++found;
    const Case model(name);
    const Checkpoint golden = Checkpoint::from_file(FileView::map(path));
    const auto module = model.golden["product"].get<std::string>();
    const auto linears = model.spec.linears();
    const auto linear =
        std::find_if(linears.begin(), linears.end(), [&](const LinearSpec* l) { return l->module == module; });
    ASSERT_NE(linear, linears.end()) << name << " " << module;
    const TensorEntry& entry = golden.tensors().at("x");
    std::vector<std::byte> storage;
    const HostMatrix x{.type = DType::f32,
                       .rows = entry.shape.at(0),
                       .cols = entry.shape.at(1),
                       .stride = entry.shape.at(1),
                       .data = entry.data()};
    const Tensor values = model.backend->upload(x, DType::f32);
    const HostMatrix source = (*linear)->weight.view(storage);
    for (const auto& [format_name, figures] : model.golden["weight_only"].items()) {
      const mx::Format format = format_of(format_name);
      const auto weight = model.backend->prepare(source, format);
      Operand operand{.type = model.backend->operand_type(format, *weight, DType::f32), .values = {}};
      const std::vector<int64_t> window{0, x.rows};
      model.backend->operands(values, window, {&operand, 1});
      Tensor y = model.backend->empty(DType::f32, x.rows, weight->rows());
      model.backend->linear(operand, *weight, {}, y);
      std::vector<float> ours(static_cast<size_t>(y.rows() * y.cols()));
      model.backend->download(y, ours);
      const TensorEntry& exact = golden.tensors().at("y." + format_name);
      const TensorEntry& scale = golden.tensors().at("abs." + format_name);
      const int64_t outputs = exact.shape.at(1);
      ASSERT_EQ(exact.type, DType::f64);
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t n = 0; n < outputs; ++n) {
          double sum = 0, magnitude = 0;
          std::memcpy(&sum, exact.data() + (r * outputs + n) * 8, 8);
          std::memcpy(&magnitude, scale.data() + (r * outputs + n) * 8, 8);
          EXPECT_NEAR(ours[static_cast<size_t>(r * y.cols() + n)], sum, std::ldexp(magnitude, -22))
              << name << " " << format_name << " row " << r << " output " << n;
        }
      }
    }
    model.backend->forget(source);
  }
  EXPECT_GE(found, 2);
}

}  // namespace
}  // namespace mxlm
