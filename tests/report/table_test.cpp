#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "report/report.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

VariantResult variant(std::string name, std::string spec, double nll) {
  VariantResult v;
  v.name = std::move(name);
  v.spec = std::move(spec);
  v.figures.nll = nll;
  v.figures.ppl = std::exp(nll);
  v.figures.ppl_stderr = 0.006 * v.figures.ppl;
  v.figures.ppl_stderr_windows = 0.0125 * v.figures.ppl;
  v.figures.clusters = 42;
  v.figures.tokens = 42281;
  v.tokens_per_second = 21437;
  v.weight_bytes_baseline = 11'796'480;
  v.weight_bytes_variant = 11'796'480;
  return v;
}

VariantResult compared(std::string name, std::string spec, double nll, double error, double kld, double kld_error,
                       double top1) {
  VariantResult v = variant(std::move(name), std::move(spec), nll);
  VsBaseline b;
  b.ln_ppl_ratio = nll - 2.932471;
  b.ppl_ratio = std::exp(b.ln_ppl_ratio);
  b.ln_ppl_ratio_stderr = error / 2;
  b.ln_ppl_ratio_stderr_windows = error;
  b.kld_mean = kld;
  b.kld_stderr = kld_error / 2;
  b.kld_stderr_windows = kld_error;
  b.top1_agreement = top1;
  b.top1_error = std::sqrt(top1 * (1 - top1) / 42280);
  v.figures.vs_baseline = b;
  v.weight_bytes_variant = 6'082'560;
  v.tokens_per_second = 19811;
  return v;
}

EvalResult booklet() {
  EvalResult out;
  out.machine.backend = "cpu avx512-bf16";
  out.machine.threads = 2;
  RunResult run;
  run.model.name = "booklet-7m";
  run.model.compute_dtype = "bfloat16";
  run.data.name = "alice.txt";
  run.protocol.name = "window";
  run.protocol.context = 1024;
  run.windows = 42;
  run.clusters = {"window", 42};
  run.seconds_total = 31.4;
  run.peak_memory_bytes = 311'000'000;
  run.variants.push_back(variant("baseline", "", 2.932471));
  const std::string mxfp8 = "attention=mxfp8_e4m3,mlp=mxfp8_e4m3";
  run.variants.push_back(compared(mxfp8, mxfp8, 2.939468, 0.00071, 0.00712, 0.00005, 0.9612));
  run.variants.push_back(compared("w4", "linear=mxfp4_e2m1/none", 3.0047783, 0.0022, 0.0723, 0.0006, 0.874));
  out.runs.push_back(run);
  return out;
}

size_t widest(const std::string& text) {
  size_t out = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_FALSE(line.ends_with(' ')) << line;
    size_t columns = 0;
    for (const char c : line) columns += (c & 0xC0) != 0x80 ? 1 : 0;
    out = std::max(out, columns);
  }
  return out;
}

// By hand: exp(2.932471) = 18.774, times 0.0125 is 0.23; exp(2.939468) = 18.906; exp(3.0047783) = 20.182, 0.25;
// exp(0.006997) - 1 = 0.702 %, 0.071 %; exp(0.0723073) - 1 = 7.499 %, 1.075 x 0.22 % = 0.24 %;
// sqrt(0.9612 x 0.0388 / 42280) = 0.094 %; sqrt(0.874 x 0.126 / 42280) = 0.16 %.
TEST(Table, ShowsFiguresDownToTheirErrors) {
  EXPECT_EQ(render_table(booklet()),
            "variant                       PPL       ΔPPL %    KL mnats top-1   MB  tok/s\n"
            "baseline             18.77 ± 0.23                                11.8 21,400\n"
            "attention=mxfp8_e4m3 18.91 ± 0.24 +0.70 ± 0.07 7.12 ± 0.05 96.12 6.08 19,800\n"
            " mlp=mxfp8_e4m3\n"
            "w4                   20.18 ± 0.25 +7.50 ± 0.24 72.3 ± 0.6  87.40 6.08 19,800\n"
            "\n"
            "w4: linear=mxfp4_e2m1/none\n"
            "\n"
            "booklet-7m on alice.txt: protocol window, context 1024, 42 windows, 42,281\n"
            "  tokens scored.\n"
            "bfloat16, cpu avx512-bf16, 2 threads, 31 s, peak memory 311 MB.\n"
            "± is one standard error, for other windows of this text, from 42 windows. For\n"
            "  ΔPPL it is that of the paired difference. KL(baseline‖variant) a token; 1 mnat\n"
            "  = 0.001 nats. top-1: % of tokens with the same most likely token. MB: weights\n"
            "  of the Linears.\n"
            "By KL, like the baseline (under 10 mnats): attention=mxfp8_e4m3,mlp=mxfp8_e4m3,\n"
            "  visible: w4. The change of PPL is significant (three errors, Student's t, Holm\n"
            "  over 2 variants) of attention=mxfp8_e4m3,mlp=mxfp8_e4m3; w4.\n"
            "A change of PPL by 1 % is three errors from about 1,900 to 19,000 tokens on.\n");
}

TEST(Table, NamesWhatOtherProtocolsMeasure) {
  // Two tokens a word: twice the difference of the mean NLL and twice its error; exp(2 x 0.006997) - 1 = 1.41 %.
  EvalResult result = booklet();
  result.runs[0].protocol.name = "lmeval";
  for (VariantResult& v : result.runs[0].variants) {
    v.figures.rolling = {.word_perplexity = std::exp(2 * v.figures.nll),
                         .byte_perplexity = 2.5,
                         .bits_per_byte = 1.3219,
                         .word_perplexity_stderr_windows = std::exp(2 * v.figures.nll) * 0.025,
                         .bits_per_byte_stderr_windows = 0.006,
                         .ln_word_ratio_stderr_windows = 0.0015,
                         .words = 21140,
                         .bytes = 128'000,
                         .tokens = 42280};
  }
  std::string text = render_table(result);
  EXPECT_THAT(text, AllOf(HasSubstr("word PPL"), HasSubstr("bits/byte"), HasSubstr("Δword %")));
  EXPECT_THAT(text, HasSubstr(" 352 ± 9 "));
  EXPECT_THAT(text, HasSubstr(" 1.322 "));
  EXPECT_THAT(text, HasSubstr("+1.41 ± 0.15 "));
  EXPECT_THAT(text, HasSubstr("Δword it is that of the"));
  EXPECT_LE(widest(text), 80U);

  result = booklet();
  result.runs[0].protocol.name = "self";
  for (VariantResult& v : result.runs[0].variants) v.figures.self = {.entropy = 3.72, .entropy_stderr_windows = 0.02};
  text = render_table(result);
  EXPECT_THAT(text, AllOf(HasSubstr("self-PPL"), HasSubstr("entropy"), HasSubstr("Δself %")));
  EXPECT_THAT(text, AllOf(HasSubstr(" 18.77 ± 0.23"), HasSubstr(" 3.720 ")));
  EXPECT_THAT(text, HasSubstr("no perplexity"));
  EXPECT_THAT(text, Not(HasSubstr(" PPL ")));
  EXPECT_LE(widest(text), 80U);
}

TEST(Table, NoiseStandsBelowItsFigureAndNeverInPlaceOfTheError) {
  EvalResult result = booklet();
  for (VariantResult& v : result.runs[0].variants) {
    v.noise_measured = true;
    v.noise = {.nll_sd = 0.001, .ln_ppl_ratio_sd = 0.0034, .kld_sd = 1e-5, .floor_kld = 0.0001, .floor_flips = 0.01};
  }
  std::string text = render_table(result);
  EXPECT_THAT(text, HasSubstr("+0.70 ± 0.07"));
  EXPECT_THAT(text, HasSubstr("noise 0.34"));   // 1.00702 x 0.34 %
  EXPECT_THAT(text, HasSubstr("noise 0.010"));  // mnats
  EXPECT_THAT(text, HasSubstr("noise 0.019"));  // 18.774 x 0.001
  EXPECT_THAT(text, HasSubstr("KL 0.10\n"));
  EXPECT_THAT(text, Not(HasSubstr("rounding:")));
  EXPECT_THAT(text, Not(HasSubstr("--dtype float32")));
  EXPECT_LE(widest(text), 80);

  // The floor above a variant's KL divergence.
  for (VariantResult& v : result.runs[0].variants) v.noise.floor_kld = 0.008;
  text = render_table(result);
  EXPECT_THAT(text, HasSubstr("no more than rounding: attention=mxfp8_e4m3,mlp=mxfp8_e4m3"));
  EXPECT_THAT(text, HasSubstr("--dtype float32"));
  result.runs[0].model.compute_dtype = "float32";
  EXPECT_THAT(render_table(result), Not(HasSubstr("--dtype float32")));
}

TEST(Table, SaysWhatErrorsAreMadeOf) {
  EvalResult result = booklet();
  RunResult& run = result.runs[0];
  const auto set = [&](ClusterCount clusters) {
    run.clusters = clusters;
    for (VariantResult& v : run.variants) v.figures.clusters = clusters.number;
  };
  EXPECT_THAT(render_table(result), HasSubstr("for other windows of this text, from 42 windows."));
  EXPECT_THAT(render_table(result), Not(HasSubstr("So few")));
  set({"window group", 7});
  EXPECT_THAT(render_table(result), HasSubstr("from 7 groups of\n  windows. So few"));
  EXPECT_THAT(render_table(result), HasSubstr("(under 8)"));
  set({"document", 100});
  EXPECT_THAT(render_table(result), HasSubstr("for other documents like these, from 100"));
  set({"window", 1});
  for (VariantResult& v : run.variants) v.figures.ppl_stderr_windows = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(render_table(result), HasSubstr("19 ± n/a"));
  EXPECT_THAT(render_table(result), HasSubstr("± is n/a: an error needs two windows"));
}

TEST(Table, VerdictsSayTheSizeFirstAndCountTheVariants) {
  // z = 0.007 / 0.00071 = 9.9 and 0.0723 / 0.0022 = 33 with 41 degrees of freedom.
  EvalResult result = booklet();
  RunResult& run = result.runs[0];
  std::string text = render_table(result);
  EXPECT_THAT(text, HasSubstr("By KL, like the baseline (under 10 mnats): attention=mxfp8_e4m3,mlp=mxfp8_e4m3,"));
  EXPECT_THAT(text, HasSubstr("visible: w4."));
  EXPECT_THAT(text, HasSubstr("Holm\n  over 2 variants) of"));
  // 42,281 (3 x 0.00071 / ln 1.01)^2 = 1,938 and (3 x 0.0022 / ln 1.01)^2 = 18,600 tokens.
  EXPECT_THAT(text, HasSubstr("three errors from about 1,900 to 19,000 tokens on."));
  run.variants.resize(2);
  run.variants[1].figures.vs_baseline->ln_ppl_ratio_stderr_windows = 0.003;  // z = 2.3
  run.variants[1].figures.vs_baseline->kld_mean = 0.7;
  text = render_table(result);
  EXPECT_THAT(text, HasSubstr("broken (over 500 mnats): attention"));
  EXPECT_THAT(text, HasSubstr("of PPL is significant (three errors, Student's t)."));
}

TEST(Table, FitsWhateverTheNames) {
  EvalResult result = booklet();
  RunResult& run = result.runs[0];
  std::string long_glob = "model.layers." + std::string(120, 'x') + ".mlp=mxfp4_e2m1@block=16/mxfp8_e4m3";
  run.variants.push_back(compared(long_glob, long_glob, 11.5, 0.1, 8.1, 0.03, 0.01));
  run.variants.push_back(compared("mlp=mxfp4_e2m1@block=16@rule=rceil/mxfp8_e4m3",
                                  "mlp=mxfp4_e2m1@block=16@rule=rceil/mxfp8_e4m3", 2.95, 1e-7, 1e-6, 1e-9, 1));
  run.variants.push_back(compared(std::string(100, 'n'), "linear=mxint8", 800, 1, 700, 3, 0));
  run.data.name = std::string(200, '/');
  run.model.name = "m\x1b[2Jodel";
  const std::string text = render_table(result);
  EXPECT_LE(widest(text), 80) << text;
  EXPECT_THAT(text, HasSubstr("[3]  "));
  EXPECT_THAT(text, HasSubstr("[3] model.layers.xxxx"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Table, SaysWhatIsNotANumber) {
  EvalResult result = booklet();
  VariantResult& v = result.runs[0].variants[1];
  v.figures.nll = v.figures.ppl = v.figures.ppl_stderr_windows = std::numeric_limits<double>::quiet_NaN();
  v.figures.nonfinite = 512;
  VsBaseline b;
  b.ppl_ratio = b.ln_ppl_ratio = b.kld_mean = b.top1_agreement = std::numeric_limits<double>::quiet_NaN();
  v.figures.vs_baseline = b;
  const std::string text = render_table(result);
  EXPECT_THAT(text, HasSubstr("n/a"));
  EXPECT_THAT(text, Not(HasSubstr("nan")));
  EXPECT_THAT(text, HasSubstr("attention=mxfp8_e4m3,mlp=mxfp8_e4m3: 512 of 42,281 tokens have NaN or infinite\n"));
}

TEST(Table, AnInterruptedRunSaysSo) {
  EvalResult result = booklet();
  result.runs[0].complete = false;
  result.runs[0].windows = 7;
  EXPECT_THAT(render_table(result), testing::StartsWith("INTERRUPTED: these figures are of 7 windows only.\n"));
  result.runs[0].variants.clear();
  const std::string empty = render_table(result);
  EXPECT_THAT(empty, testing::StartsWith("INTERRUPTED before anything was scored.\n"));
  EXPECT_THAT(empty, Not(HasSubstr("PPL")));
}

TEST(Table, SeveralRunsEndInAnOverview) {
  EvalResult result = booklet();
  result.runs.push_back(result.runs[0]);
  result.runs[1].model.name = std::string(100, 'm') + "\x1b";
  result.runs[1].variants.resize(2);
  result.runs.push_back(result.runs[1]);
  result.runs[2].model.name = "interrupted";
  result.runs[2].variants.clear();
  const std::string text = render_table(result);
  EXPECT_LE(widest(text), 80) << text;
  EXPECT_THAT(text, HasSubstr("\n\n"
                              "model, variant                   PPL        ΔPPL %     KL mnats  top-1   tok/s\n"
                              "booklet-7m\n"
                              "  baseline              18.77 ± 0.23                                    21,400\n"
                              "  attention=mxfp8_e4m3  18.91 ± 0.24  +0.70 ± 0.07  7.12 ± 0.05  96.12  19,800\n"
                              "   mlp=mxfp8_e4m3\n"));
  EXPECT_THAT(text, testing::EndsWith("interrupted\n"));
}

TEST(Table, NamesTheDevicesAndTheirEnergy) {
  EvalResult result = booklet();
  result.runs[0].devices = {
      {.index = 0, .name = "NVIDIA H100", .peak_memory_bytes = 1, .energy_joules = 9, .rounds = 4},
      {.index = 2, .name = "NVIDIA H100", .peak_memory_bytes = 1, .energy_joules = 9, .rounds = 5}};
  EXPECT_THAT(render_table(result), testing::HasSubstr("NVIDIA H100 (cuda:0,2): 4 + 5 shards."));
  result.runs[0].joules_per_token = 0.01234;
  EXPECT_THAT(render_table(result), testing::HasSubstr("NVIDIA H100 (cuda:0,2): 4 + 5 shards, 0.012 J/token"));
}

TEST(Table, BaselineAlone) {
  EvalResult result = booklet();
  result.runs[0].variants.resize(1);
  result.runs[0].protocol.skipped_documents = 3;
  EXPECT_EQ(render_table(result),
            "variant            PPL    MB   tok/s\n"
            "baseline  18.77 ± 0.23  11.8  21,400\n"
            "\n"
            "booklet-7m on alice.txt: protocol window, context 1024, 42 windows, 42,281\n"
            "  tokens scored; 3 documents too short to score.\n"
            "bfloat16, cpu avx512-bf16, 2 threads, 31 s, peak memory 311 MB.\n"
            "± is one standard error, for other windows of this text, from 42 windows. MB:\n"
            "  weights of the Linears.\n");
}

}  // namespace
}  // namespace mxlm
