#include "base/interrupt.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/error.hpp"
#include "base/parallel.hpp"

namespace mxlm {
namespace {

TEST(CancellationScope, HoldsForItsThreadWhileItLives) {
  std::atomic<bool> stop{false};
  const Cancelled asks = [&] { return stop.load(); };
  EXPECT_FALSE(interrupt_requested());
  {
    const CancellationScope scope(&asks);
    EXPECT_FALSE(interrupt_requested());
    stop = true;
    EXPECT_TRUE(interrupt_requested());
    EXPECT_THROW(throw_if_interrupted(), Interrupted);
    bool elsewhere = true;
    std::thread([&] { elsewhere = interrupt_requested(); }).join();
    EXPECT_FALSE(elsewhere);
    const Cancelled never;
    const CancellationScope inner(&never);
    EXPECT_FALSE(interrupt_requested());
  }
  EXPECT_FALSE(interrupt_requested());
}

TEST(CancellationScope, ReachesTheThreadsOfAPool) {
  const Cancelled always = [] { return true; };
  const CancellationScope scope(&always);
  ThreadPool pool(3);
  std::atomic<int> cancelled{0};
  pool.run(300, [&](int64_t /*task*/, int /*worker*/) { cancelled += interrupt_requested() ? 1 : 0; });
  EXPECT_EQ(cancelled, 300);
  EXPECT_THROW(pool.run(3, [](int64_t /*task*/, int /*worker*/) { throw_if_interrupted(); }), Interrupted);
}

}  // namespace
}  // namespace mxlm
