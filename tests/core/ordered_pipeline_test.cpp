// Many threads, one order: delays, budgets and errors of the ordered pipeline.
#include "grist/core/ordered_pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace grist {
namespace {

using Numbers = std::vector<std::size_t>;

// An item is its number; work doubles it.
struct Item {
  std::size_t number = 0, result = 0;
};

struct Trial {
  PipelineOptions options;
  std::size_t items = 200;
  std::function<void(std::size_t number)> reading = [](std::size_t) {};
  std::function<void(std::size_t number)> working = [](std::size_t) {};
  std::function<void(std::size_t number)> writing = [](std::size_t) {};
  std::function<void(int worker)> starting = [](int) {};
  std::size_t item_bytes = 1;

  Numbers written{};  // results, also of a run that throws

  void go() {
    std::vector<Item> items_in(options.slots());
    std::size_t next = 0;
    run_in_order(options, {.read =
                               [&](std::size_t slot) {
                                 if (next == items) return false;
                                 reading(next);
                                 items_in[slot] = {.number = next++, .result = 0};
                                 return true;
                               },
                           .make_worker =
                               [&](int worker) {
                                 starting(worker);
                                 return [&](std::size_t slot) {
                                   working(items_in[slot].number);
                                   items_in[slot].result = 2 * items_in[slot].number;
                                 };
                               },
                           .write =
                               [&](std::size_t slot) {
                                 writing(items_in[slot].number);
                                 written.push_back(items_in[slot].result);
                               },
                           .bytes = [&](std::size_t) { return item_bytes; }});
  }
  std::string error() {
    try {
      go();
    } catch (const std::exception& e) {
      return e.what();
    }
    return "";
  }
};

Numbers doubled(std::size_t count) {
  Numbers out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = 2 * i;
  return out;
}

[[noreturn]] void break_at(const char* stage, std::size_t number) {
  throw std::runtime_error(std::string(stage) + " " + std::to_string(number));
}

void sleep_us(std::size_t us) {
  std::this_thread::sleep_for(std::chrono::microseconds(us));
}

TEST(OrderedPipeline, WritesInTheOrderOfReadingWhateverWorkTakes) {
  for (const int threads : {1, 2, 7}) {
    Trial run{.options = {.threads = threads}};
    std::vector<std::atomic<int>> worked(run.items);
    run.working = [&](std::size_t n) {
      sleep_us(n % 13 == 0 ? 2000 : n * 37 % 90);
      ++worked[n];
    };

    run.go();

    EXPECT_EQ(run.written, doubled(run.items)) << threads;
    EXPECT_TRUE(std::all_of(worked.begin(), worked.end(), [](const auto& w) { return w == 1; }));
  }
}

TEST(OrderedPipeline, MakesOneWorkerAThreadAndReadsNothingFromNothing) {
  Trial run{.options = {.threads = 5}, .items = 0};
  std::vector<std::atomic<int>> started(5);
  run.starting = [&](int worker) { ++started[static_cast<std::size_t>(worker)]; };

  run.go();

  EXPECT_TRUE(std::all_of(started.begin(), started.end(), [](const auto& s) { return s == 1; }));
  EXPECT_TRUE(run.written.empty());
}

// The writer is slow, so that the reader runs against the budget: it begins to read with less than
// 40 bytes in flight.
TEST(OrderedPipeline, HoldsNoMoreThanItsBudget) {
  Trial run{.options = {.threads = 6, .max_bytes = 40}, .items = 60, .item_bytes = 10};
  std::atomic<std::size_t> in_flight = 0, most = 0;
  run.reading = [&](std::size_t) { most = std::max(most.load(), ++in_flight); };
  run.writing = [&](std::size_t) {
    sleep_us(300);
    --in_flight;
  };

  run.go();

  // One that is just written still counts for the pipeline, so there are never five here.
  EXPECT_LE(most, 4U);
  EXPECT_GE(most, 2U);
  EXPECT_EQ(run.written, doubled(60));
}

TEST(OrderedPipeline, AnItemLargerThanTheBudgetPassesAlone) {
  Trial run{.options = {.threads = 3, .max_bytes = 40}, .items = 20, .item_bytes = 1000};
  std::atomic<int> in_flight = 0, most = 0;
  run.reading = [&](std::size_t) { most = std::max(most.load(), ++in_flight); };
  run.writing = [&](std::size_t) { --in_flight; };

  run.go();

  EXPECT_EQ(most, 1);
  EXPECT_EQ(run.written, doubled(20));
}

TEST(OrderedPipeline, AnErrorOfAWorkerIsThrownAtItsItem) {
  for (const int threads : {1, 2, 7}) {
    Trial run{.options = {.threads = threads}};
    run.working = [](std::size_t n) {
      if (n == 40) sleep_us(3000);  // those behind it fail first
      if (n >= 40) break_at("work", n);
    };

    EXPECT_EQ(run.error(), "work 40") << threads;

    EXPECT_EQ(run.written, doubled(40)) << threads;
  }
}

TEST(OrderedPipeline, AnErrorOfTheReaderComesBehindTheItemsBefore) {
  for (const int threads : {1, 4}) {
    Trial run{.options = {.threads = threads}};
    run.reading = [](std::size_t n) {
      if (n == 50) break_at("read", n);
    };
    run.working = [](std::size_t n) { sleep_us(n % 5 * 100); };

    EXPECT_EQ(run.error(), "read 50");

    EXPECT_EQ(run.written, doubled(50));
  }
}

TEST(OrderedPipeline, TheFirstErrorInTheOrderOfItemsWins) {
  Trial run{.options = {.threads = 4}};
  run.reading = [](std::size_t n) {
    if (n == 30) break_at("read", n);
  };
  run.working = [](std::size_t n) {
    if (n == 29) sleep_us(2000);
    if (n == 29) break_at("work", n);
  };

  EXPECT_EQ(run.error(), "work 29");
  EXPECT_EQ(run.written, doubled(29));
}

TEST(OrderedPipeline, AnErrorOfTheWriterEndsTheRun) {
  Trial run{.options = {.threads = 4}};
  run.writing = [](std::size_t n) {
    if (n == 10) break_at("write", n);
  };

  EXPECT_EQ(run.error(), "write 10");

  EXPECT_EQ(run.written, doubled(10));
}

TEST(OrderedPipeline, AWorkerThatCannotStartIsAnErrorEvenWhenItWasNotNeeded) {
  Trial run{.options = {.threads = 4}, .items = 1};
  run.starting = [](int worker) {
    if (worker == 3) sleep_us(5000);
    if (worker == 3) break_at("start", 3);
  };

  EXPECT_EQ(run.error(), "start 3");
}

}  // namespace
}  // namespace grist
