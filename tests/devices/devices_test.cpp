// Which devices a run takes, and how it is planned for their memory.
#include "devices/devices.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "devices/device_rates.hpp"
#include "engine/plan.hpp"
#include "engine/tree.hpp"
#include "load/load.hpp"
#include "variants/variant.hpp"

namespace mxlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = DeviceRequest::Kind;

constexpr uint64_t kGigabyte = 1'000'000'000;

CudaDevice gpu(int index, uint64_t free, bool supported = true) {
  return {.index = index,
          .name = "GPU of a test",
          .architecture = supported ? "sm_90" : "sm_70",
          .bus_id = "0000:00:00.0",
          .memory_bytes = 80 * kGigabyte,
          .free_bytes = free * kGigabyte,
          .supported = supported};
}

std::vector<int> indices(const DeviceSet& set) {
  std::vector<int> out;
  for (const CudaDevice& device : set.gpus) out.push_back(device.index);
  return out;
}

DeviceSet choose(const std::string& device, const CudaDevices& found, DeviceOptions options = {}) {
  options.request = DeviceRequest::parse(device);
  return choose_devices(options, found, 0);
}

std::string error_of(const std::string& device, const CudaDevices& found, const DeviceOptions& options = {}) {
  try {
    choose(device, found, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no Error";
}

TEST(DeviceRequest, ReadsEveryForm) {
  EXPECT_EQ(DeviceRequest::parse("auto").kind, Kind::automatic);
  EXPECT_EQ(DeviceRequest::parse("cpu").kind, Kind::cpu);
  EXPECT_EQ(DeviceRequest::parse("cuda").kind, Kind::cuda);
  EXPECT_THAT(DeviceRequest::parse("cuda").indices, IsEmpty());
  EXPECT_EQ(DeviceRequest::parse("cuda:3").kind, Kind::cuda);
  EXPECT_THAT(DeviceRequest::parse("cuda:3").indices, ElementsAre(3));
  EXPECT_THAT(DeviceRequest::parse("cuda:2,0,11").indices, ElementsAre(2, 0, 11));
  for (const char* text : {"", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:0,", "cuda:,0", "cuda:0 1", "cuda:-1",
                           "cuda:1,1", "cuda:99999999999", "cuda0", "cpu:0"}) {
    EXPECT_THROW(DeviceRequest::parse(text), UsageError) << text;
  }
}

TEST(ChooseDevices, TakesTheGpusThatThereAre) {
  const CudaDevices two{.devices = {gpu(0, 79), gpu(1, 40)}, .reason = ""};
  EXPECT_THAT(indices(choose("auto", two)), ElementsAre(0, 1));
  EXPECT_THAT(indices(choose("cuda", two)), ElementsAre(0, 1));
  EXPECT_THAT(indices(choose("cuda:1", two)), ElementsAre(1));
  EXPECT_THAT(indices(choose("cuda:1,0", two)), ElementsAre(1, 0));
  EXPECT_TRUE(choose("cpu", two).on_cpu());
  EXPECT_THAT(indices(choose("cuda", two, {.min_free_ratio = 0.9})), ElementsAre(0));
  EXPECT_THAT(indices(choose("cuda:1", two, {.min_free_ratio = 0.9})), ElementsAre(1));  // named is named
  EXPECT_THAT(indices(choose("auto", {.devices = {gpu(0, 79, false), gpu(1, 40)}, .reason = ""})), ElementsAre(1));
  EXPECT_TRUE(choose("auto", {.devices = {gpu(0, 79, false)}, .reason = ""}).on_cpu());
  EXPECT_TRUE(choose("auto", {.devices = {}, .reason = "there is no driver"}).on_cpu());
}

TEST(ChooseDevices, SaysWhatCannotBe) {
  const CudaDevices two{.devices = {gpu(0, 79), gpu(1, 40, false)}, .reason = ""};
  EXPECT_THAT(error_of("cuda:7", two), HasSubstr("cuda:7; this machine has cuda:0 to cuda:1."));
  EXPECT_THAT(error_of("cuda:1", two), HasSubstr("sm_70"));
  EXPECT_THAT(error_of("cuda", {.devices = {}, .reason = "there is no driver"}), HasSubstr("there is no driver"));
  EXPECT_THAT(error_of("cuda", two, {.min_free_ratio = 1}), HasSubstr("99% of its memory is free"));
  EXPECT_THAT(error_of("cpu", two, {.gemm = GemmRoute::fast}), HasSubstr("exact"));
  EXPECT_THAT(error_of("auto", {.devices = {}, .reason = "there is no driver"}, {.gemm = GemmRoute::fast}),
              HasSubstr("there is no driver"));
  EXPECT_EQ(choose("auto", two, {.gemm = GemmRoute::fast}).gemm, GemmRoute::fast);
}

TEST(ChooseDevices, WorkersShareADevicesMemory) {
  const CudaDevices two{.devices = {gpu(0, 80), gpu(1, 40)}, .reason = ""};
  const DeviceSet set = choose("cuda", two, {.workers_per_device = 2});
  EXPECT_EQ(set.workers(), 4U);
  EXPECT_EQ(set.worker_limit(), 18 * kGigabyte);  // of the smaller one nine tenths, halved
  EXPECT_EQ(set.device_of(0), 0U);
  EXPECT_EQ(set.device_of(1), 1U);
  EXPECT_EQ(set.device_of(2), 0U);
  const DeviceSet cpu = choose("cpu", two, {.workers_per_device = 2});
  EXPECT_EQ(cpu.workers(), 1U);
  EXPECT_EQ(cpu.worker_limit(), 0U);
}

TEST(DeviceRates, TellTokensThatHideATransfer) {
  // A gigabyte a second for 10 GB; 100 flops a token at 1000 flops a second.
  Plan plan;
  plan.source_bytes = 10 * kGigabyte;
  plan.flops_a_token = 100;
  EXPECT_EQ(tokens_to_hide_transfer(plan, {.bytes_per_second = 1e9, .flops_per_second = 1000}), 100);
  const auto backend = make_cpu_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  const DeviceRates rates = measure_rates(*backend, 64, 1 << 16);
  EXPECT_GT(rates.bytes_per_second, 0);
  EXPECT_GT(rates.flops_per_second, 0);
}

TEST(Nvml, WithoutTheLibraryThereAreNoFigures) {
  const Nvml nvml("libmxlm-no-such-library.so");
  EXPECT_EQ(nvml.driver(), "");
  EXPECT_FALSE(nvml.sample("0000:00:00.0").utilization);
  EXPECT_FALSE(nvml.energy_joules("0000:00:00.0"));
}

std::vector<Window> windows_of(size_t count, size_t tokens) {
  Window window;
  window.tokens.assign(tokens, 1);
  return std::vector<Window>(count, window);
}

class DevicePlans : public testing::Test {
 protected:
  Plan plan(PlanOptions options) {
    if (options.memory_limit == 0) options.memory_limit = kGigabyte;
    return make_plan(loaded_.spec, DType::f32, tree_, windows_, options);
  }
  LoadedModel loaded_ = load_model(std::filesystem::path(MXLM_TEST_DATA) / "models" / "gqa_tied", false);
  std::vector<Variant> variants_{{.name = "baseline", .clauses = {}},
                                 Variant::parse("linear=mxfp4"),
                                 Variant::parse("linear=mxfp6"),
                                 Variant::parse("linear=mxfp8"),
                                 Variant::parse("linear=mxint8")};
  VariantTree tree_ = build_tree(loaded_.spec, resolve(loaded_.spec, variants_));
  std::vector<Window> windows_ = windows_of(64, 16);
};

TEST_F(DevicePlans, KeepWhatFits) {
  constexpr int64_t kRound = 64;
  const PlanOptions roomy{.batch_windows = 1, .device_limit = kGigabyte, .round_tokens = kRound};
  const Plan prepared = plan(roomy);
  EXPECT_TRUE(prepared.on_device);
  EXPECT_EQ(prepared.kept, KeptForm::prepared);
  EXPECT_EQ(prepared.rounds.size(), 16U);
  EXPECT_EQ(prepared.limit, kGigabyte);

  // Every Linear in three bfloat16 parts for the float32 baseline and in one for each variant, rows in steps of 64.
  uint64_t baseline = 0, variant = 0;
  for (const LinearSpec* linear : loaded_.spec.linears()) {
    if (linear == &loaded_.spec.lm_head) continue;
    const auto elements = static_cast<uint64_t>(linear->outputs() * ((linear->inputs() + 63) / 64 * 64));
    baseline += 6 * elements;
    variant += 2 * elements;
  }
  EXPECT_EQ(prepared.kept_weights, baseline + 4 * variant);

  // Less and less memory, for rounds that are as large.
  const auto with_limit = [&](uint64_t limit) {
    PlanOptions options = roomy;
    options.device_limit = limit;
    return plan(options);
  };
  bool codes = false, streamed = false;
  uint64_t limit = prepared.total() * 10 / 9;
  EXPECT_EQ(with_limit(2 * limit).kept, KeptForm::prepared);
  for (; limit > 0; limit = limit * 99 / 100) {
    Plan p;
    try {
      p = with_limit(limit);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("of the GPU's memory"));
      break;
    }
    EXPECT_LE(p.total(), limit - limit / 10);  // a tenth is left
    EXPECT_FALSE(streamed && p.kept != KeptForm::nothing);
    EXPECT_FALSE(codes && p.kept == KeptForm::prepared);
    codes = codes || p.kept == KeptForm::codes;
    streamed = streamed || p.kept == KeptForm::nothing;
  }
  EXPECT_TRUE(codes);
  EXPECT_TRUE(streamed);

  PlanOptions stream = roomy;
  stream.keep = KeepWeights::never;
  EXPECT_EQ(plan(stream).kept, KeptForm::nothing);
}

TEST_F(DevicePlans, MicroBatchesAndRoundsAreLargerThanTheHosts) {
  windows_ = windows_of(40, 2048);
  const Plan host = plan({.memory_limit = 8 * kGigabyte});
  const Plan device = plan({.memory_limit = 8 * kGigabyte, .device_limit = 8 * kGigabyte});
  EXPECT_EQ(host.rounds.front().front(), (Plan::Range{0, 1}));
  EXPECT_EQ(device.rounds.front().front(), (Plan::Range{0, 4}));
  EXPECT_EQ(host.rounds.front().size(), 32U);  // 65,536 tokens
  EXPECT_EQ(device.rounds.size(), 1U);         // all 81,920
  EXPECT_EQ(device.kept, KeptForm::nothing);   // one round reads every weight once
  EXPECT_EQ(device.total() + device.scores, device.step_weights + device.head_weights + device.staging +
                                                device.hidden_states + device.scratch + device.scores);
}

TEST_F(DevicePlans, EveryWorkerGetsRounds) {
  windows_ = windows_of(64, 64);
  const auto rounds = [&](size_t workers, KeepWeights keep) {
    return plan({.batch_windows = 1, .keep = keep, .device_limit = kGigabyte, .workers = workers}).rounds.size();
  };
  EXPECT_EQ(rounds(1, KeepWeights::automatic), 1U);
  EXPECT_EQ(rounds(2, KeepWeights::automatic), 8U);
  EXPECT_EQ(rounds(4, KeepWeights::automatic), 16U);
  EXPECT_EQ(rounds(4, KeepWeights::never), 4U);  // each reads all weights
  // Fewer windows than a micro-batch holds are shared out all the same.
  windows_ = windows_of(4, 64);
  EXPECT_EQ(plan({.device_limit = kGigabyte, .workers = 4}).rounds.size(), 4U);
}

}  // namespace
}  // namespace mxlm
