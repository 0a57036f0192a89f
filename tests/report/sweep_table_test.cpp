#include "report/sweep_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <vector>

#include "report/text_layout.hpp"
#include "run/ranking.hpp"

namespace mxlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.push_back(line);
  return out;
}

VariantResult swept(const std::string& name, double kld, double bits) {
  VariantResult v;
  v.name = name;
  v.figures.tokens = 100;
  v.figures.vs_baseline.emplace();
  v.figures.vs_baseline->kld_mean = kld;
  v.figures.vs_baseline->kld_stderr = kld / 10;
  v.figures.vs_baseline->kld_stderr_windows = kld / 10;
  v.figures.vs_baseline->ppl_ratio = 1.5;
  v.figures.vs_baseline->ln_ppl_ratio_stderr_windows = 0.01;
  v.weight_bits_baseline = 16;
  v.weight_bits_variant = bits;
  v.sweep.emplace();
  v.sweep->format = "mxfp4_e2m1";
  v.sweep->block = 32;
  v.sweep->scale_bits = 8;
  v.sweep->rule = "floor";
  v.sweep->round = "even";
  v.sweep->roles = "attention,mlp";
  return v;
}

EvalResult result_of(std::vector<VariantResult> variants) {
  RunResult run;
  run.model.name = "model";
  run.clusters = {"window", 20};
  run.variants.emplace_back();
  run.variants[0].name = "baseline";
  run.variants[0].figures.tokens = 100;
  run.variants[0].weight_bits_baseline = run.variants[0].weight_bits_variant = 16;
  for (VariantResult& v : variants) run.variants.push_back(std::move(v));
  rate_points(run);
  EvalResult out;
  out.runs.push_back(std::move(run));
  return out;
}

TEST(SweepTable, SortedByKlABitSavedWithMarks) {
  auto worst = swept("worst", 0.5, 8), best = swept("best", 0.1, 8), none = swept("none", 0.01, 16);
  worst.sweep->block = 64;
  best.sweep->block = 16;
  none.sweep->block = 8;
  EvalResult result = result_of({worst, none, best});
  result.runs[0].pairs = {{.a = 1, .b = 3, .kld_difference = 0.4, .kld_difference_stderr_windows = 0.3}};
  const auto lines = lines_of(render_sweep_table(result));
  ASSERT_GE(lines.size(), 4U);
  EXPECT_THAT(lines[0], HasSubstr("block"));
  EXPECT_THAT(lines[0], Not(HasSubstr("rule")));  // it does not vary
  EXPECT_TRUE(lines[1].starts_with("*      16")) << lines[1];
  EXPECT_TRUE(lines[2].starts_with("(*)=1  64")) << lines[2];  // as many bits, and no worse by more than the error
  EXPECT_TRUE(lines[3].starts_with("       8 ")) << lines[3];
  EXPECT_THAT(lines[1], HasSubstr("100 ± 10"));  // mnats
  EXPECT_THAT(lines[3], HasSubstr(" - "));       // saves no bits
  const std::string text = render_sweep_table(result);
  EXPECT_THAT(text, HasSubstr("All: format mxfp4, scale bits 8, rule floor, rounding even, roles attention,mlp."));
}

TEST(SweepTable, MarksAreOfPairsByStudentsT) {
  auto first = swept("first", 0.1, 8), second = swept("second", 0.2, 8);
  second.sweep->rule = "even";
  EvalResult result = result_of({first, second});
  RunResult& run = result.runs[0];
  const auto mark = [&](double difference, double error, int64_t clusters) {
    run.clusters.number = clusters;
    run.pairs = {{.a = 1, .b = 2, .kld_difference = difference, .kld_difference_stderr_windows = error}};
    return lines_of(render_sweep_table(result)).at(2).substr(0, 5);
  };
  EXPECT_EQ(mark(0.1, 0.04, 400), "     ");  // z = 2.5
  EXPECT_EQ(mark(0.1, 0.06, 400), "(*)=1");  // 1.7
  EXPECT_EQ(mark(0.1, 0.04, 3), "(*)=1");    // of three windows 2.5 errors happen by chance in one of eight
  // Equal to the bit: no difference and no error.
  EXPECT_EQ(mark(0, 0, 20), "(*)=1");
  EXPECT_EQ(mark(0, std::numeric_limits<double>::quiet_NaN(), 1), "(*)=1");
  // With one window nothing else can be told apart, or called the same.
  EXPECT_EQ(mark(0.1, std::numeric_limits<double>::quiet_NaN(), 1), "     ");
}

TEST(SweepTable, FitsATerminalWhateverTheNames) {
  std::vector<VariantResult> variants;
  for (int i = 0; i < 4; ++i) {
    variants.push_back(swept("v" + std::to_string(i), 0.1 * (i + 1), 4.25));
    SweepPoint& p = *variants.back().sweep;
    p.unit = "transformer.some.very.long.module.name.h." + std::to_string(i) + ".attention.query_key_value";
    p.format = i % 2 == 0 ? "mxfp4_e2m1/mxfp8_e4m3" : "mxe5m10/mxe4m11";
    p.block = 8 << i;
    p.rule = i % 2 == 0 ? "rceil" : "floor";
    p.roles = i % 2 == 0 ? "attention,lm_head,mlp" : "\x1b[31mmodel.layers.*";
  }
  const std::string text = render_sweep_table(result_of(variants));
  for (const std::string& line : lines_of(text)) EXPECT_LE(text_width(line), kTerminalWidth) << line;
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(SweepTable, OneVariantAndNone) {
  EXPECT_THAT(render_sweep_table(result_of({swept("a", 0.1, 8)})), HasSubstr("mxfp4_e2m1"));
  EXPECT_THAT(render_sweep_table(result_of({})), HasSubstr("0 variants"));
}

TEST(SweepCsv, OneLineAVariantInCommandOrder) {
  auto a = swept("a,\"b\"", 0.5, 8);
  auto b = swept("c", std::numeric_limits<double>::quiet_NaN(), 4.25);
  const auto lines = lines_of(render_sweep_csv(result_of({a, b})));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_TRUE(lines[0].starts_with("model,data,variant,unit,format,"));
  EXPECT_TRUE(lines[1].starts_with(
      "model,,\"a,\"\"b\"\"\",,mxfp4_e2m1,32,8,floor,even,\"attention,mlp\",8,8,0.5,0.05,0.0625,1,"))
      << lines[1];
  EXPECT_TRUE(lines[2].starts_with("model,,c,,mxfp4_e2m1,32,8,floor,even,\"attention,mlp\",4.25,11.75,,,,0,"))
      << lines[2];
}

TEST(TextLayout, CutsAndPadsByCodePoints) {
  EXPECT_EQ(elide_left("äbcdef", 4), "…def");
  EXPECT_EQ(elide_left("abcd", 4), "abcd");
  EXPECT_EQ(pad_left("ä", 3), "  ä");
  EXPECT_EQ(pad_right("ä", 3), "ä  ");
  EXPECT_EQ(csv_field("a\nb"), "\"a\nb\"");
  EXPECT_EQ(csv_field("plain"), "plain");
}

TEST(CsvField, FormulasAreInert) {
  for (const std::string text : {"=1+1", "+1+1", "-1+1", "@SUM(1)", "=", "@", " =1", "'=1", "  '@x", "\uFF1D1",
                                 "\uFF0B1", "\uFF0D1", "\uFF20x", "-", "+", "-1e5x", "--1", "+-1", "-inf(1)"}) {
    EXPECT_EQ(csv_field(text), "'" + text);
    EXPECT_EQ(csv_field(text, Formulas::raw), text);
  }
  // Where quotes are needed, the mark stands inside of them.
  EXPECT_EQ(csv_field("=HYPERLINK(\"http://x\",\"y\")"), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"");
  EXPECT_EQ(csv_field("\t=1+1"), "\"'\t=1+1\"");
  EXPECT_EQ(csv_field("\r=1+1"), "\"'\r=1+1\"");
  EXPECT_EQ(csv_field("\n=1+1"), "\"'\n=1+1\"");
  EXPECT_EQ(csv_field("\"=1"), "\"'\"\"=1\"");
  // What separates fields in another locale does not begin a field of its own.
  EXPECT_EQ(csv_field("a;=1"), "\"a;=1\"");
  EXPECT_EQ(csv_field("a\t=1"), "\"a\t=1\"");
}

TEST(CsvField, NumbersAndNamesStay) {
  for (const std::string text : {"-1", "+1.5", "-1.5e-05", "-0", "-5e-324", "-1e308", "-inf", "", "'", "a=b",
                                 "linear=mxfp4", "1+1", "a@b", "x-y", "mlp=mxfp8@block=16"}) {
    EXPECT_EQ(csv_field(text), text);
  }
}

TEST(SweepCsv, FormulasAreInertInEveryColumnOfText) {
  auto row = swept("=v", 0.5, 8);
  row.sweep->unit = row.sweep->format = row.sweep->rule = row.sweep->round = row.sweep->roles = "@f";
  EvalResult result = result_of({row});
  result.runs[0].model.name = "+m()";
  result.runs[0].data.name = "-d()";
  EXPECT_TRUE(lines_of(render_sweep_csv(result))[1].starts_with("'+m(),'-d(),'=v,'@f,'@f,32,8,'@f,'@f,'@f,8,8,0.5,"))
      << render_sweep_csv(result);
  EXPECT_TRUE(lines_of(render_sweep_csv(result, Formulas::raw))[1].starts_with("+m(),-d(),=v,@f,@f,32,8,@f,@f,@f,8,"));
}

}  // namespace
}  // namespace mxlm
