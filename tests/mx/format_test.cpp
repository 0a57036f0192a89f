#include "mx/format.hpp"

#include <gtest/gtest.h>

namespace mxlm::mx {
namespace {

TEST(Format, NamesAndAliasesOfTheTable) {
  for (const NamedElement& e : kElements) {
    EXPECT_EQ(parse_element(e.name), e.format);
    EXPECT_EQ(element_name(e.format), e.name);
    for (const auto alias : e.aliases) {
      if (!alias.empty()) {
        EXPECT_EQ(parse_element(alias), e.format);
      }
    }
  }
  EXPECT_EQ(parse_element("mxfp8"), parse_element("mxfp8_e4m3"));
  EXPECT_EQ(parse_element("mxfp6"), parse_element("fp6_e3m2"));
  EXPECT_EQ(parse_element("mxfp4"), parse_element("fp4_e2m1"));
  EXPECT_EQ(parse_element("int8"), parse_element("mxint8"));
}

TEST(Format, LargestElementsOfTheStandard) {
  EXPECT_EQ(parse_element("mxfp8_e4m3")->max, 448);
  EXPECT_EQ(parse_element("mxfp8_e5m2")->max, 57344);
  EXPECT_EQ(parse_element("mxfp6_e3m2")->max, 28);
  EXPECT_EQ(parse_element("mxfp6_e2m3")->max, 7.5F);
  EXPECT_EQ(parse_element("mxfp4_e2m1")->max, 6);
  EXPECT_EQ(parse_element("mxint8")->max, 127.0F / 64);
}

TEST(Format, GenericNames) {
  EXPECT_EQ(parse_element("mxe2m1"), parse_element("mxfp4"));  // no specials there either
  EXPECT_EQ(element_name(*parse_element("mxe2m1")), "mxfp4_e2m1");
  EXPECT_EQ(parse_element("mxe4m3")->max, 480);  // every code a number, unlike OCP's E4M3
  EXPECT_EQ(element_name(*parse_element("mxe4m3")), "mxe4m3");
  EXPECT_EQ(parse_element("mxe5m2")->max, 114688);
  EXPECT_EQ(parse_element("mxint4")->max, 1.75F);
  EXPECT_EQ(parse_element("mxint2")->max, 1);
  for (const char* name : {"mxe1m0", "mxe1m14", "mxe7m8", "mxe3m0", "mxint2", "mxint16", "mxint3"}) {
    ASSERT_TRUE(parse_element(name).has_value()) << name;
    EXPECT_EQ(element_name(*parse_element(name)), name);
  }
}

TEST(Format, RefusesOtherNames) {
  for (const char* name :
       {"",        "mx",          "mxe",     "mxe3",  "mxe3m", "mxem2",  "mxe0m3",  "mxe8m1",  "mxe1m15",
        "mxe03m2", "mxe3m02",     "mxe3m2 ", "MXFP4", "mxint", "mxint1", "mxint17", "mxint08", "mxint99999999999",
        "mxe3m-1", "mxfp4_e2m1_", "none"}) {
    EXPECT_FALSE(parse_element(name).has_value()) << name;
  }
}

TEST(Format, RulesAndRoundings) {
  for (const auto& r : kScaleRules) EXPECT_EQ(parse_rule(rule_name(r.rule)), r.rule);
  for (const auto& r : kRoundings) EXPECT_EQ(parse_rounding(rounding_name(r.rounding)), r.rounding);
  EXPECT_FALSE(parse_rule("Floor").has_value());
  EXPECT_FALSE(parse_rounding("").has_value());
}

TEST(Format, ChecksBlockFormats) {
  const ElementFormat e = kElements[0].format;
  for (const int block : {0, 8, 9, 32, 256}) EXPECT_EQ(check({e, block}), "");
  for (const int block : {-1, 1, 7, 257}) EXPECT_NE(check({e, block}), "");
  for (const int bits : {4, 5, 6, 8, 16}) EXPECT_EQ(check({e, 32, bits}), "");
  for (const int bits : {0, 3, 7, 9, 32}) EXPECT_NE(check({e, 32, bits}), "");
}

TEST(Format, WhatBfloat16Holds) {
  EXPECT_TRUE(decodes_exactly_to_bf16({*parse_element("mxint9")}));
  EXPECT_FALSE(decodes_exactly_to_bf16({*parse_element("mxint10")}));
  EXPECT_TRUE(decodes_exactly_to_bf16({*parse_element("mxe5m7")}));
  EXPECT_FALSE(decodes_exactly_to_bf16({*parse_element("mxe5m8")}));
  EXPECT_FALSE(decodes_exactly_to_bf16({*parse_element("mxfp8"), 32, 16}));
}

}  // namespace
}  // namespace mxlm::mx
