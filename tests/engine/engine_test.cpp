// The engine on tiny models: how a run is cut, and in which company a variant runs, changes no bit of its scores.
#include "engine/engine.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "engine/plan.hpp"
#include "engine/tree.hpp"
#include "load/load.hpp"
#include "rounds/scheduler.hpp"
#include "statistics/statistics.hpp"
#include "variants/variant.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using cpu::Order;
using testing::HasSubstr;

const fs::path kModels = fs::path(MXLM_TEST_DATA) / "models";
constexpr uint64_t kGigabyte = uint64_t{1} << 30;

std::vector<Variant> variants_of(const std::vector<std::string>& texts) {
  std::vector<Variant> out{{.name = "baseline", .clauses = {}}};
  for (const std::string& text : texts) out.push_back(Variant::parse(text));
  return out;
}

/// Windows of several lengths and numbers of scored tokens.
std::vector<Window> some_windows(const ModelSpec& model, size_t count = 11) {
  std::mt19937 random(7);
  std::vector<Window> out;
  for (size_t i = 0; i < count; ++i) {
    Window window;
    const size_t length = 2 + random() % 40;
    for (size_t t = 0; t < length; ++t) {
      window.tokens.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(model.vocabulary)));
    }
    window.score_begin = 1 + static_cast<int32_t>(random() % (length - 1));
    out.push_back(std::move(window));
  }
  return out;
}

struct Cut {
  int threads = 1;
  int64_t batch_windows = 0;
  bool stream = false;
  int64_t round_tokens = 0;
  DType compute = DType::f32;
};

struct Outcome {
  Plan plan;
  size_t nodes = 0;
  RunScores result;
};

Outcome run(const ModelSpec& model, const std::vector<Variant>& variants, const std::vector<Window>& windows,
            const Cut& cut, const std::function<void(const Progress&)>& on_progress = {}) {
  Worker worker(make_cpu_backend({.threads = cut.threads, .isa = std::nullopt, .order = Order::forward}), model,
                cut.compute);
  const VariantTree tree = build_tree(model, resolve(model, variants));
  Outcome out;
  out.nodes = tree.nodes();
  out.plan = make_plan(model, cut.compute, tree, windows,
                       {.batch_windows = cut.batch_windows,
                        .keep = cut.stream ? KeepWeights::never : KeepWeights::always,
                        .memory_limit = kGigabyte,
                        .round_tokens = cut.round_tokens});
  out.result =
      run_rounds({.model = model, .tree = tree, .plan = out.plan, .windows = windows}, worker, {}, on_progress);
  return out;
}

/// Every bit of a variant's scores.
std::vector<uint64_t> bits(const std::vector<WindowScores>& windows) {
  std::vector<uint64_t> out;
  for (const WindowScores& window : windows) {
    out.push_back(window.tokens.size());
    for (const TokenScore& token : window.tokens) {
      out.push_back(std::bit_cast<uint64_t>(token.nll));
      out.push_back(std::bit_cast<uint64_t>(token.kld));
      out.push_back(std::bit_cast<uint32_t>(token.p));
      out.push_back(std::bit_cast<uint32_t>(token.kld_reverse));
      out.push_back(static_cast<uint64_t>(token.top1));
      out.push_back(token.finite ? 1 : 0);
    }
  }
  return out;
}

std::vector<std::vector<uint64_t>> bits(const RunScores& result) {
  std::vector<std::vector<uint64_t>> out;
  for (const auto& scores : result.scores) out.push_back(bits(scores));
  return out;
}

const std::vector<std::string> kVariants = {"mlp=mxfp4",
                                            "attention=mxfp8,mlp=mxfp8",
                                            "linear=mxint8/none",
                                            "attention=mxfp6@block=0,qk=mxfp8,pv=mxfp8",
                                            "model.layers.1.*=mxfp4@rule=rceil",
                                            "lm_head=mxfp4",
                                            "mlp=mxfp4,pv=mxfp8,vector=bf16"};

TEST(Engine, HowARunIsCutChangesNoBit) {
  for (const char* name : {"gqa_tied", "bfloat16", "rope_dynamic", "mlp_bias"}) {
    const LoadedModel loaded = load_model(kModels / name, /*with_tokenizer=*/false);
    const auto windows = some_windows(loaded.spec);
    const auto variants = variants_of(kVariants);
    for (const DType compute : {DType::f32, DType::bf16}) {
      const Outcome whole = run(loaded.spec, variants, windows, {.compute = compute});
      ASSERT_EQ(whole.plan.rounds.size(), 1U);
      ASSERT_TRUE(whole.result.complete);
      const auto expected = bits(whole.result);
      for (const int threads : {1, 2}) {
        for (const int64_t batch : {1, 3, 8}) {
          for (const bool stream : {false, true}) {
            const Outcome other = run(
                loaded.spec, variants, windows,
                {.threads = threads, .batch_windows = batch, .stream = stream, .round_tokens = 60, .compute = compute});
            EXPECT_GT(other.plan.rounds.size(), 1U);
            EXPECT_EQ(other.plan.resident(), !stream);
            EXPECT_EQ(bits(other.result), expected) << name << ", " << threads << " threads, " << batch
                                                    << " windows a batch, " << (stream ? "stream" : "resident");
            EXPECT_EQ(other.result.positions, whole.result.positions);
          }
        }
      }
    }
  }
}

TEST(Engine, ScoresAreThoseOfTheWindowsInOrder) {
  const LoadedModel loaded = load_model(kModels / "gqa_tied", /*with_tokenizer=*/false);
  const auto windows = some_windows(loaded.spec);
  const Outcome all = run(loaded.spec, variants_of(kVariants), windows, {.batch_windows = 3, .round_tokens = 60});
  ASSERT_EQ(all.result.scores.size(), 1 + kVariants.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    const Outcome one = run(loaded.spec, variants_of(kVariants), {windows[w]}, {});
    for (size_t v = 0; v < all.result.scores.size(); ++v) {
      ASSERT_EQ(all.result.scores[v].size(), windows.size());
      EXPECT_EQ(all.result.scores[v][w].tokens.size(),
                windows[w].tokens.size() - static_cast<size_t>(windows[w].score_begin));
      EXPECT_EQ(bits({all.result.scores[v][w]}), bits(one.result.scores[v])) << "window " << w << ", variant " << v;
    }
  }
}

TEST(Engine, AVariantGivesTheSameAloneAndInAnyCompanyAndOrder) {
  const LoadedModel loaded = load_model(kModels / "bfloat16", /*with_tokenizer=*/false);
  const auto windows = some_windows(loaded.spec);
  const auto together = bits(run(loaded.spec, variants_of(kVariants), windows, {}).result);
  std::vector<std::string> backwards(kVariants.rbegin(), kVariants.rend());
  const auto reversed = bits(run(loaded.spec, variants_of(backwards), windows, {}).result);
  EXPECT_EQ(reversed[0], together[0]);
  for (size_t v = 0; v < kVariants.size(); ++v) {
    const auto alone = bits(run(loaded.spec, variants_of({kVariants[v]}), windows, {}).result);
    EXPECT_EQ(alone[0], together[0]) << kVariants[v];
    EXPECT_EQ(alone[1], together[v + 1]) << kVariants[v];
    EXPECT_EQ(reversed[kVariants.size() - v], together[v + 1]) << kVariants[v];
    EXPECT_NE(together[v + 1], together[0]) << kVariants[v];  // it does something
  }
}

TEST(Engine, TheBaselineAmongTheVariantsIsTheBaseline) {
  const LoadedModel loaded = load_model(kModels / "gqa_tied", /*with_tokenizer=*/false);
  const auto windows = some_windows(loaded.spec);
  const Outcome same = run(loaded.spec, variants_of({"linear=none", "mlp=mxfp4,linear=none"}), windows, {});
  EXPECT_EQ(same.nodes, 4U);  // two layers of two steps, once
  for (size_t v = 1; v <= 2; ++v) {
    for (size_t w = 0; w < windows.size(); ++w) {
      for (size_t t = 0; t < same.result.scores[v][w].tokens.size(); ++t) {
        EXPECT_EQ(same.result.scores[v][w].tokens[t].nll, same.result.scores[0][w].tokens[t].nll);
        EXPECT_EQ(same.result.scores[v][w].tokens[t].kld, 0);
        EXPECT_EQ(same.result.scores[v][w].tokens[t].top1, same.result.scores[0][w].tokens[t].top1);
      }
    }
  }
}

TEST(Tree, VariantsShareThePrefixUntilTheyDiffer) {
  const LoadedModel loaded = load_model(kModels / "mlp_bias", /*with_tokenizer=*/false);  // three layers
  const auto tree = [&](const std::vector<std::string>& texts) {
    return build_tree(loaded.spec, resolve(loaded.spec, variants_of(texts)));
  };
  const auto sizes = [](const VariantTree& t) {
    std::vector<size_t> out;
    for (const auto& level : t.levels) out.push_back(level.size());
    return out;
  };
  using Sizes = std::vector<size_t>;
  EXPECT_EQ(sizes(tree({})), (Sizes{1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(sizes(tree({"mlp=mxfp4"})), (Sizes{1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(sizes(tree({"attention=mxfp4"})), (Sizes{2, 2, 2, 2, 2, 2}));
  EXPECT_EQ(sizes(tree({"qk=mxfp4"})), (Sizes{2, 2, 2, 2, 2, 2}));
  EXPECT_EQ(sizes(tree({"lm_head=mxfp4"})), (Sizes{1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(sizes(tree({"model.layers.1.*=mxfp4"})), (Sizes{1, 1, 2, 2, 2, 2}));
  EXPECT_EQ(sizes(tree({"model.layers.2.mlp.down_proj=mxfp4"})), (Sizes{1, 1, 1, 1, 1, 2}));
  EXPECT_EQ(sizes(tree({"mlp=mxfp4", "mlp=mxfp8", "mlp=mxfp4,lm_head=mxint8"})), (Sizes{1, 3, 3, 3, 3, 3}));
  EXPECT_EQ(sizes(tree({"mlp=mxfp4", "mlp=mxfp4,model.layers.2.self_attn.o_proj=mxfp8"})), (Sizes{1, 2, 2, 2, 3, 3}));

  const VariantTree three = tree({"mlp=mxfp4", "mlp=mxfp4,lm_head=mxint8"});
  EXPECT_EQ(three.width(), 2U);
  EXPECT_EQ(three.nodes(), 11U);
  EXPECT_EQ(three.leaf[1], three.leaf[2]);
  EXPECT_NE(three.leaf[0], three.leaf[1]);
  EXPECT_EQ(three.levels[0][0].variants, (Sizes{0, 1, 2}));
  EXPECT_EQ(three.levels[1][three.leaf[1]].variants, (Sizes{1, 2}));
  EXPECT_FALSE(three.lm_head[1].replaced());
  EXPECT_TRUE(three.lm_head[2].replaced());
}

class Plans : public testing::Test {
 protected:
  Plan plan(const std::vector<std::string>& texts, const PlanOptions& options) {
    const VariantTree tree = build_tree(loaded_.spec, resolve(loaded_.spec, variants_of(texts)));
    return make_plan(loaded_.spec, DType::f32, tree, windows_, options);
  }
  LoadedModel loaded_ = load_model(kModels / "gqa_tied", /*with_tokenizer=*/false);
  std::vector<Window> windows_ = some_windows(loaded_.spec);
};

TEST_F(Plans, CoverEveryWindowOnceInOrder) {
  for (const int64_t batch : {0, 1, 3, 8, 100}) {
    for (const int64_t round : {0, 1, 60, 100}) {
      const Plan p = plan(kVariants, {.batch_windows = batch, .memory_limit = kGigabyte, .round_tokens = round});
      size_t next = 0;
      for (const auto& batches : p.rounds) {
        EXPECT_FALSE(batches.empty());
        int64_t tokens = 0;
        for (const auto& [begin, end] : batches) {
          EXPECT_EQ(begin, next);
          EXPECT_LT(begin, end);
          if (batch > 0) {
            EXPECT_LE(end - begin, static_cast<size_t>(batch));
          }
          for (size_t w = begin; w < end; ++w) tokens += static_cast<int64_t>(windows_[w].tokens.size());
          next = end;
        }
        if (round > 0 && batches.size() > 1) {
          // A round may hold the largest micro-batch, whatever it was asked to be.
          int64_t largest = 0;
          for (const auto& others : p.rounds) {
            for (const auto& [begin, end] : others) {
              int64_t size = 0;
              for (size_t w = begin; w < end; ++w) size += static_cast<int64_t>(windows_[w].tokens.size());
              largest = std::max(largest, size);
            }
          }
          EXPECT_LE(tokens, std::max(round, largest));
        }
      }
      EXPECT_EQ(next, windows_.size());
    }
  }
}

TEST_F(Plans, ManyShortWindowsAreSeveralRounds) {
  windows_.clear();
  Window window;
  window.tokens = {1, 2};
  window.score_begin = 1;
  windows_.resize(10'000, window);
  const Plan p = plan({}, {.memory_limit = kGigabyte});
  ASSERT_EQ(p.rounds.size(), 3U);
  for (const auto& batches : p.rounds) EXPECT_LE(batches.back().second - batches.front().first, 4096U);
}

TEST_F(Plans, StepWeightsAreThoseBetweenFirstAndLastUser) {
  // The nodes of a step run in the order of the variants; a weight lives from its first user to its last.
  const auto bytes = [this](const std::vector<std::string>& texts) {
    return plan(texts, {.memory_limit = kGigabyte}).step_weights;
  };
  const uint64_t baseline = bytes({});  // float32; the formats are exact in bfloat16, which takes half
  const std::string a = "mlp=mxfp4", b = "mlp=mxfp6", c = "mlp=mxfp8";
  // The same weights in other nodes.
  const std::string a2 = a + "/mxint8", b2 = b + "/mxint8", c2 = c + "/mxint8";
  EXPECT_EQ(bytes({a, b, c}), baseline);
  EXPECT_EQ(bytes({a, a2, b, b2, c, c2}), baseline);
  EXPECT_EQ(bytes({a, b, c, a2, b2, c2}), baseline / 2 * 3);
  EXPECT_EQ(bytes({a, b, c, c2, b2, a2}), baseline / 2 * 3);
  EXPECT_EQ(bytes({a, b, b2, c, c2, a2}), baseline);
}

TEST_F(Plans, EstimateWhatIsHeld) {
  const Plan one = plan({}, {.memory_limit = kGigabyte});
  EXPECT_GT(one.step_weights, 0U);
  EXPECT_GT(one.head_weights, 0U);
  EXPECT_GT(one.hidden_states, 0U);
  EXPECT_GT(one.scratch, 0U);
  EXPECT_GT(one.scores, 0U);
  EXPECT_GT(one.total(), one.step_weights + one.head_weights);
  EXPECT_FALSE(one.resident());  // one round reads every weight once
  const Plan many =
      plan(kVariants, {.batch_windows = 1, .keep = KeepWeights::always, .memory_limit = kGigabyte, .round_tokens = 60});
  EXPECT_TRUE(many.resident());
  EXPECT_GT(many.kept_weights, many.step_weights);
  EXPECT_GT(many.step_weights, one.step_weights);
  EXPECT_GT(many.scores, one.scores);
  EXPECT_LT(many.total(), kGigabyte);
  const Plan streamed =
      plan(kVariants, {.batch_windows = 1, .keep = KeepWeights::never, .memory_limit = kGigabyte, .round_tokens = 60});
  EXPECT_FALSE(streamed.resident());
  EXPECT_EQ(streamed.total() + streamed.kept_weights, many.total());
  // Just enough for the rest: weights are not kept.
  const Plan tight = plan(
      kVariants, {.batch_windows = 1, .keep = KeepWeights::always, .memory_limit = many.total(), .round_tokens = 60});
  EXPECT_FALSE(tight.resident());
  EXPECT_LE(tight.total(), tight.limit);
}

TEST_F(Plans, WeightsAreKeptAfterManyRoundsOnly) {
  Window window;
  window.tokens.assign(20, 1);
  windows_.assign(14, window);
  const auto rounds = [&](int64_t tokens) {
    return plan(kVariants, {.batch_windows = 1, .memory_limit = kGigabyte, .round_tokens = tokens});
  };
  EXPECT_EQ(rounds(1).rounds.size(), 14U);
  EXPECT_TRUE(rounds(1).resident());
  EXPECT_EQ(rounds(40).rounds.size(), 7U);
  EXPECT_FALSE(rounds(40).resident());
}

TEST_F(Plans, TooLittleMemoryIsAnErrorThatSaysHowMuch) {
  try {
    plan(kVariants, {.memory_limit = 1000});
    FAIL() << "no Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("MB"));
    EXPECT_THAT(error.what(), HasSubstr("--batch-size"));
  }
}

TEST(KeptWeights, TakeTheirPackedSize) {
  const auto spec = [](const char* text) { return OperandSpec(parse_block_format(text)); };
  EXPECT_EQ(kept_weight_bytes(64 * 64, 64, std::nullopt, DType::bf16), 64U * 64 * 2);
  EXPECT_EQ(kept_weight_bytes(64 * 64, 64, std::nullopt, DType::f32), 64U * 64 * 4);
  EXPECT_EQ(kept_weight_bytes(64 * 64, 64, spec("mxfp4"), DType::bf16), 64U * 64 * 17 / 32);  // 4.25 bits
  EXPECT_EQ(kept_weight_bytes(64 * 64, 64, spec("mxfp8"), DType::bf16), 64U * 64 * 33 / 32);
  EXPECT_EQ(kept_weight_bytes(3 * 40, 40, spec("mxfp6"), DType::bf16), (3U * 40 * 6 + 3 * 2 * 8) / 8);
  EXPECT_EQ(kept_weight_bytes(3 * 40, 40, spec("mxfp4@block=0"), DType::bf16), (3U * 40 * 4 + 3 * 8) / 8);
}

/// Runs in a process of its own, for a caught signal is remembered. Exits with 0 if all is as it should be.
[[noreturn]] void interrupted_run() {
  install_interrupt_handlers();
  const LoadedModel loaded = load_model(kModels / "gqa_tied", /*with_tokenizer=*/false);
  const auto windows = some_windows(loaded.spec);
  const auto variants = variants_of(kVariants);
  const Cut cut{.threads = 2, .batch_windows = 1, .round_tokens = 60};
  const Outcome whole = run(loaded.spec, variants, windows, cut);
  const Outcome part = run(loaded.spec, variants, windows, cut, [](const Progress& progress) {
    if (progress.round == 2 && !interrupt_requested()) std::raise(SIGINT);
  });
  const auto check = [](bool ok, const char* what) {
    if (ok) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::_Exit(1);
  };
  check(whole.result.complete, "the whole run is complete");
  check(!part.result.complete, "the interrupted run is not complete");
  size_t kept = 0;
  for (size_t r = 0; r < 2; ++r) {
    for (const auto& [begin, end] : part.plan.rounds[r]) kept += end - begin;
  }
  check(part.plan.rounds.size() > 3, "there are more rounds than were run");
  for (size_t v = 0; v < variants.size(); ++v) {
    check(part.result.scores[v].size() == kept, "the finished rounds are kept, and only they");
    check(bits(part.result.scores[v]) ==
              bits(std::vector<WindowScores>(whole.result.scores[v].begin(),
                                             whole.result.scores[v].begin() + static_cast<std::ptrdiff_t>(kept))),
          "the finished rounds have their scores");
  }
  std::_Exit(0);
}

TEST(EngineDeathTest, AnInterruptKeepsTheFinishedRounds) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(interrupted_run(), testing::ExitedWithCode(0), "");
}

/// A record of expected_nll.json: windows, and mean NLL of transformers with weights quantised by microxcaling.
class WeightOnly : public testing::TestWithParam<std::string> {};

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kModels)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<Window> golden_windows(const fs::path& path) {
  const Checkpoint checkpoint = Checkpoint::from_file(FileView::map(path));
  const TensorEntry& tokens = checkpoint.tensors().at("tokens");
  std::vector<int64_t> ids(static_cast<size_t>(tokens.elements()));
  std::memcpy(ids.data(), tokens.data(), tokens.size);
  std::vector<Window> out;
  for (int64_t w = 0; w < tokens.shape.at(0); ++w) {
    Window window;
    for (int64_t t = 0; t < tokens.shape.at(1); ++t) {
      window.tokens.push_back(static_cast<int32_t>(ids[static_cast<size_t>(w * tokens.shape.at(1) + t)]));
    }
    out.push_back(std::move(window));
  }
  return out;
}

TEST_P(WeightOnly, NllIsThatOfTransformersAndMicroxcaling) {
  const fs::path folder = kModels / GetParam();
  const LoadedModel loaded = load_model(folder, /*with_tokenizer=*/false);
  std::ifstream stream(folder / "expected_nll.json");
  const auto golden = nlohmann::json::parse(stream);
  ASSERT_FALSE(golden["files"].empty());
  for (const auto& [file, record] : golden["files"].items()) {
    const auto windows = golden_windows(folder / file);
    std::vector<std::string> texts;
    for (const auto& [text, figures] : record["variants"].items()) texts.push_back(text);
    ASSERT_FALSE(texts.empty());
    const Outcome ours = run(loaded.spec, variants_of(texts), windows, {});
    const auto figures = summarize(ours.result.scores, {});
    EXPECT_EQ(figures[0].tokens, record["scored"].get<int64_t>());
    EXPECT_NEAR(figures[0].nll, record["baseline"].get<double>(), 1e-6) << file;
    for (size_t v = 0; v < texts.size(); ++v) {
      EXPECT_NEAR(figures[v + 1].nll, record["variants"][texts[v]]["nll"].get<double>(), 1e-6)
          << file << " " << texts[v];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, WeightOnly, testing::ValuesIn(model_names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace mxlm
