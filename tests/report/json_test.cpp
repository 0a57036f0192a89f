#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "report/report.hpp"

namespace mxlm {
namespace {

using nlohmann::ordered_json;

EvalResult sample() {
  EvalResult out;
  out.machine = {
      .cpu = "a cpu", .backend = "cpu avx2", .os = "an os", .cores = 4, .threads = 2, .memory_bytes = 1ULL << 40};
  RunResult run;
  run.model = {.name = "m",
               .family = "llama",
               .dtype = "bfloat16",
               .compute_dtype = "float32",
               .revision = "r",
               .sha256 = "ab",
               .parameters = 6951168};
  run.data = {.name = "text.txt", .sha256 = "cd", .documents = 1};
  run.protocol = {
      .name = "window", .context = 1024, .bos = "template", .aggregate = "token_mean", .skipped_documents = 2};
  run.command = "mxlm eval";
  run.windows = 42;
  run.peak_memory_bytes = 123;
  run.seconds_total = 3.5;
  VariantResult base;
  base.name = "baseline";
  base.figures = {.nll = 0.1,
                  .ppl = 1.1,
                  .ppl_stderr = 0.25,
                  .ppl_stderr_windows = 0.5,
                  .tokens = 7,
                  .nonfinite = 0,
                  .vs_baseline = {}};
  base.tokens_per_second = 1000;
  base.seconds = {.load = 1, .tokenize = 2, .prepare = 3, .forward = 4, .head = 5};
  base.weight_bytes_baseline = base.weight_bytes_variant = 100;
  VariantResult v = base;
  v.name = "w4";
  v.spec = "mlp=mxfp4_e2m1/none";
  v.weight_bytes_variant = 27;
  v.replaced = {{.tensor = "a.mlp.up_proj.weight", .role = "mlp", .weights = "mxfp4_e2m1", .activations = "none"}};
  v.noise_measured = true;
  v.noise_nll = 1e-4;
  VsBaseline b;
  b.ppl_ratio = 1.0 / 3;
  b.kld_percentiles = {{"0.1", 1}, {"1", 2}, {"10", 4}, {"5", 3}, {"99.9", 5}};
  v.figures.vs_baseline = b;
  run.variants = {base, v};
  out.runs.push_back(run);
  return out;
}

template <typename Json>
std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> out;
  for (const auto& [key, value] : object.items()) out.push_back(key);
  return out;
}

TEST(Json, HasTheFieldsOfTheSchema) {
  const ordered_json j = ordered_json::parse(render_json(sample()));
  EXPECT_THAT(keys(j), testing::ElementsAre("schema", "version", "machine", "runs"));
  EXPECT_EQ(j["schema"], "mxlm.eval/1");
  EXPECT_EQ(j["version"], MXLM_VERSION);
  EXPECT_EQ(j["machine"]["memory_bytes"], 1ULL << 40);
  const ordered_json& run = j["runs"][0];
  EXPECT_THAT(keys(run), testing::IsSupersetOf({"model", "data", "command", "complete", "peak_memory_bytes", "protocol",
                                                "windows", "subsets", "variants"}));
  EXPECT_THAT(keys(run["model"]),
              testing::IsSupersetOf({"name", "family", "parameters", "dtype", "revision", "sha256"}));
  EXPECT_THAT(keys(run["data"]), testing::IsSupersetOf({"name", "documents", "sha256"}));
  EXPECT_EQ(run["model"]["parameters"], 6951168);
  EXPECT_EQ(run["complete"], true);
  EXPECT_EQ(run["subsets"], ordered_json::array());
  EXPECT_EQ(run["protocol"]["name"], "window");
  EXPECT_EQ(run["protocol"]["context"], 1024);
  ASSERT_EQ(run["variants"].size(), 2);
  const ordered_json& base = run["variants"][0];
  EXPECT_EQ(base["name"], "baseline");
  EXPECT_TRUE(base["vs_baseline"].is_null());
  EXPECT_FALSE(base.contains("noise"));
  const ordered_json& v = run["variants"][1];
  EXPECT_THAT(keys(v),
              testing::IsSupersetOf({"name", "spec", "nll", "ppl", "ppl_stderr", "ppl_stderr_windows", "tokens",
                                     "tokens_per_second", "replaced", "weight_bytes", "nonfinite", "vs_baseline"}));
  EXPECT_EQ(v["name"], "w4");
  EXPECT_EQ(v["spec"], "mlp=mxfp4_e2m1/none");
  EXPECT_EQ(v["tokens"], 7);
  EXPECT_EQ(v["ppl_stderr"], 0.25);
  EXPECT_EQ(v["ppl_stderr_windows"], 0.5);
  EXPECT_EQ(v["weight_bytes"], ordered_json({{"baseline", 100}, {"variant", 27}}));
  EXPECT_EQ(v["noise"]["nll"], 1e-4);
  EXPECT_EQ(v["seconds"],
            ordered_json({{"load", 1.0}, {"tokenize", 2.0}, {"prepare", 3.0}, {"forward", 4.0}, {"head", 5.0}}));
  EXPECT_EQ(
      v["replaced"][0],
      ordered_json(
          {{"tensor", "a.mlp.up_proj.weight"}, {"role", "mlp"}, {"weights", "mxfp4_e2m1"}, {"activations", "none"}}));
  EXPECT_THAT(
      keys(v["vs_baseline"]),
      testing::IsSupersetOf({"ppl_ratio", "ln_ppl_ratio", "ln_ppl_ratio_stderr", "kld_mean", "kld_stderr", "kld_median",
                             "kld_max", "kld_percentiles", "kld_reverse_mean", "kld_reverse_stderr", "top1_agreement",
                             "top1_stderr", "delta_p_mean", "delta_p_rms"}));
  EXPECT_THAT(keys(v["vs_baseline"]["kld_percentiles"]), testing::ElementsAre("0.1", "1", "5", "10", "99.9"));
}

TEST(Json, TellsOfDevicesAndRoutes) {
  EvalResult result = sample();
  ordered_json j = ordered_json::parse(render_json(result));
  EXPECT_EQ(j["machine"]["devices"], ordered_json::array());
  EXPECT_EQ(j["runs"][0]["devices"], ordered_json::array());
  EXPECT_TRUE(j["runs"][0]["joules_per_token"].is_null());
  EXPECT_EQ(j["runs"][0]["ranks"], 1);
  EXPECT_EQ(j["runs"][0]["gemm"], ordered_json({{"route", "exact"}, {"products", 0}, {"rows", 0}, {"fell_back", 0}}));

  result.machine.devices = {
      {.name = "a gpu", .index = 2, .architecture = "sm_90", .memory_bytes = 80, .driver = "580.1"},
      {.name = "a gpu", .index = 3, .architecture = "sm_90", .memory_bytes = 80, .driver = ""}};
  RunResult& run = result.runs[0];
  run.devices = {{.index = 2, .name = "a gpu", .peak_memory_bytes = 70, .energy_joules = 12.5, .rounds = 4},
                 {.index = 3, .name = "a gpu", .peak_memory_bytes = 0, .energy_joules = {}, .rounds = 5}};
  run.joules_per_token = 0.25;
  run.gemm_route = "fast";
  run.gemm_counts = {.products = 10, .rows = 20, .fell_back = 3};
  run.variants[1].replaced[0].route = "fp8";
  j = ordered_json::parse(render_json(result));
  EXPECT_EQ(
      j["machine"]["devices"][0],
      ordered_json(
          {{"name", "a gpu"}, {"index", 2}, {"architecture", "sm_90"}, {"memory_bytes", 80}, {"driver", "580.1"}}));
  EXPECT_TRUE(j["machine"]["devices"][1]["driver"].is_null());
  const ordered_json& out = j["runs"][0];
  EXPECT_EQ(out["devices"][0],
            ordered_json(
                {{"index", 2}, {"name", "a gpu"}, {"peak_memory_bytes", 70}, {"energy_joules", 12.5}, {"rounds", 4}}));
  EXPECT_TRUE(out["devices"][1]["peak_memory_bytes"].is_null());
  EXPECT_TRUE(out["devices"][1]["energy_joules"].is_null());
  EXPECT_EQ(out["joules_per_token"], 0.25);
  EXPECT_EQ(out["gemm"], ordered_json({{"route", "fast"}, {"products", 10}, {"rows", 20}, {"fell_back", 3}}));
  EXPECT_EQ(out["variants"][1]["replaced"][0]["route"], "fp8");
}

TEST(Json, FiguresOfSomeProtocolsHaveNamesOfTheirOwn) {
  EvalResult result = sample();
  for (VariantResult& v : result.runs[0].variants) {
    v.figures.self = {.entropy = 3.5, .entropy_stderr = 0.5};
  }
  result.runs[0].protocol.stride = 77;
  const ordered_json self = ordered_json::parse(render_json(result))["runs"][0];
  EXPECT_EQ(self["protocol"]["stride"], 77);
  for (const ordered_json& v : self["variants"]) {
    EXPECT_EQ(v["nll"], v["self_nll"]);
    EXPECT_EQ(v["ppl"], v["self_perplexity"]);
    EXPECT_EQ(v["self_nll"], 0.1);
    EXPECT_EQ(v["self_perplexity"], 1.1);
    EXPECT_EQ(v["self_perplexity_stderr"], 0.25);
    EXPECT_EQ(v["self_perplexity_stderr_windows"], 0.5);
    EXPECT_EQ(v["mean_entropy"], 3.5);
    EXPECT_EQ(v["mean_entropy_stderr"], 0.5);
  }
  const ordered_json& vs = self["variants"][1]["vs_baseline"];
  EXPECT_EQ(vs["ppl_ratio"], vs["self_perplexity_ratio"]);
  EXPECT_EQ(vs["self_perplexity_ratio"].get<double>(), 1.0 / 3);
  EXPECT_EQ(vs["ln_self_perplexity_ratio"], 0.0);

  result = sample();
  result.runs[0].variants[0].figures.rolling = {.word_perplexity = 37,
                                                .byte_perplexity = 2,
                                                .bits_per_byte = 1,
                                                .word_perplexity_stderr = 0.5,
                                                .words = 11,
                                                .bytes = 99,
                                                .tokens = 7};
  const ordered_json run = ordered_json::parse(render_json(result))["runs"][0];
  EXPECT_FALSE(run["protocol"].contains("stride"));
  const ordered_json& v = run["variants"][0];
  EXPECT_EQ(v["ppl"], 1.1);
  EXPECT_EQ(v["word_perplexity"], 37);
  EXPECT_EQ(v["word_perplexity_stderr"], 0.5);
  EXPECT_EQ(v["byte_perplexity"], 2);
  EXPECT_EQ(v["bits_per_byte"], 1);
  EXPECT_EQ(v["words"], 11);
  EXPECT_EQ(v["bytes"], 99);
  EXPECT_FALSE(run["variants"][1].contains("word_perplexity"));
}

TEST(Json, NumbersComeBackExactly) {
  const ordered_json j = ordered_json::parse(render_json(sample()));
  EXPECT_EQ(j["runs"][0]["variants"][0]["nll"].get<double>(), 0.1);
  EXPECT_EQ(j["runs"][0]["variants"][1]["vs_baseline"]["ppl_ratio"].get<double>(), 1.0 / 3);
}

TEST(Json, NumbersThatAreNotFiniteAreNull) {
  EvalResult result = sample();
  VariantResult& v = result.runs[0].variants[1];
  v.figures.nll = std::numeric_limits<double>::quiet_NaN();
  v.figures.ppl = std::numeric_limits<double>::infinity();
  v.figures.nonfinite = 5;
  VsBaseline b = v.figures.vs_baseline.value_or(VsBaseline{});
  b.kld_percentiles["99.9"] = std::numeric_limits<double>::quiet_NaN();
  v.figures.vs_baseline = b;
  std::string warning;
  send_log_to([&](spdlog::level::level_enum /*level*/, std::string_view line) { warning += line; });
  const std::string text = render_json(result);
  send_log_to({});
  const ordered_json j = ordered_json::parse(text);
  const ordered_json& out = j["runs"][0]["variants"][1];
  EXPECT_TRUE(out["nll"].is_null());
  EXPECT_TRUE(out["ppl"].is_null());
  EXPECT_EQ(out["nonfinite"], 5);
  EXPECT_TRUE(out["vs_baseline"]["kld_percentiles"]["99.9"].is_null());
  EXPECT_THAT(warning, testing::HasSubstr("3 figures are not finite"));
  EXPECT_THAT(warning, testing::HasSubstr("runs[0].variants[1].nll"));
}

TEST(Json, AnInterruptedRunAndSubsets) {
  EvalResult result = sample();
  result.runs[0].complete = false;
  result.runs[0].subsets = {{.name = "ArXiv",
                             .windows = 3,
                             .variants = {result.runs[0].variants[0].figures, result.runs[0].variants[1].figures}}};
  const ordered_json run = ordered_json::parse(render_json(result))["runs"][0];
  EXPECT_EQ(run["complete"], false);
  EXPECT_EQ(run["subsets"][0]["name"], "ArXiv");
  EXPECT_EQ(run["subsets"][0]["windows"], 3);
  EXPECT_EQ(run["subsets"][0]["variants"][1]["name"], "w4");
  EXPECT_EQ(run["subsets"][0]["variants"][1]["nll"], 0.1);
}

TEST(Json, TextThatIsNotUtf8) {
  EvalResult result = sample();
  result.runs[0].data.name = "caf\xe9.txt";
  const ordered_json j = ordered_json::parse(render_json(result));
  EXPECT_EQ(j["runs"][0]["data"]["name"], "caf\xef\xbf\xbd.txt");
}

}  // namespace
}  // namespace mxlm
