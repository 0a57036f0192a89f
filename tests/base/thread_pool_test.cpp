#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "base/parallel.hpp"

namespace mxlm {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    for (const int64_t tasks : {0, 1, 2, 3, 1000}) {
      std::vector<int> runs(static_cast<size_t>(tasks), 0);  // plain ints: a task run twice at once would be a race
      std::atomic<bool> worker_in_range{true};
      pool.run(tasks, [&](int64_t task, int worker) {
        ++runs[static_cast<size_t>(task)];
        if (worker < 0 || worker >= threads) worker_in_range = false;
      });
      EXPECT_EQ(runs, std::vector<int>(static_cast<size_t>(tasks), 1)) << threads << " threads, " << tasks << " tasks";
      EXPECT_TRUE(worker_in_range);
    }
  }
}

// Each loop reads what the one before it wrote, without any other synchronisation.
TEST(ThreadPool, ALoopSeesWhatTheLoopBeforeItWrote) {
  constexpr int64_t kTasks = 64;
  ThreadPool pool(4);
  std::vector<int64_t> from(kTasks), to(kTasks);
  std::iota(from.begin(), from.end(), 0);
  for (int round = 0; round < 300; ++round) {
    pool.run(kTasks, [&](int64_t task, int) {
      to[static_cast<size_t>(task)] = from[static_cast<size_t>((task + 1) % kTasks)];
    });
    from.swap(to);
  }
  for (int64_t i = 0; i < kTasks; ++i) EXPECT_EQ(from[static_cast<size_t>(i)], (i + 300) % kTasks);
}

// Two tasks of one loop never share a worker's own place at the same time.
TEST(ThreadPool, AWorkerNumberBelongsToOneThreadAtATime) {
  ThreadPool pool(4);
  std::vector<int64_t> sums(4, 0);
  pool.run(10000, [&](int64_t task, int worker) { sums[static_cast<size_t>(worker)] += task; });
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), int64_t{9999} * 10000 / 2);
}

TEST(ThreadPool, RethrowsAndGoesOnWorking) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      EXPECT_THROW(pool.run(100,
                            [](int64_t task, int) {
                              if (task % 7 == 3) throw std::runtime_error("task");
                            }),
                   std::runtime_error);
      std::atomic<int> runs{0};
      pool.run(100, [&](int64_t, int) { ++runs; });
      EXPECT_EQ(runs, 100);
    }
  }
}

TEST(ThreadPool, CountsAtLeastOneCore) { EXPECT_GE(default_thread_count(), 1); }

}  // namespace
}  // namespace mxlm
