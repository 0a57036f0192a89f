// What microxcaling and torchao made of hard rows (tools/goldens/make_mx_goldens.py).

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "mx/quantize.hpp"

namespace mxlm::mx {
namespace {

struct Case {
  std::string kind, oracle, format, rule, rounding;
  int block = 0, scale_bits = 0, input = 0;
  std::vector<std::string> words;
};

struct Goldens {
  std::map<int, std::vector<float>> inputs;
  std::vector<Case> cases;
};

Goldens read_goldens() {
  std::ifstream file(std::string(MXLM_TEST_DATA) + "/mx/goldens.txt");
  Goldens g;
  std::string line, word;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream in(line);
    Case c;
    in >> c.kind;
    if (c.kind == "input") {
      in >> c.input;
      while (in >> word)
        g.inputs[c.input].push_back(std::bit_cast<float>(static_cast<uint32_t>(std::stoul(word, nullptr, 16))));
      continue;
    }
    in >> c.oracle >> c.format >> c.block >> c.scale_bits >> c.rule >> c.rounding >> c.input;
    while (in >> word) c.words.push_back(word);
    g.cases.push_back(c);
  }
  return g;
}

Format format_of(const Case& c) {
  return {*parse_element(c.format), c.block, c.scale_bits, *parse_rule(c.rule), *parse_rounding(c.rounding)};
}

std::string describe(const Case& c) {
  return c.oracle + " " + c.format + " block " + std::to_string(c.block) + " bits " + std::to_string(c.scale_bits) +
         " " + c.rule + " " + c.rounding + " input " + std::to_string(c.input);
}

bool is_nan(uint32_t bits) { return (bits & 0x7fffffffU) > 0x7f700000U; }

TEST(Goldens, ValuesAreTheOracles) {
  const Goldens g = read_goldens();
  std::map<std::string, int> compared;
  int skipped = 0;
  for (const Case& c : g.cases) {
    if (c.kind != "values") continue;
    const Format f = format_of(c);
    const auto n = static_cast<int64_t>(c.words.size());
    std::vector<float> x = g.inputs.at(c.input);
    ASSERT_GE(x.size(), c.words.size());
    std::vector<float> y(x.size());
    const int64_t block = f.block_size == 0 ? n : f.block_size;
    for (int64_t at = 0; at < n; at += block) {
      quantize_decode_block(f, x.data() + at, std::min(block, n - at), y.data() + at);
    }
    for (size_t i = 0; i < c.words.size(); ++i) {
      if (c.words[i] == "*") {
        ++skipped;
        continue;
      }
      const auto expected = static_cast<uint32_t>(std::stoul(c.words[i], nullptr, 16));
      const auto got = std::bit_cast<uint32_t>(y[i]);
      const bool both_zero = (expected | got) << 1 == 0;
      ASSERT_TRUE(expected == got || both_zero || (is_nan(expected) && is_nan(got)))
          << describe(c) << " at " << i << " in " << x[i] << " oracle " << std::bit_cast<float>(expected) << " ours "
          << y[i];
      ++compared[c.oracle];
    }
  }
  EXPECT_GT(compared["microxcaling"], 14000);
  EXPECT_GT(compared["torchao"], 7000);
  EXPECT_LT(skipped, 4000);
}

TEST(Goldens, CodesAndScalesAreTorchaos) {
  const Goldens g = read_goldens();
  const auto bytes_of = [](const std::string& hex) {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      bytes.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
  };
  int seen = 0;
  for (const Case& c : g.cases) {
    if (c.kind != "codes") continue;
    ASSERT_EQ(c.words.size(), 2U);
    const Format f = format_of(c);
    const std::vector<float>& x = g.inputs.at(c.input);
    const std::vector<uint8_t> scales = bytes_of(c.words[0]), codes = bytes_of(c.words[1]);
    const int64_t n = static_cast<int64_t>(scales.size()) * f.block_size;
    std::vector<uint8_t> packed(static_cast<size_t>(packed_bytes(f.element, n)));
    for (size_t b = 0; b < scales.size(); ++b) {
      const int64_t start = static_cast<int64_t>(b) * f.block_size;
      const int e = block_exponent(f, x.data() + start, f.block_size);
      EXPECT_EQ(scale_code(e), scales[b]) << describe(c);
      for (int64_t i = start; i < start + f.block_size; ++i) {
        put_code(packed.data(), f.element.bits(), i, encode(f.element, f.rounding, e, x[static_cast<size_t>(i)]));
      }
    }
    EXPECT_EQ(packed, codes) << describe(c);
    ++seen;
  }
  EXPECT_GT(seen, 10);
}

}  // namespace
}  // namespace mxlm::mx
