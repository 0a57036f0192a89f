#include "variants/sweep.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/error.hpp"
#include "engine/tree.hpp"
#include "load/load.hpp"

namespace mxlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> texts(const std::vector<SweepVariant>& variants) {
  std::vector<std::string> out;
  for (const SweepVariant& v : variants) out.push_back(v.variant.canonical());
  return out;
}

LoadedModel three_layers() {
  return load_model(std::filesystem::path(MXLM_TEST_DATA) / "models/mlp_bias", /*with_tokenizer=*/false);
}

template <typename F>
std::string usage_error(const F& f) {
  try {
    f();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no UsageError";
}

TEST(Grid, FirstAxisOutermost) {
  const auto variants = grid_variants({.formats = {"mxfp4", "mxfp8/mxint8"}, .blocks = {16, 0}, .roles = {"mlp"}});
  EXPECT_THAT(texts(variants), ElementsAre("mlp=mxfp4_e2m1@block=16", "mlp=mxfp4_e2m1@block=0",
                                           "mlp=mxfp8_e4m3/mxint8@block=16", "mlp=mxfp8_e4m3/mxint8@block=0"));
  const SweepPoint& p = variants[2].point;
  EXPECT_EQ(p.format, "mxfp8_e4m3/mxint8");
  EXPECT_EQ(p.block, 16);
  EXPECT_EQ(p.scale_bits, 8);
  EXPECT_EQ(p.rule, "floor");
  EXPECT_EQ(p.round, "even");
  EXPECT_EQ(p.roles, "mlp");
  EXPECT_EQ(p.unit, "");
}

TEST(Grid, EveryAxis) {
  const auto variants = grid_variants({.formats = {"mxfp6"},
                                       .blocks = {8},
                                       .scale_bits = {4, 5},
                                       .rules = {"rceil", "mse"},
                                       .roundings = {"nearest"},
                                       .roles = {"attention", "model.layers.0.*,mlp"},
                                       .weights_only = true});
  EXPECT_EQ(variants.size(), 8U);
  EXPECT_EQ(variants[0].variant.canonical(), "attention=mxfp6_e3m2@block=8@scale_bits=4@rule=rceil@round=nearest/none");
  EXPECT_EQ(variants[7].variant.canonical(),
            "mlp=mxfp6_e3m2@block=8@scale_bits=5@rule=mse@round=nearest/none,"
            "model.layers.0.*=mxfp6_e3m2@block=8@scale_bits=5@rule=mse@round=nearest/none");
  EXPECT_EQ(variants[7].point.roles, "mlp,model.layers.0.*");
  EXPECT_EQ(variants[7].point.format, "mxfp6_e3m2/none");
}

TEST(Grid, DefaultsAreTheTableOfFormats) {
  const auto variants = grid_variants({});
  ASSERT_EQ(variants.size(), mx::kElements.size());
  EXPECT_EQ(variants[0].variant.canonical(), "attention=mxfp8_e4m3,mlp=mxfp8_e4m3");
}

TEST(Grid, WhatIsTheSameRunsOnce) {
  EXPECT_EQ(grid_variants({.formats = {"mxfp8", "mxfp8_e4m3", "fp8_e4m3"},
                           .blocks = {32, 32},
                           .roles = {"mlp,attention", "attention,mlp", "mlp,mlp,attention"}})
                .size(),
            1U);
}

TEST(Grid, RefusesWhatCannotBe) {
  const auto error = [](const SweepAxes& axes) { return usage_error([&] { grid_variants(axes); }); };
  EXPECT_THAT(error({.formats = {"mxfp5"}}), HasSubstr("mxfp5"));
  EXPECT_THAT(error({.formats = {"mxfp4@block=16"}}), HasSubstr("--blocks"));
  EXPECT_THAT(error({.formats = {"none"}}), HasSubstr("changes nothing"));
  EXPECT_THAT(error({.formats = {"mxfp4/mxfp8"}, .weights_only = true}), HasSubstr("--weights-only"));
  EXPECT_THAT(error({.blocks = {7}}), HasSubstr("block"));
  EXPECT_THAT(error({.scale_bits = {7}}), HasSubstr("scale_bits"));
  EXPECT_THAT(error({.rules = {"flor"}}), HasSubstr("floor"));
  EXPECT_THAT(error({.roundings = {"up"}}), HasSubstr("round"));
  EXPECT_THAT(error({.roles = {"mlp,"}}), HasSubstr("empty"));
  const std::string huge = error({.blocks = std::vector<int>(100, 32), .rules = std::vector<std::string>(100, "ct")});
  EXPECT_THAT(huge, HasSubstr("60000 variants"));
  EXPECT_THAT(huge, HasSubstr("256 of --max-variants"));
  EXPECT_EQ(grid_variants({.blocks = {16, 32}, .max_variants = 12}).size(), 12U);
  EXPECT_THAT(error({.blocks = {16, 32}, .max_variants = 11}), HasSubstr("12 variants"));
}

TEST(Sensitivity, OneUnitAtATime) {
  const LoadedModel model = three_layers();
  const auto scan = [&](const SweepAxes& axes, Sensitivity unit) {
    return sensitivity_variants(axes, unit, model.spec);
  };
  EXPECT_THAT(texts(scan({.formats = {"mxfp4"}}, Sensitivity::layer)),
              ElementsAre("model.layers.0.*=mxfp4_e2m1", "model.layers.1.*=mxfp4_e2m1", "model.layers.2.*=mxfp4_e2m1"));
  EXPECT_THAT(texts(scan({.formats = {"mxfp4"}, .roles = {"linear"}}, Sensitivity::role)),
              ElementsAre("attention=mxfp4_e2m1", "mlp=mxfp4_e2m1", "lm_head=mxfp4_e2m1"));
  const auto layers = scan({.formats = {"mxfp4"}, .roles = {"linear"}}, Sensitivity::layer);
  ASSERT_EQ(layers.size(), 4U);
  EXPECT_EQ(layers[3].variant.canonical(), "lm_head=mxfp4_e2m1");
  EXPECT_EQ(layers[1].point.unit, "model.layers.1");
  // Only a part of a layer: its Linears one by one.
  EXPECT_THAT(texts(scan({.formats = {"mxfp4/none"}, .roles = {"model.layers.1.mlp.*"}}, Sensitivity::layer)),
              ElementsAre("model.layers.1.mlp.gate_proj=mxfp4_e2m1/none,model.layers.1.mlp.up_proj=mxfp4_e2m1/none,"
                          "model.layers.1.mlp.down_proj=mxfp4_e2m1/none"));
  const auto linears = scan({.formats = {"mxfp4", "mxint8"}, .roles = {"mlp", "attention"}}, Sensitivity::linear);
  ASSERT_EQ(linears.size(), 42U);
  EXPECT_EQ(linears[7].variant.canonical(), "model.layers.1.self_attn.q_proj=mxfp4_e2m1");
  EXPECT_EQ(linears[41].point.unit, "model.layers.2.mlp.down_proj");
  EXPECT_THAT(usage_error([&] { scan({.roles = {"lm_haed"}}, Sensitivity::role); }), HasSubstr("lm_head"));
  EXPECT_THAT(usage_error([&] { scan({.max_variants = 20}, Sensitivity::linear); }), HasSubstr("126 variants"));
  EXPECT_THAT(usage_error([] { parse_sensitivity("tensor"); }), HasSubstr("linear, role or layer"));
}

TEST(Sensitivity, AScanOverLayersCostsHalfOfItsForwards) {
  const LoadedModel model = load_model("", /*with_tokenizer=*/false);  // eight layers
  std::vector<Variant> variants{{.name = "baseline", .clauses = {}}};
  for (const auto& v : sensitivity_variants({.formats = {"mxfp4"}}, Sensitivity::layer, model.spec)) {
    variants.push_back(v.variant);
  }
  ASSERT_EQ(variants.size(), 9U);
  // The baseline, and of variant i the layers from i on: (8 + 7 + ... + 1) / 8.
  EXPECT_DOUBLE_EQ(build_tree(model.spec, resolve(model.spec, variants)).forwards(), 1 + 4.5);
}

TEST(Layers, AreNamedUpToTheirNumber) {
  EXPECT_EQ(layer_of("model.layers.11.mlp.up_proj"), "model.layers.11");
  EXPECT_EQ(layer_of("transformer.h.0.attn.c_attn"), "transformer.h.0");
  EXPECT_EQ(layer_of("model.layers.2.mlp.experts.7.gate_up_proj"), "model.layers.2");
  EXPECT_EQ(layer_of("lm_head"), "lm_head");
  EXPECT_EQ(layer_of("h2.x"), "h2.x");
}

}  // namespace
}  // namespace mxlm
