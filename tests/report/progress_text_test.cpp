#include "report/progress_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mxlm {
namespace {

using testing::HasSubstr;
using testing::Not;

Progress progress_of(int devices) {
  Progress out{.done = 500'000'000, .total = 1e9, .seconds = 3000, .round = 499, .rounds = 1000, .devices = {}};
  for (int i = 0; i < devices; ++i) {
    out.devices.push_back({.done = 1,
                           .index = i,
                           .memory_bytes = 80'000'000'000,
                           .sample = {.utilization = 90 + i,
                                      .memory_used = 71'000'000'000,
                                      .temperature = 65,
                                      .power = 640.4,
                                      .sm_clock = 1980,
                                      .energy_joules = 1}});
  }
  return out;
}

TEST(ProgressText, WithoutDevicesIsAsItAlwaysWas) {
  EXPECT_EQ(progress_text("booklet-7m", progress_of(0)),
            "booklet-7m: 50% (shard 500 of 1000), 166667 tokens/s, 50 min 0 s left");
}

TEST(ProgressText, FitsIn80ColumnsWithEveryDevice) {
  for (const char* name : {"booklet-7m", "a-model-with-a-very-long-name-indeed"}) {
    for (int devices = 1; devices <= 8; ++devices) {
      const std::string line = progress_text(name, progress_of(devices));
      EXPECT_LE(line.size(), 80U) << line;
      EXPECT_THAT(line, HasSubstr("50%"));
      // The utilisation of each.
      for (int i = 0; i < devices; ++i) {
        EXPECT_THAT(line.substr(line.find('|')), HasSubstr(std::to_string(90 + i))) << line;
      }
    }
  }
}

TEST(ProgressText, FitsWithEightBusyDevicesAndLongNumbers) {
  for (const int devices : {8, 16, 64}) {
    Progress progress = progress_of(devices);
    for (DeviceProgress& device : progress.devices) device.sample.utilization = 100;
    progress.done = 9e9;
    progress.total = 2e11;
    const std::string same = progress_text("a-model-with-a-very-long-name-indeed", progress);
    EXPECT_LE(same.size(), 80U) << same;
    EXPECT_THAT(same, HasSubstr(std::to_string(devices) + " gpus 100%"));
    progress.devices.back().sample.utilization = 77;
    const std::string range = progress_text("a-model-with-a-very-long-name-indeed", progress);
    EXPECT_LE(range.size(), 80U) << range;
    EXPECT_THAT(range, HasSubstr(" gpus 77-100%"));
  }
}

TEST(DeviceText, SaysAsMuchAsThereIsRoomFor) {
  const auto one = progress_of(1).devices, two = progress_of(2).devices;
  EXPECT_EQ(device_text(one, 80), " | gpu0 90% 71/80 GB 65 C 640 W 1.98 GHz");
  EXPECT_EQ(device_text(one, 30), " | gpu0 90% 71/80 GB 640 W");
  EXPECT_EQ(device_text(one, 20), " | gpu0 90% 640 W");
  EXPECT_EQ(device_text(one, 10), " | 0:90%");
  EXPECT_EQ(device_text(two, 80), " | gpu0 90% 71/80 GB 65 C 640 W 1.98 GHz, gpu1 91% 71/80 GB 65 C 640 W 1.98 GHz");
  EXPECT_EQ(device_text(two, 20), " | 0:90% 1:91%");
  EXPECT_EQ(device_text(progress_of(8).devices, 40), " | gpus 90 91 92 93 94 95 96 97%");
  EXPECT_EQ(device_text(progress_of(8).devices, 30), " | 8 gpus 90-97%");
  auto unknown = progress_of(3).devices;
  unknown[1].sample.utilization = std::nullopt;
  EXPECT_EQ(device_text(unknown, 16), " | gpus 90 ? 92%");
  EXPECT_EQ(device_text(unknown, 15), "");
  EXPECT_EQ(device_text(one, 5), "");
  EXPECT_EQ(device_text({}, 80), "");
  EXPECT_EQ(device_text({DeviceProgress{}}, 80), "");  // nothing is measured
}

}  // namespace
}  // namespace mxlm
