// Rounds on several workers: how many there are, how fast each is, and what befalls them changes no bit.
#include "rounds/scheduler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "engine/forwarding_backend.hpp"
#include "load/load.hpp"
#include "variants/variant.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kModels = fs::path(MXLM_TEST_DATA) / "models";

/// What a device of a test does that the CPU does not.
struct Behaviour {
  std::chrono::microseconds delay{0};  // before each product
  int64_t most_windows = 0;            // in a micro-batch that there is memory for; 0 = any
  bool no_memory = false;              // for anything
  int fails_in_round = 0;              // 1 = the first that this worker runs; 0 = never
  std::function<void()> on_round = {};
};

struct CpuHolder {
  std::unique_ptr<Backend> cpu =
      make_cpu_backend({.threads = 1, .isa = std::nullopt, .order = mxlm::cpu::Order::forward});
};

/// The CPU with a behaviour, a clock of its own that only operations move on, and a memory of what was asked of it.
class TestDevice final : private CpuHolder, public ForwardingBackend {
 public:
  explicit TestDevice(Behaviour behaviour) : ForwardingBackend(*cpu), behaviour_(std::move(behaviour)) {}

  Mark mark() override {
    return {.time = std::chrono::steady_clock::time_point(std::chrono::seconds(clock_)), .event = nullptr};
  }
  double seconds(const Mark& from, const Mark& to) override {
    if (in_round_) ++asked_early;
    return ForwardingBackend::seconds(from, to);
  }
  [[nodiscard]] DeviceMemory device_memory() const override { return {.limit = 100, .used = 10, .peak = 50}; }
  [[nodiscard]] RouteCounts route_counts() override { return {.products = products, .rows = 7, .fell_back = 1}; }
  void prefetch(const HostMatrix& source) override {
    EXPECT_TRUE(on_their_way.insert(source.data).second);
    ++prefetched;
  }
  void forget(const HostMatrix& source) override { EXPECT_EQ(on_their_way.erase(source.data), 1U); }
  std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) override {
    clock_ += kPrepare;
    ++prepared;
    prepared_ahead += on_their_way.contains(source.data) ? 1 : 0;
    return ForwardingBackend::prepare(source, spec);
  }
  std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) override {
    clock_ += kPrepare;
    return ForwardingBackend::prepare(std::move(kept));
  }
  void embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
             int64_t position_offset, Tensor& hidden) override {
    if (!in_round_) {
      ++rounds;
      if (behaviour_.on_round) behaviour_.on_round();
    }
    in_round_ = true;
    ForwardingBackend::embed(batch, table, multiplier, positions, position_offset, hidden);
  }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override {
    if (behaviour_.no_memory || (behaviour_.most_windows > 0 && batch.windows() > behaviour_.most_windows)) {
      ++refused;
      in_round_ = false;
      throw OutOfDeviceMemory("The test device has no memory.");
    }
    if (rounds == behaviour_.fails_in_round) fail("The test device broke.");
    ForwardingBackend::attention(q, k, v, batch, args, outs);
  }
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override {
    clock_ += kProduct;
    ++products;
    if (behaviour_.delay.count() > 0) std::this_thread::sleep_for(behaviour_.delay);
    ForwardingBackend::linear(x, weight, epilogue, out);
  }
  void score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) override {
    in_round_ = false;  // the tests that look have one micro-batch a round
    ForwardingBackend::score(inputs, targets);
  }

  static constexpr int kProduct = 1, kPrepare = 1000;
  int64_t rounds = 0, products = 0, prepared = 0, prepared_ahead = 0, prefetched = 0, refused = 0, asked_early = 0;
  std::set<const std::byte*> on_their_way;

 private:
  Behaviour behaviour_;
  int64_t clock_ = 0;
  bool in_round_ = false;
};

std::vector<Window> some_windows(const ModelSpec& model, size_t count) {
  std::mt19937 random(7);
  std::vector<Window> out(count);
  for (Window& window : out) {
    const size_t length = 2 + random() % 20;
    for (size_t t = 0; t < length; ++t) {
      window.tokens.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(model.vocabulary)));
    }
    window.score_begin = 1 + static_cast<int32_t>(random() % (length - 1));
  }
  return out;
}

/// Every bit of the scores and of the layers' errors.
std::vector<uint64_t> bits(const RunScores& result) {
  std::vector<uint64_t> out;
  for (const auto& windows : result.scores) {
    for (const WindowScores& window : windows) {
      out.push_back(window.tokens.size());
      for (const TokenScore& token : window.tokens) {
        out.push_back(std::bit_cast<uint64_t>(token.nll));
        out.push_back(std::bit_cast<uint64_t>(token.kld));
        out.push_back(std::bit_cast<uint32_t>(token.p));
        out.push_back(static_cast<uint64_t>(token.top1));
      }
    }
  }
  for (const auto& steps : result.layer_errors) {
    for (const ErrorSums& sums : steps) {
      for (const double x : {sums.reference, sums.other, sums.difference}) out.push_back(std::bit_cast<uint64_t>(x));
    }
  }
  return out;
}

class Scheduler : public testing::Test {
 protected:
  /// Runs rounds of `round_windows` windows on workers that behave so.
  RunScores run(const std::vector<Behaviour>& behaviours, KeptForm kept = KeptForm::nothing,
                int64_t round_windows = 3) {
    Worker first = make(behaviours, 0);
    std::vector<std::function<std::unique_ptr<Worker>()>> others;
    for (size_t w = 1; w < behaviours.size(); ++w) {
      others.emplace_back([&, w] { return std::make_unique<Worker>(make(behaviours, w)); });
    }
    const VariantTree tree = build_tree(loaded_.spec, resolve(loaded_.spec, variants_));
    Plan plan;
    plan.kept = kept;
    for (size_t begin = 0; begin < windows_.size(); begin += static_cast<size_t>(round_windows)) {
      plan.rounds.push_back({{begin, std::min(windows_.size(), begin + static_cast<size_t>(round_windows))}});
    }
    RunScores result = run_rounds({.model = loaded_.spec, .tree = tree, .plan = plan, .windows = windows_}, first,
                                  others, [this](const Progress& p) { progress_ = p; });
    rounds_ = plan.rounds.size();
    first_ = dynamic_cast<TestDevice&>(*first.backend);
    return result;
  }

  /// Figures of the first worker's device after the run.
  struct Figures {
    int64_t rounds = 0, products = 0, prepared = 0, prepared_ahead = 0, prefetched = 0, refused = 0, asked_early = 0;
    size_t on_their_way = 0;
    Figures& operator=(const TestDevice& d) {
      rounds = d.rounds;
      products = d.products;
      prepared = d.prepared;
      prepared_ahead = d.prepared_ahead;
      prefetched = d.prefetched;
      refused = d.refused;
      asked_early = d.asked_early;
      on_their_way = d.on_their_way.size();
      return *this;
    }
  };

  LoadedModel loaded_ = load_model(kModels / "gqa_tied", /*with_tokenizer=*/false);
  std::vector<Variant> variants_{
      {.name = "baseline", .clauses = {}}, Variant::parse("mlp=mxfp4"), Variant::parse("attention=mxfp8,mlp=mxfp8")};
  std::vector<Window> windows_ = some_windows(loaded_.spec, 20);
  Progress progress_;
  Figures first_;
  size_t rounds_ = 0;

 private:
  Worker make(const std::vector<Behaviour>& behaviours, size_t w) {
    return {std::make_unique<TestDevice>(behaviours[w]), loaded_.spec, DType::f32, w};
  }
};

TEST_F(Scheduler, WorkersOfUnevenSpeedGiveTheSameDigits) {
  const RunScores one = run({{}});
  ASSERT_TRUE(one.complete);
  ASSERT_EQ(one.windows.size(), windows_.size());
  ASSERT_EQ(one.workers.size(), 1U);
  EXPECT_EQ(one.workers[0].rounds, rounds_);
  using std::chrono::microseconds;
  for (const size_t count : {2U, 3U, 8U, 12U}) {  // the last: more workers than rounds
    std::vector<Behaviour> uneven(count);
    for (size_t w = 0; w < count; ++w) uneven[w].delay = microseconds(200 * ((w * 2) % 5));
    const RunScores many = run(uneven);
    EXPECT_EQ(bits(many), bits(one)) << count;
    EXPECT_EQ(many.positions, one.positions);
    EXPECT_EQ(many.windows, one.windows);
    EXPECT_EQ(many.routes, one.routes);
    ASSERT_EQ(many.workers.size(), count);
    size_t rounds = 0;
    int64_t positions = 0;
    double forward = 0;
    for (const WorkerReport& worker : many.workers) {
      rounds += worker.rounds;
      EXPECT_EQ(worker.round_seconds.size(), worker.rounds);
      for (const double seconds : worker.round_seconds) EXPECT_LE(seconds, many.wall_seconds);
      positions += worker.positions;
      forward += worker.seconds[1].forward;
      EXPECT_EQ(worker.memory.peak, 50U);
      EXPECT_EQ(worker.routes.rows, 7);
    }
    EXPECT_EQ(rounds, rounds_);
    EXPECT_EQ(positions, one.positions);
    EXPECT_DOUBLE_EQ(many.seconds[1].forward, forward);
    EXPECT_EQ(many.seconds[1].forward, one.seconds[1].forward);  // of the devices' own clocks
    EXPECT_NEAR(progress_.done, progress_.total, 1e-6 * progress_.total);
    double by_device = 0;
    for (const DeviceProgress& device : progress_.devices) by_device += device.done;
    EXPECT_NEAR(by_device, progress_.done, 1e-6 * progress_.total);
  }
}

TEST_F(Scheduler, AFastWorkerTakesMoreRounds) {
  const RunScores result = run({{.delay = std::chrono::milliseconds(3)}, {}}, KeptForm::nothing, 1);
  EXPECT_GT(result.workers[1].rounds, result.workers[0].rounds);
}

TEST_F(Scheduler, WithoutMemoryMicroBatchesHalveAndTheRoundIsRunAgain) {
  const auto expected = bits(run({{}}, KeptForm::nothing, 7));
  for (const int64_t most : {1, 2, 3, 6}) {
    const RunScores result = run({{.most_windows = most}}, KeptForm::nothing, 7);
    EXPECT_TRUE(result.complete);
    EXPECT_EQ(bits(result), expected) << most;
    EXPECT_EQ(result.workers[0].rounds, rounds_);
    EXPECT_EQ(result.windows.size(), windows_.size());
    EXPECT_EQ(first_.refused, most == 6 || most == 3 ? 1 : 2) << most;  // 7 -> 3 -> 1; later rounds are cut at once
    EXPECT_NEAR(progress_.done, progress_.total, 1e-6 * progress_.total);
    EXPECT_EQ(first_.on_their_way, 0U);
  }
}

TEST_F(Scheduler, AWorkerWithoutMemoryForOneWindowLeavesItsRoundToTheOthers) {
  const auto expected = bits(run({{}}));
  for (const bool first : {true, false}) {
    std::vector<Behaviour> behaviours(3);
    behaviours[first ? 0 : 1].no_memory = true;
    const RunScores result = run(behaviours);
    EXPECT_TRUE(result.complete);
    EXPECT_EQ(bits(result), expected);
    EXPECT_EQ(result.workers[first ? 0 : 1].rounds, 0U);
    EXPECT_NEAR(progress_.done, progress_.total, 1e-6 * progress_.total);
  }
}

TEST_F(Scheduler, TheLastWorkerWithoutMemoryIsAnError) {
  EXPECT_THROW(run({{.no_memory = true}}), OutOfDeviceMemory);
  EXPECT_THROW(run({{.no_memory = true}, {.no_memory = true}, {.no_memory = true}}), OutOfDeviceMemory);
}

TEST_F(Scheduler, AnErrorOfAWorkerEndsTheRunAfterTheOthersRounds) {
  for (const bool first : {true, false}) {
    std::atomic<int> started{0};
    std::vector<Behaviour> behaviours(2, {.delay = std::chrono::microseconds(300), .on_round = [&] { ++started; }});
    behaviours[first ? 0 : 1].fails_in_round = 1;
    try {
      run(behaviours, KeptForm::nothing, 1);
      FAIL() << "no Error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("broke"));
    }
    EXPECT_LT(started, 20);  // not all of the 20 rounds
  }
}

TEST_F(Scheduler, TimeIsTheDevicesAndAskedForAtTheEndOfARound) {
  const RunScores result = run({{}});
  EXPECT_EQ(first_.asked_early, 0);
  // gqa_tied: 2 layers of 4 + 3 Linears. A product takes a second; each variant has its own, and the prefix it shares.
  const auto rounds = static_cast<double>(rounds_);
  const double pass = 14 * TestDevice::kProduct * rounds;
  for (const VariantSeconds& seconds : result.seconds) EXPECT_DOUBLE_EQ(seconds.forward, pass);
  // The head's weight is made once, for the baseline; that of a Linear by the first variant of those that share it.
  EXPECT_DOUBLE_EQ(result.seconds[0].prepare, TestDevice::kPrepare * (14 * rounds + 1));
  EXPECT_DOUBLE_EQ(result.seconds[2].prepare, TestDevice::kPrepare * 14 * rounds);
  const auto rate = [&](size_t v) { return static_cast<double>(result.positions) / (pass + result.seconds[v].head); };
  EXPECT_DOUBLE_EQ(result.tokens_per_second(0), rate(0));
}

TEST_F(Scheduler, WeightsAreBroughtAheadAndForgotten) {
  const auto expected = bits(run({{}}));
  EXPECT_EQ(first_.prefetched, static_cast<int64_t>(14 * rounds_ + 1));  // each Linear a round, and the head once
  EXPECT_EQ(first_.prepared_ahead, first_.prepared);                     // none came unasked
  EXPECT_EQ(first_.on_their_way, 0U);
  // What is kept is brought once.
  for (const KeptForm form : {KeptForm::codes, KeptForm::prepared}) {
    EXPECT_EQ(bits(run({{}}, form)), expected);
    EXPECT_EQ(first_.prefetched, 15);
    EXPECT_EQ(first_.on_their_way, 0U);
  }
  EXPECT_EQ(first_.prepared, 35);  // in 2 layers 4 Linears of attention 2 ways, 3 of the MLP 3 ways; and the head
}

TEST_F(Scheduler, SaysWhichRouteAWeightTook) {
  const RunScores result = run({{}});
  ASSERT_EQ(result.routes.size(), 3U);
  EXPECT_EQ(result.routes[0].at("model.layers.0.mlp.down_proj"), "float32");
  EXPECT_EQ(result.routes[1].at("model.layers.0.mlp.down_proj"), "bf16");
  EXPECT_EQ(result.routes[1].at("model.layers.0.self_attn.q_proj"), "float32");
  EXPECT_EQ(result.routes[2].size(), 15U);
}

/// Runs in a process of its own, for a caught signal is remembered. Exits with 0 if all is as it should be.
class InterruptedScheduler : public Scheduler {
 public:
  void TestBody() override {}
  [[noreturn]] void check_and_exit() {
    install_interrupt_handlers();
    const auto check = [](bool ok, const char* what) {
      if (ok) return;
      std::fprintf(stderr, "not so: %s\n", what);
      std::_Exit(1);
    };
    const RunScores whole = run({{}}, KeptForm::nothing, 1);
    // The first worker hangs in round 1 until the other has finished some, and is then interrupted.
    std::atomic<int> others{0};
    const Behaviour slow{.on_round = [&] {
      while (others < 5) std::this_thread::yield();
      std::raise(SIGINT);
    }};
    const Behaviour fast{.on_round = [&] { ++others; }};
    const RunScores part = run({slow, fast}, KeptForm::nothing, 1);
    check(whole.complete && !part.complete, "the interrupted run is not complete");
    check(part.windows.size() >= 4 && part.windows.size() < 20, "the finished rounds are kept, and only they");
    for (size_t v = 0; v < 3; ++v) {
      check(part.scores[v].size() == part.windows.size(), "each finished window has scores");
      for (size_t i = 0; i < part.windows.size(); ++i) {
        const auto& want = whole.scores[v][part.windows[i]].tokens;
        const auto& got = part.scores[v][i].tokens;
        check(want.size() == got.size(), "the scores are of the window that they are said to be of");
        for (size_t t = 0; t < want.size(); ++t) {
          check(want[t].nll == got[t].nll && want[t].kld == got[t].kld, "the scores are those of the whole run");
        }
      }
    }
    std::_Exit(0);
  }
};

TEST(SchedulerDeathTest, AnInterruptKeepsTheFinishedRounds) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(InterruptedScheduler().check_and_exit(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace mxlm
