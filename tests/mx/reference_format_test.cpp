// The stages against what torch, torchao, microxcaling and bitsandbytes made of small tensors
// (tools/goldens/make_stage_goldens.py), and against their definitions where those divide by zero.

#include "mx/reference_format.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace mxlm::mx {
namespace {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
  [[nodiscard]] const float* row(int64_t r) const { return values.data() + r * cols; }
};

float parse_word(const std::string& word) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(word, nullptr, 16)));
}

/// Equal bits; zeros of either sign are equal, and so are NaNs.
bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (a == 0 && b == 0) ||
         (std::isnan(a) && std::isnan(b));
}

struct Scaled {
  std::vector<float> scales, values;  // scales: one a row
};

Scaled quantize(const Format& f, const Matrix& x) {
  std::vector<uint8_t> outlier(static_cast<size_t>(x.cols), 0);
  if (f.scaling == Scaling::int8_outliers) {
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c) {
        if (is_outlier(x.row(r)[c])) outlier[static_cast<size_t>(c)] = 1;
      }
    }
  }
  Scaled out;
  out.values.resize(x.values.size());
  for (int64_t r = 0; r < x.rows; ++r) {
    const bool by_tensor = f.scaling == Scaling::tensor || f.scaling == Scaling::nvfp4;
    std::vector<float> seen(x.row(by_tensor ? 0 : r), x.row(by_tensor ? x.rows : r + 1));
    if (f.scaling == Scaling::int8_outliers) {
      for (float& v : seen) v = is_outlier(v) ? 0 : v;
    }
    const uint32_t amax = block_max(seen.data(), static_cast<int64_t>(seen.size()));
    out.scales.push_back(outer_scale(f, amax));
    quantize_scaled_row(f, out.scales.back(), amax, outlier.data(), x.row(r), x.cols, out.values.data() + r * x.cols);
  }
  return out;
}

TEST(Stage, IsWhatTheReferencesMake) {
  std::ifstream file(std::string(MXLM_TEST_DATA) + "/mx/stages.txt");
  std::map<int, Matrix> inputs;
  std::map<std::string, int> compared;
  int skipped = 0;
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream in(line);
    std::string kind, oracle, stage, rounding, word;
    int id = 0;
    in >> kind;
    if (kind == "input") {
      in >> id;
      Matrix& m = inputs[id];
      in >> m.rows >> m.cols;
      while (in >> word) m.values.push_back(parse_word(word));
      ASSERT_EQ(static_cast<int64_t>(m.values.size()), m.rows * m.cols);
      continue;
    }
    in >> oracle >> stage;
    Format f = parse_format(stage).value();
    if (kind == "values") {
      in >> rounding >> id;
      f.rounding = parse_rounding(rounding).value();
      const Matrix& x = inputs.at(id);
      for (const float v : x.values) {
        ASSERT_TRUE(in >> word);
        if (word == "*") {
          ++skipped;
          continue;
        }
        float y = 0;
        if (f.scaling == Scaling::none) {
          y = cast_decode(f, v);
        } else {
          quantize_decode_block(f, &v, 1, &y);
        }
        ASSERT_TRUE(same(y, parse_word(word)))
            << line.substr(0, 60) << ": " << v << " gives " << y << ", not " << parse_word(word);
        ++compared[stage];
      }
      continue;
    }
    ASSERT_EQ(kind, "scaled");
    in >> id;
    const Matrix& x = inputs.at(id);
    std::vector<float> scales;
    while (in >> word && word != ":") scales.push_back(parse_word(word));
    if (scales.size() == 1) scales.resize(static_cast<size_t>(x.rows), scales[0]);
    const Scaled ours = quantize(f, x);
    for (size_t r = 0; r < scales.size(); ++r) {
      ASSERT_TRUE(same(ours.scales[r], scales[r])) << line.substr(0, 60) << " scale " << r;
    }
    for (size_t i = 0; i < ours.values.size(); ++i) {
      ASSERT_TRUE(in >> word);
      ASSERT_TRUE(same(ours.values[i], parse_word(word)))
          << line.substr(0, 60) << " at " << i << ": " << x.values[i] << " gives " << ours.values[i] << ", not "
          << parse_word(word);
      EXPECT_EQ(std::bit_cast<uint32_t>(ours.values[i]) & 0xffffU, 0U) << "no bfloat16";
      ++compared[stage];
    }
  }
  for (const ReferenceFormat& s : kReferenceFormats) EXPECT_GT(compared[std::string(s.name)], 900) << s.name;
  EXPECT_LT(skipped, 2500);
}

TEST(Stage, ValuesThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto cast = [](const char* name, float x) { return cast_decode(parse_format(name).value(), x); };
  EXPECT_EQ(cast("bf16", inf), inf);
  EXPECT_EQ(cast("fp8_e4m3_unscaled", inf), 448);
  EXPECT_EQ(cast("fp8_e5m2_unscaled", -inf), -57344);
  EXPECT_TRUE(std::isnan(cast("bf16", nan)));
  EXPECT_TRUE(std::isnan(cast("fp8_e4m3_unscaled", -nan)));
  for (const ReferenceFormat& s : kReferenceFormats) {
    if (!has_row_scales(s.format)) continue;
    for (const float bad : {inf, nan}) {
      if (s.format.scaling == Scaling::int8_outliers && bad == inf) continue;  // an outlier
      const Matrix x{1, 4, {1, bad, -2, 3}};
      const Scaled y = quantize(s.format, x);
      EXPECT_TRUE(std::isnan(y.scales[0])) << s.name;
      for (const float v : y.values) EXPECT_EQ(v, 0) << s.name;
    }
  }
}

TEST(Stage, ZerosAndTinyTensorsStayFinite) {
  for (const ReferenceFormat& s : kReferenceFormats) {
    if (!has_row_scales(s.format)) continue;
    for (const float tiny : {0.0F, 0x1p-149F, 0x1p-130F, 0x1p-126F, 0x1p-120F}) {
      const Matrix x{2, 3, {tiny, 0, -tiny, 0, 0, 0}};
      const Scaled y = quantize(s.format, x);
      for (size_t i = 0; i < y.values.size(); ++i) {
        const float decoded = y.values[i] * y.scales[i / 3];
        ASSERT_TRUE(std::isfinite(decoded)) << s.name << " " << tiny;
        EXPECT_LE(std::abs(decoded), std::abs(x.values[i]) * 1.01F) << s.name << " " << tiny;
      }
    }
  }
}

TEST(Stage, NamesAndKeys) {
  for (const ReferenceFormat& s : kReferenceFormats) {
    EXPECT_EQ(parse_format(s.name), s.format);
    EXPECT_EQ(format_name(s.format), s.name);
    EXPECT_EQ(check(s.format), "");
    EXPECT_TRUE(decodes_exactly_to_bf16(s.format)) << s.name;
    EXPECT_FALSE(parse_element(s.name).has_value()) << s.name << " is an element format, too";
    EXPECT_FALSE(takes_key(s.format, Key::block));
    EXPECT_EQ(takes_key(s.format, Key::round), s.takes_rounding);
    Format rounded = s.format;
    rounded.rounding = Rounding::toward_zero;
    EXPECT_EQ(format_name(rounded), s.name);
  }
  EXPECT_EQ(parse_format("bfp16"), parse_format("bf16"));
  EXPECT_EQ(format_name(parse_format("mxfp4").value()), "mxfp4_e2m1");
  EXPECT_FALSE(parse_format("bf17").has_value());
}

TEST(Stage, BitsOfStorage) {
  const auto bits = [](const char* name) { return storage_bits(parse_format(name).value(), 8, 64); };
  EXPECT_EQ(bits("mxfp4"), 8U * 64 * 4 + 8U * 2 * 8);
  EXPECT_EQ(bits("bf16"), 8U * 64 * 16);
  EXPECT_EQ(bits("fp8_e4m3_unscaled"), 8U * 64 * 8);
  EXPECT_EQ(bits("fp8_e5m2_own_exponent"), 8U * 64 * 16);
  EXPECT_EQ(bits("fp8_e4m3_tensor"), 8U * 64 * 8 + 32);
  EXPECT_EQ(bits("fp8_e4m3_row"), 8U * (64 * 8 + 32));
  EXPECT_EQ(bits("llm_int8"), 8U * (64 * 8 + 32));
  EXPECT_EQ(bits("nvfp4"), 8U * 64 * 4 + 8U * 4 * 8 + 32);
  Format row = parse_format("mxint8").value();
  row.block_size = 0;
  EXPECT_EQ(storage_bits(row, 8, 64), 8U * (64 * 8 + 8));
}

}  // namespace
}  // namespace mxlm::mx
