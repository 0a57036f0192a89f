#include "variants/variant.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "variants/resolve.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string canonical(std::string_view text) { return Variant::parse(text).canonical(); }

/// What a variant computes one Linear in.
ProductSpec product_of(const Variant& variant, std::string_view module, Role role) {
  const NamedLinear linear{.module = module, .role = role};
  return resolve(std::span(&linear, 1), variant).linear(0);
}

std::string refusal(std::string_view text) {
  try {
    Variant::parse(text);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Variant, CanonicalForm) {
  const std::pair<const char*, const char*> cases[] = {
      {"attention=mxfp8_e4m3,mlp=mxfp8_e4m3", "attention=mxfp8_e4m3,mlp=mxfp8_e4m3"},
      {"mlp=mxfp4", "mlp=mxfp4_e2m1"},
      {"mlp=mxfp4/mxfp8,attention=mxfp8", "mlp=mxfp4_e2m1/mxfp8_e4m3,attention=mxfp8_e4m3"},
      {"w4: linear=mxfp4/none@rule=rceil", "linear=mxfp4_e2m1@rule=rceil/none"},
      {"mlp=mxfp4@block=16,model.layers.0.*=mxint8", "mlp=mxfp4_e2m1@block=16,model.layers.0.*=mxint8"},
      {"mlp=none", "mlp=none"},
      {"mlp=none/none", "mlp=none"},
      {"mlp=none/mxint8@block=0", "mlp=none/mxint8@block=0"},
      {"mlp=mxfp6/mxfp6", "mlp=mxfp6_e3m2"},
      // Defaults are left out, keys come in one order.
      {"mlp=mxfp8@block=32@scale_bits=8@rule=floor@round=even", "mlp=mxfp8_e4m3"},
      {"mlp=mxfp8@round=nearest@rule=ceil@scale_bits=5@block=64",
       "mlp=mxfp8_e4m3@block=64@scale_bits=5@rule=ceil@round=nearest"},
      // Keys after the last operand hold for both, key by key, unless the first has its own.
      {"mlp=mxfp4/mxfp8@rule=rceil", "mlp=mxfp4_e2m1/mxfp8_e4m3@rule=rceil"},
      {"mlp=mxfp4@rule=rceil/mxfp8@rule=rceil", "mlp=mxfp4_e2m1/mxfp8_e4m3@rule=rceil"},
      {"mlp=mxfp4@block=16/mxfp8", "mlp=mxfp4_e2m1@block=16/mxfp8_e4m3"},
      {"mlp=mxfp4@block=16/mxfp4", "mlp=mxfp4_e2m1@block=16/mxfp4_e2m1"},
      {"mlp=mxfp4@block=32/mxfp8@block=16", "mlp=mxfp4_e2m1@block=32/mxfp8_e4m3@block=16"},
      {"mlp=mxfp4@block=16/mxfp8@rule=rceil", "mlp=mxfp4_e2m1@block=16@rule=rceil/mxfp8_e4m3@rule=rceil"},
      {"mlp=mxfp4@rule=floor/mxfp8@rule=rceil", "mlp=mxfp4_e2m1@rule=floor/mxfp8_e4m3@rule=rceil"},
      // Generic formats; white space around every part.
      {"qk=mxe4m3,pv=mxint4", "qk=mxe4m3,pv=mxint4"},
      {" a.b+c-1_ : mlp = mxfp8 @ block = 16 / none , lm_head=mxint8 ", "mlp=mxfp8_e4m3@block=16/none,lm_head=mxint8"},
      {"mlp=fp8_e5m2", "mlp=mxfp8_e5m2"},
  };
  for (const auto& [text, want] : cases) {
    EXPECT_EQ(canonical(text), want) << text;
    EXPECT_EQ(canonical(want), want);
  }
}

TEST(Variant, Stages) {
  const std::pair<const char*, const char*> cases[] = {
      {"mlp=bfp16", "mlp=bf16"},
      {"mlp=llm_int8", "mlp=llm_int8"},
      {"mlp=nvfp4/mxfp8", "mlp=nvfp4/mxfp8_e4m3"},
      {"mlp=fp8_e4m3_own_exponent@round=nearest", "mlp=fp8_e4m3_own_exponent@round=nearest"},
      // Keys of the last side do not reach a stage that has no use for them.
      {"mlp=nvfp4/mxfp8@block=16@rule=rceil", "mlp=nvfp4/mxfp8_e4m3@block=16@rule=rceil"},
      {"mlp=bf16/mxfp4@round=floor", "mlp=bf16/mxfp4_e2m1@round=floor"},
      {"mlp=bf16@round=even/mxfp4@round=floor", "mlp=bf16@round=even/mxfp4_e2m1@round=floor"},
      {"mlp=mxfp4/bf16@round=floor", "mlp=mxfp4_e2m1/bf16@round=floor"},
      {"mlp=mxfp4@block=16/fp8_e4m3_tensor", "mlp=mxfp4_e2m1@block=16/fp8_e4m3_tensor"},
      {"qk=fp8_e5m2_unscaled,pv=bf16/none", "qk=fp8_e5m2_unscaled,pv=bf16/none"},
  };
  for (const auto& [text, want] : cases) {
    EXPECT_EQ(canonical(text), want) << text;
    EXPECT_EQ(canonical(want), want);
  }
  EXPECT_THAT(refusal("mlp=nvfp4@block=32"), AllOf(HasSubstr("block means nothing for nvfp4"), HasSubstr("no keys")));
  EXPECT_THAT(refusal("mlp=bf16@rule=ceil"), AllOf(HasSubstr("rule means nothing for bf16"), HasSubstr("round alone")));
  EXPECT_THAT(refusal("mlp=mxfp4/fp8_e4m3_row@round=floor"), HasSubstr("round means nothing for fp8_e4m3_row"));
  EXPECT_THAT(refusal("qk=nvfp4"), HasSubstr("attention products cannot be in nvfp4"));
  EXPECT_THAT(refusal("mlp=fp8_e4m3_unscald"), HasSubstr("did you mean 'fp8_e4m3_unscaled'"));
}

TEST(Variant, Outputs) {
  const std::pair<const char*, const char*> cases[] = {
      {"mlp=mxfp4/mxfp8/mxfp8", "mlp=mxfp4_e2m1/mxfp8_e4m3/mxfp8_e4m3"},
      {"mlp=mxfp4/none/mxfp8@block=16", "mlp=mxfp4_e2m1/none/mxfp8_e4m3@block=16"},
      {"mlp=mxfp4@block=32/nvfp4/mxfp8@block=16", "mlp=mxfp4_e2m1@block=32/nvfp4/mxfp8_e4m3@block=16"},
      {"mlp=mxfp4/mxfp4/none", "mlp=mxfp4_e2m1"},
  };
  for (const auto& [text, want] : cases) {
    EXPECT_EQ(canonical(text), want) << text;
    EXPECT_EQ(canonical(want), want);
  }
  EXPECT_THAT(refusal("mlp=none/none/mxfp8"), HasSubstr("only where weights or activations are"));
  EXPECT_THAT(refusal("mlp=mxfp4/mxfp4/nvfp4"), HasSubstr("depends on the whole tensor"));
  EXPECT_THAT(refusal("lm_head=mxfp4/mxfp4/mxfp8"), HasSubstr("outputs of lm_head are not quantised"));
  EXPECT_THAT(refusal("qk=mxfp4/mxfp4/mxfp8"), HasSubstr("outputs of qk are not quantised"));
  EXPECT_THAT(refusal("mlp=mxfp4/mxfp4/mxfp4/mxfp4"), HasSubstr("three sides at most"));

  const Variant plain = Variant::parse("linear=mxfp4/mxfp8,attention=mxint8/none,qk=mxfp8");
  const Variant quantized = plain.with_quantized_outputs();
  EXPECT_EQ(quantized.name, "linear=mxfp4_e2m1/mxfp8_e4m3/mxfp8_e4m3,attention=mxint8/none/mxint8,qk=mxfp8_e4m3");
  EXPECT_EQ(quantized.canonical(), quantized.name);
  EXPECT_TRUE(product_of(quantized, "a", Role::mlp).outputs.has_value());
  EXPECT_FALSE(product_of(quantized, "lm_head", Role::lm_head).outputs.has_value());
  EXPECT_EQ(Variant::parse("w4: mlp=mxfp4").with_quantized_outputs().name, "w4");
  EXPECT_THROW(Variant::parse("mlp=nvfp4").with_quantized_outputs(), UsageError);
}

TEST(Variant, EveryTripleOfFormatsPrintsBackToItself) {
  std::vector<OperandSpec> sides{std::nullopt};
  for (const char* text :
       {"mxfp4", "mxfp4@block=16", "mxfp8@round=floor", "mxfp8@round=nearest@rule=ceil@scale_bits=5", "bf16",
        "bf16@round=floor", "fp8_e4m3_own_exponent@round=nearest", "fp8_e5m2_row", "nvfp4"}) {
    sides.emplace_back(parse_block_format(text));
  }
  for (const OperandSpec& w : sides) {
    for (const OperandSpec& a : sides) {
      for (const OperandSpec& o : sides) {
        if (o && (mx::needs_whole_tensor(*o) || (!w && !a))) continue;
        const ProductSpec spec{.weights = w, .activations = a, .outputs = o};
        const Variant back = Variant::parse("mlp=" + to_text(spec));
        EXPECT_EQ(back.clauses[0].spec, spec) << to_text(spec);
        EXPECT_EQ(back.canonical(), "mlp=" + to_text(spec));
      }
    }
  }
}

TEST(Variant, NameIsTheCanonicalTextUnlessGiven) {
  EXPECT_EQ(Variant::parse("w4: mlp=mxfp4").name, "w4");
  EXPECT_EQ(Variant::parse("mlp=mxfp4").name, "mlp=mxfp4_e2m1");
  EXPECT_EQ(Variant::parse("mlp:mlp=mxfp4").name, "mlp");
}

TEST(Variant, KeysOfBothSides) {
  const auto side = [](const OperandSpec& spec) { return spec.value_or(mx::Format{}); };
  const ProductSpec own = Variant::parse("mlp=mxfp4@block=16/mxfp8@block=64@rule=ceil").clauses[0].spec;
  EXPECT_EQ(side(own.weights).block_size, 16);
  EXPECT_EQ(side(own.weights).rule, mx::ScaleRule::ceil);
  EXPECT_EQ(side(own.activations).block_size, 64);
  EXPECT_EQ(side(own.activations).rule, mx::ScaleRule::ceil);
  const ProductSpec weights_only = Variant::parse("mlp=mxfp4/none@scale_bits=4@round=floor").clauses[0].spec;
  EXPECT_EQ(side(weights_only.weights).scale_bits, 4);
  EXPECT_EQ(side(weights_only.weights).rounding, mx::Rounding::toward_zero);
  EXPECT_FALSE(weights_only.activations.has_value());
}

TEST(Variant, ChoosesByRoleAndGlobAndTheLaterClauseWins) {
  const Variant v = Variant::parse(
      "linear=mxint8,attention=mxfp8,model.layers.1?.*=mxfp6,*.layers.11.*o_proj=none,qk=mxfp8,qk=mxfp6_e2m3");
  const auto weights = [&](std::string_view module, Role role) { return to_text(product_of(v, module, role).weights); };
  EXPECT_EQ(weights("model.layers.0.mlp.up_proj", Role::mlp), "mxint8");
  EXPECT_EQ(weights("lm_head", Role::lm_head), "mxint8");
  EXPECT_EQ(weights("model.layers.0.self_attn.q_proj", Role::attention), "mxfp8_e4m3");
  EXPECT_EQ(weights("model.layers.1.self_attn.q_proj", Role::attention), "mxfp8_e4m3");
  EXPECT_EQ(weights("model.layers.10.self_attn.q_proj", Role::attention), "mxfp6_e3m2");
  EXPECT_EQ(weights("model.layers.11.self_attn.o_proj", Role::attention), "none");
  EXPECT_FALSE(product_of(v, "model.layers.11.self_attn.o_proj", Role::attention).replaced());
  EXPECT_EQ(weights("model.layers.11.mlp.gate", Role::router), "none");
  const ResolvedVariant resolved = resolve(std::span<const NamedLinear>(), v);
  EXPECT_EQ(to_text(resolved.qk), "mxfp6_e2m3");
  EXPECT_FALSE(resolved.pv.replaced());
}

TEST(Variant, Globs) {
  const auto matches = [](std::string_view glob, std::string_view module) {
    return product_of(Variant::parse(std::string(glob) + "=mxint8"), module, Role::mlp).replaced();
  };
  EXPECT_TRUE(matches("*", "a.b"));
  EXPECT_TRUE(matches("a*c", "a.b.c"));
  EXPECT_TRUE(matches("a*b*c", "a.b.b.c"));
  EXPECT_TRUE(matches("**c", "c"));
  EXPECT_TRUE(matches("a.?.c*", "a.b.c"));
  EXPECT_FALSE(matches("a.?.c", "a.bb.c"));
  EXPECT_FALSE(matches("a.b", "a.b.c"));
  EXPECT_FALSE(matches("b.c", "a.b.c"));
  EXPECT_FALSE(matches("a*c", "a.b"));
  EXPECT_FALSE(matches("qk", "qk"));
  EXPECT_FALSE(matches("a?", "a"));
  // No exponential time.
  EXPECT_FALSE(matches("*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(5000, 'a')));
}

TEST(Variant, RefusalsNameThePlaceAndWhatIsPossible) {
  EXPECT_THAT(refusal("mlp=mxpf4"), AllOf(HasSubstr("variant 'mlp=mxpf4', at character 5"),
                                          HasSubstr("did you mean 'mxfp4'?"), HasSubstr("mxint8"), HasSubstr("none")));
  EXPECT_THAT(refusal("mlp=mxfp8@blok=16"),
              AllOf(HasSubstr("at character 11"), HasSubstr("did you mean 'block'?"), HasSubstr("scale_bits")));
  EXPECT_THAT(refusal("mlp=mxfp8@rule=rciel"),
              AllOf(HasSubstr("at character 16"), HasSubstr("did you mean 'rceil'?"), HasSubstr("mse")));
  EXPECT_THAT(refusal("mlp=mxfp8@round=up"), HasSubstr("nearest"));
  EXPECT_THAT(refusal("mlp=mxfp8@block=7"), HasSubstr("8 to 256"));
  EXPECT_THAT(refusal("mlp=mxfp8@block=-32"), HasSubstr("block"));
  EXPECT_THAT(refusal("mlp=mxfp8@block=99999999999999999999"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("mlp=mxfp8@block=16x"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("mlp=mxfp8@scale_bits=7"), HasSubstr("4, 5, 6, 8, 16"));
  EXPECT_THAT(refusal("mlp=mxfp8@block=16@block=32"), HasSubstr("twice"));
  EXPECT_THAT(refusal("mlp=mxfp8@block"), HasSubstr("@block=..."));
  EXPECT_THAT(refusal("mlp=mxfp8@block="), HasSubstr("@block=..."));
  EXPECT_THAT(refusal("mlp=mxfp8@"), HasSubstr("key ''"));
  EXPECT_THAT(refusal("mlp=mxfp8/mxfp8/mxfp8/mxfp8"), HasSubstr("three sides"));
  EXPECT_THAT(refusal("mlp=none@block=16"), HasSubstr("change nothing"));
  EXPECT_THAT(refusal("mlp=none@block=16/mxfp8"), HasSubstr("change nothing"));
  EXPECT_THAT(refusal("mlp=none/none@block=16"), HasSubstr("change nothing"));
  EXPECT_THAT(refusal("mlp="), HasSubstr("a format is missing"));
  EXPECT_THAT(refusal("mlp=/mxfp8"), HasSubstr("a format is missing"));
  EXPECT_THAT(refusal("mlp=mxfp8/"), HasSubstr("a format is missing"));
  EXPECT_THAT(refusal("=mxfp8"), HasSubstr("target is missing"));
  EXPECT_THAT(refusal("mlp"), HasSubstr("TARGET=FORMAT"));
  EXPECT_THAT(refusal("mlp=mxfp8,"), HasSubstr("clause is missing"));
  EXPECT_THAT(refusal("mlp=mxfp8,,qk=mxfp8"), HasSubstr("clause is missing"));
  EXPECT_THAT(refusal(""), HasSubstr("variant is empty"));
  EXPECT_THAT(refusal(" "), HasSubstr("variant is empty"));
  EXPECT_THAT(refusal("my name: mlp=mxfp8"), HasSubstr("not a name for a variant"));
  EXPECT_THAT(refusal(": mlp=mxfp8"), HasSubstr("not a name for a variant"));
  EXPECT_THAT(refusal("*:up_proj=mxfp8"), HasSubstr("'?'"));
  EXPECT_THAT(refusal("a: b:c=mxfp8"), AllOf(HasSubstr("at character 5"), HasSubstr("cannot hold ':'")));
  EXPECT_THAT(refusal("a b=mxfp8"), HasSubstr("cannot hold ' '"));
  EXPECT_THAT(refusal("a\x01=mxfp8"), HasSubstr("cannot hold '?'"));
  EXPECT_THAT(refusal("a\xc3\xa4=mxfp8"), HasSubstr("cannot hold"));
  EXPECT_THAT(refusal("baseline: mlp=mxfp8"), HasSubstr("'baseline' is taken"));
  EXPECT_THAT(refusal("BaseLine: mlp=mxfp8"), HasSubstr("'baseline' is taken"));
  EXPECT_THAT(refusal(std::string(1 << 20, 'a')), HasSubstr("characters at most"));
  EXPECT_THAT(refusal(std::string(1000, 'a') + "=mxfp8"), HasSubstr("512 characters"));
  EXPECT_THAT(refusal(std::string(200, 'a') + ":mlp=mxfp8"), HasSubstr("not a name for a variant"));
  std::string many = "*=none";
  for (int i = 0; i < 5000; ++i) many += ",*=none";
  EXPECT_THAT(refusal(many), HasSubstr("4096 clauses"));
}

TEST(Variant, ATargetThatMatchesNothingListsWhatThereIs) {
  const std::vector<NamedLinear> linears{{"model.layers.0.self_attn.q_proj", Role::attention},
                                         {"model.layers.1.self_attn.q_proj", Role::attention},
                                         {"model.layers.1.mlp.experts.3.up_proj", Role::mlp},
                                         {"model.layers.1.mlp.gate", Role::router}};
  const auto require = [&](std::string_view text) {
    const Variant variant = Variant::parse(text);
    require_matches(linears, variant, resolve(linears, variant));
  };
  EXPECT_NO_THROW(require("linear=mxfp8,attention=mxfp8,qk=mxfp8,*.q_proj=none"));
  const auto message = [&](std::string_view text) -> std::string {
    try {
      require(text);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(
      message("atention=mxfp8"),
      "variant 'atention=mxfp8_e4m3': target 'atention' matches no Linear of this model (did you mean 'attention'?); "
      "there are attention, mlp, linear, qk, pv, vector, model.layers.*.mlp.experts.*.up_proj, "
      "model.layers.*.self_attn.q_proj");
  EXPECT_THAT(message("mlp=mxfp8,lm_head=mxfp8"), HasSubstr("target 'lm_head' matches no Linear"));
  EXPECT_THAT(message("*gate=mxfp8"), HasSubstr("target '*gate' matches no Linear"));
}

TEST(Variant, Format) {
  const mx::Format format = parse_block_format("mxfp4@rule=rceil@block=16");
  EXPECT_EQ(format.block_size, 16);
  EXPECT_EQ(format.rule, mx::ScaleRule::rceil);
  EXPECT_EQ(to_text(OperandSpec(format)), "mxfp4_e2m1@block=16@rule=rceil");
  EXPECT_THROW(parse_block_format("none"), UsageError);
  EXPECT_THROW(parse_block_format("mxfp4/mxfp8"), UsageError);
  EXPECT_THROW(parse_block_format("mxfp4,mxfp8"), UsageError);
  EXPECT_THROW(parse_block_format(""), UsageError);
}

TEST(Variant, Roles) {
  EXPECT_EQ(role_name(Role::attention), "attention");
  EXPECT_EQ(role_name(Role::mlp), "mlp");
  EXPECT_EQ(role_name(Role::lm_head), "lm_head");
  EXPECT_EQ(role_name(Role::router), "router");
}

TEST(Variant, VectorOperationsAreRoundedOnRequest) {
  const Variant v = Variant::parse("mlp=mxfp4, vector = bfp16");
  EXPECT_EQ(v.canonical(), "mlp=mxfp4_e2m1,vector=bf16");
  for (const Role role : {Role::mlp, Role::attention, Role::router, Role::lm_head}) {
    EXPECT_EQ(product_of(v, "a.vector", role).arithmetic, Arithmetic::bf16_rounded);
    EXPECT_EQ(product_of(v, "a.vector", role).replaced(), role == Role::mlp);
  }
  const std::vector<NamedLinear> linears{{.module = "vector", .role = Role::attention},
                                         {.module = "a", .role = Role::mlp}};
  const ResolvedVariant resolved = resolve(linears, v);
  EXPECT_EQ(resolved.arithmetic, Arithmetic::bf16_rounded);
  EXPECT_FALSE(resolved.linear(0).replaced());
  EXPECT_TRUE(resolved.linear(1).replaced());
  EXPECT_TRUE(resolved.unmatched.empty());
  EXPECT_EQ(v.with_quantized_outputs().canonical(), "mlp=mxfp4_e2m1/mxfp4_e2m1/mxfp4_e2m1,vector=bf16");
  const Variant without = Variant::parse("vector=bf16,linear=mxfp8,vector=none");
  EXPECT_EQ(without.canonical(), "vector=bf16,linear=mxfp8_e4m3,vector=none");
  EXPECT_EQ(resolve(linears, without).arithmetic, Arithmetic::model_dtype);
  EXPECT_EQ(product_of(without, "a", Role::mlp).arithmetic, Arithmetic::model_dtype);
  for (const char* wrong : {"vector=mxfp8", "vector=bf16/none", "vector=bf16@round=nearest", "vector=bf16/bf16/bf16"}) {
    EXPECT_THROW(Variant::parse(wrong), UsageError) << wrong;
  }
}

}  // namespace
}  // namespace mxlm
