// The library as its users see it: through include/mxlm and libmxlm alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <mxlm/mxlm.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace mxlm::api {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

/// Values of many magnitudes, the same every time.
std::vector<float> some_values(size_t n) {
  std::vector<float> out(n);
  uint32_t state = 1;
  for (float& x : out) {
    state = state * 1664525 + 1013904223;
    x = std::ldexp(static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31F, static_cast<int>(state % 23) - 11);
  }
  return out;
}

EvaluateOptions small_run() {
  EvaluateOptions options;
  options.variants = {"mlp=mxfp4"};
  options.context = 64;
  options.max_windows = 3;
  options.device = "cpu";
  return options;
}

template <typename Call>
std::string usage_error(const Call& call) {
  try {
    call();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no UsageError";
}

TEST(Quantize, RoundsToTheGridOfABlock) {
  // The largest magnitude, 6, has the exponent of E2M1's largest binade: the scale is 1. Ties go to even.
  const std::vector<float> x{6, 5, 2.4F, -0.2F, 0.25F, -0.75F, 3.5F, 0};
  const std::vector<float> y{6, 4, 2, 0, 0, -1, 4, 0};
  const std::vector<float> got = quantize("mxfp4", x, 8);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(got[i], y[i]) << i;
  // Two rows, each with a scale of its own: 2 and 1/2.
  EXPECT_EQ(quantize("mxfp4", std::vector<float>{12, 5, 3, 0.6F}, 2), (std::vector<float>{12, 4, 3, 0.5F}));
}

TEST(Quantize, IsTheSameForAnyThreadsAndRowsAlone) {
  const int64_t rows = 37, cols = 20011;
  const std::vector<float> x = some_values(static_cast<size_t>(rows * cols));
  for (const char* spec : {"mxfp8_e4m3@block=16", "mxint8@block=0", "mxfp4@rule=mse", "int8_row"}) {
    const std::vector<float> one = quantize(spec, x, cols, {.threads = 1, .cancelled = {}});
    const std::vector<float> many = quantize(spec, x, cols, {.threads = 5, .cancelled = {}});
    EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * 4), 0) << spec;
    const std::span<const float> last(x.data() + (rows - 1) * cols, static_cast<size_t>(cols));
    const std::vector<float> alone = quantize(spec, last, cols);
    EXPECT_EQ(std::memcmp(alone.data(), one.data() + (rows - 1) * cols, alone.size() * 4), 0) << spec;
  }
}

TEST(Quantize, TakesAndGivesSixteenBits) {
  const std::vector<float> x = some_values(4096);
  std::vector<uint16_t> bf16(x.size()), half(x.size());
  quantize("mxfp4", ValueType::float32, x.data(), ValueType::bfloat16, bf16.data(), 16, 256);
  quantize("mxfp4", ValueType::float32, x.data(), ValueType::float16, half.data(), 16, 256);
  const std::vector<float> y = quantize("mxfp4", x, 256);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(std::bit_cast<float>(static_cast<uint32_t>(bf16[i]) << 16), y[i]);  // exactly a bfloat16
    EXPECT_EQ(half[i], std::bit_cast<uint16_t>(static_cast<_Float16>(y[i])));
  }
  // What is decoded is a fixed point, in place too.
  std::vector<uint16_t> again = bf16;
  quantize("mxfp4", ValueType::bfloat16, again.data(), ValueType::bfloat16, again.data(), 16, 256);
  EXPECT_EQ(again, bf16);
}

TEST(Quantize, RoundsEveryHalfAsTheCompilerDoes) {
  // Every half, the ties between halves, and what lies a little to both sides of each; blocks of one value repeated, of
  // which 14 bits of fraction keep what makes a tie.
  constexpr size_t kBlock = 8;
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto value = static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits)));
    const auto next =
        bits == 0x7bff ? 65536.F : static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits + 1)));
    for (const float v : {value, (value + next) / 2}) {
      for (const float w : {v, v * (1 - 0x1p-13F), v * (1 + 0x1p-13F)}) {
        x.insert(x.end(), kBlock / 2, w);
        x.insert(x.end(), kBlock / 2, -w);
      }
    }
  }
  std::vector<uint16_t> got(x.size());
  const auto n = static_cast<int64_t>(x.size());
  const std::vector<float> decoded = quantize("mxint16@block=8", x, n);
  quantize("mxint16@block=8", ValueType::float32, x.data(), ValueType::float16, got.data(), 1, n);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(got[i], std::bit_cast<uint16_t>(static_cast<_Float16>(decoded[i]))) << decoded[i];
  }
  EXPECT_EQ(decoded[kBlock * 6 * 0x3c00], 1);  // the halves are there as they are
}

TEST(Quantize, NanAndInfinityMakeTheirBlockNan) {
  std::vector<float> x(64, 1.F);
  x[3] = std::numeric_limits<float>::infinity();
  const std::vector<float> y = quantize("mxfp8", x, 64);
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[31]));
  EXPECT_EQ(y[32], 1);
}

TEST(Quantize, RefusesWhatMakesNoSense) {
  const std::vector<float> x(6);
  EXPECT_THAT(usage_error([&] { quantize("mxfp3", x, 6); }), HasSubstr("mxfp3"));
  EXPECT_THAT(usage_error([&] { quantize("llm_int8", x, 6); }), HasSubstr("int8_row"));
  EXPECT_THAT(usage_error([&] { quantize("mxfp4", x, 4); }), HasSubstr("6 values do not divide into rows of 4"));
  EXPECT_THAT(usage_error([&] { quantize("mxfp4", x, 0); }), HasSubstr("rows of 0"));
  EXPECT_THAT(usage_error([&] { quantize("mxfp4", ValueType::float32, x.data(), ValueType::float32, nullptr, -1, 6); }),
              HasSubstr("impossible"));
  EXPECT_THROW(quantize("mxfp4", x, 6, {.threads = 1, .cancelled = [] { return true; }}), Interrupted);
}

TEST(Formats, AreThoseOfTheTable) {
  const std::vector<Format> all = formats();
  ASSERT_EQ(all.size(), 6U);
  EXPECT_EQ(all[0].name, "mxfp8_e4m3");
  EXPECT_EQ(all[0].largest, 448);
  EXPECT_EQ(all[0].smallest, 0x1p-9);
  EXPECT_EQ(all[0].bits, 8);
}

TEST(CastFile, SaysWhatIsWrong) {
  try {
    cast_file({.input = "/nowhere.safetensors", .output = "/tmp/x", .spec = "mxfp4", .cancelled = {}});
    FAIL();
  } catch (const UsageError&) {
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nowhere.safetensors"));
  }
  EXPECT_THAT(usage_error([] {
                cast_file({.input = "x", .output = "y", .spec = "mxfp4@block=0", .packed = true, .cancelled = {}});
              }),
              HasSubstr("--packed needs blocks"));
}

TEST(Evaluate, FiguresAreThoseOfItsJson) {
  const Model model = Model::load();
  EXPECT_EQ(model.name(), "booklet-7m");
  EXPECT_EQ(model.family(), "llama");
  EXPECT_GT(model.parameters(), 6'000'000);
  EvaluateOptions options = small_run();
  options.variants.emplace_back("w4: linear=mxfp4/none");
  const Evaluation result = evaluate(model, Data::embedded(), options);
  EXPECT_TRUE(result.complete);
  const Json json = Json::parse(result.json);
  EXPECT_EQ(json["schema"], "mxlm.eval/1");
  const Json& variants = json["runs"][0]["variants"];
  ASSERT_EQ(result.figures.size(), 3U);
  ASSERT_EQ(variants.size(), 3U);
  for (size_t v = 0; v < 3; ++v) {
    const Figures& f = result.figures[v];
    EXPECT_EQ(f.name, variants[v]["name"]);
    EXPECT_EQ(f.nll, variants[v]["nll"]);
    EXPECT_EQ(f.ppl, variants[v]["ppl"]);
    EXPECT_EQ(f.tokens, 3 * 63);
    EXPECT_EQ(f.kld_mean.has_value(), v > 0);
    if (v == 0) continue;
    EXPECT_EQ(*f.kld_mean, variants[v]["vs_baseline"]["kld_mean"]);
    EXPECT_EQ(*f.top1_agreement, variants[v]["vs_baseline"]["top1_agreement"]);
  }
  EXPECT_EQ(result.figures[2].name, "w4");
}

TEST(Evaluate, DigitsDoNotDependOnHowItRuns) {
  const Model model = Model::load();
  EvaluateOptions options = small_run();
  const Evaluation first = evaluate(model, Data::embedded(), options);
  options.threads = 1;
  options.batch_size = 1;
  options.shard_tokens = 64;
  options.stream = true;
  const Evaluation second = evaluate(model, Data::embedded(), options);
  for (size_t v = 0; v < 2; ++v) EXPECT_EQ(first.figures[v].nll, second.figures[v].nll);
}

TEST(Evaluate, TakesTextsAndRefusesWhatMakesNoSense) {
  const Model model = Model::load();
  const Data data =
      Data::texts({"Alice was beginning to get very tired of sitting by her sister.", "Down, down, down."});
  EXPECT_EQ(data.documents(), 2);
  EXPECT_TRUE(data.is_text());
  const Evaluation result = evaluate(model, data, small_run());
  EXPECT_GT(result.figures[0].tokens, 10);
  const auto with = [&](auto change) {
    return usage_error([&] {
      EvaluateOptions options = small_run();
      change(options);
      evaluate(model, data, options);
    });
  };
  EXPECT_THAT(with([](EvaluateOptions& o) { o.variants = {"mpl=mxfp4"}; }), HasSubstr("mpl"));
  EXPECT_THAT(with([](EvaluateOptions& o) { o.protocol = "windows"; }), HasSubstr("windows"));
  EXPECT_THAT(with([](EvaluateOptions& o) { o.device = "gpu"; }), HasSubstr("gpu"));
  EXPECT_THAT(with([](EvaluateOptions& o) { o.context = -1; }), HasSubstr("context is -1"));
  EXPECT_THAT(with([](EvaluateOptions& o) { o.threads = 100000; }), HasSubstr("threads"));
  EXPECT_THAT(with([](EvaluateOptions& o) { o.resume = true; }), HasSubstr("journal"));
  EXPECT_THAT(usage_error([] { Data::texts({}); }), HasSubstr("no text"));
  EXPECT_THROW(Model::load("/nowhere/at all"), Error);
}

TEST(Evaluate, CancelledKeepsFinishedRounds) {
  const Model model = Model::load();
  EvaluateOptions options = small_run();
  options.shard_tokens = 64;  // a window a shard
  std::atomic<bool> stop{false};
  options.on_progress = [&](const Progress& p) {
    if (p.shard == 1) stop = true;
  };
  options.cancelled = [&] { return stop.load(); };
  const Evaluation result = evaluate(model, Data::embedded(), options);
  EXPECT_FALSE(result.complete);
  const Json json = Json::parse(result.json);
  EXPECT_EQ(json["runs"][0]["complete"], false);
  EXPECT_EQ(json["runs"][0]["windows"], 1);
  EXPECT_EQ(result.figures[1].tokens, 63);
  EXPECT_THROW(evaluate(model, Data::embedded(), options), Interrupted);
  EXPECT_THROW(Model::load("", [] { return true; }), Interrupted);
  // Nobody else is affected, and nothing stays behind.
  EXPECT_TRUE(evaluate(model, Data::embedded(), small_run()).complete);
}

TEST(Evaluate, OneIsCancelledBesideAnother) {
  const Model model = Model::load();
  const Data data = Data::embedded();
  std::atomic<bool> complete{false};
  std::thread other([&] { complete = evaluate(model, data, small_run()).complete; });
  EvaluateOptions options = small_run();
  options.cancelled = [] { return true; };
  EXPECT_THROW(evaluate(model, data, options), Interrupted);
  other.join();
  EXPECT_TRUE(complete);
}

TEST(Library, PrintsNothingAndLeavesSignalsAlone) {
  struct sigaction before {
  }, after{};
  sigaction(SIGINT, nullptr, &before);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EvaluateOptions options = small_run();
  options.device = "auto";  // says in the log why it takes the CPU
  evaluate(Model::load(), Data::embedded(), options);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

TEST(Library, HandsItsLogOver) {
  std::vector<std::string> lines;
  std::mutex mutex;
  set_log([&](LogLevel level, std::string_view line) {
    const std::lock_guard lock(mutex);
    lines.push_back(std::to_string(static_cast<int>(level)) + " " + std::string(line));
  });
  EvaluateOptions options = small_run();
  options.device = "auto";
  evaluate(Model::load(), Data::texts({"Down, down, down."}), options);
  set_log({});
  const size_t count = lines.size();
  EXPECT_GT(count, 0U);
  for (const std::string& line : lines) EXPECT_TRUE(line[0] == '0' || line[0] == '1') << line;
  evaluate(Model::load(), Data::embedded(), options);
  EXPECT_EQ(lines.size(), count);
}

}  // namespace
}  // namespace mxlm::api
