// Errors of Linears and hidden states against transformers with microxcaling's operands, figures by NumPy in float64
// (tools/goldens/make_linear_error_goldens.py).
#include "engine/linear_study.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "backend/cpu/backend.hpp"
#include "load/load.hpp"
#include "rounds/scheduler.hpp"

namespace mxlm {
namespace {

using cpu::Order;
using nlohmann::json;
namespace fs = std::filesystem;

/// Rounding to a format turns a difference in the last bit of a float32 sum into a whole step of one element now and
/// then, from where it spreads. Where no activation is quantised, nothing does.
struct Tolerance {
  double decibel, cosine;
  int64_t count;
};
constexpr Tolerance kExact{.decibel = 1e-3, .cosine = 1e-6, .count = 0};
constexpr Tolerance kRounded{.decibel = 0.2, .cosine = 1e-3, .count = 6};

void expect_count(int64_t want, int64_t got, int64_t tolerance, const std::string& what) {
  EXPECT_LE(std::abs(got - want), tolerance) << what << ": " << got << " instead of " << want;
}

void expect_sums(const json& want, const ErrorSums& got, const Tolerance& tolerance, const std::string& what) {
  if (want["sqnr_db"].is_null()) {
    EXPECT_EQ(got.difference, 0) << what;
    return;
  }
  EXPECT_NEAR(got.sqnr_db(), want["sqnr_db"].get<double>(), tolerance.decibel) << what;
  EXPECT_NEAR(got.cosine(), want["cosine"].get<double>(), tolerance.cosine) << what;
}

void expect_operand(const json& want, const std::optional<QuantizationError>& got, const Tolerance& tolerance,
                    const std::string& what) {
  ASSERT_EQ(got.has_value(), !want.is_null()) << what;
  if (!got) return;
  expect_sums(want, got->sums, tolerance, what);
  EXPECT_EQ(got->elements, want["elements"].get<int64_t>()) << what;
  expect_count(want["saturated"].get<int64_t>(), got->saturated, tolerance.count, what + " saturated");
  expect_count(want["flushed"].get<int64_t>(), got->flushed, tolerance.count, what + " flushed");
  expect_count(want["subnormal"].get<int64_t>(), got->subnormal, tolerance.count, what + " subnormal");
  EXPECT_EQ(got->spread_max, want["spread_max"].get<int>()) << what;
  const double rows = static_cast<double>(got->rows);
  EXPECT_NEAR(static_cast<double>(got->spread_sum) / rows, want["spread_mean"].get<double>(),
              1e-12 + static_cast<double>(tolerance.count) / rows)
      << what;
}

void expect_histogram(const json& want, const ExponentHistogram& got, int64_t tolerance, const std::string& what) {
  EXPECT_EQ(got.zeros(), want["zeros"].get<int64_t>()) << what;
  EXPECT_EQ(got.nonfinite(), 0) << what;
  const std::vector<int64_t> counts = got.counts();
  int64_t total = 0, wanted = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::string exponent = std::to_string(got.first() + static_cast<int>(i));
    expect_count(want["counts"].value(exponent, int64_t{0}), counts[i], tolerance, what + " 2^" + exponent);
    total += counts[i];
  }
  for (const json& count : want["counts"]) wanted += count.get<int64_t>();
  EXPECT_EQ(total, wanted) << what;
}

struct Golden {
  json data;
  LoadedModel model;
  std::vector<Window> windows;
  std::vector<Variant> variants{{.name = "baseline", .clauses = {}}};
};

Golden golden() {
  std::ifstream file(fs::path(MXLM_TEST_DATA) / "eval/linear_errors.json");
  Golden out;
  out.data = json::parse(file);
  out.model = load_model(fs::path(MXLM_TEST_DATA) / "models" / out.data["model"].get<std::string>(),
                         /*with_tokenizer=*/false);
  for (const json& tokens : out.data["windows"]) {
    out.windows.emplace_back().tokens = tokens.get<std::vector<int32_t>>();
  }
  for (const json& variant : out.data["variants"]) {
    out.variants.push_back(Variant::parse(variant["variant"].get<std::string>()));
  }
  return out;
}

bool weights_only(const json& variant) {
  for (const json& linear : variant["linears"]) {
    if (!linear["activation"].is_null()) return false;
  }
  return true;
}

TEST(LinearStudy, ErrorsEqualMicroxcalings) {
  const Golden g = golden();
  const auto backend = make_cpu_backend({.threads = 2, .isa = std::nullopt, .order = Order::forward});
  const LinearStudy study = study_linears(g.model.spec, *backend, DType::f32, resolve(g.model.spec, g.variants),
                                          g.windows, {.errors = true, .threads = 2});
  EXPECT_EQ(study.windows, 3);
  EXPECT_EQ(study.tokens, 65);
  EXPECT_TRUE(study.exponents.empty());
  ASSERT_EQ(study.errors.size(), g.variants.size());
  EXPECT_TRUE(study.errors[0].empty());
  for (size_t v = 1; v < study.errors.size(); ++v) {
    const json& variant = g.data["variants"][v - 1];
    const Tolerance tolerance = weights_only(variant) ? kExact : kRounded;
    ASSERT_EQ(study.errors[v].size(), variant["linears"].size()) << variant["variant"];
    for (const LinearError& error : study.errors[v]) {
      ASSERT_TRUE(error.tensor.ends_with(".weight"));
      const std::string module = error.tensor.substr(0, error.tensor.size() - 7);
      const std::string what = variant["variant"].get<std::string>() + " " + module;
      ASSERT_TRUE(variant["linears"].contains(module)) << what;
      const json& want = variant["linears"][module];
      expect_operand(want["weight"], error.weight, kExact, what + " weight");
      expect_operand(want["activation"], error.activation, tolerance, what + " activation");
      expect_sums(want["output"], error.output, tolerance, what + " output");
    }
  }
}

TEST(LinearStudy, ExponentsEqualNumpys) {
  const Golden g = golden();
  const auto backend = make_cpu_backend({.threads = 2, .isa = std::nullopt, .order = Order::forward});
  const LinearStudy study = study_linears(g.model.spec, *backend, DType::f32, resolve(g.model.spec, g.variants),
                                          g.windows, {.exponents = true, .threads = 1});
  ASSERT_EQ(study.exponents.size(), g.data["exponents"].size());
  for (const auto& errors : study.errors) EXPECT_TRUE(errors.empty());
  for (const LinearExponents& linear : study.exponents) {
    const std::string module = linear.tensor.substr(0, linear.tensor.size() - 7);
    const json& want = g.data["exponents"].at(module);
    expect_histogram(want["weight"], linear.weight, 0, module + " weight");
    ASSERT_TRUE(linear.activation) << module;
    // A float32 sum may round across a power of two.
    expect_histogram(want["activation"], *linear.activation, 1, module + " activation");
  }
}

TEST(LayerErrors, EqualTransformersHiddenStates) {
  const Golden g = golden();
  Worker worker(make_cpu_backend({.threads = 2, .isa = std::nullopt, .order = Order::forward}), g.model.spec,
                DType::f32);
  const VariantTree tree = build_tree(g.model.spec, resolve(g.model.spec, g.variants));
  std::vector<std::vector<ErrorSums>> first;
  for (const int64_t batch : {1, 2, 3}) {
    const Plan plan = make_plan(g.model.spec, DType::f32, tree, g.windows,
                                {.batch_windows = batch, .memory_limit = uint64_t{1} << 30, .round_tokens = 30});
    const RunScores result =
        run_rounds({.model = g.model.spec, .tree = tree, .plan = plan, .windows = g.windows}, worker, {}, {});
    ASSERT_EQ(result.layer_errors.size(), g.variants.size());
    if (first.empty()) first = result.layer_errors;
    EXPECT_EQ(result.layer_errors, first) << batch;  // to the bit, however the run is cut
  }
  for (size_t v = 1; v < g.variants.size(); ++v) {
    const json& variant = g.data["variants"][v - 1];
    ASSERT_EQ(first[v].size(), variant["layers"].size());
    for (size_t step = 0; step < first[v].size(); ++step) {
      expect_sums(variant["layers"][step], first[v][step], weights_only(variant) ? kExact : kRounded,
                  fmt::format("{} step {}", variant["variant"].get<std::string>(), step));
    }
  }
}

TEST(QuantizationError, ByHand) {
  // One block of E2M1 (largest element 6, smallest normal 1, subnormal 0.5) whose largest magnitude 7 gives scale 1.
  const mx::Format format = parse_block_format("mxfp4@block=8");
  const std::vector<float> one{7, -0.1F, 0.6F, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0};
  const QuantizationError error = row_error(format, one);
  EXPECT_EQ(error.elements, 24);
  EXPECT_EQ(error.saturated, 2);  // 7 -> 6, 28 -> 24
  EXPECT_EQ(error.flushed, 1);    // -0.1
  EXPECT_EQ(error.subnormal, 1);  // 0.6 -> 0.5
  EXPECT_EQ(error.rows, 1);
  EXPECT_EQ(error.spread_max, 2);  // scales 1 and 4; the block of zeros has none
  EXPECT_NEAR(error.sums.difference, 1 + 0.01 + 0.01 + 16, 1e-6);
  // Nothing is lost where everything is a power of two, and zeros have neither signal nor angle.
  EXPECT_EQ(row_error(format, std::vector<float>{1, 2, 0.5F}).sums.sqnr_db(), std::numeric_limits<double>::infinity());
  const QuantizationError zeros = row_error(format, std::vector<float>(8, 0.0F));
  EXPECT_EQ(zeros.rows, 0);
  EXPECT_TRUE(std::isnan(zeros.sums.sqnr_db()));
}

TEST(ExponentHistogram, CountsSubnormalsAndWhatIsNoNumber) {
  ExponentHistogram h;
  h.add(std::vector<float>{0, -0.0F, 1, -1.5F, 0.5F, 0x1p-149F, 0x1.8p-140F, 3.4e38F, std::nanf(""), HUGE_VALF});
  EXPECT_EQ(h.zeros(), 2);
  EXPECT_EQ(h.nonfinite(), 2);
  EXPECT_EQ(h.first(), -149);
  const auto counts = h.counts();
  ASSERT_EQ(counts.size(), 127U + 149 + 1);
  EXPECT_EQ(counts[0], 1);
  EXPECT_EQ(counts[9], 1);
  EXPECT_EQ(counts[148], 1);
  EXPECT_EQ(counts[149], 2);
  EXPECT_EQ(counts.back(), 1);
  EXPECT_TRUE(ExponentHistogram().counts().empty());
}

}  // namespace
}  // namespace mxlm
