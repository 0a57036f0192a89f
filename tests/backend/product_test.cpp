// A Linear's MX product on operands of a real model, against float64 sums of microxcaling's quantised operands
// (tools/goldens/make_product_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/quantize.hpp"
#include "io/file.hpp"
#include "io/safetensors.hpp"
#include "mx/format.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using cpu::Isa;
using cpu::Order;

struct NamedFormat {
  const char* name;
  mx::Format format;
};

std::vector<NamedFormat> formats() {
  std::vector<NamedFormat> out;
  for (const char* name : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"}) {
    mx::Format format;
    format.element = mx::parse_element(name).value();
    out.push_back({name, format});
  }
  return out;
}

HostMatrix matrix(const TensorEntry& entry) {
  EXPECT_EQ(entry.type, DType::f32);
  return {.type = DType::f32,
          .rows = entry.shape.at(0),
          .cols = entry.shape.at(1),
          .stride = entry.shape.at(1),
          .data = entry.data()};
}

std::vector<double> doubles(const TensorEntry& entry) {
  EXPECT_EQ(entry.type, DType::f64);
  std::vector<double> out(static_cast<size_t>(entry.elements()));
  std::memcpy(out.data(), entry.data(), entry.size);
  return out;
}

/// What a producer of activations hands to the product.
Operand quantized_operand(Backend& backend, Isa isa, const HostMatrix& x, const OperandType& type) {
  if (test_on_gpu()) {
    Operand out{.type = type};
    const std::vector<int64_t> window{0, x.rows};
    backend.operands(backend.upload(x, DType::f32), window, {&out, 1});
    return out;
  }
  Operand out{.type = type, .values = backend.empty(type.storage, x.rows, x.cols)};
  std::memset(out.values.data(), 0, out.values.bytes());  // products read the padding of rows, which has to be zeros
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = reinterpret_cast<const float*>(x.data) + r * x.stride;
    if (type.storage == DType::bf16) {
      cpu::quantize_decode_row(isa, *type.spec, row, x.cols, out.values.row<BFloat16>(r));
    } else {
      cpu::quantize_decode_row(isa, *type.spec, row, x.cols, out.values.row<float>(r));
    }
  }
  return out;
}

class Product : public testing::TestWithParam<const char*> {};

TEST_P(Product, IsTheFloat64SumOfTheQuantisedOperands) {
  const fs::path path =
      fs::path(MXLM_TEST_DATA) / "backend" / (std::string("mx_product_") + GetParam() + ".safetensors");
  const Checkpoint golden = Checkpoint::from_file(FileView::map(path));
  const HostMatrix x = matrix(golden.tensors().at("x"));
  const HostMatrix w = matrix(golden.tensors().at("w"));
  for (const auto& [name, format] : formats()) {
    const auto exact = doubles(golden.tensors().at(std::string("y.") + name));
    const auto scale = doubles(golden.tensors().at(std::string("abs.") + name));
    ASSERT_EQ(exact.size(), static_cast<size_t>(x.rows * w.rows));
    for (const Isa isa : test_isas()) {
      for (const Order order : {Order::forward, Order::reversed}) {
        const auto backend = test_backend({.threads = 1, .isa = isa, .order = order});
        const auto made = backend->prepare(w, format);
        const auto kept = backend->prepare(backend->keep(w, format));
        backend->forget(w);
        const Operand operand = quantized_operand(*backend, isa, x, backend->operand_type(format, *made, DType::f32));
        Tensor y = backend->empty(DType::f32, x.rows, w.rows), again = backend->empty(DType::f32, x.rows, w.rows);
        backend->linear(operand, *made, {}, y);
        backend->linear(operand, *kept, {}, again);
        std::vector<float> ours(exact.size()), ours_kept(exact.size());
        backend->download(y, ours);
        backend->download(again, ours_kept);
        EXPECT_EQ(std::memcmp(ours.data(), ours_kept.data(), ours.size() * sizeof(float)), 0)
            << name << " " << isa_name(isa);
        double share = 0;
        for (size_t i = 0; i < exact.size(); ++i) {
          const double error = std::abs(static_cast<double>(ours[i]) - exact[i]);
          ASSERT_TRUE(std::isfinite(ours[i]));
          EXPECT_LE(error, std::ldexp(scale[i], -22)) << name << " " << isa_name(isa) << " output " << i;
          if (scale[i] > 0) share = std::max(share, error / scale[i]);
        }
        RecordProperty(std::string(name) + "_" + isa_name(isa), std::to_string(std::ldexp(share, 24)) + " x 2^-24");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, Product, testing::Values("down_704", "gate_256", "down_77"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mxlm
