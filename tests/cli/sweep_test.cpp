// `mxlm sweep`, and what `eval` writes on request: tokens, errors of Linears, exponents.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json parsed(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  json out = json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(out.is_discarded()) << outcome.out;
  return out;
}

TEST(Sweep, ItsVariantsAreThoseOfEval) {
  const json sweep = parsed(run_mxlm("sweep" + kSmall + "--formats mxfp4 nvfp4 --blocks 16 32 --json -"));
  const json eval = parsed(run_mxlm("eval" + kSmall +
                                    "--mx attention=mxfp4@block=16,mlp=mxfp4@block=16 --mx attention=mxfp4,mlp=mxfp4 "
                                    "--mx attention=nvfp4,mlp=nvfp4 --json -"));
  const json &a = sweep["runs"][0]["variants"], &b = eval["runs"][0]["variants"];
  ASSERT_EQ(a.size(), 4U);
  ASSERT_EQ(b.size(), 4U);
  for (size_t v = 0; v < 4; ++v) {
    EXPECT_EQ(a[v]["name"], b[v]["name"]);
    EXPECT_EQ(a[v]["nll"], b[v]["nll"]);
    EXPECT_EQ(a[v]["vs_baseline"], b[v]["vs_baseline"]);
    EXPECT_EQ(a[v].contains("sweep"), v > 0);
    EXPECT_FALSE(b[v].contains("sweep"));
  }
  EXPECT_EQ(a[1]["sweep"]["block"], 16);
  EXPECT_EQ(a[1]["sweep"]["unit"], nullptr);
  const double saved = a[1]["weight_bits"]["baseline"].get<double>() - a[1]["weight_bits"]["variant"].get<double>();
  EXPECT_DOUBLE_EQ(a[1]["sweep"]["bits_saved"].get<double>(), saved);
  EXPECT_DOUBLE_EQ(a[1]["sweep"]["kld_per_bit"].get<double>(), a[1]["vs_baseline"]["kld_mean"].get<double>() / saved);
  EXPECT_EQ(sweep["runs"][0]["pairs"].size(), 3U);
}

TEST(Sweep, RowsThatAreEqualToTheBitAreMarked) {
  const Outcome run = run_mxlm("sweep --quiet --context 64 --max-windows 1 --formats mxfp4 --rules even ct");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("\n*      even")) << run.out;
  EXPECT_THAT(run.out, HasSubstr("\n*  =1  ct")) << run.out;
}

TEST(Sweep, ManyVariantsAreComparedWithTheirNeighbours) {
  const json result = parsed(run_mxlm(
      "sweep --quiet --context 600 --windows 2 --roles lm_head --formats mxfp4 mxfp8 mxint8 --blocks 8 16 32 64 "
      "--rules floor even rceil --json -"));
  const json& run = result["runs"][0];
  ASSERT_GT(run["variants"].size(), 33U);
  EXPECT_EQ(run["windows"], 2);
  const size_t variants = run["variants"].size() - 1;
  EXPECT_GE(run["pairs"].size(), variants - 1);
  EXPECT_LE(run["pairs"].size(), 3 * variants);
  for (const json& pair : run["pairs"]) EXPECT_GE(pair["kld_difference_stderr_windows"].get<double>(), 0);
}

TEST(Sweep, SensitivityNamesItsUnitsAndSharesWork) {
  const json result = parsed(run_mxlm("sweep" + kSmall + "--formats mxfp4/none --sensitivity layer --json -"));
  const json& run = result["runs"][0];
  ASSERT_EQ(run["variants"].size(), 9U);
  EXPECT_EQ(run["variants"][3]["sweep"]["unit"], "model.layers.2");
  EXPECT_DOUBLE_EQ(run["forwards"].get<double>(), 5.5);
  const json& layers = run["variants"][3]["layers"];
  ASSERT_EQ(layers.size(), 16U);
  EXPECT_TRUE(layers[3]["sqnr_db"].is_null());  // not there yet
  EXPECT_GT(layers[4]["sqnr_db"].get<double>(), 5);
}

TEST(Sweep, RefusesInOneSentence) {
  for (const auto& [arguments, part] :
       std::vector<std::pair<std::string, std::string>>{{"--blocks 8 16 32 --max-variants 17", "18 variants"},
                                                        {"--sensitivity tensor", "linear, role or layer"},
                                                        {"--formats mxfp4@block=16", "--blocks"},
                                                        {"--roles nothing", "matches no Linear"},
                                                        {"--csv - --json -", "standard output"},
                                                        {"--per-token x.txt", ".csv"}}) {
    const Outcome outcome = run_mxlm("sweep" + kSmall + arguments);
    EXPECT_EQ(outcome.code, 2) << arguments << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(outcome.out, "");
  }
}

TEST(Sweep, TableAndCsv) {
  const Outcome table = run_mxlm("sweep" + kSmall + "--formats mxfp4 mxint8");
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_LT(table.out.find("mxint8"), table.out.find("mxfp4"));  // the better one first
  const Outcome csv = run_mxlm("sweep" + kSmall + "--formats mxfp4 mxint8 --csv -");
  EXPECT_TRUE(csv.out.starts_with("model,data,variant,")) << csv.out;
  EXPECT_EQ(std::count(csv.out.begin(), csv.out.end(), '\n'), 3);
}

TEST(PerToken, AddsUpToTheFigures) {
  const Folder folder;
  const json result =
      parsed(run_mxlm("eval" + kSmall + "--mx a:mlp=mxfp4 --mx attention=mxfp8,mlp=mxfp8 --per-token '" +
                      (folder / "t.csv") + "' --json -"));
  std::istringstream file(slurp(folder / "t.csv"));
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line,
            "window,position,token,target,baseline nll,baseline p,baseline top1,a nll,a p,a top1,a kld,a kld_reverse,"
            "\"attention=mxfp8_e4m3,mlp=mxfp8_e4m3 nll\",\"attention=mxfp8_e4m3,mlp=mxfp8_e4m3 p\","
            "\"attention=mxfp8_e4m3,mlp=mxfp8_e4m3 top1\",\"attention=mxfp8_e4m3,mlp=mxfp8_e4m3 kld\","
            "\"attention=mxfp8_e4m3,mlp=mxfp8_e4m3 kld_reverse\"");
  std::vector<double> sums(17, 0);
  int64_t rows = 0, same = 0;
  double last_target = -1;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::vector<double> values;
    for (std::string field; std::getline(fields, field, ',');) values.push_back(std::stod(field));
    ASSERT_EQ(values.size(), 17U);
    if (values[1] > 1) {
      EXPECT_EQ(values[2], last_target);  // each token is the target before
    }
    last_target = values[3];
    EXPECT_NEAR(values[5], std::exp(-values[4]), 1e-6);
    for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
    same += values[6] == values[9] ? 1 : 0;
    ++rows;
  }
  const json& variants = result["runs"][0]["variants"];
  const auto n = static_cast<double>(rows);
  EXPECT_EQ(rows, variants[0]["tokens"].get<int64_t>());
  EXPECT_NEAR(sums[4] / n, variants[0]["nll"].get<double>(), 1e-12);
  EXPECT_NEAR(sums[7] / n, variants[1]["nll"].get<double>(), 1e-12);
  EXPECT_NEAR(sums[10] / n, variants[1]["vs_baseline"]["kld_mean"].get<double>(), 1e-12);
  EXPECT_NEAR(sums[11] / n, variants[1]["vs_baseline"]["kld_reverse_mean"].get<double>(), 1e-7);  // written as float32
  EXPECT_NEAR(sums[15] / n, variants[2]["vs_baseline"]["kld_mean"].get<double>(), 1e-12);
  EXPECT_NEAR(static_cast<double>(same) / n, variants[1]["vs_baseline"]["top1_agreement"].get<double>(), 1e-12);
}

TEST(Study, LinearErrorsAndExponents) {
  const json result = parsed(
      run_mxlm("eval" + kSmall + "--mx mlp=mxfp4/none --mx linear=fp8_e4m3_row --linear-errors --exponents --json -"));
  const json& run = result["runs"][0];
  EXPECT_EQ(run["studied"]["windows"], 2);
  EXPECT_EQ(run["studied"]["tokens"], 128);
  ASSERT_EQ(run["exponents"].size(), 57U);
  int64_t total = run["exponents"][0]["activation"]["zeros"];
  for (const json& count : run["exponents"][0]["activation"]["counts"]) total += count.get<int64_t>();
  EXPECT_EQ(total, 128 * 256);
  EXPECT_FALSE(run["variants"][0].contains("linears"));
  ASSERT_EQ(run["variants"][1]["linears"].size(), 24U);
  const json& weight_only = run["variants"][1]["linears"][0];
  EXPECT_EQ(weight_only["tensor"], "model.layers.0.mlp.gate_proj.weight");
  EXPECT_TRUE(weight_only["activation"].is_null());
  EXPECT_GT(weight_only["weight"]["spread"]["max"].get<int>(), 0);
  EXPECT_NEAR(weight_only["weight"]["sqnr_db"].get<double>(), 19, 2);  // two bits of mantissa and sign
  ASSERT_EQ(run["variants"][2]["linears"].size(), 57U);
  for (const json& linear : run["variants"][2]["linears"]) {
    // Four significant bits: about 6.02 * 4 + 7 dB; an activation's outlier puts its other values on finer steps.
    EXPECT_NEAR(linear["weight"]["sqnr_db"].get<double>(), 31.5, 2) << linear;
    EXPECT_NEAR(linear["activation"]["sqnr_db"].get<double>(), 32.5, 3) << linear;
    EXPECT_FALSE(linear["weight"].contains("saturated"));  // of blocks only
  }
}

TEST(Inspect, Exponents) {
  const Outcome bars = run_mxlm("inspect --exponents");
  EXPECT_EQ(bars.code, 0) << bars.err;
  EXPECT_THAT(bars.out, HasSubstr("lm_head"));
  const json result = parsed(run_mxlm("inspect --exponents --json -"));
  ASSERT_EQ(result["exponents"].size(), 57U);
  EXPECT_TRUE(result["exponents"][0]["activation"].is_null());
  EXPECT_EQ(run_mxlm("inspect --json -").code, 2);
}

}  // namespace
}  // namespace mxlm
