#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "grist/core/context.h"
#include "grist/core/error.h"

namespace grist {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const std::int64_t count : {0, 1, 2, 1000}) {
      std::vector<int> hits(static_cast<std::size_t>(count));
      std::atomic<bool> worker_ok{true};
      pool.run(count, [&](std::int64_t i, int worker) {
        ++hits[static_cast<std::size_t>(i)];
        if (worker < 0 || worker >= threads) worker_ok = false;
      });
      EXPECT_EQ(hits, std::vector<int>(static_cast<std::size_t>(count), 1));
      EXPECT_TRUE(worker_ok);
    }
  }
}

TEST(ThreadPool, IsReadyForManyShortRounds) {
  ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  for (int round = 0; round < 1000; ++round)
    pool.run(3, [&](std::int64_t i, int /*worker*/) { sum += i; });
  EXPECT_EQ(sum, 3000);
}

// Of the caller's tasks: one thread that goes on is enough.
TEST(ParallelFor, GivesSignsOfLifeWhileItWorks) {
  ThreadPool pool(2);
  for (ThreadPool* threads : {static_cast<ThreadPool*>(nullptr), &pool}) {
    std::atomic<std::uint64_t> beats{0}, by_caller{0};
    Context ctx(threads);
    ctx.beats = &beats;
    parallel_for(ctx, 100, [&](std::int64_t /*i*/, int worker) { by_caller += worker == 0; });
    EXPECT_EQ(beats, by_caller);
    if (threads == nullptr) {
      EXPECT_EQ(beats, 100U);
    }
  }
}

TEST(ThreadPool, RethrowsATasksErrorAndGoesOn) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      try {
        pool.run(100, [](std::int64_t i, int /*worker*/) {
          if (i == 37) throw Error(ExitCode::bad_data, "task 37");
        });
        FAIL() << "no error";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ExitCode::bad_data);
        EXPECT_STREQ(e.what(), "task 37");
      }
      std::atomic<int> done{0};
      pool.run(50, [&](std::int64_t /*i*/, int /*worker*/) { ++done; });
      EXPECT_EQ(done, 50);
    }
  }
}

TEST(ThreadPool, ErrorsOfSeveralTasksArriveAsOne) {
  ThreadPool pool(4);
  EXPECT_THROW(pool.run(64, [](std::int64_t, int) { throw std::runtime_error("all"); }),
               std::runtime_error);
}

TEST(ThreadPool, NestedCallsRunInTheCallingThread) {
  ThreadPool pool(4);
  const Context ctx(&pool);
  std::vector<std::int64_t> sums(20);
  pool.run(20, [&](std::int64_t i, int /*worker*/) {
    parallel_for(ctx, 10, [&](std::int64_t j, int /*inner*/) {
      sums[static_cast<std::size_t>(i)] += j;  // no lock: one thread runs all ten
    });
  });
  EXPECT_EQ(sums, std::vector<std::int64_t>(20, 45));
}

TEST(ThreadPool, NestedErrorsArriveToo) {
  ThreadPool pool(3);
  const Context ctx(&pool);
  EXPECT_THROW(parallel_for(ctx, 8,
                            [&](std::int64_t, int) {
                              parallel_for(ctx, 4, [](std::int64_t j, int) {
                                if (j == 2) throw std::runtime_error("inner");
                              });
                            }),
               std::runtime_error);
}

TEST(ParallelFor, WorksWithoutAPool) {
  std::vector<std::int64_t> order;
  parallel_for({}, 4, [&](std::int64_t i, int worker) {
    EXPECT_EQ(worker, 0);
    order.push_back(i);
  });
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3}));
}

// Two tasks that wait for each other run in two threads, so one of them is the pool's own.
TEST(FlushDenormals, HoldsInThePoolsThreads) {
  ThreadPool pool(2);
  std::atomic<int> started{0};
  std::vector<float> halves(2, -1.0F);  // by worker
  volatile float tiny = std::numeric_limits<float>::min();
  pool.run(2, [&](std::int64_t /*i*/, int worker) {
    ++started;
    while (started < 2) std::this_thread::yield();
    halves[static_cast<std::size_t>(worker)] = tiny * 0.5F;
  });
  EXPECT_EQ(halves[1], 0.0F);
  EXPECT_NE(halves[0], -1.0F);
}

}  // namespace
}  // namespace grist
