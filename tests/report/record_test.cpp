// Reading results: hostile until checked.
#include "report/record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "report/report.hpp"

namespace mxlm::report {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json small() {
  return {{"schema", "mxlm.eval/1"},
          {"runs",
           {{{"model", {{"name", "m"}}},
             {"data", {{"name", "d"}}},
             {"protocol", {{"name", "window"}}},
             {"variants", {{{"name", "baseline"}, {"ppl", 2.5}}}}}}}};
}

Record read(const std::string& text) {
  Record record;
  add_json(record, "r.json", text);
  return record;
}

/// The sentence with which `text` is refused; "" if it is taken.
std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(Record, WhatTheProgramWritesComesBack) {
  EvalResult result;
  result.machine = {.cpu = "c", .backend = "b", .os = "o", .cores = 4, .threads = 2, .memory_bytes = 1ULL << 40};
  RunResult run;
  run.model.name = "m";
  run.model.parameters = 6951168;
  run.protocol = {
      .name = "window", .context = 1024, .bos = "template", .aggregate = "token mean", .skipped_documents = 2};
  run.command = "mxlm eval";
  run.windows = 42;
  run.peak_memory_bytes = 123;
  run.seconds_total = 3.5;
  VariantResult v;
  v.name = "baseline";
  v.figures.nll = 0.1;
  v.figures.ppl = 1.1;
  v.figures.tokens = 7;
  v.seconds = {.load = 1, .tokenize = 2, .prepare = 3, .forward = 4, .head = 5};
  v.weight_bytes_baseline = 100;
  v.weight_bytes_variant = 27;
  run.variants = {v, v};
  run.variants[1].name = "w4";
  run.variants[1].spec = "mlp=mxfp4_e2m1/none";
  run.variants[1].replaced = {{.tensor = "t", .role = "mlp", .weights = "w", .activations = "none"}};
  run.variants[1].noise_measured = true;
  run.variants[1].noise_kld = 1e-4;
  VsBaseline b;
  b.ppl_ratio = 1.0 / 3;
  b.ln_ppl_ratio = -0.1;
  b.kld_mean = 0.01;
  b.kld_percentiles = {{"99.9", 5}};
  b.top1_agreement = 0.9;
  run.variants[1].figures.vs_baseline = b;
  run.variants[1].figures.ppl_stderr = std::nan("");
  run.subsets = {{.name = "ArXiv", .windows = 3, .variants = {run.variants[0].figures, run.variants[1].figures}}};
  result.runs = {run};
  testing::internal::CaptureStdout();
  const Record record = read(render_json(result));
  testing::internal::GetCapturedStdout();

  ASSERT_EQ(record.runs.size(), 1U);
  ASSERT_EQ(record.files.size(), 1U);
  EXPECT_EQ(record.files[0].machine.memory_bytes, 1ULL << 40);
  EXPECT_EQ(record.files[0].machine.threads, 2);
  EXPECT_EQ(record.files[0].version, MXLM_VERSION);
  const report::Run& out = record.runs[0];
  EXPECT_EQ(out.model.parameters, 6951168);
  EXPECT_EQ(out.protocol.aggregate, "token mean");
  EXPECT_EQ(out.protocol.skipped_documents, 2);
  EXPECT_EQ(out.windows, 42);
  EXPECT_EQ(out.peak_memory_bytes, 123);
  EXPECT_EQ(out.seconds_total, 3.5);
  EXPECT_TRUE(out.complete);
  ASSERT_EQ(out.variants.size(), 2U);
  EXPECT_EQ(out.variants[0].figures.nll, 0.1);
  EXPECT_FALSE(out.variants[0].figures.vs_baseline);
  EXPECT_FALSE(out.variants[0].noise);
  const Variant& w4 = out.variants[1];
  EXPECT_EQ(w4.spec, "mlp=mxfp4_e2m1/none");
  EXPECT_EQ(w4.figures.tokens, 7);
  EXPECT_TRUE(std::isnan(w4.figures.ppl_stderr));
  ASSERT_TRUE(w4.figures.vs_baseline);
  EXPECT_EQ(w4.figures.vs_baseline->ppl_ratio, 1.0 / 3);
  EXPECT_EQ(w4.figures.vs_baseline->ln_ppl_ratio, -0.1);
  EXPECT_EQ(w4.figures.vs_baseline->kld_percentiles, b.kld_percentiles);
  ASSERT_TRUE(w4.noise);
  EXPECT_EQ(w4.noise->kld_mean, 1e-4);
  EXPECT_EQ(w4.seconds.head, 5);
  EXPECT_EQ(w4.weight_bytes_variant, 27);
  EXPECT_EQ(w4.replaced.at(0).role, "mlp");
  EXPECT_EQ(out.subsets.at(0).windows, 3);
  EXPECT_EQ(out.subsets.at(0).variants.at(1).vs_baseline->kld_mean, 0.01);
}

TEST(Record, WhatIsMissingOrNullIsUnknown) {
  const Record record = read(small().dump());
  const Variant& v = record.runs.at(0).variants.at(0);
  EXPECT_EQ(v.figures.ppl, 2.5);
  EXPECT_TRUE(std::isnan(v.figures.nll));
  EXPECT_TRUE(std::isnan(v.weight_bits_variant));
  EXPECT_TRUE(v.layers.empty());
  json with_more = small();
  with_more["runs"][0]["variants"][0]["later"] = {{"a", 1}};
  with_more["runs"][0]["variants"][0]["layers"] = nullptr;
  EXPECT_EQ(refusal(with_more.dump()), "");
}

TEST(Record, RefusesInOneSentence) {
  EXPECT_THAT(refusal("{"), HasSubstr("'r.json' is not valid JSON"));
  EXPECT_THAT(refusal(""), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal("\"\xff\""), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("the whole is not an object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("has the schema ''"));
  EXPECT_THAT(refusal(R"({"schema": "mxlm.eval/2"})"), HasSubstr("'mxlm.eval/2'"));
  EXPECT_THAT(refusal(std::string(5000, '[') + std::string(5000, ']')), HasSubstr("is not valid JSON"));

  const auto changed = [](const char* pointer, json value) {
    json out = small();
    out[json::json_pointer(pointer)] = std::move(value);
    return refusal(out.dump());
  };
  EXPECT_THAT(changed("/runs", 5), HasSubstr("'r.json': runs is not a list;"));
  EXPECT_THAT(changed("/runs/0/variants/0/ppl", "2"), HasSubstr("runs[0].variants[0].ppl is not a number;"));
  EXPECT_THAT(changed("/runs/0/variants/0/ppl", -2), HasSubstr("ppl is not a number from 0 up;"));
  EXPECT_THAT(changed("/runs/0/variants/0/tokens", 1.5), HasSubstr("tokens is not a count;"));
  EXPECT_THAT(changed("/runs/0/variants/0/tokens", -1), HasSubstr("tokens is not a count;"));
  EXPECT_THAT(changed("/runs/0/variants/0/tokens", 1ULL << 60), HasSubstr("tokens is not a count;"));
  EXPECT_THAT(changed("/runs/0/variants/0/name", nullptr), HasSubstr("runs[0].variants[0].name is missing;"));
  EXPECT_THAT(changed("/runs/0/variants/0/name", std::string(2'000'000, 'x')), HasSubstr("a string of more than 1 MB"));
  EXPECT_THAT(changed("/runs/0/variants/0/vs_baseline", 3), HasSubstr("vs_baseline is not an object;"));
  EXPECT_THAT(changed("/runs/0/variants/0/vs_baseline", {{"kld_percentiles", {{"1", "x"}}}}),
              HasSubstr("kld_percentiles.'1' is not a number;"));
  EXPECT_THAT(changed("/runs/0/variants/0/layers", {{{"layer", 1 << 20}}}), HasSubstr("layer is not the number of"));
  EXPECT_THAT(changed("/runs/0/subsets", {{{"name", "s"}}}), HasSubstr("one entry a variant of the run"));
  EXPECT_THAT(changed("/runs/0/exponents", {{{"weight", {{"first", 1 << 20}, {"counts", {1}}}}}}),
              HasSubstr("first is not a binary exponent;"));
  EXPECT_THAT(changed("/runs/0/exponents", {{{"weight", {{"first", 0}, {"counts", std::vector<int>(5000)}}}}}),
              HasSubstr("counts has more than 4096 entries;"));
  EXPECT_THAT(changed("/runs/0/exponents", {{{"weight", {{"first", 0}, {"counts", {1LL << 53, 1LL << 53}}}}}}),
              HasSubstr("is not a count of elements of one tensor;"));
  EXPECT_THAT(changed("/machine", {{"cores", 1LL << 40}}), HasSubstr("machine.cores is not a number of cores;"));
  json many = small();
  many["runs"] = json(std::vector<json>(1001, many["runs"][0]));
  EXPECT_THAT(refusal(many.dump()), HasSubstr("runs has more than 1000 entries;"));
}

/// What reading `texts` one after the other with room for `room` bytes says; "" if all are taken.
std::string refusal_with(uint64_t room, const std::vector<std::string>& texts) {
  Record record;
  record.limits = limits_of(room);
  try {
    for (const std::string& text : texts) add_json(record, "r.json", text);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(Record, TheSumOfAllIsBounded) {
  const auto list = [](const std::string& item, size_t count) {
    std::string out = item;
    for (size_t i = 1; i < count; ++i) out += "," + item;
    return "[" + out + "]";
  };
  const auto of_runs = [](const std::string& runs) { return R"({"schema":"mxlm.eval/1","runs":)" + runs + "}"; };
  const auto run_with = [](const std::string& variants, const std::string& more = "") {
    return R"({"model":{},"data":{},"protocol":{},"variants":)" + variants + more + "}";
  };
  constexpr uint64_t room = uint64_t{100} << 20;
  const std::vector<std::string> bombs = {
      of_runs(list(run_with(list(R"({"name":"a"})", 1000)), 30)),
      of_runs(list(run_with(list(R"({"name":"a","linears":)" + list("{}", 60'000) + "}", 3)), 1)),
      of_runs(list(run_with(list(R"({"name":"a","layers":)" + list("{}", 60'000) + "}", 3)), 1)),
      of_runs(list(run_with(list(R"({"name":"a","replaced":)" + list("{}", 60'000) + "}", 3)), 1)),
      of_runs(list(run_with(list(R"({"name":"a"})", 1), R"(,"pairs":)" + list("{}", 150'000)), 1)),
      of_runs(list(run_with(list(R"({"name":"a"})", 1), R"(,"exponents":)" + list("{}", 100'000)), 1)),
      of_runs(list(run_with(list(R"({"name":"a"})", 1), R"(,"subsets":)" + list(R"({"variants":[{}]})", 50'000)), 1)),
  };
  for (const std::string& bomb : bombs) {
    EXPECT_LT(bomb.size(), room / 2 / 14) << "refused for its size alone";
    EXPECT_THAT(refusal_with(room, {bomb}), HasSubstr("give fewer files, or files of fewer variants.")) << bomb.size();
    EXPECT_EQ(refusal_with(room * 20, {bomb}), "");
  }
  // Files count together.
  const std::string small_one = of_runs(list(run_with(list(R"({"name":"a"})", 1000)), 3));
  EXPECT_EQ(refusal_with(room, {small_one}), "");
  EXPECT_THAT(refusal_with(room, std::vector<std::string>(10, small_one)), HasSubstr("give fewer files"));
  EXPECT_THAT(refusal_with(room, {std::string(8'000'000, ' ')}), HasSubstr("'r.json' has 8 MB, and reading so much"));
}

TEST(Record, TakesManySubsetsAndVariants) {
  json result = small();
  json& run = result["runs"][0];
  run["variants"] = json(std::vector<json>(10'001, run["variants"][0]));
  run["command"] = std::string(2'000'000, 'x');
  EXPECT_EQ(refusal(result.dump()), "");
  run["variants"] = json(std::vector<json>(1, run["variants"][0]));
  run["subsets"] = json(std::vector<json>(20'000, {{"name", "s"}, {"variants", {json::object()}}}));
  EXPECT_EQ(refusal(result.dump()), "");
}

TEST(Record, PercentilesAreColumnsSoTheirNamesAreBounded) {
  json result = small();
  json& variants = result["runs"][0]["variants"];
  variants = json::array();
  for (int i = 0; i < 65; ++i) {
    variants.push_back({{"name", "v"}, {"vs_baseline", {{"kld_percentiles", {{std::to_string(i), 1}}}}}});
  }
  EXPECT_THAT(refusal(result.dump()), HasSubstr("kld_percentiles.'64' is not a percentile of a result;"));
  variants.erase(64);
  EXPECT_EQ(refusal(result.dump()), "");
}

TEST(Record, ARefusedFileLeavesNothing) {
  Record record = read(small().dump());
  json bad = small();
  bad["runs"][0]["windows"] = "x";
  EXPECT_THROW(add_json(record, "bad.json", bad.dump()), Error);
  EXPECT_EQ(record.runs.size(), 1U);
  EXPECT_EQ(record.files.size(), 1U);
}

}  // namespace
}  // namespace mxlm::report
