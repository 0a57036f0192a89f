// Vector operations rounded to bfloat16 (`vector=bf16`) against microxcaling's global mode:
// tools/goldens/make_vector_goldens.py says what tests/data/vector/bf16.json holds and how it was made.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/gemm.hpp"
#include "io/file.hpp"
#include "logits_of.hpp"
#include "model/config.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const json& goldens() {
  static const json golden = [] {
    std::ifstream file(fs::path(MXLM_TEST_DATA) / "vector/bf16.json");
    return json::parse(file);
  }();
  return golden;
}

/// NLL in nats of every token but a window's first, as microxcaling's JSON has them.
std::vector<double> nll_of(Backend& backend, const std::string& family, const ProductSpec& linears,
                           const ProductSpec& attention) {
  const fs::path folder = fs::path(MXLM_TEST_DATA) / "families" / family;
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const FileView config = FileView::map(folder / "config.json");
  const ModelSpec spec = load_spec(Config::parse(config.text(), config.name()), checkpoint);
  std::ifstream file(folder / "expected/golden.json");
  const auto tokens = json::parse(file)["windows"].get<std::vector<std::vector<int32_t>>>();
  const std::vector<std::span<const int32_t>> windows(tokens.begin(), tokens.end());
  const std::vector<float> logits = logits_of(
      spec, backend, DType::f32, windows, [&](const LinearSpec&) { return linears; }, attention);
  std::vector<double> out;
  const float* row = logits.data();
  for (const auto& window : tokens) {
    for (size_t t = 0; t < window.size(); ++t, row += spec.vocabulary) {
      if (t + 1 == window.size()) continue;
      double sum = 0;
      for (int64_t v = 0; v < spec.vocabulary; ++v) sum += std::exp(static_cast<double>(row[v]));
      out.push_back(std::log(sum) - row[window[t + 1]]);
    }
  }
  return out;
}

struct Comparison {
  double same = 0, median = 0, nll = 0;
};

Comparison compare(const std::vector<double>& ours, const json& expected) {
  std::vector<double> differences;
  Comparison out;
  size_t at = 0;
  for (const auto& window : expected["by_token"]) {
    for (const double nll : window) differences.push_back(std::abs(ours.at(at++) - nll));
  }
  EXPECT_EQ(at, ours.size());
  for (const double nll : ours) out.nll += nll / static_cast<double>(ours.size());
  const auto same = std::count_if(differences.begin(), differences.end(), [](double d) { return d < 1e-4; });
  out.same = static_cast<double>(same) / static_cast<double>(differences.size());
  const auto middle = differences.begin() + static_cast<int64_t>(differences.size() / 2);
  std::nth_element(differences.begin(), middle, differences.end());
  out.median = *middle;
  return out;
}

// The oracle's figures of every token are met where float32 sums differ from its own in no more than their last bit;
// where such a sum falls to the other side of a tie a token moves, and those after it. Without the rounding at most one
// token in forty is within 1e-4 (plain_same).
TEST(VectorOperations, GiveTheNllOfMicroxcaling) {
  ASSERT_GE(goldens()["families"].size(), 6U);
  for (const cpu::Isa isa : {test_isas().front(), cpu::detect_isa()}) {
    for (const cpu::Order order : {cpu::Order::forward, cpu::Order::reversed}) {
      const auto backend = test_backend({.threads = 1, .isa = isa, .order = order});
      for (const auto& [family, formats] : goldens()["families"].items()) {
        for (const auto& [name, expected] : formats.items()) {
          ProductSpec product;
          if (name != "none") product.weights = product.activations = mx::parse_format(name).value();
          const ProductSpec attention = product;
          product.arithmetic = Arithmetic::bf16_rounded;
          const Comparison found = compare(nll_of(*backend, family, product, attention), expected);
          SCOPED_TRACE(family + " " + name + " " + cpu::isa_name(isa));
          ASSERT_LE(expected["plain_same"].get<double>(), 0.025);
          EXPECT_GE(found.same, 0.75);
          EXPECT_LE(found.median, 1e-5);
          EXPECT_NEAR(found.nll, expected["nll"].get<double>(), 1e-4 + 3 * expected["spread"].get<double>());
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxlm
