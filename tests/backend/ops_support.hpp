#pragma once

// What the tests of a backend's operations share: matrices, torch's results (tests/data/backend/ops.bin, made by
// tools/goldens/make_ops_goldens.py), and running on every instruction set.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "test_device.hpp"

namespace mxlm {

inline std::vector<cpu::Isa> isas() { return test_isas(); }

inline std::unique_ptr<Backend> backend(cpu::Isa isa = cpu::detect_isa(), int threads = 2) {
  CpuOptions options;
  options.threads = threads;
  options.isa = isa;
  return test_backend(options);
}

inline HostMatrix view(const std::vector<BFloat16>& values, int64_t rows) {
  const auto cols = static_cast<int64_t>(values.size()) / rows;
  return {DType::bf16, rows, cols, cols, reinterpret_cast<const std::byte*>(values.data())};
}
inline HostMatrix view(const std::vector<float>& values, int64_t rows) {
  const auto cols = static_cast<int64_t>(values.size()) / rows;
  return {DType::f32, rows, cols, cols, reinterpret_cast<const std::byte*>(values.data())};
}

inline std::vector<float> download(Backend& b, const Tensor& x) {
  std::vector<float> out(static_cast<size_t>(x.rows() * x.cols()));
  b.download(x, out);
  return out;
}

inline uint32_t bits_of(float x) { return std::isnan(x) ? 0x7fc00000U : std::bit_cast<uint32_t>(x); }

/// Same bits; any NaN equals any NaN.
inline void expect_same(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  size_t different = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (bits_of(got[i]) != bits_of(want[i]) && ++different <= 5) {
      ADD_FAILURE() << "at " << i << ": " << got[i] << ", expected " << want[i];
    }
  }
  EXPECT_EQ(different, 0U);
}

inline Operand operand(DType storage, OperandSpec spec = std::nullopt) {
  Operand o;
  o.type = {spec, storage};
  return o;
}

inline std::vector<float> random_values(size_t n, uint32_t seed, float spread = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = normal(random) * std::exp(spread * normal(random));
  return values;
}
inline std::vector<BFloat16> random_bf16(size_t n, uint32_t seed) {
  std::vector<BFloat16> values;
  for (const float x : random_values(n, seed)) values.push_back(to_bfloat16(x));
  return values;
}

// --- torch's results

struct Golden {
  std::vector<BFloat16> bf16;
  std::vector<float> values;
};

inline const std::map<std::string, Golden>& goldens() {
  static const std::map<std::string, Golden> all = [] {
    std::map<std::string, Golden> result;
    std::ifstream file(MXLM_TEST_DATA "/backend/ops.bin", std::ios::binary);
    std::string name;
    size_t count = 0;
    std::string type;
    while (file >> name >> count >> type && (type == "u16" || type == "f32")) {
      file.get();
      Golden& g = result[name];
      g.values.resize(count);
      if (type == "u16") {
        g.bf16.resize(count);
        file.read(reinterpret_cast<char*>(g.bf16.data()), static_cast<std::streamsize>(count * 2));
        std::transform(g.bf16.begin(), g.bf16.end(), g.values.begin(), [](BFloat16 x) { return to_float(x); });
      } else {
        file.read(reinterpret_cast<char*>(g.values.data()), static_cast<std::streamsize>(count * 4));
      }
      file.get();
    }
    return result;
  }();
  return all;
}
inline const Golden& golden(const std::string& name) {
  const auto it = goldens().find(name);
  if (it == goldens().end()) throw Error("no golden values named " + name);
  return it->second;
}

/// A fixture whose parameter is the instruction set. Every one is a parameter, whatever there is: finding out so early
/// would fix the answer of detect_isa() before other tests of this program lower it.
class OnEachIsa : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > cpu::detect_isa()) GTEST_SKIP() << "this processor lacks it";
    if (test_on_gpu() && GetParam() != cpu::Isa::portable) GTEST_SKIP() << "once is enough on a GPU";
  }
};

#define MXLM_INSTANTIATE_ON_EACH_ISA(fixture)                                                    \
  INSTANTIATE_TEST_SUITE_P(Isa, fixture,                                                         \
                           testing::Values(cpu::Isa::portable, cpu::Isa::avx2, cpu::Isa::avx512, \
                                           cpu::Isa::avx512_bf16, cpu::Isa::amx_bf16),           \
                           [](const auto& which) { return std::string(isa_name(which.param)); })

}  // namespace mxlm
